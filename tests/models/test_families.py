"""Reduced networks of every family: the logits and gradients that torchvision and timm gave, and files there and back."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
import recipe
from test_weights import close, same

from mixaug_jax.attribution import METHODS
from mixaug_jax.core import checks
from mixaug_jax.models import (
    MODELS,
    Assume,
    Net,
    Preprocess,
    mapping,
    pickles,
    weight_files,
    weights,
)

GIVEN = np.load(pathlib.Path(__file__).parents[1] / "data/torch_families.npz")
SIDES = {}
for key in (key for key in GIVEN if not key.startswith("names")):
    name, _, rest = key.partition(" x ")
    SIDES.setdefault(name, []).extend([int(rest.split()[0])] if rest.endswith("largest") else [])
LABEL, PLACES = 1, 48
ONE = (1, 1, 1, 1)
EFFICIENT = ((3, 1, 1, 8, 1), (3, 2, 6, 16, 2), (5, 2, 6, 16, 1), (3, 1, 6, 24, 1))
MOBILE = ((3, 1, 1, 8, 1), (3, 2, 6, 8, 2), (3, 2, 6, 8, 1), (3, 2, 6, 16, 1))
# What is left of a network's blocks, an eighth as wide.
INCEPTIONS = (
    *(("3a", (8, 12, 16, 2, 4, 4)), ("4a", (24, 12, 26, 2, 6, 8))),
    ("5a", (32, 20, 40, 4, 16, 16)),
)
# The entry, its width, and the fields that are reduced.
REDUCED = {
    "torchvision alexnet": ("alexnet", 1 / 16, {}),
    "torchvision googlenet": ("googlenet", 1 / 8, {"blocks": INCEPTIONS}),
    "torchvision googlenet, transform_input": (
        "googlenet", 1 / 8, {"blocks": INCEPTIONS, "transform_input": True}),
    "torchvision vgg11": ("vgg11", 1 / 32, {}),
    "torchvision vgg13_bn": ("vgg13_bn", 1 / 32, {}),
    "torchvision vgg19": ("vgg19", 1 / 32, {}),
    "torchvision wide_resnet50_2": ("wide_resnet50_2", 1 / 8, {"blocks": ONE}),
    "torchvision resnext50_32x4d": (
        "resnext50_32x4d", 1 / 8, {"blocks": ONE, "groups": 4, "group_width": 32}),
    "timm resnet18d": ("resnet18d", 1 / 4, {"blocks": ONE}),
    "timm resnet50d": ("resnet50d", 1 / 4, {"blocks": ONE}),
    "timm seresnet50": ("seresnet50", 1.0, {"blocks": ONE}),
    "timm convnext": ("convnext_tiny", 1.0, {"blocks": (1, 1, 2, 1), "filters": (8, 16, 24, 32)}),
    "torchvision convnext": ("convnext_tiny", 1.0, {"blocks": (1, 1, 2, 1), "filters": (8, 16, 24, 32)}),
    "torchvision densenet121": ("densenet121", 1.0, {"blocks": (2, 2, 2, 2), "growth": 4, "filters": 8, "neck": 2}),
    "torchvision mobilenet_v2": ("mobilenet_v2", 1 / 4, {"groups": MOBILE, "head_filters": 1280}),
    "torchvision efficientnet_b0": ("efficientnet_b0", 1 / 4, {"groups": EFFICIENT, "head_filters": 48}),
    "timm efficientnet_b0": ("efficientnet_b0", 1 / 4, {"groups": EFFICIENT, "head_filters": 48}),
}  # fmt: skip


def state_of(name):
    """A network's tensors under the names of its maker."""
    shapes = json.loads(str(GIVEN[name]))
    return {key: recipe.weight(key, tuple(shape)) for key, shape in shapes.items()}


def images(side):
    x = recipe.image(side, side)
    return np.concatenate([x, x[:, ::-1]])


def imported(folder, name):
    """From a file, or of a network reduced in depth, which no entry makes, from its tensors."""
    if name not in REDUCED:
        file = folder / "net.npz"
        np.savez(file, **state_of(name))
        return weights.import_weights(file, assume=Assume(heads=3))
    entry, width, fields = REDUCED[name]
    model = MODELS[entry](5, width=width).clone(**fields)
    tensors = {k: pickles.Tensor(a.shape, a.dtype, lambda a=a: a) for k, a in state_of(name).items()}  # fmt: skip
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), image)
    return Net(model, mapping.to_variables(mapping.canonical(tensors), like), Preprocess(64))


@functools.partial(jax.jit, static_argnums=2)
def explained(net, x, layer):
    """Logits, the gradient of one of them, and Grad-CAM of the first image."""

    def logit(x):
        logits = net.logits(x)
        return logits[:, LABEL].sum(), logits

    (_, logits), slope = jax.value_and_grad(logit, has_aux=True)(x)
    return logits, slope, METHODS["gradcam"](net, x[0], LABEL, layer=layer)


@pytest.mark.parametrize("name", SIDES)
def test_logits_gradients_and_files(tmp_path, name):
    net = imported(tmp_path, name)
    for i, side in enumerate(SIDES[name]):
        x = images(side)
        if i == 0:
            logits, slope, cam = explained(net, x, "")
            wanted, largest = GIVEN[f"{name} x {side} slopes"], GIVEN[f"{name} x {side} largest"]
            places = np.random.RandomState(side).randint(0, x.size, PLACES)
            found = np.asarray(slope).ravel()
            np.testing.assert_allclose(found[places], wanted, rtol=0, atol=1e-4 * largest)
            np.testing.assert_allclose(np.abs(found).max(), largest, rtol=1e-4)
            assert cam.shape == (side, side, 1)
            assert np.isfinite(cam).all()
        else:
            logits = jax.jit(type(net).logits)(net, x)
        close(logits, GIVEN[f"{name} x {side} logits"])
    file = tmp_path / "net.safetensors"
    weights.export_weights(net, file)
    if name not in REDUCED:
        same(weights.import_weights(file), net)
        return
    again = mapping.to_variables(weight_files.read_state(file).tensors, net.variables)
    jax.tree.map(np.testing.assert_array_equal, again, net.variables)


# Of every family the sizes that people bring, from full shapes alone.
PARAMETERS = {
    "efficientnet_b0": 5_288_548,
    "mobilenet_v2": 3_504_872,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
    "densenet161": 28_681_000,
    "alexnet": 61_100_840,
    "convnext_small": 50_223_688,
}
FOUND = ("alexnet", "vgg11", "vgg13_bn", "vgg19", "wide_resnet50_2", "resnext50_32x4d", "resnext101_32x8d", "resnet18d",
         "resnet50d", "seresnet34", "seresnet50", "convnext_small", "convnext_base", "densenet161", "mobilenet_v2",
         "efficientnet_b0", "efficientnet_b3")  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_sizes_are_found(name):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    like = jax.eval_shape(MODELS[name](7).init, jax.random.key(0), image)
    named = mapping.torch_shapes(like)
    tensors = {key: pickles.Tensor(shape, np.dtype("f4"), None) for key, shape in named.items()}
    assert mapping.identify(mapping.canonical(tensors))[:5] == (name, 7, 1.0, "imagenet", 3)
    # As the original code counts them.
    if name in PARAMETERS:
        leaves = jax.tree.leaves(jax.eval_shape(MODELS[name](1000).init, jax.random.key(0), image)["params"])  # fmt: skip
        assert sum(leaf.size for leaf in leaves) == PARAMETERS[name]


def named(shapes):
    return {k: pickles.Tensor(tuple(s), np.dtype("f4"), None) for k, s in shapes.items()}


def test_timms_names_of_mobilenet():
    tensors = mapping.canonical(named(json.loads(str(GIVEN["names mobilenet_v2"]))))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    like = jax.eval_shape(MODELS["mobilenet_v2"](1000).init, jax.random.key(0), image)
    assert {k: t.shape for k, t in tensors.items()} == mapping.torch_shapes(like)


def test_other_spellings():
    """Of the authors' ConvNeXt and of early DenseNets."""
    spelled = {
        "downsample_layers.0.1.weight": "stem.1.weight",
        "downsample_layers.2.0.bias": "stages.2.downsample.0.bias",
        "stages.0.0.dwconv.weight": "stages.0.blocks.0.conv_dw.weight",
        "stages.3.2.pwconv2.bias": "stages.3.blocks.2.mlp.fc2.bias",
        "stages.3.2.norm.weight": "stages.3.blocks.2.norm.weight",
        "stages.3.2.gamma": "stages.3.blocks.2.gamma",
        "norm.weight": "head.norm.weight",
        "head.weight": "head.fc.weight",
    }
    assert list(mapping.canonical(named(dict.fromkeys(spelled, (3,))))) == [*spelled.values()]
    old = "features.denseblock1.denselayer1.norm.1.weight"
    assert list(mapping.canonical(named({old: (3,)}))) == [old.replace("norm.1", "norm1")]


# A few names of networks that are near to these, and are none of them.
NEAR = {
    "EfficientNet v2": {"features.1.0.block.0.0.weight": (24, 24, 3, 3)},
    "ConvNeXt v2": {"stages.0.blocks.0.grn.weight": (9,)},
    "chain of 9 convolutions": {f"features.{i}.weight": (9, 9, 3, 3) for i in range(9)},
    "MobileNet v3": {"features.1.block.0.0.weight": (9, 1, 3, 3)},
    "ECA-ResNet": {"layer1.0.eca.conv.weight": (1, 1, 3)},
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
def test_near_networks_are_named(tmp_path, name):
    file = tmp_path / "net.npz"
    np.savez(file, **{k: np.zeros(shape, np.float32) for k, shape in NEAR[name].items()})
    with pytest.raises(ValueError, match=f"a network that is not read here: {name}"):
        weights.import_weights(file)


def test_tensorflows_padding_is_refused_by_name(tmp_path):
    file = tmp_path / "tf_efficientnet_b0.npz"
    np.savez(file, conv_stem=np.zeros((9, 3, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"is of tf_efficientnet_b0.*, which pads as TensorFlow"):
        weights.import_weights(file)


@pytest.mark.parametrize(
    ("name", "rule", "said"),
    [
        ("seresnet18", "affine", "has gates"),
        ("efficientnet_b0", "affine", "has gates"),
        ("efficientnet_b0", "act", "has SiLUs"),
        ("convnext_tiny", "act", "has GELUs"),
        ("convnext_tiny", "affine", "has norms over channels"),
        ("densenet121", "affine", "normalizes before its convolutions"),
    ],
)
def test_rules_that_do_not_fit(name, rule, said):
    with pytest.raises(checks.UnsupportedError, match=said):
        Net(MODELS[name](3), {}, Preprocess(32)).with_rules(**{rule: abs})
