"""The readout bottleneck against the authors' code, and what follows from its definition."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from attribution_cases import close, golden_net, random_net

from mixaug_jax.attribution import METHODS, iba_statistics, readout, resampling
from mixaug_jax.attribution import readout_training as training_lib
from mixaug_jax.attribution.readout import Readout
from mixaug_jax.models import MODELS, Net, Preprocess

FORMS = {
    "paper_A": ("A", "paper", 0.0),
    "paper_A_k5": ("A", "paper", 1.25),
    "paper_B": ("B", "paper", 0.0),
    "library_B": ("B", "library", 1.0),
}
CONVS = ("conv1", "conv2", "conv3")


@pytest.fixture(scope="module")
def case(golden):
    """The golden arrays, the network, its images and layers; all arrays with the whole file, else some."""
    arrays = dict(golden("iba_dtd/readout.npz"))
    meta = json.loads(str(arrays["meta"]))
    net = golden_net({k[4:]: v for k, v in arrays.items() if k.startswith("net/")})
    net = dataclasses.replace(net, model=MODELS["tiny"](meta["classes"], width=meta["filters"] / 8))
    x = ((arrays["images"] / 255 - 0.5) / 0.25).astype(np.float32)
    return arrays, net, x, tuple(meta["stages"])


def params(arrays, prefix):
    return {c: {k: arrays[f"{prefix}/{c}/{k}"] for k in ("kernel", "bias")} for c in CONVS}


def golden_readout(case, form, start="spread"):
    arrays, _, _, layers = case
    letter, variant, sigma = FORMS[form]
    stats = []
    for name in layers:
        mean, std = (arrays[f"{variant}/{k}/{name}"] for k in ("mean", "std"))
        stats.append((mean, std, np.ones_like(mean)))
    return Readout(params(arrays, f"{letter}/{start}"), tuple(stats), layers, variant, sigma)


def agree(actual, arrays, key, tolerance, *, absolute=False):
    """Compares with a golden array that is there; with its first images where it has fewer."""
    if key not in arrays:
        return
    expected = arrays[key]
    actual = np.asarray(actual)[: len(expected)] if expected.ndim else np.asarray(actual)
    assert actual.shape == expected.shape
    scale = 1 if absolute else np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=key)


@pytest.mark.parametrize("form", FORMS)
def test_golden_forward(case, form):
    arrays, net, x, layers = case
    if f"{form}/lam" not in arrays:
        pytest.skip("the whole golden file has it")
    x = x[: len(arrays["eps"])]
    r = golden_readout(case, form)

    @jax.jit
    def forward(net, x):
        features = net.capture(x, layers)
        alpha = readout.alphas(r, readout.standardized(features, r))
        found = readout.capacities(r, features, alpha)
        z = readout.noisy(r, found, arrays["eps"], features[layers[0]])
        maps = jax.vmap(lambda image: METHODS["iba_readout"](net, image, 0, readout=r))(x)
        return alpha, found, z, net.logits(x, layer=layers[0], value=z), maps[..., 0]

    alpha, found, z, logits, heat = forward(net, x)
    agree(alpha, arrays, f"{form}/alpha_raw", 2e-5)
    agree(jnp.clip(alpha, -5, 5), arrays, f"{form}/alpha", 2e-5)
    agree(found["lam"], arrays, f"{form}/lam", 2e-6, absolute=True)
    agree(found["capacity"], arrays, f"{form}/capacity", 5e-5)
    agree(z, arrays, f"{form}/z", 2e-5)
    agree(logits, arrays, f"{form}/logits", 5e-5)
    ce = -jax.nn.log_softmax(logits)[np.arange(len(x)), arrays["labels"][: len(x)]]
    agree(ce, arrays, f"{form}/ce", 5e-5)
    if len(x) == 4:
        agree(found["capacity"].mean(), arrays, f"{form}/info", 5e-5)
    heat, paper = np.asarray(heat), r.variant == "paper"
    if paper:
        low, high = heat.min((1, 2), keepdims=True), heat.max((1, 2), keepdims=True)
        heat = (heat - low) / np.maximum(high - low, 1e-5)
    agree(heat, arrays, f"{form}/heat", 5e-4, absolute=paper)


@pytest.mark.parametrize("variant", ["paper", "library"])
def test_golden_statistics_and_inputs(case, variant):
    arrays, net, x, layers = case
    if "stat_images" not in arrays:
        pytest.skip("the whole golden file has them")
    images = ((arrays["stat_images"] / 255 - 0.5) / 0.25).astype(np.float32)
    stats = iba_statistics(net, np.split(images, 4), layers=layers, variant=variant)
    for name, (mean, std, _) in zip(layers, stats, strict=True):
        agree(mean, arrays, f"{variant}/mean/{name}", 1e-5)
        agree(std, arrays, f"{variant}/std/{name}", 1e-5)
    if variant == "library":
        np.testing.assert_array_equal(stats[0][2] > 0, arrays["library/active"])
    r = Readout({}, stats, layers, variant)
    features = net.capture(x, layers)
    maps = readout.standardized(features, r)
    size = maps[0].shape[1:3]
    spread = [m if m.ndim == 4 else m[:, None, None] for m in maps]
    spread = [readout.resized(m, size) if m.shape[1] > 1 else m for m in spread]
    whole = [jnp.broadcast_to(m, (len(x), *size, m.shape[-1])) for m in spread]
    agree(jnp.concatenate(whole, -1), arrays, f"{variant}/input", 2e-5)


@pytest.mark.parametrize("start", ["train", "init"])
@pytest.mark.parametrize("form", ["paper_A", "library_B"])
def test_golden_steps(case, form, start):
    """Two steps of Adam; from the published start only the losses, as every alpha lies at the kink of its bound there."""
    arrays, net, x, _ = case
    rate = {"train": 1e-3, "init": 1e-5}[start]
    r = golden_readout(case, form, {"train": "spread"}.get(start, start))
    options = training_lib.Training(variant=r.variant, sigma=r.sigma, lr=rate)
    batch = {"image": x, "label": arrays["labels"], "real": np.ones(len(x), bool)}
    slopes = jax.jit(training_lib.slopes, static_argnums=4)
    state = optax.adam(rate).init(r.params)
    for t in range(2):
        grads, sums = slopes(net, r, batch, arrays["step_eps"][t], options)
        grads, (_, ce, info, _) = jax.tree.map(lambda g: g / len(x), (grads, sums[:-1]))
        step = f"{form}_{start}/step{t + 1}"
        agree(ce, arrays, f"{step}/ce", 2e-5)
        agree(info, arrays, f"{step}/info", 2e-5)
        agree(ce + 10 * info, arrays, f"{step}/loss", 2e-5)
        updates, state = optax.adam(rate).update(grads, state)
        r = dataclasses.replace(r, params=optax.apply_updates(r.params, updates))
        for conv in CONVS if start == "train" else ():
            for part in ("kernel", "bias"):
                agree(grads[conv][part], arrays, f"{step}/grad/{conv}/{part}", 1e-4)
                after = r.params[conv][part]
                agree(after, arrays, f"{step}/after/{conv}/{part}", 2e-5, absolute=True)


def small(hidden="quarter", variant="paper", seed=3):
    """A small network, its images, and an untrained readout of them."""
    net, images = random_net()
    layers = ("relu3", "relu4", "fc")
    stats = iba_statistics(net, [np.asarray(images)], layers=layers, variant=variant)
    drawn = readout.init(jax.random.key(seed), net, images[0], layers, hidden)
    return net, images, Readout(drawn, stats, layers, variant)


def test_the_first_convolution_may_come_before_the_resizing():
    net, images, r = small()
    maps = readout.standardized(net.capture(images, r.layers), r)
    size = maps[0].shape[1:3]
    spread = [readout.resized(m, size) for m in maps[:2]]
    spread.append(jnp.broadcast_to(maps[2][:, None, None], (2, *size, 5)))
    x = jnp.concatenate(spread, -1)
    for name in CONVS:
        x = (jax.nn.relu(x) if name != "conv1" else x) @ r.params[name]["kernel"] + r.params[name][
            "bias"
        ]
    close(readout.alphas(r, maps), x, 1e-5)


def test_maps_of_the_same_size_stay_to_the_bit():
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(readout.resized(x, (3, 4)), x)


@pytest.mark.parametrize(("source", "target"), [(1, 4), (2, 5), (5, 2), (3, 1)])
def test_aligned_corners(source, target):
    line = np.random.default_rng(1).normal(size=source)
    at = np.linspace(0, source - 1, target) if target > 1 else [0]
    expected = np.interp(at, np.arange(source), line)
    np.testing.assert_allclose(resampling.aligned_matrix(source, target) @ line, expected)


def test_the_published_start_passes_nearly_everything():
    net, images, r = small()
    features = net.capture(images, r.layers)
    maps = readout.standardized(features, r)

    def start(key):
        drawn = readout.init(key, net, images[0], r.layers, "quarter")
        return readout.alphas(dataclasses.replace(r, params=drawn), maps)

    alpha = jax.jit(jax.vmap(start))(jax.random.split(jax.random.key(0), 40))
    moved = alpha[alpha != 5]  # those whose hidden units are not all off
    assert 0.2 < (moved > 5).mean() < 0.8, "half of them have no gradient"
    assert np.abs(alpha - 5).max() < 0.02
    assert readout.capacities(r, features, alpha[0])["lam"].mean() > 0.99


@pytest.mark.parametrize("variant", ["paper", "library"])
def test_dead_cells(variant):
    """Cells that never change give no NaN; in the library's variant they hold no bits."""
    net, images, r = small(variant=variant)
    features = net.capture(images, r.layers)
    dead = np.asarray((features["relu3"] == 0).all(0))
    assert 0 < dead.sum() < dead.size, "the case has dead cells"
    std = np.where(dead, 0, r.stats[0][1]) if variant == "library" else r.stats[0][1]
    r = dataclasses.replace(r, stats=((r.stats[0][0], std, r.stats[0][2]), *r.stats[1:]))
    alpha = readout.alphas(r, readout.standardized(features, r))
    found = readout.capacities(r, features, alpha)
    assert np.isfinite(found["capacity"]).all()
    if variant == "library":
        assert not np.asarray(found["capacity"])[:, dead].any()
    batch = {"image": images, "label": np.arange(2), "real": np.ones(2, bool)}
    noise = jnp.ones_like(found["lam"])
    options = training_lib.Training(variant=variant)
    grads, sums = training_lib.slopes(net, r, batch, noise, options)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, sums)))


def test_nan_gives_a_nan_map_and_any_label_the_same():
    net, images, r = small()
    one = jax.jit(lambda x, y: METHODS["iba_readout"](net, x, y, readout=r))
    assert np.isnan(one(images[0].at[2, 3].set(jnp.nan), 0)).all()
    np.testing.assert_array_equal(one(images[0], 0), one(images[0], 4))


def test_clamps():
    net, images, r = small()
    features = net.capture(images, r.layers)
    found = readout.capacities(r, features, readout.alphas(r, readout.standardized(features, r)))
    noise = jnp.full_like(found["lam"], -1e3)
    low = {}
    for clamp in readout.CLAMPS:
        low[clamp] = float(readout.noisy(r, found, noise, features["relu3"], clamp).min())
    assert low["published"] == low["never"] < 0, "the paper's code never clamps"
    assert low["always"] == low["auto"] == 0, "this layer follows a ReLU"
    before = readout.noisy(r, found, noise, features["relu3"] - 1, "auto")
    assert before.min() == low["never"], "a layer with negative values is left as it is"
    library = dataclasses.replace(r, variant="library")
    assert readout.noisy(library, found, noise, features["relu3"]).min() == 0


def test_default_layers():
    """Four, the first of the network not among them."""
    net, images = random_net()
    assert readout.readout_layers(net, images[0]) == ("relu3", "relu4", "fc")
    for options in ({"last_stride": 1}, {"stem": "cifar"}, {}):
        model = MODELS["resnet18"](3, width=0.0625, **options)
        x = np.zeros((1, 64, 64, 3), np.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        found = readout.readout_layers(Net(model, variables, Preprocess(64)), x[0])
        assert found == ("layer1", "layer2", "layer3", "layer4", "fc")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "iba_readout needs readout=, from attribution.train_readout"),
        ({"layers": ("relu4", "relu3")}, "the first one being the first of the network"),
        ({"layers": ("fc", "relu3")}, "the first of layers must be one of relu1, relu3, relu4"),
        ({"layers": ("relu1", "relu4", "fc")}, "readout is of another network: its layers have"),
        ({"variant": "published"}, "variant must be one of library, paper"),
    ],
)
def test_bad_readouts(given, message):
    net, images, r = small()
    r = dataclasses.replace(r, **given) if given else ()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: METHODS["iba_readout"](net, x, 0, readout=r), images[0])


def test_statistics_of_several_layers_are_those_of_each():
    net, images = random_net()
    images = np.asarray(jax.random.normal(jax.random.key(5), (9, *images.shape[1:])))
    together = iba_statistics(net, np.split(images, [5]), layers=("relu3", "fc"), variant="paper")
    alone = iba_statistics(net, np.split(images, [5]), layer="relu3", variant="paper")
    for ours, right in zip(together[0], alone, strict=True):
        np.testing.assert_array_equal(ours, right)
    logits = np.asarray(net.logits(images), np.float64)
    mean, std, active = together[1]
    # The logits are of both signs: mean and population deviation.
    np.testing.assert_allclose(mean, logits.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, logits.std(0), rtol=1e-4)
    assert (active == 1).all()
