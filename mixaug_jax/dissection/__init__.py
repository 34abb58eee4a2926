"""Network Dissection: which human-recognisable concepts the units of a network detect.

Bau, Zhou, Khosla, Oliva, Torralba: "Network Dissection: Quantifying Interpretability of Deep Visual
Representations", CVPR 2017.

    thresholds = quantile(activations, 0.01, size=(56, 56))
    counts = tally(activations, thresholds, segmentation, num_concepts, categories=categories)
    labels, values = best_by_category(counts.iou(), categories)
    detectors, unique = count_detectors(labels, values)
"""

from mixaug_jax.dissection.counting import (
    Tally,
    best_by_category,
    best_labels,
    bootstrap,
    count_detectors,
    derangements,
    image_weights,
    tally,
    tally_orders,
    top_labels,
)
from mixaug_jax.dissection.thresholds import quantile

__all__ = [
    "Tally",
    "best_by_category",
    "best_labels",
    "bootstrap",
    "count_detectors",
    "derangements",
    "image_weights",
    "quantile",
    "tally",
    "tally_orders",
    "top_labels",
]
