"""Mixers that need nothing but pixels: cutout and mixup."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Bool,
    Count,
    Features,
    Float,
    Images,
    Integers,
    Numbers,
    RandomKey,
    Targets,
)
from mixaug_jax.mixing import draws
from mixaug_jax.mixing.labels import LABELS, PENDING, Pending, masked_targets, mix_targets

Box = Sequence[Integers]  # row0, col0, row1, col1, ends exclusive

Weight = Numbers | Bool[AnyArray, "..."]


def mix(images: Features, partners: Features, lam: Weight) -> Features:
    """lam * images + (1 - lam) * partners, in float32, returned in the type of `images`.

    Args:
      images: [B,...] floating point.
      partners: as `images`.
      lam: weight of `images` in 0..1: a scalar, [B], or a map of the rank of `images` (or one less,
        for a whole batch) that broadcasts against it.
    """
    lam = jnp.asarray(lam, jnp.float32)
    if lam.ndim == 1:
        # One weight an image, for whatever axes it has.
        lam = lam.reshape((-1,) + (1,) * (images.ndim - 1))
    mixed = lam * images.astype(jnp.float32) + (1 - lam) * partners.astype(jnp.float32)
    return mixed.astype(images.dtype)


def mix_with_partners(
    permutation: RandomKey,
    images: Features,
    targets: Targets,
    weight: Weight,
    lam: Numbers,
    label: str,
) -> tuple[Features, Targets | Pending]:
    """Mixes a batch with a permutation of itself.

    Args:
      permutation: key of the permutation.
      images: [B,...] floating point.
      targets: [B,K] rows summing to 1.
      weight: of the images themselves, see `mix`.
      lam: the mean of `weight`, a scalar or [B].
      label: see `mix_targets`; "visible" and "attention" need a weight of each pixel, [H,W,1] or [B,H,W,1].

    Returns:
      (images, targets), in the types given; the targets of label="visible" or "attention" are `Pending`.
    """
    partner = jax.random.permutation(permutation, images.shape[0])
    mixed = mix(images, images[partner], weight)
    if label in PENDING:
        return mixed, masked_targets(targets, targets[partner], weight[..., 0], lam, label)
    return mixed, mix_targets(targets, targets[partner], lam, label)


def repeated(
    cells: Bool[AnyArray, "... n m"] | Float[AnyArray, "... n m"], size: Sequence[int]
) -> AnyArray:
    """Cells [...,n,m] at the pixels [...,H,W] of `size`, each the nearest one's."""
    row, col = (
        jnp.arange(side) * n // side for side, n in zip(size, cells.shape[-2:], strict=True)
    )
    return cells[..., row[:, None], col]


def box_mask(box: Box, height: int, width: int) -> Bool[Array, "... H W"]:
    """bool [...,height,width], True within `box` = (row0, col0, row1, col1), each [...]."""
    row0, col0, row1, col1 = (jnp.asarray(edge)[..., None] for edge in box)
    rows, cols = jnp.arange(height), jnp.arange(width)
    in_rows = (rows >= row0) & (rows < row1)
    in_cols = (cols >= col0) & (cols < col1)
    return in_rows[..., :, None] & in_cols[..., None, :]


def cutout_mask(
    center: Sequence[Integers], length: int, height: int, width: int
) -> Bool[Array, "... H W"]:
    """What cutout keeps.

    Args:
      center: (row, col), integers of any common shape [...].
      length: side of the hole in pixels, an int. An odd length removes length - 1 pixels a side.
      height, width: of the image.

    Returns:
      bool [...,height,width], False within the hole, which the image's edge may clip.
    """
    row, col = map(jnp.asarray, center)
    half = length // 2
    return ~box_mask((row - half, col - half, row + half, col + half), height, width)


def cutout(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "example",
    length: float = 0.5,
) -> tuple[Images, Targets]:
    """One square of zeros at a random place; labels stay.

    DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
    arXiv 1708.04552, section 3, as in its published code: the center is uniform over the pixels, so
    a hole may reach over the edge, and the fill is 0 after normalization, the mean color.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K], returned as they are.
      shard: index of this device along the data axis.
      prob: probability of a hole.
      per: "example" as published, a hole for each image; "batch", the same hole for the whole
        batch.
      length: side of the hole as a fraction of the shorter side, rounded to pixels: 0.5 is 16 of
        32 (CIFAR-10) and 112 of 224; CIFAR-100 was published with 0.25, SVHN with 0.625.

    Returns:
      (images, targets), in the types given.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or a hole of no pixel.
    """
    checks.batch(images, targets, partners=False)
    draws.check(prob, per)
    checks.fraction("length", length)
    height, width = images.shape[1:3]
    pixels = round(length * min(height, width))
    # A hole that rounds to no pixel would switch the mixer off without a word.
    if length > 0 and pixels < 2:
        raise ValueError(
            f"length {length} of images of {height} x {width} pixels cuts no pixel; "
            "a hole needs at least 2 pixels a side (0 is off)"
        )
    _, (where, whether) = draws.streams(key, shard, per, 2)
    shape = draws.shape(per, images)
    keep = cutout_mask(draws.pixel(where, height, width, shape), pixels, height, width)
    keep |= ~draws.coin(whether, prob, shape)[..., None, None]
    # Images are normalized, so 0 is the mean color.
    return jnp.where(keep[..., None], images, 0), targets


def mixup(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 1.0,
) -> tuple[Images, Targets]:
    """A weighted mean of two images and of their labels.

    Zhang et al., mixup: Beyond Empirical Risk Minimization, arXiv 1710.09412, section 2, as in its
    published code: lambda ~ Beta(alpha, alpha), one for the batch, partners by one permutation.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one lambda and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets`.
      alpha: 1 as published for CIFAR, 0.2 for ImageNet; 0 or less is off (lambda is 1), as in the
        published code.

    Returns:
      (images, targets), mixed in float32, in the types given.

    Raises:
      ValueError: an option out of range, or arrays that do not fit.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, LABELS)
    permutation, (amount, whether) = draws.streams(key, shard, per, 2)
    shape = draws.shape(per, images)
    lam = draws.lam(amount, alpha, shape)
    lam = jnp.where(draws.coin(whether, prob, shape), lam, 1)
    return mix_with_partners(permutation, images, targets, lam, lam, label)
