"""What stands out in the images of a batch: maps [B,H,W], float32 and not negative.

Pure functions of the images, and all but one of a network, which is used as it is evaluated: running batch statistics, no
dropout, so that examples are independent of each other and of the devices. A map's network is taken for a constant: nothing of
a loss is differentiated through it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Features, Float, Images, Net, Targets
from mixaug_jax.models import layer_maps, vit

Maps = Float[AnyArray, "B h w"]
_LONGEST = 128  # pixels of a side for the spectral residual, as published
_RED_GREEN_BLUE = (0.2989, 0.587, 0.114)


def needed(mixer: str, net: Any) -> Any:
    """A mixer's network; ValueError where none was given."""
    if not checks.given(net):
        raise ValueError(f"{mixer} looks at a network: pass net=, as a train step does")
    return net


def gradient(net: Net, images: Images, targets: Targets) -> Float[Array, "B h w"]:
    """How much the loss depends on a pixel: the root of the mean over channels of its squared gradient, [B,H,W].

    Kim et al., Puzzle Mix, arXiv 2009.06962, section 3, and GuidedMixup, arXiv 2306.16612. Each image's own loss; the published
    mean over a batch differs by a factor, which every use divides out.

    Args:
      net: whose loss it is: the cross-entropy, or what `net.loss` says.
      images: [B,H,W,C] preprocessed.
      targets: [B,K]; under "sigmoid" also [B,2K], targets times their weights beside the weights.
    """

    def loss(x: Images) -> Float[Array, ""]:
        logits = net.logits(x)
        wanted = targets.astype(jnp.float32)
        if net.loss == "softmax":
            _same_classes(logits, targets)
            return -(wanted * jax.nn.log_softmax(logits)).sum()
        # Of a network of several classes, targets may come with their weights beside them, as the step mixes both at once.
        classes = logits.shape[-1]
        if wanted.shape[-1] != 2 * classes:
            _same_classes(logits, targets)
        weights = wanted[:, classes:] if wanted.shape[-1] == 2 * classes else 1.0
        return (weights * jax.nn.softplus(logits) - wanted[:, :classes] * logits).sum()

    slopes = jax.grad(loss)(images.astype(jnp.float32))
    return jax.lax.stop_gradient(jnp.sqrt(jnp.square(slopes).mean(-1)))


def activation(net: Net, images: Images, layer: str = "") -> Float[Array, "B m n"]:
    """The mean over the channels of a layer, [B,h,w] at the layer's size.

    Walawalkar et al., Attentive CutMix, arXiv 2003.13048, section 3.

    Args:
      net: the network.
      images: [B,H,W,C] preprocessed.
      layer: whose output; "" is the last with 4 x 4 nodes, see `layer_maps.cam_layer`.
    """
    return jax.lax.stop_gradient(_maps_of(net, images, layer)[1].mean(-1))


def attention(net: Net, images: Images) -> Float[Array, "B m n"]:
    """How much the class token of a vision transformer looks at each patch in the last block, the mean over heads, [B,n,n].

    Chen et al., TransMix, arXiv 2111.09833, eq. 3.

    Args:
      net: a network with attention.
      images: [B,H,W,C] preprocessed.

    Raises:
      checks.UnsupportedError: a network without attention.
    """
    found = net.attention(images.astype(jnp.float32))[1]
    return jax.lax.stop_gradient(vit.last_seen_patches(net.model, found))


def evidence(net: Net, images: Images, targets: Targets, layer: str = "") -> Maps:
    """Where the evidence for an image's own class lies: its class activation map, [B,H,W], each of which sums to 1.

    Huang et al., SnapMix, arXiv 2012.04846, eq. 3. The head of the network is applied to each node of the layer alone, which
    for a global average and a dense layer is the published product of features and class weights, with the bias.

    Args:
      net: a network whose head takes maps of any size.
      images: [B,H,W,C] preprocessed.
      targets: [B,K]; the class is the one with the largest.
      layer: whose output; "" is the last with 4 x 4 nodes, see `layer_maps.cam_layer`.

    Raises:
      ValueError: a head that does not take a map of one node.
    """
    scores = _scores_of_nodes(net, images, targets, layer)
    return jax.lax.stop_gradient(spread(_own_class(scores, targets), images.shape[1:3]))


def probability(
    net: Net, images: Images, targets: Targets, layer: str = ""
) -> Float[Array, "B m n"]:
    """How likely a network takes each node of a layer, seen alone, for the image's own class: [B,h,w] in 0..1.

    What TokenMix (Liu et al., arXiv 2207.08409) has of a teacher. The arguments are those of `evidence`.
    """
    scores = jax.nn.softmax(_scores_of_nodes(net, images, targets, layer))
    return jax.lax.stop_gradient(_own_class(scores, targets))


def _own_class(scores, targets):
    """[B,h,w,K] -> [B,h,w], of the class with the largest target."""
    return jnp.take_along_axis(scores, targets.argmax(-1)[:, None, None, None], -1)[..., 0]


def _scores_of_nodes(net, images, targets, layer):
    """The logits [B,h,w,K] of the head where it is applied to each node of a layer alone."""
    name, maps = _maps_of(net, images, layer)
    count, height, width, channels = maps.shape
    nodes = maps.reshape(-1, 1, 1, channels)
    # What leads to a replaced output is dead code; its shape alone matters.
    unused = jnp.zeros((nodes.shape[0], *images.shape[1:]), jnp.float32)
    try:
        logits = net.logits(unused, layer=name, value=nodes)
    except Exception as error:  # of whatever library the network is made of
        raise ValueError(
            f"the layers after {name} must take a map of one node, as a global average does; use a layer whose map "
            "reaches such a head"
        ) from error
    _same_classes(logits, targets)
    return logits.reshape(count, height, width, -1)


def spread(scores: Float[AnyArray, "B h w"], size: Sequence[int]) -> Float[Array, "B H W"]:
    """Scores enlarged to `size`, less each map's minimum, divided by its sum; a constant map becomes uniform."""
    shape = (scores.shape[0], *size)
    maps = jax.image.resize(scores.astype(jnp.float32), shape, "linear", antialias=False)
    return shares(maps - maps.min((1, 2), keepdims=True))


def shares(maps: Maps) -> Maps:
    """Maps [B,H,W] divided by their sums; one that is 0 everywhere, or not finite, becomes uniform."""
    total = maps.sum((1, 2), keepdims=True)
    good = (total > 0) & jnp.isfinite(total)
    uniform = 1 / (maps.shape[1] * maps.shape[2])
    return jnp.where(good, maps / jnp.where(good, total, 1), uniform)


def spectral_residual(images: Images) -> Float[Array, "B h w"]:
    """What is uncommon in the amplitudes of an image's spectrum, [B,H,W]; no network is needed.

    Hou & Zhang, Saliency Detection: A Spectral Residual Approach, CVPR 2007, in the form of GuidedMixup's published code
    (arXiv 2306.16612): of the gray image as it is, normalized; the absolute value and not its square; blurred by 7 pixels.

    Args:
      images: [B,H,W,C] with 3 channels or 1; of more than 128 pixels a side the map is made at 128 and enlarged.

    Raises:
      ValueError: another number of channels.
    """
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must have 3 channels or 1, to be made gray; got {images.shape[-1]}"
        )
    images = images.astype(jnp.float32)
    weights = jnp.asarray(_RED_GREEN_BLUE if images.shape[-1] == 3 else (1.0,))
    gray = (images * weights).sum(-1)
    size = tuple(min(side, _LONGEST) for side in gray.shape[1:])
    small = jax.image.resize(gray, (gray.shape[0], *size), "linear", antialias=False)
    spectrum = jnp.fft.fft2(small)
    amplitude = jnp.abs(spectrum)
    logarithm = jnp.log(jnp.where(amplitude > 0, amplitude, 1))
    # What a spectrum has beyond its neighbors; phases tell where in the image that is.
    residual = jnp.exp(logarithm - _mean_of_nine(logarithm))
    phase = jnp.where(amplitude > 0, spectrum / jnp.where(amplitude > 0, amplitude, 1), 0)
    maps = blurred(jnp.abs(jnp.fft.ifft2(residual * phase)))
    return jax.image.resize(maps, gray.shape, "linear", antialias=False)


def _mean_of_nine(x):
    """The mean over 3 x 3 neighbors of [B,H,W]; the edge is repeated."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for axis in (1, 2):
        length = x.shape[axis] - 2
        x = sum(jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(3)) / 3
    return x


def blurred(maps: Maps, taps: int = 7, sigma: float = 3.0) -> Maps:
    """Maps [B,H,W] under a Gaussian of `taps` pixels, mirrored at the edge without repeating it."""
    half = taps // 2
    kernel = jnp.exp(-0.5 * jnp.square((jnp.arange(taps) - half) / sigma))
    kernel = kernel / kernel.sum()
    for axis in (1, 2):
        length, pad = maps.shape[axis], [(0, 0)] * 3
        pad[axis] = (half, half)
        wide = jnp.pad(maps, pad, mode="reflect" if length > half else "edge")
        parts = (jax.lax.slice_in_dim(wide, i, i + length, axis=axis) for i in range(taps))
        maps = sum(k * part for k, part in zip(kernel, parts, strict=True))
    return maps


def _same_classes(logits, targets):
    """Raises ValueError where a network tells other classes apart than the targets do."""
    found, wanted = logits.shape[-1], targets.shape[-1]
    if found != wanted:
        raise ValueError(f"the network tells {found} classes apart, and targets have {wanted}")


def _maps_of(net, images, layer) -> tuple[str, Features]:
    """The name of the layer and its output as maps [B,h,w,K]."""
    like = jax.ShapeDtypeStruct(images.shape[1:], jnp.float32)
    name = layer_maps.cam_layer(net, like, layer)
    return name, net.maps(name, net.features(images.astype(jnp.float32), name))
