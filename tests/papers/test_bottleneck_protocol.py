"""The table's maps and measures against the authors' code, and its patterns and statistics against plain NumPy."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import golden_net, random_net

from mixaug_jax.attribution import METHODS
from mixaug_jax.core.checks import UnsupportedError
from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.papers.bottleneck_table import (
    comparison_table,
    protocol,
    published_rows,
    row_results,
    signal_patterns,
)
from mixaug_jax.scores import subset_drops

# Rows by the names of the golden file, with the tolerance of their maps, a share of the largest value.
ROWS = {
    "gradient": ("gradient", 2e-4), "saliency": ("saliency", 2e-4),
    "smoothgrad": ("smoothgrad", 1e-3), "integrated_gradients": ("integrated_gradients", 2e-3),
    "guided_backprop": ("guided_backprop", 1e-4), "gradcam": ("gradcam", 1e-3),
    "guided_gradcam": ("guided_gradcam", 1e-3), "occlusion_a": ("occlusion_8", 1e-4),
    "occlusion_b": ("occlusion_4", 1e-4), "occlusion_b_zero": ("occlusion_4", 1e-4),
    "iba": ("iba_10", 2e-3),
}  # fmt: skip


@pytest.fixture(scope="module")
def case(golden):
    """The golden arrays, the network and its images; all arrays with the whole file, else some."""
    arrays = dict(golden("iba_dtd/metrics.npz"))
    meta = json.loads(str(arrays["meta"]))
    net = golden_net({k[4:]: v for k, v in arrays.items() if k.startswith("net/")})
    view = Preprocess(meta["side"], resize=64, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = MODELS["tiny"](meta["classes"], width=meta["filters"] / 8)
    x = ((arrays["images"] / 255 - 0.5) / 0.25).astype(np.float32)
    return arrays, dataclasses.replace(net, model=model, preprocess=view), x, meta


def given(name, arrays):
    """Options that stand for the draws of the authors' code."""
    if name == "smoothgrad":
        return {"noise": arrays["smoothgrad_noise_f16"].astype(np.float32)}
    if name == "iba":
        noise, std = arrays["iba_noise_f16"].astype(np.float32), arrays["iba_std"]
        return {"noise": noise, "steps": len(noise), "stats": (0 * std, std, 0 * std + 1)}
    return {"layer": "relu4"} if name == "gradcam" else {}


@pytest.mark.parametrize("name", ROWS)
def test_golden_maps(case, name):
    arrays, net, x, _ = case
    whole = f"heat/{name}" in arrays
    if not whole and f"rows/{name}" not in arrays:
        pytest.skip("the whole golden file has it")
    x = x if whole else x[:1]
    row = published_rows.published((8, 4), (10.0,), "relu3")[ROWS[name][0]]
    removed = row.removed if name.endswith("zero") else {}
    raws = []
    for part in row.parts:
        f = METHODS[part.method] if isinstance(part.method, str) else part.method
        options = {**part.options, **removed, **given(name, arrays)}
        labels = arrays["top1" if part.predicted else "labels"][: len(x)]
        run = jax.vmap(functools.partial(f, **options), (None, 0, 0))
        raws.append(np.asarray(jax.jit(run)(net, x, labels)))
    found = row.post(*raws)
    expected = arrays[f"heat/{name}"] if whole else arrays[f"rows/{name}"]
    found = found if whole else found[:, ::8]
    scale = 1 if name in ("gradcam", "iba") else np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROWS[name][1] * scale)


def heats(arrays):
    return {
        k.removeprefix("heat/"): v
        for k, v in arrays.items()
        if k.startswith("heat/") and k != "heat/ties"
    }


@pytest.mark.parametrize("side", [2, 4])
def test_golden_degradation(case, side):
    arrays, net, x, meta = case
    units = (meta["side"] // side) ** 2
    gone = protocol.counts(units)
    np.testing.assert_array_equal(gone, arrays[f"deg/counts_t{side}"])
    probabilities = np.asarray(jax.nn.softmax(net.logits(x)))
    top, one = probabilities.max(-1), np.ones((len(x), 1))
    assert abs(top.mean() - arrays["deg/t1_top1"]) < 1e-5
    run = jax.vmap(
        functools.partial(protocol.degraded, window=side, gone=(*gone, units)), (0, None, 0, 0, 0)
    )
    run = jax.jit(run)
    for name, heat in heats(arrays).items():
        curves = run(protocol.rankings(heat, side), net, x, arrays["labels"], arrays["top1"])
        curves = np.asarray(curves, np.float64)
        sure = determined(heat, side, (*gone, units))
        assert sure.mean() > 0.2, name
        for k, (which, long) in enumerate((("target", "label"), ("top1", "top1"))):
            stored = [arrays[f"deg/{first}_t{side}_{which}/{name}"] for first in ("morf", "lerf")]
            last = arrays[f"deg/baseline_prob_{long}"]
            expected = np.concatenate(
                [np.stack(stored, 1), np.stack([last, last], 1)[..., None]], 2
            )
            found = np.where(sure, curves[..., k], expected)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
            np.testing.assert_allclose(curves[:, 0, -1, k], last, rtol=0, atol=1e-5)
            score = protocol.degradation(found, top, one)[0]
            assert abs(score - arrays[f"deg/score_t{side}_{which}/{name}"]) < 5e-4


def determined(heat, side, gone):
    """bool [N,2,T]: at which points the tiles that are gone do not depend on the order of equal ones, in which NumPy's argsort
    brings them on one processor in one way and on another in another."""
    n, height, width = heat.shape
    tiles = heat.astype(np.float64).reshape(n, height // side, side, width // side, side)
    values = np.sort(tiles.sum((2, 4)).reshape(n, -1), 1)
    edges = np.ones((n, values.shape[1] + 1), bool)
    edges[:, 1:-1] = np.diff(values) > 1e-9
    return np.stack([edges[:, ::-1][:, list(gone)], edges[:, list(gone)]], 1)


def test_golden_boxes(case):
    arrays, net, _, meta = case
    masks = []
    for (height, width), box in zip(
        arrays["box/relative"][:, :2], arrays["boxes"] / meta["side"], strict=True
    ):
        stored = np.array([[height, width, height, width] * box]).astype(int)
        masks.append(protocol.box_mask(stored, (int(height), int(width)), net.preprocess))
    masks = np.stack(masks)
    np.testing.assert_allclose(masks.mean((1, 2)), arrays["box/area"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal((masks > 0.5).sum((1, 2)), arrays["box/n"])
    np.testing.assert_array_equal(protocol.kept(masks), arrays["box/kept"])
    for name, heat in heats(arrays).items():
        top, mass = protocol.top_ratio(heat, masks), protocol.mass_ratio(heat, masks)
        np.testing.assert_allclose(top, arrays[f"box/top_ratio/{name}"], rtol=0, atol=3e-3)
        if f"box/mass_ratio/{name}" in arrays:  # not of signed random values
            np.testing.assert_allclose(mass, arrays[f"box/mass_ratio/{name}"], rtol=0, atol=1e-3)


def test_golden_sensitivity(case):
    arrays, net, x, meta = case
    cells = meta["side"] // 2
    np.testing.assert_array_equal(protocol.sizes(cells**2), arrays["sens/n"])
    bits = arrays["sens/tile_masks_bits"]
    masks = np.unpackbits(bits, axis=-1)[..., : cells**2].reshape(*bits.shape[:2], cells, cells) > 0
    zero = jnp.zeros((meta["side"],) * 2)
    run = jax.vmap(
        lambda net, x, y: subset_drops(zero, net, x, y, masks=masks, window=2)[1], (None, 0, 0)
    )
    drops = np.asarray(jax.jit(run)(net, x, arrays["labels"])).transpose(1, 0, 2)
    largest = np.abs(arrays["sens/drops"]).max()
    np.testing.assert_allclose(drops, arrays["sens/drops"], rtol=0, atol=1e-4 * largest)
    for name, heat in heats(arrays).items():
        sums, expected = protocol.subset_sums(heat, masks, 2), arrays[f"sens/sums/{name}"]
        np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        pooled = protocol.pooled(sums, drops, np.ones((len(x), 1)))[:, 0]
        np.testing.assert_allclose(pooled, arrays[f"sens/pooled/{name}"], rtol=0, atol=1e-3)


def test_counts():
    assert protocol.counts(784)[:5] == (0, 1, 9, 17, 25)
    assert protocol.counts(784)[-2:] == (769, 777)
    assert protocol.counts(256)[:4] == (0, 1, 4, 6)
    assert len(protocol.counts(784)) == len(protocol.counts(256)) == 100
    assert protocol.counts(9) == protocol.counts(9, 0) == tuple(range(10))


def test_intervals_are_those_of_repeated_images():
    """Weights stand for images that are drawn again."""
    draw = np.random.default_rng(0)
    curves, top = draw.random((5, 2, 6, 2)), draw.random(5) + 1
    weights = np.array([[2], [0], [1], [3], [0]])
    again = np.repeat(np.arange(5), weights[:, 0])
    ones = np.ones((6, 1))
    for at in ((), np.linspace(0, 1, 6)):
        found = protocol.degradation(curves[..., 0], top, weights, at)
        right = protocol.degradation(curves[again][..., 0], top[again], ones, at)
        np.testing.assert_allclose(found, right, rtol=1e-5)
    twice = np.concatenate([curves, curves[:, :, -1:]], 2)[..., 0]
    area = protocol.degradation(twice, top, weights, np.append(np.linspace(0, 1, 6), 1.0))
    np.testing.assert_allclose(area, found, rtol=1e-5)
    sums, drops = draw.random((2, 3, 5, 7))
    found = protocol.pooled(sums, drops, weights)[:, 0]
    for k in range(3):
        pair = sums[k, again].ravel(), drops[k, again].ravel()
        np.testing.assert_allclose(found[k], np.corrcoef(*pair)[0, 1])
    alone = [
        [np.corrcoef(a, b)[0, 1] for a, b in zip(*pair, strict=True)]
        for pair in zip(sums, drops, strict=True)
    ]
    np.testing.assert_allclose(protocol.per_image(sums, drops), alone)


def test_maps_that_say_nothing():
    masks = np.zeros((2, 4, 4))
    masks[:, :2, :2] = 1
    heat = np.stack([np.zeros((4, 4)), np.full((4, 4), np.nan)])
    np.testing.assert_array_equal(protocol.top_ratio(heat, masks), 0)
    np.testing.assert_array_equal(protocol.mass_ratio(heat[:1], masks[:1]), 0)
    first, second = protocol.rankings(heat, 2)
    np.testing.assert_array_equal(first, second)
    assert not protocol.pooled(np.zeros((1, 2, 3)), np.ones((1, 2, 3)), np.ones((2, 1))).any()
    # Removal that does not lower the mean has no score.
    assert protocol.degradation(np.ones((2, 2, 3)), np.ones(2), np.ones((2, 1))) == 0


def test_one_map_without_numbers_costs_the_others_nothing():
    """A map that sums to 0 is not divided; one with NaN takes no part in the correlations of the rest."""
    draw = np.random.default_rng(3)
    maps = draw.random((3, 4, 4))
    maps[1] = np.arange(16.0).reshape(4, 4) - 7.5
    maps[2] = 0
    found = published_rows.clipped(maps)
    np.testing.assert_allclose(found.sum((1, 2)), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found[1].max(), np.percentile(maps[1], 99.5))
    sums, drops = draw.random((2, 3, 5, 7))
    weights = np.array([[2, 1], [1, 1], [0, 1], [3, 1], [1, 1]])
    kept = [0, 2, 3, 4]
    right = protocol.pooled(sums[:, kept], drops[:, kept], weights[kept])
    sums[0, 1, 2] = np.nan
    np.testing.assert_allclose(protocol.pooled(sums, drops, weights), right)
    each = protocol.per_image(sums, drops)
    assert np.isnan(each[:, 1]).all()
    assert np.isfinite(each[:, kept]).all()
    assert np.isnan(protocol.pooled(sums[:, [1]], drops[:, [1]], weights[[1]])).all()
    rows = {"gradient": published_rows.published((), ())["gradient"]}
    results = {"gradient": row_results.Result({"sums.8": sums}, {})}
    cells = comparison_table.table(rows, results, {8: drops}, np.ones(5))["gradient"]
    cell, beside = cells["sensitivity-n 8"], cells["sensitivity-n 8, per image"]
    right = protocol.pooled(sums[:, kept], drops[:, kept], np.ones((4, 1)))
    np.testing.assert_allclose(cell.value, right.mean())
    np.testing.assert_allclose(beside.value, each[:, kept].mean())
    assert cell.images == beside.images == 4
    assert cell.low <= cell.value <= cell.high


def test_subsets_are_drawn_without_replacement():
    found = protocol.subsets((3, 4), (1, 5, 11), 6, seed=2)
    assert found.shape == (3, 6, 3, 4)
    np.testing.assert_array_equal(found.sum((2, 3)), [[1] * 6, [5] * 6, [11] * 6])
    np.testing.assert_array_equal(found, protocol.subsets((3, 4), (1, 5, 11), 6, seed=2))


def test_tile_sums_of_a_size_that_no_tile_divides():
    maps = np.arange(35.0).reshape(1, 5, 7)
    found = protocol.tile_sums(maps, 3)
    assert found.shape == (1, 2, 3)
    assert found[0, 1, 2] == maps[0, 3:, 6:].sum()


def test_patterns():
    """Against plain NumPy, over the places where an output is positive."""
    model = MODELS["vgg16"](4, width=1 / 64, stem="cifar")
    x = np.asarray(jax.random.normal(jax.random.key(4), (6, 32, 32, 3)))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    net = Net(model, variables, Preprocess(32))
    found = signal_patterns.patterns(net, np.split(x, 2))
    params = jax.tree.map(np.float64, net.variables["params"])
    assert found.keys() == params.keys()
    # The last layer sees the largest of conv5's 2 x 2 nodes; the first one 3 x 3 pixels, zeros around the image.
    dense = np.asarray(net.features(x, "conv5"), np.float64).max((1, 2))
    padded = np.pad(np.float64(x), [(0, 0), (1, 1), (1, 1), (0, 0)])
    patches = np.stack([padded[:, i : i + 32, j : j + 32] for i in range(3) for j in range(3)], 3)
    for name, h in (("classifier", dense), ("features.0", patches.reshape(-1, 27))):
        kernel = params[name]["kernel"]
        kernel = kernel.reshape(-1, kernel.shape[-1])
        y = h @ kernel + params[name]["bias"]
        for j in range(y.shape[1]):
            ours, on = found[name].reshape(kernel.shape)[:, j], y[:, j] > 0
            covariance = 0 * h[0]
            if on.any():
                covariance = (h[on] * y[on, j : j + 1]).mean(0) - h[on].mean(0) * y[on, j].mean()
            size = kernel[:, j] @ covariance
            if abs(size) > 1e-5:
                np.testing.assert_allclose(
                    ours, covariance / size, rtol=1e-2, atol=1e-2 * np.abs(ours).max()
                )
    one = jax.jit(lambda x: signal_patterns.pattern_attribution(net, x, 1, stats=found))(x[0])
    assert one.shape == (32, 32, 3)
    assert np.isfinite(one).all()


@pytest.mark.usefixtures("unchecked")
def test_patterns_are_refused():
    net, x = random_net()
    with pytest.raises(ValueError, match="pattern_attribution needs stats="):
        signal_patterns.pattern_attribution(net, x[0], 1)
    model = MODELS["resnet18"](3, width=1 / 64)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    residual = Net(model, variables, Preprocess(32))
    with pytest.raises(UnsupportedError, match="networks without residual sums, as VGG"):
        jax.eval_shape(signal_patterns.sums_of, residual, jnp.zeros((1, 32, 32, 3)))


def test_every_recalled_number_has_a_row():
    rows = published_rows.published((8, 14), (1.0, 10.0, 100.0))
    for network in published_rows.RECALLED.values():
        assert network.keys() <= rows.keys()
    assert comparison_table.recalled("vgg16", "iba_10", "degradation 14") == 0.588
    assert comparison_table.recalled("vgg16", "sobel", "boxes") is None
    assert comparison_table.recalled("tiny", "random", "boxes") is None
