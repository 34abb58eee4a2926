"""What no file of weights tells: each network that looks like another is right with what is assumed of it."""

import pathlib

import jax
import numpy as np
import pytest
import recipe
from test_weights import close, importing, recipe_state, run, small

from mixaug_jax.core import checks
from mixaug_jax.models import Assume, weights

DATA = pathlib.Path(__file__).parents[1] / "data"
# Logits that PyTorch gave of these networks, whose weights are the recipe's (tests/torch_nets.py).
LOGITS = np.load(DATA / "torch_lookalikes.npz")
LOOKALIKES = {
    "dilation 2": ("resnet50", False, {"dilation": 2}),
    "dilation 4": ("resnet50", False, {"dilation": 4}),
    "dilation 8": ("resnet50", False, {"dilation": 8}),
    "basic, dilation 4": ("resnet18", False, {"dilation": 4}),
    "last stride": ("resnet50", False, {"last_stride": 1}),
    "stride in conv1": ("resnet50", False, {"stride_in": "conv1"}),
    "no pool": ("resnet18", False, {"pool": "none"}),
    "3x3, pool": ("resnet18", True, {"pool": "max"}),
    "3x3 stride 2, pool": ("resnet18", True, {"stem": "strided", "pool": "max"}),
    "3x3 stride 2": ("resnet18", True, {"stem": "strided"}),
    "leaky": ("resnet18", False, {"slope": 0.1}),
    "epsilon": ("resnet18", False, {"epsilon": 0.1}),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.npz"


def state_of(name):
    architecture, cifar, _ = LOOKALIKES[name]
    return recipe_state(architecture, 5, width=4 / 64, stem="cifar" if cifar else "imagenet")


def test_the_table_is_that_of_the_logits():
    assert sorted(LOOKALIKES) == sorted(LOGITS)


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_have_pytorchs_logits_with_their_assumption_only(path, capsys, name):
    np.savez(path, **state_of(name))
    x = recipe.image(64, 48)
    changes = LOOKALIKES[name][2]
    net = weights.import_weights(path, assume=Assume(**changes))
    close(run(net, x), LOGITS[name])
    said = capsys.readouterr().out
    for field, value in changes.items():
        assert f"{field} {value}" in said
    plain = weights.import_weights(path)
    assert np.abs(run(plain, x) - LOGITS[name]).max() > 1e-3 * np.std(LOGITS[name])
    said = capsys.readouterr().out
    assert "assumed, as no file of weights tells" in said


def test_exported_files_say_it_themselves(tmp_path, path):
    np.savez(path, **state_of("dilation 4"))
    net = weights.import_weights(path, assume=Assume(dilation=4, epsilon=1e-3))
    file = tmp_path / "net.safetensors"
    weights.export_weights(net, file)
    again = weights.import_weights(file)
    assert again.model == net.model
    assert (again.model.dilation, again.model.epsilon) == (4, 1e-3)
    with pytest.raises(ValueError, match="its notes contradict what is assumed of dilation, 2"):
        weights.import_weights(file, assume=Assume(dilation=2))
    with pytest.raises(ValueError, match=r"its stem is imagenet, and assume\.stem is cifar"):
        weights.import_weights(file, assume=Assume(stem="cifar"))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem": "vit"}, "assume.stem must be one of '', imagenet, cifar, strided; got 'vit'"),
        ({"pool": "avg"}, "assume.pool must be one of auto, max, none; got 'avg'"),
        ({"dilation": 3}, "assume.dilation must be one of 1, 2, 4, 8; got 3"),
        ({"last_stride": 3}, "assume.last_stride must be one of 1, 2; got 3"),
        ({"stride_in": "conv3"}, r"assume.stride_in must be one of conv1, conv2; got 'conv3'"),
        ({"slope": float("nan")}, "assume.slope must be a number"),
        ({"epsilon": -1}, "assume.epsilon must be a number"),
    ],
)
def test_bad_assumptions(fields, message):
    with pytest.raises(ValueError, match=message):
        Assume(**fields)


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        ("vgg16", {"epsilon": 0.1}, "assume.epsilon=0.1: vgg16 has no such thing"),
        (
            "resnet18",
            {"stride_in": "conv1"},
            "assume.stride_in='conv1': resnet18 has no such thing",
        ),
        ("tiny", {"dilation": 2}, "assume.dilation=2: tiny has no such thing"),
        ("efficientnet_lite0", {"slope": 0.1}, "assume.slope=0.1: efficientnet_lite0 has no such"),
        ("tiny", {"stem": "strided"}, "assume.stem must be one of imagenet, cifar; got 'strided'"),
    ],
)
def test_what_a_network_does_not_have_is_refused(path, model, fields, message):
    np.savez(path, **small(model, width=1 / 32))
    with pytest.raises(ValueError, match=message):
        weights.import_weights(path, assume=Assume(**fields))


@pytest.mark.parametrize("name", ["resnetblur18-84f4.npz", "resnetaa50.npz"])
def test_blurred_networks_are_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=rf"is of {name[:10]}.*, whose blur has no weights"):
        importing(tmp_path / name, small("resnet18", width=1 / 32))


def test_a_leaky_network_refuses_rules_of_plain_relus(path):
    np.savez(path, **small("tiny"))
    net = weights.import_weights(path, assume=Assume(slope=0.2))
    with pytest.raises(checks.UnsupportedError, match=r"leaky ReLUs \(slope 0\.2\)"):
        net.with_rules(act=jax.nn.relu)
