"""Released weights as networks here: PyTorch's logits, every naming, and files that do not fit."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe

from mixaug_jax.models import (
    MODELS,
    Net,
    Preprocess,
    mapping,
    pickles,
    views,
    weight_files,
    weights,
)

ROOT = pathlib.Path(__file__).parents[2]
LOGITS = np.load(ROOT / "tests/data/torch_logits.npz")
run = jax.jit(Net.logits)


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def shapes(name, classes=1000, **options):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(MODELS[name](classes, **options).init, jax.random.key(0), image)


def recipe_state(name, classes=1000, **options):
    """PyTorch's state dict of a network, as numpy arrays."""
    named = mapping.torch_shapes(shapes(name, classes, **options))
    return {key: recipe.weight(key, shape) for key, shape in named.items()}


def small(name, classes=5, width=1 / 16, **options):
    return recipe_state(name, classes, width=width, **options)


def importing(path, state, model=""):
    np.savez(path, **state)
    return weights.import_weights(path, model=model)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.npz"


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_logits_that_pytorch_gave(path, name):
    net = importing(path, recipe_state(name))
    assert net.model == MODELS[name](1000)
    for key in (key for key in LOGITS if key.startswith(name)):
        height, width = map(int, key.rpartition("_")[2].split("x"))
        close(run(net, recipe.image(height, width)), LOGITS[key])


# Name here, the maker in torch_nets with its arguments, and this package's options for the same network.
TORCH = [
    ("resnet18", "ResNet", ("resnet18", 5, 4), {"width": 4 / 64, "stem": "imagenet"}),
    ("resnet50", "ResNet", ("resnet50", 5, 4, True), {"width": 4 / 64, "stem": "cifar"}),
    ("resnet18", "ResNet", ("resnet18", 5, 4, True, True), {"width": 4 / 64, "stem": "cifar"}),
    ("resnet50", "ResNet", ("resnet50", 5, 4, True, True), {"width": 4 / 64, "stem": "cifar"}),
    ("preact_resnet18", "PreActResNet", (5, 4), {"width": 4 / 64, "stem": "cifar"}),
    ("wide_resnet28_10", "WideResNet", (5, 2, 16), {"width": 0.1, "stem": "cifar"}),
    ("vgg16", "vgg16", (5, 2, False, False), {"width": 2 / 64, "stem": "imagenet"}),
    ("vgg16_bn", "vgg16", (5, 2, True, False), {"width": 2 / 64, "stem": "imagenet"}),
    ("vgg16_bn", "vgg16", (5, 2, True, True), {"width": 2 / 64, "stem": "cifar"}),
]


@pytest.mark.parametrize(("name", "maker", "args", "options"), TORCH)
def test_pytorchs_own_files_and_logits(tmp_path, name, maker, args, options):
    torch = pytest.importorskip("torch", reason="PyTorch makes the files and the logits")
    import torch_nets

    net = torch_nets.filled(getattr(torch_nets, maker)(*args))
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    file = tmp_path / "checkpoint.pth.tar"
    legacy = maker != "ResNet"
    container = {"state_dict": state, "epoch": 3} if legacy else {"net": state, "acc": 95.1}
    torch.save(container, file, _use_new_zipfile_serialization=not legacy)
    found, ours = weights.import_network(file)
    assert found[:5] == (name, 5, options["width"], options["stem"], 3)
    assert ours.model == MODELS[name](5, **options)
    x = np.random.default_rng(0).normal(size=(2, 43, 38, 3)).astype(np.float32)
    close(run(ours, x), torch_nets.logits(net, x))


def test_timms_vgg_has_convolutions_for_dense_layers(path):
    state = small("vgg16", width=1 / 64)
    expected = importing(path, state)
    timm = dict(state)
    for old, new, shape in (
        ("classifier.0", "pre_logits.fc1", (64, 8, 7, 7)),
        ("classifier.3", "pre_logits.fc2", (64, 64, 1, 1)),
    ):
        timm[f"{new}.weight"] = timm.pop(f"{old}.weight").reshape(shape)
        timm[f"{new}.bias"] = timm.pop(f"{old}.bias")
    timm["head.fc.weight"], timm["head.fc.bias"] = (
        timm.pop("classifier.6.weight"),
        timm.pop("classifier.6.bias"),
    )
    same(importing(path, timm), expected)


def same(net, expected):
    assert net.model == expected.model
    jax.tree.map(np.testing.assert_array_equal, net.variables, expected.variables)


# Further families stand in test_families.py and test_vit.py.
FOUND = ("resnet", "preact", "wide_resnet28", "vgg16", "efficientnet_lite", "tiny")


@pytest.mark.parametrize("name", [n for n in MODELS if n.startswith(FOUND) and n[-1] != "d"])
def test_every_network_is_found_by_its_names(name):
    named = mapping.torch_shapes(shapes(name, 7))
    tensors = {key: pickles.Tensor(shape, np.dtype("f4"), None) for key, shape in named.items()}
    stem = "cifar" if name.startswith(("wide", "preact")) else "imagenet"
    if stem == "cifar":
        tensors |= {
            "conv1.weight": pickles.Tensor((*named["conv1.weight"][:2], 3, 3), np.dtype("f4"), None)
        }
    assert mapping.identify(mapping.canonical(tensors))[:5] == (name, 7, 1.0, stem, 3)


@pytest.mark.parametrize("container", ["state_dict", "model", "net", ""])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_containers_and_prefixes(tmp_path, container, prefix):
    torch = pytest.importorskip("torch", reason="PyTorch makes the file")
    state = small("tiny", width=0.5)
    tensors = {prefix + key: torch.from_numpy(array) for key, array in state.items()}
    file = tmp_path / "net.pt"
    torch.save({container: tensors} if container else tensors, file)
    same(weights.import_weights(file), importing(tmp_path / "net.npz", state))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(tmp_path, kind):
    torch = pytest.importorskip("torch", reason="PyTorch makes the file")
    state = {key: torch.from_numpy(a).to(getattr(torch, kind)) for key, a in small("tiny").items()}
    file = tmp_path / "net.pth"
    torch.save(state, file)
    net = weights.import_weights(file)
    assert {leaf.dtype for leaf in jax.tree.leaves(net)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        net.variables["params"]["fc"]["kernel"], state["fc.weight"].float().numpy().T
    )


def test_all_problems_are_listed(path):
    state = small("resnet18")
    del state["layer3.1.bn2.running_var"]
    state["extra.weight"] = np.zeros(3, np.float32)
    state["layer4.0.conv2.weight"] = np.zeros((2, 2, 3, 3), np.float32)
    state["bn1.bias"] = np.zeros(4, np.int8)
    with pytest.raises(ValueError, match=r"net\.npz does not fit resnet18") as error:
        importing(path, state)
    for part in (
        "missing: layer3.1.bn2.running_var;",
        "surplus: extra.weight;",
        "of another shape: layer4.0.conv2.weight [2, 2, 3, 3] instead of [32, 32, 3, 3];",
        "; not floating-point: bn1.bias int8",
    ):
        assert part in str(error.value)


def test_another_architectures_file(path):
    with pytest.raises(
        ValueError, match=r"does not fit resnet34: missing: layer1\.2\.bn1\.bias, .* and \d+ more"
    ):
        importing(path, small("resnet18"), "resnet34")
    with pytest.raises(ValueError, match=r"does not fit vgg16: missing: .*; surplus: bn1\.bias"):
        importing(path, small("resnet18"), "vgg16")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"transformer.weight": np.zeros(2)},
            "it is of no network here; its names are like transformer.weight",
        ),
        (
            {"layer1.0.conv1.weight": np.zeros((4, 4, 3, 3))},
            r"it is a ResNet of \(1, 0, 0, 0\) basic blocks; known are resnet18",
        ),
        (
            {
                "layer1.0.conv1.weight": np.zeros(3),
                "layer2.0.shortcut.0.weight": np.zeros(2),
                "linear.weight": np.zeros((2, 3)),
            },
            r"does not fit preact_resnet18",
        ),
        ({"_conv_stem.weight": np.zeros((32, 3, 3, 3))}, "an EfficientNet of 0 blocks"),
    ],
)
def test_unknown_networks(path, state, message):
    with pytest.raises(ValueError, match=message):
        importing(path, state)


def test_unknown_model(path):
    with pytest.raises(
        ValueError, match=r"model must be one of '', resnet18, .*; got 'squeezenet'"
    ):
        weights.import_weights(path, model="squeezenet")


def test_each_network_has_its_own_preprocessing():
    def found(name, stem="imagenet", channels=3):
        return views.preset(mapping.Architecture(name, 5, 1.0, stem, channels))

    imagenet = Preprocess(224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert found("resnet50") == found("vgg16_bn") == imagenet
    cifar = found("resnet18", "cifar")
    assert (cifar.size, cifar.resize) == (32, 32)
    np.testing.assert_allclose(255 * np.array(cifar.mean), [125.3, 123.0, 113.9])
    np.testing.assert_allclose(255 * np.array(cifar.std), [63.0, 62.1, 66.7])
    lite = found("efficientnet_lite3")
    assert (lite.size, lite.resize, lite.order, lite.interpolation) == (280, 312, "rgb", "bicubic")
    image = np.random.default_rng(0).integers(0, 256, (400, 312, 3), np.uint8)
    expected = (image[60:340, 16:296].astype(float) - 127) / 128
    np.testing.assert_allclose(lite(image), expected, atol=1e-6)
    np.testing.assert_allclose(found("resnet18", channels=1).mean, [0.449])


def test_gray_networks(path):
    state = small("tiny")
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    net = importing(path, state)
    image = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    assert run(net, net.preprocess(image)[None]).shape == (1, 5)


EXPORTED = [
    ("tiny", {}),
    ("resnet18", {"stem": "cifar", "width": 3 / 64}),
    ("preact_resnet18", {"stem": "imagenet", "width": 2 / 64}),
    ("vgg16_bn", {"width": 1 / 64}),
    ("efficientnet_lite0", {"stem": "cifar", "width": 1 / 8}),
]


@pytest.mark.parametrize(("name", "options"), EXPORTED)
def test_there_and_back_to_the_bit(tmp_path, name, options):
    state = recipe_state(name, 4, **options)
    preprocess = Preprocess(48, 50, (0.1, 0.2, 0.3), (0.5, 0.5, 0.6), "bgr", "nearest")
    tensors = {k: pickles.Tensor(a.shape, a.dtype, lambda a=a: a) for k, a in state.items()}
    net = Net(
        MODELS[name](4, **options),
        mapping.to_variables(tensors, shapes(name, 4, **options)),
        preprocess,
    )
    file = tmp_path / "net.safetensors"
    weights.export_weights(net, file)
    again = weights.import_weights(file)
    same(again, net)
    assert again.preprocess == preprocess
    written = weight_files.read_state(file).tensors
    assert written.keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(written[key].read(), array)


def test_exported_files_load_into_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch loads the file")
    import torch_nets

    net = torch_nets.filled(torch_nets.ResNet("resnet18", 5, 4))
    source = tmp_path / "net.pth"
    torch.save(net.state_dict(), source)
    file = tmp_path / "net.safetensors"
    weights.export_weights(weights.import_weights(source), file)
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__")["format"] == "pt"
    state = collections.OrderedDict()
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        data = bytearray(content[8 + length + first : 8 + length + last])
        state[name] = torch.frombuffer(data, dtype=torch.float32).reshape(entry["shape"])
    other = torch_nets.ResNet("resnet18", 5, 4)
    other.load_state_dict(state)
    for name, tensor in net.state_dict().items():
        if tensor.ndim:
            assert torch.equal(other.state_dict()[name], tensor)


def test_damaged_notes(tmp_path):
    file = tmp_path / "net.safetensors"
    for notes in ("{", "[]", '{"stem": "", "preprocess": {"size": 3}}'):
        weight_files.write_safetensors(file, small("tiny"), {weights.NOTES: notes})
        with pytest.raises(ValueError, match="its notes are damaged"):
            weights.import_weights(file)


def test_export_refuses(tmp_path, path):
    net = importing(path, small("tiny"))
    with pytest.raises(ValueError, match=r"net\.pth must end in \.safetensors"):
        weights.export_weights(net, tmp_path / "net.pth")
    foreign = dataclasses.replace(net, model=object())
    with pytest.raises(ValueError, match="object has no PyTorch names"):
        weights.export_weights(foreign, tmp_path / "net.safetensors")


def test_a_resnet50_takes_at_most_twice_its_size_in_memory(tmp_path):
    """Measured in a process of its own: what resident memory grows by, the file's own pages included."""
    if not pathlib.Path("/proc/self/status").exists():
        pytest.skip("the system does not tell a process's peak memory")
    file = tmp_path / "net.safetensors"
    named = mapping.torch_shapes(shapes("resnet50"))
    arrays = {key: np.ones(shape, np.float32) for key, shape in named.items()}
    weight_files.write_safetensors(file, arrays, {})
    program = """
import pathlib, re, sys
import jax, jax.numpy as jnp
from mixaug_jax.models import weights
jnp.zeros(3).block_until_ready()
def peak():  # not getrusage's, which begins with that of the process before
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
jax.block_until_ready(weights.import_weights(sys.argv[1]).variables)
print(peak() - before)
"""
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.9 * file.stat().st_size <= int(done.stdout.split()[-1]) <= 2 * file.stat().st_size


def test_the_golden_tiny_network(path, golden):
    state = dict(
        golden("attribution/tinynet_weights.npz")
    )  # PyTorch's names, this package's layouts
    for key, array in state.items():
        state[key] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    net = importing(path, state)
    assert net.model == MODELS["tiny"](10)
    arrays = golden("attribution/attr.npz")
    close(run(net, arrays["x"]), arrays["logits"], 1e-5)
