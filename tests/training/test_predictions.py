"""Predictions of the test split: those of the network, in the order of the data, on any number of devices, never damaged."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import data
from mixaug_jax.core import files
from mixaug_jax.models import MODELS, Net, Preprocess, imagenet, weights
from mixaug_jax.stages import train as stage
from mixaug_jax.training import metric_log, predictions

CONFIG = {"epochs": 1, "keep_every": 0.5, "checkpoint_every": 0.5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    toy.train_run(workdir)
    return workdir


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


def arrays(found):
    return {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}


def assert_same(a, b):
    a, b = arrays(a), arrays(b)
    assert a.pop("settings") == b.pop("settings")
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name])


def test_they_are_what_the_network_says_in_the_order_of_the_data(trained):
    found, net, source = predictions.load(trained), mixaug_jax.load(trained), toy.splits()["test"]
    images = np.stack([net.preprocess(source[i]["image"]) for i in range(37)])
    logits = np.asarray(net.logits(images), np.float64)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    label = np.array([source[i]["label"] for i in range(37)])
    order = np.argsort(-logits, axis=-1)[:, :2]
    np.testing.assert_array_equal(found.indices, np.arange(37))
    np.testing.assert_array_equal(found.label, label)
    np.testing.assert_array_equal(found.predicted, logits.argmax(-1))
    np.testing.assert_array_equal(found.top, order)
    np.testing.assert_allclose(found.probability, p[np.arange(37), label], atol=1e-6)
    np.testing.assert_allclose(found.top_probability, np.take_along_axis(p, order, -1), atol=1e-6)
    assert found.targets.shape == (37, 0)
    assert found.settings["weights"] == files.checksum(net.variables)
    assert found.settings["split"] == "test"


def test_their_accuracy_is_the_test_accuracy(trained):
    found = predictions.load(trained / "predictions.npz")
    assert found.accuracy == metric_log.read(trained)[-1]["test_accuracy"]


ONE = """
import sys; sys.path.insert(0, {tests!r})
import jax, conftest; jax.config.update("jax_num_cpu_devices", 1)
import toy, mixaug_jax
from mixaug_jax import data
data.open_splits = lambda config: toy.splits()
assert jax.device_count() == 1
mixaug_jax.train(toy.config(**{config!r}), {workdir!r})
"""


def test_one_device_and_four_make_the_same_file(trained, run):
    assert jax.device_count() == 4
    (run / "predictions.npz").unlink()
    tests = str(pathlib.Path(__file__).parents[1])
    code = ONE.format(tests=tests, config=CONFIG, workdir=str(run))
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert_same(predictions.load(run), predictions.load(trained))


def test_those_that_are_damaged_or_of_other_weights_are_made_again(trained, run, capsys):
    path = run / "predictions.npz"
    content = path.read_bytes()
    for damaged in (content[:200] + bytes([content[200] ^ 4]) + content[201:], b"", b"[]"):
        path.write_bytes(damaged)
        mixaug_jax.train(toy.config(**CONFIG), run)
        assert "predictions.npz is no result of predictions" in capsys.readouterr().out
        assert_same(predictions.load(run), predictions.load(trained))
    mixaug_jax.train(toy.config(**CONFIG | {"epochs": 2}), run)
    assert predictions.load(run).settings["weights"] == files.checksum(
        mixaug_jax.load(run).variables
    )


def test_whole_ones_are_not_made_again(run, monkeypatch):
    monkeypatch.setattr(predictions, "_predicted", None)
    mixaug_jax.train(toy.config(**CONFIG), run)


def test_what_an_image_shows_besides_is_kept(trained, tmp_path):
    several = toy.source(37, seed=3)
    targets = np.random.default_rng(0).integers(0, 2, (37, 4))
    source = dataclasses.replace(several, read=lambda i: several[i] | {"targets": targets[i]})
    found = predictions.keep(tmp_path, mixaug_jax.load(trained), source, toy.config(), "test")
    np.testing.assert_array_equal(found.targets, targets)
    np.testing.assert_array_equal(found.top, predictions.load(trained).top)


@pytest.mark.parametrize("classes", [4, 3])
def test_imported_weights_have_them_where_the_classes_fit(
    classes, trained, tmp_path, capsys, monkeypatch
):
    net = mixaug_jax.load(trained)
    weights.export_weights(net, tmp_path / "net.safetensors")
    toy.use(monkeypatch, toy.source(37, seed=3, classes=classes))
    config = toy.config()
    config.weights = str(tmp_path / "net.safetensors")
    stage.run(config, tmp_path / "run")
    said = capsys.readouterr().out
    if classes == 3:
        assert "predictions: left out, because the network has 4 classes and the data set 3" in said
        assert not (tmp_path / "run" / "predictions.npz").exists()
    else:
        found = predictions.load(tmp_path / "run")
        np.testing.assert_array_equal(found.top, predictions.load(trained).top)
        assert f"test accuracy {found.accuracy:.4f} (37 images)" in said


def test_a_part_of_imagenet_is_predicted_with_its_own_labels(tmp_path, monkeypatch):
    """A network of all 1000 classes, and a folder of two of them called by their WordNet numbers."""
    model = MODELS["tiny"](1000)
    image = np.zeros((1, 16, 16, 3), np.float32)
    net = Net(model, jax.jit(model.init)(jax.random.key(0), image), Preprocess(16))
    mixaug_jax.save(net, tmp_path)
    wnids, own = imagenet.wnids(), toy.source(6, classes=2)
    part = dataclasses.replace(own, class_names=(wnids[3], wnids[7]))
    monkeypatch.setattr(data, "open_source", lambda *_, **__: part)
    predictions.keep_given(tmp_path, mixaug_jax.get_config())
    found = predictions.load(tmp_path)
    expected = [(3, 7)[own[i]["label"]] for i in range(6)]
    np.testing.assert_array_equal(found.label, expected)
