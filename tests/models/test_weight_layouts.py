"""The containers in which people keep the same tensors: each is read, or refused by its right name."""

import argparse
import collections
import gzip
import io
import pathlib
import pickle

import jax
import numpy as np
import pytest
import torch_writer
from test_weights import importing, recipe_state
from torch_writer import Named, Plain

from mixaug_jax.models import torch_files, weights

WIDTH = 2 / 64
STATE = recipe_state("resnet18", 3, width=WIDTH, stem="cifar")
ONE = np.ones(1, np.float32)


class Recorder:
    """As training code has it: its class is not there where the file is read."""

    def __init__(self):
        self.best, self.epochs = 0.7, [1, 2, 3]


def under(prefix, state=STATE):
    return {prefix + name: array for name, array in state.items()}


def without(*names, state=STATE):
    return {name: array for name, array in state.items() if name not in names}


def head(old, state=STATE):
    """The last layer under another name."""
    return {name.replace("fc.", f"{old}.", 1): array for name, array in state.items()}


def beside(**others):
    return {"state_dict": STATE, "epoch": 3, **others}


def backbone():
    body = under("backbone.", without("fc.weight", "fc.bias"))
    return body | {"head.fc.weight": STATE["fc.weight"], "head.fc.bias": STATE["fc.bias"]}


def of_children():
    """Under the names that nn.Sequential(*list(net.children())[:-1]) gives, with a head of its own."""
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    parts = {name: name.partition(".") for name in STATE}
    return {
        f"features.{places[p[0]]}.{p[2]}" if p[0] in places else name: STATE[name]
        for name, p in parts.items()
    }


OTHER = {name: array + 1 for name, array in STATE.items()}
CONTAINERS = {
    "_orig_mod": under("_orig_mod."),
    "module, _orig_mod": under("module._orig_mod."),
    "_orig_mod, module": under("_orig_mod.module."),
    "module, module": under("module.module."),
    "model": under("model."),
    "net": under("net."),
    "lightning": {"state_dict": under("model.net."), "hyper_parameters": {"lr": 0.1}},
    "backbone and head": backbone(),
    "a normalizing layer first": {"0.mean": ONE, "0.std": ONE, **under("1.")},
    "MoCo": {
        "state_dict": under("module.encoder_q.")
        | under("module.encoder_k.", OTHER)
        | {"module.queue": np.ones((3, 8), np.float32), "module.queue_ptr": np.ones(1, np.int64)}
    },
    "AveragedModel": {"n_averaged": np.array(7), **under("module.")},
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": {"state": {}}},
    "state_dict_ema": {"state_dict_ema": STATE},
    "model_ema": {"model_ema": {"n_averaged": np.array(7), **under("module.")}},
    "ema": {"ema": STATE},
    "weights": {"weights": STATE},
    "raw and ema": beside(state_dict_ema=OTHER),
    "Namespace": beside(args=argparse.Namespace(lr=0.1, name="x")),
    "recorder": beside(recorder=Recorder()),
    "numpy arrays": beside(losses=Plain(np.arange(5.0)), best=np.float64(0.5)),
    "paths": beside(place=pathlib.PurePosixPath("/data")),
    "device and dtype": beside(
        at=Named("torch", "device", ("cpu",)), as_=Named("torch", "float32", None)
    ),
    "defaultdict": {"state_dict": collections.defaultdict(int), "model": STATE},
    "counter": beside(seen=collections.Counter("abc")),
    "optimizer": beside(
        optimizer={"state": {0: {"momentum_buffer": np.ones((2, 2), np.float32)}}},
        best_acc=np.float32(0.5) * ONE,
    ),
    "dropout first": head("fc.1"),
    "timm's head": head("head.fc"),
    "a head beside the backbone, both inside": {
        "state_dict": {
            name.replace("model.", "model." if name.startswith("model.fc") else "model.body."): a
            for name, a in under("model.").items()
        }
    },
    "metrics": {**under("net."), "train_acc.tp": ONE, "val_f1.confmat": ONE, "metrics.acc.tp": ONE},
    "robustness": under("module.model.")
    | under("module.attacker.model.", OTHER)
    | {"module.normalizer.new_mean": ONE, "module.attacker.normalize.new_mean": ONE},
    "profiler": {**STATE, "total_ops": ONE, "layer1.0.conv1.total_params": ONE},
    "compiled blocks": {n.replace("layer2.0.", "layer2.0._orig_mod."): a for n, a in STATE.items()},
    "sharded": {
        f"_fsdp_wrapped_module.{n.replace('layer1.', 'layer1._checkpoint_wrapped_module.')}": a
        for n, a in STATE.items()
    },
    "children in a Sequential": of_children(),
    "aux": {**STATE, "mean": ONE, "std": ONE, "aux.0.weight": np.ones((2, 2), np.float32)},
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return importing(tmp_path_factory.mktemp("plain") / "net.npz", STATE)


def same(net, other):
    assert net.model == other.model
    jax.tree.map(np.testing.assert_array_equal, net.variables, other.variables)


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_same_network_from_every_container(tmp_path, expected, name):
    path = tmp_path / "net.pth"
    torch_writer.save(CONTAINERS[name], path)
    same(weights.import_weights(path), expected)


def imported(tmp_path, content, **options):
    torch_writer.save(content, tmp_path / "net.pth")
    return weights.import_weights(tmp_path / "net.pth", **options)


def test_raw_or_averaged_is_a_choice_and_said(tmp_path, expected, capsys):
    content = {"state_dict_ema": STATE, "state_dict": OTHER}
    same(imported(tmp_path, content, key="state_dict_ema"), expected)
    said = "weights under state_dict, state_dict_ema: {} is taken"
    assert said.format("state_dict_ema") in capsys.readouterr().out
    net = imported(tmp_path, content)
    assert said.format("state_dict") in capsys.readouterr().out
    np.testing.assert_array_equal(net.variables["params"]["fc"]["bias"], OTHER["fc.bias"])
    with pytest.raises(
        ValueError, match="key must be one of '', state_dict, state_dict_ema; got 'ema'"
    ):
        imported(tmp_path, content, key="ema")


def test_a_network_among_others_is_a_choice_and_said(tmp_path, expected, capsys):
    content = under("encoder_k.", OTHER) | under("encoder_q.")
    same(imported(tmp_path, content, key="encoder_q"), expected)
    said = capsys.readouterr().out
    assert "networks under encoder_k, encoder_q: encoder_q is taken" in said
    with pytest.raises(
        ValueError, match="key must be one of '', encoder_k, encoder_q; got 'other'"
    ):
        imported(tmp_path, content, key="other")


def test_what_is_left_out_is_said(tmp_path, capsys):
    imported(tmp_path, CONTAINERS["aux"])
    assert "net.pth: left out: mean, std, aux.0.weight" in capsys.readouterr().out
    imported(tmp_path, CONTAINERS["Namespace"])
    assert "net.pth: not read: args (argparse.Namespace)" in capsys.readouterr().out


def test_a_head_without_a_bias(tmp_path, expected, capsys):
    net = imported(tmp_path, without("fc.bias"))
    assert "fc has no bias, which is 0 then" in capsys.readouterr().out
    np.testing.assert_array_equal(net.variables["params"]["fc"]["bias"], np.zeros(3))
    np.testing.assert_array_equal(
        net.variables["params"]["fc"]["kernel"], expected.variables["params"]["fc"]["kernel"]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("fc.weight", "fc.bias"), r"it has no last layer \(fc\), so it gives features"),
        (
            without("fc.weight", "fc.bias")
            | {"fc.0.weight": np.ones((4, 16), np.float32), "fc.0.bias": np.ones(4, np.float32)}
            | {"fc.2.weight": np.ones((3, 4), np.float32), "fc.2.bias": np.ones(3, np.float32)},
            r"its head has 2 dense layers \(fc\.0 \[4, 16\], fc\.2 \[3, 4\]\)",
        ),
        (backbone() | {"neck.0.weight": np.ones((2, 2), np.float32)}, r"surplus: neck\.0\.weight"),
        ({"model": Recorder()}, r"only model \(a [\w.]*Recorder, which is not read and not run\)"),
        (Recorder(), r"holds a [\w.]*Recorder.*save model\.state_dict\(\) alone"),
    ],
)
def test_what_is_refused_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        imported(tmp_path, content)
    assert "\n" not in str(error.value)
    assert not str(error.value).endswith(".")


class _Whole(pickle._Pickler):
    """Writes a class as old versions of PyTorch did, with its source."""

    seen = False

    def persistent_id(self, obj):
        if obj is Recorder and not self.seen:
            self.seen = True
            return "module", obj, "recorder.py", "class Recorder: pass"
        return None


def test_a_whole_network_in_the_old_format_is_named(tmp_path):
    file = io.BytesIO()
    for part in (torch_files.MAGIC, torch_files.PROTOCOL, {"little_endian": True}):
        pickle.dump(part, file, 2)
    _Whole(file, 2).dump(Recorder())
    pickle.dump([], file, 2)
    (tmp_path / "net.pth").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"holds a [\w.]*Recorder, which is not read and not run"):
        weights.import_weights(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"weights"), r"is compressed \(gzip\); gunzip it first"),
        (b"\x89HDF\r\n" + bytes(600), "is an HDF5 file, as Keras writes"),
        (
            pickle.dumps({"fc.weight": np.ones((400, 800), np.float32)}),
            "is a pickle, but not one that PyTorch wrote",
        ),
        (bytes(257) + b"ustar" + bytes(300), "is a tar file: unpack it"),
    ],
    ids=["gzip", "hdf5", "pickle", "tar"],  # compressed bytes hold the time of day
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        weights.import_weights(tmp_path / "net.pth")
