"""Class activation maps: sums over the channels of a layer, at the image's size.

The functions called *_map work on a layer's activations and their gradients, [h,w,K] each, and give [h,w].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import chunks, resampling
from mixaug_jax.attribution.gradients import guided_backprop
from mixaug_jax.attribution.target import cam_layer, nan_like, outputs, select
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Attribution,
    Features,
    Float,
    Given,
    Heatmap,
    Image,
    Images,
    Indices,
    Label,
    Net,
    Outputs,
    Scalar,
)

RESIZES = ("bilinear", "nearest")
Maps = Float[AnyArray, "h w K"]  # of a layer


def gradcam_map(activations: Maps, gradients: Maps) -> Heatmap:
    """Channels weighted by their mean gradient."""
    return (activations * gradients.mean((0, 1))).sum(-1)


def gradcam_plus_plus_map(activations: Maps, gradients: Maps, epsilon: float = 0.0) -> Heatmap:
    """Channels weighted by the sum of positive gradients, each with the weight of the paper's eq. 19."""
    # Derivatives of exp(logit) are powers of the logit's gradient times one factor, which cancels in alpha.
    square, cube = gradients**2, gradients**3
    denominator = 2 * square + activations.sum((0, 1)) * cube + epsilon
    alpha = jnp.where(denominator != 0, square / jnp.where(denominator != 0, denominator, 1), 0)
    return (activations * (alpha * jnp.maximum(gradients, 0)).sum((0, 1))).sum(-1)


def hirescam_map(activations: Maps, gradients: Maps) -> Heatmap:
    """Activations times gradients."""
    return (activations * gradients).sum(-1)


def xgradcam_map(activations: Maps, gradients: Maps) -> Heatmap:
    """Channels weighted by their gradient's mean, weighted by the activations; channels that sum to 0 count nothing."""
    total = activations.sum((0, 1))
    # A dead channel has nothing to weight its gradients with.
    weight = (activations * gradients).sum((0, 1)) / jnp.where(total != 0, total, 1)
    return (activations * jnp.where(total != 0, weight, 0)).sum(-1)


def layercam_map(activations: Maps, gradients: Maps) -> Heatmap:
    """Activations times positive gradients."""
    return (activations * jnp.maximum(gradients, 0)).sum(-1)


def _finish(values, image, relu, resize):
    """[h,w] -> [H,W,1] at the image's size."""
    checks.choice("resize", resize, RESIZES)
    # First, or what is negative would pull down the pixels between it and its neighbors.
    values = jnp.maximum(values, 0) if relu else values
    return resampling.enlarge(values[..., None], image.shape[:2], resize)


def _cam(
    combine: Callable, net: Net, image: Image, label: Label, layer: str, output: str
) -> Float[Array, "m n"]:
    """[h',w'] at the layer's size: `combine(activations, gradients)`."""
    image = checks.image(image)
    layer = cam_layer(net, image, layer)
    activations = net.features(image[None], layer)

    # With respect to what stands in the place of the layer's output, which holds on any graph of layers.
    def explained(h: Features) -> Scalar:
        return outputs_from(net, image[None], layer, h, label, output)[0]

    value, gradients = jax.value_and_grad(explained)(activations)
    # Tokens become maps after differentiating: the network knows them as tokens.
    maps, slopes = (net.maps(layer, h)[0] for h in (activations, gradients))
    return nan_like(value, combine(maps, slopes))


def outputs_from(
    net: Net, x: Images, layer: str, value: Features, label: Label, output: str
) -> Outputs:
    """As `outputs` of images x [n,h,w,C], with the features `value` [n,h',w',K] in place of a layer's own."""
    return select(net, net.logits(x, layer=layer, value=value), label, output)


def gradcam(
    net: Net,
    image: Image,
    label: Label,
    *,
    layer: str = "",
    relu: bool = True,
    resize: str = "bilinear",
    output: str = "logit",
) -> Attribution:
    """Grad-CAM: channels weighted by their mean gradient, [h,w,1] (Selvaraju et al. 2017, arXiv 1610.02391, eq. 1 and 2).

    In the units of the output, not scaled to 0..1.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      layer: whose activations to sum; "" is the last with 4 x 4 nodes, see `target.cam_layer`.
      relu: keep only what is positive, before enlarging.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest" (captum's default).
      output: the output explained, "logit", "prob" or "loss".
    """
    values = _cam(gradcam_map, net, image, label, layer, output)
    return _finish(values, image, relu, resize)


def gradcam_plus_plus(
    net: Net,
    image: Image,
    label: Label,
    *,
    layer: str = "",
    epsilon: float = 1e-6,
    relu: bool = True,
    resize: str = "bilinear",
    output: str = "logit",
) -> Attribution:
    """Grad-CAM++: channels weighted by positive gradients, [h,w,1] (Chattopadhay et al. 2018, arXiv 1710.11063, eq. 19).

    As in the authors' code the weights come from powers of one gradient, which is exact for the exponential of the logit, up
    to a positive factor of the whole map.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      layer: whose activations to sum; "" is the last with 4 x 4 nodes, see `target.cam_layer`.
      epsilon: added to the denominator of eq. 19 against division by 0, as in pytorch-grad-cam. Small gradients (of the order
        of its root, 1e-3, as before a global average) count less by it; 0 is the paper's definition.
      relu: keep only what is positive, before enlarging.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
      output: the output explained, "logit", "prob" or "loss".
    """
    checks.not_negative("epsilon", epsilon)

    def combine(activations: Maps, gradients: Maps) -> Heatmap:
        return gradcam_plus_plus_map(activations, gradients, epsilon)

    values = _cam(combine, net, image, label, layer, output)
    return _finish(values, image, relu, resize)


def hirescam(
    net: Net,
    image: Image,
    label: Label,
    *,
    layer: str = "",
    relu: bool = True,
    resize: str = "bilinear",
    output: str = "logit",
) -> Attribution:
    """HiResCAM: activations times gradients, [h,w,1] (Draelos and Carin 2020, arXiv 2011.08891).

    Equal to `gradcam` where only a global average and a dense layer follow the layer.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      layer: whose activations to sum; "" is the last with 4 x 4 nodes, see `target.cam_layer`.
      relu: keep only what is positive, before enlarging.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
      output: the output explained, "logit", "prob" or "loss".
    """
    values = _cam(hirescam_map, net, image, label, layer, output)
    return _finish(values, image, relu, resize)


def xgradcam(
    net: Net,
    image: Image,
    label: Label,
    *,
    layer: str = "",
    relu: bool = True,
    resize: str = "bilinear",
    output: str = "logit",
) -> Attribution:
    """XGrad-CAM: channels weighted by their gradient's mean, [h,w,1] (Fu et al. 2020, arXiv 2008.02312).

    The mean is weighted by the activations. A channel that is zero everywhere counts nothing.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      layer: whose activations to sum; "" is the last with 4 x 4 nodes, see `target.cam_layer`.
      relu: keep only what is positive, before enlarging.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
      output: the output explained, "logit", "prob" or "loss".
    """
    values = _cam(xgradcam_map, net, image, label, layer, output)
    return _finish(values, image, relu, resize)


def layercam(
    net: Net,
    image: Image,
    label: Label,
    *,
    layer: str = "",
    relu: bool = True,
    resize: str = "bilinear",
    output: str = "logit",
) -> Attribution:
    """LayerCAM: activations times positive gradients, [h,w,1] (Jiang et al. 2021, doi 10.1109/TIP.2021.3089943).

    Meant for early layers, too.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      layer: whose activations to sum; "" is the last with 4 x 4 nodes, see `target.cam_layer`.
      relu: keep only what is positive, before enlarging.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
      output: the output explained, "logit", "prob" or "loss".
    """
    values = _cam(layercam_map, net, image, label, layer, output)
    return _finish(values, image, relu, resize)


def scorecam(
    net: Net,
    image: Image,
    label: Label,
    *,
    layer: str = "",
    masks: Given = (),
    relu: bool = True,
    resize: str = "bilinear",
    output: str = "logit",
    chunk: int = 16,
) -> Attribution:
    """Score-CAM: channels weighted by the softmax, over channels, of the output for the image that each one masks, [h,w,1].

    Wang et al. 2019, arXiv 1910.01279. A channel's mask is its activation map at the image's size, scaled to 0..1;
    a constant map masks everything (other code divides 0 by 0 there). pytorch-grad-cam enlarges with corners aligned, which
    shifts masks against pixels by up to half a cell; here centers are half-pixel.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      layer: whose activations to sum; "" is the last with 4 x 4 nodes, see `target.cam_layer`.
      masks: [K,h,w] in 0..1 for the K channels, in place of the enlarged activations.
      relu: keep only what is positive, before enlarging.
      resize: to the image's size, "bilinear" (half-pixel centers) or "nearest".
      output: the output that weights channels, "logit", "prob" or "loss".
      chunk: masked images in memory at once; 0 is all.
    """
    image = checks.image(image)
    layer = cam_layer(net, image, layer)
    activations = net.maps(layer, net.features(image[None], layer))[0]
    channels = activations.shape[-1]
    if checks.given(masks):
        masks = checks.array("masks", masks, (channels, *image.shape[:2]))

    # Enlarged a chunk at a time: all channels at the image's size would be far more than the layer.
    def mask(index: Indices) -> Float[Array, "n h w"]:
        if checks.given(masks):
            return masks[index]
        values = resampling.enlarge(activations[..., index], image.shape[:2])
        low = values.min((0, 1))
        span = values.max((0, 1)) - low
        scaled = (values - low) / jnp.where(span > 0, span, 1)
        return jnp.moveaxis(scaled, -1, 0)

    def score(index: Indices) -> Outputs:
        return outputs(net, mask(index)[..., None] * image, label, output)

    # The output of an image without anything, which the paper subtracts, cancels in the softmax.
    weights = jax.nn.softmax(chunks.every(score, channels, chunk))
    return _finish((activations * weights).sum(-1), image, relu, resize)


def guided_gradcam(
    net: Net,
    image: Image,
    label: Label,
    *,
    layer: str = "",
    resize: str = "bilinear",
    output: str = "logit",
) -> Attribution:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM, signed [h,w,C] (Selvaraju et al. 2017, arXiv 1610.02391).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      layer: whose activations to sum; "" is the last with 4 x 4 nodes, see `target.cam_layer`.
      resize: of Grad-CAM to the image's size, "bilinear" (half-pixel centers, the paper's) or "nearest" (captum's default).
      output: the output explained, "logit", "prob" or "loss".
    """
    # One map for all channels: the sign and the detail come from guided backpropagation.
    coarse = gradcam(net, image, label, layer=layer, resize=resize, output=output)
    return guided_backprop(net, image, label, output=output) * coarse
