"""What a study measures: the names of its numbers, and which way is better."""

import dataclasses

from mixaug_jax.core import stats

AXES = (
    "accuracy",
    "concepts",
    "interventions",
    "alignment",
    "faithfulness",
    "stability",
    "complexity",
    "occlusion",
    "relevance",
)
READINGS = ("own_vs_others", "fixed_evaluators", "gain_over_random")
JUDGED = ("own_vs_others", "gain_over_random")  # by the sentences
# Whether larger (1) or smaller (-1) is better, of what no score says.
BETTER = {
    "test_accuracy": 1,
    "validation_accuracy": 1,
    "unique": 1,
    "unique_above_shuffled": 1,
    "unique_shuffled": 0,
    "unique_random": 0,
    "removal_area": 1,
    "ranked_gap": 0,
    "detector_harm": 0,
    "single_drop": -1,
    "own_vs_others": 1,
    "fixed_evaluators": -1,
    "gain_over_random": 1,
    "unbiased_accuracy": 1,
    "ambiguous_accuracy": 1,
    "points_at_class": 1,
}


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number that every run has, or could have.

    Attributes:
      axis: one of `AXES`.
      name: accuracy: "test_accuracy", or "validation_accuracy" of runs without a test split. concepts: "unique",
        "unique_shuffled" (mean of the shuffled null), "unique_above_shuffled" (their difference) and "unique_random" (random
        weights). interventions: "removal_area", "ranked_gap", "detector_harm" and "single_drop", see
        `dissection.removal_result.summary`. alignment, faithfulness, stability, complexity: the score's name in
        `scores.SCORES`, its mean over images (a curve's area), and "background_attribution", 1 - energy_pointing_game;
        faithfulness also has the readings of `scores.cross_model_deletion`, "own_vs_others", "fixed_evaluators" and
        "gain_over_random". occlusion: "accuracy_change" of each removal; "lowest_removed", its mean over rankings, shares and
        values where the units of smallest magnitude go; "rising_above_chance", how many removals raise the accuracy beyond
        those that would if none had an effect. relevance (of animals): "flips_<attribute>", the share of predictions
        that flip where that attribute is drawn again; "unbiased_accuracy" and "ambiguous_accuracy", see
        `papers.relevance.relevance_result.accuracies`; "points_at_class", of explanations.
      subject: what it is measured on: a layer of the network, an attribution method or a control.
      setting: concepts: the convention, "unit" or "category". occlusion: selection, replacement, and whose loss ranks.
      level: concepts: the IoU threshold. occlusion: the share of the input that is occluded. Else 0.
      category: concepts: the category, or "total". Else "".
      better: 1 where larger is better, -1 where smaller is, 0 where neither.
      title: the name in words, where whoever made the number says so.
      scale: the least and the largest value there can be.
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
    title: str = ""
    scale: tuple[float, float] = stats.ANYWHERE
    headline: bool = False
    control: bool = False
