"""maskmix and tokenmix."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing import MIXERS, maps
from mixaug_jax.mixing.patches import add_blocks, token_weights
from mixaug_jax.models import MODELS, Net, Preprocess

GOLDEN = pathlib.Path(__file__).parents[1] / "data" / "golden" / "mixers_net" / "token_labels.npz"
COUNT = 6
# Image i is all i.
FLAT = jnp.broadcast_to(jnp.arange(COUNT, dtype=jnp.float32)[:, None, None, None], (COUNT, 16, 16, 3))  # fmt: skip


@pytest.fixture(scope="module")
def transformer():
    model = MODELS["vit_of_size"](COUNT, dim=12, depth=2, heads=2, patch=4)
    variables = jax.jit(model.init)(jax.random.key(0), tiny.images())
    grown = jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim == 2 else leaf, variables)
    return Net(model, grown, Preprocess(16, mean=(0.5,) * 3, std=(0.25,) * 3))


def test_token_labels_are_the_published_ones():
    g = np.load(GOLDEN)
    onehot = np.eye(int(g["num_classes"]), dtype=np.float32)[g["label"]]
    partner = np.arange(len(onehot))[::-1].astype(np.int32)
    weights = token_weights(g["token_maps"], g["token_mask"] > 0, partner)
    own, other = (np.asarray(w)[:, None] for w in weights)
    # The published smoothing of 0.1: half of it off each label, its share of all classes to all.
    found = onehot * (own - 0.05) + onehot[partner] * (other - 0.05) + 0.1 / onehot.shape[1]
    np.testing.assert_allclose(found, g["token_targets"], rtol=0, atol=1e-5)


def published_blocks(drawn, wanted, side):
    """The published loops on given draws: ten tries for each rectangle, of which the first that fits is taken."""
    mask, drawn, missing = np.zeros((side, side), bool), iter(drawn.astype(np.float64)), wanted
    while missing:
        for _ in range(10):
            area, aspect, row, col = next(drawn)
            area = 1 + area * (missing - 1)
            aspect = math.exp(math.log(0.3) + aspect * (math.log(1 / 0.3) - math.log(0.3)))
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if tall >= side or wide >= side:
                continue
            top, left = int(row * (side - tall + 1)), int(col * (side - wide + 1))
            part = mask[top : top + tall, left : left + wide]
            if 0 < part.size - part.sum() <= missing:
                missing -= part.size - part.sum()
                part[...] = True
                break
        else:
            return mask
    return mask


@pytest.mark.parametrize(("side", "wanted"), [(14, 112), (4, 9), (3, 9)])
def test_blocks_are_those_of_the_published_loops(side, wanted):
    """Also where all ten tries fail, as for the last of a grid that no rectangle of a whole side may fill."""
    run = jax.jit(functools.partial(add_blocks, wanted=wanted, tokens=side))
    filled = []
    for seed in range(8):
        drawn = np.random.default_rng(seed).random((64, 4)).astype(np.float32)
        expected = published_blocks(np.concatenate([drawn, np.zeros((640, 4))]), wanted, side)
        np.testing.assert_array_equal(run(drawn), expected)
        filled.append(expected.sum())
    assert max(filled) <= wanted
    assert np.mean(filled) > 0.9 * wanted


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("name", ["maskmix", "tokenmix"])
def test_whole_cells_and_labels_by_area(name, per):
    given = {"cells": 4}
    if name == "tokenmix":
        given = {"tokens": 4, "scores": "area", "pattern": "random", "pasted": 0.3}
    run = jax.jit(lambda key: MIXERS[name](key, FLAT, jnp.eye(COUNT), per=per, **given))
    kept, alike = [], []
    for seed in range(4):
        out, targets = (np.asarray(x) for x in run(jax.random.key(seed)))
        cells = out[..., 0].reshape(COUNT, 4, 4, 4, 4)
        assert (cells == cells[:, :, :1, :, :1]).all()
        cells = cells[:, :, 0, :, 0]
        shares = (cells[..., None] == np.arange(COUNT)).mean((1, 2))
        np.testing.assert_allclose(targets, shares, atol=1e-6)
        others = np.diag(targets) < 1  # not one's own partner
        masks = (cells == np.arange(COUNT)[:, None, None])[others]
        kept += [set(16 * masks.mean((1, 2)))]
        alike.append(len({m.tobytes() for m in masks}))
    if name == "tokenmix":
        assert set().union(*kept) == {11}  # of 16, for 4.8 are wanted of the partner
        assert (max(alike) == 1) == (per == "batch")
    else:  # the number is the batch's, the cells are each image's own
        assert (max(map(len, kept)) == 1) == (per == "batch")
        assert max(alike) > 1


def test_cells_that_stay_are_rounded_up():
    """Of one cell at least, so that lambda has the mean of ceil(16 u) / 16."""
    x = jnp.broadcast_to(jnp.arange(512.0)[:, None, None, None], (512, 4, 4, 1))
    _, targets = MIXERS["maskmix"](jax.random.key(0), x, jnp.eye(512), per="example")
    cells = 16 * np.diag(targets)
    assert cells.min() == 1
    np.testing.assert_allclose(cells.mean(), 8.5, atol=4 * 4.6 / 512**0.5)


def test_scores_of_the_class_are_the_heads_at_each_node():
    net, x = tiny.net(COUNT), tiny.images()
    found = jax.jit(maps.probability)(net, x, jnp.eye(COUNT))
    features, head = np.asarray(net.features(x, "relu4")), net.variables["params"]["fc"]
    scores = jax.nn.softmax(features @ np.asarray(head["kernel"]) + np.asarray(head["bias"]))
    expected = [scores[i, ..., i] for i in range(COUNT)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scores", ["class", "attention"])
def test_tokenmix_weighs_by_scores(scores, transformer):
    """What stays of the image's own scores, and what came of its partner's."""
    net, x = (tiny.net(COUNT) if scores == "class" else transformer), tiny.images()
    given = {"tokens": 4, "scores": scores}

    @jax.jit
    def run(net, key):
        made = [
            MIXERS["tokenmix"](key, x, jnp.eye(COUNT), net=net, weights=weights, **given)
            for weights in ("published", "normalized")
        ]
        look = maps.attention(net, x) if scores == "attention" else maps.probability(net, x, jnp.eye(COUNT))  # fmt: skip
        return *made, look

    (out, published), (_, normalized), look = (jax.tree.map(np.asarray, v) for v in run(net, jax.random.key(3)))  # fmt: skip
    look = look / look.sum((1, 2), keepdims=True)
    same = (out == np.asarray(x)).all(-1)[:, ::4, ::4]
    for i in range(COUNT):
        j = published[i].argsort()[-1] if published[i].argsort()[-1] != i else published[i].argsort()[-2]  # fmt: skip
        if same[i].all():
            np.testing.assert_allclose(published[i, i], 1, rtol=1e-5)
            continue
        np.testing.assert_allclose(published[i, i], look[i][same[i]].sum(), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(published[i, j], look[j][~same[i]].sum(), rtol=1e-3, atol=1e-6)
    assert not np.allclose(published.sum(1), 1, atol=1e-3)
    total = published.sum(1, keepdims=True)
    np.testing.assert_allclose(normalized, published / total, rtol=1e-5)


def test_a_transformer_has_no_scores_of_classes(transformer):
    with pytest.raises(ValueError, match="use scores='attention' or 'area', or a convolutional"):
        MIXERS["tokenmix"](jax.random.key(0), tiny.images(), jnp.eye(COUNT), net=transformer)
