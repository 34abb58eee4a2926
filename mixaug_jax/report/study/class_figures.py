"""Figures of what augmentations do to single classes."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from scipy.cluster import hierarchy

from mixaug_jax.draw.style import FAINT, GRID, INK, PALETTE, STYLE, add_legend
from mixaug_jax.report.study import study_figures
from mixaug_jax.study.class_results import ClassStudy, Strengths
from mixaug_jax.study.results import Study

_WIDE = 9.4  # inches, the width of the page
_LABELED = 40  # classes; more have no room for their names
_KINDS = {
    "ambiguous": PALETTE[0],
    "co-occurring": PALETTE[1],
    "fine-grained": PALETTE[2],
    "unrelated": PALETTE[3],
    "": FAINT,
}


def caterpillar(study: Study, found: ClassStudy) -> Figure:
    """The classes of each comparison, sorted by their effect without noise; hollow: the effect as it was seen; gray: where the
    sorted effects lie if no class differs."""
    shown = [effect for effect in found.effects if effect.shrunken]
    count = len(found.effects[0].classes)
    with matplotlib.rc_context(STYLE):
        height = min(0.17 * count, 0.17 * _LABELED) + 0.9
        columns = min(len(shown), 3)
        rows = -(-len(shown) // columns)
        figure = Figure((_WIDE, rows * height + 0.5), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        # Effects without noise need seeds enough; a comparison without them has no panel.
        for panel, effect in zip(panels, shown, strict=False):
            _caterpillar(
                panel, effect, found.answers.classes, study_figures.color(study, effect.name)
            )
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        handles = [
            Line2D(
                [],
                [],
                marker="o",
                color=INK,
                linewidth=1.5,
                markersize=4,
                label="without noise, 95 % interval",
            ),
            Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                markerfacecolor="white",
                color=INK,
                markersize=4,
                label="as seen",
            ),
            matplotlib.patches.Patch(color="#dddddd", label="as seen, if no class differs"),
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8
        )
    return figure


def _caterpillar(panel, effect, classes, shade):
    order = np.argsort(effect.shrunken.effect, kind="stable")
    at = np.arange(len(order))
    # Sorted noise rises, too: the band is where sorted effects lie if all classes are alike.
    panel.fill_betweenx(at, *(100 * effect.band.T), color="#dddddd", linewidth=0)
    panel.axvline(0, color=FAINT, linewidth=1)
    panel.axvline(100 * effect.overall[0], color=shade, linewidth=1, linestyle=":")
    middle, ends = 100 * effect.shrunken.effect[order], 100 * effect.shrunken.ends[:, order]
    colors = [shade if effect.named[m] else INK for m in order]
    panel.hlines(at, *ends, colors=colors, linewidth=1.2)
    panel.scatter(middle, at, s=12, color=colors, zorder=3)
    raw = 100 * effect.means[order, 0]
    panel.scatter(raw, at, s=12, facecolor="white", edgecolor=INK, linewidth=0.8, zorder=4)
    panel.set_title(f"{effect.name} minus {effect.reference}", fontsize=9)
    panel.set_xlabel("change of recall [points]")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5))
    if len(order) <= _LABELED:
        panel.set_yticks(at, [classes[effect.classes[m]] for m in order], fontsize=7)
    else:
        # Too many to be read: only those that a statement is made of.
        named = [k for k, m in enumerate(order) if effect.named[m]]
        panel.set_yticks(named, [classes[effect.classes[order[k]]] for k in named], fontsize=7)
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(-0.8, len(order) - 0.2)
    panel.grid(axis="x", **GRID)
    panel.set_axisbelow(True)


def recalls(study: Study, found: ClassStudy) -> Figure:
    """Recall under the reference and under each augmentation; the ellipse has the half axes of a binomial 95 % interval."""
    shown = found.effects
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((min(_WIDE, 3.2 * columns), 3.0 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, effect in zip(panels, shown, strict=False):
            base, other = 100 * effect.recall
            # Both axes alike, so that the diagonal is no effect.
            low = max(0.0, min(base.min(), other.min()) - 6)
            panel.plot([low, 100], [low, 100], color=FAINT, linewidth=1)
            sizes = found.answers.sizes[effect.classes]
            panel.add_patch(_binomial(base, other, sizes))
            shade = study_figures.color(study, effect.name)
            # Color is a statement: only classes that can be named have it.
            marked = np.zeros(len(base), bool) if effect.named is None else effect.named
            panel.scatter(
                base[~marked], other[~marked], s=12, facecolor="white", edgecolor=INK, linewidth=0.8
            )
            panel.scatter(base[marked], other[marked], s=16, color=shade)
            for m in [m for m in np.argsort(effect.means[:, 0], kind="stable") if marked[m]][:4]:
                name = found.answers.classes[effect.classes[m]]
                panel.annotate(
                    name,
                    (base[m], other[m]),
                    fontsize=7,
                    xytext=(3, -7),
                    textcoords="offset points",
                )
            panel.set(xlim=(low, 101), ylim=(low, 101), aspect="equal")
            panel.set_xlabel(f"recall under {effect.reference} [%]")
            panel.set_ylabel(f"under {effect.name} [%]")
            panel.grid(**GRID)
            panel.set_axisbelow(True)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
    return figure


def _binomial(base, other, sizes):
    """Around the mean of all classes: how far a class of mean size strays by the choice of its images."""
    center = base.mean(), other.mean()
    width, height = (2 * 1.96 * np.sqrt(c * (100 - c) / sizes.mean()) for c in center)
    return Ellipse(center, width, height, facecolor="#eeeeee", edgecolor=FAINT, linewidth=0.8)


def heat(found: ClassStudy) -> Figure:
    """The effects without noise, a row for each comparison; classes that behave alike stand together."""
    shown = [effect for effect in found.effects if effect.shrunken]
    table = 100 * np.stack([effect.shrunken.effect for effect in shown])
    # By what they do under all augmentations, not by their names, so that groups show.
    order = hierarchy.leaves_list(hierarchy.linkage(table.T, "average"))
    # Symmetric about 0, so that white is no effect.
    most = float(np.abs(table).max()) or 1.0
    count = len(order)
    with matplotlib.rc_context(STYLE):
        figure = Figure((_WIDE, 0.32 * len(shown) + 1.9), layout="constrained")
        panel = figure.subplots()
        drawn = panel.pcolormesh(
            table[:, order], cmap="RdBu", vmin=-most, vmax=most, edgecolor="white", linewidth=0.3
        )
        panel.set_yticks(np.arange(len(shown)) + 0.5, [effect.name for effect in shown])
        panel.invert_yaxis()
        if count <= _LABELED:
            names = [found.answers.classes[shown[0].classes[m]] for m in order]
            panel.set_xticks(np.arange(count) + 0.5, names, rotation=90, fontsize=7)
        else:
            panel.set_xticks([])
            panel.set_xlabel(f"{count} classes")
        panel.tick_params(length=0)
        figure.colorbar(drawn, label="effect [points]", pad=0.01)
    return figure


def confused(found: ClassStudy, most: int = 20) -> Figure:
    """How often one class is taken for another, under the reference (hollow) and under the augmentation (filled); colors are
    kinds of confusion; about `most` rows, the largest changes of each comparison."""
    each = max(3, most // len(found.effects))
    rows = [(effect, one) for effect in found.effects for one in effect.confused[:each]]
    names = found.answers.classes
    with matplotlib.rc_context(STYLE):
        figure = Figure((_WIDE, 0.22 * len(rows) + 1.1), layout="constrained")
        panel = figure.subplots()
        # Pairs of points, not bars: what counts is the way from one to the other.
        for at, (_, one) in enumerate(rows):
            before, after = 100 * one.rates[0], 100 * one.rates[1]
            shade = _KINDS[one.kind]
            panel.annotate(
                "",
                (after, at),
                (before, at),
                arrowprops={"arrowstyle": "-", "color": shade, "linewidth": 1.5},
            )
            panel.scatter(before, at, s=22, facecolor="white", edgecolor=shade, zorder=3)
            panel.scatter(after, at, s=22, color=shade, zorder=3)
        arrow = "\N{RIGHTWARDS ARROW}"
        said = [f"{e.name}: {names[o.true]} {arrow} {names[o.taken]}" for e, o in rows]
        panel.set_yticks(range(len(rows)), said, fontsize=8)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_xlim(left=0)
        panel.set_xlabel("share of the class's images [%]")
        panel.grid(axis="x", **GRID)
        panel.set_axisbelow(True)
        kinds = dict.fromkeys(one.kind for _, one in rows)
        handles = [
            Line2D([], [], marker="o", linestyle="", color=_KINDS[k], label=k or "kind not known")
            for k in kinds
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8
        )
    return figure


def strengths(one: Strengths, classes: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Recall over the values of a swept key: every class (gray), the mean, and those that can be named."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((5.6, 3.2), layout="constrained")
        panel = figure.subplots()
        recall = 100 * one.recall.mean(1)
        for m in range(recall.shape[1]):
            panel.plot(one.values, recall[:, m], color="#cccccc", linewidth=0.8, zorder=1)
        # Only as many as there are colors to tell apart; all are in the table.
        for k, m in enumerate(np.flatnonzero(one.opposite)[: len(PALETTE)]):
            panel.plot(
                one.values, recall[:, m], color=PALETTE[k], marker=".", label=names[classes[m]]
            )
        panel.plot(
            one.values,
            recall.mean(1),
            color=INK,
            marker="o",
            linewidth=2,
            label="mean of the classes",
        )
        panel.set_xticks(one.values, [f"{value:g}" for value in one.values])
        panel.set_xlabel(one.key)
        panel.set_ylabel("recall [%]")
        panel.grid(axis="y", **GRID)
        panel.set_axisbelow(True)
        add_legend(figure, panel)
    return figure
