"""Units of two networks, matched by their activations."""

import dataclasses

import jax
import numpy as np
import pytest
import unit_switches as switches

from mixaug_jax.dissection import Matching, match


def permuted(net, order):
    """The same network with the units of its convolution in another order, at other scales."""
    conv, dense = net.variables["params"]["conv"], net.variables["params"]["fc"]
    scale = np.float32(2.0) ** np.arange(6)
    params = {
        "conv": {"kernel": conv["kernel"][..., order] * scale, "bias": conv["bias"][order] * scale},
        "fc": {"kernel": dense["kernel"][order] / scale[:, None], "bias": dense["bias"]},
    }
    return dataclasses.replace(net, variables={"params": params})


def test_a_network_with_permuted_units_is_matched_one_to_one():
    net, source, order = switches.drawn(), switches.noise(20), np.array([3, 0, 5, 1, 4, 2])
    other = permuted(net, order)
    x = switches.shares(source[0]["image"])[None]
    np.testing.assert_allclose(net.logits(x), other.logits(x), atol=1e-4)
    found = match((net, other), source, range(20), ("mixed", "mixed"))
    np.testing.assert_array_equal(order[found.other], np.arange(6))
    np.testing.assert_allclose(found.value, 1, atol=1e-6)
    # With the images shuffled no unit is like its match.
    assert found.null.max() < 0.8
    h = np.stack(
        [
            switches.convolution(source[n]["image"] / 255, net.variables["params"]["conv"])
            for n in range(20)
        ]
    )
    np.testing.assert_allclose(
        found.correlation[:, found.other], np.corrcoef(h.reshape(-1, 6).T), atol=1e-5
    )


def test_more_units_than_the_other_has_and_maps_of_other_sizes():
    """Two of six pixels' means go with three channels; batches and devices do not matter."""
    net, source = switches.drawn(), switches.noise(9, side=9)
    found = match((net, net), source, range(9), ("mixed", "pixels"))
    assert found.correlation.shape == (6, 3)
    assert sorted(found.other.tolist()) == [-1, -1, -1, 0, 1, 2]
    assert np.isnan(found.value[found.other < 0]).all()
    few, alone = Matching(batch_size=2), jax.devices()[:1]
    one = match((net, net), source, range(9), ("mixed", "pixels"), few, devices=alone)
    np.testing.assert_allclose(one.correlation, found.correlation, atol=1e-6)
    means = [
        np.stack([f(source[n]["image"] / 255).mean((0, 1)) for n in range(9)])
        for f in (lambda x: switches.convolution(x, net.variables["params"]["conv"]), lambda x: x)
    ]
    expected = np.corrcoef(means[0].T, means[1].T)[:6, 6:]
    np.testing.assert_allclose(found.correlation, expected, atol=1e-4)


def test_a_unit_that_never_changes_is_like_none():
    net, source = switches.made([[0, 1], [1, 0], [0, 0]], [0, 0]), switches.switched()
    dead = dataclasses.replace(net, preprocess=without)
    found = match((net, dead), source, range(12), ("pixels", "pixels"))
    assert (found.correlation[:, 2] == 0).all()
    assert found.other.tolist()[:2] == [0, 1]
    with pytest.raises(
        ValueError, match="the number of images must be an integer of at least 2; got 1"
    ):
        match((net, net), source, [0], ("pixels", "pixels"))
    net, source = switches.drawn(), switches.noise(4)
    with pytest.raises(ValueError, match=r"indices must lie in 0\.\.3; got 4"):
        match((net, net), source, [0, 4], ("mixed", "mixed"))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_pair_is_said():
    net, source = switches.drawn(), switches.noise(4)
    with pytest.raises(ValueError, match="layers must be a pair, one of each network; got 'mixed'"):
        match((net, net), source, range(4), "mixed")
    with pytest.raises(ValueError, match="nets must be a pair, one of each network"):
        match((net,), source, range(4), ("mixed", "mixed"))
    with pytest.raises(ValueError, match=r"indices must be a row of integers; got \[0, 1\.9\]"):
        match((net, net), source, [0, 1.9], ("mixed", "mixed"))


def without(image):
    return switches.shares(image) * np.array([1, 1, 0], np.float32)


def test_activations_that_are_not_finite():
    net, source = switches.drawn(), switches.noise(4)
    conv = net.variables["params"]["conv"] | {"bias": np.full(6, np.nan, np.float32)}
    broken = dataclasses.replace(
        net, variables={"params": net.variables["params"] | {"conv": conv}}
    )
    with pytest.raises(ValueError, match="the activations of mixed in image 2 hold NaN"):
        match((net, broken), source, [2, 3], ("mixed", "mixed"))
