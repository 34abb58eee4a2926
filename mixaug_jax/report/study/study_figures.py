"""Figures of a study: what the augmentations do, beside each other."""

import math
import textwrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mixaug_jax.core.stats import ALPHA
from mixaug_jax.draw.style import CROSS, FAINT, GRID, INK, PALETTE, STYLE, add_legend
from mixaug_jax.study.results import Study
from mixaug_jax.study.sentences import title

_WIDE = 9.4  # inches, the width of the page


def comparison(pair: tuple[str, str]) -> str:
    """ "cutmix minus baseline"."""
    return f"{pair[0]} minus {pair[1]}"


def color(study: Study, name: str) -> str:
    """An augmentation's color, the same in every figure."""
    return PALETTE[study.augmentations.index(name) % len(PALETTE)]


def differences(study: Study, measures: tuple[int, ...]) -> Figure:
    """Paired differences with their intervals, a panel for each measure.

    Small points are single seeds; a filled mark is a difference that Holm's correction leaves below 0.05.

    Args:
      study: with one comparison at least.
      measures: indices in `study.measures`, one at least.
    """
    count, columns = len(study.comparisons), 2 if len(measures) > 1 else 1
    rows = -(-len(measures) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((_WIDE, rows * (0.3 * count + 0.95)), layout="constrained")
        figure.get_layout_engine().set(hspace=0.06, wspace=0.03)
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for panel, m in zip(panels, measures, strict=False):
            panel.axvline(0, color=FAINT, linewidth=1)
            for p in range(count):
                _difference(panel, study, m, p)
            panel.set_title(textwrap.fill(title(study.measures[m]), 46), fontsize=9)
            panel.set_xlabel(_side(study.measures[m].better), fontsize=8)
            panel.set_yticks(range(count), [comparison(pair) for pair in study.comparisons])
            # Inverted, so that the first comparison comes at the top.
            panel.set_ylim(count - 0.5, -0.5)
            panel.tick_params(axis="y", length=0)
            panel.xaxis.set_major_locator(MaxNLocator(nbins=5))
            panel.grid(axis="x", **GRID)
            panel.set_axisbelow(True)
        for panel in panels[len(measures) :]:
            panel.set_axis_off()
    return figure


def _difference(panel, study, m, p):
    name, reference = study.comparisons[p]
    shade = color(study, name)
    one, other = (study.values[study.augmentations.index(n), :, m] for n in (name, reference))
    single = one - other
    low, high = study.difference_interval[p, m]
    # A single seed without replicates over images has no interval.
    if math.isfinite(low):
        panel.hlines(p, low, high, color=shade, linewidth=2)
    panel.scatter(single, np.full(len(single), p + 0.22), s=7, color=FAINT, linewidth=0, zorder=3)
    face = shade if study.p_holm[p, m] < ALPHA else "white"
    style = {"s": 36, "facecolor": face, "edgecolor": shade, "linewidth": 1.6, "zorder": 4}
    panel.scatter(study.difference[p, m], p, **style)


def _side(better):
    return {1: "better \N{RIGHTWARDS ARROW}", -1: "\N{LEFTWARDS ARROW} better"}.get(better, "")


def concepts(study: Study, layer: str) -> Figure:
    """Unique concepts by category and IoU threshold for all augmentations: Won et al. 2023, Fig. 3.

    Bars are means over seeds, points single seeds; circle: label maps shuffled against images; cross: random weights.
    """
    found = [
        study.measures[m] for m in study.find("concepts", "unique", subject=layer, setting="unit")
    ]
    levels = sorted({measure.level for measure in found})
    groups = list(dict.fromkeys(measure.category for measure in found))
    with matplotlib.rc_context(STYLE):
        figure = Figure((_WIDE, 2.1 * len(levels) + 0.5), layout="constrained")
        panels = figure.subplots(len(levels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, level in zip(panels, levels, strict=True):
            place = {"subject": layer, "setting": "unit", "level": level}
            for name in study.augmentations:
                _bars(panel, study, place, groups, name)
            panel.set_xticks(range(len(groups)), groups)
            panel.set_xlim(-0.6, len(groups) - 0.4)
            panel.set_ylabel(f"unique concepts\nat IoU > {level:g}")
            panel.tick_params(axis="x", length=0)
            panel.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            panel.grid(axis="y", **GRID)
            panel.set_axisbelow(True)
            # Counts: a bar that did not begin at 0 would lie about their ratio.
            panel.set_ylim(bottom=0)
        add_legend(figure, panels[0])
    return figure


def _bars(panel, study, place, groups, name):
    """One augmentation's bars in a panel, one a category; `place` tells the measures' layer and level."""
    a, many = study.augmentations.index(name), len(study.augmentations)
    # The bars of a category stand side by side, with room between the categories.
    at = np.arange(len(groups)) + 0.84 * ((a + 0.5) / many - 0.5)

    def numbers(what: Any, array: Any):
        """array[..., m] by category, NaN where there is no such measure."""
        found = [study.find("concepts", what, category=group, **place) for group in groups]
        empty = np.full(array.shape[:-1], np.nan)
        return np.stack([array[..., m[0]] if m else empty for m in found], -1)

    width = 0.78 / many
    hatch = "////" if a >= len(PALETTE) else None
    style = {"facecolor": color(study, name), "edgecolor": "white", "linewidth": 0, "hatch": hatch}
    panel.bar(at, numbers("unique", study.mean[a]), width, label=name, **style)
    seeds = numbers("unique", study.values[a])
    first = a == 0  # one entry of each kind in the legend
    if len(seeds) > 1:
        beside = at + width * np.linspace(-0.22, 0.22, len(seeds))[:, None]
        label = "one seed" if first else None
        panel.scatter(beside, seeds, s=6, color=INK, linewidth=0, zorder=4, label=label)
    mark = {"facecolor": "white", "edgecolor": INK, "linewidth": 0.9, "s": 15, "zorder": 5}
    panel.scatter(at, numbers("unique_shuffled", study.mean[a]), clip_on=False,
                  label="shuffled labels" if first else None, **mark)  # fmt: skip
    label = "random weights" if first else None
    panel.scatter(at, numbers("unique_random", study.mean[a]), s=16, label=label, **CROSS)


def cross_deletion(study: Study) -> Figure:
    """Area under each model's deletion curve with pixels ranked by each source, over that of random ranking.

    One matrix for the mean over the seeds that have all models, then one for each seed.
    """
    found = study.cross_deletion
    models = max((cross.models for cross in found.values()), key=len)
    # Only seeds that have every model can be averaged cell by cell.
    whole = [cross.relative for cross in found.values() if cross.models == models]
    sources = next(cross.sources for cross in found.values() if cross.models == models)
    shown = [(f"seed {seed}", c.models, c.sources, c.relative) for seed, c in found.items()]
    if len(whole) > 1:
        mean = (f"mean of {len(whole)} seeds", models, sources, np.mean(whole, 0))
        shown.insert(0, mean)
    columns = min(2, len(shown))
    rows, high = -(-len(shown) // columns), 0.42 * len(models) + 1.5
    with matplotlib.rc_context(STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure((_WIDE * columns / 2, rows * high), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        every = np.concatenate([matrix.ravel() for *_, matrix in shown])
        every = every[np.isfinite(every)]  # no output is left even in random order: infinite
        # One scale for all panels, which always includes 1, the random order.
        ends = {"vmin": every.min(initial=1), "vmax": every.max(initial=1)}
        for panel, (name, models, sources, matrix) in zip(panels, shown, strict=False):
            picture = panel.imshow(matrix, cmap="cividis", aspect="auto", **ends)
            _numbers(panel, matrix, ends)
            _frame_own(panel, models, sources)
            panel.set_title(name, fontsize=9)
            panel.set_xticks(range(len(sources)), sources, rotation=45, ha="right", fontsize=8)
            panel.set_yticks(range(len(models)), models, fontsize=8)
            panel.set_xlabel("pixels ranked by the explanations of")
            panel.set_ylabel("judged by")
            panel.tick_params(length=0)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        figure.colorbar(picture, ax=panels, shrink=0.8, label="area, 1 is random order")
    return figure


def _frame_own(panel, models, sources):
    """White on black, which shows on every color."""
    for row, name in enumerate(models):
        corner = (sources.index(name) - 0.5, row - 0.5)
        for shade, width in (("black", 3.0), ("white", 1.4)):
            panel.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=shade, linewidth=width))


def _numbers(panel, matrix, ends):
    middle = (ends["vmin"] + ends["vmax"]) / 2
    for (row, col), value in np.ndenumerate(matrix):
        ink = "white" if value < middle else INK
        panel.text(col, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)


def occlusion(study: Study, sweeps: dict[str, list[list[dict]]]) -> Figure:
    """Change of accuracy by the share removed, a panel for each selection, a line for each augmentation.

    Of the sweep's first ranking, value and label; lines are means over seeds, bands reach over them.

    Args:
      study: whose augmentations these are.
      sweeps: the rows of each seed's `occlusion/sweep.csv`, by augmentation; all of the same grid.
    """
    one = next(iter(sweeps.values()))[0]
    first = {key: one[0][key] for key in ("label", "ranking", "value")}
    selections = dict.fromkeys(row["selection"] for row in one)
    with matplotlib.rc_context(STYLE):
        figure = Figure((_WIDE, 3.2), layout="constrained")
        panels = figure.subplots(1, len(selections), sharey=True, squeeze=False)[0]
        for panel, selection in zip(panels, selections, strict=True):
            panel.axhline(0, color=FAINT, linewidth=1)
            for name, seeds in sweeps.items():
                # The first label, ranking and value stand for the grid: all of it is in the table.
                chosen = first | {"selection": selection}
                found = [[r for r in rows if chosen.items() <= r.items()] for rows in seeds]
                change = 100 * np.array([[r["accuracy_change"] for r in rows] for rows in found])
                shares = [row["share"] for row in found[0]]
                panel.plot(shares, change.mean(0), color=color(study, name), label=name, marker=".")
                ends = change.min(0), change.max(0)
                panel.fill_between(shares, *ends, color=color(study, name), alpha=0.15, linewidth=0)
            panel.set_title(selection, fontsize=9)
            panel.set_xlabel("share of the units removed [%]")
            panel.grid(**GRID)
            panel.set_axisbelow(True)
        panels[0].set_ylabel("change of accuracy [points]")
        handles, names = panels[0].get_legend_handles_labels()
        style = {"loc": "outside lower left", "ncols": 5, "frameon": False, "fontsize": 8}
        figure.legend(handles, names, **style)
    return figure
