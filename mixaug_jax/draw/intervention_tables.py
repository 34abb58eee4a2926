"""The tables of interventions, and their summary on the console."""

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.dissection import removal_rates as rates
from mixaug_jax.dissection import removal_result, unit_sets
from mixaug_jax.dissection.removal_result import Intervention

Rows = tuple[list[str], list[list]]


def unit_rows(result: Intervention) -> Rows:
    """Header and a row for each unit: what it detects and how selectively, and what its removal does.

    Drops are shares, not points. importance: the largest drop of any class's accuracy on training images; heldout_drop: of the
    same class on the others, which did not choose it.
    """
    header = [
        "layer",
        "unit",
        "concept",
        "iou",
        "precision",
        "recall",
        "selective_for",
        "selectivity",
    ]
    header += ["class", "importance", "heldout_drop", "heldout_low", "heldout_high"]
    header += ["accuracy_drop", "loss_rise"]
    d, means = result.detected, result.class_means()
    chosen, index = removal_result.selectivity(means)
    most = _most_important(result)
    singles = result.sets.find(unit_sets.SINGLE)
    held = _heldout(result, most, singles)
    rows = []
    for unit in range(result.units):
        known = [_text(v[unit]) if d.names else "" for v in (d.iou, d.precision, d.recall)]
        # A unit that has no pixel in common with any concept detects none, though its label is a number.
        name = d.names[d.label[unit]] if d.names and d.iou[unit] else ""
        row = [
            result.layer,
            unit,
            name,
            *known,
            result.class_names[chosen[unit]],
            _text(index[unit]),
        ]
        drop = result.importance[unit, most[unit]]
        row += ["" if np.isnan(drop) else result.class_names[most[unit]], _text(drop)]
        # Where single units were not removed from other images there is nothing to say of them: empty, not 0.
        rows.append(row + ([_text(v) for v in held[unit]] if len(singles) else [""] * 5))
    return header, rows


def _most_important(result) -> np.ndarray:
    """The class [U] that loses most without each unit, on training images; of equal drops that whose loss rises most."""
    known = np.nan_to_num(result.importance, nan=-np.inf)
    tied = known == known.max(1, keepdims=True)
    return np.where(tied, np.nan_to_num(result.importance_loss, nan=-np.inf), -np.inf).argmax(1)


def _heldout(result, classes, singles) -> np.ndarray:
    """[U,5]: the drop of a class's accuracy and its interval, the drop of balanced accuracy, and the rise of the loss."""
    if not len(singles):
        return np.zeros((0, 5))
    drop = result.drops(singles, classes)[0]
    ends = _interval(drop, result.drops(singles, classes, rates.draws(len(result.labels))))
    accuracy = result.accuracy()[0]
    rise = result.loss[:, singles].mean(0, np.float64) - result.clean_loss.mean(dtype=np.float64)
    return np.stack([drop, *ends, accuracy[0] - accuracy[1 + singles], rise], 1)


def class_rows(result: Intervention) -> Rows:
    """Header and a row for each class, and number of its most or least important units that are removed."""
    header = ["layer", "class", "removed", "units", "accuracy", "drop", "low", "high", "loss"]
    places = np.concatenate([result.sets.find(kind) for kind in (unit_sets.MOST, unit_sets.LEAST)])
    if not len(places):  # which was not asked for
        return header, []
    classes = result.sets.subject[places]
    drop, whole = result.drops(places, classes)[0], result.class_accuracy[0, classes]
    low, high = _interval(drop, result.drops(places, classes, rates.draws(len(result.labels))))
    loss = rates.class_loss(result.labels, result.loss, len(result.class_names))
    rows = []
    for n, (place, k) in enumerate(zip(places, classes, strict=True)):
        cells = [result.layer, result.class_names[k], str(result.sets.kind[place])]
        cells.append(int(result.sets.sizes[place]))
        numbers = (whole[n] - drop[n], drop[n], low[n], high[n], loss[place, k])
        rows.append([*cells, *map(_text, numbers)])
    return header, rows


def concept_rows(result: Intervention) -> Rows:
    """Header and a row for each concept with detectors: what its classes lose without them, and without equally many others."""
    header = ["layer", "concept", "detectors", "classes", "drop", "others_drop"]
    header += ["difference", "low", "high"]
    known = removal_result.harms(result)
    again = removal_result.harms(result, rates.draws(len(result.labels)))
    rows = []
    for concept, (own, others) in known.items():
        (place,) = result.sets.find(unit_sets.DETECTORS, concept)
        shown = [result.class_names[k] for k in result.detected.showing(concept)]
        difference = own[0] - others[0]
        ends = _interval(difference, again[concept][0] - again[concept][1])
        row = [result.layer, result.detected.names[concept], int(result.sets.sizes[place])]
        row += [", ".join(shown), *map(_text, (own[0], others[0], difference, *ends))]
        rows.append(row)
    return header, rows


def order_rows(result: Intervention) -> Rows:
    """Header and a row for each order of all units and share of them that is removed; random orders as their mean."""
    header = ["layer", "order", "units", "share", "balanced_accuracy", "low", "high"]
    accuracy, again = result.accuracy(), result.accuracy(rates.draws(len(result.labels)))
    rows = []
    for kind in (unit_sets.RANDOM, unit_sets.HIGH, unit_sets.LOW):
        places = result.sets.find(kind)
        if not len(places):
            continue
        ends = result.sets.find(unit_sets.ALL)
        sizes = result.sets.sizes
        for size in [0, *np.unique(sizes[places]).tolist(), result.units]:
            # All orders begin with no unit removed and end with all of them.
            at = places[sizes[places] == size] if 0 < size < result.units else ends
            columns = 1 + at if size else np.array([0])
            value = accuracy[0, columns].mean()
            cells = [result.layer, kind, size, f"{size / result.units:.4f}"]
            rows.append(
                [*cells, *map(_text, (value, *_interval(value, again[:, columns].mean(1))))]
            )
    return header, rows


TABLES = {
    "units": unit_rows,
    "classes": class_rows,
    "concepts": concept_rows,
    "orders": order_rows,
}


def summary(result: Intervention) -> str:
    """A few lines: what single units, all units in random order, and the detectors of concepts are worth."""
    n, units = len(result.labels), result.units
    accuracy = 100 * result.accuracy()[0]
    found = {k: float(v[0]) for k, v in removal_result.summary(result).items()}
    lines = [
        f"{result.layer}: {units} units, {n} images, balanced accuracy {accuracy[0]:.1f} % with all units"
    ]
    singles = result.sets.find(unit_sets.SINGLE)
    if len(singles):
        # Row 0 is the whole network, so set k is row k + 1.
        drops = accuracy[0] - accuracy[1 + singles]
        lines.append(
            f"  without one unit: on average {-drops.mean():+.2f} points, at worst {-drops.max():+.1f} (unit {drops.argmax()})"
        )
    if not np.isnan(found["removal_area"]):
        beside = "" if np.isnan(found["ranked_gap"]) else (
            f"; from the highest IoU on {found['removal_area'] - found['ranked_gap']:.3f}"
        )  # fmt: skip
        lines.append(
            f"  all units one after the other: area under the accuracy {found['removal_area']:.3f} in random order{beside}"
        )
    known = removal_result.harms(result)
    if known:
        # The control: as many units that do not detect the concept.
        own, others = (100 * np.mean([pair[k][0] for pair in known.values()]) for k in (0, 1))
        lines.append(
            f"  without a concept's detectors its classes lose {own:.1f} points, without equally many other units {others:.1f} "
            f"(means over {len(known)} concepts)"
        )
    return "\n".join(lines)


def _interval(value, draws) -> np.ndarray:
    """Low and high [2,...] of values [...] from their draws [R,...]."""
    ends = np.apply_along_axis(stats.percentiles, 0, np.asarray(draws))
    # An interval contains its estimate.
    return np.stack([np.minimum(ends[0], value), np.maximum(ends[1], value)])


def _text(value) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
