"""Outlines and runs of pixels, as COCO stores a mask, to pixels."""

from collections.abc import Sequence

import numpy as np

from mixaug_jax.core.types import Bool


def fill_polygon(corners: Sequence[float], height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels whose centers lie within a polygon, by the even-odd rule.

    Args:
      corners: x0, y0, x1, y1, ... in pixels, of three corners or more.
      height, width: of the picture.

    Raises:
      ValueError: another form.
    """
    points = np.asarray(corners, np.float64)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise ValueError(f"a polygon must be x0, y0, x1, y1, x2, y2, ...; got {str(corners)[:60]}")
    points = points.reshape(-1, 2)
    # An edge flips all pixels to its right in the rows whose centers it crosses.
    flips = np.zeros((height, width + 1), np.int64)
    centers = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        rows = np.flatnonzero((centers >= min(y0, y1)) & (centers < max(y0, y1)))
        crossing = x0 + (centers[rows] - y0) * (x1 - x0) / (y1 - y0) if len(rows) else rows
        columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
        np.add.at(flips, (rows, columns), 1)
    return flips.cumsum(1)[:, :width] % 2 == 1


def fill_runs(counts: Sequence[int] | str, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels of COCO's run lengths: of zeros, of ones, and so on, down the columns.

    Args:
      counts: the lengths, or COCO's text for them (`rleFrString` of cocoapi's maskApi.c).
      height, width: of the picture.

    Raises:
      ValueError: a text that is cut short, or lengths that do not add up to the picture.
    """
    lengths = _from_text(counts) if isinstance(counts, str) else np.asarray(counts)
    whole = lengths.ndim == 1 and (lengths.dtype.kind in "iu" or not lengths.size)
    if not whole or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(
            f"run lengths must be whole numbers that add up to {height} x {width} pixels"
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def _from_text(text):
    """Five bits a character, the lowest first, with a sign; from the third one on differences to the one before the last."""
    lengths, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 55:
            raise ValueError(
                f"run lengths hold the character {character!r}, which is none of theirs"
            )
        value |= (bits & 31) << shift
        shift += 5
        # More bits of the same number follow.
        if bits & 32:
            continue
        # The last five bits begin with the sign.
        value -= (bits & 16) and 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths are cut short")
    return np.array(lengths, np.int64)
