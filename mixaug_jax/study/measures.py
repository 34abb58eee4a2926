"""What a study measures: the names of its numbers, and which way is better."""

import dataclasses

# other: scores that a user added, which are in the tables.
AXES = (
    "accuracy",
    "concepts",
    "alignment",
    "faithfulness",
    "stability",
    "complexity",
    "occlusion",
    "other",
)
READINGS = ("own_vs_others", "fixed_evaluators", "gain_over_random")
# Whether larger (1) or smaller (-1) is better; a name that is not here has no better side.
BETTER = {
    "test_accuracy": 1,
    "unique": 1,
    "unique_above_shuffled": 1,
    "unique_shuffled": 0,
    "unique_random": 0,
    "pointing_game": 1,
    "pointing_game_difficult": 1,
    "energy_pointing_game": 1,
    "energy_pointing_game_small": 1,
    "background_attribution": -1,
    "box_ratio": 1,
    "box_ratio_small": 1,
    "best_box_iou": 1,
    "effective_heat_ratio": 1,
    "mass_accuracy": 1,
    "rank_accuracy": 1,
    "deletion": -1,
    "insertion": 1,
    "morf": -1,
    "lerf": 1,
    "pixel_flipping": -1,
    "sensitivity_n": 1,
    "infidelity": -1,
    "max_sensitivity": -1,
    "class_sensitivity": -1,
    "parameter_randomization": -1,
    "sparseness": 1,
    "complexity": -1,
    "effective_complexity": -1,
    "own_vs_others": 1,
    "fixed_evaluators": -1,
    "gain_over_random": 1,
}
_SCORES = {
    "alignment": ("pointing_game", "pointing_game_difficult", "energy_pointing_game", "energy_pointing_game_small",
                  "background_attribution", "box_ratio", "box_ratio_small", "best_box_iou", "effective_heat_ratio",
                  "mass_accuracy", "rank_accuracy"),
    "faithfulness": ("deletion", "insertion", "morf", "lerf", "road", "pixel_flipping", "sensitivity_n", "infidelity"),
    "stability": ("max_sensitivity", "completeness", "parameter_randomization", "class_sensitivity"),
    "complexity": ("sparseness", "complexity", "effective_complexity"),
}  # fmt: skip
AXIS_OF = {name: axis for axis, names in _SCORES.items() for name in names}


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number that every run has, or could have.

    Attributes:
      axis: one of `AXES`.
      name: accuracy: "test_accuracy". concepts: "unique", "unique_shuffled" (mean of the shuffled null),
        "unique_above_shuffled" (their difference) and "unique_random" (random weights). alignment, faithfulness, stability,
        complexity: the score's name in `evaluation.SCORES`, its mean over images (a curve's area), and
        "background_attribution", 1 - energy_pointing_game; faithfulness also has the readings of
        `evaluation.cross_model_deletion`, "own_vs_others", "fixed_evaluators" and "gain_over_random". occlusion:
        "accuracy_change" of each removal; "lowest_removed", its mean over scores, shares and values where the units of
        smallest magnitude go; "rising_above_chance", how many removals raise the accuracy beyond those that would if none had
        an effect.
      subject: what it is measured on: a stage of the network, an attribution method or a control.
      setting: concepts: the convention, "unit" or "category". occlusion: selection, replacement, and whose loss ranks.
      level: concepts: the IoU threshold. occlusion: the share of the input that is occluded. Else 0.
      category: concepts: the category, or "total". Else "".
      better: 1 where larger is better, -1 where smaller is, 0 where neither.
      headline: whether the axis's sentence judges it, and Holm's correction counts it.
      control: whether `subject` is a control (random, center, sobel), which knows nothing of the network.
    """

    axis: str
    name: str
    subject: str = ""
    setting: str = ""
    level: float = 0.0
    category: str = ""
    better: int = 1
    headline: bool = False
    control: bool = False
