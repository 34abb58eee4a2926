"""Training under mix.label="attention": labels by what the network looks at, once differentiated; and where it cannot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import data, training
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.mixing import MIXERS
from mixaug_jax.models import build
from mixaug_jax.training import step as steps

CLASSES, COUNT = 4, 8


def settings(method="cutmix", **changes):
    """`vit_micro` of 9 numbers a token, on four patches of 16 px pictures."""
    given = toy.config(method)
    given.model.name, given.model.width = "vit_micro", 0.1
    given.mix.label = "attention"
    given.update_from_flattened_dict(changes)
    return given


def resolved(*args, **changes):
    return config_lib.resolve(settings(*args, **changes), train_size=64, class_names=tuple("abcd"))


@pytest.fixture(scope="module")
def batch():
    source = toy.source(COUNT)
    rows = [source[i] for i in range(COUNT)]
    return {
        "image": np.stack([row["image"] for row in rows]),
        "label": np.array([row["label"] for row in rows], np.int32),
        "seed": np.arange(COUNT, dtype=np.uint32),
    }


def network(config):
    model = build.build_model(config)
    x = jnp.zeros((1, config.data.size, config.data.size, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    # Far from even attention, so that it and the area are different labels.
    grown = jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim == 2 else leaf, variables)
    return model, grown


def by_hand(net, params, config, batch, key):
    """The loss of a micro-batch, with labels by attention that is a number."""
    d = config.data
    images = (batch["image"] / np.float32(255) - np.float32(d.mean)) / np.float32(d.std)
    mix_key, _ = jax.random.split(key)
    targets = jnp.eye(CLASSES)[batch["label"]]
    options = {k: v for k, v in config.mix.items() if k not in ("name", "share")}
    mixed, pending = MIXERS[config.mix.name](mix_key, images, targets, **options)
    seen = np.asarray(list(net.attention(mixed)[1].values())[-1])[:, :, 0, 1:].mean(1)
    weight = []
    for row, mask in zip(seen, np.asarray(pending.mask), strict=True):
        first = mask[::8, ::8].ravel()  # of each patch's first pixel
        weight.append((mask.mean() + (row * first).sum() / row.sum()) / 2)
    weight = np.array(weight)[:, None]
    targets = weight * pending.own + (1 - weight) * pending.partner

    def loss(params):
        logits = net.model.apply({"params": params}, mixed)
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()

    return jax.value_and_grad(loss)(params), weight.ravel(), np.asarray(pending.mask).mean((1, 2))


@pytest.mark.parametrize("method", ["cutmix", "switch"])
def test_the_loss_and_its_gradient(batch, method):
    """What the network looks at is a constant of the loss."""
    config = resolved(method, **{"mix.per": "example"})
    model, variables = network(config)
    key = jax.random.key(4)
    given = {"model": model, "config": config, "shard": 0}
    run = jax.jit(jax.value_and_grad(functools.partial(steps.loss_fn, **given), has_aux=True))
    (loss, _), found = run(variables["params"], {}, batch, key)
    net = build.as_net(config, model, variables)
    (wanted, slopes), weight, area = by_hand(net, variables["params"], config, batch, key)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert np.abs(weight - area).max() > 0.02
    for one, other in zip(*map(jax.tree.leaves, (found, slopes)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_what_is_not_mixed_keeps_its_label(batch):
    config = resolved(**{"mix.prob": 0.0})
    model, variables = network(config)
    run = jax.jit(functools.partial(steps.loss_fn, model=model, config=config, shard=0))
    loss, _ = run(variables["params"], {}, batch, jax.random.key(0))
    plain = resolved(**{"mix.prob": 0.0, "mix.label": "mixed"})
    run = jax.jit(functools.partial(steps.loss_fn, model=model, config=plain, shard=0))
    np.testing.assert_allclose(loss, run(variables["params"], {}, batch, jax.random.key(0))[0], rtol=1e-6)  # fmt: skip


FORMS = {
    "accumulated": {"train.accumulate": 2, "train.ema": 0.9, "model.drop_path": 0.2},
    "recomputed, halves, a share": {"model.remat": True, "model.dtype": "bfloat16", "mix.share": 0.5},
    "sigmoid": {"train.loss": "sigmoid"},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_training_on_four_devices(form, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    config = settings(**{"train.epochs": 1, "train.optimizer": "adamw"}, **FORMS[form])
    config.data.batch_size = 16 if form != "accumulated" else 32
    result = mixaug_jax.train(config, tmp_path / "run")
    assert 0 <= result["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("method", "changes", "sentence"),
    [
        ("cutmix", {"model.name": "tiny"}, r"^mix\.label='attention' needs a network with attention, as .*; tiny has none$"),
        ("mixup", {}, "^label must be one of mixed, first, pasted, majority; got 'attention'"),
        ("snapmix", {"model.name": "tiny"}, "needs a network with attention"),
    ],
)  # fmt: skip
def test_an_error_comes_before_any_compile(method, changes, sentence, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())

    def refuse(*args, **kwargs):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(devices_lib, "pmap", refuse)
    monkeypatch.setattr(training.step, "init_state", refuse)
    with pytest.raises(ValueError, match=sentence):
        mixaug_jax.train(settings(method, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
