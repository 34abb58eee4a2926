"""The links of RenderGAN's chain: what each can change, and above all what it cannot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mixaug_jax.data.markers import tag_renderer, tags
from mixaug_jax.papers.rendergan import chain, hand_links, making

COUNT, SIZE = 4, 32


@pytest.fixture(scope="module")
def made():
    labels = tags.draw(jax.random.key(1), COUNT, size=SIZE)
    return jax.jit(lambda labels: tag_renderer.render(labels, SIZE))(labels)


def noise(seed, low, high):
    return jax.random.uniform(jax.random.key(seed), (COUNT, SIZE, SIZE), minval=low, maxval=high)


def within(seed=0):
    """Random parameters inside their bounds."""
    return {
        "blur": {"share": jnp.linspace(0.1, 1, COUNT)},
        "lighting": {
            "black": noise(seed, 0, 2),
            "white": noise(seed + 1, 0, 2),
            "shift": noise(seed + 2, -1, 1),
        },
        "background": {"ground": noise(seed + 3, -1, 1)},
        "detail": {"fine": noise(seed + 4, -0.1, 0.1)},
    }


@pytest.mark.parametrize("width", [0.66, 2.0, 3.5])
def test_gaussians_are_those_of_scipy(width):
    x = noise(0, -1, 1)
    reach = int(np.ceil(3 * width / 2))
    expected = ndimage.gaussian_filter(np.asarray(x), width / 2, mode="nearest", axes=(1, 2), radius=reach)  # fmt: skip
    np.testing.assert_allclose(chain.smooth(x, width), expected, atol=1e-6)
    np.testing.assert_array_equal(chain.smooth(x, 0), x)


@pytest.mark.parametrize("name", chain.CHAIN)
def test_identity(name, made):
    """With these parameters a link leaves a picture as it is; without anything in it, as the ground is black."""
    found, penalty = chain.CHAIN[name](made.tag, chain.identity(made)[name], made)
    np.testing.assert_allclose(found, made.tag, atol=1e-5)
    assert penalty == 0


@pytest.mark.parametrize(
    ("name", "key", "beyond", "inwards"),
    [
        ("blur", "share", 1.5, -1),
        ("blur", "share", -0.5, 1),
        ("lighting", "black", 3.0, -1),
        ("lighting", "white", -1.0, 1),
        ("lighting", "shift", 1.5, -1),
        ("background", "ground", -2.0, 1),
        ("detail", "fine", 2.5, -1),
    ],
)
def test_penalties_lead_back(name, key, beyond, inwards, made):
    def penalty(value):
        given = chain.identity(made)[name]
        given[key] = jnp.full_like(given[key], value)
        # The shift is beyond its bound, and what it shifts is, too: only the first is asked for.
        x = jnp.zeros_like(made.tag)
        return chain.CHAIN[name](x, given, made)[1]

    assert penalty(beyond) > 0
    assert np.sign(-jax.grad(penalty)(beyond)) == inwards
    inside = {"share": 0.5, "black": 1.0, "white": 1.0, "shift": 0.5, "ground": 0.0, "fine": 1.0}
    assert penalty(inside[key]) == 0
    assert jax.grad(penalty)(inside[key]) == 0


def test_penalty_is_fifteen_times_what_is_beyond():
    cut, penalty = chain.bounded(jnp.float32([-3, 0, 1, 2]), -1, 1)
    np.testing.assert_array_equal(cut, [-1, 0, 1, 1])
    assert penalty == pytest.approx(15 * (2 + 1) / 4)


def test_blur_loses_what_is_fine_and_nothing_else(made):
    flat = jnp.full_like(made.tag, 0.3)
    np.testing.assert_allclose(chain.blur(flat, {"share": jnp.ones(COUNT)}, made)[0], 0.3, atol=1e-6)  # fmt: skip
    full, _ = chain.blur(made.tag, {"share": jnp.ones(COUNT)}, made)
    np.testing.assert_allclose(full, chain.smooth(made.tag, 2.0), atol=1e-6)
    # A number of each picture.
    half, _ = chain.blur(made.tag, {"share": jnp.float32([0.5, 0, 0, 0])}, made)
    np.testing.assert_allclose(half[0], (full[0] + made.tag[0]) / 2, atol=1e-6)
    np.testing.assert_allclose(half[1:], made.tag[1:], atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_lighting_keeps_black_below_white(seed, made):
    """A black and a white cell side by side, under equal scales and any shift."""
    pair = jnp.concatenate([jnp.full((COUNT, SIZE, SIZE // 2), -1.0), jnp.ones((COUNT, SIZE, SIZE // 2))], 2)  # fmt: skip
    scale = noise(seed, 0, 2)
    given = {"black": scale, "white": scale, "shift": noise(seed + 9, -1, 1)}
    lit, _ = chain.lighting(pair, given, made)
    left, right = lit[..., SIZE // 2 - 1], lit[..., SIZE // 2]
    assert (left < right).all()


def test_light_cannot_draw_bits(made):
    """Maps as fine as cells, and as strong as may be, come out weak: a quarter of a cell's contrast at most."""
    stripes = jnp.where((jnp.arange(SIZE) // 2) % 2 == 0, 1.0, -1.0)
    shift = jnp.broadcast_to(stripes, (COUNT, SIZE, SIZE))
    given = {"black": shift * 0, "white": shift * 0, "shift": shift}
    lit, _ = chain.lighting(jnp.zeros((COUNT, SIZE, SIZE)), given, made)
    assert np.abs(lit[:, :, 4:-4]).max() < 0.25


def test_background_leaves_the_marker(made):
    found, _ = chain.background(made.tag, {"ground": noise(0, -1, 1)}, made)
    covered = np.asarray(made.cover) == 1
    assert covered.mean() > 0.2
    np.testing.assert_array_equal(np.asarray(found)[covered], np.asarray(made.tag)[covered])
    far = np.asarray(chain.smooth(made.cover, 0.66)) < 1e-6
    np.testing.assert_allclose(np.asarray(found)[far], np.asarray(noise(0, -1, 1))[far], atol=1e-5)


def test_detail_is_fine(made):
    """Neither a constant nor what is as coarse as a cell and more gets through."""
    x = jnp.zeros((COUNT, SIZE, SIZE))
    found, _ = chain.detail(x, {"fine": jnp.ones_like(x)}, made)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    wave = jnp.sin(2 * jnp.pi * jnp.arange(SIZE) / SIZE)
    coarse, _ = chain.detail(x, {"fine": jnp.broadcast_to(wave, x.shape)}, made)
    assert np.abs(coarse[:, :, 4:-4]).max() < 0.02
    fine, _ = chain.detail(x, {"fine": noise(0, -0.5, 0.5)}, made)
    assert fine.std() > 0.1


def test_the_chain_in_order(made):
    parameters = within()
    pictures, penalties = jax.jit(functools.partial(chain.through, chain.CHAIN))(made, parameters)
    assert pictures.keys() == penalties.keys() == chain.CHAIN.keys()
    x = made.tag
    for name, link in chain.CHAIN.items():
        x, penalty = link(x, parameters[name], made)
        np.testing.assert_allclose(pictures[name], x, atol=1e-5)
        np.testing.assert_allclose(penalties[name], penalty, atol=1e-5)


def test_bytes_and_back():
    x = jnp.float32([[[-1.5, -1], [0.2, 1]]])
    stored = chain.as_bytes(x)
    np.testing.assert_array_equal(stored[0, ..., 0], [[0, 0], [153, 255]])
    np.testing.assert_allclose(chain.as_numbers(stored), [[[-1, -1], [0.2, 1]]], atol=1 / 255)


@pytest.mark.parametrize("name", ["plain", "handmade"])
def test_what_is_made(name):
    """Markers whose cells are as light as their bits say, under any of these."""
    make = jax.jit(
        functools.partial(getattr(making, name), count=64, arrays=(), size=SIZE, spin=0.7)
    )
    batch = make(jax.random.key(0))
    assert batch["image"].shape == (64, SIZE, SIZE, 1)
    assert batch["targets"].shape == (64, 12)
    assert 0.4 < batch["targets"].mean() < 0.6
    key = jax.random.key(0) if name == "plain" else jax.random.split(jax.random.key(0))[0]
    labels = tags.draw(key, 64, size=SIZE, spin=0.7)
    np.testing.assert_array_equal(batch["targets"], labels.bits)
    # White pixels of the marker are lighter than black ones in all but a few pictures.
    tag = np.asarray(tag_renderer.render(labels, SIZE).tag)
    cover = np.asarray(tag_renderer.render(labels, SIZE).cover) == 1
    gray = np.asarray(batch["image"][..., 0])
    white, black = cover & (tag > 0.9), cover & (tag < -0.9)
    lighter = [gray[i][white[i]].mean() > gray[i][black[i]].mean() for i in range(64)]
    assert np.mean(lighter) > 0.95
    assert (make(jax.random.key(1))["image"] != batch["image"]).any()


def test_pyramid_noise():
    found = jax.jit(lambda key: hand_links.pyramid(key, 200, 16, (8, 4, 1)))(jax.random.key(0))
    assert found.shape == (200, 16, 16)
    assert 0 < found.min() < found.max() < 1
    np.testing.assert_allclose(found.mean(), 0.5, atol=0.03)
    # Mostly coarse: neighbors are alike.
    assert np.abs(np.diff(found, axis=1)).mean() < 0.3 * np.std(found)
