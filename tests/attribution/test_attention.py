"""Vision transformers: what others read of their attention, and what methods for maps make of tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, random_net

from mixaug_jax import dissection
from mixaug_jax.attribution import METHODS, attention, bottleneck, iba_statistics, readout, target
from mixaug_jax.core import checks
from mixaug_jax.data.source import Source
from mixaug_jax.explain import running
from mixaug_jax.models import MODELS, Assume, Net, Preprocess, weights

ATTENTION = [name for name, method in METHODS.items() if method.attention]


@pytest.fixture(scope="module")
def given(golden):
    return dict(golden("mixers_net/vit.npz"))


@pytest.fixture(scope="module")
def nets(given, tmp_path_factory):
    """By whose code they were run: a distilled network is timm's, too."""
    found = {}
    for kind in ("timm", "distilled", "torchvision"):
        file = tmp_path_factory.mktemp("vit") / f"{kind}.npz"
        own = {k.partition("/")[2]: v for k, v in given.items() if k.startswith(f"{kind}/")}
        np.savez(file, **own)
        # One view, so that what only differs by it is compiled once.
        found[kind] = weights.import_weights(file, assume=Assume(heads=3), view=Preprocess(32))
    return found


@pytest.fixture(scope="module")
def net(nets):
    return nets["timm"]


@functools.partial(jax.jit, static_argnums=3)
def explain(net, images, labels, names):
    def one(image, label):
        maps = {name: METHODS[name](net, image, label, resize="nearest") for name in names}
        return attention._attention_and_gradients(net, image, label, "logit"), maps

    return jax.vmap(one)(images, labels)


@pytest.mark.parametrize("kind", ["timm", "distilled", "torchvision"])
def test_what_other_code_reads(nets, given, kind):
    """Logits, attention, its gradient, and three maps, at the cells' centers."""
    image, label = given["image"], given[f"{kind}_label"]
    close(nets[kind].logits(image), given[f"{kind}_logits"])
    found, maps = explain(nets[kind], image, label, tuple(ATTENTION))
    value, seen, slopes = jax.device_get(found)
    close(value, np.take_along_axis(given[f"{kind}_logits"], label[:, None], 1)[:, 0])
    blocks = [f"block{i}" for i in range(3)]
    close(np.stack([seen[b] for b in blocks], 0), given[f"{kind}_attention"])
    close(np.stack([slopes[b] for b in blocks], 0), given[f"{kind}_attention_gradient"])
    for name in ATTENTION:
        wanted = given[f"{kind}_{name.replace('attention_rollout', 'rollout')}"]
        close(np.asarray(maps[name])[:, 4::8, 4::8, 0], wanted)


def test_maps_are_the_tokens_of_patches(net, given):
    tokens = net.features(given["image"], "block1")
    maps = np.asarray(tokens)[:, 1:].reshape(len(tokens), 4, 4, 24)
    np.testing.assert_array_equal(net.maps("block1", tokens), maps)
    np.testing.assert_array_equal(net.with_maps("block1", tokens, maps), tokens)
    other = net.with_maps("block1", tokens, 0 * maps)
    np.testing.assert_array_equal(other[:, 0], tokens[:, 0])
    assert not np.any(other[:, 1:])
    logits = net.logits(given["image"])
    np.testing.assert_array_equal(net.maps("head", logits), logits)


def test_gradcam_of_tokens(net, given):
    """In NumPy, at the layer's own size; the last block's patches reach no logit."""
    image, label = given["image"][0], 2
    tokens = net.features(image[None], "block1")
    slope = jax.grad(lambda h: net.logits(image[None], layer="block1", value=h)[0, label])(tokens)
    maps, slope = (np.asarray(h)[0, 1:].reshape(4, 4, 24) for h in (tokens, slope))
    wanted = np.maximum((maps * slope.mean((0, 1))).sum(-1), 0)
    assert target.cam_layer(net, image) == "block1"
    found = METHODS["gradcam"](net, image, label, resize="nearest")
    close(np.asarray(found)[4::8, 4::8, 0], wanted)
    last = jax.grad(lambda h: net.logits(image[None], layer="block2", value=h)[0, label])(
        net.features(image[None], "block2")
    )
    assert np.any(last[:, :1])
    assert not np.any(last[:, 1:])
    said = r"'block2' .* the class token alone; the last that does is block1"
    for name in ("gradcam", "scorecam", "iba"):
        with pytest.raises(checks.UnsupportedError, match=said):
            METHODS[name](net, image, label, layer="block2")


def test_the_bottleneck_leaves_the_class_token_alone(net, given):
    images = np.concatenate([given["image"], given["image"][:, ::-1]])
    stats = iba_statistics(net, [images], layer="block0")
    assert [s.shape for s in stats] == [(4, 4, 24)] * 3
    options = bottleneck.Options("block0", steps=2, samples=2)
    capacity, losses = jax.jit(bottleneck.fit_bottleneck, static_argnums=4)(
        net, images[0], 1, stats, options
    )
    assert capacity.shape == (4, 4, 24)
    assert np.all(np.isfinite(losses))
    # Where everything passes, the first step's cross-entropy is that of the untouched tokens.
    wanted = -jax.nn.log_softmax(net.logits(images[:1]))[0, 1]
    np.testing.assert_allclose(losses[0, 0], wanted, rtol=0.05)
    with pytest.raises(checks.UnsupportedError, match="gives tokens at embed"):
        readout.readout_layers(net, images[0])


def test_what_a_transformer_refuses(net, given):
    image = given["image"][0]
    for name, said in (("guided_backprop", "has GELUs"), ("lrp", "has attention")):
        with pytest.raises(checks.UnsupportedError, match=said):
            METHODS[name](net, image, 1)
    cnn, images = random_net()
    for name in ATTENTION:
        with pytest.raises(checks.UnsupportedError, match="Tiny has no attention to read"):
            METHODS[name](cnn, images[0], 1)


@pytest.mark.parametrize("name", ATTENTION)
def test_labels_and_broken_images(net, given, name):
    image = np.full_like(given["image"][0], np.nan)
    with pytest.raises(ValueError, match=r"label must be in 0\.\.6; got 7"):
        METHODS[name](net, image, 7)
    assert np.isnan(METHODS[name](net, image, 1)).all()


def small():
    model = MODELS["vit_of_size"](3, dim=12, depth=2, heads=2, patch=8)
    return Net(model, model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))), Preprocess(32))


def pictures(count=4):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, 32, 32, 3), np.uint8)
    concepts = draw.integers(0, 3, (count, 4, 4, 1)).repeat(8, 1).repeat(8, 2).astype(np.uint16)
    names = ("a", "b", "c")

    def read(i):
        boxes = {"boxes": np.float32([[2, 2, 20, 20]]), "box_labels": np.int32([i % 3])}
        return {"image": images[i], "label": i % 3, "concepts": concepts[i], **boxes}

    return Source(
        read,
        count,
        names,
        box_names=names,
        concept_names=(("none", "none"), ("a", "x"), ("b", "x")),
    )


def test_explained_and_dissected():
    net, source = small(), pictures()
    methods = ("attention_rollout", "gradient_x_attention", "gradcam")
    found = running.evaluate(net, source, methods=methods, scores=("energy_pointing_game",))
    assert set(methods) < set(found)
    assert all(np.isfinite(one.heat).all() for one in found.values())
    units = dissection.dissect(net, source, ("block0",), dissection.Options(size=32, shuffles=1, q=0.2))  # fmt: skip
    assert len(units["block0"].threshold) == 12
