"""Between PyTorch's names and layouts and this package's variables, and from names and shapes to an architecture.

A layer has PyTorch's own name here, so most checkpoints fit as they are; `canonical` knows the other spellings.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mixaug_jax.models import efficientnet_lite, mobile, spellings, transformers, unsupported
from mixaug_jax.models.pickles import Tensor

RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
# Of bottlenecks: groups of the first 3x3 convolution, and its filters by those of the stem.
KIN = {
    ((3, 4, 6, 3), 1, 2): "wide_resnet50_2",
    ((3, 4, 6, 3), 32, 2): "resnext50_32x4d",
    ((3, 4, 23, 3), 32, 4): "resnext101_32x8d",
}
VGGS = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}  # by convolutions
LISTED = 10  # so many names of each kind are spelled out in an error


class Architecture(NamedTuple):
    """The arguments of `MODELS[name](num_classes, width=, stem=, **dict(options))`, and the number of the input's channels."""

    name: str
    num_classes: int
    width: float
    stem: str
    channels: int
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments besides the number of classes, by name, and the name."""
        known = {"name": self.name, "width": self.width, "stem": self.stem}
        return known | dict(self.options)


class _Family(NamedTuple):
    """Where a family's numbers are read off.

    Attributes:
      base, filters: layer `filters` has `base` * width filters; a base of 0 has no width.
      first: the first convolution.
      last: what the last layer may be called.
    """

    base: int
    filters: str
    first: str
    last: tuple[str, ...]


FAMILIES = {
    "resnet": _Family(64, "conv1", "conv1", ("fc",)),
    "preact_resnet": _Family(64, "conv1", "conv1", ("linear",)),
    "seresnet": _Family(64, "conv1", "conv1", ("fc",)),
    "resnext": _Family(64, "conv1", "conv1", ("fc",)),
    "wide_resnet50": _Family(64, "conv1", "conv1", ("fc",)),
    "googlenet": _Family(64, "conv1.conv", "conv1.conv", ("fc",)),
    "alexnet": _Family(64, "features.0", "features.0", ("classifier.6",)),
    "densenet": _Family(64, "features.conv0", "features.conv0", ("classifier",)),
    "mobilenet": _Family(32, "features.0.0", "features.0.0", ("classifier.1",)),
    "efficientnet_b": _Family(32, "features.0.0", "features.0.0", ("classifier.1",)),
    "convnext": _Family(96, "stem.0", "stem.0", ("head.fc",)),
    "wide_resnet": _Family(160, "block1.layer.0.conv1", "conv1", ("fc",)),
    "vgg": _Family(64, "features.0", "features.0", ("classifier.6", "classifier")),
    "efficientnet_lite": _Family(32, "_conv_stem", "_conv_stem", ("_fc",)),
    "tiny": _Family(8, "conv1", "conv1", ("fc",)),
    "vit": _Family(0, "", "patch_embed.proj", ("head",)),
    "deit": _Family(0, "", "patch_embed.proj", ("head",)),
}

# Filters of the first convolution, where they are not those of the family's others.
BASES = {
    "densenet161": 96,
    "convnext_base": 128,
    **{f"efficientnet_b{i}": mobile.scaled(i)[1] for i in range(len(mobile.COEFFICIENTS))},
}

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of this package's layers.

    Known are torchvision's names (and so those of the CutMix and SaliencyMix releases, of the Cutout code's WideResNet and of
    timm's ResNets, which are the same), the ResNets of the CIFAR code that Cutout and SaliencyMix build on (shortcut, linear),
    timm's VGG, whose hidden dense layers are convolutions, and timm's and torchvision's vision transformers.
    """
    if transformers.is_transformer(tensors):
        return transformers.translated(tensors)
    other = spellings.translated(tensors)
    if other.keys() != tensors.keys() or "stages.0.blocks.0.conv_dw.weight" in tensors:
        return other
    renames = {
        "pre_logits.fc1.": "classifier.0.",
        "pre_logits.fc2.": "classifier.3.",
        "head.fc.": "classifier.6.",
    }
    # PreAct-ResNets have shortcuts too, of a convolution without a norm, and go by these names here.
    if any(re.fullmatch(r"layer\d\.\d+\.shortcut\.1\.weight", name) for name in tensors):
        renames = {".shortcut.": ".downsample.", "linear.": "fc."}
    named = {}
    for name, tensor in tensors.items():
        for old, new in renames.items():
            name = name.replace(old, new)
        if name.startswith("classifier.") and len(tensor.shape) == 4:
            tensor = _flattened(tensor)
        named[name] = tensor
    return named


def _flattened(tensor: Tensor) -> Tensor:
    # A kernel as large as the map is the dense layer after PyTorch's flatten: both run C, h, w.
    shape = (tensor.shape[0], int(np.prod(tensor.shape[1:])))
    return Tensor(shape, tensor.dtype, lambda: tensor.read().reshape(shape))


def identify(
    tensors: Mapping[str, Tensor], model: str = "", stem: str = "", heads: int = 0
) -> Architecture:
    """The architecture that tensors with `canonical` names belong to.

    Args:
      tensors: by name.
      model: a name in MODELS; "" finds it.
      stem: "imagenet" or "cifar"; "" finds it. EfficientNet-Lite's is "imagenet" then: its weights do not tell.
      heads: of a transformer's attention, where somebody told.

    Raises:
      ValueError: no network here has such names.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    name = model or name_of(tensors)
    family = family_of(name)
    classes = _length(shapes, family.last, 0, 1000)
    base = BASES.get(name, family.base)
    # A stem of three convolutions ends in one whose norm is called as ever.
    filters = _length(shapes, (family.filters, "bn1"), 0, base) if base else 0
    width = filters / base if base else 1.0
    channels = _length(shapes, (family.first, f"{family.first}.0"), 1, 3)
    stem = stem or _stem(name, shapes, family.first)
    found = Architecture(name, classes, width, stem, channels)
    if name.startswith(("vit", "deit")):
        return found._replace(options=transformers.options(name, shapes, heads))
    return found


def family_of(name: str) -> _Family:
    """The family of a name in MODELS; ValueError for one whose PyTorch names are not known."""
    family = next((f for start, f in FAMILIES.items() if name.startswith(start)), None)
    if family is None:
        raise ValueError(f"no PyTorch names are known for {name}")
    return family


def name_of(tensors: Mapping[str, Tensor]) -> str:
    """The name in MODELS of the network that tensors with `canonical` names belong to.

    Raises:
      ValueError: no network here has such names; another one is named where it is known.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    other = unsupported.name_of(shapes)
    if other:
        raise ValueError(f"it is a network that is not read here: {other}")
    return _name(shapes)


def _length(shapes, layers, axis: int, default: int) -> int:
    """Of the kernel of the first of these layers that is there; the default where it cannot be, which `_check` then reports."""
    shape = next((shapes[f"{n}.weight"] for n in layers if f"{n}.weight" in shapes), ())
    return shape[axis] if len(shape) > axis and shape[axis] > 0 else default


def _name(shapes) -> str:
    if transformers.is_transformer(shapes):
        return transformers.name_of(shapes)
    if name := spellings.name_of(shapes):
        return name
    if "_conv_stem.weight" in shapes:
        return _efficientnet_lite(shapes)
    if "block1.layer.0.conv1.weight" in shapes:
        return "wide_resnet28_10"
    if "features.0.weight" in shapes:
        kernels = _count(
            {n: s for n, s in shapes.items() if len(s) == 4}, r"features\.(\d+)\.weight"
        )
        return VGGS.get(kernels, "vgg16") + ("_bn" if "features.1.weight" in shapes else "")
    # Before the ResNets, whose block names it shares.
    if "layer2.0.shortcut.0.weight" in shapes:
        return "preact_resnet18"
    if "layer1.0.conv1.weight" in shapes:
        return _resnet(shapes)
    if {"conv4.weight", "bn4.weight", "fc.weight"} <= shapes.keys():
        return "tiny"
    raise ValueError(f"it is of no network here; its names are like {_some(sorted(shapes), 3)}")


def _resnet(shapes) -> str:
    blocks = tuple(_count(shapes, rf"layer{i}\.(\d+)\.") for i in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in shapes
    kin = _kin(shapes, blocks) if bottleneck else ""
    if kin:
        return kin
    if (blocks, bottleneck) not in RESNETS:
        kind = "bottlenecks" if bottleneck else "basic blocks"
        raise ValueError(
            f"it is a ResNet of {blocks} {kind}; known are {', '.join(RESNETS.values())}"
        )
    plain = RESNETS[blocks, bottleneck]
    if "layer1.0.se.fc1.weight" in shapes:
        return f"se{plain}"
    return f"{plain}d" if "conv1.0.weight" in shapes else plain


def _kin(shapes, blocks):
    stem, inner = shapes.get("conv1.weight", (0,)), shapes.get("layer1.0.conv2.weight", ())
    if len(inner) != 4 or not stem[0] or not inner[1] or inner[0] % stem[0]:
        return ""
    return KIN.get((blocks, inner[0] // inner[1], inner[0] // stem[0]), "")


def _efficientnet_lite(shapes) -> str:
    blocks = _count(shapes, r"_blocks\.(\d+)\.")
    stem = _length(shapes, ("_conv_stem",), 0, 0)
    last = _length(shapes, (f"_blocks.{blocks - 1}._project_conv",), 0, 0)
    for i, (wide, deep, _) in enumerate(efficientnet_lite.COEFFICIENTS):
        filters, numbers = efficientnet_lite.scaled(wide, deep)
        # Ratios to the stem, cross-multiplied, so that other widths are recognized too.
        if sum(numbers) == blocks and filters[-1] * stem == last * efficientnet_lite.STEM:
            return f"efficientnet_lite{i}"
    raise ValueError(
        f"it is an EfficientNet of {blocks} blocks, the last with {last} filters, but none of Lite0 to 4"
    )


def _count(shapes, pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


# Whose first kernel tells the stem.
_BY_KERNEL = ("resnet", "resnext", "seresnet", "preact", "wide", "densenet")


def _stem(name, shapes, first) -> str:
    if name.startswith("vgg"):
        return "cifar" if "classifier.weight" in shapes else "imagenet"
    if not name.startswith(_BY_KERNEL):
        return "imagenet"
    return "cifar" if shapes.get(f"{first}.weight", ())[2:] == (3, 3) else "imagenet"


def torch_shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The names and shapes that PyTorch gives these variables (arrays, or their shapes), in one flat level of layers."""
    return {name: _torch_shape(*place[2:]) for name, place in _places(variables).items()}


def _places(variables):
    """PyTorch's name -> (collection, layer, leaf, our shape)."""
    return {
        _torch_name(layer, leaf): (collection, layer, leaf, array.shape)
        for collection, layers in variables.items()
        for layer, leaves in layers.items()
        for leaf, array in leaves.items()
    }


def _torch_name(layer, leaf):
    # A parameter that stands alone, as a class token, is called like its layer.
    return layer if leaf == "value" else f"{layer}.{_LEAVES[leaf]}"


def _torch_shape(leaf, shape):
    if leaf != "kernel":
        return shape
    # PyTorch keeps kernels as OIHW and (out, in).
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def to_variables(tensors: Mapping[str, Tensor], like: Mapping[str, Any]) -> dict[str, Any]:
    """Float32 variables from tensors with PyTorch's names and layouts.

    Args:
      tensors: by name.
      like: variables of the network, or their shapes, in one flat level of layers.

    Raises:
      ValueError: lists missing, surplus and wrongly shaped names, and tensors of integers; or names a tensor with NaN, infinite
        values or negative variances. Nothing is loaded in part.
    """
    _check(tensors, torch_shapes(like))
    variables = {collection: {} for collection in like}
    # The largest first: what is freed of one then has room for the next.
    places = sorted(_places(like).items(), key=lambda item: -math.prod(item[1][3]))
    for name, (collection, layer, leaf, _) in places:
        array = _values(name, tensors[name])
        if leaf == "kernel":
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        # A copy, which leaves nothing of the file in memory.
        variables[collection].setdefault(layer, {})[leaf] = jnp.array(array)
    return variables


def _values(name, tensor):
    """A tensor's float32 values, all of them finite, and no variance below 0."""
    try:
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused
            array = np.asarray(tensor.read(), np.float32)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not np.isfinite(array).all():
        kind = "NaN" if np.isnan(array).any() else "infinite values"
        raise ValueError(f"{name} has {kind}")
    if name.endswith("running_var") and array.min(initial=0) < 0:
        raise ValueError(f"{name} has variances below 0")
    return array


def _check(tensors, shapes) -> None:
    problems = {
        "missing": sorted(shapes.keys() - tensors.keys()),
        "surplus": sorted(tensors.keys() - shapes.keys()),
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in tensors and tensors[name].shape != shape
        ],
        "not floating-point": [
            f"{name} {tensors[name].dtype}"
            for name in shapes
            if name in tensors and not jnp.issubdtype(tensors[name].dtype, jnp.floating)
        ],
    }
    # All problems in one sentence: a file with one of them seldom has it alone.
    if any(problems.values()):
        found = (f"{kind}: {_some(names, LISTED)}" for kind, names in problems.items() if names)
        raise ValueError("; ".join(found))


def _some(names: Iterable[str], number: int) -> str:
    names = list(names)
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more


def from_variables(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Float32 arrays with PyTorch's names and layouts, from the variables of a network here."""
    arrays = {}
    for layers in variables.values():
        for layer, leaves in layers.items():
            for leaf, array in leaves.items():
                array = np.asarray(array, np.float32)
                if leaf == "kernel":
                    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
                arrays[_torch_name(layer, leaf)] = array
    return arrays
