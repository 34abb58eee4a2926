"""Stability, randomized parameters and the similarity of maps, against captum, Quantus and plain loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import golden_net, random_net
from scipy import stats
from score_cases import linear_net, near

from mixaug_jax.attribution import METHODS
from mixaug_jax.scores import SCORES, Randomization, randomized_similarities, similarity

MEASURES = ("spearman", "pearson", "ssim")
STABILITY = ("class_sensitivity", "completeness", "max_sensitivity", "parameter_randomization")


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("attribution/attr.npz"))


@pytest.fixture(scope="module")
def net(golden):
    return golden_net(golden("attribution/tinynet_weights.npz"))


def run(name, explain, net, images, labels, each=None, **options):
    def one(net, image, label, each):
        return SCORES[name](explain, net, image, label, **each, **options)

    return np.asarray(jax.jit(jax.vmap(one, (None, 0, 0, 0)))(net, images, labels, each or {}))


def test_golden_max_sensitivity(net, arrays, golden):
    each = {"noise": arrays["sg_noise"]}
    f = METHODS["gradient"]
    ours = run("max_sensitivity", f, net, arrays["x"], arrays["target"], each)
    expected = golden("attribution/metrics.npz")["max_sensitivity_grad"]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_golden_completeness(net, arrays):
    """captum's delta of its own attributions, which the score finds without knowing how they came about."""

    def one(attributions, net, image, label):
        return SCORES["completeness"](lambda *_: attributions, net, image, label)

    # In a batch of eight, as captum's: how a sum is rounded depends on the batch.
    eight = {k: np.resize(v, (8, *v.shape[1:])) for k, v in arrays.items() if len(v) in (1, 8)}
    for name in ("ig50_gausslegendre", "ig50_riemann_trapezoid", "ig50_riemann_right"):
        ours = jax.jit(jax.vmap(one, (0, None, 0, 0)))(
            eight[name], net, eight["x"], eight["target"]
        )
        near(ours, eight[f"{name}_delta"], 5e-6)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("pair", ["grad_random", "grad_gradcam"])
def test_golden_similarity(golden, measure, pair):
    metrics = golden("attribution/metrics.npz")
    a, b = (metrics[f"heat_{name}"] for name in pair.split("_"))
    ours = jax.jit(jax.vmap(functools.partial(similarity, measure=measure)))(a, b)
    near(ours, metrics[f"sim_{measure}_{pair}"], 1e-6)


def test_spearman_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 8, 9)).astype(np.float32)
    expected = stats.spearmanr(a.ravel(), b.ravel()).statistic
    near(similarity(a, b, "spearman"), np.float32(expected), 1e-6)
    near(similarity(a, -3 * a + 1, "spearman"), np.float32(-1), 1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_similarity_at_the_ends(measure):
    a = np.random.default_rng(1).normal(size=(8, 9)).astype(np.float32)
    zero, broken = 0 * a, np.where(a > 2, np.nan, a)
    broken[0, 0] = np.inf
    alike = functools.partial(similarity, measure=measure)
    for scale in (1, 1e-20, 1e15):
        near(alike(a * np.float32(scale), a * np.float32(scale)), np.float32(1), 1e-5)
    for one in (zero, broken):
        near(alike(one, zero), np.float32(1), 0)
        assert abs(float(alike(a, one))) < 0.05
        assert abs(float(alike(one, a))) < 0.05
    near(alike(zero + 3, zero + 3), np.float32(1), 0)


@pytest.mark.usefixtures("unchecked")
def test_similarity_rejects():
    with pytest.raises(ValueError, match=r"ssim needs maps of at least 7 x 7; got \[6, 9\]"):
        similarity(np.ones((6, 9)), np.ones((6, 9)), "ssim")
    with pytest.raises(ValueError, match="measure must be one of spearman, pearson, ssim"):
        similarity(np.ones((6, 9)), np.ones((6, 9)), "hog")
    shapes = [((12, 12), (6, 24)), ((12, 12), (12, 13)), ((12,), (12,)), ((0, 3), (0, 3))]
    for one, other in shapes:
        for measure in MEASURES:
            with pytest.raises(ValueError, match=r"two maps \[h,w\] of one size; got \["):
                similarity(np.ones(one), np.ones(other), measure)


def constant(net, image, label):
    return jnp.zeros((*image.shape[:2], 1))


def broken(net, image, label):
    return METHODS["gradient"](net, image, label).at[0, 0, 0].set(jnp.nan)


def network_blind(net, image, label):
    """An explanation that looks at nothing but the image, as an edge detector."""
    return METHODS["sobel"](net, image, label)


def test_a_linear_model_has_a_stable_gradient_and_complete_contributions():
    net, image, contributions = linear_net((8, 9, 3))
    assert SCORES["max_sensitivity"](METHODS["gradient"], net, image, 2) == 0
    f = METHODS["input_x_gradient"]
    near(SCORES["completeness"](f, net, image, 2), np.float32(0), 1e-4)
    gap = float(np.sum(contributions[2] / image) - contributions[2].sum())
    near(SCORES["completeness"](METHODS["gradient"], net, image, 2), np.float32(gap), 1e-4)
    shifted = image - image.mean((0, 1))
    change = float((contributions[2] / image * shifted).sum())
    ours = SCORES["completeness"](constant, net, image, 2, baseline="mean")
    near(ours, np.float32(-change), 1e-4)


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", np.float32(0.3)])
def test_a_baseline_is_the_same_on_both_sides(baseline):
    net, images = random_net()
    # The network has kinks, so that the error of the rule falls with the number of steps only.
    f = functools.partial(METHODS["integrated_gradients"], baseline=baseline, steps=1000)
    gap = jax.jit(lambda x: SCORES["completeness"](f, net, x, 1, baseline=baseline))(images[0])
    near(gap, np.float32(0), 5e-4)


def test_max_sensitivity_by_hand():
    net, images = random_net()
    noise = np.random.default_rng(2).uniform(-1, 1, (5, *images.shape[1:])).astype(np.float32)
    f = jax.jit(METHODS["gradient"])
    clean = f(net, images[0], 1)
    changes = [np.linalg.norm(f(net, images[0] + 0.1 * n, 1) - clean) for n in noise]
    options = {"radius": 0.1, "noise": noise}
    expected = max(changes) / np.linalg.norm(clean)
    for chunk in (0, 1, 2):
        ours = jax.jit(
            lambda net, x, chunk=chunk: SCORES["max_sensitivity"](
                METHODS["gradient"], net, x, 1, chunk=chunk, **options
            )
        )(net, images[0])
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_max_sensitivity_draws():
    """Of an explanation that is the image itself, the change is the noise: uniform within the radius, new for each key."""

    def itself(net, image, label):
        return image

    net, images = random_net()
    draw = jax.jit(
        lambda key: SCORES["max_sensitivity"](
            itself, net, images[0], 0, radius=0.3, samples=4, key=key
        )
    )
    length = np.linalg.norm(images[0])
    expected = 0.3 * np.sqrt(images[0].size / 3) / length
    values = [float(draw(key)) for key in range(4)]
    assert len(set(values)) == 4
    np.testing.assert_allclose(values, expected, rtol=0.1)
    assert min(values) > 0.95 * expected
    assert np.isfinite(SCORES["max_sensitivity"](constant, net, images[0], 0))


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_randomized_similarities_by_hand(mode):
    net, images = random_net()
    image, label = images[0], 3
    layers = (("fc",), ("conv4", "bn4"), ("conv2", "bn2", "conv3", "bn3"), ("conv1", "bn1"))
    fresh = net.model.init(jax.random.key(5), images[:1], train=False)
    heat = jax.jit(lambda net: jnp.abs(METHODS["gradient"](net, image, label)).sum(-1))
    expected = []
    for k in range(4):
        hit = {n for group in layers[k if mode == "independent" else 0 : k + 1] for n in group}
        mixed = {
            collection: {n: fresh[collection][n] if n in hit else v for n, v in entries.items()}
            for collection, entries in net.variables.items()
        }
        changed = heat(dataclasses.replace(net, variables=mixed))
        expected.append(similarity(heat(net), changed, "spearman"))

    def both(net, image, label):
        args = METHODS["gradient"], net, image, label
        return (
            randomized_similarities(*args, Randomization(mode), key=5),
            SCORES["parameter_randomization"](*args, mode=mode, key=5),
        )

    ours, mean = jax.jit(both)(net, image, label)
    near(ours, np.asarray(expected), 1e-5)
    near(mean, np.mean(expected), 1e-5)
    assert np.max(ours) < 0.9


@pytest.mark.parametrize(
    ("explain", "measure"),
    [(network_blind, "spearman"), (network_blind, "ssim"), (constant, "pearson"), (broken, "ssim")],
)
@pytest.mark.parametrize("name", ["parameter_randomization", "class_sensitivity"])
def test_what_cannot_change_scores_worst(name, explain, measure):
    """An explanation that does not look at the network, a constant one, and one that is not finite."""
    net, images = random_net()
    ours = run(name, explain, net, images, np.asarray([0, 1]), measure=measure)
    near(ours, np.ones(2, np.float32), 1e-5)


@pytest.mark.parametrize("name", ["parameter_randomization", "class_sensitivity"])
def test_an_explanation_that_breaks_when_something_changes_scores_worst(name):
    """NaN, or infinite, but for the trained network and the label."""
    net, images = random_net()
    kernel = net.variables["params"]["fc"]["kernel"]

    def explain(other, image, label):
        same = (other.variables["params"]["fc"]["kernel"] == kernel).all() & (label == 1)
        return jnp.where(same, image, jnp.nan)

    assert SCORES[name](explain, net, images[0], 1) == 1


@pytest.mark.parametrize("scale", [1e-25, 1e-18, 1.0, 1e18])
def test_max_sensitivity_has_no_scale(scale):
    net, images = random_net()

    def explain(net, image, label):
        return image * jnp.float32(scale)

    args = net, images[0], 1
    expected = SCORES["max_sensitivity"](lambda net, image, label: image, *args)
    near(SCORES["max_sensitivity"](explain, *args) / expected, np.float32(1), 1e-5)


def test_class_sensitivity_by_hand():
    net, images = random_net()
    least = int(np.argmin(np.asarray(net.logits(images[:1]))[0]))
    label, third = [k for k in range(5) if k != least][:2]
    maps = [np.abs(METHODS["gradient"](net, images[0], k)).sum(-1) for k in (label, least, third)]
    score = functools.partial(SCORES["class_sensitivity"], METHODS["gradient"], net, images[0])
    near(score(label), similarity(maps[0], maps[1], "pearson"), 1e-6)
    near(score(label, other=third), similarity(maps[0], maps[2], "pearson"), 1e-6)
    near(score(label, other=label), np.float32(1), 1e-6)
    near(score(label, other=np.int64(-1)), score(label), 0)
    assert score(least) < 0.9999, "the least likely class is compared with another one"


def test_broken_explanations_score_worst():
    net, images = random_net()
    for name in ("max_sensitivity", "completeness"):
        assert SCORES[name](broken, net, images[0], 0) == np.inf


@pytest.mark.parametrize("name", STABILITY)
def test_batches_agree_with_single_images(name):
    net, images = random_net()
    labels = np.asarray([4, 1])
    batch = run(name, METHODS["gradient"], net, images, labels)
    f = jax.jit(functools.partial(SCORES[name], METHODS["gradient"]))
    alone = [f(net, x, k) for x, k in zip(images, labels, strict=True)]
    near(np.asarray(alone), batch, 1e-5 * np.abs(batch).max())
    assert batch[0] != batch[1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("max_sensitivity", {"radius": -0.1}, "radius must not be negative"),
        ("max_sensitivity", {"samples": 0}, "samples must be an integer of at least 1"),
        ("max_sensitivity", {"noise": np.ones((2, 3))}, r"noise must have the shape \[n, 12, 12"),
        ("completeness", {"baseline": "white"}, "baseline must be one of zero, mean, image_mean"),
        ("completeness", {"output": "odds"}, "output must be one of logit, prob, loss"),
        ("parameter_randomization", {"mode": "all"}, "mode must be one of cascading, independent"),
        ("parameter_randomization", {"measure": "hog"}, "measure must be one of spearman"),
        ("class_sensitivity", {"other": 5}, r"label must be in 0\.\.4; got 5"),
        ("class_sensitivity", {"reduce": "max"}, "reduce must be one of sum"),
    ],
)
def test_bad_options(name, options, message):
    net, images = random_net()
    f = functools.partial(SCORES[name], METHODS["gradient"], label=0, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(f, net, images[0])
    with pytest.raises(ValueError, match="image must be one image"):
        SCORES[name](METHODS["gradient"], net, images, 0)
