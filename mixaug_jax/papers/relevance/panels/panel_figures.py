"""Panels as figures: rows and columns of pictures with what the columns mean."""

import textwrap

import matplotlib
from matplotlib.figure import Figure

from mixaug_jax.core.types import Count
from mixaug_jax.draw.style import INK, STYLE
from mixaug_jax.papers.relevance.panels.panel import Panel, part
from mixaug_jax.papers.relevance.panels.questionnaire import heat_pictures

_INCHES, _LETTERS = 0.9, 12  # of a picture, and of a line above it
_MOST = 8  # columns
_NAMES = 1.7  # inches beside the rows, where they have names


def panel_figure(panel: Panel, rows: Count) -> Figure:
    """The first rows and columns of a panel; a heat map stands to the right of its picture."""
    shape = panel.logits.shape
    panel = part(panel, [*range(min(rows, shape[0]))], [*range(min(_MOST, shape[1]))])
    maps = heat_pictures(panel)
    count, columns = panel.logits.shape
    each = 1 + bool(len(maps))
    # In inches, so that a picture has one size whatever the number of rows and columns.
    left = _NAMES if panel.rows else 0.1
    top = 0.2 + 0.15 * max(len(_wrapped(name, each)) for name in panel.columns)
    width, height = left + _INCHES * each * columns + 0.1, top + _INCHES * count + 0.05
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height))
        for r in range(count):
            bottom = (height - top - _INCHES * (r + 1)) / height
            if panel.rows:
                text = "\n".join(textwrap.wrap(panel.rows[r], 22))
                figure.text(0.05 / width, bottom + _INCHES / 2 / height, text, va="center", fontsize=8, color=INK)  # fmt: skip
            for c in range(columns):
                for k, picture in enumerate([panel.images[r, c], *(maps[r, c : c + 1] if each > 1 else [])]):  # fmt: skip
                    at = (left + _INCHES * (each * c + k)) / width
                    gap = 0.04
                    size = (_INCHES - gap) / width, (_INCHES - gap) / height
                    axes = figure.add_axes((at, bottom, *size))
                    axes.imshow(picture, interpolation="nearest")
                    axes.set_axis_off()
        for c, name in enumerate(panel.columns):
            at = (left + _INCHES * each * (c + 0.5)) / width
            text = "\n".join(_wrapped(name, each))
            figure.text(at, 1 - 0.08 / height, text, ha="center", va="top", fontsize=8, color=INK)
    return figure


def _wrapped(name, each):
    return textwrap.wrap(name, _LETTERS * each) or [""]
