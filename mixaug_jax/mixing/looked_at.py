"""Mixers that keep or paste the regions a network looks at: attentivemix, snapmix."""

import math

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Bool,
    Count,
    Float,
    Images,
    Indices,
    Integers,
    Net,
    Numbers,
    RandomKey,
    Targets,
)
from mixaug_jax.mixing import draws, maps
from mixaug_jax.mixing.boxes import cut_box
from mixaug_jax.mixing.labels import (
    LABELS,
    MASK_LABELS,
    WEIGHTS,
    Pending,
    masked_targets,
    weigh_targets,
)
from mixaug_jax.mixing.pixels import Box, box_mask, repeated

_EXACT = jax.lax.Precision.HIGHEST


def keep_largest(
    images: Images, cells: Float[AnyArray, "B p q"], partner: Indices, count: Integers
) -> tuple[Images, Bool[Array, "B H W"], Float[Array, " B"]]:
    """The image where its map is largest, its partner elsewhere.

    Args:
      images: [B,H,W,C].
      cells: [B,p,q] of any sign, enlarged to the image by repetition.
      partner: int [B].
      count: cells to keep, the first ones among equals: one number, or [B,1].

    Returns:
      (images, where they are the images themselves [B,H,W], the share of pixels that is kept [B], which is that of the cells
      where they divide the sides).
    """
    flat = cells.reshape(cells.shape[0], -1)
    # The place of each cell in the order of size.
    place = jnp.argsort(jnp.argsort(-flat, axis=1, stable=True), axis=1)
    mask = repeated((place < count).reshape(cells.shape), images.shape[1:3])
    share = mask.mean((1, 2), dtype=jnp.float32)
    return jnp.where(mask[..., None], images, images[partner]), mask, share


def attentivemix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    net: Net = (),
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    count: int = 6,
    alpha: float = 1.0,
    layer: str = "",
) -> tuple[Images, Targets | Pending]:
    """The cells of an image that a network responds to most stay, all else is another image; labels mixed by area.

    Walawalkar et al., Attentive CutMix, arXiv 2003.13048, section 3, in the form of OpenMixup (arXiv 2209.04851): the cells of
    the image itself stay, by the mean over channels. (The paper pastes them on the partner, which is the same with the names
    exchanged; another public code reads the last channel alone.)

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      net: whose features tell what matters; filled in by the train step. The paper takes a trained one.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch", one coin (and one lambda) for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      count: cells that stay, 6 of 7 x 7 as published; 0 is max(1, trunc(lambda * cells)).
      alpha: lambda ~ Beta(alpha, alpha), where `count` is 0.
      layer: whose features; "" is the last with 4 x 4 nodes.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, no network, a layer without a map or with too few cells.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.count("count", count, 0)
    checks.positive("alpha", alpha)
    permutation, (amount, whether) = draws.streams(key, shard, per, 2)
    shape = draws.shape(per, images)
    cells = maps.activation(maps.needed("attentivemix", net), images, layer)
    total = math.prod(cells.shape[1:])
    if count >= total:
        raise ValueError(
            f"count={count} cells cannot be chosen among {cells.shape[1]} x {cells.shape[2]}; name a layer with a larger map, "
            "or fewer cells"
        )
    partner = jax.random.permutation(permutation, images.shape[0])
    chosen = count
    if not count:
        lam = draws.lam(amount, alpha, shape)
        chosen = jnp.maximum(1, (lam * total).astype(jnp.int32))[..., None]
    # All cells stay where the coin says no.
    on = draws.coin(whether, prob, shape)[..., None]
    mixed, mask, share = keep_largest(images, cells, partner, jnp.where(on, chosen, total))
    return mixed, masked_targets(targets, targets[partner], mask, share, label)


def fitted(images: Images, source: Box, target: Box) -> Images:
    """What `images` [B,H,W,C] show within `source`, resized into `target`, four integers each, () or [B].

    Bilinear with corners aligned, as SnapMix's code does it; what lies outside of `target` has no meaning.
    """
    mixers = []
    for axis, side in enumerate(images.shape[1:3]):
        start, end, low, high = (
            jnp.asarray(box[axis + 2 * last], jnp.float32)[..., None]
            for box in (target, source)
            for last in (0, 1)
        )
        pixel = jnp.arange(side, dtype=jnp.float32)
        at = low + (pixel - start) * (high - low - 1) / jnp.maximum(end - start - 1, 1)
        at = jnp.clip(at, low, high - 1)
        # A hat over each pixel: linear interpolation as a product of matrices.
        mixers.append(jnp.maximum(1 - jnp.abs(at[..., None] - pixel), 0))
    rows, cols = (jnp.broadcast_to(m, (images.shape[0], *m.shape[-2:])) for m in mixers)
    x = images.astype(jnp.float32)
    x = jnp.einsum("byr,brwc->bywc", rows, x, precision=_EXACT)
    return jnp.einsum("bxw,bywc->byxc", cols, x, precision=_EXACT)


def snap(
    images: Images, evidence: maps.Maps, partner: Indices, target: Box, source: Box
) -> tuple[Images, Float[Array, " B"], Float[Array, " B"]]:
    """The partner's box in the image's, and what is left of the evidence, and what came with the box.

    Args:
      images: [B,H,W,C].
      evidence: [B,H,W] >= 0, of any sum. A map that is 0 everywhere or not finite is taken for uniform, so that the two weights
        are the areas: of the image outside of `target`, and of `source`.
      partner: int [B].
      target: box of the image to be covered, four integers, each () or [B].
      source: box of the partner that is resized into it. Where either is empty nothing is mixed.

    Returns:
      (images, 1 - the evidence within `target` [B], the partner's evidence within `source` [B]).
    """
    size = images.shape[1:3]
    inside, taken = box_mask(target, *size), box_mask(source, *size)
    some = inside.any((-2, -1)) & taken.any((-2, -1))
    inside &= some[..., None, None]
    mixed = jnp.where(inside[..., None], fitted(images[partner], source, target), images)
    evidence = maps.shares(evidence)
    lost = jnp.where(inside, evidence, 0).sum((1, 2))
    gained = jnp.where(taken & some[..., None, None], evidence[partner], 0).sum((1, 2))
    return mixed.astype(images.dtype), 1 - lost, gained


def one_class(
    own: Numbers, other: Numbers, same: AnyArray
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """SnapMix's two weights: where both images are of one class, both are the sum of the two, as its code has it."""
    return jnp.where(same, own + other, own), jnp.where(same, own + other, other)


def snapmix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    net: Net = (),
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 5.0,
    weights: str = "published",
    layer: str = "",
) -> tuple[Images, Targets]:
    """A box of another image resized into a box of this one; labels weighted by the evidence that was lost and that came.

    Huang et al., SnapMix, arXiv 2012.04846, section 3.2, as in the published code: two lambdas and two boxes for the batch,
    evidence by the class activation map of each image's own class. The two weights need not sum to 1, and where both images
    are of one class each is the sum of both, so that such an example counts twice: rows of the targets sum to what the loss
    weighs the example by, unless weights="normalized".

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1, the largest of which is an image's class.
      net: whose evidence counts; filled in by the train step. Its head must take maps of any size.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one pair of boxes and one coin for the batch; or "example".
      label: what becomes of the labels, see `weigh_targets`.
      alpha: both lambdas ~ Beta(alpha, alpha), 5 as in the authors' commands.
      weights: "published", or "normalized", divided by their sum.
      layer: whose class activation maps; "" is the last with 4 x 4 nodes.

    Returns:
      (images, targets), in the types given.

    Raises:
      ValueError: an option out of range, arrays that do not fit, no network, or one without class activation maps.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, LABELS)
    checks.choice("weights", weights, WEIGHTS)
    checks.positive("alpha", alpha)
    checks.large_enough(images, 2, "a cut")
    if getattr(maps.needed("snapmix", net), "loss", "softmax") != "softmax":
        raise ValueError("snapmix needs images of one class each: train.loss='softmax'")
    size = images.shape[1:3]
    permutation, (first, second, whether, here, there) = draws.streams(key, shard, per, 5)
    shape = draws.shape(per, images)
    lams = (draws.lam(k, alpha, shape) for k in (first, second))
    # Two boxes of their own sizes: what is cut out there is resized into what is replaced here.
    target, source = (
        cut_box(draws.pixel(k, *size, shape), lam, *size)
        for k, lam in zip((here, there), lams, strict=True)
    )
    # An empty box leaves the image and the weight of its own label as they are.
    on = draws.coin(whether, prob, shape)
    target = tuple(jnp.where(on, edge, 0) for edge in target)
    partner = jax.random.permutation(permutation, images.shape[0])
    evidence = maps.evidence(net, images, targets, layer)
    mixed, own, other = snap(images, evidence, partner, target, source)
    # Where both images are of one class, its two weights are those of one label.
    kind = targets.argmax(-1)
    own, other = one_class(own, other, (kind == kind[partner]) & (other > 0))
    return mixed, weigh_targets(targets, targets[partner], own, other, label, weights)
