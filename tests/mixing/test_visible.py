"""The label "visible": each class by what is still seen of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.core import entries
from mixaug_jax.mixing import LABELS, MASK_LABELS, MIXERS, labels, options

COUNT, SIDE, CLASSES = 6, 16, 12
MASKED = ("attentivemix", "cutmix", "fmix", "gridmix", "guidedmixup", "maskmix", "puzzlemix",
          "resizemix", "saliencymix", "smoothmix", "switch", "tokenmix")  # fmt: skip
# Blocks that stay, and labels by area.
SUITED = {
    "puzzlemix": {"blocks": (2, 4), "iterations": 10, "transport": False},
    "tokenmix": {"scores": "area", "tokens": 8},
}
# Image i is all i, so that the pixels of a mixed one tell how much of each is there.
IMAGES = jnp.broadcast_to(jnp.arange(COUNT, dtype=jnp.float32)[:, None, None, None], (COUNT, SIDE, SIDE, 3))  # fmt: skip


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("name", MASKED)
def test_the_mask_is_what_was_done_to_the_pixels(name, per):
    """The images are those of another label, and the mask says how they came about."""

    def mixed(net, label):
        given = {"net": net} if "net" in entries.keywords(MIXERS[name]) else {}
        given |= SUITED.get(name, {}) | {"per": per, "label": label}
        return MIXERS[name](jax.random.key(5), IMAGES, jnp.eye(COUNT), **given)

    both = jax.jit(lambda net: (mixed(net, "visible"), mixed(net, "mixed")))
    (images, pending), (same, targets) = both(tiny.net(COUNT))
    np.testing.assert_array_equal(images, same)
    assert pending.mask.shape == (COUNT, SIDE, SIDE)
    own, partner = (np.argmax(t, -1)[:, None, None] for t in (pending.own, pending.partner))
    np.testing.assert_array_equal(own.ravel(), np.arange(COUNT))
    expected = pending.mask * own + (1 - pending.mask) * partner
    np.testing.assert_allclose(images[..., 0], expected, atol=1e-5)
    assert 0 < np.mean(pending.mask) < 1
    # What all of a picture tells of has the label that is published.
    kept = labels.kept_shares(pending.mask, jnp.ones((COUNT, SIDE, SIDE), int), 1)
    np.testing.assert_allclose(labels.settle(pending, kept), targets, atol=1e-5)


def test_which_mixers_know_it():
    """Those that mix by a mask; the others say what there is, before anything is compiled."""
    asked = [name for name in MIXERS if "label" in options(name)]
    assert set(asked) == {*MASKED, "mixup", "manifold_mixup", "alignmix", "snapmix"}
    assert (*LABELS, "visible", "attention") == MASK_LABELS
    for name in ("mixup", "manifold_mixup"):
        with pytest.raises(ValueError, match="label must be one of mixed, first, pasted, majority; got 'visible'"):  # fmt: skip
            MIXERS[name](jax.random.key(0), IMAGES, jnp.eye(COUNT), label="visible")


def test_blocks_that_move_are_refused():
    with pytest.raises(ValueError, match="needs blocks that stay where they are, and puzzlemix moves them"):  # fmt: skip
        MIXERS["puzzlemix"](jax.random.key(0), IMAGES, jnp.eye(COUNT), label="visible")


def test_shares_and_targets_against_numpy():
    """Pixel by pixel; a class that has no pixel is mixed as the whole picture is."""
    rng = np.random.default_rng(0)
    mask = rng.random((COUNT, SIDE, SIDE)).astype(np.float32)
    parts = rng.integers(0, CLASSES + 1, (COUNT, SIDE, SIDE)).astype(np.uint8)
    parts[2][parts[2] == 4] = 0
    own, partner = rng.random((2, COUNT, CLASSES)).astype(np.float32)
    kept = np.asarray(jax.jit(lambda m, p: labels.kept_shares(m, p, CLASSES))(mask, parts))
    found = labels.settle(labels.Pending(own, partner, mask), kept)
    for i in range(COUNT):
        for k in range(CLASSES):
            pixels = [m for m, part in zip(mask[i].flat, parts[i].flat, strict=True) if part == k + 1]  # fmt: skip
            share = np.mean(pixels) if pixels else mask[i].mean()
            assert share == pytest.approx(kept[i, k], abs=1e-5)
            expected = share * own[i, k] + (1 - share) * partner[i, k]
            assert expected == pytest.approx(found[i, k], abs=1e-5)
    assert not (parts[2] == 4).any()
    assert labels.settle(labels.Pending(jnp.bfloat16(own), partner, mask), kept).dtype == jnp.bfloat16  # fmt: skip
