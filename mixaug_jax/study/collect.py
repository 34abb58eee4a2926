"""The numbers of one run, read from what its stages wrote."""

import dataclasses
import os
import pathlib
import re
from typing import Any

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax.core import stats
from mixaug_jax.dissection import removal_rates, removal_result
from mixaug_jax.dissection import result as dissection
from mixaug_jax.explain import evaluation
from mixaug_jax.occlusion import outcomes
from mixaug_jax.papers.relevance import attribute_relevance, relevance_result
from mixaug_jax.study.measures import BETTER, Measure
from mixaug_jax.training import metric_log

# What results of different networks differ in, with the same question asked.
# reference: a checksum of training images; detected: one of what units detect
_OF_THE_NETWORK = ("weights", "model", "reference", "detected")
_CHANGE = (-1.0, 1.0)  # of an accuracy
# Folders of results that every run has, and the stages that write them, unless its settings leave the stage out.
_WRITTEN_BY = {"dissection": "dissect", "attribution": "explain"}
# Of the scenes, what changes no picture of the test split.
_NOT_IN_TEST = ("background", "color", "position", "label_noise", "train", "validation")


@dataclasses.dataclass(frozen=True)
class Part:
    """What one file of results gives.

    Attributes:
      title: the file, under the working directory, without its ending.
      values: {measure: number}.
      replicates: {measure: [R], that number in bootstrap resamples of the images}; the same draws for every run with as many
        images.
      settings: flat, what must be equal for numbers of two runs to be compared.
    """

    title: str
    values: dict[Measure, float]
    replicates: dict[Measure, np.ndarray]
    settings: dict


def read_run(workdir: os.PathLike | str) -> tuple[list[Part], list[str]]:
    """All parts of a run, and sentences about those that are not there.

    A run whose training has not ended has no part at all.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").exists():
        return [], ["not started"]
    accuracy, problem = _accuracy(workdir)
    if problem:
        return [], [problem]
    parts, problems, stages = list(accuracy), [], config_lib.read(workdir).stages
    readers = (
        ("dissection", _dissection),
        ("interventions", _interventions),
        ("attribution", _attribution),
        ("occlusion", _occlusion),
        ("relevance", _relevance),
    )
    for folder, read in readers:
        files = sorted((workdir / folder).glob("*.npz"), key=_natural)
        missed = folder in _WRITTEN_BY and (not stages or _WRITTEN_BY[folder] in stages)
        if not files and missed:
            problems.append(f"no {folder}")
        for path in files:
            try:
                parts.append(read(path))
            except ValueError as error:
                problems.append(str(error))
    return parts, problems


def _natural(path):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]


def _accuracy(workdir) -> tuple[list[Part], str]:
    config = config_lib.read(workdir)
    steps = config.resolved.steps
    if not steps:  # imported or saved
        return [], "" if (workdir / "checkpoints" / "0").exists() else "the import has not ended"
    lines = metric_log.read(workdir)
    found = metric_log.finished(lines, steps)
    if not found:
        done = max((line["step"] for line in lines), default=0)
        return [], f"the training has not ended (step {done} of {steps})"
    name = f"{metric_log.judged(found)}_accuracy"
    measure = Measure("accuracy", name, better=1, scale=(0.0, 1.0))
    return [Part("training", {measure: float(found[name])}, {}, {})], ""


def _dissection(path) -> Part:
    """Without replicates: bootstrap resamples lift IoU over thresholds by chance, so their counts lie above that of all."""
    result = dissection.load(path)
    values = {}
    counts, null, random = map(dissection.with_total, (result.counts, result.null, result.random))
    categories = (*result.categories, "total")
    most = np.broadcast_to(result.most(), counts.shape)
    shape = (len(dissection.PER), len(result.options.iou), len(categories))
    for p, t, g in np.ndindex(shape):
        at = (..., p, 1, t, g)  # 1: unique concepts
        place = {
            "subject": result.layer,
            "setting": dissection.PER[p],
            "level": float(result.options.iou[t]),
            "category": categories[g],
        }

        def add(name: str, value: Any, place: Any = place, most: float = float(most[at])):
            scale = stats.ANYWHERE if name == "unique_above_shuffled" else (0.0, most)
            measure = Measure("concepts", name, better=BETTER[name], scale=scale, **place)
            values[measure] = float(value)

        add("unique", counts[at])
        if len(null):
            chance = null[at].mean()
            add("unique_shuffled", chance)
            add("unique_above_shuffled", counts[at] - chance)
        if result.random.min() >= 0:
            add("unique_random", random[at])
    return Part(f"dissection/{result.layer}", values, {}, _comparable(result.settings))


def _interventions(path) -> Part:
    """What sums the removal of a layer's units up, with its draws of the images."""
    result = removal_result.load(path)
    values, replicates = {}, {}
    again = removal_result.summary(result, removal_rates.draws(len(result.labels)))
    for name, (value,) in removal_result.summary(result).items():
        if np.isnan(value):  # of what was not asked for
            continue
        scale = (0.0, 1.0) if name == "removal_area" else _CHANGE
        place = {"subject": result.layer, "better": BETTER[name], "scale": scale}
        measure = Measure("interventions", name, **place)
        values[measure], replicates[measure] = float(value), again[name]
    title = f"interventions/{result.layer}"
    return Part(title, values, replicates, _comparable(result.settings))


def _attribution(path) -> Part:
    result = evaluation.load(path)
    scores = {n: v for n, v in result.scores.items() if not np.isnan(v).all()}
    # One call for all scores, so that their replicates come from the same draws of images.
    again = stats.bootstrap_means(np.stack([*scores.values()], 1)) if scores else []
    values, replicates = {}, {}
    for k, (name, per_image) in enumerate(scores.items()):
        facts = result.entries["scores"][name]
        measure = Measure(
            facts["kind"],
            name,
            result.method,
            better=facts["better"],
            title=facts["title"],
            headline=facts["headline"],
            scale=tuple(facts["scale"]) or stats.ANYWHERE,
            control=result.kind == "control",
        )
        values[measure] = float(np.nanmean(per_image))
        replicates[measure] = again[:, k]
    return Part(f"attribution/{result.method}", values, replicates, _comparable(result.settings))


def _occlusion(path) -> Part:
    """How the share of right predictions changes with each removal, its mean over those of the least important parts, and how
    many raise it for sure, beyond those by chance."""
    swept = outcomes.load(path)
    found, grid = outcomes.outcome(swept), swept.grid
    values = {}
    for k, label in enumerate(swept.labels):
        measure = Measure("occlusion", "rising_above_chance", setting=f"{label} label", better=0)
        values[measure] = float(found.rising[k] - np.mean(found.by_chance[k]))
        # What the anomaly is about: removing what matters least.
        if "lowest" in grid.selections:
            place = {"setting": f"{label} label", "scale": _CHANGE}
            measure = Measure("occlusion", "lowest_removed", better=0, **place)
            least = grid.selections.index("lowest")
            values[measure] = float(found.accuracy[k, :, least].mean())
        for s, e, a, v in np.ndindex(grid.shape):
            setting = f"{grid.selections[e]}, {grid.values[v]}, {label} label"
            place = {"subject": grid.rankings[s], "setting": setting, "level": grid.shares[a] / 100}
            measure = Measure("occlusion", "accuracy_change", better=0, scale=_CHANGE, **place)
            values[measure] = float(found.accuracy[k, s, e, a, v])
    return Part("occlusion/sweep", values, {}, _comparable(swept.settings))


def _relevance(path) -> Part:
    """Flips by each attribute of animals, accuracy where a bias pays and where it costs, and where explanations point to."""
    if path.name == relevance_result.POINTING:
        return _pointing(path)
    result = relevance_result.load(path)
    flips = attribute_relevance.flipped(result.pairs)
    again = stats.bootstrap_means(flips)
    values, replicates = {}, {}
    for k, name in enumerate(result.changed):
        # Neither way is better: an attribute may be meant to be used, or not.
        measure = Measure("relevance", f"flips_{name}", better=0, title=f"flip rate of {name}",
                          scale=(0.0, 1.0), headline=name in attribute_relevance.HEADLINES)  # fmt: skip
        values[measure], replicates[measure] = float(flips[:, k].mean()), again[:, k]
    for name, right in relevance_result.accuracies(result).items():
        if name != relevance_result.OWN and len(right):
            place = {"better": BETTER[f"{name}_accuracy"], "scale": (0.0, 1.0), "headline": True}
            measure = Measure("relevance", f"{name}_accuracy", **place)
            values[measure] = float(right.mean())
            replicates[measure] = stats.bootstrap_means(right[:, None])[:, 0]
    return Part("relevance/relevance", values, replicates, _comparable(result.settings))


def _pointing(path) -> Part:
    found = relevance_result.load_pointing(path)
    again = stats.bootstrap_means(np.stack([*found.hits.values()], 1))
    values, replicates = {}, {}
    for k, (name, hits) in enumerate(found.hits.items()):
        measure = Measure("relevance", "points_at_class", name, better=BETTER["points_at_class"], scale=(0.0, 1.0),
                          headline=True, control=name in found.controls)  # fmt: skip
        values[measure], replicates[measure] = float(hits.mean()), again[:, k]
    return Part("relevance/pointing", values, replicates, _comparable(found.settings))


def _comparable(settings: dict) -> dict:
    """Settings without what belongs to the network, and without what does not reach the pictures that were looked at."""
    flat = config_lib.flatten(settings)
    test = any(key.rpartition(".")[2] == "split" and v == "test" for key, v in flat.items())

    def counts(key: Any):
        planted = test and "scenes." in key and key.rpartition(".")[2] in _NOT_IN_TEST
        return key.partition(".")[0] not in _OF_THE_NETWORK and not planted

    return {key: value for key, value in flat.items() if counts(key)}
