"""What a sweep found: every headline number over the values of a swept key."""

import math
import pathlib
import textwrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.draw import page, style
from mixaug_jax.draw.style import FAINT, GRID, PALETTE, STYLE, add_legend
from mixaug_jax.report.study.study_numbers import means_over
from mixaug_jax.study.results import Study
from mixaug_jax.study.sentences import title
from mixaug_jax.study.sweeps import lines

_WIDE = 9.4  # inches, the width of the page
_DECADE = 8.0  # positive values that lie further apart than by this factor have a logarithmic axis


def section(study: Study, folder: pathlib.Path, column: float = 0.0) -> str:
    """The section of a study's page, with figures for a paper's `column` [inches]; "" where nothing is swept or measured."""
    swept = study.asked.get("swept", {})
    keys = list(dict.fromkeys(key for values in swept.values() for key in values if key != "of"))
    measures = [m for m in study.headlines if np.isfinite(study.mean[:, m]).any()]
    parts = []
    for key in keys if measures else ():
        name = f"sweep_{key.replace('.', '_')}"
        style.save_figure(figure(study, key, measures), folder / name, column=column)
        caption = (
            f"Over {key}. {means_over(len(study.seeds))} Upright lines: intervals, where there are any; dotted: augmentations "
            "that do not have the key. Lines only join the values that were tried."
        )
        names = ", ".join(title(study.measures[m]) for m in measures)
        parts.append(page.figure(folder, name, caption, alt=f"line charts over {key}: {names}"))
    return page.section("sweeps", "Sweeps", *parts) if parts else ""


def figure(study: Study, key: str, measures: list[int]) -> Figure:
    """A panel for each of `measures` (indices in `study.measures`), over the values of `key`."""
    found = lines(study.asked["swept"], key)
    places, ticks, scale = _axis([value for line in found.values() for value in line])
    # Without a value of the key they are levels to compare with, not points of a line.
    apart = [n for n in study.augmentations if key not in study.asked["swept"].get(n, {})]
    columns = 2 if len(measures) > 1 else 1
    rows = -(-len(measures) // columns)
    with matplotlib.rc_context(STYLE):
        drawn = Figure((_WIDE, 2.4 * rows + 0.4), layout="constrained")
        panels = drawn.subplots(rows, columns, squeeze=False).ravel()
        for panel, m in zip(panels, measures, strict=False):
            for number, (label, line) in enumerate(found.items()):
                _line(panel, study, m, label, {places[v]: name for v, name in line.items()}, number)
            for name in apart:
                mean = study.mean[study.augmentations.index(name), m]
                panel.axhline(mean, color=FAINT, linestyle=":", linewidth=1.2, label=name)
            panel.set_title(textwrap.fill(title(study.measures[m]), 46), fontsize=9)
            panel.set_xscale(scale)
            panel.set_xticks(list(ticks), list(ticks.values()))
            panel.minorticks_off()
            panel.set_xlabel(key + (" (logarithmic)" if scale == "log" else ""))
            panel.grid(axis="y", **GRID)
            panel.set_axisbelow(True)
        for panel in panels[len(measures) :]:
            panel.set_axis_off()
        add_legend(drawn, panels[0])
    return drawn


def _line(panel, study, m, label, points, number):
    """Means over the values, and their intervals."""
    at = sorted(points)
    rows = [study.augmentations.index(points[x]) for x in at]
    shade = PALETTE[number % len(PALETTE)]
    panel.plot(at, study.mean[rows, m], color=shade, marker="o", markersize=4, label=label)
    low, high = study.interval[rows, m].T
    panel.vlines(at, low, high, color=shade, linewidth=1.2, alpha=0.6)


def _axis(values):
    """Where values lie, {value: place}; what is written there, {place: value}; and the scale, "linear" or "log"."""
    values = list(dict.fromkeys(values))
    try:
        places = {value: float(value) for value in values}
    except ValueError:  # words
        places = {value: float(k) for k, value in enumerate(values)}
        return places, {places[v]: v for v in values}, "linear"
    numbers = list(places.values())
    log = min(numbers) > 0 and max(numbers) / min(numbers) > _DECADE and math.isfinite(max(numbers))
    return places, {places[v]: v for v in values}, "log" if log else "linear"
