"""A trained network as a value: model, variables and the preprocessing its inputs need."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Cutout's published code (CIFAR-10), in 0..255.
CIFAR_MEAN = tuple(v / 255 for v in (125.3, 123.0, 113.9))
CIFAR_STD = tuple(v / 255 for v in (63.0, 62.1, 66.7))
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """From a stored image to a network's input: resize the short side, cut out the center, normalize.

    Attributes:
      size: side of the square that is cut out, in pixels.
      resize: length of the short side before the cut, in pixels; 0 leaves the image's size.
      mean, std: of each channel, in the order of the output's channels, for values between 0 and 1; one value each makes the
        input one-channel, which only gray images can be.
      order: the output's channel order, "rgb" or "bgr".
      interpolation: "bilinear" (antialiased, as PIL's), "bicubic" or "nearest".
    """

    size: int
    resize: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: str = "rgb"
    interpolation: str = "bilinear"

    def __post_init__(self):
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} values and std {len(self.std)}; both need 3, or both 1"
            )
        if self.order not in ("rgb", "bgr"):
            raise ValueError(f"order is {self.order!r}; allowed are 'rgb' and 'bgr'")
        if self.interpolation not in INTERPOLATIONS:
            allowed = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation is {self.interpolation!r}; allowed are {allowed}")
        if self.resize and self.resize < self.size:
            raise ValueError(
                f"resize is {self.resize} pixels, but size cuts out {self.size}; resize must be 0 or at least size"
            )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H,W,C], or gray [H,W] or [H,W,1] whose one channel is repeated, to float32 [size,size,C].

        Raises:
          ValueError: for another dtype or shape, or an image smaller than the cut when `resize` is 0.
        """
        image = np.asarray(image)
        if image.ndim == 2:
            image = image[..., None]
        channels = len(self.mean)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, channels):
            raise ValueError(
                f"An image must be uint8 [H,W,{channels}], [H,W,1] or [H,W]; this one is {image.dtype} {list(image.shape)}"
            )
        image = np.broadcast_to(image, (*image.shape[:2], channels))
        if self.resize:
            image = resize_short_side(image, self.resize, self.interpolation)
        height, width = image.shape[:2]
        if min(height, width) < self.size:
            raise ValueError(
                f"The image is {height} x {width} pixels, smaller than the cut of {self.size}; set resize"
            )
        row, col = round((height - self.size) / 2), round((width - self.size) / 2)
        image = image[row : row + self.size, col : col + self.size]
        if self.order == "bgr":
            image = image[..., ::-1]
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return (image.astype(np.float32) / 255 - mean) / std


def resize_short_side(image: np.ndarray, side: int, interpolation: str) -> np.ndarray:
    """uint8 [H,W,C] with its short side `side` pixels long, the other one rounded down, as torchvision's Resize."""
    height, width, channels = image.shape
    short = min(height, width)
    if short == side:
        return image
    size = (side * width // short, side * height // short)  # PIL's order
    pil = Image.fromarray(np.ascontiguousarray(image[..., 0] if channels == 1 else image))
    resized = np.asarray(pil.resize(size, INTERPOLATIONS[interpolation]))
    return resized.reshape(size[1], size[0], channels)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Net:
    """A model with its variables and its preprocessing.

    A pytree whose leaves are the variables: pass it to a jitted function as an argument, so that a new checkpoint of the same
    model does not compile again.

    Attributes:
      model: a linen module with `layers` and `apply(variables, x, train=, start=, stop=)`, as in `layers.StagedModel`.
      variables: {"params": ..., "batch_stats": ...}.
      preprocess: hashable callable, uint8 image [H,W,3] -> float32 [h,w,3].
    """

    model: Any = dataclasses.field(metadata={"static": True})
    variables: Any
    preprocess: Callable[[np.ndarray], np.ndarray] = dataclasses.field(metadata={"static": True})

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' names, from the first after the input to the logits."""
        return self.model.layers

    def logits(self, x: jax.Array, *, layer: str = "", value: jax.Array | None = None) -> jax.Array:
        """Preprocessed images [B,h,w,C] -> [B,K] float32; where `layer` is named, with `value` as that layer's output.

        Raises:
          ValueError: for a layer that is not there.
        """
        return self._run(value, start=layer) if layer else self._run(x)

    def features(self, x: jax.Array, layer: str) -> jax.Array:
        """Preprocessed images [B,h,w,C] -> the output of `layer`, float32. ValueError for a layer that is not there."""
        return self._run(x, stop=layer)

    def between(self, h: jax.Array, start: str, stop: str = "") -> jax.Array:
        """The output of layer `start` -> that of the later layer `stop` ("": the logits), float32, where the model is a chain.

        Raises:
          ValueError: for a layer that is not there.
        """
        return self._run(h, start=start, stop=stop)

    def with_rules(self, *, affine=None, act=None, add=None, pool=None) -> "Net":
        """The same network and variables under other layer rules (None: the plain layer); see `layers.StagedModel`.

        Raises:
          ValueError: for an affine rule where batch norms come before the convolutions, or a model without rule fields.
        """
        rules = {"affine": affine, "act": act, "add": add, "pool": pool}
        if not rules.keys() <= {field.name for field in dataclasses.fields(self.model)}:
            raise ValueError(
                f"{type(self.model).__name__} has no fields affine, act, add and pool, so its backward rules cannot be "
                "replaced"
            )
        return dataclasses.replace(self, model=self.model.clone(**rules))

    def _run(self, x, start="", stop=""):
        y = self.model.apply(self.variables, x, train=False, start=start, stop=stop)
        return y.astype(jnp.float32)
