"""What the data support, axis by axis, in plain words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.scores.comparison import CONTROLS
from mixaug_jax.study.measures import AXES, Measure
from mixaug_jax.study.results import Study

ALWAYS = ("accuracy", "concepts", "alignment", "faithfulness")  # have a sentence, measured or not
_NAMES = {
    "test_accuracy": "test accuracy",
    "validation_accuracy": "validation accuracy",
    "unique": "unique concepts",
    "unique_shuffled": "unique concepts by chance",
    "unique_above_shuffled": "unique concepts above chance",
    "unique_random": "unique concepts with random weights",
    "removal_area": "area under the accuracy while units go in random order",
    "ranked_gap": "how much smaller that area is where the highest IoU goes first",
    "detector_harm": "accuracy that classes lose without the detectors of what they show, beyond that without other units",
    "single_drop": "loss of accuracy without one unit",
    "own_vs_others": "gain in deletion over other models' explanations",
    "gain_over_random": "gain in deletion over random order",
    "fixed_evaluators": "deletion area before all models, relative to random order",
    "lowest_removed": "change of accuracy without the least important parts",
    "unbiased_accuracy": "accuracy on unbiased animals",
    "ambiguous_accuracy": "accuracy on animals with ambiguous arms",
    "points_at_class": "explanations that point at head or right arms",
    "rising_above_chance": "removals that raise the accuracy, beyond those by chance",
}
_CAUTION = {
    "alignment": " Pointing at the object is what people expect, not proof of what the network uses.",
    "relevance": " A flip rate says that an attribute is used, not that it should not be: the arms tell the class.",
    "faithfulness": " The own curve also falls with how badly a network bears occlusion, which the gains cancel.",
}


def at_chance(study: Study) -> str:
    """The networks whose accuracy does not exceed chance, in one sentence; "" where there are none."""
    if not study.at_chance:
        return ""
    several = len(study.at_chance) > 1
    return (
        f"The accuracy of {'these networks does' if several else 'this network does'} not exceed chance, so "
        f"{'they are' if several else 'it is'} compared with no other: {listed([*study.at_chance.values()])}."
    )


def all_axes(study: Study) -> dict[str, str]:
    """{axis: what the data support and what they do not}."""
    judged = {m.axis for m in study.measures if m.headline}
    return {axis: _axis(study, axis) for axis in AXES if axis in judged or axis in ALWAYS}


def name(measure: Measure) -> str:
    """A measure in words, without what it is measured on."""
    return measure.title or _NAMES.get(measure.name, measure.name.replace("_", " "))


def title(measure: Measure) -> str:
    """A measure in words, e.g. "unique concepts above chance (layer4, IoU > 0.04)"."""
    if measure.axis == "concepts":
        per = "" if measure.setting == "unit" else ", by category"
        kind = "" if measure.category == "total" else f"{measure.category}, "
        return f"{name(measure)} ({kind}{measure.subject}, IoU > {measure.level:g}{per})"
    details = [measure.subject, measure.setting, f"{measure.level:g}" if measure.level else ""]
    details = ", ".join(filter(None, details))
    return f"{name(measure)} ({details})" if details else name(measure)


def _axis(study, axis) -> str:
    columns = [i for i in study.headlines if study.measures[i].axis == axis]
    heading = "Occlusion anomaly" if axis == "occlusion" else axis.capitalize()
    if not columns:
        return f"{heading}: Not measured, so the data say nothing."
    first, *others = study.augmentations
    if not others:
        return f"{heading}: {first} is the only augmentation, so there is nothing to compare."
    rows = {"baseline": [], "labels": []}
    for k, (_, reference) in enumerate(study.comparisons):
        rows["baseline" if reference == first else "labels"].append(k)
    text = f"{heading}: " + _family(study, rows["baseline"], columns, f"to {first}")
    if rows["labels"]:
        what = "to the same mixing with mixed labels"
        text += " Unmixed labels: " + _family(study, rows["labels"], columns, what)
    return text + _controls(study, axis) + _needed(study, axis) + _CAUTION.get(axis, "")


def _needed(study, axis) -> str:
    """Under which augmentations a concept's detectors are needed more than other units: one-sample t-tests over seeds, Holm's
    correction over the augmentations."""
    columns = [i for i in study.headlines if study.measures[i].name == "detector_harm"]
    if axis != "interventions" or not columns:
        return ""
    values = study.values[..., columns[0]].copy()
    # A network that knows nothing needs no units, whatever they detect.
    for name, seed in study.at_chance:
        values[study.augmentations.index(name), study.seeds.index(seed)] = np.nan
    found = [stats.paired(row, np.zeros_like(row)) for row in values]
    p = stats.holm([one[3] for one in found])
    tested = int((~np.isnan(p)).sum())
    if not tested:
        return ""
    level = (
        f"at {100 * stats.ALPHA:g} % after Holm's correction over augmentations ({tested} tested)"
    )
    said = [
        f"{name} {difference:+.3g} (95 % interval {low:+.3g} to {high:+.3g})"
        for name, (difference, low, high, *_), one in zip(
            study.augmentations, found, p, strict=True
        )
        if one < stats.ALPHA and difference > 0
    ]
    what = "classes need the detectors of what they show more than equally many other units"
    if not said:
        return f" That {what} is supported under no augmentation, {level}."
    return f" That {what} is supported, {level}, for {listed(said)}."


def _controls(study, axis) -> str:
    """Which methods come out ahead of both controls, in how many networks; the comparisons of augmentations are of one method,
    so that their family does not grow."""
    said = []
    for headline in (study.measures[i] for i in study.headlines):
        if headline.axis == axis and headline.better and headline.subject:
            found = _ahead(study, headline)
            if found:
                said.append(f"{name(headline)}: {', '.join(found)}")
    if not said:
        return ""
    return f" Networks in which a method's mean is better than both controls' ({listed(CONTROLS)}), by {'; by '.join(said)}."


def _ahead(study, headline) -> list[str]:
    """ "gradcam 3 of 4" for every method."""
    columns = {
        study.measures[i].subject: i
        for i in study.find(headline.axis, headline.name)
        if study.measures[i].title == headline.title
    }
    if not set(CONTROLS) <= columns.keys():
        return []
    kept = np.ones(study.values.shape[:2], bool)
    for a, s in np.ndindex(kept.shape):
        kept[a, s] = (study.augmentations[a], study.seeds[s]) not in study.at_chance
    # Ahead of every control in the same network, or the method says no more than a blot in the middle.
    bars = np.stack([study.values[..., columns[control]][kept] for control in CONTROLS])
    found = []
    for subject, i in columns.items():
        values = study.values[..., i][kept]
        there = ~np.isnan(values) & ~np.isnan(bars).any(0)
        if not study.measures[i].control and there.any():
            ahead = (headline.better * (values - bars)[:, there] > 0).all(0)
            found.append(f"{subject} {ahead.sum()} of {there.sum()}")
    return found


def _family(study, rows, columns, what) -> str:
    """The comparisons that Holm's correction takes together."""
    cells = [(k, i) for i in columns for k in rows if study.pairs[k, i]]
    if not cells:
        why = "networks are at chance" if study.at_chance else "results are missing"
        return f"No augmentation can be compared {what}: {why}."
    most = int(max(study.pairs[cell] for cell in cells))
    if most == 1:
        return _one_seed(study, cells)
    # One seed was answered above; what is left below the fewest is two.
    if most < stats.FEWEST_SEEDS:
        return (
            "Two seeds support no statement about augmentations: two points do not show how far trainings of the same settings "
            f"lie apart. The differences {what} are shown without intervals."
        )
    tested = [cell for cell in cells if not np.isnan(study.p_holm[cell])]
    supported = [cell for cell in tested if study.p_holm[cell] < stats.ALPHA]
    parts = []
    if tested:
        comparisons = "1 comparison" if len(tested) == 1 else f"{len(tested)} comparisons"
        level = (
            f"at {100 * stats.ALPHA:g} % after Holm's correction over {comparisons} ({most} seeds)"
        )
        if supported:
            found = "; ".join(_difference(study, *cell) for cell in supported)
            parts.append(f"Supported differences {what}, {level}: {found}.")
            parts += _not_supported(study, tested, supported)
        else:
            parts.append(f"No difference {what} is supported {level}.")
        parts += _unseen(study, [cell for cell in tested if cell not in supported])
    return " ".join(parts + _untested(study, cells))


def _one_seed(study, cells) -> str:
    """Which of these networks differ by more than the choice of images explains."""
    # Images are all that varies with one seed, so a statement can be of these networks only.
    said = {}
    for k, i in cells:
        low, high = study.difference_interval[k, i]
        if low > 0 or high < 0:
            text = f"{study.comparisons[k][0]} {study.difference[k, i]:+.3g}"
            said.setdefault(i, []).append(text)
    text = (
        "One seed supports no statement about augmentations: how far two trainings of the same settings lie apart is not "
        "known."
    )
    if said:
        found = listed([f"{name(study.measures[i])} ({', '.join(t)})" for i, t in said.items()])
        text += (
            f" These very networks differ in {found}: the 95 % intervals over images leave out 0."
        )
    return text


def _not_supported(study, tested, supported) -> list[str]:
    """Augmentations are named where others are supported."""
    rest = {}
    for k, i in tested:
        if (k, i) not in supported:
            rest.setdefault(i, []).append(study.comparisons[k][0])
    known = {i for _, i in supported}
    said = [
        f"{listed(names) if i in known else 'any'} in {name(study.measures[i])}"
        for i, names in rest.items()
    ]
    return [f"Not supported, which is not the same as no difference: {listed(said)}."] * bool(said)


def _unseen(study, cells) -> list[str]:
    """How large a difference may be and not be seen."""
    half = {}
    for k, i in cells:
        half.setdefault(i, []).append(np.ptp(study.difference_interval[k, i]) / 2)
    said = [f"{max(widths):.2g} in {name(study.measures[i])}" for i, widths in half.items()]
    which = (
        "half width of the 95 % interval"
        if len(cells) == 1
        else "largest half widths of the 95 % intervals"
    )
    text = f"Differences up to about {listed(said)} may be there unseen ({which})."
    return [text] * bool(said)


def _untested(study, cells) -> list[str]:
    """What has no p-value, and why."""
    same, single = {}, {}
    for k, i in cells:
        if np.isnan(study.p_holm[k, i]):
            # A p-value is missing for two reasons only: too few pairs, or no spread among them.
            found = single if study.pairs[k, i] < stats.FEWEST_SEEDS else same
            found.setdefault(i, []).append(study.comparisons[k][0])

    def said(found: Any):
        return listed([f"{listed(n)} in {name(study.measures[i])}" for i, n in found.items()])

    parts = []
    if same:
        parts.append(
            f"Not tested: {said(same)}, the difference is the same in all seeds: no spread to test by."
        )
    if single:
        parts.append(f"Not tested: {said(single)}, where fewer than three seeds can be compared.")
    return parts


def listed(texts: Sequence[str]) -> str:
    """ "one, two and three"."""
    *first, last = texts or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _difference(study, k, i) -> str:
    """ "cutmix -0.016 in test accuracy (95 % interval -0.022 to -0.010, worse)"; of a difference that was tested."""
    measure, value = study.measures[i], study.difference[k, i]
    low, high = study.difference_interval[k, i]
    side = {1: ", better", -1: ", worse", 0: ""}[int(np.sign(value * measure.better))]
    ends = f"95 % interval {low:+.3g} to {high:+.3g}"
    return f"{study.comparisons[k][0]} {value:+.3g} in {name(measure)} ({ends}{side})"
