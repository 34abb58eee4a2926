"""The generator that draws maps: the layout, what may depend on what, and one step of it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rendergan_case

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.papers.rendergan import adversary, chain, few, learning, map_generator

SIZE, COUNT = 16, 4
GENERATOR = map_generator.Maps(SIZE, 0.7, 2)


@pytest.fixture(scope="module")
def params():
    init = jax.jit(functools.partial(GENERATOR.init, method="made"))
    return init(jax.random.key(0), few.draw(keys(2), SIZE))["params"]


def keys(count=COUNT):
    return jax.random.split(jax.random.key(1), count)


@pytest.fixture(scope="module")
def made(params):
    return jax.jit(functools.partial(adversary.generate, GENERATOR))(params, keys())


def counted(size, n):
    """Numbers of the layout, from what each convolution takes and gives."""
    half = n // 2
    front = [(8 * n, 2 * n), (2 * n, 2 * n)]
    if size == 64:
        front = [(8 * n, 4 * n), (4 * n, 4 * n), (4 * n, 2 * n), (2 * n, 2 * n)]
    light = [(1, half), (half, half), (2 * n + half, n), *[(n, n)] * 4]
    middle = [(2 * n + 1 + 3 + 1, 2 * n), (2 * n, 2 * n), (2 * n, 2 * n)]
    fine = [(2 * n + 1, n), (n, n), (1 + 1 + 1 + 1 + n + 3, n), (n, n), (n, n)]
    convs = sum(9 * i * o + 2 * o for i, o in (*front, *light, *middle, *fine))
    heads = (n * 3 + 3) + (9 * 2 * n + 1) + 2 * (9 * n + 1)
    pose = 50 * 4 * n + 16 * n * n + 2 * 2 * 4 * n + 4 * n * 10 + 10 + 2 * 10
    return convs + heads + pose + (50 + 10) * 128 * n + 2 * 8 * 16 * n


@pytest.mark.parametrize(("size", "filters", "spin"), [(32, 12, 0.785), (64, 64, math.pi)])
def test_the_layout(size, filters, spin):
    """As many numbers as that of the layout, and pictures of its size; computes nothing."""
    generator = map_generator.Maps(size, spin, filters)
    latents = jax.eval_shape(lambda: few.draw(keys(), size))
    init = functools.partial(generator.init, method="made")
    found = jax.eval_shape(init, jax.random.key(0), latents)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == counted(size, filters)
    shapes = jax.eval_shape(functools.partial(adversary.generate, generator), found, keys())
    assert {name: x.shape for name, x in shapes[2].items()} == dict.fromkeys(chain.CHAIN, (COUNT, size, size))  # fmt: skip


def test_it_begins_where_the_bits_are_seen(made):
    """Labels within their ranges; black stays below white in the untrained generator's pictures."""
    labels, tags, pictures, penalties = made
    assert set(penalties) == {*chain.CHAIN, "labels"}
    assert np.abs(labels.zrot).max() <= 0.7
    assert 22 / 4 <= labels.radius.min() <= labels.radius.max() <= 26 / 4
    white, black = np.asarray(tags.tag) > 0.8, (np.asarray(tags.tag) < -0.8) & (np.asarray(tags.cover) == 1)  # fmt: skip
    for name in ("blur", "lighting", "background"):
        x = np.asarray(pictures[name])
        assert x[white].mean() > x[black].mean() + 0.5
    assert np.isfinite(adversary.last(pictures)).all()


def test_a_whole_turn_has_every_direction():
    generator = GENERATOR.clone(spin=math.pi)
    given = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (500, 10)), jnp.float32)
    labels = generator._labels(jnp.zeros((500, 12)), given)
    np.testing.assert_allclose(labels.zrot, np.arctan2(given[:, 1], given[:, 0]), atol=1e-6)
    half = generator.clone(spin=0.5)._labels(jnp.zeros((500, 12)), given)
    np.testing.assert_allclose(half.zrot, 0.5 * given[:, 0], rtol=1e-6)
    np.testing.assert_allclose(half.center, given[:, 4:6], rtol=1e-6)
    np.testing.assert_allclose(half.focal, 3 + given[:, 9], rtol=1e-6)


def test_how_markers_lie_is_learned_through_the_renderer_alone(params):
    """Of what the links are given, no gradient reaches the networks of the pose; of pictures it does."""

    def pictures(params, held):
        def link(x, parameters, tags):
            changed, penalty = jax.tree.leaves(parameters), jnp.zeros(())
            return sum(jnp.square(v).sum() for v in changed) + 0 * x, penalty

        with pytest.MonkeyPatch.context() as patch:
            if held:  # the links are asked for their parameters only
                patch.setattr(chain, "CHAIN", dict.fromkeys(chain.CHAIN, link))
            made = adversary.generate(GENERATOR, params, keys())
        return jnp.square(adversary.last(made[2])).sum()

    for held in (True, False):
        slope = jax.jit(jax.grad(functools.partial(pictures, held=held)))(params)
        sizes = jax.tree.map(lambda leaf: float(np.abs(leaf).max()), slope)
        largest = {name: max(jax.tree.leaves(v)) for name, v in sizes.items()}
        poses = [size for name, size in largest.items() if name.startswith("pose")]
        assert (max(poses) == 0) == held
        assert largest["detail_head"] > 0


def test_links_that_are_left_out(params, made):
    """What is left out changes nothing, and the links before are as they were."""
    program = jax.jit(functools.partial(adversary.generate, GENERATOR))
    _, tags, pictures, _ = program(params, keys(), jnp.array([False, True, False, False]))
    np.testing.assert_array_equal(pictures["blur"], tags.tag)
    assert (pictures["lighting"] != tags.tag).any()
    np.testing.assert_array_equal(pictures["detail"], pictures["lighting"])
    _, _, everything, _ = program(params, keys(), jnp.ones(4, bool))
    for name in chain.CHAIN:
        np.testing.assert_allclose(everything[name], made[2][name], atol=1e-6)


def test_norms_see_the_batch_of_all_devices(params, made):
    """Four devices with a picture each make those of one device."""
    generator = GENERATOR.clone(axis_name=devices_lib.AXIS)

    def pictures(params, data):
        return adversary.generate(generator, params, jax.random.wrap_key_data(data))[2]

    here = jax.devices()[:4]
    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    mapped = devices_lib.pmap(pictures, specs, devices_lib.SHARDED, devices=here)
    data = np.asarray(jax.random.key_data(keys()))
    given = devices_lib.replicate(params, here), devices_lib.shard_batch(data, here)
    found = jax.device_get(mapped(*given))
    for name in chain.CHAIN:
        np.testing.assert_allclose(found[name], made[2][name], atol=1e-4)


def test_sizes_that_the_layout_cannot_make(tmp_path):
    config = rendergan_case.config(tmp_path, "detail")
    config.markers.generator = "maps"
    config.data.size = 24
    sentence = "markers.generator='maps' makes pictures of 16, 32, 64, 128 pixels; data.size is 24"
    with pytest.raises(ValueError, match=sentence):
        learning.STAGE.check(config)
    config.markers.generator = "map"
    with pytest.raises(ValueError, match=r"markers\.generator must be one of few, maps; got 'map'"):
        learning.STAGE.check(config)
