"""Maps of a vision transformer's own attention: how much of each patch its class token has looked at, or had use of."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import resampling
from mixaug_jax.attribution.cam import RESIZES
from mixaug_jax.attribution.target import nan_like, select
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Attribution,
    Float,
    Image,
    Label,
    Net,
)
from mixaug_jax.models.vit import seen_patches

Attention = Float[AnyArray, "heads T T"]  # of one block, a row for each token that looks
Tokens = Float[AnyArray, "T T"]  # how much of each token is in each


def attention_rollout(
    net: Net, image: Image, label: Label, *, resize: str = "bilinear"
) -> Attribution:
    """Attention rollout: the class token's share of each patch, [h,w,1] (Abnar and Zuidema 2020, arXiv 2005.00928).

    Of each block the mean over heads, and as much again for the residual sum. It does not look at the class.

    Args:
      net, image: see `mixaug_jax.attribution`; a vision transformer.
      label: see there; its map is every label's.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
    """
    image = checks.image(image)
    logits, attention = net.attention(image[None])
    value = select(net, logits, label, "logit")[0]
    total = rolled_out([a[0] for a in attention.values()])
    return _finish(nan_like(value, seen_patches(net.model, total)), image, resize)


def gradient_x_attention(
    net: Net, image: Image, label: Label, *, resize: str = "bilinear", output: str = "logit"
) -> Attribution:
    """Attention times its gradient, where that is positive, through all blocks, [h,w,1] (Chefer et al. 2021, arXiv 2103.15679).

    The mean over heads; each block adds to what the tokens held before it (eq. 5 and 6 for self-attention alone).

    Args:
      net, image, label: see `mixaug_jax.attribution`; a vision transformer.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
      output: the output explained, "logit", "prob" or "loss".
    """
    image = checks.image(image)
    value, attention, slopes = _attention_and_gradients(net, image, label, output)
    total = relevant([(attention[block], slopes[block]) for block in attention])
    return _finish(nan_like(value, seen_patches(net.model, total)), image, resize)


def attention_gradcam(
    net: Net, image: Image, label: Label, *, resize: str = "bilinear", output: str = "logit"
) -> Attribution:
    """Grad-CAM of the last block's attention of the class token, [h,w,1] (Chefer et al. 2021, arXiv 2012.09838, section 4).

    Heads weighted by their mean gradient over the patches, and what is positive of their mean.

    Args:
      net, image, label: see `mixaug_jax.attribution`; a vision transformer.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
      output: the output explained, "logit", "prob" or "loss".
    """
    image = checks.image(image)
    value, attention, slopes = _attention_and_gradients(net, image, label, output)
    last = list(attention)[-1]
    # A row a head.
    seen, slope = (seen_patches(net.model, block[last]) for block in (attention, slopes))
    weights = slope.mean((1, 2), keepdims=True)
    values = jnp.maximum((seen * weights).mean(0), 0)
    return _finish(nan_like(value, values), image, resize)


def rolled_out(attention: list[Attention]) -> Tokens:
    """How much of each token is in each after all blocks: rows that sum to 1, multiplied from the first block on."""

    def share(block: Attention) -> Tokens:
        mean = block.mean(0) + jnp.eye(block.shape[-1])
        return mean / mean.sum(-1, keepdims=True)

    return _accumulated(attention, lambda block, total: share(block) @ total)


def relevant(pairs: list[tuple[Attention, Attention]]) -> Tokens:
    """How much each token counts for each after all blocks, by (attention, gradient) of each."""

    def add(pair: tuple[Attention, Attention], total: Tokens) -> Tokens:
        attention, slope = pair
        return total + jnp.maximum(attention * slope, 0).mean(0) @ total

    return _accumulated(pairs, add)


def _accumulated(blocks: list, step: Callable) -> Array:
    """From the identity on, block by block."""
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *blocks)
    count = jax.tree.leaves(stacked)[0].shape[-1]
    return jax.lax.scan(lambda total, block: (step(block, total), None), jnp.eye(count), stacked)[0]


def _attention_and_gradients(net, image, label, output):
    """The explained number, and {block: [heads,T,T]} of its attention and of the derivatives by it."""

    def explained(change: dict):
        logits, attention = net.attention(image[None], change)
        return select(net, logits, label, output)[0], attention

    shapes = jax.eval_shape(lambda net: net.attention(image[None])[1], net)
    zero = {block: jnp.zeros(a.shape, jnp.float32) for block, a in shapes.items()}
    (value, attention), slopes = jax.value_and_grad(explained, has_aux=True)(zero)
    # In the network's order, which dicts from JAX do not have.
    blocks = [layer for layer in net.layers if layer in shapes]
    return value, {b: attention[b][0] for b in blocks}, {b: slopes[b][0] for b in blocks}


def _finish(values, image, resize):
    """[n,n] -> [h,w,1] at the image's size."""
    checks.choice("resize", resize, RESIZES)
    return resampling.enlarge(values[..., None], image.shape[:2], resize)
