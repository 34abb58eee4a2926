"""GuidedMixup: the ratio of maps, and partners that are salient elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing import MIXERS
from mixaug_jax.mixing.guided import distances, far_partners, guided_mix, smoothed


def test_mixed_images_are_the_published_ones(golden):
    g = golden("mixers_net/mixers.npz")
    x = (g["image_u8"] / np.float32(255) - g["mean"]) / g["std"]
    maps = jax.jit(smoothed)(g["guided_sr_map"])
    image, share = jax.jit(guided_mix)(x, maps, g["partner"])
    np.testing.assert_allclose(image, g["guided_image"], rtol=0, atol=1e-4)
    onehot = np.eye(int(g["num_classes"]), dtype=np.float32)[g["label"]]
    share = np.asarray(share)[:, None]
    targets = share * onehot + (1 - share) * onehot[g["partner"]]
    np.testing.assert_allclose(targets, g["guided_targets"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(jax.jit(distances)(maps), g["guided_distance"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(far_partners(g["guided_distance"]), g["guided_partner_greedy"])


@pytest.mark.parametrize("count", [2, 3, 9])
def test_partners_are_one_cycle_of_greedy_steps(count):
    rng = np.random.default_rng(count)
    half = rng.uniform(1, 2, (count, count)).astype(np.float32)
    distance = np.triu(half, 1) + np.triu(half, 1).T
    partner = np.asarray(far_partners(distance))
    first = np.unravel_index(distance.argmax(), distance.shape)[0]
    at, seen = int(first), []
    while at not in seen:
        left = [i for i in range(count) if i not in (*seen, at)]
        if left:
            assert distance[at, partner[at]] == max(distance[at, i] for i in left)
        seen.append(at)
        at = int(partner[at])
    assert len(seen) == count
    assert at == first


def test_maps_that_are_all_alike_are_one_cycle_too():
    partner = np.asarray(far_partners(np.zeros((5, 5), np.float32)))
    at, seen = 0, []
    while at not in seen:
        seen.append(at)
        at = int(partner[at])
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_one_image_is_its_own_partner():
    np.testing.assert_array_equal(far_partners(np.zeros((1, 1), np.float32)), [0])


def test_greedy_pairs_and_gradient_maps_run_in_the_mixer():
    x, net = tiny.images(), tiny.net(6)
    given = {"net": net, "saliency": "gradient", "partners": "greedy"}
    run = jax.jit(lambda key: MIXERS["guidedmixup"](key, x, jnp.eye(6), **given))
    out, labels = run(jax.random.key(0))
    again, _ = run(jax.random.key(1))
    np.testing.assert_array_equal(out, again)  # nothing is left to draw
    assert (np.asarray(labels) > 0).sum() == 12  # nobody is its own partner
    np.testing.assert_allclose(np.sum(labels, 1), 1, rtol=1e-5)
