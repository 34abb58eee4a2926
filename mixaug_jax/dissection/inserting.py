"""Insertion: what becomes of a network's answer when a unit is forced on in a region of the picture.

Bau, Zhu, Strobelt, Lapedriza, Zhou, Torralba: "Understanding the role of individual units in a deep neural network", PNAS 2020
(arXiv 2009.05041).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Float, Image, Indices, Net, Num, Scalar
from mixaug_jax.models.probability import class_logits


def insert(
    net: Net,
    image: Image,
    layer: str,
    units: Indices | Sequence[int],
    box: Num[AnyArray, " ends"] | Sequence[float],
    value: Scalar,
) -> Float[np.ndarray, "n K"]:
    """Forces units on in a region of a picture, one at a time, and says what that does to the logits (Bau et al., PNAS 2020).

    Args:
      net: `models.Net`.
      image: [h,w,C], preprocessed.
      layer: whose output are maps [B,h,w,U].
      units: n numbers of units.
      box: (row0, col0, row1, col1) in pixels of `image`, ends exclusive; it reaches the nodes whose centers lie in it.
      value: what the unit's activation is there.

    Returns:
      the logits with the unit forced on minus those of the image as it is, of one logit both classes'.

    Raises:
      ValueError: an unknown layer or one without maps, a unit that is not there, a box that is none or reaches no node.
    """
    checks.choice("layer", layer, net.layers[:-1])
    image = checks.image(image)
    blank = jax.eval_shape(lambda net, x: net.features(x, layer), net, image[None])
    if blank.ndim != 4:
        raise ValueError(f"layer {layer!r} gives {list(blank.shape[1:])}, and a box needs maps")
    units = checks.indices("units", units, blank.shape[-1]).astype(np.int32)
    checks.number("value", float(value))
    mask = _nodes(box, image.shape[:2], blank.shape[1:3])
    return np.asarray(_inserted(net, image, units, mask, np.float32(value), layer=layer))


def _nodes(box, size, nodes):
    """bool [h,w]: the nodes of a map whose centers lie in a box of the picture."""
    ends = np.asarray(box, np.float64).reshape(-1)
    # Of NaN no comparison holds.
    least, most = np.array([0, 0]), np.array(size)
    fits = len(ends) == 4 and (least <= ends[:2]).all() and (ends[2:] <= most).all()
    if not fits or not (ends[:2] < ends[2:]).all():
        raise ValueError(
            f"box must be (row0, col0, row1, col1) within {size[0]} x {size[1]} pixels; got {checks.shown(box)}"
        )
    rows, cols = ((np.arange(n) + 0.5) * side / n for n, side in zip(nodes, size, strict=True))
    inside = ((rows >= ends[0]) & (rows < ends[2]))[:, None] & (
        (cols >= ends[1]) & (cols < ends[3])
    )
    if not inside.any():
        raise ValueError(
            f"box {checks.shown(box)} reaches no node: the map has {nodes[0]} x {nodes[1]} for {size[0]} x {size[1]} pixels"
        )
    return inside


@functools.partial(jax.jit, static_argnames="layer")
def _inserted(net, image, units, mask, value, *, layer):
    x = image[None]
    h = net.features(x, layer)

    def logits(h: jax.Array) -> jax.Array:
        return class_logits(net.logits(x, layer=layer, value=h))[0]

    def one(unit: jax.Array) -> jax.Array:
        here = mask[None, :, :, None] & (jnp.arange(h.shape[-1]) == unit)
        return logits(jnp.where(here, value, h)) - logits(h)

    return jax.lax.map(one, units)
