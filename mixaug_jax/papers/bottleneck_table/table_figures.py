"""Figures of the table: how probabilities fall, and how well maps predict the drops."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from mixaug_jax.draw.style import FAINT, GRID, PALETTE, STYLE
from mixaug_jax.papers.bottleneck_table import protocol
from mixaug_jax.papers.bottleneck_table.published_rows import BOTTLENECKS, CONTROLS, Row
from mixaug_jax.papers.bottleneck_table.row_results import Result

_DASHES = ("-", (0, (4, 2)), (0, (1.5, 1.5)))


def styles(rows: Mapping[str, Row]) -> dict[str, dict]:
    """How each row's line is drawn: controls gray, bottlenecks thick."""
    found, colored = {}, 0
    for row in rows.values():
        if row.kind == CONTROLS:
            gray = sum(known["color"] == FAINT for known in found.values())
            found[row.name] = {"color": FAINT, "linestyle": _DASHES[gray % 3], "linewidth": 1.2}
            continue
        color, dash = PALETTE[colored % len(PALETTE)], _DASHES[colored // len(PALETTE) % 3]
        width = 2.4 if row.kind == BOTTLENECKS else 1.2
        found[row.name] = {"color": color, "linestyle": dash, "linewidth": width}
        colored += 1
    return found


def curves(
    rows: Mapping[str, Row], results: Mapping[str, Result], tiles: tuple[int, ...]
) -> Figure:
    """Mean probability of the class as tiles go, MoRF in the upper and LeRF in the lower panels, one column for each size."""
    look = styles(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure((4.2 * len(tiles) + 2.2, 5.6), layout="constrained")
        panels = figure.subplots(2, len(tiles), squeeze=False, sharex=True, sharey=True)
        for column, side in enumerate(tiles):
            for k, kind in enumerate(("most relevant first", "least relevant first")):
                panel = panels[k, column]
                for name, result in results.items():
                    gone = np.asarray(result.settings["curves"][str(side)])
                    mean = result.arrays[f"curves.{side}"][:, k, :, 0].mean(0)
                    panel.plot(gone / gone[-1], mean, label=name, **look[name])
                panel.set_title(f"tiles of {side} pixels, {kind}", fontsize=10)
                panel.grid(**GRID)
        for panel in panels[-1]:
            panel.set_xlabel("share of the tiles replaced")
        for panel in panels[:, 0]:
            panel.set_ylabel("probability of the class")
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=8)
    return figure


def correlations(
    rows: Mapping[str, Row],
    results: Mapping[str, Result],
    drops: Mapping[int, np.ndarray],
    sizes: Mapping[int, np.ndarray],
) -> Figure:
    """Pooled Pearson r over the number of units that are removed, one panel for each size of unit."""
    look = styles(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure((4.2 * len(drops) + 2.2, 3.4), layout="constrained")
        panels = figure.subplots(1, len(drops), squeeze=False, sharey=True)[0]
        for panel, (side, dropped) in zip(panels, drops.items(), strict=True):
            for name, result in results.items():
                sums = result.arrays[f"sums.{side}"]
                r = protocol.pooled(sums, dropped, np.ones((sums.shape[1], 1)))[:, 0]
                panel.plot(sizes[side], r, label=name, **look[name])
            panel.set_xscale("log")
            # Plain numbers: the style takes no mathematics.
            panel.xaxis.set_major_formatter(ScalarFormatter())
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.set_title(f"units of {side} x {side} pixels", fontsize=10)
            panel.set_xlabel("units removed")
            panel.grid(**GRID)
        panels[0].set_ylabel("Pearson r over images and subsets")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=8)
    return figure
