"""Figures of dissections."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixaug_jax.core.stats import LEVEL
from mixaug_jax.core.types import (
    Bool,
    Count,
    Dataset,
    Float,
    Int,
    Photo,
    Preprocess,
    Scalar,
    UInt8,
)
from mixaug_jax.data import transforms
from mixaug_jax.dissection import resample
from mixaug_jax.dissection.concepts import LabelMaps
from mixaug_jax.dissection.pairs import Comparison
from mixaug_jax.dissection.result import PER, Dissection
from mixaug_jax.draw.dissection_tables import beside
from mixaug_jax.draw.style import CROSS, FAINT, GRID, INK, PALETTE, STYLE, add_legend, outline


def unique_concepts(results: Mapping[str, Dissection], *, per: str = "unit") -> Figure:
    """Unique concepts by category, one panel for each IoU threshold: Won et al. 2023, Fig. 3.

    Beside every bar stand its interval (line; see `Dissection.intervals`), the same count with label
    maps shuffled against images (open circle at the mean, gray band over the range: shuffles are too
    few for percentiles) and of a network with random weights (cross).

    Args:
      results: the dissections by the name to show, of the same vocabulary and IoU thresholds; the
        bars of a category stand side by side.
      per: "unit" or "category", see `counting.count_detectors`.
    """
    # Counts of other concepts or thresholds would stand under the wrong names.
    one = next(iter(results.values()))
    for name, result in results.items():
        if (result.names, result.options.iou) != (one.names, one.options.iou):
            raise ValueError(
                f"{name} has other concepts or IoU thresholds than {next(iter(results))}"
            )
    # As wide as the bars of all networks need, up to a size at which names still fit.
    thresholds, groups = one.options.iou, (*one.categories, "total")
    wide = max(3.0, 0.55 * len(groups) * max(1.4, 0.6 * len(results)))
    with matplotlib.rc_context(STYLE):
        figure = Figure((wide * len(thresholds) + 0.6, 3.4), layout="constrained")
        panels = figure.subplots(1, len(thresholds), sharey=True, squeeze=False)[0]
        for t, (panel, threshold) in enumerate(zip(panels, thresholds, strict=True)):
            width = 0.8 / len(results)
            for k, (name, result) in enumerate(results.items()):
                at = np.arange(len(groups)) + (k - (len(results) - 1) / 2) * width
                color = PALETTE[k % len(PALETTE)]
                found = [beside(result, (PER.index(per), 1, t), g) for g in range(len(groups))]
                _bars(panel, at, width, found, color, name)
            _dress(panel, groups, threshold)
        # Without any bar matplotlib would choose an axis around 0 with negative counts.
        panels[0].set_ylabel("unique concepts")
        panels[0].set_ylim(bottom=0)
        if not any(result.counts[PER.index(per), 1].any() for result in results.values()):
            panels[0].set_ylim(0, 1)
            figure.text(0.5, 0.5, "no unit is above these thresholds", ha="center", color=FAINT)
        add_legend(figure, panels[0])
    return figure


def _dress(panel, categories, threshold):
    """What all panels of counts by category share."""
    panel.set_xticks(np.arange(len(categories)), categories)
    panel.set_xlim(-0.6, len(categories) - 0.4)
    panel.set_title(f"IoU > {threshold:g}", fontsize=10)
    panel.tick_params(length=0)
    panel.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    panel.grid(axis="y", **GRID)
    panel.set_axisbelow(True)


def _bars(panel, at, width, found, color, name):
    """The bars of one network in one panel, and what stands beside them."""
    # The bar is what was found; what it is to be read beside stands on it, from the back to the front.
    count = np.array([f["count"] for f in found])
    panel.bar(at, count, 0.92 * width, color=color, alpha=0.85, linewidth=0, label=name)
    first = color == PALETTE[0]  # one entry of each kind in the legend

    def label(text: str) -> str | None:
        return text if first else None

    if found[0]["null_mean"] != "":
        mean, low, high = ([f[k] for f in found] for k in ("null_mean", "null_min", "null_max"))
        spread = np.subtract(high, low)
        panel.bar(at, spread, 0.5 * width, bottom=low, color="#bbbbbb", linewidth=0, zorder=3)
        style = {"facecolor": "white", "edgecolor": INK, "linewidth": 1, "s": 18}
        panel.scatter(
            at, mean, **style, zorder=5, clip_on=False, label=label("shuffled labels (mean, range)")
        )
    if found[0]["random"] != "":
        random = [f["random"] for f in found]
        at_side = at + 0.28 * width
        panel.scatter(at_side, random, s=22, label=label("random weights"), **CROSS)
    known = [k for k, f in enumerate(found) if f["low"] != ""]
    if known:
        low, high = ([found[k][end] for k in known] for end in ("low", "high"))
        text = label(f"{100 * LEVEL:g} % interval")
        at_side = at[known] - 0.28 * width
        panel.vlines(at_side, low, high, color=INK, linewidth=1.2, zorder=4, label=text)


def differences(comparison: Comparison, *, per: str = "unit") -> Figure:
    """Unique concepts of each run minus those of the first, by category, one panel for each IoU
    threshold; lines are the paired intervals (see `Comparison`)."""
    first, *others = comparison.names
    groups = np.arange(len(comparison.categories))
    with matplotlib.rc_context(STYLE):
        wide = max(3.0, 0.28 * len(groups) * (1 + len(others)))
        figure = Figure((wide * len(comparison.iou) + 0.6, 3.4), layout="constrained")
        panels = figure.subplots(1, len(comparison.iou), sharey=True, squeeze=False)[0]
        # Zero is no difference: an interval that crosses it supports none.
        for t, (panel, threshold) in enumerate(zip(panels, comparison.iou, strict=True)):
            panel.axhline(0, color=FAINT, linewidth=1)
            for m, name in enumerate(others):
                at = groups + 0.8 * ((m + 0.5) / len(others) - 0.5)
                color = PALETTE[(m + 1) % len(PALETTE)]
                place = (m, PER.index(per), 1, t)
                panel.scatter(at, comparison.difference[place], color=color, s=22, label=name)
                if np.isfinite(comparison.interval[place]).any():
                    panel.vlines(at, *comparison.interval[place].T, color=color, linewidth=1.6)
            _dress(panel, comparison.categories, threshold)
        panels[0].set_ylabel(f"unique concepts, minus {first}")
        add_legend(figure, panels[0])
    return figure


def unit_sheet(
    result: Dissection,
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    units: int = 8,
    labels: LabelMaps | None = None,
) -> Figure:
    """Example units with their top images, dark where the unit is off: Won et al. 2023, Fig. 2.

    Shown are the units of the largest IoU, each with another concept; where these are too few, the
    next best.

    Args:
      result: the dissection.
      dataset: whose examples it was made from.
      preprocess: of the network, for the part of the images that it saw.
      units: how many.
      labels: the label maps that it was made with; the white line is then the outline of the unit's best concept.
    """
    # The part of each image that the network saw, as the unit's map covers no more.
    shown = example_units(result, units)
    labels_of, values = result.top_labels(1)
    count, padding = result.top_images.shape[1], result.options.padding
    with matplotlib.rc_context(STYLE):
        figure = Figure((1.25 * count + 1.7, 1.3 * max(1, len(shown)) + 0.2), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        # A figure all the same, as pages look for its file.
        if not len(shown):
            figure.text(0.5, 0.5, "no unit is above the IoU thresholds", ha="center", color=FAINT)
            return figure
        grid = figure.subplots(
            len(shown), count + 1, squeeze=False, width_ratios=[1.3] + [1] * count
        )
        # A row for each unit: what it detects, then the images that move it most.
        for row, unit in zip(grid, shown, strict=True):
            name, category = result.names[labels_of[unit, 0]]
            row[0].axis("off")
            text = f"{name}\n{category}\nIoU {values[unit, 0]:.2f}\nunit {unit}"
            row[0].text(1, 0.5, text, ha="right", va="center", transform=row[0].transAxes)
            for k, panel in enumerate(row[1:]):
                index = int(result.top_images[unit, k])
                image = transforms.seen_part({"image": dataset[index]["image"]}, preprocess)[
                    "image"
                ]
                panel.imshow(
                    masked(image, result.top_maps[unit, k], result.threshold[unit], padding)
                )
                if labels is not None:
                    outline(panel, where(labels, index, labels_of[unit, 0], image.shape[:2]))
                panel.set_axis_off()
    return figure


def example_units(result: Dissection, count: int) -> Int[np.ndarray, " chosen"]:
    """Numbers of up to `count` detectors (at the lowest IoU threshold), best first: one for each
    concept, then more of the best."""
    labels, values = result.top_labels(1)
    order = np.argsort(-values[:, 0], kind="stable")
    order = order[values[order, 0] > min(result.options.iou)]
    # `np.unique` gives the first of each concept, which is its best unit in this order.
    _, first = np.unique(labels[order, 0], return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    chosen = np.sort(np.concatenate([np.sort(first), rest])[:count])
    return order[chosen]


def unit_sheet_caption(result: Dissection, *, units: int = 8) -> str:
    """What `unit_sheet` shows, with label maps."""
    shown, top = len(example_units(result, units)), result.top_images.shape[1]
    return (
        f"{shown} of {len(result.threshold)} units of {result.layer} and their top {top} of {len(result.indices)} images. "
        "Bright is where the unit is above its threshold; the white line is the outline of the concept that it matches best. "
        "Shown is of each concept the unit with the largest IoU, then the next best."
    )


def unit_sheet_alt(result: Dissection, *, units: int = 8) -> str:
    """The same for those who cannot see it: which units it shows, and what they detect."""
    labels, values = result.top_labels(1)
    said = [
        f"unit {unit}: {result.names[labels[unit, 0]][0]}, IoU {values[unit, 0]:.2f}"
        for unit in example_units(result, units)
    ]
    return f"rows of images, dark where the unit is off; {'; '.join(said) or 'no unit is above the IoU thresholds'}"


def where(
    labels: LabelMaps, index: Count, concept: Count, size: tuple[int, int]
) -> Bool[np.ndarray, "H W"]:
    """Where a concept is in the image `index` of the data set: bool at `size` (rows, columns), by the nearest pixel."""
    row = int(np.flatnonzero(labels.indices == index)[0])
    label_map = np.asarray(labels.maps[row : row + 1])[0]
    rows, cols = (transforms.nearest(n, m) for n, m in zip(label_map.shape, size, strict=False))
    return (label_map[rows[:, None], cols] == concept).any(-1)


def masked(
    image: Photo, activation: Float[np.ndarray, "h w"], threshold: Scalar, padding: str = "edge"
) -> UInt8[np.ndarray, "H W 3"]:
    """uint8 [H,W,3 or 1] as [H,W,3] with what lies outside the unit's mask darkened and pale.

    activation: the unit's map [h,w]; a pixel is inside where its upsampled value is above
    `threshold`.
    padding: beyond the map's border, as in the dissection: "edge" or "zero".
    """
    grid = resample.Grid(activation.shape, image.shape[:2], padding)
    inside = np.asarray(resample.upsample(activation[..., None], grid))[..., 0] > threshold
    # Dark and pale, but not black: what the unit is not on stays recognizable.
    gray = image.mean(-1, keepdims=True)
    outside = 0.25 * (0.5 * image + 0.5 * gray) + 25
    shown = np.where(inside[..., None], image, outside).astype(np.uint8)
    return np.broadcast_to(shown, (*image.shape[:2], 3))
