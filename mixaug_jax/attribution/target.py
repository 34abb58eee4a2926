"""What is explained: one number of a network's output for one image; and what an image is compared with."""

from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import resampling
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    Array,
    Baseline,
    Image,
    Images,
    Label,
    Logits,
    Net,
    Outputs,
    Scalar,
)
from mixaug_jax.models import probability

OUTPUTS = ("logit", "prob", "loss")
BASELINES = ("zero", "mean", "blur")
NODES = 4  # along a side of the map that a class activation map is made of


def outputs(net: Net, x: Images, label: Label, output: str = "logit") -> Outputs:
    """The explained number of each of the preprocessed images x [n,h,w,C] -> [n] float32.

    Args:
      output: "logit" of `label`, its probability "prob" (by softmax, or by sigmoid where the network was trained so), or
        "loss", the cross-entropy with `label`: minus the logarithm of its probability. Of a network with one logit z, class 1
        has the logit z and class 0 has -z; see `models.probability`.

    Raises:
      ValueError: for another `output`, or a label outside 0..K-1. A traced label cannot be looked at: outside 0..K-1 it
        gives 0.
    """
    return select(net, net.logits(x), label, output)


def select(net: Net, logits: Logits, label: Label, output: str) -> Outputs:
    """The network's logits [n,K] -> [n], as `outputs`."""
    checks.choice("output", output, OUTPUTS)
    if output == "prob":
        values = probability.probabilities(net, logits)
    elif output == "loss":
        values = -probability.log_probabilities(net, logits)
    else:
        values = probability.class_logits(logits)
    classes = values.shape[-1]
    checks.label(label, classes)
    # A comparison and no index, which out of range would take another class's output.
    return jnp.where(jnp.arange(classes) == label, values, 0).sum(-1)


def input_gradient(net: Net, x: Images, label: Label, output: str = "logit") -> Images:
    """The gradient of each image's explained number: x [n,h,w,C] -> [n,h,w,C], NaN where that number is."""
    # One backward pass for all images: an image's output depends on no other image.
    values, vjp = jax.vjp(lambda x: outputs(net, x, label, output), x)
    return nan_like(values[:, None, None, None], vjp(jnp.ones_like(values))[0])


def nan_like(value: Scalar | Array, a: Array) -> Array:
    """`a`, or NaN where the explained number `value` is: the derivative of a ReLU makes 0 of NaN."""
    return jnp.where(jnp.isnan(value), jnp.nan, a)


def replacement(image: Image, baseline: Baseline) -> Image:
    """What stands for "nothing there" in image [h,w,C] -> [h,w,C].

    Args:
      baseline: "zero" (the mean color of the data, where images are normalized), "mean" (this image's, of each channel),
        "blur" (Gaussian, its sigma a sixteenth of the shorter side), or an array that broadcasts to the image.
    """
    if not isinstance(baseline, str):
        baseline = jnp.asarray(baseline, image.dtype)
        # Broadcasting matches axes from the last.
        lengths = zip(baseline.shape[::-1], image.shape[::-1], strict=False)
        if baseline.ndim > 3 or any(b not in (1, i) for b, i in lengths):
            shapes = f"{list(baseline.shape)} against {list(image.shape)}"
            raise ValueError(f"baseline must broadcast to the image's shape; got {shapes}")
        return jnp.broadcast_to(baseline, image.shape)
    checks.choice("baseline", baseline, BASELINES)
    if baseline == "zero":
        return jnp.zeros_like(image)
    if baseline == "mean":
        return jnp.broadcast_to(image.mean((0, 1)), image.shape)
    return resampling.blur(image, min(image.shape[:2]) / 16)


def map_shapes(net: Any, image: Any) -> dict[str, tuple[int, int, int]]:
    """{layer: [h,w,K]} of the layers whose output is a map, in the network's order; one trace, and nothing is computed.

    Args:
      net: the network.
      image: preprocessed [h,w,C], an array or its shape.

    Raises:
      checks.UnsupportedError: for a network without maps.
    """
    found = jax.eval_shape(_maps, net, jax.ShapeDtypeStruct((1, *image.shape), jnp.float32))
    # In the network's order, which the dict from JAX does not have.
    shapes = {layer: found[layer].shape[1:] for layer in net.layers if found[layer].ndim == 4}
    if not shapes:
        raise checks.UnsupportedError(
            f"no layer of the network gives a map [h,w,K]; it has {', '.join(net.layers)}"
        )
    return shapes


def _maps(net, x):  # not within `map_shapes`, so that JAX knows it again and traces once
    return {layer: net.maps(layer, h) for layer, h in net.capture(x, net.layers).items()}


def map_layers(net: Any, image: Any) -> tuple[str, ...]:
    """The layers of `map_shapes`."""
    return tuple(map_shapes(net, image))


def map_layer(net: Any, image: Any, layer: str, depth: float) -> str:
    """`layer`, or where it is "" the one at `depth` (0 to 1) among those with a map.

    Raises:
      ValueError: for a layer that the network does not have, or one without a map, or a network without maps.
      checks.UnsupportedError: for one of whose map nothing reaches the logits.
    """
    known = map_layers(net, image)
    maps = _seeing(net, known)
    if not layer:
        return maps[min(int(depth * len(maps)), len(maps) - 1)]
    checks.choice("layer", layer, known)
    if layer not in maps:
        raise checks.UnsupportedError(
            f"layer {layer!r} of {net.name}: nothing of its map reaches the logits, which see the class token alone; the last "
            f"that does is {maps[-1]}"
        )
    return layer


def _seeing(net, layers):
    """Those of the layers of whose maps something reaches the logits."""
    blind = getattr(getattr(net, "model", None), "blind_layers", ())
    return [layer for layer in layers if layer not in blind]


def cam_layer(net: Any, image: Any, layer: str = "") -> str:
    """`layer`, or where it is "" the one that class activation maps of `image` [h,w,C] are made of.

    That is the last whose map has 4 x 4 nodes or more: a ResNet's layer4 at 224 pixels, but layer3 at 64, where layer4 has
    2 x 2 and points nowhere. Where no map has so many, it is the last one. A map of which nothing reaches the logits, as a last
    block's of tokens, is none of them.

    Raises:
      ValueError: as `map_layer`.
    """
    if layer:
        return map_layer(net, image, layer, 1)
    shapes = map_shapes(net, image)
    seeing = _seeing(net, shapes)
    fine = [name for name in seeing if min(shapes[name][:2]) >= NODES]
    return (fine or seeing)[-1]
