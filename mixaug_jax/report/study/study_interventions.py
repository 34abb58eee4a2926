"""The part of a study's page about interventions: what units are worth to the networks of each augmentation."""

import pathlib

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.core import files
from mixaug_jax.core.types import Scalar
from mixaug_jax.dissection import unit_sets
from mixaug_jax.draw import page, style
from mixaug_jax.draw.page import Table
from mixaug_jax.draw.style import GRID, STYLE, add_legend
from mixaug_jax.report.run.run_interventions import TITLE
from mixaug_jax.report.study import study_figures, study_numbers
from mixaug_jax.study import sentences
from mixaug_jax.study.results import Study

_Curves = dict[
    str, dict[str, list[np.ndarray]]
]  # by layer and augmentation, [2,points] of each seed


def section(study: Study, folder: pathlib.Path, column: Scalar = 0.0) -> str:
    """The balanced accuracy while units go, and the numbers that sum it up, from each run's `interventions/`."""
    measures = study.find("interventions")
    if not measures:
        text = page.missing("intervene: no run has interventions.")
        return page.section("interventions", TITLE, text)
    parts, found = [], curves(study)
    if found:
        style.save_figure(figure(study, found), folder / "interventions", column=column)
        caption = (
            "Balanced accuracy while all units go in random order. Lines: mean over seeds, bands: range over seeds; a "
            f"network's own line is the mean of {unit_sets.CONTROLS} orders."
        )
        alt = (
            f"line charts for {', '.join(found)}; the areas under the lines are in the table below"
        )
        parts.append(page.figure(folder, "interventions", caption, alt=alt))
    count = range(len(study.augmentations))
    rows = [
        (sentences.title(study.measures[m]), *(study_numbers.mean(study, a, m) for a in count))
        for m in measures
    ]
    caption = (
        "What removing units does, means over seeds. Accuracies are shares; that of a class is of telling it from all others, "
        f"where chance is 0.5. {study_numbers.what_intervals_are(study.interval_of[:, list(measures)])}"
    )
    table = Table("interventions", caption, ("measure", *study.augmentations), rows)
    return page.section("interventions", TITLE, *parts, page.table(folder, table))


def curves(study: Study) -> _Curves:
    """The random orders of each run: shares removed and balanced accuracy, by layer and augmentation."""
    found: _Curves = {}
    for (name, _), where in study.workdirs.items():
        lines: dict[str, list] = {}
        for row in files.read_csv(pathlib.Path(where) / "interventions" / "orders.csv"):
            if row["order"] == unit_sets.RANDOM:
                point = row["share"], row["balanced_accuracy"]
                lines.setdefault(str(row["layer"]), []).append(point)
        for layer, points in lines.items():
            seeds = found.setdefault(layer, {}).setdefault(name, [])
            # A band needs the same shares in all seeds: those of networks with as many units.
            if not seeds or len(seeds[0][0]) == len(points):
                seeds.append(np.array(points, np.float64).T)
    return found


def figure(study: Study, found: _Curves) -> Figure:
    """A panel for each layer, a line for each augmentation."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure((3.1 * len(found) + 1.2, 3.2), layout="constrained")
        panels = drawn.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for panel, (layer, by_name) in zip(panels, found.items(), strict=True):
            for name, seeds in by_name.items():
                # Seeds share their steps, as the networks are of one architecture.
                shares, heights = 100 * seeds[0][0], 100 * np.stack([line[1] for line in seeds])
                color = study_figures.color(study, name)
                panel.plot(shares, heights.mean(0), color=color, label=name, marker=".")
                ends = heights.min(0), heights.max(0)
                panel.fill_between(shares, *ends, color=color, alpha=0.15, linewidth=0)
            panel.set_title(layer, fontsize=9, loc="left")
            panel.set_xlabel("share of units removed [%]")
            panel.grid(**GRID)
            panel.set_axisbelow(True)
        panels[0].set_ylabel("balanced accuracy [%]")
        panels[0].set_ylim(-2, 102)
        add_legend(drawn, panels[0])
    return drawn
