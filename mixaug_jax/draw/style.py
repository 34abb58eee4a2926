"""What all figures share: colors, style, and how they are written.

The colors are those of Okabe and Ito, "Color Universal Design" (2008), which people with any kind of color vision can tell
apart.
"""

import io
import pathlib

import matplotlib
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from mixaug_jax.core import files
from mixaug_jax.core.types import Mask, Path

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
INK, FAINT = "#222222", "#8a8a8a"
GRID = {"color": "#e4e4e4", "linewidth": 0.6}
DPI = 150  # of PNG files
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a class's name is a dollar
    "svg.hashsalt": "mixaug_jax",  # equal figures are equal files
    "svg.fonttype": "none",  # text stays text
}


def save_figure(figure: Figure, path: Path) -> list[pathlib.Path]:
    """Writes `path` with the endings .png and .svg; a file appears when it is whole."""
    written = []
    for ending, dated in ((".png", "Software"), (".svg", "Date")):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=ending[1:], dpi=DPI, metadata={dated: None})
        target = pathlib.Path(path).with_name(pathlib.Path(path).name + ending)
        files.write_bytes(target, buffer.getvalue())
        written.append(target)
    return written


def add_legend(figure: Figure, panel: Axes) -> None:
    """One legend below all panels, the networks first."""
    handles, names = panel.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda k: not isinstance(handles[k], BarContainer))
    entries = [handles[k] for k in order], [names[k] for k in order]
    figure.legend(*entries, loc="outside lower left", ncols=5, frameon=False, fontsize=8)


def outline(panel: Axes, mask: Mask) -> None:
    """A region's border on a picture, white on black, which shows on any ground; none where it has none."""
    if mask.any() and not mask.all():
        for color, width in (("black", 2.0), ("white", 0.9)):
            panel.contour(mask, levels=[0.5], colors=[color], linewidths=[width])
