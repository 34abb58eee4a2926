"""Gradients, their noisy means and changed ReLUs, against PyTorch, captum and zennit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, golden_net, random_net

from mixaug_jax.attribution import METHODS


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("attribution/attr.npz"))


@pytest.fixture(scope="module")
def net(golden):
    return golden_net(golden("attribution/tinynet_weights.npz"))


@pytest.mark.parametrize(
    ("name", "method", "label", "options"),
    [
        ("grad", "gradient", "target", {}),
        ("input_x_grad", "input_x_gradient", "target", {}),
        ("loss_grad", "loss_gradient", "loss_label", {}),
        ("prob_grad", "gradient", "target", {"output": "prob"}),
        ("guided_backprop", "guided_backprop", "target", {}),
        ("deconvnet", "deconvnet", "target", {}),
    ],
)
def test_golden(net, arrays, name, method, label, options):
    ours = explain(METHODS[method], net, arrays["x"], arrays[label], **options)
    close(ours, arrays[name], 1e-6)
    if f"f64_{name}" in arrays:
        close(ours[:2], arrays[f"f64_{name}"], 1e-6)


def test_any_class(net, arrays):
    ours = explain(METHODS["gradient"], net, arrays["x"], np.full(len(arrays["x"]), 7))
    close(ours, arrays["grad_target7"], 1e-6)


@pytest.mark.parametrize(
    ("name", "method"),
    [("smoothgrad", "smoothgrad"), ("smoothgrad_sq", "smoothgrad_squared"), ("vargrad", "vargrad")],
)
def test_golden_noise(net, arrays, name, method):
    each = {"noise": arrays["sg_noise"]}
    ours = explain(METHODS[method], net, arrays["x"], arrays["target"], each, chunk=2)
    close(ours, arrays[name], 2e-6)


@pytest.mark.parametrize("method", ["smoothgrad", "vargrad"])
def test_chunks_agree(method):
    net, images = random_net()
    labels = np.arange(2)

    def run(chunk, seed=3):
        each = {"key": jax.random.split(jax.random.key(seed), 2)}
        return explain(METHODS[method], net, images, labels, each, samples=7, chunk=chunk)

    whole = run(0)
    close(run(3), whole, 1e-6)
    assert np.abs(run(0, seed=4) - whole).max() > 1e-3 * np.abs(whole).max()


def test_a_longer_run_draws_the_same_samples_first():
    net, images = random_net()
    ones = [explain(METHODS["smoothgrad"], net, images, np.arange(2), samples=n) for n in (1, 2, 3)]
    second, third = 2 * ones[1] - ones[0], 3 * ones[2] - 2 * ones[1]
    squares = explain(METHODS["smoothgrad_squared"], net, images, np.arange(2), samples=3)
    close(squares, (ones[0] ** 2 + second**2 + third**2) / 3, 1e-5)


def test_without_noise():
    net, images = random_net()
    plain = explain(METHODS["gradient"], net, images, np.arange(2))
    close(explain(METHODS["smoothgrad"], net, images, np.arange(2), sigma=0.0, samples=3), plain)
    spread = explain(METHODS["vargrad"], net, images, np.arange(2), sigma=0.0, samples=3)
    assert (spread >= 0).all()
    assert spread.max() < 1e-10 * plain.max() ** 2


def test_vmapped_is_looped():
    net, images = random_net()
    labels = jnp.asarray([3, 1])
    method = jax.jit(METHODS["smoothgrad"], static_argnames=("samples",))
    looped = [method(net, images[i], labels[i], key=5, samples=2) for i in range(2)]
    close(
        explain(METHODS["smoothgrad"], net, images, labels, key=5, samples=2),
        np.stack(looped),
        1e-6,
    )


def test_loss_gradient_is_that_of_the_cross_entropy():
    net, images = random_net()

    def loss(x, label):
        return -jax.nn.log_softmax(net.logits(x[None]))[0, label]

    expected = jax.jit(jax.vmap(jax.grad(loss)))(images, jnp.asarray([4, 0]))
    close(explain(METHODS["loss_gradient"], net, images, np.asarray([4, 0])), np.asarray(expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be an integer of at least 1"),
        ({"chunk": -1}, "chunk must be an integer of at least 0"),
        ({"sigma": -0.1}, "sigma must not be negative"),
        ({"noise": np.zeros((2, 3, 3, 3))}, r"noise must have the shape \[n, 12, 12, 3\]"),
        ({"output": "score"}, "output must be one of logit, prob, loss"),
    ],
)
def test_bad_options(options, message):
    net, images = random_net()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda net, x: METHODS["smoothgrad"](net, x, 0, **options), net, images[0])
