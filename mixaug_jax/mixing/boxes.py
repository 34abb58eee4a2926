"""Mixers that paste a box of another image: cutmix, saliencymix, resizemix, and switch."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Count,
    Float,
    Given,
    Image,
    Images,
    Int,
    Integer,
    Integers,
    Num,
    Numbers,
    RandomKey,
    Targets,
    UInt8,
)
from mixaug_jax.mixing import draws
from mixaug_jax.mixing.labels import MASK_LABELS, Pending, masked_targets
from mixaug_jax.mixing.pixels import Box, box_mask, mix_with_partners
from mixaug_jax.mixing.saliency import fine_grained_saliency, misread_saliency

Center = Sequence[Integers] | Integer[AnyArray, "2 ..."]


def cut_box(center: Center, lam: Numbers, height: int, width: int) -> Box:
    """CutMix's box, which covers 1 - lam of the image before the edge clips it.

    Yun et al., CutMix, arXiv 1905.04899, section 3.1, as in the published `rand_bbox`: each side is
    trunc(side * sqrt(1 - lam)), and the box reaches half of that, rounded down, to both sides of
    the center, so an odd side loses a pixel.

    Args:
      center: (row, col), integers of any shape.
      lam: share of the image to keep, 0..1, any shape that broadcasts against the center's.
      height, width: of the image, in pixels.

    Returns:
      (row0, col0, row1, col1), ends exclusive, int32 of the broadcast shape. Computed by numpy in
      float64, as published, where all arguments are Python's or numpy's; else in float32.
    """
    # float64 gives the published boxes to the pixel; a compiled step has float32 alone.
    on_device = any(isinstance(x, jax.Array) for x in (*center, lam))
    xp, real = (jnp, jnp.float32) if on_device else (np, np.float64)
    row, col, lam = xp.broadcast_arrays(*(xp.asarray(c) for c in center), xp.asarray(lam, real))
    cut = xp.sqrt(1 - lam)
    ends = []
    for at, side in ((row, height), (col, width)):
        half = (side * cut).astype(np.int32) // 2
        ends.append([xp.clip(at + sign * half, 0, side).astype(np.int32) for sign in (-1, 1)])
    (row0, row1), (col0, col1) = ends
    return row0, col0, row1, col1


def kept_share(box: Box, height: int, width: int) -> Float[Array, "..."]:
    """float32 share of an image of height x width pixels outside `box`."""
    row0, col0, row1, col1 = box
    area = (row1 - row0) * (col1 - col0)
    return 1 - jnp.asarray(area, jnp.float32) / (height * width)


def paste(images: Images, partners: Images, box: Box) -> Images:
    """`images` [B,H,W,C] with `partners` within `box`, four integers, each () or [B]."""
    mask = box_mask(box, *images.shape[1:3])
    return jnp.where(mask[..., None], partners.astype(images.dtype), images)


def cutmix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 1.0,
) -> tuple[Images, Targets | Pending]:
    """A box of another image pasted at the same place; labels mixed by area.

    Yun et al., CutMix, arXiv 1905.04899, section 3.1 and Algorithm A1, as in the published code:
    one lambda ~ Beta(alpha, alpha), one permutation and one box (`cut_box`) for the batch, and
    lambda corrected to the area that was really kept.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing; published as 1 for ImageNet, 0.5 for CIFAR.
      per: "batch" as published, one box and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      alpha: 1 as published.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or images too small to cut.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.positive("alpha", alpha)
    checks.large_enough(images, 2, "a cut")
    height, width = images.shape[1:3]
    permutation, (amount, whether, where) = draws.streams(key, shard, per, 3)
    shape = draws.shape(per, images)
    # A coin that says no makes lambda 1 and the box empty, so that no example needs a branch.
    lam = jnp.where(draws.coin(whether, prob, shape), draws.lam(amount, alpha, shape), 1)
    box = cut_box(draws.pixel(where, height, width, shape), lam, height, width)
    partner = jax.random.permutation(permutation, images.shape[0])
    # The edge may have clipped the box: labels follow the pixels that are really kept.
    lam = kept_share(box, height, width)
    return (
        paste(images, images[partner], box),
        masked_targets(targets, targets[partner], ~box_mask(box, height, width), lam, label),
    )


def saliencymix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 1.0,
    variant: str = "intended",
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> tuple[Images, Targets | Pending]:
    """CutMix with the box around the most salient pixel of the image it is cut from.

    Uddin et al., SaliencyMix, arXiv 2006.01791, section 3: one lambda ~ Beta(alpha, alpha), the
    peak of `fine_grained_saliency` as the center of `cut_box`, the box pasted at the same place.

    The paper's text and its published code differ, hence two variants:
    * "intended": every example gets the peak of its own partner, from a map of the partner's bytes
      and true luminance. This is what the paper describes.
    * "released": what the code does. One peak, that of the partner of the first example on the
      device, serves the whole batch; and the map is made of normalized float32, which OpenCV reads
      as bytes (`misread_saliency`), so the boxes follow no saliency at all: with photographs most
      lie at the top edge. Channels are taken as they come. The paper's released weights, if made by
      this code, were trained so.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,3] floating point, normalized RGB, at most 256 x 256 pixels; for "intended" also
        [B,H,W,1], whose map is that of the gray picture.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing; published as 1 for ImageNet, 0.5 for CIFAR.
      per: "batch" as published, one lambda and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      alpha: 1 as published.
      variant: "intended" or "released".
      mean, std: one number a channel, what the images were normalized with, in units of the full
        range 0..1. Bytes are rebuilt as clip(round(255 (x std + mean)), 0, 255). "released" needs
        neither.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or images too small to cut.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.choice("variant", variant, ("intended", "released"))
    checks.positive("alpha", alpha)
    checks.large_enough(images, 2, "a cut")
    checks.normalized(images, mean, std, channels=(1, 3) if variant == "intended" else (3,))
    height, width = images.shape[1:3]
    permutation, (amount, whether) = draws.streams(key, shard, per, 2)
    shape = draws.shape(per, images)
    # An empty box where nothing is mixed, as in `cutmix`.
    lam = jnp.where(draws.coin(whether, prob, shape), draws.lam(amount, alpha, shape), 1)
    partner = jax.random.permutation(permutation, images.shape[0])
    if variant == "intended":
        seen = to_bytes(images, mean, std)
        # Three equal channels have their own value for luminance, to the bit.
        seen = jnp.broadcast_to(seen, (*seen.shape[:3], 3))
        maps = fine_grained_saliency(seen)[partner]
    else:
        # One peak for the whole batch, of the first example's partner, and of normalized values.
        maps = misread_saliency(images[partner[0]].astype(jnp.float32))[None]
    box = cut_box(peak(maps), lam, height, width)
    # Peaks are often near an edge, so that less than 1 - lambda is pasted.
    lam = kept_share(box, height, width)
    return (
        paste(images, images[partner], box),
        masked_targets(targets, targets[partner], ~box_mask(box, height, width), lam, label),
    )


def to_bytes(images: Images, mean: Given, std: Given) -> UInt8[Array, "B h w C"]:
    """uint8 [B,H,W,C] that `images`, normalized by `mean` and `std`, came from."""
    images = images.astype(jnp.float32) * jnp.asarray(std) + jnp.asarray(mean)
    return jnp.clip(jnp.rint(255 * images), 0, 255).astype(jnp.uint8)


def peak(maps: Num[AnyArray, "B h w"]) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """(row, col) int32 [B] of each map's [B,H,W] largest value, the first in reading order."""
    index = jnp.argmax(maps.reshape(maps.shape[0], -1), axis=1)
    return index // maps.shape[2], index % maps.shape[2]


def resizemix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    scale: Sequence[float] = (0.1, 0.8),
) -> tuple[Images, Targets | Pending]:
    """The whole of another image, made small, pasted at a random place; labels mixed by area.

    Qin et al., ResizeMix, arXiv 2012.11101, section 3: the sides are scaled by tau ~ U(scale), the
    small image lies wholly inside, 1 - lambda is its share of the area. (Public copies that cut it
    at the edge squeeze the partner into what is left.) Resized by `jax.image`, linear with
    antialiasing.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one box and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      scale: (smallest, largest) side of the pasted image as a fraction of the image's; sides are
        rounded down to pixels.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or a pasted image of no pixel.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.interval("scale", scale, 0, 1)
    height, width = images.shape[1:3]
    # Such an image would be mixed with nothing, and nobody would see it.
    if scale[0] * min(height, width) < 1:
        raise ValueError(
            f"scale {scale} makes images of {height} x {width} pixels smaller than a pixel"
        )
    permutation, (size, row, col, whether) = draws.streams(key, shard, per, 4)
    shape = draws.shape(per, images)
    tau = jax.random.uniform(size, shape, minval=scale[0], maxval=scale[1])
    # Nothing is pasted where the coin says no: sides of 0 pixels.
    tau = jnp.where(draws.coin(whether, prob, shape), tau, 0)
    edges = []
    for side, where in ((height, row), (width, col)):
        # Rounded down, so that there is a place for the whole of it in the image.
        length = (side * tau).astype(jnp.int32)
        start = jax.random.randint(where, shape, 0, side - length + 1)
        edges.append((start, start + length))
    (row0, row1), (col0, col1) = edges
    box = (row0, col0, row1, col1)
    # Sides are whole pixels, so the share of the area is counted and not tau squared.
    partner = jax.random.permutation(permutation, images.shape[0])
    pasted = shrink_into(images[partner], box)
    lam = kept_share(box, height, width)
    keep = ~box_mask(box, height, width)
    return paste(images, pasted, box), masked_targets(targets, targets[partner], keep, lam, label)


def shrink_into(images: Images, box: Box) -> Images:
    """`images` [B,H,W,C] resized into `box`, four integers, each () or [B]; float32, 0 outside."""
    row0, col0, row1, col1 = (jnp.asarray(edge, jnp.float32) for edge in box)
    sides = jnp.asarray(images.shape[1:3], jnp.float32)
    # An empty box shows nothing; its scale only has to be finite.
    scale = jnp.maximum(jnp.stack([row1 - row0, col1 - col0], -1), 1) / sides
    start = jnp.stack([row0, col0], -1)

    def one(image: Image, scale: Array, start: Array) -> Image:
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), scale, start, method="linear", antialias=True
        )

    axis = 0 if scale.ndim == 2 else None
    return jax.vmap(one, (0, axis, axis))(images.astype(jnp.float32), scale, start)


def switch(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    switch_prob: float = 0.5,
) -> tuple[Images, Targets | Pending]:
    """Mixup or CutMix, chosen by a coin.

    As in timm (modes "batch" and "elem", except that partners are a random permutation and not the
    batch in reverse) with the settings of DeiT, Touvron et al., arXiv 2012.12877, table 9.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing at all.
      per: "batch" as published, one choice, one lambda and one box for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      mixup_alpha: lambda ~ Beta(mixup_alpha, mixup_alpha) of mixup.
      cutmix_alpha: as above, of CutMix.
      switch_prob: probability of CutMix.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or images too small to cut.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.positive("mixup_alpha", mixup_alpha)
    checks.positive("cutmix_alpha", cutmix_alpha)
    checks.fraction("switch_prob", switch_prob)
    checks.large_enough(images, 2, "a cut")
    height, width = images.shape[1:3]
    permutation, keys = draws.streams(key, shard, per, 5)
    mixing, cutting, which, whether, where = keys
    shape = draws.shape(per, images)
    # Streams of their own: what one of the two draws does not depend on the other.
    mixed = draws.coin(whether, prob, shape)
    cuts = draws.coin(which, switch_prob, shape)
    lam = jnp.where(mixed & ~cuts, draws.lam(mixing, mixup_alpha, shape), 1)
    cut = jnp.where(mixed & cuts, draws.lam(cutting, cutmix_alpha, shape), 1)
    box = cut_box(draws.pixel(where, height, width, shape), cut, height, width)
    # One of the two is off, so it does not matter which one is applied to the other.
    weight = jnp.where(box_mask(box, height, width), 0, lam[..., None, None])[..., None]
    lam *= kept_share(box, height, width)
    return mix_with_partners(permutation, images, targets, weight, lam, label)
