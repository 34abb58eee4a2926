"""cutout and mixup, and what every mixer shares with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.core import entries
from mixaug_jax.mixing import MIXERS, options
from mixaug_jax.mixing.pixels import cutout_mask, mix


@pytest.fixture(scope="module")
def batch():
    """Six 16 x 20 images, each pixel of image i near i + 1, and targets of 4 classes."""
    noise = jax.random.uniform(jax.random.key(3), (6, 16, 20, 3), minval=-0.1, maxval=0.1)
    images = noise + jnp.arange(1.0, 7)[:, None, None, None]
    return images, jax.nn.one_hot(jnp.arange(6) % 4, 4)


# What suits 16 x 20 pixels; what always happens; rows that sum to 1.
SUITED = {
    "puzzlemix": {"blocks": (2, 4), "iterations": 20},
    "random_erasing": {"prob": 1.0},
    "snapmix": {"weights": "normalized"},
    "tokenmix": {"weights": "normalized"},
}


@functools.cache
def compiled(name, **given):
    """A jitted f(key, images, targets, shard); eagerly each operation would compile alone."""
    given = SUITED.get(name, {}) | given
    if "net" in entries.keywords(MIXERS[name]):
        given["net"] = tiny.net(4)
    return jax.jit(lambda key, x, t, shard=0: MIXERS[name](key, x, t, shard=shard, **given))


def test_cutout_mask_is_the_published_one(golden):
    arrays = golden("mixing/mixing.npz")
    wanted = np.unpackbits(arrays["cutout_mask"], axis=-1).astype(bool)
    rows, cols = np.meshgrid(arrays["cutout_cy"], arrays["cutout_cx"], indexing="ij")
    for length, mask in zip(arrays["cutout_L"], wanted, strict=True):
        np.testing.assert_array_equal(cutout_mask((rows, cols), int(length), 32, 32), mask)


def test_mixup_is_the_published_one(golden):
    arrays = golden("mixing/mixing.npz")
    images, partner = arrays["timm_x"], arrays["mixup_perm"]
    mixed = mix(images, images[partner], float(arrays["mixup_lam"]))
    np.testing.assert_allclose(mixed, arrays["mixup_x"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("per", ["example", "batch"])
def test_cutout_makes_square_holes(batch, per):
    images, targets = batch
    out, same = compiled("cutout", per=per)(jax.random.key(0), images, targets)
    np.testing.assert_array_equal(same, targets)
    holes = np.asarray(out == 0)
    np.testing.assert_array_equal(np.where(holes, 0, images), out)
    assert (holes.all(-1) == holes.any(-1)).all()
    sides = [(h.any(1).sum(), h.any(0).sum(), h.sum()) for h in holes[..., 0]]
    assert all(0 < rows <= 8 and 0 < cols <= 8 and rows * cols == n for rows, cols, n in sides)
    assert (len({h.tobytes() for h in holes}) == 1) == (per == "batch")


def test_cutout_of_length_0_cuts_nothing(batch):
    images, targets = batch
    out, _ = compiled("cutout", length=0)(jax.random.key(0), images, targets)
    np.testing.assert_array_equal(out, images)


def test_mixup_by_the_label():
    """Targets tell lambda and, the images being constants, so do the pixels."""
    images = jnp.broadcast_to(jnp.arange(4.0)[:, None, None, None], (4, 8, 8, 3))
    targets = jax.nn.one_hot(jnp.arange(4), 4)
    out, mixed = compiled("mixup", per="example")(jax.random.key(5), images, targets)
    np.testing.assert_allclose(out[:, 0, 0, 0], mixed @ jnp.arange(4.0), rtol=1e-6)
    lam = np.diag(mixed)
    assert len(np.unique(lam)) > 1


def test_mixup_alpha(batch):
    images, targets = batch
    for alpha in (0, -1):
        out, same = compiled("mixup", alpha=alpha)(jax.random.key(0), images, targets)
        np.testing.assert_array_equal(out, images)
        np.testing.assert_array_equal(same, targets)
    mixer = compiled("mixup", per="example", alpha=0.2)
    lam = np.diag(mixer(jax.random.key(1), jnp.zeros((512, 1, 1, 1)), jnp.eye(512))[1])
    # Beta(a, a) has the variance 1 / (4 (2 a + 1)); at least four standard errors of 512 draws.
    assert abs(np.var(lam) - 1 / (4 * 1.4)) < 0.03
    assert abs(np.mean(lam) - 0.5) < 0.08


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer(batch, name, per):
    images, targets = batch
    # Of these keys' lambdas, one for all, puzzlemix gives neither image whole.
    key = jax.random.key(3)
    mixer = compiled(name, per=per)
    first, mixed = mixer(key, images, targets)
    assert first.shape == images.shape
    assert mixed.shape == targets.shape
    assert np.isfinite(first).all()
    np.testing.assert_allclose(np.sum(mixed, -1), 1, atol=1e-6)
    assert np.min(mixed) >= 0
    # Something happens, the same for the same key and shard.
    assert not np.array_equal(first, images)
    again = mixer(key, images, targets)
    np.testing.assert_array_equal(again[0], first)
    np.testing.assert_array_equal(again[1], mixed)
    other, _ = mixer(jax.random.key(4), images, targets)
    assert not np.array_equal(first, other)


def test_jit_changes_nothing(batch):
    for name in ("cutout", "cutmix"):
        for ours, jitted in zip(
            MIXERS[name](jax.random.key(7), *batch),
            compiled(name)(jax.random.key(7), *batch),
            strict=True,
        ):
            np.testing.assert_allclose(ours, jitted, rtol=1e-6, err_msg=name)


def test_half_precision_is_mixed_in_float32(batch):
    images, targets = (x.astype(jnp.bfloat16) for x in batch)
    for name in ("cutout", "mixup", "cutmix", "resizemix"):
        out, mixed = compiled(name)(jax.random.key(1), images, targets)
        assert (out.dtype, mixed.dtype) == (jnp.bfloat16, jnp.bfloat16), name
        wide = compiled(name)(
            jax.random.key(1), images.astype(jnp.float32), targets.astype(jnp.float32)
        )
        np.testing.assert_array_equal(out, wide[0].astype(jnp.bfloat16), err_msg=name)
        np.testing.assert_array_equal(mixed, wide[1].astype(jnp.bfloat16), err_msg=name)


ALONE = ("cutout", "gridmask", "random_erasing")


@pytest.mark.parametrize("name", MIXERS)
def test_one_image_has_no_partner(batch, name):
    images, targets = (x[:1] for x in batch)
    if name in ALONE:
        out, mixed = compiled(name)(jax.random.key(4), images, targets)
        assert np.isfinite(out).all()
        np.testing.assert_array_equal(mixed, targets)
        return
    with pytest.raises(ValueError, match="images must be 2 at least, for each to have a partner"):
        MIXERS[name](jax.random.key(4), images, targets)


@pytest.mark.parametrize(
    "name", [n for n in MIXERS if n not in ("alignmix", "batchmixup", "manifold_mixup")]
)
def test_channels_come_last(name):
    with pytest.raises(ValueError, match=r"\[2, 3, 8, 8\] looks like \[B,C,H,W\]"):
        MIXERS[name](jax.random.key(0), jnp.zeros((2, 3, 8, 8)), jnp.eye(2))


@pytest.mark.parametrize("name", MIXERS)
def test_probability_0_is_off(batch, name):
    images, targets = batch
    out, same = compiled(name, prob=0)(jax.random.key(4), images, targets)
    np.testing.assert_array_equal(out, images)
    np.testing.assert_array_equal(same, targets)


@pytest.mark.parametrize("per", ["batch", "example"])
def test_one_coin_for_the_batch_or_one_for_each(batch, per):
    images, targets = batch
    mixer = compiled("cutout", per=per, prob=0.5)
    cut = [
        np.any(np.asarray(mixer(jax.random.key(i), images, targets)[0]) == 0, (1, 2, 3))
        for i in range(16)
    ]
    assert 0.2 < np.mean(cut) < 0.8
    assert all(len(set(c)) == 1 for c in cut) == (per == "batch")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"prob": 1.5}, "prob must be between 0 and 1; got 1.5"),
        ({"prob": float("nan")}, "prob must be between 0 and 1"),
        ({"per": "pixel"}, "per must be one of batch, example"),
    ],
)
@pytest.mark.parametrize("name", MIXERS)
def test_wrong_options_of_all(batch, name, given, says):
    with pytest.raises(ValueError, match=says):
        MIXERS[name](jax.random.key(0), *batch, **given)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("cutout", {"length": 1.5}, "length must be between 0 and 1"),
        ("cutout", {"length": 0.05}, "cuts no pixel"),
        ("mixup", {"label": "last"}, "label must be one of mixed, first, pasted, majority"),
        ("cutmix", {"alpha": 0}, "alpha must be greater than 0"),
        ("saliencymix", {"variant": "official"}, "variant must be one of intended, released"),
        ("saliencymix", {"std": (0, 1, 1)}, "std"),
        ("saliencymix", {"mean": (0.5,)}, "mean"),
        ("fmix", {"variant": "x"}, "variant must be one of isotropic, released"),
        ("fmix", {"max_soft": 0.6}, "max_soft"),
        ("resizemix", {"scale": (0.5, 0.2)}, "scale must be a pair"),
        ("resizemix", {"scale": (0.01, 0.5)}, "smaller than a pixel"),
        ("gridmask", {"period": (0.5, 1.2)}, "period must be a pair"),
        ("gridmask", {"period": (0.01, 1.0)}, "cuts no pixel"),
        ("gridmask", {"rotate": 0}, "rotate"),
        ("gridmix", {"cells": (6, 60)}, "too small"),
        ("smoothmix", {"sigma": (0, 0.5)}, "greater than 0"),
        ("switch", {"switch_prob": -1}, "switch_prob must be between 0 and 1"),
        ("maskmix", {"cells": 1}, "cells must be an integer of at least 2"),
        ("maskmix", {"cells": 17}, "17"),
        ("tokenmix", {"tokens": 1}, "tokens must be an integer of at least 2"),
        ("tokenmix", {"tokens": 17}, "too small for tokens, which needs sides of at least 17"),
        ("tokenmix", {"pasted": 1.5}, "pasted must be between 0 and 1"),
        ("tokenmix", {"pattern": "stripes"}, "pattern must be one of blocks, random"),
        ("tokenmix", {"scores": "cam"}, "scores must be one of class, attention, area"),
        ("tokenmix", {}, "tokenmix looks at a network: pass net="),
        ("tokenmix", {"net": tiny.net(4), "scores": "attention"}, "has no attention to read"),
        ("tokenmix", {"net": tiny.net(4, loss="sigmoid")}, "needs images of one class each"),
        ("manifold_mixup", {"alpha": 0}, "alpha must be greater than 0"),
        ("alignmix", {"layers": ("first",)}, "layers must be one of input, last; got 'first'"),
        ("attentivemix", {"count": -1}, "count must be an integer of at least 0"),
        (
            "attentivemix",
            {"net": tiny.net(4), "count": 20},
            "count=20 cells cannot be chosen among 4 x 5",
        ),
        (
            "attentivemix",
            {"net": tiny.net(4), "layer": "fc"},
            "layer must be one of relu1, relu3, relu4",
        ),
        ("batchmixup", {"temperature": 0}, "temperature must be greater than 0"),
        ("guidedmixup", {"saliency": "sr"}, "saliency must be one of spectral, gradient"),
        ("guidedmixup", {"saliency": "gradient"}, "guidedmixup looks at a network"),
        ("guidedmixup", {"partners": "greedy_c"}, "partners must be one of random, greedy"),
        (
            "puzzlemix",
            {"blocks": (2, 8)},
            "blocks must divide the sides of the images, 16 x 20 pixels",
        ),
        ("puzzlemix", {"blocks": (1,)}, "each of blocks must be an integer of at least 2"),
        ("puzzlemix", {"beta": -1.0}, "beta must be a number at least 0; got -1.0"),
        ("puzzlemix", {"gamma": 1.5}, "gamma must be a number at least 0 and at most 1; got 1.5"),
        ("puzzlemix", {"eta": float("nan")}, "eta must be a number at least 0; got nan"),
        ("puzzlemix", {"neighbor": 0}, "neighbor must be an integer of at least 1; got 0"),
        ("puzzlemix", {"transport_cost": -0.1}, "transport_cost must be a number at least 0"),
        ("puzzlemix", {"transport_block": -4}, "transport_block must be an integer of at least 0"),
        (
            "puzzlemix",
            {"blocks": (4,), "transport_block": 4, "transport": False},
            "puzzlemix looks at a network: pass net=",  # nothing moves, so all else is right
        ),
        ("puzzlemix", {"blocks": ()}, "blocks must hold a number at least"),
        ("puzzlemix", {"blocks": (4,), "transport_block": 4}, "makes 4 or 20 blocks on a side"),
        ("puzzlemix", {"blocks": (4,), "levels": 4}, "levels must be one of 2, 3"),
        ("puzzlemix", {"blocks": (4,)}, "puzzlemix looks at a network: pass net="),
        ("random_erasing", {"area": (0.5, 0.2)}, "area must be a pair"),
        ("random_erasing", {"aspect": 0}, "aspect"),
        ("random_erasing", {"fill": "red"}, "fill must be one of zero, noise"),
        ("snapmix", {"weights": "half"}, "weights must be one of published, normalized"),
        ("snapmix", {"net": tiny.net(3)}, "the network tells 3 classes apart, and targets have 4"),
    ],
)
def test_wrong_options_of_one(batch, name, given, says):
    with pytest.raises(ValueError, match=says):
        MIXERS[name](jax.random.key(0), *batch, **given)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("images", "targets", "says"),
    [
        (np.zeros((2, 8, 8), np.float32), np.ones((2, 3), np.float32), "shape"),
        (np.zeros((0, 8, 8, 3), np.float32), np.ones((0, 3), np.float32), "empty"),
        (np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 3), np.float32), "floating point"),
        (np.zeros((2, 8, 8, 3), np.float32), np.ones((3, 3), np.float32), "B = 2"),
        (np.zeros((2, 8, 8, 3), np.float32), np.ones((2,), np.int32), "targets must be"),
        (np.zeros((2, 8, 8, 3), np.float32), np.ones((2, 3), np.int32), "floating point rows"),
        (np.zeros((2, 1, 8, 3), np.float32), np.ones((2, 3), np.float32), "too small"),
    ],
)
def test_wrong_arrays(images, targets, says):
    with pytest.raises(ValueError, match=says):
        MIXERS["cutmix"](jax.random.key(0), images, targets)


def test_options():
    assert options("cutmix") == {"prob": 1.0, "per": "batch", "label": "mixed", "alpha": 1.0}
    assert options("cutout") == {"prob": 1.0, "per": "example", "length": 0.5}
    assert "active" not in options("manifold_mixup")
    assert "std" not in options("saliencymix")
    with pytest.raises(ValueError, match=r"mix\.name must be one of alignmix, .*; got 'cutmux'"):
        options("cutmux")
