"""A trained network as a value: model, variables and the preprocessing its inputs need."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image as Picture

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Float, Image, Images, Key, Tree
from mixaug_jax.models import vit
from mixaug_jax.models.probability import LOSSES
from mixaug_jax.models.wrapped import Wrapped, plain_variables, wrap_linen

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Cutout's published code (CIFAR-10), in 0..255.
CIFAR_MEAN = tuple(v / 255 for v in (125.3, 123.0, 113.9))
CIFAR_STD = tuple(v / 255 for v in (63.0, 62.1, 66.7))
INTERPOLATIONS = {
    "nearest": Picture.Resampling.NEAREST,
    "bilinear": Picture.Resampling.BILINEAR,
    "bicubic": Picture.Resampling.BICUBIC,
}
RULES = frozenset(
    {"affine", "act", "add", "pool"}
)  # the fields of a model whose backward rules can be replaced


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
                f"mean and std must have 3 values each, or 1 each; got {len(self.mean)} and {len(self.std)}"
            )
        checks.choice("order", self.order, ("rgb", "bgr"))
        checks.choice("interpolation", self.interpolation, INTERPOLATIONS)
        if self.resize and self.resize < self.size:
            raise ValueError(
                f"resize must be 0 or at least size, {self.size} pixels; got {self.resize}"
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
                f"image must be uint8 [H,W,{channels}], [H,W,1] or [H,W]; got {image.dtype} {list(image.shape)}"
            )
        image = np.broadcast_to(image, (*image.shape[:2], channels))
        if self.resize:
            image = resize_short_side(image, self.resize, self.interpolation)
        height, width = image.shape[:2]
        if min(height, width) < self.size:
            raise ValueError(
                f"the image is {height} x {width} pixels, smaller than the cut of {self.size}; set resize"
            )
        # Rounded half to even, as torchvision's CenterCrop does; flooring would shift some crops.
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
    pil = Picture.fromarray(np.ascontiguousarray(image[..., 0] if channels == 1 else image))
    resized = np.asarray(pil.resize(size, INTERPOLATIONS[interpolation]))
    return resized.reshape(size[1], size[0], channels)


def input_shape(preprocess: Callable[[np.ndarray], np.ndarray]) -> tuple[int, ...]:
    """[h,w,C] of what a network sees of an image: where `preprocess` has no `size`, of one with 224 pixels a side."""
    if isinstance(preprocess, Preprocess):
        return preprocess.size, preprocess.size, len(preprocess.mean)
    side = getattr(preprocess, "size", 224)
    return np.shape(preprocess(np.zeros((side, side, 3), np.uint8)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Net:
    """A model with its variables and its preprocessing.

    A pytree whose leaves are the variables: pass it to a jitted function as an argument, so that a new checkpoint of the same
    model does not compile again.

    Attributes:
      model: a linen module with `layers` and `apply(variables, x, train=, start=, stop=)`, as in `layers.StagedModel`, whose
        layers form a chain; or what `Net.wrap` makes of any other module.
      variables: {"params": ..., "batch_stats": ...}; of an nnx module {"conv1.kernel": ...}.
      preprocess: hashable callable, uint8 image [H,W,3] -> float32 [h,w,3].
      loss: what it was trained by, "softmax" (which one class) or "sigmoid" (of each class whether it is there); decides what
        its probabilities are, see `models.probability`. With one logit it is "sigmoid" whatever is said.
    """

    model: Any = dataclasses.field(metadata={"static": True})
    variables: Any
    preprocess: Callable[[np.ndarray], np.ndarray] = dataclasses.field(metadata={"static": True})
    loss: str = dataclasses.field(default="softmax", metadata={"static": True})

    def __post_init__(self):
        checks.choice("loss", self.loss, LOSSES)

    @classmethod
    def wrap(
        cls,
        module: Any,
        variables: Any = None,
        preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
        *,
        layers: Sequence[str] = (),
        loss: str = "softmax",
    ) -> "Net":
        """Any flax.linen or flax.nnx module as a network whose layers are its submodules, in the order of their calls.

        A layer's output is what its `__call__` returns. Where a submodule is called more than once, its last call counts. The
        module is used in its evaluation mode; batch statistics and dropout need nothing of the user. Nothing is computed here.

        Args:
          module: linen: `__call__(images)`, which may take train, training, is_training, deterministic, use_running_average or
            inference, or have a field of that name. nnx: a module as it was trained; it is not changed.
          variables: linen: what `init` or the training gave, {"params": ..., ...}. nnx: None takes the module's own; else an
            `nnx.state` of an equal module.
          preprocess: how the network sees a stored image, best a `Preprocess`. Another callable without a `size` is tried on an
            image of 224 x 224 pixels.
          loss: what it was trained by, "softmax" or "sigmoid".
          layers: paths of the submodules to see and to replace, "Block_0.Conv_1"; () are the direct ones. What is not computed
            by a submodule, as a ReLU between two of them, has no layer of its own.

        Raises:
          ValueError: in one sentence, for another kind of module, one that cannot be called so or is not hashable, variables
            that do not fit, or an unknown layer.
        """
        if not callable(preprocess):
            raise ValueError(
                "preprocess must say how the network sees an image, as in Net.wrap(module, variables, Preprocess(32)); "
                f"got {preprocess!r}"
            )
        # A network of named layers needs no wrapping, and keeps what only those can do.
        if isinstance(module, nn.Module) and is_chain(module):
            if layers:
                raise ValueError(
                    f"{type(module).__name__} names its layers itself; leave layers out"
                )
            variables = plain_variables(_linen_variables(module, variables))
            return cls(module, variables, preprocess, loss)
        if isinstance(module, nn.Module):
            variables = plain_variables(_linen_variables(module, variables))
        model, variables = wrapped_model(module, variables, input_shape(preprocess), layers)
        return cls(model, variables, preprocess, loss)

    @property
    def name(self) -> str:
        """The class of the module, as a word for tables and settings."""
        return self.model.name if self._wrapped else type(self.model).__name__

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' names, from the first after the input to the logits."""
        return self.model.layers

    @property
    def has_rules(self) -> bool:
        """Whether `with_rules` can replace the backward rules of its layers."""
        return RULES.issubset(field.name for field in dataclasses.fields(self.model))

    def logits(
        self, x: Images, *, layer: str = "", value: AnyArray | None = None
    ) -> Float[Array, "n K"]:
        """Preprocessed images [B,h,w,C] -> [B,K] float32; where `layer` is named, with `value` as that layer's output.

        What only leads to the replaced output is dead code, which costs nothing under `jax.jit`.

        Raises:
          ValueError: for a layer that is not there.
        """
        if layer:
            checks.choice("layer", layer, self.layers)
        if self._wrapped:
            logits, _ = self.model.outputs(self.variables, x, layer=layer, value=value)
            return logits.astype(jnp.float32)
        return self._run(value, start=layer) if layer else self._run(x)

    def features(self, x: Images, layer: str) -> Float[Array, "..."]:
        """Preprocessed images [B,h,w,C] -> the output of `layer`, float32. ValueError for a layer that is not there."""
        checks.choice("layer", layer, self.layers)
        return self.capture(x, (layer,))[layer]

    def capture(self, x: Images, layers: Sequence[str]) -> dict[str, Float[Array, "..."]]:
        """Preprocessed images [B,h,w,C] -> {layer: its output, float32}, in the network's order, by one pass.

        Raises:
          ValueError: for a layer that is not there.
        """
        checks.choices("layers", layers, self.layers)
        ordered = tuple(layer for layer in self.layers if layer in layers)
        if self._wrapped:
            found = self.model.outputs(self.variables, x, keep=ordered)[1]
            return {layer: found[layer].astype(jnp.float32) for layer in ordered}
        found, before = {}, ""
        for layer in ordered:  # each runs on from the one before
            x = self.model.apply(self.variables, x, train=False, start=before, stop=layer)
            found[layer], before = x.astype(jnp.float32), layer
        return found

    def maps(self, layer: str, h: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The output of `layer` as maps [B,h,w,K]: itself, unless the model lays out tokens [B,T,K] on their grid."""
        lay_out = getattr(self.model, "maps", None)
        return lay_out(layer, h) if lay_out else h

    def with_maps(
        self, layer: str, h: Float[AnyArray, "..."], maps: Float[AnyArray, "..."]
    ) -> Float[AnyArray, "..."]:
        """The output `h` of `layer` with `maps` [B,h,w,K] for its own; what these leave out of it, as a class token, stays."""
        put = getattr(self.model, "with_maps", None)
        return put(layer, h, maps) if put else maps

    def attention(
        self, x: Images, change: Mapping[str, Any] | tuple = ()
    ) -> tuple[Float[Array, "B K"], dict[str, Float[Array, "B heads T T"]]]:
        """Preprocessed images [B,h,w,C] -> logits, and {block: attention [B,heads,T,T]}, a row for each token that looks.

        Args:
          x: images.
          change: {block: [B,heads,T,T]}, added to the attention; derivatives by it are those by the attention.

        Raises:
          checks.UnsupportedError: a network without attention.
        """
        if not getattr(self.model, "has_attention", False):
            raise checks.UnsupportedError(
                f"{self.name} has no attention to read; a vision transformer has"
            )
        return vit.read_attention(self.model, self.variables, x, change)

    def between(self, h: Float[AnyArray, "..."], start: str, stop: str = "") -> Float[Array, "..."]:
        """The output of layer `start` -> that of the later layer `stop` ("": the logits), float32, where the model is a chain.

        Raises:
          ValueError: for a layer that is not there.
          checks.UnsupportedError: a wrapped model.
        """
        if self._wrapped:
            raise checks.UnsupportedError(
                f"{self.name} is wrapped, and its layers need not form a chain; use logits(x, layer=, value=) or "
                "features(x, layer)"
            )
        for key, layer in (("start", start), ("stop", stop or start)):
            checks.choice(key, layer, self.layers)
        return self._run(h, start=start, stop=stop)

    def with_rules(
        self,
        *,
        affine: Callable | None = None,
        act: Callable | None = None,
        add: Callable | None = None,
        pool: Callable | None = None,
        fork: Callable | None = None,
    ) -> "Net":
        """The same network and variables under other layer rules (None: the plain layer); see `layers.StagedModel`.

        Raises:
          checks.UnsupportedError: a model without rule fields, or an affine rule where batch norms come before convolutions.
        """
        if not self.has_rules:
            raise checks.UnsupportedError(
                f"{self.name} has no fields affine, act, add and pool, so its backward rules cannot be replaced"
            )
        model = self.model.clone(affine=affine, act=act, add=add, pool=pool)
        if fork is not None:
            if not hasattr(self.model, "fork"):
                raise checks.UnsupportedError(f"{self.name} has no field fork")
            model = model.clone(fork=fork)
        return dataclasses.replace(self, model=model)

    def reinitialized(self, key: Key[Array, ""], image: Image) -> "Net":
        """The same network with new variables, as before its training.

        Args:
          key: decides them.
          image: [h,w,C] preprocessed, whose values do not matter.

        Raises:
          checks.UnsupportedError: an nnx module, which cannot draw them.
        """
        fresh = self.model.init(key, jnp.asarray(image)[None], train=False)
        # Exactly this network's collections: another tree structure would recompile every program.
        if set(fresh) != set(self.variables):
            fresh = {name: fresh.get(name, value) for name, value in self.variables.items()}
        return dataclasses.replace(self, variables=fresh)

    @property
    def _wrapped(self):
        return isinstance(self.model, Wrapped)

    def _run(self, x, start="", stop=""):
        y = self.model.apply(self.variables, x, train=False, start=start, stop=stop)
        return y.astype(jnp.float32)


def count_classes(net: Any, shape: Sequence[int]) -> int:
    """The number of classes that a network tells apart: that of its logits, but two where it has one; computes nothing."""
    return max(2, count_logits(net, shape))


def count_logits(net: Any, shape: Sequence[int]) -> int:
    """The number of logits that a network gives of an image of that shape, [h,w,C]; computes nothing."""
    return jax.eval_shape(_logits, net, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[-1]


def _logits(net, x):  # known to JAX by itself, which traces it once for each network
    return net.logits(x)


def wrapped_model(
    module: Any, variables: Tree, shape: tuple[int, ...], layers: Sequence[str] = ()
) -> tuple[Wrapped, Tree]:
    """The model of `Net.wrap` for a module that is no chain, and its variables.

    Args:
      module: linen or nnx.
      variables: as in `Net.wrap`; None is what a linen module would draw, of which there are none then.
      shape: [h,w,C] of an image.
      layers: as in `Net.wrap`.
    """
    # Two images: what has another first axis is no output for a batch.
    image = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    if isinstance(module, nn.Module):
        return wrap_linen(module, variables, image, layers), variables
    # Here because it saves everyone else importing flax.nnx (0.2 s).
    from mixaug_jax.models.wrapped_nnx import wrap_nnx

    return wrap_nnx(module, variables, image, layers)


def is_chain(module: Any) -> bool:
    """Whether a module runs from any of its own named layers to any other, as `layers.StagedModel`."""
    # Judged by its signature, so that a user's chain needs no base class of ours.
    known = inspect.signature(type(module).__call__).parameters
    return hasattr(module, "layers") and {"train", "start", "stop"} <= known.keys()


def _linen_variables(module, variables):
    if not isinstance(variables, Mapping) or "params" not in variables:
        got = list(variables)[:3] if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(
            f"variables of {type(module).__name__} must be {{'params': ...}}, as its init gives them; got {got}"
        )
    return variables
