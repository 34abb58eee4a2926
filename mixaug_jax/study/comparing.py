"""The statistics of a study: means, differences, ranks."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.study import plan, sentences
from mixaug_jax.study.measures import AXES, Measure
from mixaug_jax.study.results import Study


def compare(
    names: Sequence[str],
    seeds: Sequence[int],
    parts: dict,
    method: str,
    *,
    at_chance: Mapping,
) -> Study:
    """The numbers of runs as a `Study`, without what is known of the runs besides.

    Args:
      names: of the augmentations; the first is what the others are compared with.
      seeds: of the trainings.
      parts: {(name, seed): list of `collect.Part`}.
      method: the attribution method that the sentences judge.
      at_chance: see `Study`.
    """
    names, seeds = tuple(names), tuple(seeds)
    values, replicates = _merge(parts)
    measures = _ordered(values)
    there = _table(names, seeds, measures, values)
    headlines = _headlines(measures, method)
    pairs = comparisons(names)
    # All measures get numbers; Holm's correction counts the headline ones alone.
    numbers = _means(names, seeds, measures, there, replicates)
    # What a network at chance says of an augmentation is noise.
    compared = there.copy()
    for name, seed in at_chance:
        compared[names.index(name), seeds.index(seed)] = np.nan
    differences = _differences(names, seeds, measures, compared, replicates, pairs)
    measures = tuple(dataclasses.replace(m, headline=m in headlines) for m in measures)
    p_holm = _corrected(measures, names[0], pairs, differences["p"])
    study = Study(
        augmentations=names,
        seeds=seeds,
        measures=measures,
        values=there,
        comparisons=pairs,
        **numbers,
        **differences,
        p_holm=p_holm,
        rank=_ranks(measures, compared, p_holm),
        sentences={},
        at_chance=dict(at_chance),
    )
    # Sentences are read off the finished comparison, so that they cannot say anything else.
    return dataclasses.replace(study, sentences=sentences.all_axes(study))


def comparisons(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(augmentation, reference): each and the first; then each with unmixed labels and the same with mixed ones."""
    twins = [
        (name, name.removesuffix(plan.UNMIXED)) for name in names if name.endswith(plan.UNMIXED)
    ]
    return (
        *((name, names[0]) for name in names[1:]),
        # A twin of the first one is compared with it above already.
        *((name, mixed) for name, mixed in twins if mixed in names[1:]),
    )


def _merge(parts):
    """{(name, seed): {measure: number}} and the same with replicates."""
    values = {run: {} for run in parts}
    replicates = {run: {} for run in parts}
    for run, found in parts.items():
        for part in found:
            values[run] |= part.values
            replicates[run] |= part.replicates
    return values, replicates


def _ordered(values) -> list[Measure]:
    """By axis, else in the order in which they were read."""
    measures = list(dict.fromkeys(m for found in values.values() for m in found))
    return sorted(measures, key=lambda measure: AXES.index(measure.axis))


def _table(names, seeds, measures, values):
    table = np.full((len(names), len(seeds), len(measures)), np.nan)
    for (name, seed), found in values.items():
        for m, measure in enumerate(measures):
            table[names.index(name), seeds.index(seed), m] = found.get(measure, np.nan)
    return table


def _headlines(measures, method) -> set[Measure]:
    """What the sentences judge, named before any result is seen: accuracy; the total of unique concepts of the last layer above
    their shuffled null, at the middle IoU threshold; of one attribution method the scores whose records say so, and two
    readings of deletion across models; what happens without the parts that the true label's loss depends on least; what happens
    without units of the last layer, in random order and by what they detect; of animals, flips by single attributes, and
    accuracy where a bias pays and where it costs."""
    concepts = [
        m for m in measures
        if m.axis == "concepts" and m.setting == "unit" and m.category == "total"
    ]  # fmt: skip
    named: list[Measure] = []
    for name in ("unique_above_shuffled", "unique"):
        named = [m for m in concepts if m.name == name]
        if named:
            break
    # Natural order, in which layer10 is deeper than layer9.
    last = max((m.subject for m in named), key=_natural, default="")
    levels = sorted({m.level for m in concepts})
    chosen = {m for m in named if m.subject == last and m.level == levels[len(levels) // 2]}
    chosen |= {m for m in measures if m.subject == method and m.headline}
    removed = [m for m in measures if m.axis == "interventions"]
    last = max((m.subject for m in removed), key=_natural, default="")
    # Whether a network bears the loss of units, and whether detectors are needed more than other units.
    judged = ("removal_area", "detector_harm")
    chosen |= {m for m in removed if m.subject == last and m.name in judged}
    chosen |= {m for m in measures if m.name == "lowest_removed" and m.setting == "true label"}
    chosen |= {m for m in measures if m.axis == "relevance" and m.headline and not m.subject}
    return chosen | {m for m in measures if m.axis == "accuracy"}


def _natural(text: str):
    # Pairs, since Python does not compare numbers with text.
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]


def _means(names, seeds, measures, values, replicates) -> dict:
    """The fields of a `Study` with a number for each augmentation and measure."""
    shape = (len(names), len(measures))
    mean, n = np.full(shape, np.nan), np.zeros(shape, np.int64)
    interval, over = np.full((*shape, 2), np.nan), np.full(shape, "", "<U6")
    images = np.full((*values.shape, 2), np.nan)
    for a, s, m in zip(*np.nonzero(~np.isnan(values)), strict=True):
        drawn = replicates[names[a], seeds[s]].get(measures[m], ())
        images[a, s, m] = stats.percentiles(drawn)
    for a, m in np.ndindex(shape):
        mean[a, m], *interval[a, m], n[a, m] = stats.mean_interval(
            values[a, :, m], measures[m].scale
        )
        if n[a, m] >= stats.FEWEST_SEEDS:
            over[a, m] = "seeds"
        elif n[a, m] == 1:
            # One seed has no spread of its own; the uncertainty over images is what is left.
            ends = images[a, ~np.isnan(values[a, :, m]), m][0]
            interval[a, m], over[a, m] = ends, "" if np.isnan(ends).any() else "images"
    return {
        "image_intervals": images,
        "mean": mean,
        "interval": interval,
        "n": n,
        "interval_of": over,
    }


def _ranks(measures, values, p_holm) -> np.ndarray:
    """[A,M], NaN for a measure of which no difference is supported: an order by noise would look like a finding."""
    rank = np.full((len(values), len(measures)), np.nan)
    for m, measure in enumerate(measures):
        if (p_holm[:, m] < stats.ALPHA).any():
            rank[:, m] = stats.mean_ranks(values[:, :, m], measure.better)
    return rank


def _differences(names, seeds, measures, values, replicates, pairs) -> dict:
    """The fields of a `Study` with a number for each comparison and measure."""
    shape = (len(pairs), len(measures))
    difference, p = np.full(shape, np.nan), np.full(shape, np.nan)
    interval, over = np.full((*shape, 2), np.nan), np.full(shape, "", "<U6")
    n = np.zeros(shape, np.int64)
    for k, m in np.ndindex(shape):
        sides = [values[names.index(name), :, m] for name in pairs[k]]
        difference[k, m], *interval[k, m], p[k, m], n[k, m] = stats.paired(
            *sides, measures[m].scale
        )
        if n[k, m] >= stats.FEWEST_SEEDS:
            over[k, m] = "" if np.isnan(p[k, m]) else "seeds"
        elif n[k, m] == 1:
            seed = seeds[int(np.flatnonzero(~np.isnan(sides[0] - sides[1]))[0])]
            drawn = [replicates[name, seed].get(measures[m], np.zeros(0)) for name in pairs[k]]
            # Subtracted draw by draw: both resample the same images, so what they share cancels.
            if len(drawn[0]) and len(drawn[0]) == len(drawn[1]):
                interval[k, m], over[k, m] = stats.percentiles(drawn[0] - drawn[1]), "images"
    return {
        "difference": difference,
        "difference_interval": interval,
        "pairs": n,
        "difference_of": over,
        "p": p,
    }


def _corrected(measures, first, pairs, p):
    """p after Holm's correction, family by family."""
    corrected = np.full(p.shape, np.nan)
    # Whether labels are mixed is a question of its own, and so a family of its own.
    of_labels = np.array([reference != first for _, reference in pairs], bool)
    for axis in AXES:
        columns = [i for i, m in enumerate(measures) if m.headline and m.axis == axis]
        for rows in (np.flatnonzero(of_labels), np.flatnonzero(~of_labels)):
            family = np.ix_(rows, columns)
            corrected[family] = stats.holm(p[family].ravel()).reshape(p[family].shape)
    return corrected
