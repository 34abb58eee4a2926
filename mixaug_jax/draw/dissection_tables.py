"""Rows of the tables of dissections, and their summary as text."""

import numpy as np

from mixaug_jax.dissection.pairs import COUNTED, Comparison
from mixaug_jax.dissection.result import PER, Dissection, with_total


def unit_rows(result: Dissection) -> tuple[list[str], list[list]]:
    """Header and a row for each unit: its threshold, its area as a share of all pixels, its five
    best concepts and its top images."""
    labels, values = result.top_labels(5)
    header = ["layer", "unit", "threshold", "area"]
    for k in range(1, labels.shape[1] + 1):
        header += [f"{name}_{k}" for name in ("concept", "category", "iou")]
    header += [f"image_{k}" for k in range(1, result.top_images.shape[1] + 1)]
    rows = []
    for unit in range(len(labels)):
        row = [result.layer, unit, f"{result.threshold[unit]:.6g}"]
        row.append(f"{result.tally.unit[unit] / max(1, result.pixels):.6f}")
        for label, value in zip(labels[unit], values[unit], strict=True):
            # A unit that is never on has no best concept, although the order of ties has one.
            row += [*(result.names[label] if value else ("", "")), f"{value:.6f}"]
        rows.append(row + result.top_images[unit].tolist())
    return header, rows


def concept_rows(result: Dissection) -> tuple[list[str], list[list]]:
    """Header and a row for each concept that is in the images: its pixels, the unit that matches it
    best, and how many units it is the best concept of, at each IoU threshold."""
    iou = result.iou()
    labels, values = result.top_labels(1)
    header = ["layer", "concept", "category", "pixels", "best_unit", "best_iou"]
    header += [f"units_above_{threshold:g}" for threshold in result.options.iou]
    rows = []
    for number in np.flatnonzero(result.tally.concept):
        # Units of which it is the best concept; the best unit of all may prefer another one.
        own = values[labels[:, 0] == number, 0]
        best = int(iou[:, number].argmax())
        row = [result.layer, *result.names[number], int(result.tally.concept[number]), best]
        row.append(f"{iou[best, number]:.6f}")
        rows.append(row + [int((own > threshold).sum()) for threshold in result.options.iou])
    return header, rows


def formula_rows(result: Dissection) -> tuple[list[str], list[list]]:
    """Header and a row for each unit whose logical form was looked for: its best concept, the form that fits it best, and the
    largest IoU of a form and of a concept where label maps are shuffled against images; "" without shuffles."""
    header = ["layer", "unit", "concept", "iou", "form", "concepts", "form_iou", "form_chance"]
    header += ["concept_chance", "above_chance"]
    found, rows = result.formulas, []
    labels = result.tally.iou()[found.units].argmax(1) if len(found.units) else ()
    chance = ["" if np.isnan(v) else f"{v:.6f}" for v in found.chance[[-1, 0]]]
    for k, text in enumerate(found.texts(result.names)):
        name = result.names[labels[k]][0] if found.iou[k, 0] else ""
        row = [result.layer, int(found.units[k]), name, f"{found.iou[k, 0]:.6f}", text]
        row += [int((found.concepts[k] > 0).sum()), f"{found.iou[k, -1]:.6f}", *chance]
        above = "yes" if found.above_chance[k] else "no"
        rows.append([*row, above if len(found.null) else ""])
    return header, rows


def count_rows(result: Dissection) -> tuple[list[str], list[list]]:
    """Header and a row for each convention, IoU threshold and category: detectors and unique
    concepts, each beside its shuffled null, its count with random weights and its 95 % interval.

    The category "total" is the sum over the categories. Cells of what was not asked for are empty.
    """
    header = ["layer", "per", "iou_threshold", "category"]
    for what in COUNTED:
        header += [what] + [f"{what}_{name}" for name in _BESIDE]
    # The order of the axes of `Dissection.counts`.
    rows = []
    for p, per in enumerate(PER):
        for t, threshold in enumerate(result.options.iou):
            for g, category in enumerate((*result.categories, "total")):
                row = [result.layer, per, f"{threshold:g}", category]
                for w in range(len(COUNTED)):
                    row += [*beside(result, (p, w, t), g).values()]
                rows.append(row)
    return header, rows


_BESIDE = ("null_mean", "null_min", "null_max", "random", "low", "high")


def beside(result: Dissection, place: tuple[int, int, int], category: int) -> dict:
    """A count and what stands beside it, by name: count, null_mean, null_min, null_max, random, low
    and high (see `Dissection.intervals`, to one decimal); "" for what is not there.

    place: convention, detectors or unique, and IoU threshold. category: its index, G for the total.
    """
    at = (..., *place, category)
    found = {"count": int(with_total(result.counts)[at])} | dict.fromkeys(_BESIDE, "")
    if len(result.null):
        null = with_total(result.null)[at]
        found |= {"null_mean": round(float(null.mean()), 2)}
        found |= {"null_min": int(null.min()), "null_max": int(null.max())}
    if result.random.min() >= 0:
        found["random"] = int(with_total(result.random)[at])
    return found | dict(
        zip(("low", "high"), _ends(result.intervals()[(*place, category)]), strict=True)
    )


def _ends(interval: np.ndarray) -> list:
    """Low and high as cells."""
    return ["" if np.isnan(end) else round(float(end), 1) for end in interval]


def summary(result: Dissection, per: str = "unit") -> str:
    """Unique concepts of all categories together at each IoU threshold, beside chance, as lines of text."""
    lines = [
        f"{result.layer}: {len(result.threshold)} units, {len(result.indices)} images; unique concepts"
    ]
    for t, threshold in enumerate(result.options.iou):
        # Never the count alone: its two chance levels stand beside it.
        found = beside(result, (PER.index(per), 1, t), len(result.categories))
        chance = []
        if found["null_mean"] != "":
            ends = f"{found['null_min']}-{found['null_max']}"
            chance.append(f"label maps shuffled {found['null_mean']:.1f} ({ends})")
        if found["random"] != "":
            chance.append(f"random weights {found['random']}")
        lines.append(f"  IoU > {threshold:g}: {found['count']:4}   {', '.join(chance)}".rstrip())
    forms = result.formulas
    if len(forms.units):
        judged = f"; {forms.above_chance.sum()} above chance" if len(forms.null) else ""
        lines.append(f"  logical forms of {len(forms.units)} units{judged}")
    if not result.counts.any():
        lines.append("no unit is above any of the IoU thresholds")
    return "\n".join(lines)


def comparison_rows(comparison: Comparison) -> tuple[list[str], list[list]]:
    """Header and a row for each other run, convention, IoU threshold and category: the difference
    to the first run and its paired interval."""
    header = ["run", "minus", "per", "iou_threshold", "category"]
    for what in COUNTED:
        header += [what, f"{what}_low", f"{what}_high"]
    rows = []
    first, *others = comparison.names
    shape = (len(others), len(PER), len(comparison.iou), len(comparison.categories))
    for m, p, t, g in np.ndindex(shape):
        row = [others[m], first, PER[p], f"{comparison.iou[t]:g}", comparison.categories[g]]
        for w in range(len(COUNTED)):
            row.append(int(comparison.difference[m, p, w, t, g]))
            row += _ends(comparison.interval[m, p, w, t, g])
        rows.append(row)
    return header, rows
