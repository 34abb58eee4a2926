"""Training of the readout bottleneck: resumed to the bit, on any devices, with sentences for what cannot be."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
import toy
from attribution_cases import random_net

from mixaug_jax.attribution import (
    METHODS,
    load_readout,
    readout,
    readout_files,
    readout_training,
    train_readout,
)
from mixaug_jax.attribution.readout_training import Training
from mixaug_jax.explain.running import attribute
from mixaug_jax.models import Net, Preprocess

QUICK = Training(
    layers=("relu3", "relu4", "fc"), steps=6, lr=1e-2, beta=1.0, batch_size=6, stat_images=20
)


def network():
    net, _ = random_net(classes=4, side=16)
    return dataclasses.replace(net, preprocess=Preprocess(16, mean=(0.5,) * 3, std=(0.25,) * 3))


def train(tmp_path=None, devices=None, **changes):
    path = tmp_path / "readout.npz" if tmp_path else ""
    given = {"path": path, "threads": 1, "devices": devices}
    return train_readout(network(), toy.source(21), dataclasses.replace(QUICK, **changes), **given)


def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(readout_training, "SAVED_EVERY", 2)
    whole = train()
    save = readout_files.save_progress

    def killed(found, path):
        save(found, path)
        if found.step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(readout_files, "save_progress", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    with pytest.raises(ValueError, match="is not trained to its end"):
        load_readout(tmp_path / "readout.npz", network())
    again = train(tmp_path)
    for ours, right in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, right)
    # What is there is not trained again, and the file gives the same.
    monkeypatch.setattr(readout_training, "_train", None)
    for kept in (train(tmp_path), load_readout(tmp_path / "readout.npz", network())):
        assert (kept.layers, kept.variant, kept.weights) == (whole.layers, "paper", whole.weights)
        for ours, right in zip(jax.tree.leaves(kept), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(ours, right)


def test_processes_say_where_they_go_on_from(tmp_path, monkeypatch):
    """Before they wait for each other; on another disk one would begin anew."""
    told = []

    def compared(what, values):
        told.append((what, values))
        raise ValueError("they differ")

    monkeypatch.setattr(readout_training.walk, "together", lambda devices: True)
    monkeypatch.setattr(readout_training.processes, "compare", compared)
    with pytest.raises(ValueError, match="they differ"):
        train(tmp_path)
    place = tmp_path / "readout.npz"
    assert told == [(f"view of {place}, which must be on a disk that all share", {"step": 0})]


def test_one_device_and_four():
    """The same images, order and noise; sums over devices differ by rounding."""
    one, four = (train(devices=jax.devices()[:k], steps=3) for k in (1, 4))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


def test_every_image_once_in_an_epoch():
    epoch = [readout_training.order(21, 6, step, 0) for step in range(3)]
    assert len(np.unique(np.concatenate(epoch))) == 18
    assert (readout_training.order(21, 6, 3, 0) != epoch[0]).any(), "another order in the next"
    np.testing.assert_array_equal(readout_training.order(21, 6, 1, 0), epoch[1])
    assert Training(epochs=2, batch_size=6).length(21) == 6


def measured(capsys, **changes):
    """The words about a training, and its measures."""
    histories = []
    outcome = readout_training.outcome

    def noted(history, found):
        histories.append(history)
        return outcome(history, found)

    readout_training.outcome = noted
    try:
        train(**changes)
    finally:
        readout_training.outcome = outcome
    return histories[0], capsys.readouterr().out


def test_the_price_of_information(capsys):
    """A high price shuts the bottleneck, which is said; without one next to nothing changes."""
    history, said = measured(capsys, beta=1e4, lr=0.1, steps=40)
    assert "the bottleneck is shut" in said
    assert history[-1, 2] < 0.01 * history[0, 2]
    history, said = measured(capsys, beta=0.0, lr=1e-5, steps=3)
    assert "shut" not in said
    assert np.abs(history[:, 0] - history[:, 1]).max() < 0.1
    assert history[:, 3].min() > 0.99


def test_the_predicted_class_needs_no_labels(capsys):
    net = network()
    source = toy.source(21)
    nameless = dataclasses.replace(source, read=lambda i: {"image": source.read(i)["image"]})
    given = dataclasses.replace(QUICK, target="predicted", steps=2)
    found = train_readout(net, nameless, given, threads=1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert "no labels" not in capsys.readouterr().out
    # Asked for labels that are not there it does the same, and not as if all were of class 0.
    again = train_readout(net, nameless, dataclasses.replace(given, target="label"), threads=1)
    assert "the data has no labels; the predicted class is the target" in capsys.readouterr().out
    for ours, right in zip(jax.tree.leaves(again), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_said(count):
    with pytest.raises(ValueError, match=f"needs at least 2 images; got {count}"):
        train_readout(network(), toy.source(count), QUICK)


def test_other_images_are_other_settings(tmp_path, monkeypatch):
    """Even where their number, size and labels are the same."""
    net, seen = network(), []
    monkeypatch.setattr(readout_training.files, "load_if", lambda f, path, s: seen.append(s))
    monkeypatch.setattr(readout_training, "_statistics", lambda *given: 1 / 0)
    source = toy.source(4)
    darker = dataclasses.replace(
        source, read=lambda i: source.read(i) | {"image": source.read(i)["image"] // 2}
    )
    for images in (source, source, darker):
        with pytest.raises(ZeroDivisionError):
            train_readout(net, images, QUICK, path=tmp_path / "readout.npz", threads=1)
    assert seen[0] == seen[1]
    assert {name for name in seen[0] if seen[0][name] != seen[2][name]} == {"pixels"}


class MapsLast(nn.Module):
    """Its last submodule gives a map, of which the logits are means."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3))(x))
        return nn.Conv(4, (3, 3))(x).mean((1, 2))


@pytest.mark.parametrize("target", ["label", "predicted"])
def test_logits_that_no_submodule_gives(target):
    model, x = MapsLast(), np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    net = Net.wrap(model, model.init(jax.random.key(0), x), Preprocess(8))
    assert readout.readout_layers(net, x[0]) == ("Conv_1",)
    found = readout.blank(net, x[0], ("Conv_0", "Conv_1"))
    noise, labels = np.zeros((3, 8, 8, 5), np.float32), np.arange(3)
    batch = {"image": x, "label": labels, "real": np.ones(3, bool)}
    given = dataclasses.replace(QUICK, target=target)
    _, sums = readout_training.slopes(net, found, batch, noise, given)
    logits = np.asarray(net.logits(x), np.float64)
    chosen = labels if target == "label" else logits.argmax(1)
    right = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), chosen]
    np.testing.assert_allclose(sums[0], right.sum(), rtol=1e-5)


def test_a_readout_of_other_weights(tmp_path):
    found = train(tmp_path, steps=1)
    other = jax.tree.map(lambda leaf: leaf + 1, network().variables)
    other = dataclasses.replace(network(), variables=other)
    with pytest.raises(ValueError, match="is the readout of other weights"):
        load_readout(tmp_path / "readout.npz", other)
    images = np.zeros((1, 16, 16, 3), np.float32)
    with pytest.raises(ValueError, match="readout was trained for other weights of this network"):
        attribute(other, images, np.zeros(1, int), "iba_readout", options={"readout": found})
    maps = attribute(network(), images, np.zeros(1, int), "iba_readout", options={"readout": found})
    alone = METHODS["iba_readout"](network(), images[0], 0, readout=found)
    np.testing.assert_allclose(maps[0], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": "half"}, "hidden must be one of quarter, double"),
        ({"variant": "author"}, "variant must be one of library, paper"),
        ({"target": "true"}, "target must be one of label, predicted"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"layers": ("relu9", "fc")}, "layers must be one of relu1, relu3, relu4, fc"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        train(**changes)


def test_a_loss_that_is_not_finite():
    net = network()
    net = dataclasses.replace(
        net, variables=jax.tree.map(lambda leaf: leaf * np.nan, net.variables)
    )
    with pytest.raises(FloatingPointError, match="loss is not finite in step 0"):
        train_readout(net, toy.source(21), QUICK, threads=1)


def test_blank_has_the_shapes_of_a_trained_one():
    found, empty = train(steps=1), readout.blank(network(), np.zeros((16, 16, 3)), QUICK.layers)
    assert jax.tree.map(np.shape, found.params) == jax.tree.map(np.shape, empty.params)
    assert jax.tree.map(np.shape, found.stats) == jax.tree.map(np.shape, empty.stats)
