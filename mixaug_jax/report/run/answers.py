"""The sentences at the top of a run's page: what was measured, beside what chance would give."""

import math
from typing import Any

import ml_collections

from mixaug_jax.core import stats
from mixaug_jax.dissection.result import PER, Dissection
from mixaug_jax.draw.dissection_tables import beside
from mixaug_jax.training import metric_log

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


def accuracy(config: ml_collections.ConfigDict, lines: list[dict], held_out: int) -> str:
    """What was trained and how well it classifies.

    Args:
      config: the run's settings.
      lines: of metrics.jsonl.
      held_out: number of images behind test_accuracy; 0: not known.
    """
    network = f"{config.resolved.model['name']} (width {config.resolved.model['width']:g})"
    if not config.resolved.steps:
        origin = f"imported from {config.weights}" if config.weights else "trained elsewhere"
        return f"{network}, {origin}; its accuracy was not measured here."
    method = "without mixing" if config.mix.name == "none" else f"with {config.mix.name}"
    trained = f"{network}, trained {method} on {config.data.name} (seed {config.seed}"
    scores = metric_log.finished(lines, config.resolved.steps)
    if not scores:
        done = max((line["step"] for line in lines), default=0)
        return f"{trained}), is at step {done} of {config.resolved.steps}: its training is not finished."
    share, split = scores["test_accuracy"], "test" if config.data.test_split else "validation"
    said = f"{trained}, {config.resolved.steps} steps), classifies {share:.1%} of "
    if not held_out:
        return f"{said}the {split} images right."
    low, high = stats.wilson(share, held_out)
    return f"{said}{held_out} {split} images right (95 % interval {low:.1%} to {high:.1%})."


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


def explanations(scores: list[dict], entries: dict) -> list[str]:
    """A sentence for each score that a study judges: the first method's, beside the controls'.

    Args:
      scores: rows of scores.csv.
      entries: {method: what its results say of it and of the scores}, of entries.json.
    """
    said = []
    known = next(iter(entries.values()), {}).get("scores", {})
    for name, facts in known.items():
        rows = [row for row in scores if row["score"] == name and not _missing(row["mean"])]
        methods = [row for row in rows if row["kind"] == "method"]
        if facts["headline"] and "axis" in facts and methods:  # a part of a score has no axis
            controls = [row for row in rows if row["kind"] == "control"]
            said.append(_beside_controls(methods[0], controls, facts, entries))
    return said


def _beside_controls(first, controls, facts, entries):
    title, better = facts["title"], facts["better"]
    side = {1: "; larger is better", -1: "; smaller is better", 0: ""}[better]
    method = entries[first["method"]]["title"]
    text = f"{title[:1].upper()}{title[1:]} of {method}: {first['mean']:.3f} ({first['low']:.3f} to {first['high']:.3f} "
    text += f"over {first['images']:g} images{side})"
    beside_it = [f"{entries[row['method']]['title']} {row['mean']:.3f}" for row in controls]
    ahead = [better * (row["mean"] - first["mean"]) >= 0 for row in controls]
    as_good = better != 0 and any(ahead)
    verdict = " A control that knows nothing of the network matches or beats it." if as_good else ""
    return f"{'; '.join([text, *beside_it])}.{verdict}"


def rising(rows: list[dict], label: str) -> tuple[int, int]:
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
    text = "Units are pixels, or windows of them, scored by a gradient of the loss."
    return f"{text} {selected.capitalize()}. In their place {put}."


def rises(rows: list[dict], by_chance: dict[str, float]) -> str:
    """How many removals of an occlusion sweep raise the accuracy, by whose loss ranks the units.

    Args:
      rows: of the sweep's table.
      by_chance: how many would if no removal had an effect, by label, where that is known.
    """
    said = []
    for label in dict.fromkeys(row["label"] for row in rows):
        found, removals = rising(rows, label)
        chance = f" (by chance {by_chance[label]:.1f})" if label in by_chance else ""
        said.append(f"{found} of {removals}{chance} ranked by the loss of the {label} label")
    text = f"Parts of {rows[0]['images']} images are removed as a gradient of the loss ranks them."
    text += f" Removals that raise the accuracy (the interval of its change lies above 0): {'; '.join(said)}."
    return f"{text} {CHANCE}" if by_chance else text


def _missing(value):
    return value == "" or math.isnan(value)
