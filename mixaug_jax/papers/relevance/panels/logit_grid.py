"""The baseline of all panels: images sorted into columns by how sure a network is (Sixt et al. 2022, section 4), and the same
with a heat map beside each image."""

import dataclasses

import jax
import numpy as np

from mixaug_jax.attribution import METHODS, heatmap
from mixaug_jax.core import checks, say
from mixaug_jax.core.types import Count, Net, RandomKey
from mixaug_jax.explain import running
from mixaug_jax.papers.relevance.panels.panel import Panel, Pictures, signed_percentiles, sure

PERCENTS = (-60, -20, 0, 20, 60)


def grid(
    net: Net, pictures: Pictures, key: RandomKey, *, rows: Count = 30, percents: tuple = PERCENTS
) -> Panel:
    """Sorts images into bins of the logit, one image a cell, none twice.

    Bins lie around signed percentiles of |logit|, with borders half way and open ends (Sixt et al. 2022, arXiv 2204.11642).

    Args:
      net: not used: what it says is in `pictures`.
      pictures: to draw from.
      key: decides which images are shown.
      rows: at most; fewer where a bin has fewer images.
      percents: of |logit|, with signs, rising.

    Raises:
      ValueError: fewer than two bins have images.
    """
    return _sorted(pictures, key, rows, percents)[0]


def attribution(
    net: Net,
    pictures: Pictures,
    key: RandomKey,
    *,
    method: str = "gradcam",
    rows: Count = 30,
    percents: tuple = PERCENTS,
) -> Panel:
    """The grid with a heat map beside each image: what an attribution method says of the logit of class 1.

    Args:
      net: the network.
      pictures, key, rows, percents: as of `grid`, whose images these are for the same key.
      method: of `attribution.METHODS`, with its default options.

    Raises:
      ValueError: another method, or fewer than two bins with images.
    """
    checks.choice("method", method, METHODS)
    panel, chosen = _sorted(pictures, key, rows, percents)
    views = np.stack([net.preprocess(pictures.images[i]) for i in chosen.ravel()])
    labels = np.ones(len(views), np.int32)
    found = running.attribute(net, views, labels, method, indices=chosen.ravel())
    heat = np.asarray(heatmap(found, "sum"), np.float32)
    side = panel.images.shape[2]
    # A picture is shown as it is stored, and the network may see it smaller.
    heat = np.asarray(jax.image.resize(heat, (len(heat), side, side), "linear"))
    caption = (
        f"{panel.caption} Beside each image is a map of where the network looked: red speaks for "
        f"{pictures.classes[1]}, blue against it."
    )
    return dataclasses.replace(
        panel, caption=caption, maps=heat.reshape(*panel.logits.shape, side, side)
    )


def _sorted(pictures, key, rows, percents):
    """The panel, and which pictures are in its cells, int [R,C]."""
    checks.count("rows", rows)
    centers = signed_percentiles(pictures.logits, percents)
    # Each picture goes to the column whose logit is nearest.
    bins = np.searchsorted((centers[1:] + centers[:-1]) / 2, pictures.logits)
    order = np.asarray(jax.random.permutation(key, len(pictures)))
    members = [order[bins[order] == k] for k in range(len(centers))]
    kept = [k for k, found in enumerate(members) if len(found)]
    if len(kept) < 2:
        raise ValueError(
            f"a grid needs images in at least two of its {len(centers)} columns, and all {len(pictures)} are in one; show more "
            "images, or a network that tells its classes apart"
        )
    names = tuple(sure(centers[k], pictures.classes) for k in kept)
    if len(kept) < len(centers):
        say.once(f"grid: {len(centers) - len(kept)} of {len(centers)} columns have no images")
    # A grid has no holes: as many rows as the smallest column has pictures.
    count = min(rows, *(len(members[k]) for k in kept))
    chosen = np.stack([members[k][:count] for k in kept], 1)
    caption = (
        "Each column shows images of which the network is about equally sure, from "
        f"{pictures.classes[0]} on the left to {pictures.classes[1]} on the right. What differs between the columns, and is "
        "alike within them, may be what the network goes by."
    )
    values = pictures.attributes[chosen] if pictures.attributes.shape[1] else ()
    panel = Panel(
        "columns",
        pictures.images[chosen],
        pictures.logits[chosen],
        names,
        caption,
        attributes=values,
    )
    return panel, chosen
