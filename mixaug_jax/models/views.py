"""How the networks of imported weights see an image: as they were evaluated where they were published."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mixaug_jax.core import checks
from mixaug_jax.models import efficientnet_lite, mobile
from mixaug_jax.models.mapping import Architecture
from mixaug_jax.models.net import CIFAR_MEAN, CIFAR_STD, Preprocess

PRESETS = ("torchvision", "torchvision_v2", "timm")
_RESNETS = ("resnet", "resnext", "seresnet")
_PUBLISHED = (*_RESNETS, "wide_resnet50", "vgg", "alexnet", "densenet", "mobilenet", "convnext")
_TIMM_EFFICIENT = ((224, 0.875), (240, 0.9), (256, 0.875), (288, 0.875), (320, 0.875))  # B0 to B4
_TIMM_LITE = (  # side, share of the short side, interpolation; of Lite0 to Lite4
    (224, 0.875, "bicubic"),
    (240, 0.882, "bicubic"),
    (260, 0.890, "bicubic"),
    (300, 0.904, "bilinear"),
    (380, 0.920, "bilinear"),
)


def preset(found: Architecture, name: str = "", *, transforms: bool = False) -> Preprocess:
    """The view of an architecture in a recipe.

    "": short side 256, center 224, ImageNet's mean and standard deviation, as in torchvision and in the CutMix and SaliencyMix
    code. With the "cifar" stem: 32 pixels and the constants of the Cutout, CutMix and SaliencyMix code. EfficientNet-Lite:
    (x - 127) / 128, the center's size / (size + 32), bicubic; the authors' code says bilinear, but TensorFlow's, which is not
    antialiased, and which PIL's bicubic comes closer to.
    "torchvision", "torchvision_v2": 224 of 256 or, for the weights called IMAGENET1K_V2, of 232 pixels, bilinear.
    EfficientNet-B0 to 4: the sides of torchvision's, bicubic. Transformers: as "timm", torchvision's files as "torchvision".
    "timm": the default of that library's version 1.0 for the architecture: 224 of 235 pixels, bicubic, for ResNets (.95, the
    recipe A1); 224 of 256, bilinear, for VGGs and AlexNet, bicubic for other CNNs; sides and shares of its efficientnet and
    tf_efficientnet_lite, the latter with mean and deviation 0.5; of transformers the side that their positions are for, .9 of
    the short side, bicubic, with mean and deviation 0.5 for ViT and ImageNet's for DeiT.

    GoogLeNet: torchvision's, whose published weights bring 224 of 256 pixels to -1..1; with `transforms` the network does that
    itself and sees ImageNet's normalization.

    One-channel networks get the mean of the three channels' constants.

    Raises:
      ValueError: an unknown preset, or an architecture that it does not have.
    """
    checks.choice("view", name, ("", *PRESETS))
    lite = found.name.startswith("efficientnet_lite")
    # Families that were trained with other views than the rest of their library's networks come first.
    if found.name.startswith(("vit", "deit")):
        view = _transformer(found, name)
    elif found.name.startswith("efficientnet_b"):
        view = _efficientnet(int(found.name[-1]), name)
    elif found.name == "googlenet" and name in ("", "torchvision"):
        constants = {} if transforms else {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        view = Preprocess(224, 256, **constants)
    elif name and not (lite and name == "timm") and not found.name.startswith(_PUBLISHED):
        raise ValueError(
            f"view={name!r} has no recipe for {found.name}; give a Preprocess, or set view.size and its like"
        )
    elif lite:
        view = _lite(int(found.name[-1]), name)
    elif name == "timm":
        bilinear = found.name.startswith(("vgg", "alexnet"))
        share = 0.95 if found.name.startswith(_RESNETS) else 0.875
        view = Preprocess(224, 256) if bilinear else _cropped(224, share, "bicubic")
    elif name:
        view = Preprocess(224, 232 if name == "torchvision_v2" else 256)
    elif found.stem == "cifar" or found.name == "tiny":
        view = Preprocess(32, 32, CIFAR_MEAN, CIFAR_STD)
    else:
        view = Preprocess(224, 256)
    if found.channels == 3:
        return view
    # A network of gray pictures, whose one channel weighs the three alike.
    mean, std = sum(view.mean) / 3, sum(view.std) / 3
    return dataclasses.replace(view, mean=(mean,), std=(std,))


def changed(view: Preprocess, found: Architecture, changes: Mapping[str, Any]) -> Preprocess:
    """A view with some of its fields set.

    Args:
      view: of a preset.
      found: whose channels are as many as the result must have.
      changes: values of `Preprocess` by the names of its fields. A new size without a resize scales that of the view.

    Raises:
      ValueError: values that do not go together.
    """
    changes = dict(changes)
    if changes.get("size") and "resize" not in changes:
        changes["resize"] = round(view.resize * changes["size"] / view.size)
    try:
        return checked(dataclasses.replace(view, **changes), found)
    except ValueError as error:
        raise ValueError(f"view: {error}") from None


def _efficientnet(variant, name):
    if name == "timm":
        return _cropped(*_TIMM_EFFICIENT[variant], "bicubic")
    side, short = mobile.COEFFICIENTS[variant][3:]
    return Preprocess(side, short, interpolation="bicubic")


def _transformer(found, name):
    options = dict(found.options)
    # Every named size but that for 64 px has patches of 16 pixels.
    patch = options.get("patch", 8 if found.name == "vit_micro" else 16)
    side = options["grid"] * patch
    if name in ("torchvision", "torchvision_v2"):
        return Preprocess(side, side * 256 // 224)
    view = _cropped(side, 0.9, "bicubic")
    if found.name.startswith("deit"):
        return view
    return dataclasses.replace(view, mean=(0.5,) * 3, std=(0.5,) * 3)


def _lite(variant, name):
    if name == "timm":
        constants = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        return dataclasses.replace(_cropped(*_TIMM_LITE[variant]), **constants)
    size = efficientnet_lite.SIDES[variant]
    constants = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "interpolation": "bicubic"}
    return Preprocess(size, size + 32, **constants)


def _cropped(size, share, interpolation):
    return Preprocess(size, math.floor(size / share), interpolation=interpolation)


def checked(view: Preprocess, found: Architecture) -> Preprocess:
    """A view of as many channels as a network takes; ValueError for others."""
    if len(view.mean) != found.channels:
        raise ValueError(
            f"mean and std have {len(view.mean)} channels, and the network takes {found.channels}"
        )
    return view
