"""Attribution: which parts of an image a network's output depends on.

    explain = jax.vmap(functools.partial(METHODS["gradcam"], layer="layer4"), (None, 0, 0))
    maps = jax.jit(explain)(net, images, labels)     # [B,h,w,C] or [B,h,w,1]
    heat = heatmap(maps, "positive")                 # [B,h,w]

Every method is `f(net, image, label, *, options)`: one preprocessed image [h,w,C] float32 and one class
number; the caller vmaps, and passes `net` as an argument so that another checkpoint does not compile
again. Results are float32, at the image's size, and signed unless a method says otherwise. Methods that
draw random numbers take `key`; one key gives one result, so give each image its own. Those with `chunk`
hold that many evaluations of the network in memory at once, for each image of the vmapped batch; their
result does not depend on it but for rounding. Defects of other code that users may compare with are named
where they matter.

* What is explained is `output`: "logit" of the label, its probability "prob" (softmax, or sigmoid where the network was trained
  by that), or the cross-entropy "loss".
* `layer` is one of `net.layers` with a map; `baseline` is "zero" (the mean color), "mean", "blur" or an array.
* A label known while tracing must be in 0..K-1 (ValueError). A traced one cannot be checked: outside, its output counts as 0.
* Where the explained output is NaN, the whole map is NaN. An image equal to the baseline, a dead network, or a CAM with
  nothing positive give maps of zeros ("mean" to rounding), never 0/0; but rise and iba give what their noise does.

A new method is one function of this form and one line in `METHODS`; what its signature cannot say stands in a record `Method`.
"""

import jax.numpy as jnp

from mixaug_jax.attribution.attention import (
    attention_gradcam,
    attention_rollout,
    gradient_x_attention,
)
from mixaug_jax.attribution.blur_path import blur_ig
from mixaug_jax.attribution.bottleneck import iba
from mixaug_jax.attribution.cam import (
    gradcam,
    gradcam_plus_plus,
    guided_gradcam,
    hirescam,
    layercam,
    scorecam,
    xgradcam,
)
from mixaug_jax.attribution.controls import center, random, sobel
from mixaug_jax.attribution.gradients import (
    deconvnet,
    gradient,
    guided_backprop,
    input_x_gradient,
    loss_gradient,
    smoothgrad,
    smoothgrad_squared,
    vargrad,
)
from mixaug_jax.attribution.guided_path import guided_ig
from mixaug_jax.attribution.important_direction import idgi
from mixaug_jax.attribution.layer_statistics import iba_statistics
from mixaug_jax.attribution.method import Method
from mixaug_jax.attribution.path import expected_gradients, integrated_gradients, split_ig
from mixaug_jax.attribution.perturbation import feature_ablation, occlusion, rise
from mixaug_jax.attribution.readout import Readout, iba_readout
from mixaug_jax.attribution.readout_files import load_readout
from mixaug_jax.attribution.readout_training import Training, train_readout
from mixaug_jax.attribution.relevance import deeplift, excitation_backprop, lrp
from mixaug_jax.attribution.semirings import gradient_paths, layer_paths, path_entropy
from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Float

__all__ = [
    "METHODS",
    "Method",
    "Readout",
    "Training",
    "control_names",
    "heatmap",
    "iba_statistics",
    "layer_paths",
    "load_readout",
    "path_entropy",
    "train_readout",
]

METHODS = {
    "attention_gradcam": Method(attention_gradcam, title="attention Grad-CAM", attention=True),
    "attention_rollout": Method(attention_rollout, attention=True),
    "blur_ig": Method(blur_ig, title="blur integrated gradients"),
    "deconvnet": Method(deconvnet, signed=False),
    "deeplift": Method(deeplift, title="DeepLIFT", complete=True),
    "excitation_backprop": Method(excitation_backprop),
    "expected_gradients": Method(expected_gradients),
    "feature_ablation": Method(feature_ablation),
    "gradcam": Method(gradcam, title="Grad-CAM", cam=True),
    "gradcam_plus_plus": Method(gradcam_plus_plus, title="Grad-CAM++", cam=True),
    "gradient": Method(gradient, signed=False),
    "gradient_paths": Method(gradient_paths, signed=False, title="sum over gradient paths"),
    "gradient_x_attention": Method(
        gradient_x_attention, title="gradient x attention", attention=True
    ),
    "guided_backprop": Method(guided_backprop, signed=False, title="guided backpropagation"),
    "guided_gradcam": Method(guided_gradcam, signed=False, title="guided Grad-CAM"),
    "guided_ig": Method(guided_ig, title="guided integrated gradients"),
    "hirescam": Method(hirescam, title="HiResCAM", cam=True),
    "iba": Method(iba, title="information bottleneck"),
    "iba_readout": Method(iba_readout, title="readout bottleneck"),
    "idgi": Method(idgi, title="IDGI"),
    "input_x_gradient": Method(input_x_gradient, title="input x gradient"),
    "integrated_gradients": Method(integrated_gradients, complete=True),
    "layercam": Method(layercam, title="LayerCAM", cam=True),
    "loss_gradient": Method(loss_gradient, signed=False, title="gradient of the loss"),
    "lrp": Method(lrp, title="LRP"),
    "occlusion": Method(occlusion),
    "rise": Method(rise, title="RISE"),
    "scorecam": Method(scorecam, title="Score-CAM", cam=True),
    "smoothgrad": Method(smoothgrad, signed=False, title="SmoothGrad"),
    "smoothgrad_squared": Method(smoothgrad_squared, title="SmoothGrad squared"),
    "split_ig": Method(split_ig, title="split integrated gradients"),
    "vargrad": Method(vargrad, title="VarGrad"),
    "xgradcam": Method(xgradcam, title="XGrad-CAM", cam=True),
    # What knows nothing of the network.
    "random": Method(random, title="random", control=True),
    "center": Method(center, title="center", control=True),
    "sobel": Method(sobel, title="edges (Sobel)", control=True),
}

REDUCTIONS = ("sum", "abs_sum", "abs_max", "positive")


def control_names() -> tuple[str, ...]:
    """The names of the methods that know nothing of the network."""
    return tuple(name for name, method in METHODS.items() if getattr(method, "control", False))


def heatmap(a: Float[AnyArray, "*n h w C"] | list, reduce: str = "sum") -> Float[Array, "*n h w"]:
    """One value a pixel: attributions [...,h,w,C] -> [...,h,w].

    Args:
      reduce: over channels: "sum" (signed), "abs_sum" of absolute values, "abs_max" their largest, or "positive", the sum where
        it is above 0 and 0 elsewhere.

    Returns:
      The map; NaN stays NaN, and a map of zeros stays one.

    Raises:
      ValueError: for another reduction, or attributions without an axis of channels.
    """
    checks.choice("reduce", reduce, REDUCTIONS)
    a = jnp.asarray(a)
    if a.ndim < 3:
        raise ValueError(f"attributions must be [...,h,w,C]; got {list(a.shape)}")
    if reduce == "sum":
        return a.sum(-1)
    if reduce == "abs_sum":
        return jnp.abs(a).sum(-1)
    # XLA's maximum, within one number and over many, loses NaN in large maps on CPU.
    if reduce == "positive":
        total = a.sum(-1)
        return jnp.where(total < 0, 0, total)
    return jnp.where(jnp.isnan(a).any(-1), jnp.nan, jnp.abs(a).max(-1))
