"""The figure of a layer's interventions, and what it shows, in words."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixaug_jax.core import stats
from mixaug_jax.dissection import removal_rates as rates
from mixaug_jax.dissection import removal_result, unit_sets
from mixaug_jax.dissection.removal_result import Intervention
from mixaug_jax.draw.style import FAINT, GRID, INK, PALETTE, STYLE

_ORDERS = {unit_sets.RANDOM: FAINT, unit_sets.HIGH: PALETTE[0], unit_sets.LOW: PALETTE[1]}
_TITLE = {"fontsize": 9, "loc": "left"}


def curves(result: Intervention) -> Figure:
    """Three panels: the accuracy of classes without their most and their least important units, the balanced accuracy while
    all units go in three orders, and what classes lose without the detectors of what they show."""
    panels = {
        "classes": len(result.sets.find(unit_sets.MOST)),
        "orders": len(result.sets.find(unit_sets.RANDOM)),
        "concepts": len(removal_result.harms(result)),
    }
    shown = [name for name, there in panels.items() if there] or ["units"]
    draw = {"classes": _classes, "orders": _orders, "concepts": _concepts, "units": _units}
    with matplotlib.rc_context(STYLE):
        figure = Figure((3.3 * len(shown) + 0.2, 3.2), layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for panel, name in zip(axes, shown, strict=True):
            draw[name](panel, result)
            panel.set_axisbelow(True)
    return figure


def _classes(panel: Axes, result: Intervention):
    """A thin line a class, a thick one for their mean."""
    accuracy = 100 * result.class_accuracy
    for kind, color in ((unit_sets.MOST, PALETTE[5]), (unit_sets.LEAST, PALETTE[0])):
        lines = []
        for k in np.unique(result.sets.subject[result.sets.find(kind)]).tolist():
            places = result.sets.find(kind, k)
            sizes = [0, *result.sets.sizes[places]]
            lines.append(accuracy[np.concatenate([[0], 1 + places]), k])
            panel.plot(sizes, lines[-1], color=color, linewidth=0.6, alpha=0.35)
        # A class that none of the images shows has no line.
        mean = rates.mean_there(np.transpose(lines))
        panel.plot(sizes, mean, "o-", color=color, markersize=3, label=kind)
    # A class against all others: chance is one half whatever the number of classes.
    panel.axhline(50, color=FAINT, linewidth=1, linestyle=":")
    panel.set_xscale("symlog", linthresh=1, base=2)
    panel.set_xlim(-0.1, 1.1 * sizes[-1])
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.minorticks_off()
    panel.set_xlabel("units removed")
    panel.set_ylabel("accuracy of a class against all others [%]")
    panel.set_title("Units important for a class", **_TITLE)
    _dress(panel)


def _orders(panel: Axes, result: Intervention):
    accuracy = 100 * result.accuracy()[0]
    last = result.sets.find(unit_sets.ALL)
    for kind, color in _ORDERS.items():
        places = result.sets.find(kind)
        if not len(places):
            continue
        lines = []
        for draw in np.unique(result.sets.draw[places]):
            # All orders end with all units removed, which is one set and stored once.
            own = np.concatenate([places[result.sets.draw[places] == draw], last])
            shares = 100 * np.concatenate([[0], result.sets.sizes[own] / result.units])
            lines.append(accuracy[np.concatenate([[0], 1 + own])])
        if len(lines) > 1:
            panel.fill_between(
                shares, np.min(lines, 0), np.max(lines, 0), color=color, alpha=0.2, linewidth=0
            )
        panel.plot(shares, np.mean(lines, 0), "o-", color=color, markersize=3, label=kind)
    panel.set_xlabel("share of units removed [%]")
    panel.set_ylabel("balanced accuracy [%]")
    panel.set_title("All units, one after the other", **_TITLE)
    _dress(panel)


def _concepts(panel: Axes, result: Intervention):
    known = removal_result.harms(result)
    again = removal_result.harms(result, rates.draws(len(result.labels)))
    # By what the detectors lose beyond equally many others: the finding at the top.
    order = sorted(known, key=lambda c: known[c][0][0] - known[c][1][0])
    for k, color, name in ((1, FAINT, "other units"), (0, PALETTE[5], "detectors")):
        values = np.array([100 * known[c][k][0] for c in order])
        ends = np.array([np.multiply(100, stats.percentiles(again[c][k])) for c in order])
        bars = np.abs(
            np.stack([np.minimum(ends[:, 0], values), np.maximum(ends[:, 1], values)]) - values
        )
        panel.errorbar(
            values, np.arange(len(order)) - 0.15 + 0.3 * k, xerr=bars, fmt="o", color=color,
            markersize=4, linewidth=1, label=name,
        )  # fmt: skip
    names = [
        f"{result.detected.names[c]} ({int(result.sets.sizes[result.sets.find(unit_sets.DETECTORS, c)][0])})"
        for c in order
    ]
    panel.axvline(0, color=INK, linewidth=0.6)
    panel.set_yticks(np.arange(len(order)), names, fontsize=8)
    panel.set_xlabel("accuracy lost by its classes [points]")
    panel.set_title("Detectors of a concept", **_TITLE)
    panel.grid(axis="x", **GRID)
    panel.legend(frameon=False, fontsize=8, loc="lower right")


def _units(panel: Axes, result: Intervention):
    """Where nothing but single units was removed: each unit's largest drop."""
    # Of a class without training images nothing is known, which is not that it loses nothing.
    drops = 100 * np.sort(np.fmax.reduce(result.importance, 1))[::-1]
    panel.plot(1 + np.arange(len(drops)), drops, "o-", color=PALETTE[5], markersize=3)
    panel.set_xlabel("units, most important first")
    panel.set_ylabel("accuracy that a class loses [points]")
    panel.set_title("Single units, training images", **_TITLE)
    panel.grid(axis="y", **GRID)


def _dress(panel):
    panel.set_ylim(-2, 102)
    panel.grid(axis="y", **GRID)
    panel.legend(frameon=False, fontsize=8, loc="lower left")


def caption(result: Intervention) -> str:
    """What `curves` shows."""
    images, value = len(result.labels), result.settings.get("value", "zero")
    put = {"zero": "0", "mean": "their mean on training images"}.get(value, value)
    said = [f"Units of {result.layer} are switched off, {images} images that did not choose them."]
    # Of each panel, and no more: `intervene.sets` says which there are.
    if len(result.sets.find(unit_sets.MOST)):
        said.append(
            "A class is told from all others, which have the same weight together (dotted: chance), without the units that "
            "training images show to be most and least important for it; thin lines: classes, thick: their mean."
        )
    if len(result.sets.find(unit_sets.RANDOM)):
        said.append(
            f"Orders of all units, random ones with the range of {unit_sets.CONTROLS} draws."
        )
    if len(removal_result.harms(result)):
        said.append(
            "Detectors: what the classes that show a concept more than others lose without its detectors (their number in "
            f"brackets) and without equally many other units ({unit_sets.CONTROLS} draws); bars: {100 * stats.LEVEL:g} % "
            "intervals over images."
        )
    return " ".join([*said, f"In the place of activations stands {put}."])


def alt(result: Intervention) -> str:
    """The same for those who cannot see it."""
    said = []
    accuracy = 100 * result.class_accuracy
    for kind in (unit_sets.MOST, unit_sets.LEAST):
        places = result.sets.find(kind)
        if len(places):
            most = places[result.sets.sizes[places] == result.sets.sizes[places].max()]
            mean = rates.mean_there(accuracy[1 + most, result.sets.subject[most]])
            said.append(
                f"without the {result.sets.sizes[most][0]} {kind} units of a class its accuracy is {mean:.0f} % on average"
            )
    for kind in _ORDERS:
        if len(result.sets.find(kind)):
            said.append(
                f"area under the accuracy, {kind}: {removal_result.area(result, kind)[0]:.2f}"
            )
    return f"line charts; {'; '.join(said) or 'drops of single units'}"
