"""Mixers that look at a network, within a step: which network, once compiled, once differentiated; and mix.share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import data, mixing, training
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.mixing import maps
from mixaug_jax.models import build, weights
from mixaug_jax.training import mixing_batches
from mixaug_jax.training import step as steps


def settings(method, **changes):
    """Resolved, of 8 images at once on one device."""
    config = toy.config(method)
    config.data.batch_size = 8
    if method == "puzzlemix":
        config.mix.update(blocks=(2, 4), iterations=10)
    config.update_from_flattened_dict(changes)
    return config_lib.resolve(config, train_size=64, class_names=tuple("abcd"))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8),
        "label": np.arange(8, dtype=np.int32) % 4,
        "seed": np.arange(8, dtype=np.uint32),
    }


def parts(config):
    model = build.build_model(config)
    x = jnp.zeros((1, config.data.size, config.data.size, 3))
    return model, jax.jit(model.init)(jax.random.key(1), x)


def gradient_of(config, model, batch):
    """f(variables) -> the gradient of the loss of one micro-batch."""
    loss = functools.partial(steps.loss_fn, model=model, config=config, shard=0)
    given = (batch, jax.random.key(3))

    def gradient(variables):
        others = {"batch_stats": variables["batch_stats"]}
        return jax.grad(loss, has_aux=True)(variables["params"], others, *given)[0]

    return jax.jit(gradient)


def test_the_loss_is_differentiated_once(batch, monkeypatch):
    """The gradient is that of a loss whose map is a number."""
    config = settings("guidedmixup", **{"mix.saliency": "gradient"})
    model, variables = parts(config)
    plain = maps.gradient
    kept = []
    monkeypatch.setattr(maps, "gradient", lambda *a: kept.append(a) or plain(*a))
    found = gradient_of(config, model, batch)(variables)
    # The map of the same images, computed beforehand.
    images = normalized(batch)
    net = build.as_net(config, model, variables)
    known = jax.jit(plain)(net, images, jax.nn.one_hot(batch["label"], 4))
    monkeypatch.setattr(maps, "gradient", lambda *a: known)
    fixed = gradient_of(config, model, batch)(variables)
    assert kept
    for one, other in zip(*map(jax.tree.leaves, (found, fixed)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    # Were the map's own slope in it, it would be another: a check of the check.
    monkeypatch.setattr(maps, "gradient", lambda net, *a: plain(net, *a) * net.logits(a[0]).sum())
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda x: x)
    wrong = gradient_of(config, model, batch)(variables)
    assert not np.allclose(wrong["conv1"]["kernel"], fixed["conv1"]["kernel"], rtol=1e-3)


@pytest.mark.parametrize("which", ["current", "ema", "file"])
def test_which_network_is_looked_at(batch, which, monkeypatch, tmp_path):
    """A mixer that multiplies the targets, and so the loss, by a number of the network that it sees."""

    def telling(key, images, targets, *, net=(), shard=0, prob=1.0, per="batch"):
        known = net.variables["params"]["fc"]["bias"] if net else jnp.zeros(())
        return images, targets * (1 + jnp.abs(known).sum())

    monkeypatch.setitem(mixing.MIXERS, "telling", telling)
    file = str(tmp_path / "teacher.safetensors")
    config = settings(
        "telling", **{"mix.net": which if which != "file" else file, "train.ema": 0.9}
    )
    model, variables = parts(config)
    variables["params"]["fc"]["bias"] = jnp.array([0.5, 0, 0, 0.0])
    other = jax.tree.map(lambda x: x, variables)
    other["params"]["fc"] = {**other["params"]["fc"], "bias": jnp.array([0.0, 1, 0, -1])}
    weights.export_weights(build.as_net(config, model, other), file)
    teacher = mixing_batches.teacher(config)
    assert (teacher is None) == (which != "file")
    optimizer = training.build_optimizer(config)
    ema = other if which == "ema" else variables
    state = steps.State(jnp.int32(0), variables, optimizer.init(variables["params"]), ema)
    step = functools.partial(steps.train_step, model=model, optimizer=optimizer, config=config)
    more = () if teacher is None else (teacher,)
    specs = (devices_lib.REPLICATED, devices_lib.SHARDED, *[devices_lib.REPLICATED for _ in more])
    mapped = devices_lib.pmap(step, specs, devices_lib.REPLICATED, devices=jax.devices()[:1])
    found = mapped(state, batch, *more)[1]["loss"]
    logits = model.apply(variables, normalized(batch), train=True, mutable=["batch_stats"])[0]
    plain = -jax.nn.log_softmax(logits)[jnp.arange(8), batch["label"]].mean()
    np.testing.assert_allclose(found / plain, 1.5 if which == "current" else 3, rtol=1e-4)


def normalized(batch):
    return (batch["image"] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)


def test_a_network_of_other_images_is_no_teacher(tmp_path):
    file = str(tmp_path / "teacher.safetensors")
    config = settings("puzzlemix", **{"mix.net": file})
    model, variables = parts(config)
    net = build.as_net(config, model, variables)
    view = dataclasses.replace(net.preprocess, mean=(0.4,) * 3)
    weights.export_weights(dataclasses.replace(net, preprocess=view), file)
    with pytest.raises(ValueError, match=r"sees images normalized by mean and std .*0.4"):
        mixing_batches.teacher(config)


def test_a_share_of_the_batch_is_mixed(batch):
    """The others are as they came, and partners are of the mixed ones."""
    x, targets = jnp.asarray(normalized(batch)), jnp.eye(8)
    config = settings("mixup", **{"mix.share": 0.5, "mix.alpha": 8.0})
    run = jax.jit(lambda key: mixing_batches.mixed(key, x, targets, config=config, shard=0)[:2])
    mixed = 0
    for seed in range(3):
        images, labels = run(jax.random.key(seed))
        np.testing.assert_array_equal(images[4:], x[4:])
        np.testing.assert_array_equal(labels[4:], targets[4:])
        np.testing.assert_array_equal(labels[:4, 4:], 0)
        np.testing.assert_allclose(images, np.einsum("bj,jhwc->bhwc", labels, x), atol=1e-5)
        mixed += (np.asarray(labels[:4]).max(1) < 1).sum()
    assert mixed


@pytest.mark.parametrize("method", ["manifold_mixup", "alignmix", "batchmixup"])
def test_a_share_of_hidden_features(batch, method):
    config = settings(method, **{"mix.share": 0.5, "mix.prob": 1.0})
    x = jnp.asarray(normalized(batch))
    model, variables = parts(config)

    @jax.jit
    def run(key):
        images, labels, hidden = mixing_batches.mixed(key, x, jnp.eye(8), config=config, shard=0)
        h = model.apply(variables, images, hidden=hidden)
        return h, labels

    plain = model.apply(variables, x)
    changed = []
    for seed in range(4):
        logits, labels = run(jax.random.key(seed))
        np.testing.assert_allclose(logits[4:], plain[4:], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(labels[4:], np.eye(8)[4:])
        changed.append(not np.allclose(logits[:4], plain[:4], atol=1e-4))
        assert not np.array_equal(labels[:4], np.eye(8)[:4])
    assert any(changed)
    if method == "batchmixup":  # of the last map, after which all is linear
        np.testing.assert_allclose(logits, labels @ plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "changes", "sentence"),
    [
        ("attentivemix", {"mix.layer": "relu9"}, "layer must be one of relu1, relu3, relu4"),
        ("snapmix", {"mix.layer": "relu9"}, "layer must be one of relu1, relu3, relu4"),
        ("alignmix", {"mix.layers": ()}, "mix.layers must be places where to mix, each once; got"),
        ("alignmix", {"mix.layers": ("last", "last")}, "mix.layers must be places where to mix"),
        (
            "batchmixup",
            {"mix.layers": ("relu3",)},
            "layers must be one of input, last; got 'relu3'",
        ),
        (
            "alignmix",
            {"model.name": "vit_micro", "model.width": 0.1},
            "alignmix aligns the nodes of maps .*, and the last layer gives tokens .4, 5, 9.",
        ),
        ("puzzlemix", {"mix.blocks": (3,)}, "blocks must divide the sides of the images, 16 x 16"),
        ("puzzlemix", {"mix.net": "nowhere.pth"}, "nowhere.pth"),
        ("puzzlemix", {"mix.net": "ema"}, "mix.net='ema' needs an average of the weights"),
        (
            "cutmix",
            {"mix.share": 0.3},
            "mix.share=0.3 of the 4 images that a device mixes at once is 1",
        ),
        ("snapmix", {"train.loss": "sigmoid"}, "snapmix needs images of one class each"),
    ],
)
def test_an_error_comes_before_any_compile(method, changes, sentence, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    config = toy.config(method)
    config.update_from_flattened_dict(changes)

    def refuse(*args, **kwargs):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(devices_lib, "pmap", refuse)
    monkeypatch.setattr(steps, "init_state", refuse)
    with pytest.raises(ValueError, match=sentence) as error:
        mixaug_jax.train(config, tmp_path / "run")
    assert not str(error.value).endswith(".")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("method", "changes"),
    [("manifold_mixup", {}), ("batchmixup", {}), ("alignmix", {"mix.layers": ("input",)})],
)
def test_mixers_of_hidden_features_take_tokens(method, changes):
    view = {"model.name": "vit_micro", "model.width": 0.1}
    mixing_batches.check_mixing(settings(method, **view, **changes))


def test_options_that_do_not_apply_are_refused():
    config = toy.config("cutmix")
    with config.unlocked():
        config.mix.net = "ema"
    with pytest.raises(
        ValueError, match=r"mix.net is not an option of cutmix; its options: .*share"
    ):
        config_lib.check(config)
    assert "share" not in toy.config("baseline").mix
    assert toy.config("puzzlemix").mix.net == "current"


def test_a_training_compiles_one_step(monkeypatch, tmp_path):
    """Of whatever number of blocks, on four devices."""
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    config = toy.config("puzzlemix", epochs=2)
    config.mix.update(blocks=(2, 4), iterations=20, share=0.5)
    traced, plain = [], steps.train_step

    def counted(*args, **kwargs):
        traced.append(1)
        return plain(*args, **kwargs)

    monkeypatch.setattr(steps, "train_step", counted)
    result = mixaug_jax.train(config, tmp_path / "run")
    assert result["step"] == 8
    assert len(traced) == 1
    assert 0 <= result["test_accuracy"] <= 1
