"""Guided, blurred and split paths and sums of squares, against public code in float64 and where the network is linear."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, random_net, score

from mixaug_jax.attribution import METHODS, blur_path, guided_path, important_direction, squares
from mixaug_jax.models import Preprocess
from mixaug_jax.models.net import Net


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("mixers_net/backprop.npz"))


def valued(arrays):
    """The network of the arrays: two convolutions, ReLU and softplus, a mean, a dense layer; the target's probability."""

    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def probability(x):
        hidden = jax.nn.relu(conv(x, arrays["kernel1"]))
        hidden = jax.nn.softplus(conv(hidden, arrays["kernel2"])).mean((1, 2))
        return jax.nn.softmax(hidden @ arrays["dense"])[:, arrays["target"]]

    def f(x):
        values, vjp = jax.vjp(probability, x)
        return values, vjp(jnp.ones_like(values))[0]

    return f


def test_golden_float64(arrays):
    """The published code: of guided IG three paths, of blur IG its two spacings, of IDGI the straight path."""
    with jax.enable_x64(True):
        f, image = valued(arrays), jnp.asarray(arrays["image"])
        zero = jnp.zeros_like(image)

        def close64(ours, name):
            close(np.asarray(ours), arrays[name], 1e-10)

        guided = jax.jit(
            functools.partial(guided_path.along_guided, f, steps=30, fraction=0.25),
            static_argnames="max_dist",
        )
        for far in (0.02, 0.2, 1.0):
            close64(guided(image, zero, max_dist=far)[0], f"guided_ig_{far}")
        for spacing in ("linear", "sqrt"):
            sigmas = blur_path.widths(20, 5.0, spacing)
            close64(blur_path.along_blur(f, image, sigmas, difference=0.01), f"blur_ig_{spacing}")
        ours = squares.along_straight(f, image, zero, arrays["idgi_alphas"])
        close64(ours, "idgi_straight")
        # Complete at any number of steps.
        ends = f(arrays["idgi_alphas"][[0, -1], None, None, None] * image)[0]
        assert float(ours.sum()) == pytest.approx(float(ends[1] - ends[0]), abs=1e-12)


def test_golden_float32(arrays):
    single = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}
    f, image = valued(single), jnp.asarray(single["image"])
    ours = guided_path.along_guided(
        f, image, jnp.zeros_like(image), steps=30, fraction=0.25, max_dist=0.02
    )[0]
    # The order of the features may change where gradients are nearly equal.
    close(ours, arrays["guided_ig_0.02"], 1e-3)
    exact = blur_path.along_blur(f, image, blur_path.widths(20, 5.0, "linear"))
    close(exact, arrays["blur_ig_linear"], 5e-2)  # a derivative, not a difference over .01
    ours = squares.along_straight(f, image, jnp.zeros_like(image), arrays["idgi_alphas"])
    close(ours, arrays["idgi_straight"], 1e-3)


def linear(side=8, classes=3):
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(classes, name="head")(x.reshape(len(x), -1))

    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(side * side * 3, classes)),
        "bias": rng.normal(size=classes),
    }
    variables = {"params": {"head": jax.tree.map(lambda a: a.astype(np.float32), weights)}}
    net = Net.wrap(Model(), variables, Preprocess(side))
    images = rng.normal(size=(2, side, side, 3)).astype(np.float32)
    return net, images, weights["kernel"].reshape(side, side, 3, classes)


@pytest.fixture(scope="module")
def case():
    return linear()


LABELS = np.array([2, 0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("guided_ig", {"steps": 3}),
        ("guided_ig", {"steps": 5, "max_dist": 1.0, "fraction": 0.1}),
        ("split_ig", {"steps": 4, "part": 1.0}),
        ("split_ig", {"steps": 5, "part": 1.0, "rule": "right"}),
    ],
)
def test_linear_networks_have_one_answer(case, name, options):
    net, images, kernel = case
    start = np.float32(0.3)
    ours = explain(METHODS[name], net, images, LABELS, baseline=start, **options)
    expected = (images - start) * np.moveaxis(kernel[..., LABELS], -1, 0)
    close(ours, expected, 2e-5)


def test_blur_of_a_linear_network(case):
    from scipy import ndimage

    net, images, kernel = case
    blurred = np.stack([ndimage.gaussian_filter(x, (2, 2, 0), mode="constant") for x in images])
    close(jax.vmap(lambda x: blur_path.gaussian(x, 2.0, 3.0))(images), blurred, 1e-5)
    ours = explain(METHODS["blur_ig"], net, images, LABELS, steps=400, max_sigma=2.0)
    # The left rule's error falls with the number of steps.
    expected = (images - blurred) * np.moveaxis(kernel[..., LABELS], -1, 0)
    close(ours, expected, 3e-2)


def test_squares_are_no_integral_even_of_a_linear_network(case):
    """Features that never change have a share of the change, too."""
    net, images, kernel = case
    weights = np.moveaxis(kernel[..., LABELS], -1, 0)
    change = score(net, images, LABELS) - score(net, 0 * images, LABELS)
    ours = explain(METHODS["idgi"], net, images, LABELS, steps=3, output="logit")
    share = weights**2 / (weights**2).sum((1, 2, 3), keepdims=True)
    close(ours, share * np.asarray(change)[:, None, None, None], 1e-4)
    same = images.copy()
    same[:, :4] = 0  # as the baseline
    ours = explain(METHODS["idgi"], net, same, LABELS, steps=3, output="logit")
    assert np.abs(ours[:, :4]).max() > 0


@pytest.mark.parametrize("path", important_direction.PATHS)
def test_squares_are_complete_at_any_number_of_steps(path):
    net, images = random_net()
    labels = np.arange(2)
    ours = explain(METHODS["idgi"], net, images, labels, path=path, steps=4, chunk=3)
    start = 0 * images
    if path == "blur":
        sigma = 12 * blur_path.WIDEST
        start = jax.vmap(lambda x: blur_path.gaussian(x, sigma, sigma))(images)
    change = score(net, images, labels, "prob") - score(net, start, labels, "prob")
    np.testing.assert_allclose(ours.sum((1, 2, 3)), change, atol=2e-6)


def test_steps_without_a_gradient_give_their_change_to_the_next():
    gradients = jnp.array([[0.0, 0], [3, 4], [0, 0], [0, 0]]).reshape(4, 1, 2, 1)
    values = jnp.array([1.0, 2, 4, 7])

    def f(x):
        return values[x[:, 0, 0, 0].astype(int)], gradients[x[:, 0, 0, 0].astype(int)]

    image = jnp.zeros((1, 2, 1))

    def points(indices):
        return jnp.minimum(indices, 3).reshape(-1, 1, 1, 1) * jnp.ones((1, 1, 2, 1))

    ours = squares.walked(f, points, image, 3, 2)
    # All of the change of 6 goes to the one gradient there is.
    np.testing.assert_allclose(ours.ravel(), 6 * np.array([9, 16]) / 25, rtol=1e-6)
    none = squares.walked(lambda x: (values[: len(x)], jnp.zeros_like(x)), points, image, 3, 1)
    np.testing.assert_array_equal(none, 0)


def test_guided_path_without_freedom_is_the_left_rule():
    net, images = random_net()
    labels = np.arange(2)
    ours = explain(METHODS["guided_ig"], net, images, labels, steps=5, max_dist=0.0)
    total = 0
    for k in range(5):
        step = explain(METHODS["gradient"], net, images * (k / 5), labels)
        total = total + images * step / 5
    close(ours, np.asarray(total), 1e-4)


def test_split_leaves_out_what_is_saturated():
    net, images = random_net()
    labels = np.arange(2)
    whole = explain(METHODS["integrated_gradients"], net, images, labels, steps=128, rule="right")
    all_of_it = explain(METHODS["split_ig"], net, images, labels, part=1.0, steps=128, rule="right")
    part = explain(METHODS["split_ig"], net, images, labels, part=0.5, steps=128, rule="right")
    change = score(net, images, labels) - score(net, 0 * images, labels)
    np.testing.assert_allclose(part.sum((1, 2, 3)) / change, 0.5, atol=0.05)
    assert np.abs(all_of_it - whole).max() <= np.abs(part - whole).max()


def test_the_smallest_fraction_moves_one_feature_at_a_time():
    """Of f = w x: to half of the way by a step, and the smallest gradients go first."""
    w = jnp.array([3.0, 1.0, 2.0, 4.0]).reshape(2, 2, 1)

    def f(x):
        return (w * x).sum((1, 2, 3)), w[None]

    image, zero, seen = jnp.ones((2, 2, 1)), jnp.zeros((2, 2, 1)), []
    for fraction in (1e-320, 1e-9):
        path = functools.partial(guided_path.along_guided, f, steps=2, max_dist=1.0)
        seen.append(path(image, zero, fraction=fraction)[0])
    np.testing.assert_array_equal(*seen)
    np.testing.assert_allclose(seen[0], w, rtol=1e-5)
    first = guided_path._advance(zero, w, image, (0.0, 1.0, 2.0), 1e-320)
    np.testing.assert_allclose(first.ravel(), [0, 1, 1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("guided_ig", {"fraction": 0.0}, "fraction must be"),
        ("guided_ig", {"max_dist": 1.5}, "max_dist must be"),
        ("blur_ig", {"max_sigma": -1.0}, "max_sigma must be a number at least 0; got -1.0"),
        ("blur_ig", {"max_sigma": float("inf")}, "max_sigma must be a number at least 0; got inf"),
        ("blur_ig", {"spacing": "cubic"}, "spacing must be one of linear, sqrt"),
        ("idgi", {"path": "gided"}, "did you mean 'guided'"),
        ("split_ig", {"part": 0.0}, "part must be"),
        ("idgi", {"steps": 0}, "steps must be"),
    ],
)
def test_options_out_of_range(name, options, message):
    net, images = random_net()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda net, x: METHODS[name](net, x, 0, **options), net, images[0])
