"""DeepLIFT, relevance propagation and excitation backpropagation, against captum and zennit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, golden_net, random_net, score

from mixaug_jax import config
from mixaug_jax.attribution import METHODS, rules
from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.models.layers import EPSILON

deeplift, lrp, excitation_backprop = (
    METHODS[n] for n in ("deeplift", "lrp", "excitation_backprop")
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
        ("zennit_epsilon1e-6", {"rule": "epsilon"}),
        ("zennit_epsilon0.25", {"rule": "epsilon", "epsilon": 0.25}),
        ("zennit_gamma0.25", {"rule": "gamma"}),
        ("zennit_alpha2beta1", {"rule": "alpha_beta"}),
        ("zennit_alpha1beta0", {"rule": "z_plus"}),
        ("zennit_wsquare_first", {"rule": "w_squared"}),
        ("zennit_epsilon_plus_flat", {"rule": "flat"}),
        ("zennit_epsilon_gamma_box", {"rule": "epsilon_gamma_box"}),
        ("zennit_excitation_backprop", {"rule": rules.ZPlus()}),
    ],
)
def test_golden_lrp(net, arrays, name, options):
    ours = explain(lrp, net, arrays["x"], arrays["target"], **options)
    close(ours, arrays[f"lrp_{name}"], 2e-6)
    if f"f64_lrp_{name}" in arrays:
        close(ours[:2], arrays[f"f64_lrp_{name}"], 1e-6)


def test_golden_captum(net, arrays):
    """With almost no epsilon it does not matter that captum's batch norms are layers of their own."""
    ours = explain(lrp, net, arrays["x"], arrays["target"], rule="epsilon", epsilon=1e-9)
    close(ours, arrays["lrp_captum_default"], 1e-4)


def test_golden_excitation_backprop(net, arrays):
    ours = explain(excitation_backprop, net, arrays["x"], arrays["target"])
    close(ours, arrays["lrp_zennit_excitation_backprop"], 1e-6)


def test_golden_deeplift(net, arrays):
    close(explain(deeplift, net, arrays["x"], arrays["target"]), arrays["deeplift_zero"], 1e-6)


def test_rules_by_layer(net, arrays):
    gamma = rules.Gamma(0.25)
    box = rules.ZBox(-2.0, (2.0, 2.0, 2.0))
    pairs = (("fc", rules.Epsilon()), ("relu1", box), ("relu3", gamma), ("relu4", gamma))
    ours = explain(lrp, net, arrays["x"], arrays["target"], rule=pairs)
    close(ours, arrays["lrp_zennit_epsilon_gamma_box"], 2e-6)


def test_names_by_layer():
    """As objects, and as what a config holds: tuples or lists; a name means what it means in the whole network."""
    net, images = random_net()
    labels = np.asarray([3, 1])
    objects = {"relu1": rules.Flat(), "relu3": rules.Gamma(0.5), "relu4": rules.ZPlus()}
    pairs = (*objects.items(), ("fc", rules.Epsilon()))
    expected = explain(lrp, net, images, labels, rule=pairs, gamma=0.5)
    named = (("relu1", "flat"), ("relu3", "gamma"), ("relu4", "z_plus"), ("fc", "z_plus"))
    for rule in (named, list(map(list, named)), (*named[:3], pairs[3])):
        close(explain(lrp, net, images, labels, rule=rule, gamma=0.5), expected, 0)
    composite = tuple((layer, "epsilon_gamma_box") for layer in net.layers)
    whole = explain(lrp, net, images, labels, rule="epsilon_gamma_box")
    close(explain(lrp, net, images, labels, rule=composite), whole, 0)


def test_a_config_can_say_rules_by_layer():
    """It is stored as JSON, and comes back as it was."""
    pairs = (("relu1", "flat"), ("fc", "epsilon"))
    options = config.get_config().explain.options.lrp
    assert options.rule == "z_plus"
    options.rule = "epsilon"
    changed = config.get_config()
    changed.explain.options.lrp.rule = pairs
    again = config.from_json(config.to_json(changed.copy_and_resolve_references()))
    assert again.explain.options.lrp.rule == pairs


@pytest.mark.parametrize("baseline", ["zero", "mean", "array"])
def test_deeplift_sums_to_the_difference(baseline):
    net, images = random_net()
    labels = np.asarray([3, 0])
    start = np.asarray(images[::-1])
    options = {} if baseline == "array" else {"baseline": baseline}
    each = {"baseline": start} if baseline == "array" else {}
    ours = explain(deeplift, net, images, labels, each, **options)
    if baseline != "array":
        start = 0 * images + (images.mean((1, 2), keepdims=True) if baseline == "mean" else 0)
    change = score(net, images, labels) - score(net, start, labels)
    np.testing.assert_allclose(ours.sum((1, 2, 3)), change, rtol=1e-3, atol=1e-4)


def test_deeplift_of_the_baseline_is_zero():
    net, images = random_net()
    ours = explain(deeplift, net, images, np.arange(2), {"baseline": images})
    np.testing.assert_array_equal(ours, 0)


def without_biases(net):
    """The network with no bias left once its batch norms are merged."""
    names = ("bias", "mean")

    def zero(path, leaf):
        return 0 * leaf if path[-1].key in names else leaf

    return dataclasses.replace(net, variables=jax.tree_util.tree_map_with_path(zero, net.variables))


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "z_plus"},
        {"rule": "alpha_beta", "alpha": 1.0, "beta": 0.0},
        {"rule": "w_squared"},
        {"rule": "flat"},
        {"rule": "z_box", "bounds": (-6.0, 6.0)},
    ],
    ids=lambda options: options["rule"],
)
def test_conservation(options):
    """Without biases what leaves a neuron is what reached it: maps sum to the logit."""
    net, images = random_net(side=13)
    bare = without_biases(net)
    labels = np.asarray([1, 4])
    logits = np.asarray(score(bare, images, labels))
    ours = explain(lrp, bare, images, labels, **options)
    np.testing.assert_allclose(ours.sum((1, 2, 3)), logits, rtol=1e-4)
    biased = explain(lrp, net, images, labels, **options)
    assert np.abs(biased.sum((1, 2, 3)) / score(net, images, labels) - 1).max() > 1e-2


def test_excitation_without_biases_is_a_probability():
    net, images = random_net()
    labels = np.asarray(jnp.argmax(jax.jit(Net.logits)(net, images), -1))
    ours = explain(excitation_backprop, net, images, labels, use_bias=False)
    assert ours.min() >= 0
    # Only what reaches a neuron that nothing but its bias made positive has nobody to go to.
    assert (ours.sum((1, 2, 3)) <= np.asarray(score(net, images, labels)) * (1 + 1e-5)).all()
    shared = explain(excitation_backprop, net, images, labels)
    assert (shared.sum((1, 2, 3)) < 0.99 * ours.sum((1, 2, 3))).all()


def test_without_epsilon_it_is_input_times_gradient():
    net, images = random_net()
    labels = np.asarray([1, 4])
    expected = explain(METHODS["input_x_gradient"], net, images, labels)
    close(explain(lrp, net, images, labels, rule=rules.Epsilon(1e-10)), expected, 1e-4)


def dense(x, kernel, bias):
    return x @ kernel + bias


@pytest.mark.parametrize(
    "rule",
    [
        rules.Epsilon(0.1),
        rules.Gamma(0.5),
        rules.AlphaBeta(2.0, 1.0),
        rules.ZPlus(),
        rules.WSquared(),
        rules.Flat(),
        rules.ZBox(-3.0, 3.0),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_rules_by_hand(rule):
    rng = np.random.default_rng(0)
    x, w, b, r = (rng.normal(size=s) for s in ((1, 6), (6, 4), (4,), (1, 4)))
    ours = rule(dense, *(jnp.float32(a) for a in (x, w, b, r)))
    expected = np.zeros(6)
    for j in range(4):
        parts, z = x[0] * w[:, j], x[0] @ w[:, j] + b[j]
        plus, minus = parts.clip(0), parts.clip(None, 0)
        up, down = plus.sum() + max(b[j], 0), minus.sum() + min(b[j], 0)
        if isinstance(rule, rules.Epsilon):
            shares = parts / (z + 0.1 * np.sign(z))
        elif isinstance(rule, rules.Gamma):
            favored, bias = (plus, max(b[j], 0)) if z > 0 else (minus, min(b[j], 0))
            weighted = parts + 0.5 * favored
            shares = weighted / (weighted.sum() + b[j] + 0.5 * bias)
        elif isinstance(rule, rules.AlphaBeta):
            shares = 2 * plus / up - minus / down
        elif isinstance(rule, rules.ZPlus):
            shares = plus / up
        elif isinstance(rule, rules.WSquared):
            shares = w[:, j] ** 2 / ((w[:, j] ** 2).sum() + b[j] ** 2)
        elif isinstance(rule, rules.Flat):
            shares = np.full(6, 1 / 6)
        else:
            box = parts + 3 * w[:, j].clip(0) - 3 * w[:, j].clip(None, 0)
            shares = box / box.sum()
        expected += shares * r[0, j]
    close(ours[0], expected, 1e-5)


def test_maximum_pooling_gives_all_to_the_winner():
    x = jnp.asarray([[[[1.0], [3.0]], [[2.0], [0.0]]]])

    def plain(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    relevance = jax.vjp(lambda x: rules.share_pool("a.maxpool", plain, x), x)[1](
        jnp.full((1, 1, 1, 1), 5.0)
    )
    np.testing.assert_array_equal(relevance[0][0, ..., 0], [[0, 5], [0, 0]])


def test_bounds_are_those_of_the_preprocessing_at_any_size():
    net, images = random_net()  # whose preprocessing cuts out 12 x 12
    small = images[0, :9, :10]
    mean, std = np.asarray(net.preprocess.mean), np.asarray(net.preprocess.std)
    bounds = tuple(-mean / std), tuple((1 - mean) / std)
    close(lrp(net, small, 1, rule="z_box"), lrp(net, small, 1, rule="z_box", bounds=bounds), 1e-5)


def test_images_of_one_batch_do_not_mix():
    net, images = random_net()
    labels = jnp.asarray([3, 1])
    for name in ("deeplift", "lrp"):
        method = jax.jit(METHODS[name])
        looped = np.stack([method(net, images[i], labels[i]) for i in range(2)])
        close(explain(METHODS[name], net, images, labels), looped, 1e-5)


def test_equal_rules_compile_once():
    net, images = random_net()
    traced = []

    @jax.jit
    def run(ruled, x):
        traced.append(1)
        return ruled.logits(x)

    for _ in range(2):
        pairs = tuple((n, rules.Gamma(0.1)) for n in ("conv1", "conv2", "conv3", "conv4", "fc"))
        run(net.with_rules(affine=rules.ByLayer(pairs), act=rules.pass_act), images)
    assert len(traced) == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "beta"}, "rule must be one of epsilon, gamma"),
        ({"rule": "alpha_beta", "alpha": 2.0, "beta": 0.5}, "alpha - beta must be 1"),
        ({"rule": "alpha_beta", "alpha": np.nan}, "alpha - beta must be 1"),
        ({"rule": "epsilon", "epsilon": np.nan}, "epsilon must be finite and not negative"),
        ({"rule": "gamma", "gamma": -0.5}, "gamma must be finite and not negative"),
        ({"rule": "z_box", "bounds": (1.0, -1.0)}, "bounds must be low < high"),
        ({"rule": "z_box", "bounds": (0.0, np.inf)}, "bounds must be low < high, and finite"),
        ({"rule": "z_box", "bounds": ((-1, -1), (1, 1))}, "one number each or 3; got"),
        ({"rule": "z_box", "bounds": 5}, r"bounds must be \(low, high\)"),
        ({"rule": "z_box", "bounds": (1.0,)}, r"bounds must be \(low, high\)"),
        (
            {"rule": (("layer9", rules.Flat()),)},
            "a layer of rule must be one of relu1, relu3, relu4, fc",
        ),
        ({"rule": (("fc", rules.Flat()),)}, "rule names no rule for layer relu1, relu3, relu4"),
        ({"rule": (("fc", "beta"),)}, "rule must be one of epsilon, gamma"),
        ({"rule": ("fc", "epsilon")}, "rule must be pairs of a layer and its rule"),
        ({"rule": [["fc"]]}, "rule must be pairs of a layer and its rule"),
    ],
)
def test_bad_options(options, message):
    net, images = random_net()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda net, x: lrp(net, x, 0, **options), net, images[0])


@pytest.mark.parametrize("name", ["lrp", "excitation_backprop"])
def test_networks_that_normalize_first_refuse(name):
    model = MODELS["preact_resnet18"](3, width=0.02, stem="cifar")
    image = jnp.zeros((8, 8, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image[None]))
    net = Net(model, variables, Preprocess(8))
    with pytest.raises(ValueError, match="refuses an affine rule"):
        jax.eval_shape(lambda net, x: METHODS[name](net, x, 0), net, image)


def test_merged_norms_leave_no_epsilon():
    """The maps of a network are those of one whose norms are in its weights.

    zennit's are those of a third one, in which each norm still divides by the root of 1 + epsilon.
    """
    net, images = random_net()
    labels = np.asarray([3, 1])
    params, stats = net.variables["params"], net.variables["batch_stats"]

    def folded(left_over):
        new, still = dict(params), {}
        for norm in [name for name in params if name.startswith("bn")]:
            conv, scale = "conv" + norm[2:], params[norm]["scale"]
            factor = scale / np.sqrt(stats[norm]["var"] + EPSILON)
            bias = params[conv].get("bias", 0.0) - stats[norm]["mean"]
            kernel = params[conv]["kernel"] * factor
            offset = bias * factor + params[norm]["bias"]
            # A norm with nothing to do, but for the epsilon, whose root is taken out of its scale or not.
            rest = np.float32(1 if left_over else np.sqrt(1 + EPSILON))
            new[conv] = params[conv] | {"kernel": kernel}
            new[conv] |= {"bias": offset} if "bias" in params[conv] else {}
            own = 0 * offset if "bias" in params[conv] else -offset
            still[norm] = {"mean": own, "var": np.ones_like(offset)}
            new[norm] = {"scale": rest * np.ones_like(offset), "bias": 0 * offset}
        return dataclasses.replace(net, variables={"params": new, "batch_stats": still})

    ours = explain(excitation_backprop, net, images, labels)
    close(explain(excitation_backprop, folded(False), images, labels), ours, 1e-5)
    shrunk = explain(excitation_backprop, folded(True), images, labels).sum() / ours.sum()
    assert 1e-6 < 1 - shrunk < 1e-3
