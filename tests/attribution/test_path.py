"""Integrated and expected gradients, against captum and zennit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, golden_net, random_net, score

from mixaug_jax.attribution import METHODS, path
from mixaug_jax.attribution.target import input_gradient

integrated_gradients, expected_gradients = (
    METHODS["integrated_gradients"],
    METHODS["expected_gradients"],
)


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("attribution/attr.npz"))


@pytest.fixture(scope="module")
def net(golden):
    return golden_net(golden("attribution/tinynet_weights.npz"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ig50_gausslegendre", {"steps": 50}),
        ("ig50_gausslegendre_meanbase", {"steps": 50, "baseline": "mean"}),
        ("ig50_riemann_right", {"steps": 50, "rule": "right"}),
        ("ig20_zennit_right", {"rule": "right", "steps": 20}),
    ],
)
def test_golden(net, arrays, name, options):
    x, target = arrays["x"], arrays["target"]
    ours = explain(integrated_gradients, net, x, target, **options)
    # Kinks and ties on the path make float32 itself differ by up to 7e-4 of the maximum.
    close(ours, arrays[name], 1e-3)
    if f"{name}_delta" in arrays:
        start = x.mean((1, 2), keepdims=True) if "baseline" in options else 0
        change = score(net, x, target) - score(net, 0 * x + start, target)
        close(ours.sum((1, 2, 3)) - change, arrays[f"{name}_delta"], 2e-2)
    if f"f64_{name}" in arrays:
        close(ours[:2], arrays[f"f64_{name}"], 1e-3)


def test_golden_captum_trapezoid(net, arrays):
    """captum's weights, as it stores them, sum to 0.98; ours for the same nodes sum to 1."""
    alphas, weights = (arrays[f"ig_{k}_riemann_trapezoid"] for k in ("alphas", "weights"))

    def method(net, image, label):
        def gradient(x):
            return input_gradient(net, x, label)

        return path.integrate(gradient, image, jnp.zeros_like(image), (alphas, weights))

    ours = explain(method, net, arrays["x"], arrays["target"])
    close(ours, arrays["ig50_riemann_trapezoid"], 1e-5)
    places, right = path.nodes("trapezoid", 50)
    np.testing.assert_allclose(places, alphas, atol=1e-7)
    np.testing.assert_allclose(right * 0.98, weights, atol=1e-7)


def test_golden_nodes(arrays):
    places, weights = path.nodes("gausslegendre", 50)
    np.testing.assert_allclose(places, arrays["ig_alphas_gausslegendre"], atol=1e-7)
    np.testing.assert_allclose(weights, arrays["ig_weights_gausslegendre"], atol=1e-8)


def test_golden_expected_gradients(net, arrays):
    each = {"draws": (arrays["eg_idx"], arrays["eg_alpha"])}
    ours = explain(
        expected_gradients,
        net,
        arrays["x"],
        arrays["target"],
        each,
        baselines=arrays["eg_baselines"],
        chunk=4,
    )
    close(ours, arrays["expected_gradients"], 1e-6)


@pytest.mark.parametrize("steps", [2, 3, 8])
@pytest.mark.parametrize(("rule", "degree"), [("gausslegendre", 3), ("trapezoid", 1), ("right", 0)])
def test_rules_integrate_polynomials(rule, degree, steps):
    places, weights = path.nodes(rule, steps)
    for power in range(degree + 1):
        assert weights @ places**power == pytest.approx(1 / (power + 1), abs=1e-12)


@pytest.mark.parametrize(
    ("output", "baseline"), [("logit", "mean"), ("prob", "blur"), ("logit", "array")]
)
def test_completeness(output, baseline):
    net, images = random_net()
    labels = np.asarray([2, 4])
    start = np.full((12, 12, 3), 0.3, np.float32) if baseline == "array" else baseline
    ours = explain(
        integrated_gradients,
        net,
        images,
        labels,
        steps=1600,
        baseline=start,
        output=output,
        chunk=200,
    )
    start = starts(images, start)
    change = np.asarray(score(net, images, labels, output) - score(net, start, labels, output))
    np.testing.assert_allclose(ours.sum((1, 2, 3)), change, atol=2e-3 * np.abs(change).max())


def starts(images, baseline):
    images = np.asarray(images)
    if not isinstance(baseline, str):
        return np.broadcast_to(baseline, images.shape)
    if baseline == "mean":
        return np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
    place = np.arange(12)
    line = np.exp(-(((place[:, None] - place) / (12 / 16)) ** 2) / 2)
    line /= line.sum(1, keepdims=True)
    return np.einsum("ih,bhwc,jw->bijc", line, images, line).astype(np.float32)


def test_loss_and_probability_tell_the_same_story():
    """d loss = - d log p: exact for the sum over a path, up to the rule's error."""
    net, images = random_net()
    labels = np.asarray([2, 4])
    ours = explain(integrated_gradients, net, images, labels, steps=1600, output="loss", chunk=200)
    logs = [np.log(score(net, x, labels, "prob")) for x in (images, 0 * images)]
    np.testing.assert_allclose(ours.sum((1, 2, 3)), logs[1] - logs[0], rtol=5e-3, atol=1e-3)


def test_chunks_agree():
    net, images = random_net()
    whole = explain(integrated_gradients, net, images, np.arange(2), steps=10, chunk=0)
    for chunk in (1, 4):
        close(
            explain(integrated_gradients, net, images, np.arange(2), steps=10, chunk=chunk),
            whole,
            1e-6,
        )


def test_expected_gradients_draws():
    net, images = random_net()
    others = images[::-1] + 1

    def run(chunk, seed=0):
        options = {"baselines": others, "samples": 9, "chunk": chunk, "key": seed}
        return explain(expected_gradients, net, images, np.arange(2), **options)

    whole = run(0)
    close(run(2), whole, 1e-6)
    assert np.abs(run(0, seed=1) - whole).max() > 1e-3 * np.abs(whole).max()


def test_image_equal_to_its_baseline():
    net, images = random_net()
    ours = explain(integrated_gradients, net, 0 * images, np.arange(2), steps=3)
    np.testing.assert_array_equal(ours, 0)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            integrated_gradients,
            {"rule": "left"},
            "rule must be one of gausslegendre, trapezoid, right",
        ),
        (integrated_gradients, {"rule": "trapezoid", "steps": 1}, "steps must be .* at least 2"),
        (integrated_gradients, {"baseline": "black"}, "baseline must be one of zero, mean, blur"),
        (
            integrated_gradients,
            {"baseline": np.zeros((3, 12, 1))},
            "baseline must broadcast to the image's shape",
        ),
        (expected_gradients, {}, "expected_gradients needs baselines"),
        (
            expected_gradients,
            {"baselines": np.zeros((12, 12, 3))},
            r"baselines must have the shape \[n",
        ),
        (
            expected_gradients,
            {"baselines": np.zeros((1, 12, 12, 3)), "draws": (np.zeros(2, int),)},
            "draws must be a pair",
        ),
        (
            expected_gradients,
            {"baselines": np.zeros((3, 12, 12, 3)), "draws": ([0, 3], [0.5, 0.5])},
            r"index of draws must lie in 0\.\.2; got \[0, 3\]",
        ),
        (
            expected_gradients,
            {"baselines": np.zeros((3, 12, 12, 3)), "draws": ([0, -1], [0.5, 0.5])},
            r"index of draws must lie in 0\.\.2",
        ),
        (
            expected_gradients,
            {"baselines": np.zeros((3, 12, 12, 3)), "draws": ([0, 2], [0.5, 1.5])},
            r"alpha of draws must lie in 0\.\.1",
        ),
        (
            expected_gradients,
            {"baselines": np.zeros((3, 12, 12, 3)), "draws": ([0.0], [0.5])},
            "index of draws must be one or more integers",
        ),
    ],
)
def test_bad_options(method, options, message):
    net, images = random_net()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda net, x: method(net, x, 0, **options), net, images[0])


class Kink:
    """One class's logit is the sum of the image where that is positive, the other's is 0."""

    def logits(self, x):
        total = jax.nn.relu(x.sum((1, 2, 3)))
        return jnp.stack([total, 0 * total], -1)


def test_a_place_at_a_kink_has_the_gradient_of_either_side():
    """Half way from -x to x the ReLU switches: the next float32 place has another gradient, and the map one sample more."""
    image = np.random.default_rng(0).uniform(0.5, 1, (4, 4, 3)).astype(np.float32)
    alpha = np.float32([0.25, 0.5, 0.75, 0.875])
    after = np.where(alpha == 0.5, np.nextafter(alpha, np.float32(1)), alpha)
    index = np.zeros(4, np.int32)
    for places, right in ((alpha, 2), (after, 3)):
        found = expected_gradients(Kink(), image, 0, baselines=-image[None], draws=(index, places))
        close(found, 2 * image * right / 4, 1e-6)
