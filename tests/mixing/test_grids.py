"""gridmask and gridmix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.mixing import grids
from mixaug_jax.mixing.grids import grid_holes, grid_mask, gridmask, gridmix


def published_grid(period, offset, ratio, height, width):
    """The loop of the published code for an upright grid, mode 1, given the offset in the image."""
    stripes = np.zeros((height, width), bool)
    band = int(period * ratio + 0.5)
    for i in range(-2, max(height, width) // period + 2):
        row, col = (period * i + first for first in offset)
        stripes[max(row, 0) : max(row + band, 0)] = True
        stripes[:, max(col, 0) : max(col + band, 0)] = True
    return stripes


@pytest.mark.parametrize("size", [(32, 32), (17, 30)])
def test_upright_grid_is_the_published_one(size):
    draw = jax.jit(lambda p, o: grid_mask(p, o, 0.0, *size))
    for period, offset in ((14, (0, 5)), (15, (14, 3)), (31, (30, 0))):
        expected = published_grid(period, offset, 0.6, *size)
        np.testing.assert_array_equal(draw(period, offset), expected)


def test_turned_grid():
    """Quarter turns of a square image permute pixels; any angle removes about the same share."""
    draw = jax.jit(lambda o, a: grid_mask(12, o, a, 96, 96))
    upright = draw((0, 0), 0.0)
    half_turn = draw((0, 0), np.pi)
    # A half turn reflects about the center: the same squares counted from the other corner.
    np.testing.assert_array_equal(half_turn, np.asarray(upright)[::-1, ::-1])
    for angle in np.linspace(0, 6, 7):
        removed = 1 - np.mean(draw((3, 5), angle))
        # A square of 12 - 7 pixels in a period of 12.
        assert abs(removed - 25 / 144) < 0.02


@pytest.mark.parametrize("per", ["example", "batch"])
def test_gridmask(per):
    images, targets = jnp.ones((5, 32, 32, 3)), jnp.eye(5)
    mixer = jax.jit(lambda key: gridmask(key, images, targets, per=per, prob=1))
    masks = np.asarray(mixer(jax.random.key(0))[0][..., 0])
    assert set(np.unique(masks)) == {0, 1}
    np.testing.assert_array_equal(mixer(jax.random.key(0))[1], targets)
    assert (len({m.tobytes() for m in masks}) == 1) == (per == "batch")
    # Periods of 14 to 31 pixels, squares of 0.4 of them: 16 % on average.
    removed = [1 - np.mean(mixer(jax.random.key(i))[0]) for i in range(20)]
    assert 0.12 < np.mean(removed) < 0.2


def test_grid_holes():
    holes = np.asarray(grid_holes((1, 2, 9, 10), 2, jnp.float32(0.75), 11, 12))
    # Two cells of 4 pixels, each with a hole of sqrt(0.25) * 4 = 2.
    expected = np.zeros((11, 12), bool)
    for row in (1, 5):
        for col in (2, 6):
            expected[row : row + 2, col : col + 2] = True
    np.testing.assert_array_equal(holes, expected)
    for lam, side in ((1.0, 1), (0.0, 3)):
        holes = grid_holes((0, 0, 8, 8), 2, jnp.float32(lam), 8, 8)
        assert np.sum(holes) == 4 * side * side


@pytest.mark.parametrize("per", ["batch", "example"])
def test_gridmix_labels_follow_the_pixels(per):
    images = jnp.broadcast_to(jnp.arange(6.0)[:, None, None, None], (6, 32, 40, 1))
    mixer = jax.jit(lambda key: gridmix(key, images, jnp.eye(6), per=per))
    for seed in range(4):
        out, mixed = (np.asarray(x) for x in mixer(jax.random.key(seed)))
        assert np.isclose(out, np.round(out)).all()
        np.testing.assert_allclose(out.mean((1, 2, 3)), mixed @ np.arange(6), atol=1e-5)
        moved = np.diag(mixed) < 1
        masks = np.isclose(out[..., 0], np.arange(6)[:, None, None])[moved]
        assert (len({m.tobytes() for m in masks}) == 1) == (per == "batch")


def test_the_number_of_cells(monkeypatch):
    """Drawn from fewest to most, both included; in a narrow grid no more than have two pixels each."""
    seen = []

    def none(region, count, lam, height, width):
        seen.append((int(count), int(region[3] - region[1])))
        return jnp.zeros((height, width), bool)

    monkeypatch.setattr(grids, "grid_holes", none)
    images, targets = np.zeros((2, 12, 12, 3), np.float32), np.eye(2, dtype=np.float32)
    for seed in range(60):
        gridmix(jax.random.key(seed), images, targets, cells=(2, 5), area=(0.3, 1.0))
    assert {count for count, _ in seen} == {2, 3, 4, 5}
    assert all(count <= wide // 2 for count, wide in seen)
    assert any(count == wide // 2 < 5 for count, wide in seen)
