"""Run lengths and polygons of COCO as masks."""

import itertools

import numpy as np
import pytest

from mixaug_jax.data.convert import outlines

# Of pycocotools 2.0: the text, and the pixels that it stands for.
TEXT = ";4500ML142?M"


PIXELS = np.zeros((9, 7), bool)
PIXELS[2:6, 1:5], PIXELS[3, 3], PIXELS[8, 6] = True, False, True


def runs(mask):
    """COCO's run lengths of a mask: of zeros first, down the columns."""
    flat = np.asarray(mask, bool).T.ravel()
    lengths = [len(list(group)) for _, group in itertools.groupby(flat)]
    return [0, *lengths] if flat[0] else lengths


def text_of(counts):
    """As `rleToString` of cocoapi's maskApi.c writes them."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 * more) + 48)
    return text


def test_run_lengths():
    assert text_of(runs(PIXELS)) == TEXT
    np.testing.assert_array_equal(outlines.fill_runs(TEXT, 9, 7), PIXELS)
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = map(int, rng.integers(1, 90, 2))
        mask = rng.random((height, width)) < rng.choice([0.0, 0.01, 0.5, 1.0])
        np.testing.assert_array_equal(outlines.fill_runs(runs(mask), height, width), mask)
        np.testing.assert_array_equal(outlines.fill_runs(text_of(runs(mask)), height, width), mask)


@pytest.mark.parametrize(
    "counts", [[3], [64], [-1, 64], [60.5, 2.5], TEXT[:-1], TEXT + "o", "\x01", "o" * 40]
)
@pytest.mark.usefixtures("unchecked")
def test_run_lengths_that_are_none(counts):
    with pytest.raises(ValueError, match="run lengths"):
        outlines.fill_runs(counts, 9, 7)


def test_polygons():
    rng = np.random.default_rng(0)
    for _ in range(30):  # half planes say the same of a triangle
        points = rng.uniform(-3, 20, (3, 2))
        row, col = np.mgrid[:15, :17] + 0.5
        sides = [
            (b[0] - a[0]) * (row - a[1]) - (b[1] - a[1]) * (col - a[0]) > 0
            for a, b in zip(points, np.roll(points, -1, 0), strict=True)
        ]
        inside = np.all(sides, 0) | ~np.any(sides, 0)
        np.testing.assert_array_equal(
            outlines.fill_polygon(points.ravel().tolist(), 15, 17), inside
        )
    box = outlines.fill_polygon([2, 1, 5, 1, 5, 4, 2, 4], 6, 7)
    assert (box.sum(), box[1:4, 2:5].all()) == (9, True)


BAD_POLYGONS = [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, float("nan"), 6]]


@pytest.mark.parametrize("corners", BAD_POLYGONS)
def test_polygons_that_are_none(corners):
    with pytest.raises(ValueError, match="a polygon must be"):
        outlines.fill_polygon(corners, 9, 7)
