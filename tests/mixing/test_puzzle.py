"""PuzzleMix: its energy, its transport, and the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing import MIXERS, maps
from mixaug_jax.mixing.puzzle import Cut, Moves, puzzle_energy, puzzle_mix


@pytest.fixture(scope="module")
def arrays(golden):
    return golden("mixers_net/mixers.npz")


@pytest.mark.parametrize("n", [2, 16])
def test_the_energy_is_the_published_one(arrays, n):
    energy = jax.jit(functools.partial(puzzle_energy, blocks=n))
    found = energy(
        arrays["image_u8"] / np.float32(255),
        arrays["saliency"],
        arrays["partner"],
        arrays[f"puzzle_{n}_lam"],
    )
    np.testing.assert_allclose(found.unary, arrays[f"puzzle_{n}_unary"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.rows, arrays[f"puzzle_{n}_wrow"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.cols, arrays[f"puzzle_{n}_wcol"], rtol=0, atol=1e-7)
    assert (np.asarray(found.rows) > 0).all()


def test_mixed_images_are_the_published_ones(arrays):
    """One compiled function serves every number of blocks, and of blocks that move."""
    x = (arrays["image_u8"] / np.float32(255) - arrays["mean"]) / arrays["std"]
    calls = []

    @jax.jit
    def apply(labels, blocks, places):
        calls.append(1)
        cut, moves = Cut(labels, blocks), Moves(places, width=16)
        return puzzle_mix(x, arrays["saliency"], arrays["partner"], cut, moves)

    for n, size in ((2, 16), (4, 8), (8, 4), (8, 4), (16, 2)):
        labels = np.pad(arrays[f"puzzle_{n}_labels_released"], ((0, 0), *[(0, 16 - n)] * 2))
        images, ratio = apply(labels.astype(np.int32), np.int32(n), np.int32(32 // size))
        np.testing.assert_allclose(images, arrays[f"puzzle_{n}_tblock_image"], rtol=0, atol=2e-6)
        np.testing.assert_allclose(ratio, arrays[f"puzzle_{n}_ratio_released"], rtol=0, atol=1e-6)
    labels = np.pad(arrays["puzzle_4_labels_released"], ((0, 0), *[(0, 12)] * 2))
    images, _ = apply(labels.astype(np.int32), np.int32(4), np.int32(8))
    np.testing.assert_allclose(images, arrays["puzzle_4_t4_image"], rtol=0, atol=2e-6)
    assert len(calls) == 1


NET = tiny.net(6)


def mixed(key, x, targets, shard=0, **given):
    given = {"net": NET, "blocks": (2, 4), "iterations": 30} | given
    return MIXERS["puzzlemix"](key, x, targets, shard=shard, **given)


@pytest.fixture
def even(monkeypatch):
    """Nothing stands out, and no network is looked at."""
    monkeypatch.setattr(maps, "gradient", lambda net, x, targets: jnp.ones(x.shape[:3]))


@pytest.mark.usefixtures("even")
def test_labels_follow_the_pixels_without_transport():
    targets = jnp.eye(6)
    flat = jnp.broadcast_to(jnp.arange(6.0)[:, None, None, None], (6, 16, 16, 3))
    run = jax.jit(functools.partial(mixed, transport=False, per="example", levels=3))
    out, labels = run(jax.random.key(2), flat, targets)
    # Pixels of constants are weighted means of two numbers, as labels are.
    np.testing.assert_allclose(out.mean((1, 2, 3)), labels @ jnp.arange(6.0), rtol=1e-5, atol=1e-6)
    assert len(np.unique(np.diag(labels))) > 2


@pytest.mark.usefixtures("even")
def test_devices_share_the_draws_of_a_batch():
    """Of equal images the share follows from lambda and the number of blocks alone, which two devices draw alike."""
    x, targets = jnp.tile(tiny.images(1), (6, 1, 1, 1)), jnp.eye(6)
    run = jax.jit(functools.partial(mixed, transport=False))
    found = set()
    for seed in range(8):
        labels = [np.asarray(run(jax.random.key(seed), x, targets, shard=s)[1]) for s in (0, 1)]
        shares = [np.unique(np.diag(a)[np.diag(a) < 1].round(5)) for a in labels]
        np.testing.assert_array_equal(*shares)
        found |= set(shares[0])
        if len(shares[0]):  # partners are a device's own
            assert not np.array_equal(*labels)
    assert len(found) == 2  # the partner alone, and one half


def test_a_map_of_zeros_gives_finite_labels(monkeypatch):
    """The published code divides 0 by 0 where a dead network has no gradient."""
    monkeypatch.setattr(maps, "gradient", lambda net, x, targets: jnp.zeros(x.shape[:3]))
    out, labels = jax.jit(mixed)(jax.random.key(0), tiny.images(), jnp.eye(6))
    assert np.isfinite(out).all()
    np.testing.assert_allclose(np.sum(labels, 1), 1, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_one_number_of_blocks_is_still_a_tuple():
    with pytest.raises(ValueError, match=r"blocks must be several numbers, as in \(4,\); got 4"):
        MIXERS["puzzlemix"](jax.random.key(0), tiny.images(2), jnp.eye(2), blocks=4)
