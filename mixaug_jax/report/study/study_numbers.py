"""The parts of a study's page that are tables of numbers: the augmentations compared, and their differences."""

import pathlib
from typing import Any

import numpy as np

from mixaug_jax.core.types import Scalar
from mixaug_jax.draw import page, style
from mixaug_jax.draw.page import Interval, Table
from mixaug_jax.report.study import study_figures as drawn
from mixaug_jax.study.results import Study
from mixaug_jax.study.sentences import name, title

_MOST = 100  # rows of a long table on the page; all are in its CSV file


def mean(study: Study, a: int, m: int, note: str = "") -> Interval:
    """The mean of augmentation `a`, without an interval where all seeds give the same number."""
    low, high = study.interval[a, m]
    ends = (np.nan, np.nan) if low == high else (low, high)
    return Interval(float(study.mean[a, m]), *map(float, ends), note)


def what_intervals_are(kinds: Any) -> str:
    """One sentence for a caption, about `Study.interval_of` or `Study.difference_of`."""
    said = {
        "seeds": "95 % t-intervals over seeds, cut to the scale",
        "images": "95 % intervals over bootstrap resamples of the images, which say nothing about other seeds",
    }
    found = [said[kind] for kind in said if (kinds == kind).any()]
    return (
        f"Intervals: {'; '.join(found)}."
        if found
        else "There are no intervals: they need three seeds."
    )


def comparison(study: Study, folder: pathlib.Path) -> str:
    """The headline measures of every augmentation, but for those of the occlusion anomaly, which has a part of its own; what
    chance gives for them; and all measures."""
    heading = "The augmentations compared"
    chosen = [m for m in study.headlines if study.measures[m].axis != "occlusion"]
    if not chosen:
        return page.section("comparison", heading, page.missing("No run has any result yet."))
    rows = [
        (augmentation, *(mean(study, a, m, _rank(study, a, m)) for m in chosen))
        for a, augmentation in enumerate(study.augmentations)
    ]
    header = ("augmentation", *(name(study.measures[m]) for m in chosen))
    parts = [page.table(folder, Table("comparison", _caption(study, chosen), header, rows))]
    # Chance stands beside every number, but for what is a headline itself.
    beside = [m for k in chosen for m in _chance(study, k) if m not in chosen]
    if beside:
        caption = (
            "Controls: counts with shuffled label maps and with random weights, and explanations that do not depend on the "
            "network. No interval: identical in all seeds, or fewer than three seeds."
        )
        parts.append(page.table(folder, _by_measure(study, "chance", caption, beside)))
    every = _by_measure(
        study,
        "measures",
        "Every measure, means over seeds with their intervals.",
        range(len(study.measures)),
    )
    table = page.table(folder, every, most=_MOST)
    return page.section(
        "comparison", heading, *parts, page.folded("Every measure", table, long=True)
    )


def _rank(study, a, m) -> str:
    rank = study.rank[a, m]
    few = len(study.augmentations) < 2 or not study.measures[m].better or np.isnan(rank)
    return "" if few else f"rank {rank:.2g}"


def means_over(seeds: int) -> str:
    """The sentence of a caption that says what a number is."""
    return "One seed." if seeds == 1 else f"Means over {seeds} seeds."


def _caption(study, chosen) -> str:
    measures = [study.measures[m] for m in chosen]
    parts = [means_over(len(study.seeds)), what_intervals_are(study.interval_of[:, chosen])]
    if any(_rank(study, a, m) for a in range(len(study.augmentations)) for m in chosen):
        parts.append("Ranks: 1 is the best, means over seeds.")
    # All of an axis are of one layer and threshold, so the first speaks for them.
    for one in [m for m in measures if m.axis == "concepts"][:1]:
        parts.append(f"Concepts are those of {one.subject} at IoU > {one.level:g}.")
    for one in [m for m in measures if m.axis == "interventions"][:1]:
        parts.append(f"Units that are removed are those of {one.subject}.")
    for method in dict.fromkeys(
        m.subject for m in measures if m.axis not in ("concepts", "interventions", "accuracy")
    ):
        parts.append(f"Explanations are those of {method}.")
    smaller = [name(measure) for measure in measures if measure.better < 0]
    if smaller:
        parts.append(f"Smaller is better for: {'; '.join(smaller)}.")
    return " ".join(parts)


def _chance(study, m) -> list[int]:
    """The measures that say what chance gives for another one."""
    one = study.measures[m]
    if one.axis == "concepts":
        place = {"subject": one.subject, "setting": one.setting, "level": one.level}
        names = ("unique", "unique_shuffled", "unique_random")
        return [i for n in names for i in study.find("concepts", n, category=one.category, **place)]
    return [i for i in study.find(one.axis, one.name) if study.measures[i].control]


def _by_measure(study, table, caption, measures) -> Table:
    """A row for each measure, a column for each augmentation."""
    count = range(len(study.augmentations))
    rows = [(title(study.measures[m]), *(mean(study, a, m) for a in count)) for m in measures]
    return Table(table, caption, ("measure", *study.augmentations), rows)


def differences(study: Study, folder: pathlib.Path, column: Scalar = 0.0) -> str:
    """The comparisons of the headline measures, drawn and as a table."""
    chosen = study.headlines
    if not (chosen and study.comparisons):
        return ""
    style.save_figure(drawn.differences(study, chosen), folder / "differences", column=column)
    kinds = study.difference_of[:, list(chosen)]
    caption = (
        "Differences, paired by seed. Line: interval; small points: individual seeds; filled: p < 0.05 after Holm "
        f"correction. {what_intervals_are(kinds)}"
    )
    rows = [
        (
            title(study.measures[m]),
            drawn.comparison(pair),
            Interval(float(study.difference[p, m]), *map(float, study.difference_interval[p, m])),
            int(study.pairs[p, m]),
            float(study.p[p, m]),
            float(study.p_holm[p, m]),
        )
        for m in chosen
        for p, pair in enumerate(study.comparisons)
        if study.pairs[p, m]
    ]
    header = ("measure", "comparison", "difference", "seeds", "p", "p after Holm")
    said = "Paired differences, as in the figure."
    # Else an empty cell would look like a result that is missing.
    if ((study.pairs[:, list(chosen)] > 1) & np.isnan(study.p[:, list(chosen)])).any():
        said += " A difference that is identical in all seeds has no interval and no p-value."
    alt = "dot plots, a panel for each measure and a row for each comparison; the numbers are in the table below"
    return page.section(
        "differences",
        "Differences",
        page.figure(folder, "differences", caption, alt=alt),
        page.folded(
            "The differences as a table",
            page.table(folder, Table("differences", said, header, rows)),
            long=True,
        ),
    )
