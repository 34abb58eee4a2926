"""Mixers by a map of random, smooth shape: fmix, smoothmix."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Bool,
    Count,
    Float,
    Images,
    Int,
    RandomKey,
    Scalar,
    Targets,
)
from mixaug_jax.mixing import draws
from mixaug_jax.mixing.labels import MASK_LABELS, Pending
from mixaug_jax.mixing.pixels import mix_with_partners

FMIX_VARIANTS = ("isotropic", "released")


def fmix_frequencies(height: int, width: int) -> Float[np.ndarray, "H columns"]:
    """Distance from zero frequency, cycles a pixel, float64 [height,width // 2 + 1 (odd: + 2)].

    The grid of FMix's published code, one column wider than the real transform where width is odd.
    """
    columns = width // 2 + 1 + width % 2
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[:columns])


def fmix_gray(
    noise: Float[AnyArray, "H columns 2"],
    height: int,
    width: int,
    *,
    decay: float = 3.0,
    variant: str = "isotropic",
) -> Float[Array, "H W"]:
    """Smooth random image whose amplitudes fall with frequency.

    Args:
      noise: [height,columns,2] standard normal, real and imaginary parts, with the columns of
        `fmix_frequencies`.
      height, width: of the image.
      decay: amplitudes are 1 / max(frequency, 1 / longer side)^decay.
      variant: see `fmix`.

    Returns:
      float32 [height,width], its smallest value 0 and its largest 1.
    """
    frequencies = np.maximum(fmix_frequencies(height, width), 1 / max(height, width))
    # Scaled to at most 1: only the proportions matter.
    scale = (frequencies.min() / frequencies) ** decay
    noise = noise.astype(jnp.float32) * scale[..., None].astype(np.float32)
    columns = width // 2 + 1
    if variant == "isotropic":
        spectrum = jax.lax.complex(noise[..., 0], noise[..., 1])[:, :columns]
        # An inverse real transform drops half the power of the columns that are their own mirror.
        own_mirror = np.arange(columns) % max(width / 2, 1) == 0
        spectrum *= np.where(own_mirror, np.sqrt(2), 1).astype(np.float32)
    else:
        # The published code takes the first two rows for the real and the imaginary part; the pair
        # axis, now last, is then read as horizontal frequencies 0 and 1.
        second = noise[min(1, height - 1)]
        spectrum = jax.lax.complex(noise[0], second)[:height, :columns]
        missing = (height - spectrum.shape[0], columns - spectrum.shape[1])
        spectrum = jnp.pad(spectrum, ((0, missing[0]), (0, missing[1])))
    gray = jnp.fft.irfft2(spectrum, (height, width))
    gray -= jnp.min(gray)
    largest = jnp.max(gray)
    return gray / jnp.where(largest > 0, largest, 1)


def binarize(
    gray: Float[AnyArray, "H W"],
    lam: Scalar,
    round_up: bool | Bool[AnyArray, ""],
    *,
    max_soft: float = 0.0,
) -> Float[Array, "H W"]:
    """Mask of the lam * size brightest pixels.

    Args:
      gray: float32 [H,W] in 0..1.
      lam: float32 scalar in 0..1.
      round_up: bool scalar, whether a fraction of a pixel counts as one.
      max_soft: 0 for a mask of 0 and 1; up to 0.5 for an edge that falls linearly with the pixels'
        rank, over this share of the image (at most lam and 1 - lam) on both sides.

    Returns:
      float32 [H,W]. The number of ones is exact also where pixels are equal; among equal ones the
      first in reading order are taken.
    """
    size = gray.size
    count = jnp.where(round_up, jnp.ceil(lam * size), jnp.floor(lam * size))
    count = jnp.clip(count, 0, size).astype(jnp.int32)
    if max_soft == 0:
        return _brightest(gray.ravel(), count).reshape(gray.shape).astype(jnp.float32)
    soft = (size * jnp.minimum(max_soft, jnp.minimum(lam, 1 - lam))).astype(jnp.int32)
    # Places in the order of brightness, from count - soft (1) to count + soft - 1 (0).
    place = jnp.arange(size) - (count - soft)
    weight = 1 - place / jnp.maximum(2 * soft - 1, 1)
    weight = jnp.where(place < 0, 1, jnp.where(place < 2 * soft, weight, 0))
    order = jnp.argsort(-gray.ravel())
    mask = jnp.zeros(size, jnp.float32).at[order].set(weight, unique_indices=True)
    return mask.reshape(gray.shape)


def _brightest(values, count):
    """bool [N], True for the `count` largest of float32 `values` >= 0, the first ones among equals.

    Bits of non-negative floats order like the floats, so the threshold is found by halving an
    interval of integers: 20 times faster than sorting a 224 x 224 image on a CPU.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    index = jnp.arange(values.size)
    above_one = int(np.float32(1).view(np.int32)) + 1
    threshold = _last(lambda t: jnp.sum(bits >= t) >= count, above_one)
    above, equal = bits > threshold, bits == threshold
    missing = count - jnp.sum(above)
    end = _last(lambda i: jnp.sum(equal & (index < i)) <= missing, values.size)
    return above | (equal & (index < end))


def _last(holds, high):
    """The largest int32 in 0..high for which `holds`: true at 0, and once false then for good."""

    def halve(_: Count, interval: tuple[Count, Count]) -> tuple[Count, Count]:
        low, high = interval
        middle = low + (high - low + 1) // 2
        good = holds(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle - 1)

    interval = (jnp.int32(0), jnp.int32(high))
    return jax.lax.fori_loop(0, high.bit_length(), halve, interval)[0]


def fmix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 1.0,
    decay: float = 3.0,
    max_soft: float = 0.0,
    variant: str = "isotropic",
) -> tuple[Images, Targets | Pending]:
    """Two images mixed by a binary mask of random, smooth shape.

    Harris et al., FMix: Enhancing Mixed Sample Data Augmentation, arXiv 2002.12047, section 4: the
    lambda * H * W brightest pixels of low-frequency noise (rounded up or down by a coin), lambda ~
    Beta(alpha, alpha), keep the image, the others take the partner's. The label's weight is the
    mean of the mask, which equals lambda to a pixel.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one mask and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      alpha: 1 as published.
      decay: exponent of the amplitudes' fall with frequency, 3 as published.
      max_soft: 0 as published for a hard edge; up to 0.5, see `binarize`.
      variant: "isotropic", noise that falls alike in all directions, as the paper says; or
        "released", the published code, which mixes up axes of its spectrum: the image is made of
        horizontal frequencies 0 and 1 only, so the masks are near to horizontal bands.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, or arrays that do not fit.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.choice("variant", variant, FMIX_VARIANTS)
    checks.positive("alpha", alpha)
    if not 0 <= max_soft <= 0.5:
        raise ValueError(f"max_soft must be between 0 and 0.5; got {max_soft}")
    height, width = images.shape[1:3]
    permutation, (amount, whether, rounding, spectrum) = draws.streams(key, shard, per, 4)
    shape = draws.shape(per, images)
    # A mask of ones where the coin says no: lambda 1 keeps every pixel.
    lam = jnp.where(draws.coin(whether, prob, shape), draws.lam(amount, alpha, shape), 1)
    round_up = draws.coin(rounding, 0.5, shape)
    # Outside of `mask`, which can be compared with published code on given noise.
    noise = jax.random.normal(spectrum, (*shape, *fmix_frequencies(height, width).shape, 2))

    def mask(
        noise: Float[Array, "H columns 2"], lam: Scalar, round_up: Bool[Array, ""]
    ) -> Float[Array, "H W"]:
        gray = fmix_gray(noise, height, width, decay=decay, variant=variant)
        return binarize(gray, lam, round_up, max_soft=max_soft)

    mask = (mask if per == "batch" else jax.vmap(mask))(noise, lam, round_up)
    # Rounding to pixels and soft edges move the share away from the lambda that was drawn.
    lam = jnp.mean(mask, (-2, -1))
    return mix_with_partners(permutation, images, targets, mask[..., None], lam, label)


def smoothmix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    sigma: Sequence[float] = (0.25, 0.5),
) -> tuple[Images, Targets | Pending]:
    """An image seen through a Gaussian spot in another; labels mixed by the mean of the spot.

    Lee et al., SmoothMix: a Simple Yet Effective Data Augmentation to Train Robust Classifiers,
    doi 10.1109/CVPRW50498.2020.00386, section 3, circular mask: G * image + (1 - G) * partner, lambda the mean of
    G. OpenMixup (arXiv 2209.04851) shows the partner in the spot but gives the spot's weight to the
    image's own label; here both belong to the image, as in the paper's equations.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one spot and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      sigma: (smallest, largest) standard deviation of the spot as fractions of the shorter side.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, or arrays that do not fit.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.interval("sigma", sigma, 0, np.inf)
    checks.positive("sigma[0]", sigma[0])
    height, width = images.shape[1:3]
    permutation, (size, whether, where) = draws.streams(key, shard, per, 3)
    shape = draws.shape(per, images)
    spread = jax.random.uniform(size, shape, minval=sigma[0], maxval=sigma[1]) * min(height, width)
    row, col = draws.pixel(where, height, width, shape)
    mixed = draws.coin(whether, prob, shape)

    # The spot is a product of a column and a row, and so is its mean: no map is summed up.
    def bell(side: int, center: Int[Array, "..."]) -> Float[Array, "... side"]:
        bell = jnp.exp(-0.5 * ((jnp.arange(side) - center[..., None]) / spread[..., None]) ** 2)
        # Flat where the coin says no: the partner has no weight.
        return jnp.where(mixed[..., None], bell, 1)

    rows, cols = bell(height, row), bell(width, col)
    mask = rows[..., :, None] * cols[..., None, :]
    lam = jnp.mean(rows, -1) * jnp.mean(cols, -1)
    return mix_with_partners(permutation, images, targets, mask[..., None], lam, label)
