"""The part of a run's page about interventions: what becomes of its classes without single units, detectors, and many units."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from mixaug_jax.core import files, stats
from mixaug_jax.core.types import Scalar
from mixaug_jax.dissection import removal_rates, removal_result
from mixaug_jax.dissection.removal_result import Intervention
from mixaug_jax.dissection.result import Dissection
from mixaug_jax.draw import intervention_figures, page, style
from mixaug_jax.draw.page import Interval, Table
from mixaug_jax.report.run import found_files

TITLE = "Interventions"
_MOST = 100  # rows of a long table on the page; all are in its CSV file


def section(
    source: pathlib.Path, folder: pathlib.Path, notes: Sequence[Markup], column: Scalar
) -> Markup:
    """The results of intervene in `source`, after `notes`; figures and tables go to `folder`."""
    units = files.read_csv(source / "units.csv")
    if not units:
        return page.section(
            "interventions", TITLE, page.missing("intervene: not run (--stage=intervene).")
        )
    parts = [*notes]
    for layer in dict.fromkeys(str(row["layer"]) for row in units):
        try:
            result = removal_result.load(source / f"{layer}.npz")
        except ValueError as error:
            parts.append(page.missing(f"{error}; --stage=intervene makes it again."))
            continue
        name = f"removals_{layer}"
        if not found_files.copy(source, folder, name):
            style.save_figure(intervention_figures.curves(result), folder / name, column=column)
        caption, alt = intervention_figures.caption(result), intervention_figures.alt(result)
        parts += [page.heading(layer), page.paragraph(said(result), kind="note")]
        parts.append(page.figure(folder, name, caption, alt=alt))
    concepts = files.read_csv(source / "concepts.csv")
    if concepts:
        parts.append(page.table(folder, _concepts(concepts)))
    # As long as the network is wide; what any class needs most stands first.
    units = sorted(units, key=lambda row: -float(row["importance"] or 0))
    parts.append(
        page.folded("Table of units", page.table(folder, _units(units), most=_MOST), long=True)
    )
    classes = files.read_csv(source / "classes.csv")
    if classes:
        table = page.table(folder, _classes(classes), most=_MOST)
        parts.append(page.folded("Table of classes", table, long=True))
    return page.section("interventions", TITLE, *parts)


def of(source: pathlib.Path, results: Mapping[str, Dissection]) -> dict[str, Intervention]:
    """By layer what `source` has of the same weights as the dissections."""
    found = {}
    for layer, dissected in results.items():
        with contextlib.suppress(ValueError):  # not there, or damaged, which `section` says
            removed = removal_result.load(source / f"{layer}.npz")
            if removed.settings["weights"] == dissected.settings.get("weights"):
                found[layer] = removed
    return found


def said(result: Intervention) -> str:
    """What the removals of a layer's units come to, in a few sentences, each number with its interval over images."""
    draws = removal_rates.draws(len(result.labels))
    # The same resamples for all numbers, so that what hangs together stays together.
    found, again = removal_result.summary(result), removal_result.summary(result, draws)
    numbers = {name: _with_interval(found[name][0], again[name]) for name in found}
    points = {name: _with_interval(100 * found[name][0], 100 * again[name]) for name in found}
    text = [
        f"{result.layer} has {result.units} units; with all of them the balanced accuracy is "
        f"{100 * result.accuracy()[0, 0]:.1f} % of {len(result.labels)} images."
    ]
    if not np.isnan(found["single_drop"][0]):
        text.append(f"Without one unit it falls by {points['single_drop']} points on average.")
    # NaN where a family of sets was not asked for: nothing is said of it.
    if not np.isnan(found["removal_area"][0]):
        text.append(
            f"While all units go in random order, the area under it is {numbers['removal_area']}"
            + (
                "."
                if np.isnan(found["ranked_gap"][0])
                else f"; it is smaller by {numbers['ranked_gap']} where the units of the highest IoU go first."
            )
        )
    if not np.isnan(found["detector_harm"][0]):
        known = removal_result.harms(result)
        own, others = (100 * np.mean([pair[k][0] for pair in known.values()]) for k in (0, 1))
        text.append(
            f"Without the detectors of a concept, the classes that show it lose {own:.2f} points, without equally many other "
            f"units {others:.2f}: a difference of {points['detector_harm']} (means over {len(known)} concepts)."
        )
    return f"{' '.join(text)} In brackets {100 * stats.LEVEL:g} % intervals over images."


def _with_interval(value, draws) -> str:
    low, high = stats.percentiles(draws)
    if np.isnan(low):
        return f"{value:.3g}"
    return f"{value:.3g} ({min(low, value):.3g} to {max(high, value):.3g})"


def _concepts(rows) -> Table:
    caption = (
        "What classes lose without the detectors of a concept that they show in more of their images than others do: accuracy "
        "of telling such a class from all others, in points; beside it without equally many other units, and the difference "
        f"with its {100 * stats.LEVEL:g} % interval over images."
    )
    header = ("layer", "concept", "detectors", "classes", "without them", "without others")
    cells = [
        (str(r["layer"]), str(r["concept"]), r["detectors"], r["classes"], 100 * r["drop"],
         100 * r["others_drop"], Interval(*(100 * r[k] for k in ("difference", "low", "high"))))
        for r in rows
    ]  # fmt: skip
    return Table("intervention_concepts", caption, (*header, "difference"), cells)


def _units(rows) -> Table:
    caption = (
        "All units, sorted by importance: the largest drop of any class's accuracy without the unit, on training images; "
        "beside it the drop of the same class on images that did not choose it. Precision: share of the unit's pixels that "
        "show its best concept; recall: share of the concept's pixels where it is on. "
        "Selectivity: 1 where one class alone moves it."
    )
    columns = [name for name in rows[0] if name not in ("heldout_low", "heldout_high")]
    cells = []
    for row in rows:
        found = dict(row)
        if row["heldout_drop"] != "":
            ends = row["heldout_drop"], row["heldout_low"], row["heldout_high"]
            found["heldout_drop"] = Interval(*ends)
        cells.append([str(found[c]) if c == "layer" else found[c] for c in columns])
    return Table("intervention_units", caption, [c.replace("_", " ") for c in columns], cells)


def _classes(rows) -> Table:
    caption = (
        "Accuracy of telling a class from all others without its most or its least important units, and its drop with its "
        f"{100 * stats.LEVEL:g} % interval over images."
    )
    header = ("layer", "class", "removed", "units", "accuracy", "drop", "loss")
    cells = [
        (str(r["layer"]), str(r["class"]), r["removed"], r["units"], r["accuracy"],
         Interval(r["drop"], r["low"], r["high"]), r["loss"])
        for r in rows
    ]  # fmt: skip
    return Table("intervention_classes", caption, header, cells)
