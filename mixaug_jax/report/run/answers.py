"""The sentences at the top of a run's page: what was measured, beside what chance would give."""

import math

from mixaug_jax.core import stats
from mixaug_jax.dissection.result import PER, Dissection
from mixaug_jax.draw.dissection_tables import beside

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


def accuracy(config, lines: list[dict], held_out: int) -> str:
    """What was trained and how well it classifies.

    Args:
      config: the run's settings.
      lines: of metrics.jsonl.
      held_out: number of images behind test_accuracy; 0: not known.
    """
    network = f"{config.resolved.model['name']} (width {config.resolved.model['width']:g})"
    if config.weights:
        return f"{network}, imported from {config.weights}; its accuracy was not measured here."
    method = "without mixing" if config.mix.name == "none" else f"with {config.mix.name}"
    trained = f"{network}, trained {method} on {config.data.name} (seed {config.seed}"
    scores = [line for line in lines if "test_accuracy" in line]
    if not scores:
        done = max((line["step"] for line in lines), default=0)
        return f"{trained}), is at step {done} of {config.resolved.steps}: its training is not finished."
    share, split = scores[-1]["test_accuracy"], "test" if config.data.test_split else "validation"
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
    if found["null_mean"] != "":
        ends = f"{found['null_min']} to {found['null_max']}"
        text += f"; with label maps shuffled against the images, chance gives {found['null_mean']:g} ({ends})"
    if found["random"] != "":
        text += f"; the same network with random weights has {found['random']}"
    if found["null_max"] != "" and found["count"] <= found["null_max"]:
        text += ". A number that chance reaches too says nothing about concepts"
    return text + "."


def pointing(scores: list[dict]) -> str:
    """How often the first method points at the object, beside the controls; "" where it was not measured."""
    first, controls = _rows(scores, "pointing_game")
    if first is None:
        return ""
    places = {"center": "the image's center", "random": "a random pixel"}
    beside_it = [f"{places[name]} does in {row['mean']:.0%}" for name, row in controls.items()]
    text = f"The peak of {first['method']} lies on the object in {first['mean']:.0%} of {first['images']:g} images"
    text += f" (resampled images: {first['low']:.0%} to {first['high']:.0%})"
    as_good = any(row["mean"] >= first["mean"] for row in controls.values())
    return _sentence(text, beside_it, as_good)


def deletion(scores: list[dict]) -> str:
    """The area under the first method's deletion curve, beside random order; "" where it was not measured."""
    first, controls = _rows(scores, "deletion")
    if first is None:
        return ""
    orders = {"center": "from the center outwards it is", "random": "in random order it is"}
    beside_it = [f"{orders[name]} {row['mean']:.3f}" for name, row in controls.items()]
    text = f"Deleting pixels in the order of {first['method']} leaves an area of {first['mean']:.3f} under the curve"
    text += f" (resampled images: {first['low']:.3f} to {first['high']:.3f}; smaller is better)"
    as_good = any(row["mean"] <= first["mean"] for row in controls.values())
    return _sentence(text, beside_it, as_good)


def rising(rows: list[dict], label: str) -> tuple[int, int]:
    """How many different removals of a sweep raise the accuracy, of how many, ranked by the loss of `label`."""
    removals = {row["removal"]: row for row in rows if row["label"] == label and row["removal"]}
    return sum(bool(row["rises"]) for row in removals.values()), len(removals)


def words(rows: list[dict]) -> str:
    """What the names in a sweep mean, in one line."""

    def explained(key, known):
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


def _rows(scores, name):
    """The row of the first method with this score, and those of the two controls that are named."""
    rows = [row for row in scores if row["score"] == name and not _missing(row["mean"])]
    methods = [row for row in rows if row["kind"] == "method"]
    controls = {row["method"]: row for row in rows if row["kind"] == "control"}
    controls = {k: controls[k] for k in ("random", "center") if k in controls}
    return (methods[0] if methods else None), controls


def _missing(value):
    return value == "" or math.isnan(value)


def _sentence(text, beside_it, as_good):
    verdict = " What knows nothing of the network does as well or better." if as_good else ""
    return f"{'; '.join([text, *beside_it])}.{verdict}"
