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
for key in GIVEN:
    name, _, rest = key.partition(" x ")
    SIDES.setdefault(name, []).extend([int(rest.split()[0])] if rest.endswith("largest") else [])
LABEL, PLACES = 1, 48
ONE = (1, 1, 1, 1)
EFFICIENT = ((3, 1, 1, 8, 1), (3, 2, 6, 16, 2), (5, 2, 6, 16, 1), (3, 2, 6, 24, 1), (5, 1, 6, 24, 1), (5, 2, 6, 32, 1), (3, 1, 6, 40, 1))  # fmt: skip
MOBILE = ((3, 1, 1, 8, 1), (3, 2, 6, 8, 2), (3, 2, 6, 8, 1), (3, 2, 6, 16, 1), (3, 1, 6, 24, 1), (3, 2, 6, 40, 1), (3, 1, 6, 80, 1))  # fmt: skip
# The entry, its width, and the fields that are reduced.
REDUCED = {
    "torchvision alexnet": ("alexnet", 1 / 16, {}),
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
PARAMETERS = {"efficientnet_b0": 5_288_548, "mobilenet_v2": 3_504_872, "resnext50_32x4d": 25_028_904, "wide_resnet50_2": 68_883_240, "densenet161": 28_681_000, "alexnet": 61_100_840, "convnext_small": 50_223_688}  # fmt: skip
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
