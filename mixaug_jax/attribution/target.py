"""What is explained: one number of a network's output for one image; and what an image is compared with."""

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
from mixaug_jax.models.layer_maps import (  # noqa: F401, methods find them here
    cam_layer,
    map_layer,
    map_layers,
    map_shapes,
)

OUTPUTS = ("logit", "prob", "loss")
BASELINES = ("zero", "mean", "blur")


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
