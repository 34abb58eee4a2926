"""What the unit browser says of units beside their pictures: IoU with concepts, logical forms, what they are needed for."""

from typing import Any

import numpy as np

from mixaug_jax.core.types import Scalar
from mixaug_jax.dissection import removal_result, unit_sets
from mixaug_jax.dissection.removal_result import Intervention
from mixaug_jax.dissection.result import Dissection

PROFILE = 8  # concepts of a unit that are named
CLASSES = 5  # classes that lose most without it


def of_units(result: Dissection, removed: Intervention | None) -> list[dict[str, Any]]:
    """What JSON can hold of each unit; what is not there has no entry.

    concepts: [number, IoU] of those that it has a pixel in common with, best first; fits: precision and recall of the first;
    form: the text of its logical form, its IoU, and whether it is above chance (None without shuffles); classes: [number, drop
    of its accuracy on training images, on the others] without the unit; selective: the class that moves it most, and how much.
    """
    labels, values = result.top_labels(PROFILE)
    tally = result.tally
    found: list[dict[str, Any]] = []
    for unit, (numbers, iou) in enumerate(zip(labels, values, strict=True)):
        # What a unit has no pixel in common with is no match, although the order of ties has one.
        known = [[int(c), short(v)] for c, v in zip(numbers, iou, strict=True) if v]
        one: dict[str, Any] = {"concepts": known}
        if known:
            both = tally.intersection[unit, known[0][0]]
            one["fits"] = [
                short(both / max(1, area))
                for area in (tally.unit[unit], tally.concept[known[0][0]])
            ]
        found.append(one)
    forms = result.formulas
    for k, text in enumerate(forms.texts(result.names)):
        above = bool(forms.above_chance[k]) if len(forms.null) else None
        if forms.iou[k, -1]:
            found[forms.units[k]]["form"] = [text, short(forms.iou[k, -1]), above]
    if removed is not None:
        _add_removals(found, removed)
    return found


def _add_removals(found, removed) -> None:
    chosen, index = removal_result.selectivity(removed.class_means())
    for one, number, value in zip(found, chosen.tolist(), index, strict=True):
        if np.isfinite(value):
            one["selective"] = [number, short(value)]
    singles = removed.sets.find(unit_sets.SINGLE)
    if not len(singles):  # which were not asked for
        return
    known = np.nan_to_num(removed.importance, nan=-np.inf)
    most = np.argsort(-known, 1, kind="stable")[:, :CLASSES]
    held = removed.drops(np.repeat(singles, most.shape[1]), most.reshape(-1))[0]
    for one, numbers, drops, row in zip(
        found, most.tolist(), held.reshape(most.shape), known, strict=True
    ):
        there = [(k, row[k], drop) for k, drop in zip(numbers, drops, strict=True)]
        one["classes"] = [[k, short(a), short(b)] for k, a, b in there if np.isfinite(a + b)]


def of_layer(result: Dissection, removed: Intervention | None) -> dict[str, Any]:
    """What the units have in common: the classes' names, and the largest IoU of a form by chance."""
    chance = result.formulas.chance[-1]
    found: dict[str, Any] = {} if np.isnan(chance) else {"chance": short(chance)}
    return found if removed is None else found | {"classes": list(removed.class_names)}


def short(number: Scalar) -> float:
    """Four digits, which are enough to read."""
    return float(f"{number:.4g}")
