"""Mixers by a regular grid: gridmask, gridmix."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import Array, Bool, Count, Float, Images, Int, RandomKey, Scalar, Targets
from mixaug_jax.mixing import draws
from mixaug_jax.mixing.labels import MASK_LABELS, Pending
from mixaug_jax.mixing.pixels import mix_with_partners


def grid_mask(
    period: Count,
    offset: Sequence[Count],
    angle: Scalar,
    height: int,
    width: int,
    *,
    ratio: float = 0.6,
) -> Bool[Array, "H W"]:
    """What GridMask keeps: all but a grid of squares.

    Args:
      period: distance of the squares in pixels, int.
      offset: (row, col) of the grid, int.
      angle: of the grid about the image's center, radians.
      height, width: of the image.
      ratio: of the band between two squares to the period; a square's side is the rest.

    Returns:
      bool [height,width].
    """
    rows = jnp.arange(height)[:, None] + 0.5 - height / 2
    cols = jnp.arange(width)[None, :] + 0.5 - width / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    period = jnp.asarray(period, jnp.float32)
    band = jnp.floor(period * ratio + 0.5)

    def in_square(along: Float[Array, "h w"], first: Count) -> Bool[Array, "h w"]:
        # Whole numbers in float32: integer remainders are slow on a CPU.
        steps = jnp.floor(along) - first
        return steps - period * jnp.floor(steps / period) >= band

    in_rows = in_square(cos * rows + sin * cols + height / 2, offset[0])
    in_cols = in_square(cos * cols - sin * rows + width / 2, offset[1])
    return ~(in_rows & in_cols)


def gridmask(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 0.8,
    per: str = "example",
    ratio: float = 0.6,
    period: Sequence[float] = (96 / 224, 1.0),
    rotate: int = 360,
) -> tuple[Images, Targets]:
    """A turned grid of squares of zeros; labels stay.

    Chen et al., GridMask Data Augmentation, arXiv 2001.04086, section 3, with the ImageNet settings
    of its published code (mode 1): zeros in squares of side (1 - ratio) * period, at a random
    place. The grid is unbounded here; the published code turns a canvas of 1.5 times the image and
    so leaves far corners whole at some angles.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized, so that 0 is the mean color.
      targets: [B,K], returned as they are.
      shard: index of this device along the data axis.
      prob: probability of a grid. The published training raises it linearly from 0 to 0.8 over its
        first 240 epochs.
      per: "example" as published, a grid for each image; "batch", the same grid for the whole
        batch.
      ratio: of the band between the squares to the period.
      period: (smallest, largest) as fractions of the shorter side; whole pixels are drawn from the
        smallest to one below the largest. Published as 96 to 224 of 224 pixels.
      rotate: angles are whole degrees from 0 to below this; 1 is off.

    Returns:
      (images, targets), in the types given.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or squares of no pixel.
    """
    checks.batch(images, targets, partners=False)
    draws.check(prob, per)
    checks.fraction("ratio", ratio)
    checks.interval("period", period, 0, 1)
    if not 1 <= rotate <= 360:
        raise ValueError(f"rotate must be between 1 and 360 degrees; got {rotate}")
    height, width = images.shape[1:3]
    # Squares that round to no pixel would switch the mixer off without a word.
    smallest, largest = (round(fraction * min(height, width)) for fraction in period)
    if ratio < 1 and smallest - int(smallest * ratio + 0.5) < 1:
        raise ValueError(
            f"period {period} cuts no pixel of images of {height} x {width} at its smallest: "
            f"raise it, or lower ratio {ratio}"
        )
    _, (size, row, col, turn, whether) = draws.streams(key, shard, per, 5)
    shape = draws.shape(per, images)
    # The grid repeats: offsets below its period are all there are.
    pixels = jax.random.randint(size, shape, smallest, max(largest, smallest + 1))
    offset = (jax.random.randint(row, shape, 0, pixels), jax.random.randint(col, shape, 0, pixels))
    angle = jnp.deg2rad(jax.random.randint(turn, shape, 0, rotate).astype(jnp.float32))

    def mask(pixels: Count, offset: Sequence[Count], angle: Scalar) -> Bool[Array, "H W"]:
        return grid_mask(pixels, offset, angle, height, width, ratio=ratio)

    keep = (mask if per == "batch" else jax.vmap(mask))(pixels, offset, angle)
    # Everything is kept where the coin says no.
    keep |= ~draws.coin(whether, prob, shape)[..., None, None]
    return jnp.where(keep[..., None], images, 0), targets


def grid_holes(
    region: Sequence[Count], cells: Count, lam: Scalar, height: int, width: int
) -> Bool[Array, "H W"]:
    """Square holes, one in the first corner of every cell of a grid.

    Args:
      region: (row0, col0, row1, col1), integers, the part of the image that the grid covers.
      cells: number of cells along the region's width, int; a cell is square.
      lam: float32, a hole covers 1 - lam of its cell, at least 1 pixel and not all.
      height, width: of the image.

    Returns:
      bool [height,width], True in a hole.
    """
    row0, col0, row1, col1 = region
    cell = -(-(col1 - col0) // cells)
    # Never nothing and never all of a cell, so lambda has to be counted from the holes afterwards.
    hole = jnp.clip(jnp.floor(cell * jnp.sqrt(1 - lam)), 1, cell - 1)

    def in_hole(along: Int[Array, " n"], first: Count, end: Count) -> Bool[Array, " n"]:
        steps = (along - first).astype(jnp.float32)
        within = steps - cell * jnp.floor(steps / cell) < hole
        return within & (along >= first) & (along < end)

    in_rows = in_hole(jnp.arange(height), row0, row1)
    in_cols = in_hole(jnp.arange(width), col0, col1)
    return in_rows[:, None] & in_cols[None, :]


def gridmix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 0.2,
    cells: Sequence[int] = (2, 6),
    area: Sequence[float] = (0.5, 1.0),
    aspect: Sequence[float] = (0.5, 2.0),
) -> tuple[Images, Targets | Pending]:
    """Holes of a grid filled from another image; labels mixed by area.

    The mask is that of OpenMixup (arXiv 2209.04851) with its settings, after the GridMixup code of
    Dobrynin. GridMix proper (Baek et al., GridMix: Strong regularization through local context
    mapping, Pattern Recognition 109, 2021) also predicts labels of patches, which needs a second
    head and is not part of a mixer.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one grid and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      alpha: a hole covers 1 - lambda of its cell, lambda ~ Beta(alpha, alpha).
      cells: (fewest, most) cells along the width of the grid, drawn uniformly, then limited so that
        a cell has at least 2 pixels.
      area: (smallest, largest) share of the image under the grid.
      aspect: (smallest, largest) height over width of the grid, which the image's sides limit.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or images too small for the cells.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.positive("alpha", alpha)
    checks.interval("cells", cells, 1, np.inf)
    for number in cells:
        checks.count("each of cells", number)
    checks.interval("area", area, 0, 1)
    checks.interval("aspect", aspect, 0, np.inf)
    checks.positive("aspect[0]", aspect[0])
    height, width = images.shape[1:3]
    # The narrowest grid that may be drawn must hold the fewest cells, of two pixels each.
    narrowest = min(width, int(np.sqrt(area[0] * height * width / aspect[1])))
    if narrowest < 2 * cells[0]:
        raise ValueError(
            f"images of {height} x {width} pixels are too small for cells {cells}: with area "
            f"{area} and aspect {aspect} a grid may be {narrowest} wide, and each cell needs 2"
        )
    permutation, keys = draws.streams(key, shard, per, 7)
    amount, whether, number, *places = keys
    shape = draws.shape(per, images)
    lam = draws.lam(amount, alpha, shape)
    region = _grid_region(places, shape, (height, width), area, aspect)
    # A cell needs a pixel for its hole and one to keep.
    count = jax.random.randint(number, shape, cells[0], cells[1] + 1)
    count = jnp.clip(count, cells[0], (region[3] - region[1]) // 2)

    def holes(region: Sequence[Count], count: Count, lam: Scalar) -> Bool[Array, "H W"]:
        return grid_holes(region, count, lam, height, width)

    holes = (holes if per == "batch" else jax.vmap(holes))(region, count, lam)
    mask = ~(holes & draws.coin(whether, prob, shape)[..., None, None])
    # The grid's edges cut cells: the share that is kept is counted.
    lam = jnp.sum(mask, (-2, -1), dtype=jnp.float32) / (height * width)
    return mix_with_partners(permutation, images, targets, mask[..., None], lam, label)


def _grid_region(keys, shape, sides, area, aspect):
    """(row0, col0, row1, col1), int32 of `shape`: a random part, of random form, of an image of `sides` (height, width)."""
    size, form, row, col = keys
    height, width = sides
    pixels = jax.random.uniform(size, shape, minval=area[0], maxval=area[1]) * height * width
    slope = jax.random.uniform(form, shape, minval=aspect[0], maxval=aspect[1])
    # A long form of a large area may not fit: sides end at the image's.
    tall = jnp.clip(jnp.floor(jnp.sqrt(pixels * slope)), 1, height)
    wide = jnp.clip(jnp.floor(jnp.sqrt(pixels / slope)), 1, width)
    row0 = jnp.floor(jax.random.uniform(row, shape) * (height - tall + 1))
    col0 = jnp.floor(jax.random.uniform(col, shape) * (width - wide + 1))
    return [edge.astype(jnp.int32) for edge in (row0, col0, row0 + tall, col0 + wide)]
