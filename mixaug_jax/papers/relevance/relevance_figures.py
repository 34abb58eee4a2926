"""The figure of the relevance of attributes."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from mixaug_jax.core.types import Scalar
from mixaug_jax.draw.style import FAINT, GRID, PALETTE, STYLE
from mixaug_jax.papers.relevance.attribute_relevance import LEAST_R2, Row


def attributes(rows: Sequence[Row], trees: Mapping[str, Row], tolerance: Scalar) -> Figure:
    """Flips beside the control's, and R2, of each attribute.

    Args:
      rows: of a network.
      trees: {attribute: row} of boosted trees, or {}.
      tolerance: drawn as a line.
    """
    shown = {
        "flips beside the control's [%]": ("beside", 100, 100 * tolerance),
        "R2 of the change of the logit": ("r2", 1, LEAST_R2),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure((6.6, 0.26 * len(rows) + 0.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, (label, (name, scale, line)) in zip(panels, shown.items(), strict=True):
            for k, row in enumerate(rows):
                color = PALETTE[0] if row.relevant else FAINT
                value, low, high = (scale * getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))  # fmt: skip
                panel.plot([low, high], [k, k], color=color, linewidth=1.4)
                # Hollow and gray where the attribute is not relevant, so that print without color tells, too.
                face = color if row.relevant else "white"
                panel.plot([value], [k], "o", color=color, markerfacecolor=face, markersize=5)
                if row.attribute in trees:
                    at = scale * getattr(trees[row.attribute], name)
                    panel.plot([at], [k], "x", color=PALETTE[5], markersize=5)
            panel.axvline(line, color=PALETTE[1], linewidth=0.8)
            panel.set_xlabel(label)
            panel.grid(**GRID)
            panel.set_axisbelow(True)
        panels[0].set_yticks(range(len(rows)), [row.attribute for row in rows])
        panels[0].invert_yaxis()
    return figure
