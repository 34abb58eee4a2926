"""Curves of deletion, insertion, degradation, pixel flipping and ROAD, against the authors' code and plain loops."""

import functools
import math

import jax
import numpy as np
import pytest
from attribution_cases import golden_net, random_net
from scipy.ndimage import gaussian_filter
from score_cases import HEATS, linear_net, near, run

from mixaug_jax.scores import SCORES, auc
from mixaug_jax.scores.imputation import impute
from mixaug_jax.scores.maps import ranks
from mixaug_jax.scores.replacement import fill, rise_blur

CURVES = ("deletion", "insertion", "morf", "lerf", "pixel_flipping", "road")


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("attribution/attr.npz"))


@pytest.fixture(scope="module")
def metrics(golden):
    return dict(golden("attribution/metrics.npz"))


@pytest.fixture(scope="module")
def net(golden):
    return golden_net(golden("attribution/tinynet_weights.npz"))


def curves(name, net, arrays, metrics, **options):
    """{heat map: curves [N,T+1]} of the golden images."""
    heats = np.concatenate([metrics[f"heat_{h}"] for h in HEATS])
    images, labels = np.tile(arrays["x"], (3, 1, 1, 1)), np.tile(arrays["target"], 3)
    ours = run(name, heats, net, images, labels, **options)
    return dict(zip(HEATS, ours.reshape(3, len(arrays["x"]), -1), strict=True))


@pytest.mark.parametrize(("name", "short"), [("deletion", "del"), ("insertion", "ins")])
def test_golden_rise(net, arrays, metrics, name, short):
    """The defaults are RISE's: a row's number of pixels, the label's probability, zeros or blur."""
    for h, ours in curves(name, net, arrays, metrics, chunk=0).items():
        near(ours, metrics[f"rise_{short}_{h}_scores"], 1e-6)
        near(auc(ours), metrics[f"rise_{short}_{h}_auc"], 1e-6)


def test_golden_rise_blur(arrays, metrics):
    near(jax.vmap(rise_blur)(arrays["x"]), metrics["rise_blur_substrate"], 5e-6)
    point = np.zeros((11, 11, 1), np.float32)
    point[5, 5] = 1
    near(rise_blur(point)[..., 0], metrics["rise_gkern_11_5"], 1e-8)
    near(rise_blur(point)[..., 0], gaussian_filter(point[..., 0], 5), 1e-8)


@pytest.mark.parametrize("window", [4, 8])
@pytest.mark.parametrize("name", ["morf", "lerf"])
def test_golden_degradation(net, arrays, metrics, name, window):
    for h, ours in curves(name, net, arrays, metrics, window=window, chunk=13).items():
        heat = metrics[f"heat_{h}"].astype(np.float64)
        cells = 32 // window
        tiles = heat.reshape(-1, cells, window, cells, window).mean((2, 4))
        means = np.sort(tiles.reshape(len(heat), -1))
        tied = np.diff(means if name == "lerf" else means[:, ::-1]) == 0
        # Whichever of two equal tiles goes first, the points before and after both are the same.
        settled = ~np.pad(tied, ((0, 0), (1, 1)))
        assert settled.mean() > 0.99
        reference = metrics[f"iba_{name}_t{window}_{h}"]
        near(ours[settled], reference[settled], 1e-6)


def test_golden_degradation_baseline(arrays, metrics):
    for image, color in zip(arrays["x"], metrics["iba_degradation_baseline"], strict=True):
        near(fill(image, "mean"), np.broadcast_to(color, image.shape), 1e-6)


@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_golden_road(net, arrays, metrics, order):
    fractions = tuple(metrics["road_fractions"])
    options = {"fractions": fractions, "order": order, "sigma": 0.0, "chunk": 3}
    clean = np.take_along_axis(arrays["probs"], arrays["target"][:, None], 1)[:, 0]
    for h, ours in curves("road", net, arrays, metrics, **options).items():
        probs = metrics[f"road_probs_{order}_{h}"]
        reference = [np.take_along_axis(p, arrays["target"][:, None], 1)[:, 0] for p in probs]
        near(ours, np.stack([clean, *reference], 1), 5e-5)


def test_golden_road_imputation(arrays, metrics):
    for k, fraction in enumerate(metrics["road_fractions"]):
        gone = np.stack([ranks(h) < int(fraction * 1024) for h in metrics["heat_random"][:2]])
        ours = jax.jit(jax.vmap(impute))(arrays["x"][:2], gone)
        near(ours, metrics["road_imputed_random"][k], 1e-4)


@pytest.mark.parametrize(
    ("base", "output"), [("black", "prob"), ("white", "prob"), ("black", "logit")]
)
def test_golden_pixel_flipping(net, arrays, metrics, base, output):
    x = arrays["x"]
    extreme = x.min((1, 2, 3)) if base == "black" else x.max((1, 2, 3))
    options = {"step": 64, "output": output, "chunk": 7}
    each = {"baseline": extreme}
    ours = run("pixel_flipping", metrics["heat3_grad"], net, x, arrays["target"], each, **options)
    suffix = "" if output == "prob" else "_logit"
    near(ours[:, 1:], metrics[f"quantus_pixelflip_{base}_heat3{suffix}"], 5e-6)
    near(ours[:, 0], np.take_along_axis(*score_table(arrays, output), 1)[:, 0], 5e-6)


def score_table(arrays, output):
    return arrays["probs" if output == "prob" else "logits"], arrays["target"][:, None]


def test_golden_pixel_flipping_with_a_drifting_mean(net, arrays, metrics):
    """Quantus's mean is that of the image as flipped so far: a replacement of its own for every step."""
    fills = arrays["x"].copy()
    for image, heat in zip(fills, metrics["heat3_grad"], strict=True):
        now, order = image.ravel().copy(), np.argsort(-heat.ravel())
        for step in order.reshape(-1, 64):
            now[step] = now.mean()
        image[...] = now.reshape(image.shape)
    each = {"baseline": fills}
    maps = metrics["heat3_grad"]
    ours = run("pixel_flipping", maps, net, arrays["x"], arrays["target"], each, step=64)
    near(ours[:, 1:], metrics["quantus_pixelflip_mean_heat3"], 5e-6)


def problem(seed=0):
    """A network, a wide image that no tile divides, its label and a map."""
    net, _ = random_net()
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(11, 14)).astype(np.float32),
        net,
        rng.normal(size=(11, 14, 3)).astype(np.float32),
        2,
    )


def single(name, heat, net, image, label, **options):
    return run(name, heat[None], net, image[None], np.asarray([label]), **options)[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deletion", {"step": 20}),
        ("deletion", {"step": 7, "window": 4, "output": "logit"}),
        ("insertion", {"baseline": "image_mean", "output": "loss"}),
        ("morf", {"window": 3, "step": 0}),
        ("lerf", {"window": 5, "baseline": "zero"}),
        ("pixel_flipping", {"baseline": 0.5}),
    ],
)
def test_by_hand(name, options):
    heat, net, image, label = problem()
    ours = single(name, heat, net, image, label, **options)
    window = options.get("window", 1)
    rows, cols = math.ceil(11 / window), math.ceil(14 / window)
    means = np.asarray(
        [
            [heat[r * window :][:window, c * window :][:, :window].mean() for c in range(cols)]
            for r in range(rows)
        ]
    )
    order = np.argsort(-means.ravel() if name != "lerf" else means.ravel())
    default = "mean" if name in ("morf", "lerf") else "zero"
    baseline = options.get("baseline", default)
    if isinstance(baseline, str):
        values = {"zero": 0, "mean": image.mean((0, 1)), "image_mean": image.mean()}
        baseline = values[baseline]
    blank = np.broadcast_to(baseline, image.shape).astype(np.float32)
    before, after = (blank, image) if name == "insertion" else (image, blank)
    step = options.get("step", 1 if name in ("morf", "lerf") else 0) or cols
    frames = []
    for moved in [*range(0, rows * cols, step), rows * cols]:
        x = before.copy()
        for unit in order[:moved]:
            part = (
                slice(unit // cols * window, unit // cols * window + window),
                slice(unit % cols * window, unit % cols * window + window),
            )
            x[part] = after[part]
        frames.append(x)
    logits = np.asarray(net.logits(np.stack(frames)))
    output = options.get("output", "prob")
    table = {
        "logit": logits,
        "prob": jax.nn.softmax(logits),
        "loss": -jax.nn.log_softmax(logits),
    }
    near(ours, np.asarray(table[output])[:, label], 2e-6)


def test_flipping_elements_by_hand():
    _, net, image, label = problem()
    heat = np.random.default_rng(4).normal(size=image.shape).astype(np.float32)
    ours = single("pixel_flipping", heat, net, image, label, output="logit")
    x, frames = image.copy(), [image]
    for step in np.argsort(-heat.ravel()).reshape(-1, 14 * 3):
        x = x.copy()
        x.ravel()[step] = 0
        frames.append(x)
    near(ours, np.asarray(net.logits(np.stack(frames)))[:, label], 2e-6)


@pytest.mark.parametrize("name", CURVES)
def test_ends_chunks_and_batches(name):
    """All maps start and end alike; neither the chunk nor the batch changes a curve; a broken map counts as zeros."""
    heat, net, image, label = problem()
    broken = np.where(heat > 2, np.nan, heat)
    infinite = np.where(heat > 2, np.inf, heat)
    heats = np.stack([heat, -heat, heat**2, 0 * heat, broken, infinite])
    images, labels = np.repeat(image[None], len(heats), 0), np.full(len(heats), label)
    options = {"fractions": (0.3, 1.0)} if name == "road" else {"baseline": "noise", "key": 3}
    ours = run(name, heats, net, images, labels, chunk=5, **options)
    assert np.isfinite(ours).all()
    assert np.ptp(ours[0]) > 0.01
    near(ours[:, [0, -1]], np.broadcast_to(ours[0, [0, -1]], (len(heats), 2)), 1e-6)
    assert np.abs(ours[0] - ours[1]).max() > 1e-3
    near(ours[4:], ours[[3, 3]], 0)
    for chunk in (0, 2):
        near(run(name, heats, net, images, labels, chunk=chunk, **options), ours, 1e-6)
    near(single(name, heat, net, image, label, chunk=1, **options), ours[0], 1e-6)


def test_lerf_is_morf_of_the_negative_map():
    heat, net, image, label = problem()
    near(
        single("lerf", heat, net, image, label, window=3),
        single("morf", -heat, net, image, label, window=3),
        1e-6,
    )
    flat = np.ones_like(heat)
    near(
        single("lerf", flat, net, image, label, window=1, step=0),
        single("morf", flat, net, image, label, window=1, step=0),
        1e-6,
    )


@pytest.mark.parametrize("name", CURVES)
def test_a_nan_image_is_not_hidden(name):
    net, image, contributions = linear_net(
        (9, 8, 3)
    )  # the max pool of other networks may lose a NaN
    image[2, 3, 1] = np.nan
    options = {} if name == "road" else {"baseline": 0.5}
    ours = single(name, contributions[1].sum(-1), net, image, 1, **options)
    assert np.isnan(ours[-1 if name == "insertion" else 0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CURVES)
def test_bad_input(name):
    heat, net, image, label = problem()
    cases = [
        ((heat[1:], net, image, label), {}, r"heatmap must have the size of the image, \[11, 14"),
        ((heat, net, image[None], label), {}, "image must be one image"),
        ((heat, net, image, 5), {}, r"label must be in 0\.\.4; got 5"),
        (
            (heat, net, image, label),
            {"output": "accuracy"},
            "output must be one of logit, prob, loss",
        ),
        ((heat, net, image, label), {"chunk": -1}, "chunk must be an integer of at least 0"),
    ]
    if name == "road":
        for bad in (
            (),
            (0.5, 0.2),
            (0.5, 1.1),
            (-0.1,),
            (math.nan,),
            (0.0, 0.5),
            (0.5, 0.5),
            0.5,
            "abc",
        ):
            cases.append(((heat, net, image, label), {"fractions": bad}, "fractions must rise"))
        cases.append(((heat, net, image, label), {"order": "random"}, "order must be one of morf"))
        cases.append(((heat, net, image, label), {"sigma": -1.0}, "sigma must not be negative"))
    else:
        names = "zero, mean, image_mean, blur, noise"
        cases.append(((heat, net, image, label), {"baseline": "gray"}, f"one of {names}"))
        cases.append(((heat, net, image, label), {"baseline": np.ones(4)}, "must broadcast"))
        cases.append(((heat, net, image, label), {"step": 2.5}, "step must be an integer"))
    if name not in ("road", "pixel_flipping"):
        cases.append(
            ((heat, net, image, label), {"window": 12}, "window must not be longer .* got 12")
        )
        cases.append(((heat, net, image, label), {"window": 0}, "window must be an integer"))
    for (heat, net, image, label), options, message in cases:
        f = functools.partial(SCORES[name], label=label, **options)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(f, heat, net, image)


def test_auc():
    curve = np.asarray([[1.0, 0.5, 0.25, 0.25], [0, 1, 1, 1]])
    near(auc(curve), np.asarray([1.375 / 3, 2.5 / 3], np.float32), 1e-6)
    near(
        auc(curve[0], positions=(0, 0.1, 0.3, 0.5)), np.float32((0.075 + 0.075 + 0.05) / 0.5), 1e-6
    )
    assert np.isnan(auc(np.asarray([1, np.nan, 0])))
    with pytest.raises(ValueError, match="curve must have at least two points"):
        auc(np.ones(1))
    with pytest.raises(ValueError, match=r"positions must have the shape \[4\]"):
        auc(curve, positions=(0, 1))
    for positions in ((0, 0, 0, 0), (0, 0.5, 0.5, 1), (1, 0.5, 0.2, 0)):
        with pytest.raises(ValueError, match="positions must rise from point to point; got"):
            auc(curve, positions=positions)
    places = np.linspace(0, 1, 4)
    jitted = jax.jit(lambda curve, places: auc(curve, positions=places))
    near(jitted(curve, places), auc(curve, positions=places), 1e-6)


def test_road_noise_is_on_removed_pixels_only():
    heat, net, image, label = problem()
    options = {"fractions": (0.5,), "output": "logit"}
    clean = single("road", heat, net, image, label, sigma=0.0, **options)
    noisy = single("road", heat, net, image, label, sigma=0.3, **options)
    other = single("road", heat, net, image, label, sigma=0.3, key=1, **options)
    assert clean[0] == noisy[0]
    assert len({clean[1], noisy[1], other[1]}) == 3
