"""What the data support, axis by axis, in plain words."""

import numpy as np

from mixaug_jax.study import statistics
from mixaug_jax.study.measures import AXES, Measure
from mixaug_jax.study.results import Study

ALWAYS = ("accuracy", "concepts", "alignment", "faithfulness")  # have a sentence, measured or not
_NAMES = {
    "test_accuracy": "test accuracy",
    "unique": "unique concepts",
    "unique_shuffled": "unique concepts by chance",
    "unique_above_shuffled": "unique concepts above chance",
    "unique_random": "unique concepts with random weights",
    "pointing_game": "pointing game",
    "energy_pointing_game": "attribution on the object",
    "background_attribution": "attribution on the background",
    "deletion": "area under the own deletion curve",
    "insertion": "area under the own insertion curve",
    "own_vs_others": "gain of own explanations over other models' (deletion)",
    "gain_over_random": "gain of own explanations over random removal (deletion)",
    "rising_above_chance": "removals that raise the accuracy, beyond those by chance",
    "fixed_evaluators": "deletion area before all models, relative to random removal",
}
_CAUTION = {
    "alignment": " Pointing at the object is what people expect, not proof of what the network uses.",
    "faithfulness": " The own curve also falls with how badly a network bears occlusion, which the gains cancel.",
}


def all_axes(study: Study) -> dict[str, str]:
    """{axis: what the data support and what they do not}."""
    judged = {m.axis for m in study.measures if m.headline}
    return {axis: _axis(study, axis) for axis in AXES if axis in judged or axis in ALWAYS}


def title(measure: Measure) -> str:
    """A measure in words, e.g. "unique concepts above chance (layer4, IoU > 0.04)"."""
    name = _NAMES.get(measure.name, measure.name.replace("_", " "))
    if measure.axis == "concepts":
        per = "" if measure.setting == "unit" else ", by category"
        kind = "" if measure.category == "total" else f"{measure.category}, "
        return f"{name} ({kind}{measure.subject}, IoU > {measure.level:g}{per})"
    details = [measure.subject, measure.setting, f"{measure.level:g}" if measure.level else ""]
    details = ", ".join(filter(None, details))
    return f"{name} ({details})" if details else name


def _axis(study, axis) -> str:
    columns = [i for i in study.headlines if study.measures[i].axis == axis]
    if not columns:
        return f"{axis.capitalize()}: not measured, so the data say nothing."
    first, *others = study.augmentations
    if not others:
        return f"{axis.capitalize()}: {first} is the only augmentation, so there is nothing to compare."
    rows = {"baseline": [], "labels": []}
    for k, (_, reference) in enumerate(study.comparisons):
        rows["baseline" if reference == first else "labels"].append(k)
    text = f"{axis.capitalize()}: " + _family(study, rows["baseline"], columns, f"to {first}")
    if rows["labels"]:
        what = "to the same mixing with mixed labels"
        text += " Unmixed labels: " + _family(study, rows["labels"], columns, what)
    return text + _CAUTION.get(axis, "")


def _family(study, rows, columns, what) -> str:
    """The comparisons that Holm's correction takes together."""
    cells = [(k, i) for i in columns for k in rows if study.pairs[k, i]]
    if not cells:
        return f"no augmentation can be compared {what}: results are missing."
    most = int(max(study.pairs[cell] for cell in cells))
    if most < 2:
        differences = "; ".join(_difference(study, *cell) for cell in cells)
        return (
            "with one seed nothing is known of how far two trainings of the same settings lie apart, so the data support no "
            f"statement about augmentations. Differences {what} of these very networks: {differences}."
        )
    tested = [cell for cell in cells if not np.isnan(study.p_holm[cell])]
    supported = [cell for cell in tested if study.p_holm[cell] < statistics.ALPHA]
    level = f"at {statistics.ALPHA:.0%} after Holm's correction over {len(tested)} comparisons"
    if supported:
        found = "; ".join(_difference(study, *cell) for cell in supported)
        text = f"over {most} seeds the data support, {level}, these differences {what}: {found}."
    else:
        text = f"over {most} seeds the data support no difference {what} {level}."
    return text + _unsupported(study, cells, supported)


def _unsupported(study, cells, supported) -> str:
    parts = []
    for i in dict.fromkeys(i for _, i in cells):
        names = [study.comparisons[k][0] for k, j in cells if j == i and (k, j) not in supported]
        if not names:
            continue
        half = [
            np.ptp(study.difference_interval[k, j]) / 2
            for k, j in cells
            if j == i and study.pairs[k, j] > 1
        ]
        width = f"; intervals reach {np.median(half):.2g} to either side" if half else ""
        parts.append(f"{title(study.measures[i])}: {', '.join(names)}{width}")
    if not parts:
        return ""
    return f" Not supported, which is not the same as no difference: {'. '.join(parts)}."


def _difference(study, k, i) -> str:
    """ "cutmix -0.016 in test accuracy (-0.022 to -0.010, worse)"."""
    measure, value = study.measures[i], study.difference[k, i]
    low, high = study.difference_interval[k, i]
    over = {"seeds": "", "images": " over images"}.get(study.difference_of[k, i])
    interval = "no interval" if over is None else f"95 % interval {low:+.3g} to {high:+.3g}{over}"
    side = {1: ", better", -1: ", worse", 0: ""}[int(np.sign(value * measure.better))]
    return f"{study.comparisons[k][0]} {value:+.3g} in {title(measure)} ({interval}{side})"
