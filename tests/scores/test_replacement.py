"""What takes the place of removed pixels, and which pixels go first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from scipy.ndimage import gaussian_filter
from score_cases import near

from mixaug_jax.scores.imputation import impute
from mixaug_jax.scores.maps import ranks
from mixaug_jax.scores.replacement import fill
from mixaug_jax.scores.tiles import tile_means


@pytest.mark.parametrize("side", [32, 224])
def test_equal_tiles_are_tied(side):
    """Also where the border cuts them, and whatever number they hold."""
    for value, window in ((0.1, 14), (0.3, 8), (0.7, 9)):
        means = np.asarray(tile_means(jnp.full((side, side + 3), value), window))
        assert np.unique(means).tolist() == [np.float32(value)]
    heat = np.random.default_rng(0).normal(size=(11, 14)).astype(np.float32)
    tiles = [[heat[i : i + 4, j : j + 4].mean() for j in range(0, 14, 4)] for i in range(0, 11, 4)]
    np.testing.assert_allclose(tile_means(heat, 4), tiles, atol=1e-6)


def test_ranks():
    values = np.asarray([[0.5, np.float32(-1), 3], [0.25, -7, 2]], np.float32)
    assert np.asarray(ranks(values)).tolist() == [[2, 4, 0], [3, 5, 1]]
    tied = np.asarray(ranks(np.zeros((40, 40), np.float32)))
    assert sorted(tied.ravel()) == list(range(1600))
    # No corner of a constant map goes first.
    quarters = [tied[:20, :20], tied[:20, 20:], tied[20:, :20], tied[20:, 20:]]
    assert all(abs(np.mean(q < 800) - 0.5) < 0.1 for q in quarters)


def test_replacements():
    image = np.random.default_rng(0).normal(size=(9, 12, 3)).astype(np.float32)
    near(fill(image, "mean"), np.broadcast_to(image.mean((0, 1)), image.shape), 1e-6)
    near(fill(image, "image_mean"), np.full_like(image, image.mean()), 1e-6)
    near(fill(image, "zero"), np.zeros_like(image), 0)
    near(fill(image, 0.5 * image), 0.5 * image, 0)
    noise = np.asarray(fill(image, "noise", 1))
    low, high = image.min((0, 1)), image.max((0, 1))
    assert ((noise >= low) & (noise <= high)).all()
    assert np.abs(noise.mean((0, 1)) - (low + high) / 2).max() < 0.3 * (high - low).max()
    assert np.abs(noise - fill(image, "noise", 2)).max() > 0.5
    kernel = gaussian_filter(np.pad([[1.0]], 5), 5)
    padded = np.pad(image, ((5, 5), (5, 5), (0, 0)))
    slow = [
        [(kernel[..., None] * padded[r : r + 11, c : c + 11]).sum((0, 1)) for c in range(12)]
        for r in range(9)
    ]
    near(fill(image, "blur"), np.asarray(slow, np.float32), 1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, 1.0])
def test_imputation_solves_the_equations(share):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(10, 13, 2)).astype(np.float32)
    gone = rng.random((10, 13)) < share
    ours = np.asarray(jax.jit(impute)(image, gone))
    near(ours[~gone], image[~gone], 0)
    if share == 1:
        near(ours, np.broadcast_to(image.mean((0, 1)), image.shape), 1e-5)
        return
    places = list(zip(*np.nonzero(gone), strict=True))
    number = {place: k for k, place in enumerate(places)}
    matrix, right = sparse.lil_matrix((len(places), len(places))), np.zeros((len(places), 2))
    for k, (r, c) in enumerate(places):
        near_by = [
            (r + i, c + j, 12 if i and j else 6) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j
        ]
        near_by = [(i, j, w) for i, j, w in near_by if 0 <= i < 10 and 0 <= j < 13]
        total = sum(1 / w for *_, w in near_by)
        matrix[k, k] = 1
        for i, j, w in near_by:
            if gone[i, j]:
                matrix[k, number[i, j]] -= 1 / w / total
            else:
                right[k] += image[i, j] / w / total
    if places:
        near(ours[gone], np.linalg.solve(matrix.toarray(), right), 2e-5)
