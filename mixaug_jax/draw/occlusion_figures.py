"""Figures of a sweep of removals: curves by share, and where accuracy rises."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.core.stats import LEVEL
from mixaug_jax.draw.style import FAINT, GRID, INK, PALETTE, STYLE
from mixaug_jax.occlusion.outcomes import Outcome, Sweep

# ColorBrewer's purple and orange: their order shows with any kind of color vision.
_MAP = "PuOr_r"
_LEAST = 2.0  # points; the colors' smallest range


def curves(swept: Sweep, found: Outcome, ranking: str, *, label: int = 0) -> Figure:
    """Changes of accuracy (above) and loss (below) by the share removed; a panel for each selection,
    a line for each value, with its interval; dotted, the loss as the gradient predicts it.

    Args:
      swept, found: the sweep and its outcome.
      ranking: one of the grid's.
      label: which of the sweep's labels ranks the units.
    """
    grid = swept.grid
    row = label, grid.rankings.index(ranking)
    count = len(grid.selections)
    with matplotlib.rc_context(STYLE):
        figure = Figure((2.6 * count + 0.8, 5.2), layout="constrained")
        # Shares stand at even distances: to scale, the small ones would lie on one another.
        panels = figure.subplots(2, count, sharex=True, sharey="row", squeeze=False)
        for k, selection in enumerate(grid.selections):
            for v, value in enumerate(grid.values):
                style = {"color": PALETTE[v % len(PALETTE)], "label": value.replace("_", " ")}
                place = (*row, k, slice(None), v)
                ends = 100 * found.accuracy_interval[place]
                _line(panels[0, k], 100 * found.accuracy[place], ends, style)
                _line(panels[1, k], found.loss[place], found.loss_interval[place], style)
                panels[1, k].plot(found.first_order[place], ":", color=style["color"], linewidth=1)
            panels[0, k].set_title(selection, fontsize=10)
            panels[1, k].set_xticks(np.arange(len(grid.shares)), [f"{s:g}" for s in grid.shares])
            panels[1, k].set_xlabel("share of the units removed [%]")
        # One legend for all panels, with the dotted line that they all have.
        _dress(panels)
        handles, names = panels[0, 0].get_legend_handles_labels()
        handles.append(matplotlib.lines.Line2D([], [], color=INK, linestyle=":", linewidth=1))
        names.append("first order")
        figure.legend(
            handles, names, loc="outside lower center", ncols=8, frameon=False, fontsize=8
        )
        by = swept.labels[label]
        figure.suptitle(f"{ranking.replace('_', ' ')}, {by} label", fontsize=10)
    return figure


def _line(panel, middle, ends, style):
    at = np.arange(len(middle))
    panel.fill_between(at, *ends.T, color=style["color"], alpha=0.15, linewidth=0)
    panel.plot(at, middle, marker="o", markersize=3, linewidth=1.4, **style)


def _dress(panels):
    """Axes that are linear around 0, where the anomaly is, and logarithmic beyond."""
    for row, what, linear in ((0, "accuracy [points]", 1.0), (1, "loss [nats]", 0.1)):
        panels[row, 0].set_yscale("symlog", linthresh=linear, linscale=0.7)
        panels[row, 0].set_ylabel(f"change of {what}")
        panels[row, 0].yaxis.set_major_formatter(lambda y, _: f"{y:+g}" if y else "0")
    for panel in panels.flat:
        panel.axhline(0, color=FAINT, linewidth=1)
        panel.grid(axis="y", **GRID)
        panel.set_axisbelow(True)


def rises(swept: Sweep, found: Outcome) -> Figure:
    """Where accuracy rises: rankings and selections against shares and values, a panel for each label.

    A dot marks cells whose interval lies above 0, a ring those whose loss falls for sure. Colors
    reach to the largest rise, so most losses of accuracy are at the end of the scale.
    """
    grid = swept.grid
    values = 100 * found.accuracy.reshape(
        len(swept.labels), -1, len(grid.shares) * len(grid.values)
    )
    # Rises are small beside what accuracy loses elsewhere: a scale for both would show none of them.
    reach = max(_LEAST, values.max())
    height = 0.19 * values.shape[1] + 0.9
    with matplotlib.rc_context(STYLE):
        size = (0.19 * values.shape[2] + 4.6, height * len(values) + 1.0)
        figure = Figure(size, layout="constrained")
        panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
        # A panel for each label that ranks, with how many rises chance alone would bring.
        for k, panel in enumerate(panels):
            shown = panel.imshow(
                values[k], cmap=_MAP, vmin=-reach, vmax=reach, aspect="auto", rasterized=True
            )
            falls = (found.loss_interval[k][..., 1] < 0).reshape(values[k].shape)
            _mark(panel, found.rises[k].reshape(values[k].shape), falls)
            _name(panel, grid)
            title = (
                f"{swept.labels[k]} label: rises in {found.rising[k]} of {found.removals} removals"
            )
            title += f" (by chance in {found.by_chance[k].mean():.1f})"
            panel.set_title(title, fontsize=10, loc="left")
        # The lower end is cut off, as the pointed bar says.
        bar = figure.colorbar(shown, ax=panels, extend="min", shrink=0.6, aspect=40, pad=0.01)
        bar.set_label("change of accuracy [points]")
        bar.outline.set_visible(False)
        text = f"dot: {100 * LEVEL:g} % interval of accuracy above 0;  ring: of loss below 0"
        figure.supxlabel(text, fontsize=8)
    return figure


def _mark(panel, rising, falling):
    for marked, style in (
        (rising, {"marker": ".", "color": "black", "s": 22}),
        (
            falling,
            {"marker": "o", "facecolor": "none", "edgecolor": INK, "s": 26, "linewidth": 0.6},
        ),
    ):
        row, col = np.nonzero(marked)
        panel.scatter(col, row, **style)


def _name(panel, grid):
    """The names of rows and columns, and lines between rankings and between shares."""
    rows = [f"{s.replace('_', ' ')}, {q}" for s in grid.rankings for q in grid.selections]
    cols = [f"{k:g} %, {v.replace('_', ' ')}" for k in grid.shares for v in grid.values]
    panel.set_yticks(np.arange(len(rows)), rows, fontsize=7)
    panel.set_xticks(np.arange(len(cols)), cols, fontsize=7, rotation=90)
    panel.tick_params(length=0)
    for k in range(1, len(grid.rankings)):
        panel.axhline(k * len(grid.selections) - 0.5, color=FAINT, linewidth=0.6)
    for k in range(1, len(grid.shares)):
        panel.axvline(k * len(grid.values) - 0.5, color=FAINT, linewidth=0.6)
