"""What all figures share: colors, style, and how they are written.

The colors are those of Okabe and Ito, "Color Universal Design" (2008), which people with any kind of color vision can tell
apart.
"""

import base64
import io
import pathlib
import re

import matplotlib
import PIL.Image
import PIL.ImageChops
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from mixaug_jax.core import files
from mixaug_jax.core.types import Mask, Path, Scalar

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
INK, FAINT = "#222222", "#8a8a8a"
# Of random weights, in every figure of concepts: seen on a bar of any color.
CROSS = {
    "marker": "x",
    "color": INK,
    "linewidth": 1.3,
    "path_effects": [withStroke(linewidth=3, foreground="white")],
    "zorder": 6,
    "clip_on": False,
}
GRID = {"color": "#e4e4e4", "linewidth": 0.6}
DPI = 150  # of PNG files of drawings
SHEET_DPI = 100  # of pictures, whose own pixels are about as many
ENDINGS = (".png", ".svg", ".pdf")  # of every figure
_UNSEEN = 16  # of 255, a difference of colors that nobody sees at the edge of a line
GUTTER = 0.25  # inches between two columns
_WIDE = 1.6  # columns; what is wider is made for two
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
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
}


def save_figure(figure: Figure, path: Path, *, column: Scalar = 0.0) -> list[pathlib.Path]:
    """Writes `path` with the endings .png, .svg and .pdf; a file appears when it is whole.

    Pictures in the SVG and in the PDF have about as many pixels as the page shows, and are JPEG in the SVG; fonts in the PDF
    are of Type 42.

    Args:
      figure: it shrinks where `column` is given.
      path: without ending.
      column: width of a paper's column, inches: the PDF is as wide as one, or as two and the gutter; 0: as drawn.
    """
    content = {}
    with matplotlib.rc_context(STYLE):
        content[".png"] = _as_png(figure, SHEET_DPI if has_pictures(figure) else DPI)
        content[".svg"] = _with_jpeg(_saved(figure, "svg", SHEET_DPI, {"Date": None}))
        # The PDF alone is for print, where a column's width decides; it comes last, since fitting changes the figure.
        if column:
            _fit(figure, column)
        content[".pdf"] = _saved(
            figure, "pdf", SHEET_DPI, {"CreationDate": None, "Keywords": _keyword(column).decode()}
        )
    written = []
    for ending, text in content.items():
        target = pathlib.Path(path).with_name(pathlib.Path(path).name + ending)
        files.write_bytes(target, text)
        written.append(target)
    return written


def is_saved(path: Path, *, column: Scalar = 0.0) -> bool:
    """Whether all files are there, and intact, that `save_figure` writes for these arguments."""
    path = pathlib.Path(path)
    found = [path.with_name(path.name + ending) for ending in ENDINGS]
    return all(map(files.is_intact, found)) and _keyword(column) in found[-1].read_bytes()


def _keyword(column) -> bytes:
    return f"column of {column:g} inches".encode()


def has_pictures(figure: Figure) -> bool:
    """Whether a figure shows photographs or maps of many pixels, not only a grid of a few cells."""
    return any(image.get_size()[0] >= 32 for panel in figure.axes for image in panel.images)


def _saved(figure, kind, dpi, metadata) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def _as_png(figure, dpi) -> bytes:
    """Without transparency; of a drawing, whose colors are few, with a palette, which takes a third."""
    picture = PIL.Image.open(io.BytesIO(_saved(figure, "png", dpi, {"Software": None}))).convert(
        "RGB"
    )
    small = picture.quantize(256, PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE)
    error = PIL.ImageChops.difference(small.convert("RGB"), picture)
    picture = small if max(high for _, high in error.getextrema()) <= _UNSEEN else picture
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, dpi=(dpi, dpi))
    return buffer.getvalue()


def _with_jpeg(svg: bytes) -> bytes:
    """The same with photographs as JPEG; what has few colors, or is transparent, stays PNG."""

    def smaller(found: re.Match) -> bytes:
        content = base64.b64decode(found[1])
        picture = PIL.Image.open(io.BytesIO(content))
        opaque = picture.mode == "RGB" or picture.getchannel("A").getextrema()[0] == 255
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=90)
        if not opaque or len(buffer.getvalue()) > 0.5 * len(content):
            return found[0]
        return b'"data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()) + b'"'

    return re.sub(rb'"data:image/png;base64,([^"]*)"', smaller, svg)


def _fit(figure, column):
    """Shrinks a figure to a column, or to two and what is between them where it is much wider; its letters shrink alike."""
    drawn = figure.get_figwidth()
    width = column if drawn <= _WIDE * column else 2 * column + GUTTER
    scale = min(1.0, width / drawn)
    figure.set_size_inches(scale * drawn, scale * figure.get_figheight())
    for text in figure.findobj(Text):
        text.set_fontsize(scale * text.get_fontsize())
    for line in figure.findobj(Line2D):  # the marks of ticks among them
        line.set_linewidth(scale * line.get_linewidth())
        line.set_markersize(scale * line.get_markersize())


def add_legend(figure: Figure, panel: Axes) -> None:
    """One legend below all panels, the networks first."""
    handles, names = panel.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda k: not isinstance(handles[k], BarContainer))
    entries = [handles[k] for k in order], [names[k] for k in order]
    # As many columns as fit, in points: a name has so many letters, and a handle beside it.
    longest = max(map(len, names), default=1)
    columns = max(1, min(5, int(72 * figure.get_figwidth() / (38 + 4.9 * longest))))
    figure.legend(*entries, loc="outside lower left", ncols=columns, frameon=False, fontsize=8)


def outline(panel: Axes, mask: Mask) -> None:
    """A region's border on a picture, white on black, which shows on any ground; none where it has none."""
    if mask.any() and not mask.all():
        for color, width in (("black", 2.0), ("white", 0.9)):
            panel.contour(mask, levels=[0.5], colors=[color], linewidths=[width])
