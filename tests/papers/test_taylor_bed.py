"""Deep Taylor decomposition on small stacks of dense layers: the published code's arrays, and what must hold of any network."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.attribution import relevance, rules
from mixaug_jax.models import Net, Preprocess
from mixaug_jax.models.layers import StagedModel
from mixaug_jax.papers.deep_taylor import (
    admissible,
    convergence,
    drawing,
    recursion,
    relu_stack,
)
from mixaug_jax.papers.deep_taylor import roots as roots_lib
from mixaug_jax.papers.deep_taylor.recursion import Recursion

# The published names of the rules.
RULES = {"z_plus": "z_plus", "w_squared": "w_squared", "gamma1": "gamma", "input": "input"}


@pytest.fixture(scope="module")
def published(golden):
    return dict(golden("iba_dtd/dtd.npz"))


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def stack_of(arrays):
    return tuple(
        relu_stack.Layer(arrays[f"weights/{k}/kernel"], arrays[f"weights/{k}/bias"])
        for k in (1, 2, 3)
    )


def close(actual, golden, tolerance):
    """|difference| <= tolerance times the largest golden value."""
    assert np.shape(actual) == golden.shape
    assert np.abs(np.asarray(actual) - golden).max() <= tolerance * np.abs(golden).max()


def test_the_published_weights_come_with_the_package(published):
    for k, layer in enumerate(relu_stack.bed_stack(), 1):
        for part in ("kernel", "bias"):
            close(getattr(layer, part), published[f"weights/{k}/{part}"], 1e-6)
    drawn = tuple(
        relu_stack.Layer(
            *(published[f"weights/{k}/{p}_before_scaling"] for p in ("kernel", "bias"))
        )
        for k in (1, 2, 3)
    )
    for layer, k in zip(relu_stack.scaled(drawn), (1, 2, 3), strict=True):
        close(layer.kernel, published[f"weights/{k}/kernel"], 1e-6)
        close(layer.bias, published[f"weights/{k}/bias"], 1e-6)


@pytest.mark.usefixtures("double")
def test_output_and_gradient(published):
    stack, x = stack_of(published), jnp.asarray(published["x"])
    close(relu_stack.forward(stack, x), published["output"], 1e-5)
    slope = jax.vmap(jax.grad(lambda x: relu_stack.forward(stack, x)[0]))
    close(slope(x), published["gradient"], 1e-5)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", [*RULES, "zero"])
def test_train_free(published, name):
    stack, x = stack_of(published), published["x"]
    rule = RULES.get(name, name)
    found = jax.jit(jax.vmap(lambda x: recursion.train_free(stack, x, rule)))(x)
    for k in range(3):
        close(found[0][k], published[f"train_free/{name}/relevance/{k}"], 1e-4)
        golden = published[f"train_free/{name}/roots/{k}"]
        assert np.abs(found[1][k] - golden).max() <= 1e-4 * max(np.abs(golden).max(), 1e-30)
        np.testing.assert_array_equal(found[2][k], published[f"train_free/{name}/has_root/{k}"])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", RULES)
def test_own_roots_and_regions(published, name):
    stack, x = recursion.explained(stack_of(published), 0), published["x"]
    for k, h in enumerate(relu_stack.inputs_of(stack, x)[:-1]):

        def judged(h, k=k):
            roots, has, active = roots_lib.own_roots(RULES[name], h, stack[k])
            return roots, has, active, admissible.judge(stack[k:], h, roots)

        roots, has, active, verdict = jax.jit(jax.vmap(judged))(h)
        close(roots, published[f"own_roots/{name}/roots/{k}"], 1e-4)
        np.testing.assert_array_equal(has, published[f"own_roots/{name}/has_root/{k}"])
        np.testing.assert_array_equal(active, published[f"own_roots/{name}/active/{k}"])
        for test, value in verdict._asdict().items():
            np.testing.assert_array_equal(value, published[f"own_roots/{name}/{test}/{k}"])
        # Regions are convex, so a root in one has the gradient and the way to it.
        assert not (verdict.same_pattern & ~(verdict.segment & verdict.same_gradient)).any()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["published", "exact"])
@pytest.mark.parametrize("name", ["z_plus", "w_squared", "gamma1"])
def test_full_backward(published, name, kind):
    stack, x = stack_of(published), published["x"][:5]
    how = Recursion(RULES[name], exact=kind == "exact")
    for k in (0, 1):
        found = jax.jit(jax.vmap(lambda x, k=k: recursion.full_backward(stack, x, how, layer=k)))(x)
        close(found, published[f"full_backward/{name}/{kind}/relevance/{k}"], 1e-9)


def test_full_backward_in_single_precision(published):
    stack = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), stack_of(published))
    x = jnp.asarray(published["x"][:5], jnp.float32)
    found = jax.jit(jax.vmap(lambda x: recursion.full_backward(stack, x, Recursion())))(x)
    close(found, published["full_backward/z_plus/published/relevance/0"], 5e-3)


@pytest.mark.usefixtures("double")
def test_sampled_roots(published):
    stack, ok = stack_of(published), published["sampled/ok"]
    points = [jnp.asarray(published[f"sampled/candidates/{k}"], float) for k in range(3)]
    found, chosen = jax.jit(jax.vmap(lambda x, c: recursion.sampled(stack, x, c)))(
        published["x"], points
    )
    # Where no neuron has relevance the public code fails.
    close(found[ok], published["sampled/relevance/0"][ok], 5e-3)
    for k in range(3):
        same = chosen[k][ok] == published[f"sampled/root_index/{k}"][ok]
        assert same.mean() >= 0.98


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("signs", ["any", "positive"])
def test_convergence_of_matrix_products(published, signs):
    matrices = [published[f"csc/matrix/{k}"] for k in range(4)]
    down = convergence.through_matrices(published["csc/relevance"], matrices, signs)
    cosines = [np.asarray(convergence.similarities(r)[0]) for r in down]
    np.testing.assert_allclose(cosines[0].ravel(), published["csc/similarities_first"], atol=1e-5)
    for name, f in (("median", np.median), ("mean", np.mean)):
        found = [f(c) for c in cosines]
        np.testing.assert_allclose(found, published[f"csc/{name}/{signs}"], atol=1e-5)


def test_the_published_sampler_stops_at_ninths_and_ours_does_not(published, double):
    stack = recursion.explained(stack_of(published), 0)
    h = jnp.asarray(published["x"][0]) + 2  # far from 0, where nothing is clamped
    ways = admissible.unit_directions(jax.random.key(0), 24, len(h))
    theirs = admissible.reach_published(stack, h, ways)
    steps = np.linalg.norm(theirs - h, axis=1) * 9
    np.testing.assert_allclose(steps, steps.round(), atol=1e-9)
    ours = np.linalg.norm(admissible.reach(stack, h, ways) - h, axis=1)
    within = ours < 1 - 1e-6
    assert (np.abs(ours * 9 - (ours * 9).round())[within] > 1e-3).any()
    patterns = jax.jit(jax.vmap(functools.partial(admissible.pattern, stack)))
    same = [
        (patterns(h + (ours + d)[:, None] * ways) == admissible.pattern(stack, h)).all(1)
        for d in (-1e-9, 1e-4)
    ]
    assert same[0].all()
    assert within.any()
    assert not same[1][within].any()


def test_chains_stay_in_the_region(published, double):
    stack = recursion.explained(stack_of(published), 0)
    h = jnp.asarray(published["x"][1])
    points = admissible.chains(stack, h, jax.random.key(0), count=3, steps=200)
    assert points.shape == (3, 200, len(h))
    assert (points >= 0).all()
    on = admissible.pattern(stack, h)
    assert (jax.vmap(jax.vmap(lambda p: admissible.pattern(stack, p)))(points) == on).all()
    assert float(admissible.widths(points.reshape(-1, len(h)))) > 0


def random_stack(depth, width, seed=0, bias=0.0):
    draw = np.random.default_rng(seed)
    return tuple(
        relu_stack.Layer(
            draw.normal(size=(width, width)) / width**0.5, bias * draw.normal(size=width)
        )
        for _ in range(depth)
    )


@pytest.mark.parametrize(("depth", "width"), [(1, 3), (2, 8), (3, 5), (4, 7), (5, 8)])
def test_constant_roots_of_zero_are_gradient_times_input(depth, width):
    stack = random_stack(depth, width)
    x = np.abs(np.random.default_rng(1).normal(size=width))
    output = int(np.argmax(relu_stack.forward(stack, x)))
    # Near 0 and not at it, where no ReLU has a slope; without biases that is the same region.
    points = [1e-6 * h for h in relu_stack.inputs_of(stack, x)[:-1]]
    found = recursion.locally_constant(stack, x, points, output)
    expected = recursion.gradient_times(stack, x, np.zeros(width), output)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


class Dense(StagedModel):
    """The stack as a network of the package, whose backward rules can be replaced."""

    layers: ClassVar = ("one", "two", "three")
    num_classes: int = 2

    def run(self, layer, x, train):
        x = x.reshape(len(x), -1) if layer == "one" else x
        y = self.dense(layer, x, 10 if layer != "three" else 2)
        return self.relu(f"{layer}.relu", y)


def as_net(stack):
    params = {
        name: {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
        for name, (kernel, bias) in zip(Dense.layers, stack, strict=True)
    }
    return Net(Dense(), {"params": params}, Preprocess(1))


@pytest.mark.parametrize(
    ("rule", "backward"),
    [
        ("z_plus", rules.ZPlus(use_bias=False)),
        ("w_squared", rules.WSquared(use_bias=False)),
        ("gamma", rules.Gamma(1.0, use_bias=False)),
        ("input", rules.Epsilon(1e-7, use_bias=False)),
    ],
)
def test_backward_rules_without_biases_are_the_train_free_recursion(published, rule, backward):
    """So they conserve what they received, wherever every neuron has a root."""
    stack, net = relu_stack.bed_stack(), as_net(relu_stack.bed_stack())

    def propagated(x):
        image = x[None, None]
        return relevance.propagate(net, image, 0, relevance.assigned(net, image, backward))[0, 0]

    x = jnp.asarray(published["x"], jnp.float32)
    found = jax.jit(jax.vmap(propagated))(x)
    with jax.enable_x64(True):
        found_64 = jax.vmap(lambda x: recursion.train_free(stack, x, rule))(published["x"])
    expected, _, has = jax.tree.map(np.asarray, found_64)
    close(found, expected[0], 2e-5)
    every = np.all([h.all(1) for h in has], 0)
    np.testing.assert_allclose(expected[0].sum(1)[every], published["output"][every, 0], rtol=1e-5)
    assert every.mean() > 0.8


@pytest.mark.parametrize("rule", ["z_plus", "w_squared", "gamma", "input"])
def test_roots_are_roots(rule, double):
    draw = np.random.default_rng(0)
    h, layer = (
        np.abs(draw.normal(size=6)),
        relu_stack.Layer(draw.normal(size=(6, 9)), draw.normal(size=9)),
    )
    points, has, _ = roots_lib.own_roots(rule, h, layer)
    left = (points * layer.kernel.T).sum(1) + layer.bias
    assert np.abs(left[has]).max() < 1e-9
    assert has.all()
    # Of the rules whose direction has the input's signs, a positive neuron's root does not leave the domain.
    if rule == "z_plus":
        on = h @ layer.kernel + layer.bias > 0
        assert (points[on & (layer.bias <= 0)] >= 0).all()


def test_a_neuron_without_a_positive_weight_has_no_root():
    layer = relu_stack.Layer(-np.ones((3, 2)), np.array([-1.0, 1.0]))
    points, has, _ = roots_lib.own_roots("z_plus", np.ones(3), layer)
    assert not has.any()
    assert not points.any()


def test_the_box_rule_moves_away_from_the_worst_corner():
    h, kernel = np.array([0.5, 0.25]), np.array([[1.0], [-2.0]])
    v = roots_lib.box_direction(h, kernel, 0.0, 1.0)
    np.testing.assert_allclose(v, [[0.5, -0.75]])


def test_recursive_roots_of_one_layer_are_the_output_itself():
    stack = random_stack(1, 4, seed=3)
    x = np.abs(np.random.default_rng(0).normal(size=4))
    left = recursion.recursive(stack, x, "z_plus")
    np.testing.assert_allclose(left, relu_stack.forward(stack, x)[:1])
    stack = random_stack(3, 4, seed=3)
    assert recursion.recursive(stack, x, "z_plus").shape == (16,)  # two layers of four neurons


def test_drawings_conserve_and_differ(double):
    stack = recursion.explained(relu_stack.bed_stack(), 0)
    x = jnp.asarray(relu_stack.points(stack, 1)[0])
    forward = functools.partial(relu_stack.forward, stack)
    parts = drawing.Parts(
        lambda x: relu_stack.forward(stack[:2], x), lambda h: relu_stack.forward(stack[2:], h)[0]
    )
    root = x + 1e-4
    drawn = drawing.draw(parts, x, root, jnp.arange(10.0) ** 2 + 1)
    drop = float(forward(x)[0] - forward(root)[0])
    assert abs(float(drawn.relevance.sum()) - drop) < 1e-9
    assert abs(float(drawn.untouched.sum()) - drop) < 1e-9
    np.testing.assert_allclose(drawn.relevance, drawn.target, atol=1e-10)


def test_other_beds_draw_their_own_weights():
    bed = relu_stack.bed_stack(2, 4, 6)
    assert [layer.kernel.shape for layer in bed] == [(6, 6)] * 3 + [(6, 2)]
    assert (relu_stack.bed_stack(3, 4, 6)[0].kernel != bed[0].kernel).any()
    with pytest.raises(ValueError, match="depth must be an integer of at least 1; got 0"):
        relu_stack.bed_stack(1, 0)
    dead = (relu_stack.Layer(-np.ones((3, 2)), -np.ones(2)),)
    with pytest.raises(ValueError, match="fewer than 5 of 10000 random inputs"):
        relu_stack.points(dead, 5)
