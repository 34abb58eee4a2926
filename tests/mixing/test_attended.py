"""The label "attention": both images by how much a network's class token looks at them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.mixing import MIXERS, labels
from mixaug_jax.mixing.pixels import box_mask

GOLDEN = pathlib.Path(__file__).parents[1] / "data" / "golden" / "mixers_net" / "token_labels.npz"


@pytest.fixture(scope="module")
def arrays():
    return np.load(GOLDEN)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_targets_are_the_published_ones(arrays, turn):
    """TransMix on boxes that cut through patches; partners are the batch in reverse."""
    onehot = np.eye(int(arrays["num_classes"]), dtype=np.float32)[arrays["label"]]
    mask = ~np.asarray(box_mask(tuple(arrays[f"trans_{turn}_box"]), 224, 224))
    mask = np.broadcast_to(mask, (len(onehot), 224, 224)).astype(np.float32)
    attention = arrays["trans_attention"].reshape(-1, 14, 14)
    kept = jax.jit(labels.attended_share)(mask, attention)
    found = labels.settle(labels.Pending(onehot, onehot[::-1], mask), kept)
    np.testing.assert_allclose(found, arrays[f"trans_{turn}_targets"], rtol=0, atol=1e-5)


def test_shares_against_numpy():
    """Patch by patch, of soft masks and sides that patches do not divide."""
    rng = np.random.default_rng(0)
    mask = rng.random((3, 9, 16)).astype(np.float32)
    attention = rng.random((3, 2, 5)).astype(np.float32)
    found = labels.attended_share(mask, attention)
    for i in range(3):
        seen = [attention[i, r, c] * mask[i, r * 9 // 2, c * 16 // 5] for r in range(2) for c in range(5)]  # fmt: skip
        expected = (mask[i].mean() + sum(seen) / attention[i].sum()) / 2
        np.testing.assert_allclose(found[i], [expected], rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_attention_that_tells_nothing_leaves_the_area(value):
    mask = np.zeros((1, 8, 8), np.float32)
    mask[:, :2] = 1
    found = labels.attended_share(mask, np.full((1, 4, 4), value, np.float32))
    np.testing.assert_allclose(found, [[0.25]], rtol=1e-6)


def test_a_mask_of_one_value_is_its_own_share():
    """So mixup's images in `switch` keep the label that is published."""
    attention = np.random.default_rng(1).random((2, 4, 4)).astype(np.float32)
    mask = np.float32([0.3, 1])[:, None, None] * np.ones((2, 8, 8), np.float32)
    np.testing.assert_allclose(labels.attended_share(mask, attention), [[0.3], [1]], rtol=1e-5)


def test_masks_are_those_of_the_label_visible():
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    one, other = (
        MIXERS["cutmix"](jax.random.key(2), x, jnp.eye(4), label=label)
        for label in ("visible", "attention")
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
