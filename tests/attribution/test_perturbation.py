"""Occlusion, ablation and RISE, against captum, the authors' code and plain loops."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, golden_net, random_net

from mixaug_jax.attribution import METHODS
from mixaug_jax.attribution.perturbation import rise_mask

occlusion, feature_ablation, rise = (METHODS[n] for n in ("occlusion", "feature_ablation", "rise"))


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("attribution/attr.npz"))


@pytest.fixture(scope="module")
def metrics(golden):
    return golden("attribution/metrics.npz")


@pytest.fixture(scope="module")
def net(golden):
    return golden_net(golden("attribution/tinynet_weights.npz"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("occlusion_w8s4_zero", {"window": 8, "stride": 4}),
        ("occlusion_w5s3_zero", {"window": 5, "stride": 3}),
        ("occlusion_w8s4_mean", {"window": 8, "stride": 4, "baseline": "mean"}),
        ("occlusion_w1ch_4s4", {"window": 4, "stride": 4, "per_channel": True}),
        ("occlusion_prob_w8s4_zero", {"window": (8, 8), "stride": (4, 4), "output": "prob"}),
    ],
)
def test_golden_occlusion(net, arrays, name, options):
    close(explain(occlusion, net, arrays["x"], arrays["target"], **options), arrays[name], 1e-5)


def test_golden_feature_ablation(net, arrays):
    grid = explain(feature_ablation, net, arrays["x"], arrays["target"])
    close(grid, arrays["feature_ablation_grid8"], 1e-5)
    cell = np.arange(32) // 8
    masks = (4 * cell[:, None] + cell) == np.arange(16)[:, None, None]
    given = explain(feature_ablation, net, arrays["x"], arrays["target"], masks=masks, chunk=5)
    close(given, grid, 1e-6)


def test_golden_rise(net, arrays, metrics):
    options = {"masks": metrics["rise_masks"], "prob": 0.5, "chunk": 10}
    ours = explain(rise, net, arrays["x"], arrays["target"], **options)
    close(ours[..., 0], metrics["rise_saliency"], 1e-5)


def test_golden_rise_masks(metrics):
    one = jax.jit(jax.vmap(lambda grid, shift: rise_mask(grid, shift, (32, 32))))
    close(one(metrics["rise_grid"], metrics["rise_shift"]), metrics["rise_masks"], 1e-6)


def wide():
    """An image that is wider than high, and no multiple of anything."""
    net, _ = random_net()
    return net, jax.random.normal(jax.random.key(9), (1, 11, 14, 3)), np.asarray([2])


@pytest.mark.parametrize(
    ("window", "stride"),
    [((3, 5), (2, 4)), (11, 1), ((11, 14), 5), (2, 5)],
)
def test_occlusion_by_hand(window, stride):
    net, x, label = wide()
    ours = explain(occlusion, net, x, label, window=window, stride=stride, baseline=0.5, chunk=4)
    rows, cols = (window, window) if isinstance(window, int) else window
    down, right = (stride, stride) if isinstance(stride, int) else stride
    boxes, images = [], [x[0]]
    for i in range(math.ceil((11 - rows) / down) + 1):
        for j in range(math.ceil((14 - cols) / right) + 1):
            box = np.zeros((11, 14, 1), bool)
            box[i * down : i * down + rows, j * right : j * right + cols] = True
            boxes.append(box)
            images.append(np.where(box, 0.5, x[0]))
    logits = np.asarray(net.logits(np.stack(images)))[:, 2]
    boxes = np.stack(boxes)
    total = ((logits[0] - logits[1:])[:, None, None, None] * boxes).sum(0)
    close(ours[0], total / np.maximum(boxes.sum(0), 1), 1e-5)
    if stride == 5 and window == 2:
        assert (ours[0, 2:5] == 0).all(), "nothing covers these rows"


def test_occlusion_per_channel_by_hand():
    net, x, label = wide()
    ours = explain(occlusion, net, x, label, window=(11, 14), per_channel=True, output="loss")
    images = np.stack([x[0], *(np.where(np.arange(3) == c, 0, x[0]) for c in range(3))])
    losses = -np.asarray(jax.nn.log_softmax(net.logits(images)))[:, 2]
    close(ours[0], np.broadcast_to(losses[0] - losses[1:], (11, 14, 3)), 1e-5)


@pytest.mark.parametrize("method", [occlusion, feature_ablation], ids=["occlusion", "ablation"])
def test_chunks_agree(method):
    net, x, label = wide()
    whole = explain(method, net, x, label, window=4, chunk=0)
    for chunk in (1, 5, 100):
        close(explain(method, net, x, label, window=4, chunk=chunk), whole, 1e-6)


def test_ablation_of_channels_and_of_overlaps():
    net, x, label = wide()
    masks = np.zeros((3, 11, 14, 3), bool)
    masks[0, :5, :, 0] = masks[1, 3:8, :, 0] = masks[2, ..., 2] = True
    ours = explain(feature_ablation, net, x, label, masks=masks, baseline="mean")
    fill = np.asarray(x[0]).mean((0, 1))
    logits = np.asarray(net.logits(np.stack([x[0], *np.where(masks, fill, x[0])])))[:, 2]
    close(ours[0], np.tensordot(logits[0] - logits[1:], masks, 1), 1e-5)
    assert (ours[..., 1] == 0).all()


def test_rise_draws():
    net, x, label = wide()

    def run(chunk, seed=1):
        options = {"samples": 20, "cells": 4, "key": seed, "chunk": chunk}
        return explain(rise, net, x, label, **options)

    whole = run(0)
    assert whole.shape == (1, 11, 14, 1)
    for chunk in (1, 7):
        close(run(chunk), whole, 1e-6)
    assert np.abs(run(0, seed=2) - whole).max() > 1e-2 * whole.max()


def test_rise_masks_show_their_share():
    """With an output that is the same for every mask, RISE is that output times mean mask / prob: about 1."""
    net, x, label = wide()
    flat = jax.tree.map(jnp.zeros_like, net)
    ours = explain(rise, flat, x, label, samples=3000, cells=3, prob=0.3, chunk=500)
    np.testing.assert_allclose(ours * 5, 1, atol=0.1)
    everything = explain(rise, flat, x, label, samples=3, prob=1.0)
    np.testing.assert_allclose(everything * 5, 1, atol=1e-6)


def test_rise_sees_the_baseline_where_the_mask_is_0():
    net, x, label = wide()
    masks = np.stack([np.zeros((11, 14)), np.full((11, 14), 0.25)])
    ours = explain(rise, net, x, label, masks=masks, baseline=0.5, prob=1.0, output="logit")
    logit = np.asarray(net.logits(0.25 * x + 0.75 * 0.5))[0, 2]
    close(ours[0], np.full((11, 14, 1), 0.25 * logit / 2), 1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            occlusion,
            {"window": 13},
            "window must not be longer than the image's side of 12 pixels; got 13",
        ),
        (
            occlusion,
            {"window": (2, 13)},
            "window must not be longer than the image's side of 12 pixels; got 13",
        ),
        (occlusion, {"window": 0}, "window must be a positive integer or a pair"),
        (
            occlusion,
            {"window": 4, "stride": (1, 2, 3)},
            "stride must be a positive integer or a pair",
        ),
        (
            feature_ablation,
            {"window": 13},
            "window must not be longer than the image's side of 12 pixels; got 13",
        ),
        (
            feature_ablation,
            {"masks": np.ones((2, 5, 5))},
            r"masks must have the shape \[n, 12, 12\]",
        ),
        (rise, {"prob": 0.0}, "prob must be above 0 and at most 1"),
        (rise, {"cells": 0}, "cells must be an integer of at least 1"),
        (rise, {"masks": np.ones((12, 12))}, r"masks must have the shape \[n, 12, 12\]"),
    ],
)
def test_bad_options(method, options, message):
    net, images = random_net()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda net, x: method(net, x, 0, **options), net, images[0])


def test_ablation_of_an_undefined_output_is_undefined_everywhere():
    """Outside of all masks, too."""
    net, x = random_net()
    variables = jax.tree.map(
        lambda leaf: leaf.at[..., 2].set(jnp.nan), net.variables["params"]["fc"]
    )
    params = {**net.variables["params"], "fc": variables}
    broken = dataclasses.replace(net, variables={**net.variables, "params": params})
    masks = np.zeros((1, 12, 12), bool)
    masks[0, 3, 4] = True
    assert np.isnan(feature_ablation(broken, x[0], 2, masks=masks)).all()
    assert np.isfinite(feature_ablation(broken, x[0], 1, masks=masks)).all()


def test_rise_with_one_cell():
    """Its mask is one number everywhere: visible, or not."""
    net, x = random_net()
    ours = rise(net, x[0], 1, cells=1, samples=4)
    assert ours.shape == (12, 12, 1)
    close(ours, np.full_like(ours, ours[0, 0, 0]), 1e-6)
