"""Sensitivity-n and infidelity, against captum, the code of IBA's paper and plain loops."""

import jax
import numpy as np
import pytest
from attribution_cases import golden_net, random_net
from score_cases import linear_net, near, run

from mixaug_jax.scores import SCORES, pooled_sensitivity_n, subset_drops, subset_sizes
from mixaug_jax.scores.agreement import correlation

SENSITIVITY = ("input_x_grad", "ig50_gausslegendre", "occlusion_w8s4_zero", "grad")
INFIDELITY = ("input_x_grad", "ig50_gausslegendre", "grad")


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("attribution/attr.npz"))


@pytest.fixture(scope="module")
def metrics(golden):
    return dict(golden("attribution/metrics.npz"))


@pytest.fixture(scope="module")
def net(golden):
    return golden_net(golden("attribution/tinynet_weights.npz"))


@pytest.fixture(scope="module")
def golden_pairs(net, arrays, metrics):
    """{method: sums and drops [N,7,40]} of the golden subsets."""

    def one(heats, net, image, label):
        options = {"window": 4, "masks": metrics["sensn_masks_tiles4"], "chunk": 70}
        return [subset_drops(heat, net, image, label, **options) for heat in heats]

    heats = [arrays[name].sum(-1) for name in SENSITIVITY]
    f = jax.jit(jax.vmap(one, (0, None, 0, 0)))
    return dict(zip(SENSITIVITY, f(heats, net, arrays["x"], arrays["target"]), strict=True))


@pytest.mark.parametrize("name", SENSITIVITY)
def test_golden_sensitivity_n(golden_pairs, metrics, name):
    sums, drops = golden_pairs[name]
    for k, n in enumerate(metrics["sensn_n"]):
        near(drops[:, k], metrics[f"sensn_score_diff_n{n}"], 5e-6)
    near(correlation(sums, drops).T, metrics[f"sensn_per_image_{name}"], 1e-5)
    if len(sums) == 8:  # of all images, which only the whole golden arrays have
        near(pooled_sensitivity_n(sums, drops), metrics[f"sensn_pooled_{name}"], 1e-5)


def test_golden_sensitivity_n_of_one_size(net, arrays, metrics):
    heats = arrays["ig50_gausslegendre"].sum(-1)
    for k in (0, 4, 6):
        options = {"window": 4, "masks": metrics["sensn_masks_tiles4"][k : k + 1], "chunk": 40}
        ours = run("sensitivity_n", heats, net, arrays["x"], arrays["target"], **options)
        near(ours, metrics["sensn_per_image_ig50_gausslegendre"][k], 2e-5)


def test_golden_infidelity(net, arrays, metrics):
    each = {"masks": np.unpackbits(metrics["infid_masks"], -1).astype(np.float32)}
    for name in INFIDELITY:
        for suffix, normalize in (("", False), ("_norm", True)):
            ours = run(
                "infidelity",
                arrays[name],
                net,
                arrays["x"],
                arrays["target"],
                each,
                normalize=normalize,
            )
            expected = metrics[f"infidelity_{name}{suffix}"]
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_linear_model_scores_1_at_every_n():
    net, image, contributions = linear_net()
    heat = contributions[2].sum(-1)
    for n in (1, np.int64(2), 7, 20, 40, 41):
        score = SCORES["sensitivity_n"](heat, net, image, 2, n=n, samples=60)
        near(score, np.float32(1), 1e-5)
    near(SCORES["sensitivity_n"](heat, net, image, 2, window=2), np.float32(1), 1e-5)
    near(SCORES["sensitivity_n"](-3 * heat, net, image, 2, n=5), np.float32(-1), 1e-5)
    sums, drops = subset_drops(heat, net, image, 2, n=tuple(range(1, 42)), samples=20)
    near(sums, drops, 1e-4)
    near(correlation(sums, drops), np.ones(41, np.float32), 1e-5)
    sums, drops = sums[:2], drops[:2]
    pooled = pooled_sensitivity_n(np.stack([sums, sums]), np.stack([drops, drops]))
    near(pooled, np.ones(2, np.float32), 1e-5)


def test_sensitivity_of_what_does_not_vary_is_0():
    net, image, contributions = linear_net()
    heat = contributions[0].sum(-1)
    nothing = [0 * heat, np.where(heat > heat.max() - 1e-6, np.nan, heat)]
    for silent in nothing:
        assert SCORES["sensitivity_n"](silent, net, image, 0, n=5) == 0
    deaf = jax.tree.map(np.zeros_like, net)
    assert SCORES["sensitivity_n"](heat, deaf, image, 0, n=5) == 0


@pytest.mark.parametrize("n", [7, 10])
def test_sensitivity_of_a_constant_map_is_0(n):
    """Not the correlation with how its sums are rounded."""
    net, image, _ = linear_net((32, 32, 3))
    for value in (0.1, 0.3):
        heat = np.full((32, 32), value, np.float32)
        assert SCORES["sensitivity_n"](heat, net, image, 0, n=n) == 0


@pytest.mark.parametrize("scale", [1e-25, 1e18])
def test_normalized_infidelity_has_no_scale(scale):
    net, image, contributions = linear_net()
    given = {"net": net, "image": image, "label": 0, "normalize": True, "window": 3}
    heat = contributions[1]
    scaled, plain = (SCORES["infidelity"](s * heat, **given) for s in (np.float32(scale), 1))
    near(scaled / plain, np.float32(1), 1e-4)


def test_subsets_have_n_units_and_are_shared():
    """A map of ones sums to the number of units removed, and to their pixels where units are tiles."""
    net, image, _ = linear_net()
    ones = np.ones(image.shape[:2], np.float32)
    sums, first = subset_drops(ones, net, image, 0, n=(1, 5, 30), samples=8)
    assert (np.asarray(sums) == np.asarray([[1], [5], [30]])).all()
    _, again = subset_drops(-ones, net, image, 0, n=(1, 5, 30), samples=8)
    assert (first == again).all()
    assert len(np.unique(first[1:])) == 16
    _, other = subset_drops(ones, net, image, 0, n=(1, 5, 30), samples=8, key=1)
    assert (first != other).mean() > 0.8
    sums, _ = subset_drops(ones, net, image, 0, n=11, window=2)  # of 3 x 4 tiles, 3 of them cut
    assert set(np.asarray(sums).ravel()) == {42 - 4, 42 - 2}


def test_subset_sizes():
    published = [1, 2, 3, 4, 6, 8, 12, 17, 24, 35, 50, 71, 101, 144, 205]
    assert subset_sizes(256) == tuple(published)
    assert subset_sizes(50176)[-4:] == (4818, 9767, 19801, 40141)
    assert subset_sizes(1) == subset_sizes(2) == (1,)


def square_removal(heat, net, image, label, masks, scale=1.0):
    drops = [
        float(
            net.logits(image[None])[0, label]
            - net.logits((image - m[..., None] * image)[None])[0, label]
        )
        for m in masks
    ]
    sums = [float((m[..., None] * image * heat).sum()) for m in masks]
    return np.mean([(scale * s - d) ** 2 for s, d in zip(sums, drops, strict=True)])


def test_infidelity_by_hand():
    net, image, contributions = linear_net()
    gradient = contributions[1] / image
    noise = gradient + 0.3 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    masks = np.zeros((2, 6, 7), np.float32)
    masks[0, 1:3, 2:6] = 1
    masks[1, 4:, :3] = 0.5
    infidelity = SCORES["infidelity"]
    near(infidelity(gradient, net, image, 1, window=3), np.float32(0), 1e-8)
    expected = square_removal(noise, net, image, 1, masks)
    np.testing.assert_allclose(infidelity(noise, net, image, 1, masks=masks), expected, rtol=1e-4)
    flat = noise.mean(-1)
    expected = square_removal(flat[..., None], net, image, 1, masks)
    np.testing.assert_allclose(infidelity(flat, net, image, 1, masks=masks), expected, rtol=1e-4)
    near(infidelity(5 * gradient, net, image, 1, window=3, normalize=True), np.float32(0), 1e-8)
    # A map that says nothing predicts no drop: the mean squared drop, normalized or not.
    dropped = square_removal(0 * noise, net, image, 1, masks)
    for silent in (0 * noise, np.full_like(noise, np.inf)):
        for normalize in (False, True):
            ours = infidelity(silent, net, image, 1, masks=masks, normalize=normalize)
            np.testing.assert_allclose(ours, dropped, rtol=1e-4)


def test_squares_come_from_everywhere():
    """Over many draws every place of the square comes up, and nothing else."""
    net, image, contributions = linear_net((6, 7, 1), classes=1)
    heat = contributions[0, ..., 0]
    places = {(heat[r : r + 5, c : c + 5].sum() ** 2).round(3) for r in (0, 1) for c in (0, 1, 2)}
    options = {"samples": 1, "window": 5}
    f = jax.jit(lambda key, net: SCORES["infidelity"](0 * heat, net, image, 0, key=key, **options))
    assert {np.float32(f(key, net)).round(3) for key in range(60)} == places
    assert len(places) == 6


@pytest.mark.parametrize("name", ["sensitivity_n", "infidelity"])
def test_chunks_and_batches_agree(name):
    net, images = random_net()
    heats = np.asarray(images).sum(-1)
    labels = np.asarray([1, 3])
    options = {"samples": 13, "window": 3} | ({"n": (2, 7)} if name == "sensitivity_n" else {})
    whole = run(name, heats, net, images, labels, chunk=0, **options)
    tolerance = 1e-6 * max(1, np.abs(whole).max())
    for chunk in (1, 4):
        near(run(name, heats, net, images, labels, chunk=chunk, **options), whole, tolerance)
    alone = [
        SCORES[name](h, net, x, int(k), **options)
        for h, x, k in zip(heats, images, labels, strict=True)
    ]
    near(np.asarray(alone), whole, tolerance)
    assert whole[0] != whole[1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("name", "share"), [("sensitivity_n", 1), ("infidelity", 1 / 3)])
def test_channels_of_an_attribution(name, share):
    """Their sum counts: for infidelity, whose plain map holds for each channel, where all are replaced alike."""
    net, images = random_net()
    image = np.repeat(np.asarray(images[0, ..., :1]), 3, axis=-1)
    attribution = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    options = {"samples": 9, "window": 3} | ({"n": 4} if name == "sensitivity_n" else {})
    each, plain, one = (
        np.asarray(SCORES[name](phi, net, image, 1, **options))
        for phi in (attribution, share * attribution.sum(-1), attribution[..., 0])
    )
    near(plain, each, 1e-4 * np.abs(each))
    assert np.abs(one - each) > 1e-2 * np.abs(each)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 12), (0, 3, 4)])
def test_pooled_pairs_have_one_shape(shape):
    sums = np.ones((2, 3, 4) if shape[0] else shape)
    with pytest.raises(ValueError, match=r"must both be \[images,sizes,samples\]; got \["):
        pooled_sensitivity_n(sums, np.ones(shape))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sensitivity_n", {"n": 0}, "n must be integers from 1 to 143, fewer than all"),
        ("sensitivity_n", {"n": (3, 144)}, "n must be integers from 1 to 143"),
        ("sensitivity_n", {"n": 36, "window": 2}, "n must be integers from 1 to 35"),
        ("sensitivity_n", {"n": 2.5}, "n must be integers"),
        ("sensitivity_n", {"samples": 0}, "samples must be an integer of at least 1"),
        (
            "sensitivity_n",
            {"masks": np.ones((2, 3, 5, 5))},
            r"masks must have the shape \[n, n, 12",
        ),
        (
            "sensitivity_n",
            {"window": 13},
            "window must not be longer than the image's side of 12 pixels; got 13",
        ),
        ("sensitivity_n", {"window": 12}, "the window covers the whole image"),
        ("infidelity", {"window": 13}, "window must not be longer .* got 13"),
        ("infidelity", {"samples": 0}, "samples must be an integer of at least 1"),
        ("infidelity", {"masks": np.ones((2, 5, 5))}, r"masks must have the shape \[n, 12, 12\]"),
    ],
)
def test_bad_options(name, options, message):
    net, images = random_net()
    with pytest.raises(ValueError, match=message):
        SCORES[name](images[0].sum(-1), net, images[0], 0, **options)
    with pytest.raises(ValueError, match="attribution must have the size of the image"):
        SCORES[name](images[0, 1:].sum(-1), net, images[0], 0)
    with pytest.raises(ValueError, match=r"label must be in 0\.\.4; got -1"):
        SCORES[name](images[0].sum(-1), net, images[0], -1)
