"""Curves of `metrics.jsonl`: how training went."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.core.types import Float
from mixaug_jax.draw.style import GRID, PALETTE, STYLE, add_legend


def series(
    lines: Sequence[dict], name: str
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Steps and values of one metric, float64; a value that was not finite is NaN."""
    # Lines of training and of validation alternate, each with its own metrics.
    found = [(line["step"], line[name]) for line in lines if name in line]
    steps = np.array([step for step, _ in found], np.float64)
    return steps, np.array([np.nan if v is None else v for _, v in found], np.float64)


def training_curves(lines: Sequence[dict]) -> Figure:
    """Loss and accuracy of one run, of training (mixed images and labels) and of validation."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((9.4, 3.1), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, what in zip(panels, ("loss", "accuracy"), strict=True):
            for k, kind in enumerate(("train", "validation")):
                steps, values = series(lines, f"{kind}_{what}")
                if len(steps):
                    panel.plot(steps, values, color=PALETTE[k], linewidth=1.6, label=kind)
            _dress(panel, what)
        if panels[0].lines:
            panels[0].legend(frameon=False)
    return figure


def study_curves(runs: Mapping[str, Sequence[Sequence[dict]]]) -> Figure:
    """Training loss and validation accuracy of many runs: a color an augmentation, a line a seed.

    Args:
      runs: the lines of `metrics.jsonl` of each seed, by augmentation.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((9.4, 3.4), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, what in zip(panels, ("train_loss", "validation_accuracy"), strict=True):
            for k, (name, seeds) in enumerate(runs.items()):
                # More augmentations than colors are told apart by their dashes.
                style = {"color": PALETTE[k % len(PALETTE)], "linewidth": 1.2}
                style["linestyle"] = ("-", "--", ":")[k // len(PALETTE) % 3]
                for s, lines in enumerate(seeds):
                    # One entry in the legend for all seeds.
                    panel.plot(*series(lines, what), **style, label=None if s else name)
            _dress(panel, what.replace("_", " ").replace("train ", "training "))
        add_legend(figure, panels[0])
    return figure


def _dress(panel, what):
    for line in panel.lines:
        if np.isfinite(line.get_ydata()).sum() == 1:  # a point alone draws no line
            line.set_marker("o")
            line.set_markersize(4)
    panel.set_xlabel("step")
    panel.set_ylabel(what)
    panel.grid(**GRID)
    panel.set_axisbelow(True)
    panel.set_xlim(left=0)
    panel.margins(x=0.02)


def over_steps(panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Figure:
    """Results of several checkpoints over the training steps, a panel for each number.

    Args:
      panels: {title: {line: {step: value}}}; NaN leaves a gap.
    """
    rows = -(-len(panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure((9.4, 2.6 * rows + 0.3), layout="constrained")
        places = figure.subplots(rows, min(2, len(panels)), squeeze=False).ravel()
        for place, (title, drawn) in zip(places, panels.items(), strict=False):
            for k, (name, values) in enumerate(drawn.items()):
                # More lines than colors are told apart by their dashes.
                dashes = ("-", "--", ":")[k // len(PALETTE) % 3]
                style = {"color": PALETTE[k % len(PALETTE)], "linestyle": dashes, "marker": "o"}
                steps = sorted(values)
                place.plot(steps, [values[s] for s in steps], **style, markersize=3, label=name)
            _dress(place, title)
            place.legend(frameon=False, fontsize=7)
        for place in places[len(panels) :]:
            place.set_axis_off()
    return figure
