"""Names for arrays by what they hold, NumPy's and JAX's alike; the letters of a shape are bound within one call.

B images of a batch, N images, H W the pixels of an image or a label map, h w the nodes of a map or the pixels that a network
sees, C channels, K classes (or the label slots of a pixel), U units.
"""

import os
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, Num, Shaped, UInt8, UInt16, UInt32

AnyArray = Array | np.ndarray
Scalar = float | int | np.number | Shaped[AnyArray, ""]
Count = int | np.integer | Integer[AnyArray, ""]
Numbers = float | int | np.number | Num[AnyArray, "..."]  # one, or an array of them
Integers = int | np.integer | Integer[AnyArray, "..."]
Indices = Int[AnyArray, "n"]
Given = AnyArray | tuple | list  # what an array is made of; () where nothing is given
# A random key, or a seed that one is made of.
Seed = int | np.integer | Key[Array, "..."] | Shaped[AnyArray, "..."]
RandomKey = Key[Array, ""]

Image = Float[AnyArray, "h w C"]  # preprocessed
Images = Float[AnyArray, "B h w C"]
Features = Float[AnyArray, "B ..."]  # of a layer; images among them
Photo = UInt8[np.ndarray, "H W C"]  # as stored
Targets = Float[AnyArray, "B K"]
Label = Count
Heatmap = Float[AnyArray, "h w"]
Attribution = Float[AnyArray, "h w c"]  # of each channel, or of all together
Mask = Bool[AnyArray, "h w"]
Boxes = Float[AnyArray, "n 4"]  # row0, col0, row1, col1, ends exclusive
Logits = Float[AnyArray, "B K"]
Outputs = Float[Array, "B"]  # the explained number of each image
# What stands for "nothing there": a name, or what broadcasts to the image.
Baseline = str | Scalar | AnyArray | tuple | list
Curve = Float[AnyArray, "points"]
Value = Float[Array, ""]  # of a score
Activations = Num[AnyArray, "N h w U"]
Thresholds = Num[AnyArray, "U"]
LabelMaps = Integer[AnyArray, "N H W K"]


@runtime_checkable
class Sliced(Protocol):
    """What has a `shape`, and slices of images that are arrays: an array, a memory map, what is computed when read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, images: Any, /) -> Any: ...


Path = str | os.PathLike
Config = Any  # the resolved `ml_collections.ConfigDict`, or a section of it
Dataset = Any  # `data.Source`, or anything with len(dataset) and dataset[i]
Preprocess = Any  # f(image uint8 [H,W,C]) -> float32 [h,w,C], best a `models.Preprocess`
Devices = Any  # a sequence of jax.Device, or None for all of all processes
Tree = Any  # a pytree of arrays
Net = Any  # `models.Net`, or anything with its methods
Explain = Callable[..., Any]  # f(net, image, label) -> Attribution

__all__ = [
    "Activations",
    "AnyArray",
    "Array",
    "Attribution",
    "Baseline",
    "Bool",
    "Boxes",
    "Config",
    "Count",
    "Curve",
    "Dataset",
    "Devices",
    "Explain",
    "Features",
    "Float",
    "Given",
    "Heatmap",
    "Image",
    "Images",
    "Indices",
    "Int",
    "Integer",
    "Integers",
    "Key",
    "Label",
    "LabelMaps",
    "Logits",
    "Mask",
    "Net",
    "Num",
    "Numbers",
    "Outputs",
    "Path",
    "Photo",
    "Preprocess",
    "RandomKey",
    "Scalar",
    "Seed",
    "Shaped",
    "Sliced",
    "Targets",
    "Thresholds",
    "Tree",
    "UInt8",
    "UInt16",
    "UInt32",
    "Value",
]
