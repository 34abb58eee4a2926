"""Scores: do explanations point where people look, does the network obey them, do they depend on it at all?

    hit = jax.vmap(SCORES["pointing_game"])(heat, masks)                        # [B]
    curves = jax.vmap(SCORES["deletion"], (0, None, 0, 0))(heat, net, images, labels)    # [B,T+1]
    area = auc(curves)                                                          # [B]

Every score is for one example; the caller vmaps, and passes `net` as an argument of what it jits. The form tells the kind:

* alignment, f(heatmap [H,W], mask [H,W] bool): `alignment`
* faithfulness, f(heatmap, net, image, label): curves [T+1] in `faithfulness`, scalars in `correlations`
* stability, f(explain, net, image, label): `stability`
* complexity, f(heatmap): `concentration`

A heat map of another size than its image or mask is a ValueError. What becomes of a map of zeros or with a NaN stands in each
of these modules: it never hits, and its ranking is as good as chance. What needs many images or models is a plain function:
`pointing_accuracy`, `is_difficult`, `pooled_sensitivity_n`, `degradation_score`, `cross_model_deletion`.

A new score is one function of such a form and one line in `SCORES`; what its signature cannot say, such as whether larger is
better, stands in a record `Score`.
"""

from mixaug_jax.scores.agreement import similarity
from mixaug_jax.scores.alignment import (
    background,
    below_half_only,
    best_box_iou,
    box_ratio,
    class_mean,
    difficult_only,
    effective_heat_ratio,
    energy_pointing_game,
    is_difficult,
    mass_accuracy,
    pointing_accuracy,
    pointing_game,
    rank_accuracy,
    small_only,
)
from mixaug_jax.scores.comparison import (
    Removal,
    cross_model_deletion,
    degradation,
    degradation_score,
    readings,
)
from mixaug_jax.scores.concentration import complexity, effective_complexity, sparseness
from mixaug_jax.scores.correlations import (
    infidelity,
    mean_correlation,
    pooled,
    pooled_sensitivity_n,
    sensitivity_n,
    subset_drops,
    subset_sizes,
)
from mixaug_jax.scores.faithfulness import (
    auc,
    deletion,
    insertion,
    lerf,
    morf,
    pixel_flipping,
    road,
    road_direction,
    road_positions,
)
from mixaug_jax.scores.score import Part, Score
from mixaug_jax.scores.stability import (
    Randomization,
    class_sensitivity,
    completeness,
    magnitude,
    max_sensitivity,
    parameter_randomization,
    randomized_similarities,
)

__all__ = [
    "SCORES",
    "Part",
    "Randomization",
    "Removal",
    "Score",
    "auc",
    "cross_model_deletion",
    "degradation_score",
    "is_difficult",
    "pointing_accuracy",
    "pooled_sensitivity_n",
    "randomized_similarities",
    "readings",
    "similarity",
    "subset_drops",
    "subset_sizes",
]

_SHARE, _CORRELATION = (0.0, 1.0), (-1.0, 1.0)  # scales
_RISE = "share of the pixels removed"
_DEGRADATION = "share of the tiles removed"
SCORES = {
    "best_box_iou": Score(best_box_iou, better=1, scale=_SHARE),
    "box_ratio": Score(
        box_ratio,
        better=1,
        scale=_SHARE,
        also={"box_ratio_small": Part(small_only, 1, "box ratio, small objects", scale=_SHARE)},
    ),
    "class_sensitivity": Score(class_sensitivity, better=-1, scale=_CORRELATION),
    "completeness": Score(completeness, better=-1, value=magnitude, title="miss of completeness"),
    "complexity": Score(complexity, better=-1),
    "deletion": Score(
        deletion,
        better=-1,
        title="area under the deletion curve",
        axis=_RISE,
        headline=True,
        scale=_SHARE,
        ties=True,
    ),
    "effective_complexity": Score(effective_complexity, better=-1),
    "effective_heat_ratio": Score(effective_heat_ratio, better=1, scale=_SHARE),
    "energy_pointing_game": Score(
        energy_pointing_game,
        better=1,
        title="attribution on the object",
        scale=_SHARE,
        also={
            "energy_pointing_game_small": Part(
                below_half_only, 1, "attribution on the object, small objects", scale=_SHARE
            ),
            "background_attribution": Part(
                background,
                -1,
                "attribution on the background",
                headline=True,
                view=False,
                scale=_SHARE,
            ),
        },
    ),
    "infidelity": Score(infidelity, better=-1),
    "insertion": Score(
        insertion,
        better=1,
        title="area under the insertion curve",
        axis="share of the pixels inserted",
        scale=_SHARE,
        ties=True,
    ),
    "lerf": Score(
        lerf,
        better=1,
        title="LeRF area",
        axis=f"{_DEGRADATION}, least relevant first",
        scale=_SHARE,
        summaries={"degradation_score": Part(degradation, 1, view=False, scale=_CORRELATION)},
    ),
    "mass_accuracy": Score(mass_accuracy, better=1, scale=_SHARE),
    "max_sensitivity": Score(max_sensitivity, better=-1),
    "morf": Score(
        morf,
        better=-1,
        title="MoRF area",
        axis=f"{_DEGRADATION}, most relevant first",
        scale=_SHARE,
        ties=True,
    ),
    "parameter_randomization": Score(parameter_randomization, better=-1, scale=_CORRELATION),
    "pixel_flipping": Score(pixel_flipping, better=-1, axis=_RISE, scale=_SHARE, ties=True),
    "pointing_game": Score(
        pointing_game,
        better=1,
        title="pointing game",
        headline=True,
        hits=True,
        scale=_SHARE,
        also={
            "pointing_game_difficult": Part(
                difficult_only, 1, "pointing game, difficult images", scale=_SHARE
            )
        },
        summaries={
            "pointing_game_class_mean": Part(class_mean("pointing_game"), 1, scale=_SHARE),
            "pointing_game_difficult_class_mean": Part(
                class_mean("pointing_game_difficult"), 1, scale=_SHARE
            ),
        },
    ),
    "rank_accuracy": Score(rank_accuracy, better=1, scale=_SHARE),
    "road": Score(
        road,
        better=road_direction,
        title="ROAD",
        axis=_RISE,
        positions=road_positions,
        scale=_SHARE,
    ),
    "sensitivity_n": Score(
        sensitivity_n,
        better=1,
        title="sensitivity-n",
        measure=subset_drops,
        value=mean_correlation,
        scale=_CORRELATION,
        summaries={"sensitivity_n_pooled": Part(pooled, 1, view=False, scale=_CORRELATION)},
    ),
    "sparseness": Score(sparseness, better=1, scale=_SHARE),
}
