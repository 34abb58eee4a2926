"""Evaluation: do explanations point where people look, does the model obey them, do they depend on it at all?

    hit = jax.vmap(SCORES["pointing_game"])(heat, masks)                        # [B]
    curves = jax.vmap(SCORES["deletion"], (0, None, 0, 0))(heat, net, images, labels)    # [B,T+1]
    area = auc(curves)                                                          # [B]

Every score is for one example; the caller vmaps, and passes `net` as an argument of what it jits. The form tells the kind:

* alignment, f(heatmap [H,W], mask [H,W] bool): `alignment`
* faithfulness, f(heatmap, net, image, label): curves [T+1] in `faithfulness`, scalars in `correlation`
* stability, f(explain, net, image, label): `sanity`
* complexity, f(heatmap): `concentration`

A heat map of another size than its image or mask is a ValueError. What becomes of a map of zeros or with a NaN stands in each
of these modules: it never hits, and its ranking is as good as chance. What needs many images or models is a plain function:
`pointing_accuracy`, `is_difficult`, `pooled_sensitivity_n`, `degradation_score`, `cross_model_deletion`.

A new score is one function of such a form and one line in `SCORES`.
"""

from mixaug_jax.scores.agreement import similarity
from mixaug_jax.scores.alignment import (
    best_box_iou,
    box_ratio,
    effective_heat_ratio,
    energy_pointing_game,
    is_difficult,
    mass_accuracy,
    pointing_accuracy,
    pointing_game,
    rank_accuracy,
)
from mixaug_jax.scores.comparison import cross_model_deletion, degradation_score, readings
from mixaug_jax.scores.concentration import complexity, effective_complexity, sparseness
from mixaug_jax.scores.correlations import (
    infidelity,
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
)
from mixaug_jax.scores.stability import (
    class_sensitivity,
    completeness,
    max_sensitivity,
    parameter_randomization,
    randomized_similarities,
)

__all__ = [
    "SCORES",
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

SCORES = {
    "best_box_iou": best_box_iou,
    "box_ratio": box_ratio,
    "class_sensitivity": class_sensitivity,
    "completeness": completeness,
    "complexity": complexity,
    "deletion": deletion,
    "effective_complexity": effective_complexity,
    "effective_heat_ratio": effective_heat_ratio,
    "energy_pointing_game": energy_pointing_game,
    "infidelity": infidelity,
    "insertion": insertion,
    "lerf": lerf,
    "mass_accuracy": mass_accuracy,
    "max_sensitivity": max_sensitivity,
    "morf": morf,
    "parameter_randomization": parameter_randomization,
    "pixel_flipping": pixel_flipping,
    "pointing_game": pointing_game,
    "rank_accuracy": rank_accuracy,
    "road": road,
    "sensitivity_n": sensitivity_n,
    "sparseness": sparseness,
}
