"""The sentences at the top of a run's page: what was measured, beside what chance would give."""

import contextlib
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.dissection.result import PER, Dissection
from mixaug_jax.draw.dissection_tables import beside
from mixaug_jax.explain import evaluation
from mixaug_jax.scores.comparison import CONTROLS
from mixaug_jax.study import sentences
from mixaug_jax.training import chance

PerImage = Mapping[str, Mapping[str, np.ndarray]]  # {method: {score: [N]}}
OCCLUSION = "Occlusion anomaly"  # the part of a page
_SELECTED = {
    "top": "those of the largest score",
    "bottom": "those of the smallest score",
    "lowest": "those whose score is nearest to 0",
    "positive": "the largest scores above 0",
    "negative": "the smallest scores below 0",
    "random": "any, whatever the score",
}
_PUT = {
    "zero": "0 after normalization, the color that it takes for the mean",
    "data_mean": "the mean color of the images",
    "sample_mean": "the image's own mean",
    "minimum": "the image's darkest value",
    "maximum": "the image's brightest value",
    "noise": "noise",
    "blur": "the blurred image",
}
CHANCE = "By chance: on average, if no removal had any effect. Most do harm, so that a count below it says nothing."


def banner(found: chance.Accuracy | None) -> str:
    """What a reader has to know before anything else: that the accuracy does not exceed chance; "" where it does, or where it
    is not known of how many images it is."""
    if found is None or not found.at_chance:
        return ""
    low, high = found.interval
    return (
        f"At chance: this network classifies {found.share:.1%} of {found.images} {found.split} images right (95 % interval "
        f"{low:.1%} to {high:.1%}), which does not exceed chance ({found.chance:.1%}). What is said below of its concepts and "
        "explanations is not about a network that has learned its task."
    )


def accuracy(
    config: ml_collections.ConfigDict, lines: list[dict], found: chance.Accuracy | None
) -> str:
    """What was trained and how well it classifies.

    Args:
      config: the run's settings.
      lines: of metrics.jsonl.
      found: of `chance.read`.
    """
    network = f"{config.resolved.model['name']} (width {config.resolved.model['width']:g})"
    if not config.resolved.steps:
        origin = f"imported from {config.weights}" if config.weights else "trained elsewhere"
        if found is None:
            return f"{network}, {origin}; its accuracy was not measured here."
        return f"{network}, {origin}, classifies {_share(found)}."
    method = "without mixing" if config.mix.name == "none" else f"with {config.mix.name}"
    trained = f"{network}, trained {method} on {config.data.name} (seed {config.seed}"
    if found is None:
        done = max((line["step"] for line in lines), default=0)
        return f"{trained}), is at step {done} of {config.resolved.steps}: its training is not finished."
    return f"{trained}, {config.resolved.steps} steps), classifies {_share(found)}."


def _share(found) -> str:
    if not found.images:
        return f"{found.share:.1%} of the {found.split} images right"
    low, high = found.interval
    ends = f"95 % interval {low:.1%} to {high:.1%}"
    return f"{found.share:.1%} of {found.images} {found.split} images right ({ends})"


def concepts(result: Dissection) -> str:
    """Unique concepts of a layer at its middle IoU threshold, against shuffled label maps and random weights."""
    thresholds = result.options.iou
    t = len(thresholds) // 2
    found = beside(result, (PER.index("unit"), 1, t), len(result.categories))
    text = f"{result.layer} has {found['count']} unique concepts at IoU > {thresholds[t]:g}"
    if found["low"] != "":
        text += f" (95 % interval {found['low']:g} to {found['high']:g} for another set of equally many images)"
    if found["null_mean"] != "":
        ends = f"{found['null_min']} to {found['null_max']}"
        text += f"; with label maps shuffled against the images, chance gives {found['null_mean']:g} ({ends})"
    if found["random"] != "":
        text += f"; the same network with random weights has {found['random']}"
    # Against the largest shuffle, not their mean: a result has to clear all of them.
    if found["null_max"] != "" and found["count"] <= found["null_max"]:
        text += ". A number that chance reaches too says nothing about concepts"
    return text + "."


def per_image(folder: pathlib.Path, methods: Iterable[str]) -> PerImage:
    """The scores of every image, of each of `methods` whose results in `folder` can be read."""
    found = {}
    for method in methods:
        with contextlib.suppress(ValueError):  # the tables have its means all the same
            found[method] = evaluation.load(folder / f"{method}.npz").scores
    return found


def explanations(scores: list[dict], entries: dict, each: PerImage) -> list[str]:
    """A sentence for each score that a study judges: which methods beat both controls, and which do not.

    To beat both is a supported difference: t-tests paired by image, the larger p of both, Holm's correction over the methods.

    Args:
      scores: rows of scores.csv.
      entries: {method: what its results say of it and of the scores}, of entries.json.
      each: of `per_image`.
    """
    said = []
    known = next(iter(entries.values()), {}).get("scores", {})
    for name, facts in known.items():
        rows = [row for row in scores if row["score"] == name and not _missing(row["mean"])]
        methods = [row for row in rows if row["kind"] == "method"]
        if facts["headline"] and "axis" in facts and methods:  # a part of a score has no axis
            controls = [row for row in rows if row["method"] in CONTROLS]
            said.append(_beside_controls(methods, controls, facts, entries, each))
    return said


def _beside_controls(methods, controls, facts, entries, each):
    title, better = facts["title"], facts["better"]
    side = {1: "; larger is better", -1: "; smaller is better", 0: ""}[better]
    most = max(row["images"] for row in methods)
    text = f"{title[:1].upper()}{title[1:]} (means over {most:g} images{side}): "

    def listed(rows: Any):
        return sentences.listed([f"{entries[r['method']]['title']} {r['mean']:.3f}" for r in rows])

    beside = f"controls: {listed(controls)}"
    if not better or {row["method"] for row in controls} != {*CONTROLS}:
        return f"{text}{listed(methods)}" + (f"; {beside}." if controls else ".")
    # In this order every method is in one group only.
    ahead = [all(better * (m["mean"] - c["mean"]) > 0 for c in controls) for m in methods]
    sure = np.array(ahead) & (_p_holm(methods, facts, each) < stats.ALPHA)
    groups = {"above": [], "unsure": [], "matched": []}
    for row, first, supported in zip(methods, ahead, sure, strict=True):
        groups["above" if supported else "unsure" if first else "matched"].append(row)
    above, unsure, matched = groups.values()
    verb = "beats" if len(above) == 1 else "beat"
    parts = [f"{listed(above)} {verb} both controls"] if above else []
    if unsure:
        verb = "are" if len(unsure) > 1 else "is"
        parts.append(f"{listed(unsure)} {verb} ahead of both, but the difference is not supported")
    if matched:
        parts.append(f"a control matches or beats {listed(matched)}")
    if not above:
        parts.insert(0, "no method is shown to beat both controls")
    return f"{text}{'; '.join(parts)} ({beside})."


def _p_holm(methods, facts, each) -> np.ndarray:
    """For each method the larger p of its two comparisons with controls, after Holm's correction; NaN where there is none."""
    name, found = methods[0]["score"], []
    for row in methods:
        sides = [each.get(method, {}).get(name) for method in (row["method"], *CONTROLS)]
        if any(values is None for values in sides) or len({len(v) for v in sides}) > 1:
            found.append(np.nan)
        else:
            own, *others = sides
            found.append(max(stats.paired(own, other)[3] for other in others))
    return stats.holm(np.array(found))


def rising(rows: list[dict], label: str | int) -> tuple[int, int]:
    """How many different removals of a sweep raise the accuracy, of how many, ranked by the loss of `label`."""
    removals = {row["removal"]: row for row in rows if row["label"] == label and row["removal"]}
    return sum(bool(row["rises"]) for row in removals.values()), len(removals)


def words(rows: list[dict]) -> str:
    """What the names in a sweep mean, in one line."""

    def explained(key: Any, known: Any):
        names = dict.fromkeys(row[key] for row in rows)
        return ", ".join(
            f"{name.replace('_', ' ')}: {known[name]}" for name in names if name in known
        )

    selected, put = explained("selection", _SELECTED), explained("value", _PUT)
    text = "What is removed is ranked by a gradient of the loss."
    return f"{text} {selected.capitalize()}. In their place {put}."


def whose(label: str | int, class_names: Sequence[str]) -> str:
    """Whose loss ranked: "the true label", "the predicted label", or, of a class's number, its name."""
    number = int(label) if str(label).isdigit() else -1
    if number < 0:
        return f"the {label} label"
    return f"class {class_names[number] if number < len(class_names) else number}"


def rises(rows: list[dict], by_chance: dict[str, float], class_names: Sequence[str] = ()) -> str:
    """How many removals of an occlusion sweep raise the accuracy, by whose loss ranks the units.

    Args:
      rows: of the sweep's table.
      by_chance: how many would if no removal had an effect, by label, where that is known.
      class_names: by number.
    """
    said = []
    for label in dict.fromkeys(row["label"] for row in rows):
        found, removals = rising(rows, label)
        # Tables give back a class's number as a number.
        expected = by_chance.get(str(label))
        chance = "" if expected is None else f" (by chance {expected:.1f})"
        loss = f"the loss of {whose(label, class_names)}"
        said.append(f"{found} of {removals}{chance} ranked by {loss}")
    text = f"Parts of {rows[0]['images']} images are removed as a gradient of the loss ranks them."
    text += f" Removals that raise the accuracy (the interval of its change lies above 0): {'; '.join(said)}."
    return f"{text} {CHANCE}" if by_chance else text


def _missing(value):
    return value == "" or math.isnan(value)
