"""PuzzleMix's transport against the published rounds on matrices."""

import jax
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing.transport import moved, transported


def auction(shares, wanted, n, cost=0.8):
    """The published rounds of one image, all n of them, on matrices."""
    row, col = np.divmod(np.arange(n * n), n)
    apart = (row[:, None] - row) ** 2 + (col[:, None] - col) ** 2
    costs = (cost * apart / (n - 1) ** 2 - shares[:, None] * (wanted > 0)).astype(np.float32)
    for _ in range(n):
        plan = np.zeros_like(costs)
        plan[np.arange(n * n), costs.argmin(1)] = 1
        won = np.zeros_like(costs)
        won[(plan * costs).argmin(0), np.arange(n * n)] = 1
        won = won * plan
        costs += (1 - won) * plan
    return np.where(won.any(0), won.argmax(0), -1)


@pytest.mark.parametrize("n", [3, 5])
def test_transport_is_the_published_auction(n):
    """Few places, many salient blocks: bidders lose, again and again. Padded, it is the same."""
    rng = np.random.default_rng(n)
    shares = rng.exponential(1, (12, n * n)).astype(np.float32) ** 2
    wanted = (rng.uniform(size=(12, n * n)) < 0.3).astype(np.float32)
    expected = np.stack([auction(s, w, n) for s, w in zip(shares, wanted, strict=True)])
    found = np.asarray(jax.jit(transported)(shares, wanted, n))
    where = wanted > 0
    np.testing.assert_array_equal(found[where], expected[where])
    assert (found != np.arange(n * n))[where].any()
    wide = [
        np.pad(x.reshape(12, n, n), ((0, 0), (0, 2), (0, 2))).reshape(12, -1)
        for x in (shares, wanted)
    ]
    padded = np.asarray(jax.jit(transported)(*wide, n)).reshape(12, n + 2, n + 2)[:, :n, :n]
    row, col = np.divmod(padded.reshape(12, -1), n + 2)
    again = np.where(padded.reshape(12, -1) < 0, -1, row * n + col)
    np.testing.assert_array_equal(again[where], expected[where])


def test_blocks_are_moved_whole():
    images = tiny.images(2, side=12)
    source = np.array([[3, 1, -1, 0], [2, 2, 1, -1]])
    out = np.asarray(moved(images, source, 2))
    cells = np.asarray(images).reshape(2, 2, 6, 2, 6, 3).swapaxes(2, 3)
    got = out.reshape(2, 2, 6, 2, 6, 3).swapaxes(2, 3)
    for i, chosen in enumerate(source):
        for place, block in enumerate(chosen):
            wanted = cells[i, block // 2, block % 2] if block >= 0 else 0
            np.testing.assert_array_equal(
                got[i, place // 2, place % 2], np.broadcast_to(wanted, (6, 6, 3))
            )
