"""Changes against each other: what comes with a change of accuracy."""

import dataclasses
import math
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.draw.style import FAINT, GRID, INK, PALETTE, STYLE, add_legend

_WIDE = 9.4  # inches, the width of the page
_MARKS = "osD^v"  # with the palette, more marks than augmentations
_NAMED = 6  # points of a panel, beyond which the legend alone has their names: they would lie on each other
_PLACE = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7, "color": INK}


@dataclasses.dataclass(frozen=True)
class Change:
    """A difference and its interval; NaN is "not there".

    Attributes:
      value: the difference.
      low, high: ends of its interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclasses.dataclass(frozen=True)
class Panel:
    """Points of one panel.

    Attributes:
      title: of its vertical axis.
      points: (change across, change upwards) by name.
    """

    title: str
    points: dict[str, tuple[Change, Change]]


def changes(panels: Sequence[Panel], across: str, names: Sequence[str]) -> Figure:
    """A point for each name in each panel, with intervals both ways; the lines cross where nothing changes.

    Args:
      panels: one at least, beside each other.
      across: title of the horizontal axis, which all share.
      names: of all points, in the order of their marks, which are the same in every panel.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((_WIDE, 4.6), layout="constrained")
        figure.get_layout_engine().set(wspace=0.05)
        for axes, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            axes.axhline(0, color=FAINT, linewidth=1)
            axes.axvline(0, color=FAINT, linewidth=1)
            for name, (x, y) in panel.points.items():
                _point(axes, x, y, names.index(name), name)
                # More names than that cover each other; the legend has them.
                if len(panel.points) <= _NAMED:
                    axes.annotate(name, (x.value, y.value), **_PLACE)
            axes.set_xlabel(across)
            axes.set_ylabel(textwrap.fill(panel.title, 46))
            axes.grid(**GRID)
            axes.set_axisbelow(True)
        add_legend(figure, figure.axes[0])
    return figure


def _point(axes, x, y, number, name):
    shade = PALETTE[number % len(PALETTE)]
    mark = _MARKS[number // len(PALETTE) % len(_MARKS)]
    ends = np.array([[x.value - x.low, x.high - x.value], [y.value - y.low, y.high - y.value]])
    # An interval contains its estimate; what is not there has no length.
    ends = np.nan_to_num(np.maximum(ends, 0))[..., None]
    axes.errorbar(
        x.value, y.value, ends[1], ends[0], fmt="none", ecolor=shade, elinewidth=1, alpha=0.5
    )
    axes.scatter(
        x.value, y.value, s=34, color=shade, marker=mark, linewidth=0, zorder=4, label=name
    )
