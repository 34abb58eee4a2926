"""Checks of a trained generator: what links are worth, whether labels are kept, and whether pictures can be told apart."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rendergan_case

from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.papers.rendergan import adversary, chain, examining, few, judging, learning

SIZE = 16
GENERATOR = few.Few(SIZE, 0.7)
DISCRIMINATOR = adversary.Discriminator(2)


def test_shapley_values_over_all_orders():
    """Against the mean gain over the 24 orders in which four may come, for games of random worth."""
    values = np.random.default_rng(0).normal(size=(16, 5))
    expected = np.zeros((4, 5))
    for order in itertools.permutations(range(4)):
        there = [False] * 4
        for player in order:
            before = values[judging.SUBSETS.tolist().index(there)]
            there = [there[k] or k == player for k in range(4)]
            expected[player] += (values[judging.SUBSETS.tolist().index(there)] - before) / 24
    found = judging.shapley(values)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(0), values[-1] - values[0], atol=1e-12)
    # Who adds the same wherever he comes has that; who adds nothing has nothing.
    alone = judging.SUBSETS @ np.array([1.0, 0, -2, 0.5])
    np.testing.assert_allclose(judging.shapley(alone[:, None])[:, 0], [1, 0, -2, 0.5], atol=1e-12)


def test_logits_of_subsets():
    """Of no link and of all, made another way; every subset has the same markers."""
    state = jax.device_get(adversary.init(GENERATOR, DISCRIMINATOR, 0, 10))
    params = {"generator": state.generator, "discriminator": state.discriminator}
    real = np.random.default_rng(0).uniform(-1, 1, (6, SIZE, SIZE)).astype(np.float32)
    found = judging.logits_of_subsets(GENERATOR, DISCRIMINATOR, params, real, 3)
    assert found.shape == (16, 6)
    keys = jax.random.split(jax.random.key(3), 6)

    def straight(params):
        _, parameters = GENERATOR.apply({"params": params["generator"]}, few.draw(keys, SIZE))
        made = adversary.generate(GENERATOR, params["generator"], keys)[1]
        x, logits = made.tag, []
        for name in (None, *few.LINKS):
            x = few.LINKS[name](x, parameters[name], made)[0] if name else x
            both = jnp.concatenate([real, x])
            logits.append(DISCRIMINATOR.apply({"params": params["discriminator"]}, both)[6:])
        return jnp.stack(logits)

    expected = jax.jit(straight)(params)
    first = [0b0000, 0b1000, 0b1100, 0b1110, 0b1111]  # the first links, in their order
    np.testing.assert_allclose(found[jnp.array(first)], expected, atol=1e-4)
    rows = judging.worth(found)
    assert [name for name, *_ in rows] == [*chain.CHAIN, "no link", "all links"]
    assert sum(row[1] for row in rows[:4]) == pytest.approx(rows[5][1] - rows[4][1], abs=1e-5)


def test_a_fresh_network_tells_what_can_be_told():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, (3, 160, SIZE, SIZE)).astype(np.float32)
    apart = judging.told_apart(DISCRIMINATOR, noise[0], np.abs(noise[1]), 0)
    assert apart.shape == (80,)
    assert apart.mean() > 0.95
    assert abs(judging.told_apart(DISCRIMINATOR, noise[0], noise[2], 0).mean() - 0.5) < 0.2


def test_bits_that_are_read(monkeypatch):
    """A reader of the first twelve pixels; more pictures than are read at once."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (130, 12)).astype(np.float32)
    monkeypatch.setattr(judging, "_reading", lambda: lambda net, images: images[:, 0, :12, 0] / 255.0)  # fmt: skip
    net = types.SimpleNamespace(preprocess=lambda image: image.astype(np.float32))
    x = np.zeros((130, SIZE, SIZE), np.float32)
    x[:, 0, :12] = 2 * bits - 1
    np.testing.assert_array_equal(judging.bits_right(net, x, bits), 1)
    wrong = x.copy()
    wrong[:, 0, :3] *= -1
    np.testing.assert_allclose(judging.bits_right(net, wrong, bits), 9 / 12)
    pictures = {name: wrong if name == "detail" else x for name in chain.CHAIN}
    rows = judging.kept(net, x, pictures, bits)
    assert [row[0] for row in rows] == ["as rendered", *chain.CHAIN]
    assert [row[1] for row in rows] == pytest.approx([1, 1, 1, 1, 0.75])


def network(logits, loss):
    """One of 16 pixels, of whose variables there are the shapes alone."""
    model = MODELS["tiny"](logits)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    return Net(model, shapes, Preprocess(16, mean=(0.5,) * 3, std=(0.25,) * 3), loss)


def test_readers_that_are_none(tmp_path, monkeypatch):
    config = rendergan_case.config(tmp_path, "detail")
    config.markers.reader = str(tmp_path)
    with pytest.raises(ValueError, match=r"holds no decoder; a run with markers\.train=labeled"):
        learning.STAGE.check(config)
    monkeypatch.setattr(examining.checkpoint, "steps_there", lambda folder: [1])
    for net, words in (
        (network(2, "softmax"), "of 2 logits and train.loss=softmax; a decoder of markers has 12"),
        (network(12, "softmax"), "of 12 logits and train.loss=softmax; a decoder .* and sigmoid"),
        (network(12, "sigmoid"), r"a decoder of 16 pixels; this run has data\.size=32"),
    ):
        monkeypatch.setattr(examining.checkpoint, "load", lambda folder, net=net: net)
        config.data.size = 32
        with pytest.raises(ValueError, match=words):
            examining.check_reader(config)
    config.data.size = 16
    examining.check_reader(config)
