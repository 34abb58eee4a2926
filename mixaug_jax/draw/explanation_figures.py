"""Figures of explanations: curves of faithfulness, and heat maps over their images; of one network, or of many."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.core import walk
from mixaug_jax.core.stats import PERCENTILES, image_weights
from mixaug_jax.core.types import (
    AnyArray,
    Bool,
    Dataset,
    Float,
    Heatmap,
    Mask,
    Num,
    Photo,
    Preprocess,
    UInt8,
)
from mixaug_jax.data import transforms
from mixaug_jax.draw.style import FAINT, GRID, PALETTE, STYLE, outline
from mixaug_jax.explain.evaluation import Evaluation
from mixaug_jax.explain.examples import Examples

_OUTPUT = {"prob": "probability", "logit": "logit", "loss": "loss"}
_WRAP = 22  # letters of a line before a row of overlays
_DASHES = ((1.5, 1.5), (4, 2), (6, 1.5, 1.5, 1.5))  # of the controls, all gray


def faithfulness(
    results: Mapping[str, Evaluation], *, replicates: int = 200, seed: int = 0
) -> Figure:
    """Mean curves, one panel for each kind: RISE (Petsiuk et al. 2018), Fig. 4, for many methods.

    Bands are 95 % intervals over bootstrap resamples of the images, of the methods only: those of the controls are as wide. The
    legend of a panel is in the order of the areas, the best first.

    Args:
      results: of methods and controls on the same images.
      replicates, seed: of the bootstrap.
    """
    first = next(iter(results.values()))
    names = list(first.curves)
    with matplotlib.rc_context(STYLE):
        figure = Figure((5.4 * max(1, len(names)), 3.4), layout="constrained")
        if not names:
            figure.text(0.5, 0.5, "no curves were asked for", ha="center", color=FAINT)
            return figure
        # All methods on the same draws; one that drew no image has no mean.
        draws = image_weights(len(first.indices), replicates, seed).T
        draws = draws[draws.any(1)]
        for panel, name in zip(
            figure.subplots(1, len(names), squeeze=False)[0], names, strict=True
        ):
            _curves(panel, name, results, draws)
    return figure


def _curves(panel, name, results, draws):
    facts = next(iter(results.values())).entries["scores"][name]
    # Bands of the controls would cover those of the methods and say nothing more.
    for method, style in _styles(results).items():
        result = results[method]
        curves = result.curves[name]
        at = _positions(facts, curves)
        panel.plot(at, curves.mean(0), label=_area(method, result, name), **style)
        if result.kind == "method" and len(draws):
            again = draws @ curves / draws.sum(1, keepdims=True)
            band = np.percentile(again, PERCENTILES, axis=0)
            panel.fill_between(at, *band, color=style["color"], alpha=0.15, linewidth=0)
    _dress(panel, facts)


def _positions(facts, curves):
    """Where a curve's points lie."""
    return np.array(facts["positions"] or np.linspace(0, 1, curves.shape[1]))


def _area(label, result, name):
    """An entry of the legend, which `_dress` sorts by the number at its end."""
    return f"{label}  {result.scores[name].mean():.3f}"


def _dress(panel, facts):
    """Title, axes and legend of a panel of curves."""
    better = {1: ": higher is better", -1: ": lower is better", 0: ""}[facts["better"]]
    panel.set_title(f"{facts['title']}{better}", fontsize=10)
    panel.set_xlabel(facts["axis"])
    panel.set_ylabel(f"{_OUTPUT.get(facts['output'], 'output')} of the class")
    panel.set_xlim(0, None)
    panel.grid(**GRID)
    panel.set_axisbelow(True)
    # By the areas that the labels end in, the better ones on top.
    handles, labels = panel.get_legend_handles_labels()
    area = [float(label.split()[-1]) for label in labels]
    order = sorted(range(len(labels)), key=lambda k: area[k], reverse=facts["better"] > 0)
    panel.legend(
        [handles[k] for k in order], [labels[k] for k in order], title="area, best first",
        loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, title_fontsize=8,
        alignment="left",
    )  # fmt: skip


def compared_curves(
    results: Mapping[str, Evaluation], random: Mapping[str, Evaluation], colors: Mapping[str, str]
) -> Figure:
    """Mean curves of one method, a line for each network; thin and dashed, pixels in random order.

    Args:
      results: of one method on the same images, by the network's name; the kinds of curves that all have are drawn.
      random: of the control of that name, for those networks that have it.
      colors: of the networks.
    """
    first = next(iter(results.values()))
    names = [name for name in first.curves if all(name in r.curves for r in results.values())]
    with matplotlib.rc_context(STYLE):
        figure = Figure((4.7 * max(1, len(names)), 3.0), layout="constrained")
        if not names:
            figure.text(0.5, 0.5, "no curves were asked for", ha="center", color=FAINT)
            return figure
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for panel, name in zip(panels, names, strict=True):
            facts = first.entries["scores"][name]
            at = _positions(facts, first.curves[name])
            for network, result in results.items():
                style = {"color": colors[network], "label": _area(network, result, name)}
                panel.plot(at, result.curves[name].mean(0), linewidth=1.6, **style)
            # Random order is another curve for each network: what a network loses by any removal.
            for network in random.keys() & results.keys():
                if name in random[network].curves:
                    style = {"color": colors[network], "linewidth": 0.8, "dashes": (3, 2)}
                    panel.plot(at, random[network].curves[name].mean(0), zorder=1.5, **style)
            _dress(panel, facts)
    return figure


def _styles(results):
    """How each method's line is drawn; more methods than colors are told apart by their dashes."""
    # Color is for what is compared, gray for what it is compared with.
    methods = [m for m, result in results.items() if result.kind == "method"]
    controls = [m for m, result in results.items() if result.kind == "control"]
    styles = {}
    for k, method in enumerate(methods):
        turn, color = divmod(k, len(PALETTE))
        styles[method] = {"color": PALETTE[color], "linewidth": 1.6}
        if turn:
            styles[method]["dashes"] = (3 * turn, 1)
    for k, method in enumerate(controls):
        dashes = _DASHES[k % len(_DASHES)]
        styles[method] = {"color": FAINT, "linewidth": 1.3, "dashes": dashes, "zorder": 1.5}
    return styles


def overlays(
    results: Mapping[str, Evaluation],
    examples: Examples,
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    class_names: Sequence[str] = (),
    max_images: int = 6,
) -> Figure:
    """Heat maps over their images: an image a row, a method a column.

    Before each row stand the classes, the probability of the predicted one, and the image's name. The brighter, the larger:
    each map is scaled by the 99th percentile of its positive values, and what is negative does not show. The white line is
    the outline of the region; the largest value is marked, by a circle where it hits by the rule of the pointing game, by a
    cross where it misses.

    Args:
      results: of methods and controls on `examples`.
      examples: the images that they explain.
      dataset: where these come from.
      preprocess: of the network, for the part of the images that it saw.
      class_names: of the network's classes, [K]; () says their numbers.
      max_images: how many rows at most, spread evenly over the images with a region (over all where none has one).
    """
    # Spread over the data set: the first images of it may be all of one class.
    shown = np.flatnonzero(examples.masks.any((1, 2)))
    shown = shown if len(shown) else np.arange(len(examples))
    shown = shown[walk.spread(len(shown), max_images)]
    names = list(results)
    pixels = [
        transforms.seen_part({"image": dataset[int(index)]["image"]}, preprocess)["image"]
        for index in examples.indices[shown]
    ]
    heats = {name: results[name].heat[shown] for name in names}
    hits = {name: results[name].hits[shown] for name in names}
    texts = [_said(examples, row, dataset, class_names) for row in shown]
    return sheet(pixels, examples.masks[shown], heats, hits, texts)


def _said(examples, row, dataset, class_names) -> str:
    """What stands before a row: the class that is explained, the predicted one with its probability, the image's name."""

    def name(label: Any) -> str:
        return class_names[label] if len(class_names) else f"class {label}"

    index = int(examples.indices[row])
    file = pathlib.PurePath(getattr(dataset, "file_name", lambda index: "")(index)).name
    label, predicted = int(examples.labels[row]), int(examples.predicted[row])
    share = f"{examples.probabilities[row]:.0%}"
    lines = [
        f"explained: {name(label)}",
        f"predicted: {name(predicted)}, {share}",
        f"image {index}",
    ]
    # Names are as long as users make them, and the column is narrow.
    return "\n".join(textwrap.fill(line, _WRAP) for line in [*lines, *filter(None, [file])])


def sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ _"]] | UInt8[np.ndarray, "n h w C"],
    masks: Bool[np.ndarray, "n h w"] | Sequence[Bool[AnyArray, "_ _"]],
    heats: Mapping[str, Float[np.ndarray, "n h w"] | Sequence[Float[AnyArray, "_ _"]]],
    hits: Mapping[str, Num[np.ndarray, " n"]],
    texts: Sequence[str] = (),
) -> Figure:
    """Heat maps over their images, of any sizes: an image a row, a name a column, each map scaled and marked as in `overlays`.

    Args:
      images: uint8 [n][h,w,3 or 1].
      masks: bool [n][h,w], the regions whose outline is drawn.
      heats: {name: [n][h,w]}, as large as their images.
      hits: {name: [n]}, whether the largest value lies in the region; not marked where it is NaN.
      texts: what is said before each row, [n]; () for nothing.
    """
    said = bool(len(texts))
    with matplotlib.rc_context(STYLE):
        wide, high = 1.25 * (len(heats) + 1) + 1.35 * said, 1.25 * len(images) + 1.05
        figure = Figure((wide, high), layout="constrained")
        # The layout forgets the second line of a title where there is a bar of colors: room at the top.
        room = {"rect": (0, 0.05 / high, 1, 1 - 0.25 / high)}
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01, **room)
        ratios = [1.05] * said + [1] * (len(heats) + 1)
        grid = figure.subplots(len(images), len(ratios), squeeze=False, width_ratios=ratios)
        for k, text in enumerate(texts):
            panel = grid[k, 0]
            panel.text(1, 0.5, text, ha="right", va="center", fontsize=7, transform=panel.transAxes)
        for k, (panels, image) in enumerate(zip(grid[:, said:], images, strict=True)):
            image = np.broadcast_to(image, (*image.shape[:2], 3))
            panels[0].imshow(image)
            outline(panels[0], masks[k])
            for panel, name in zip(panels[1:], heats, strict=True):
                _overlay(panel, image, heats[name][k], masks[k], hits[name][k])
        for panel, title in zip(grid[0, said:], ["image", *heats], strict=True):
            panel.set_title(title.replace("_", "\n", 1), fontsize=8)
        for panel in grid.flat:
            panel.set_axis_off()
        # Beside a part of the panels it would move that part alone.
        if heats:
            _bar(figure, grid)
    return figure


def _bar(figure, panels):
    """What the colors of heat maps mean."""
    # The colors as they lie over a gray image, so that the bar's are those of the maps.
    share = np.linspace(0, 1, 256)[None]
    colors = _mixed(np.full((1, 256), 0.55 * 128.0)[..., None], share[..., None])[0] / 255
    scale = matplotlib.cm.ScalarMappable(
        matplotlib.colors.Normalize(0, 1), matplotlib.colors.ListedColormap(colors)
    )
    bar = figure.colorbar(
        scale, ax=panels, location="bottom", shrink=0.5, aspect=40, pad=0.02, extend="max"
    )
    bar.set_ticks([0, 0.5, 1])
    bar.set_label("positive attribution\n(1: the map's 99th percentile)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def gallery(image: Photo, maps: Mapping[str, Heatmap], mask: Mask, *, columns: int = 7) -> Figure:
    """One image, and what many methods say about it, each map scaled as in `overlays`.

    Args:
      image: uint8 [h,w,3] or [h,w,1], the part that the network saw.
      maps: heat maps [h,w] by the name to show.
      mask: bool [h,w], the region whose outline is drawn.
      columns: of the grid.
    """
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    rows = -(-(len(maps) + 1) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((1.4 * columns, 1.72 * rows), layout="constrained")
        first, *panels = figure.subplots(rows, columns, squeeze=False).ravel()
        first.imshow(image)
        first.set_title("image", fontsize=8)
        outline(first, mask)
        for panel, (name, heat) in zip(panels, maps.items(), strict=False):
            _overlay(panel, image, heat, mask, np.nan)
            panel.set_title(name.replace("_", "\n", 1), fontsize=8)
        for panel in (first, *panels):
            panel.set_axis_off()
    return figure


def _overlay(panel, image, heat, mask, hit):
    """The image under a heat map; `hit`, whether its largest value lies in the mask, is not marked where it is NaN."""
    # Nothing positive, nothing to scale by: said in place of a picture that would be black.
    if empty := _empty(heat):
        panel.imshow(image // 3)
        panel.text(
            0.5, 0.5, empty, color="white", ha="center", va="center", fontsize=8,
            transform=panel.transAxes,
        )  # fmt: skip
        return
    panel.imshow(blend(image, heat))
    outline(panel, mask)
    # Black below white, so that the mark shows on any ground.
    row, col = np.unravel_index(heat.argmax(), heat.shape)
    if not np.isnan(hit):
        marker = {"marker": "o", "facecolor": "none"} if hit else {"marker": "x"}
        for color, width in (("black", 3.0), ("white", 1.4)):
            edge = {"edgecolor": color} if hit else {"color": color}
            panel.scatter([col], [row], s=42, linewidths=width, zorder=4, **marker, **edge)
    panel.set_xlim(-0.5, image.shape[1] - 0.5)
    panel.set_ylim(image.shape[0] - 0.5, -0.5)


def _empty(heat) -> str:
    """Why a map says nothing; "" where it does."""
    if not np.isfinite(heat).all():
        return "NaN or\ninfinite"
    if not heat.any():
        return "all zeros"
    return "" if heat.max() > 0 else "nothing\npositive"


def blend(
    image: UInt8[np.ndarray, "H W 3"], heat: Float[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """uint8 [H,W,3] and a finite map [H,W] -> uint8 [H,W,3]: the image in dim gray, the positive heat in color over it."""
    # A few pixels would leave the others dark; nothing positive is a map of zeros.
    top = np.quantile(heat[heat > 0], 0.99) if (heat > 0).any() else 1.0
    share = np.clip(heat / top, 0, 1)[..., None]
    return _mixed(0.55 * image.mean(-1, keepdims=True), share).astype(np.uint8)


def _mixed(gray, share):
    """Grays [H,W,1] of 0..255 under the colors of shares [H,W,1] in 0..1 -> [H,W,3]."""
    color = 255 * matplotlib.colormaps["inferno"](share[..., 0])[..., :3]
    return (1 - 0.8 * share) * gray + 0.8 * share * color
