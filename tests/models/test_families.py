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
    "googlenet": 6_624_904,
    "convnext_small": 50_223_688,
}
FOUND = ("alexnet", "googlenet", "vgg11", "vgg13_bn", "vgg19", "wide_resnet50_2", "resnext50_32x4d", "resnext101_32x8d",
         "resnet18d", "resnet50d", "seresnet34", "seresnet50", "convnext_small", "convnext_base", "densenet161", "mobilenet_v2",
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


def googlenet(tmp_path, *, aux=(), **options):
    """From a file of an eighth of the filters, with other tensors beside."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    like = jax.eval_shape(MODELS["googlenet"](5, width=1 / 8).init, jax.random.key(0), image)
    named = {k: recipe.weight(k, s) for k, s in mapping.torch_shapes(like).items()}
    np.savez(tmp_path / "net.npz", **named, **{k: np.ones((2, 2), np.float32) for k in aux})
    return weights.import_weights(tmp_path / "net.npz", **options)


def test_googlenet_with_and_without_auxiliary_heads(tmp_path, capsys):
    plain = googlenet(tmp_path)
    assert plain.model == MODELS["googlenet"](5, width=1 / 8)
    assert plain.layers[3:5] == ("inception3a", "inception3b")
    net = googlenet(tmp_path, aux=("aux1.conv.conv.weight", "aux1.fc2.weight", "aux2.fc2.weight"))
    assert "left out: aux1.conv.conv.weight, aux1.fc2.weight" in capsys.readouterr().out
    same(net, plain)


def test_googlenet_is_normalized_once(tmp_path):
    """As published, by its view or by itself: the network sees the same values of a photograph."""
    photograph = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    plain = googlenet(tmp_path)
    net = googlenet(tmp_path, assume=Assume(transform_input=True))
    x, y = (n.preprocess(photograph)[None, :40, :40] for n in (plain, net))
    np.testing.assert_allclose(x, photograph[16:56, 16:56][None] / 127.5 - 1, atol=1e-6)
    assert np.abs(x - y).max() > 0.1
    close(net.features(y, "conv1"), plain.features(x, "conv1"), 1e-5)
    file = tmp_path / "net.safetensors"
    weights.export_weights(net, file)
    same(weights.import_weights(file), net)
    with pytest.raises(checks.UnsupportedError, match="normalizes images anew"):
        net.with_rules(affine=abs)
    with pytest.raises(ValueError, match="view='timm' has no recipe for googlenet"):
        googlenet(tmp_path, view="timm")


# A few names of networks that are near to these, and are none of them.
NEAR = {
    "EfficientNet v2": {"features.1.0.block.0.0.weight": (24, 24, 3, 3)},
    "ConvNeXt v2": {"stages.0.blocks.0.grn.weight": (9,)},
    "chain of 9 convolutions": {f"features.{i}.weight": (9, 9, 3, 3) for i in range(9)},
    "MobileNet v3": {"features.1.block.0.0.weight": (9, 1, 3, 3)},
    "ECA-ResNet": {"layer1.0.eca.conv.weight": (1, 1, 3)},
    "Swin Transformer v2": {"layers.0.blocks.0.attn.logit_scale": (3, 1, 1)},
    "MaxViT": {"stages.0.blocks.0.attn_block.attn.qkv.weight": (9, 3)},
    "CoAtNet": {"stages.0.blocks.0.conv2_kxk.weight": (9, 1, 3, 3)},
    "EdgeNeXt": {
        "stages.0.blocks.0.conv_dw.weight": (9, 1, 3, 3),
        "stages.1.blocks.2.xca.qkv.weight": (9, 3),
    },
    "CLIP": {"visual.transformer.resblocks.0.attn.in_proj_weight": (9, 3)},
    "MNASNet": {"conv_stem.weight": (9, 3, 3, 3), "blocks.1.0.conv_pwl.weight": (9, 9, 1, 1)},
    "MobileNet v1": {"conv_stem.weight": (9, 3, 3, 3), "blocks.1.0.conv_pw.weight": (9, 9, 1, 1)},
    "RegNet": {"trunk_output.block1.block1-0.f.a.0.weight": (9, 9, 1, 1)},
    "one with pruned weights": {"fc.weight_orig": (3, 3), "fc.weight_mask": (3, 3)},
    "one with spectral norm": {"fc.weight_orig": (3, 3), "fc.weight_u": (3,), "fc.weight_v": (3,)},
    "one with weight norm": {"fc.weight_g": (3, 1), "fc.weight_v": (3, 3)},
    "one with parametrized weights": {"layer1.0.conv1.weight": (9, 9, 3, 3), "fc.parametrizations.weight.original0": (3, 1)},
    "a quantized one": {"layer1.0.conv1.weight": (9, 9, 3, 3), "fc.scale": (), "fc.zero_point": ()},
    "GoogLeNet of another kind": {"inception3a.b1.weight": (9, 9, 1, 1)},
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
