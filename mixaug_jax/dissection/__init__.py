"""Network Dissection: which human-recognizable concepts the units of a network detect.

Bau, Zhou, Khosla, Oliva, Torralba: "Network Dissection: Quantifying Interpretability of Deep Visual
Representations", CVPR 2017.

    thresholds = quantile(activations, 0.01, size=(56, 56))
    counts = tally(activations, thresholds, segmentation, num_concepts, categories=categories)
    labels, values = best_by_category(counts.iou(), categories)
    detectors, unique = count_detectors(labels, values)

or, from a network and images with label maps to all of that and its chance levels,

    results = dissect(net, dataset, ("layer4",), Options(q=0.005))

or, from activations that any network gave, in whatever framework,

    result = dissect_arrays(activations, segmentation, names)

What units are needed for, `remove` (`interventions`) and `insert` say.
"""

from mixaug_jax.dissection.arrays import dissect_arrays
from mixaug_jax.dissection.broden import open_broden
from mixaug_jax.dissection.concepts import (
    LabelMaps,
    Vocabulary,
    add_colors,
    annotate,
    make_label_maps,
)
from mixaug_jax.dissection.counting import (
    Halves,
    Tally,
    best_by_category,
    best_labels,
    count_detectors,
    derangements,
    tally,
    tally_halves,
    tally_orders,
    top_labels,
)
from mixaug_jax.dissection.inserting import insert
from mixaug_jax.dissection.intervening import Asked, Seen, intervene
from mixaug_jax.dissection.interventions import Removing, remove
from mixaug_jax.dissection.matching import Matched, Matching, match
from mixaug_jax.dissection.network import dissect
from mixaug_jax.dissection.pairs import Comparison, compare
from mixaug_jax.dissection.result import Dissection, Options, Resources, load, save
from mixaug_jax.dissection.tables import Counting
from mixaug_jax.dissection.thresholds import quantile

__all__ = [
    "Asked",
    "Comparison",
    "Counting",
    "Dissection",
    "Halves",
    "LabelMaps",
    "Matched",
    "Matching",
    "Options",
    "Removing",
    "Resources",
    "Seen",
    "Tally",
    "Vocabulary",
    "add_colors",
    "annotate",
    "best_by_category",
    "best_labels",
    "compare",
    "count_detectors",
    "derangements",
    "dissect",
    "dissect_arrays",
    "insert",
    "intervene",
    "load",
    "make_label_maps",
    "match",
    "open_broden",
    "quantile",
    "remove",
    "save",
    "tally",
    "tally_halves",
    "tally_orders",
    "top_labels",
]
