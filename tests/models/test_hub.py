"""Weights by their name on the hub, from a cache laid out as the hub's; no network is asked."""

import json
import sys

import jax
import numpy as np
import pytest

import mixaug_jax
from mixaug_jax import models
from mixaug_jax.models import hub, mapping, noted_classes, weight_files, weights

FACTS = {
    "architecture": "resnet18",
    "num_classes": 3,
    "label_names": ["cat", "dog", "ant"],
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
    },
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache with one repository, and no way to fetch another."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    folder = tmp_path / "hub" / "models--timm--small.in1k"
    commit = folder / "snapshots" / "0123abc"
    (folder / "refs").mkdir(parents=True)
    commit.mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc\n")
    (commit / "config.json").write_text(json.dumps(FACTS))
    module = models.MODELS["resnet18"](3, width=0.0625)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: rng.uniform(0.1, 1, x.shape).astype(np.float32), shapes)
    arrays = mapping.from_variables(drawn)
    weight_files.write_safetensors(commit / "model.safetensors", arrays, {})
    return folder, drawn


def test_weights_view_and_classes_come_from_the_cache(cache, capsys):
    _, drawn = cache
    net = mixaug_jax.import_weights("hf:timm/small.in1k")
    view = net.preprocess
    assert (view.size, view.resize, view.interpolation) == (64, 67, "bicubic")
    assert (view.mean, view.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    for a, b in zip(jax.tree.leaves(net.variables), jax.tree.leaves(drawn), strict=True):
        np.testing.assert_array_equal(a, b)
    assert weights.class_names("hf:timm/small.in1k") == ("cat", "dog", "ant")
    assert "sees Preprocess(size=64" in capsys.readouterr().out


def test_a_folder_like_a_repository_will_do(cache):
    net = mixaug_jax.import_weights(cache[0] / "snapshots" / "0123abc")
    assert net.preprocess.mean == (0.5, 0.4, 0.3)
    with pytest.raises(ValueError, match="is a folder; a file of weights is needed"):
        mixaug_jax.import_weights(cache[0])


def test_the_only_commit_will_do(cache):
    folder, _ = cache
    (folder / "refs" / "main").unlink()
    assert hub.located("hf:timm/small.in1k").architecture == "resnet18"


def test_what_is_not_there_says_which_file_to_put_where(cache):
    folder, _ = cache
    with pytest.raises(
        ValueError, match=r"put its model\.safetensors .* and its config\.json into"
    ) as said:
        mixaug_jax.import_weights("hf:timm/other")
    assert str(folder.with_name("models--timm--other") / "snapshots" / "main") in str(said.value)
    assert "pip install 'mixaug_jax[hub]'" in str(said.value)
    with pytest.raises(ValueError, match="must be hf:OWNER/NAME"):
        mixaug_jax.import_weights("hf:resnet50")


def test_what_is_fetched_is_taken_and_what_fails_is_said(cache, monkeypatch):
    folder, _ = cache
    commit = folder / "snapshots" / "0123abc"

    class Fake:
        @staticmethod
        def hf_hub_download(name, file):
            if name != "me/mine" or not (commit / file).is_file():
                raise OSError(f"no {file} of {name}\nin two lines")
            return str(commit / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Fake)
    assert hub.located("hf:me/mine").file == commit / "model.safetensors"
    with pytest.raises(ValueError, match=r"fetched \(no config.json of me/yours in two lines\)"):
        hub.located("hf:me/yours")


def test_a_config_without_a_view():
    assert hub.view({}) is None
    assert hub.view({"pretrained_cfg": {"input_size": [3, 64, 64]}}) is None
    broken = {"input_size": [3, 64, 64], "mean": "x", "std": [1, 1, 1]}
    with pytest.raises(ValueError, match=r"config\.json notes no view"):
        hub.view(broken)


@pytest.mark.parametrize(
    "content",
    [
        {"class_names": ["cat", "dog"]},
        {"class_to_idx": {"dog": 1, "cat": 0}},
        {"id2label": {"0": "cat", "1": "dog"}},
        {"hyper_parameters": {"idx_to_class": {1: "dog", 0: "cat"}}},
        {"meta": {"dataset_meta": {"classes": ("cat", "dog")}}},
        {"classes": '["cat", "dog"]'},
    ],
)
def test_names_of_classes_as_scripts_note_them(content):
    assert noted_classes.noted({"state_dict": {}, "epoch": 3} | content) == ("cat", "dog")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"classes": 2},
        {"classes": "two"},
        {"class_to_idx": {"a": 0, "b": 2}},
        {"classes": ["a", "a"]},
    ],
)
def test_what_is_no_list_of_names(content):
    assert noted_classes.noted(content) == ()


def test_exported_files_keep_the_names(cache, tmp_path):
    net = mixaug_jax.import_weights("hf:timm/small.in1k")
    weights.export_weights(net, tmp_path / "net.safetensors", class_names=("x", "y", "z"))
    assert weights.class_names(tmp_path / "net.safetensors") == ("x", "y", "z")
    assert mixaug_jax.import_weights(tmp_path / "net.safetensors").preprocess == net.preprocess
