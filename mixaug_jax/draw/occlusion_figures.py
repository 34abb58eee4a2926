"""Figures of a sweep of removals: curves by share, and where accuracy rises; and what they show, in words."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.core.stats import LEVEL
from mixaug_jax.draw.occlusion_tables import counted, of_loss, parts, ranked, same
from mixaug_jax.draw.style import FAINT, GRID, INK, PALETTE, STYLE
from mixaug_jax.occlusion.outcomes import Outcome, Sweep

# ColorBrewer's purple and orange: their order shows with any kind of color vision.
_MAP = "PuOr_r"
_TITLE = {"fontsize": 9, "loc": "left"}
_LEAST = 2.0  # points; the colors' smallest range
_LINEAR = {
    "accuracy [points]": 1.0,
    "loss [nats]": 0.1,
}  # around 0, beyond which scales are logarithmic


def curves(swept: Sweep, found: Outcome, ranking: str, *, label: int = 0) -> Figure:
    """Changes of accuracy (above) and loss (below) by the share removed; a panel for each selection,
    a line for each value, with its interval; dotted, the loss as the gradient predicts it.

    Args:
      swept, found: the sweep and its outcome.
      ranking: one of the grid's.
      label: which of the sweep's labels ranks the pixels.
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
            panels[1, k].set_xlabel(f"share of the {parts(grid)} removed [%], not to scale")
        # One legend for all panels, with the dotted line that they all have.
        _dress(panels)
        handles, names = panels[0, 0].get_legend_handles_labels()
        handles.append(matplotlib.lines.Line2D([], [], color=INK, linestyle=":", linewidth=1))
        names.append("loss as the gradient predicts it")
        figure.legend(
            handles, names, loc="outside lower center", ncols=8, frameon=False, fontsize=8
        )
        figure.suptitle(f"{ranked(grid, ranking)}; {of_loss(swept.labels[label])}", fontsize=10)
    return figure


def _line(panel, middle, ends, style):
    at = np.arange(len(middle))
    panel.fill_between(at, *ends.T, color=style["color"], alpha=0.15, linewidth=0)
    panel.plot(at, middle, marker="o", markersize=3, linewidth=1.4, **style)


def _dress(panels):
    """Axes that are linear around 0, where accuracy may rise, and logarithmic beyond, which their labels say."""
    for row, (what, linear) in enumerate(_LINEAR.items()):
        panels[row, 0].set_yscale("symlog", linthresh=linear, linscale=0.7)
        panels[row, 0].set_ylabel(f"change of {what},\nlogarithmic beyond ±{linear:g}")
        panels[row, 0].yaxis.set_major_formatter(lambda y, _: f"{y:+g}" if y else "0")
    for panel in panels.flat:
        panel.axhline(0, color=FAINT, linewidth=1)
        panel.grid(axis="y", **GRID)
        panel.set_axisbelow(True)


def rises(swept: Sweep, found: Outcome) -> Figure:
    """Change of accuracy: rankings and selections against shares and values, a panel for each label.

    A dot marks cells whose interval lies above 0, a ring those whose loss falls for sure. The colors are symmetric and reach as
    far as the data; they are logarithmic beyond 1 point, since rises are small beside what accuracy loses elsewhere.
    """
    grid, linear = swept.grid, _LINEAR["accuracy [points]"]
    values = 100 * found.accuracy.reshape(
        len(swept.labels), -1, len(grid.shares) * len(grid.values)
    )
    reach = max(_LEAST, float(np.abs(values).max()))
    norm = matplotlib.colors.SymLogNorm(linear, linscale=0.7, vmin=-reach, vmax=reach, base=10)
    height = 0.24 * values.shape[1] + 0.9
    with matplotlib.rc_context(STYLE):
        size = (max(7.6, 0.26 * values.shape[2] + 4.6), height * len(values) + 1.0)
        figure = Figure(size, layout="constrained")
        panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
        # A panel for each label that ranks, with how many rises chance alone would bring.
        for k, panel in enumerate(panels):
            shown = panel.imshow(values[k], cmap=_MAP, norm=norm, aspect="auto", rasterized=True)
            falls = (found.loss_interval[k][..., 1] < 0).reshape(values[k].shape)
            _mark(panel, found.rises[k].reshape(values[k].shape), falls)
            _name(panel, grid)
            title = f"{of_loss(swept.labels[k])}\naccuracy rises in {counted(swept, found, k)}"
            panel.set_title(f"{title}, by chance in {found.by_chance[k].mean():.1f}", **_TITLE)
        bar = figure.colorbar(shown, ax=panels, shrink=0.6, aspect=40, pad=0.01)
        bar.set_ticks(
            _ticks(reach), labels=[f"{tick:+g}" if tick else "0" for tick in _ticks(reach)]
        )
        bar.ax.minorticks_off()
        bar.set_label(f"change of accuracy [points], logarithmic beyond ±{linear:g}")
        bar.outline.set_visible(False)
        text = f"dot: the {100 * LEVEL:g} % interval of accuracy lies above 0;  ring: that of the loss lies below 0"
        figure.supxlabel(text, fontsize=8)
    return figure


def _ticks(reach) -> list[float]:
    """Powers of ten, and the ends where they are not near one."""
    ends = [10.0**k for k in range(3) if 10.0**k < 0.7 * reach]
    ends.append(float(f"{reach:.3g}") if reach >= 10 else round(reach, 1))
    return [*(-end for end in reversed(ends)), 0.0, *ends]


def _mark(panel, rising, falling):
    # Each black with a white edge, so that it is seen on the darkest cells, too.
    for marked, styles in (
        (rising, [{"s": 26, "facecolor": "black", "edgecolor": "white", "linewidth": 0.8}]),
        (
            falling,
            [
                {"s": 72, "facecolor": "none", "edgecolor": "white", "linewidth": 2.0},
                {"s": 72, "facecolor": "none", "edgecolor": INK, "linewidth": 0.9},
            ],
        ),
    ):
        row, col = np.nonzero(marked)
        for style in styles:
            panel.scatter(col, row, marker="o", **style)


def _name(panel, grid):
    """The names of rows and columns, and lines between rankings and between shares."""
    rows = [f"{s.replace('_', ' ')}, {q}" for s in grid.rankings for q in grid.selections]
    cols = [f"{k:g} %, {v.replace('_', ' ')}" for k in grid.shares for v in grid.values]
    panel.set_yticks(np.arange(len(rows)), rows, fontsize=8)
    panel.set_xticks(np.arange(len(cols)), cols, fontsize=8, rotation=90)
    panel.tick_params(length=0)
    for k in range(1, len(grid.rankings)):
        panel.axhline(k * len(grid.selections) - 0.5, color=FAINT, linewidth=0.6)
    for k in range(1, len(grid.shares)):
        panel.axvline(k * len(grid.values) - 0.5, color=FAINT, linewidth=0.6)


def rises_caption(swept: Sweep, found: Outcome) -> str:
    """What `rises` shows."""
    return (
        f"Change of accuracy when parts of {found.images} images are removed. Rows: what ranks the {parts(swept.grid)}, and "
        "which of them are removed; columns: how many, and what takes their place. Orange: accuracy rises. Dots: the "
        f"{100 * LEVEL:g} % interval of the change of accuracy lies above 0; rings: that of the loss lies below 0. "
        f"{same(swept, found)}"
    )


def rises_alt(swept: Sweep, found: Outcome) -> str:
    """The same for those who cannot see it."""
    said = []
    for k, label in enumerate(swept.labels):
        low, high = 100 * found.accuracy[k].min(), 100 * found.accuracy[k].max()
        said.append(
            f"{of_loss(label)}, changes from {low:+.1f} to {high:+.1f} points, with a dot in {int(found.rises[k].sum())} cells"
        )
    return f"map of {swept.index.size} cells for each label; {'; '.join(said)}"


def curves_caption(swept: Sweep, found: Outcome, ranking: str) -> str:
    """What `curves` shows."""
    return (
        f"Change of accuracy and loss of {found.images} images by the share removed. {ranked(swept.grid, ranking)}; a line for "
        f"each value that takes the place of what is removed, with its {100 * LEVEL:g} % interval. Dotted: the change of the "
        "loss as the gradient predicts it. Vertical axes are linear around 0 and logarithmic beyond."
    )


def curves_alt(swept: Sweep, found: Outcome, ranking: str, *, label: int = 0) -> str:
    """The same for those who cannot see it: where the lines of the most and the least harm end."""
    last = 100 * found.accuracy[label, swept.grid.rankings.index(ranking), :, -1]
    return (
        f"line charts for {', '.join(swept.grid.selections)}; with {swept.grid.shares[-1]:g} % removed, accuracy changes by "
        f"{last.min():+.1f} to {last.max():+.1f} points"
    )
