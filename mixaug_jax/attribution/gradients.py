"""Attribution by the gradient of an output, of noisy copies, or through changed ReLUs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import chunks, rules
from mixaug_jax.attribution.target import input_gradient
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    Array,
    Attribution,
    Given,
    Image,
    Images,
    Indices,
    Label,
    Net,
    Seed,
)


def gradient(net: Net, image: Image, label: Label, *, output: str = "logit") -> Attribution:
    """The gradient of an output, signed [h,w,C] (Simonyan et al. 2013, arXiv 1312.6034, section 3).

    The paper shows its absolute maximum over channels: `heatmap(a, "abs_max")`.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      output: the output explained, "logit", "prob" or "loss".
    """
    return input_gradient(net, checks.image(image)[None], label, output)[0]


def input_x_gradient(net: Net, image: Image, label: Label, *, output: str = "logit") -> Attribution:
    """Image times gradient, signed [h,w,C] (Shrikumar et al. 2016, arXiv 1605.01713).

    Args:
      net, image, label: see `mixaug_jax.attribution`. The image is normalized, so its zero is the mean color.
      output: the output explained, "logit", "prob" or "loss".
    """
    return checks.image(image) * gradient(net, image, label, output=output)


def loss_gradient(net: Net, image: Image, label: Label) -> Attribution:
    """The gradient of the cross-entropy with `label`, signed [h,w,C] (as in PuzzleMix, arXiv 2009.06962, before its norm).

    Positive where a larger value would raise the loss. The label is the caller's choice: the true one shows what training
    would change (and tells the map the label), the predicted one what speaks against the prediction.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
    """
    return gradient(net, image, label, output="loss")


def _draws(key: Seed, samples: int, noise: Given, shape: tuple[int, ...]) -> tuple[Callable, int]:
    """draw(index) -> standard normal of `shape`, and the number of copies."""
    if checks.given(noise):
        noise = checks.array("noise", noise, (0, *shape))
        return lambda index: noise[index], len(noise)
    checks.count("samples", samples)
    # Folded with the sample's index, so that chunks do not change what is drawn.
    key = as_key(key)
    return lambda index: jax.random.normal(jax.random.fold_in(key, index), shape), samples


def _noisy_gradients(
    net: Net, image: Image, label: Label, draw: Callable, sigma: float, output: str
) -> Callable:
    """indices [n] -> the gradients [n,h,w,C] at noisy copies."""
    checks.not_negative("sigma", sigma)
    # The paper gives the noise as a share of the image's range.
    scale = sigma * (image.max() - image.min())

    def f(indices: Indices) -> Images:
        return input_gradient(net, image + scale * jax.vmap(draw)(indices), label, output)

    return f


def as_key(key: Seed) -> Array:
    """A key from `jax.random`, or one made from an integer seed (which may be traced); ValueError for anything else."""
    # To `result_type` a text is the name of a type.
    kind = None if isinstance(key, str) else jnp.result_type(key)
    if kind is None or not any(jnp.issubdtype(kind, k) for k in (jax.dtypes.prng_key, jnp.integer)):
        raise ValueError(f"key must be a key of jax.random or an integer; got {key!r}")
    is_seed = jnp.ndim(key) == 0 and jnp.issubdtype(kind, jnp.integer)
    return jax.random.key(key) if is_seed else key


def smoothgrad(
    net: Net,
    image: Image,
    label: Label,
    *,
    key: Seed = 0,
    samples: int = 50,
    sigma: float = 0.15,
    noise: Given = (),
    output: str = "logit",
    chunk: int = 8,
) -> Attribution:
    """The mean gradient of noisy copies, signed [h,w,C] (Smilkov et al. 2017, arXiv 1706.03825).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      key: a random key or a seed; sample i uses the key folded with i.
      samples: number of noisy copies.
      sigma: standard deviation of the noise, as a share of the image's range max - min (the paper's noise level; captum's
        `stdevs` is absolute).
      noise: [samples,h,w,C] standard normal in place of draws.
      output: the output explained, "logit", "prob" or "loss".
      chunk: copies in memory at once; 0 is all.
    """
    image = checks.image(image)
    draw, count = _draws(key, samples, noise, image.shape)
    f = _noisy_gradients(net, image, label, draw, sigma, output)
    return chunks.total(f, count, chunk) / count


def smoothgrad_squared(
    net: Net,
    image: Image,
    label: Label,
    *,
    key: Seed = 0,
    samples: int = 50,
    sigma: float = 0.15,
    noise: Given = (),
    output: str = "logit",
    chunk: int = 8,
) -> Attribution:
    """The mean squared gradient of noisy copies, not negative, [h,w,C] (Hooker et al. 2019, arXiv 1806.10758).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      key, samples, sigma, noise: as `smoothgrad`.
      output: the output explained, "logit", "prob" or "loss".
      chunk: copies in memory at once; 0 is all.
    """
    image = checks.image(image)
    draw, count = _draws(key, samples, noise, image.shape)
    f = _noisy_gradients(net, image, label, draw, sigma, output)
    return chunks.total(lambda indices: jnp.square(f(indices)), count, chunk) / count


def vargrad(
    net: Net,
    image: Image,
    label: Label,
    *,
    key: Seed = 0,
    samples: int = 50,
    sigma: float = 0.15,
    noise: Given = (),
    output: str = "logit",
    chunk: int = 8,
) -> Attribution:
    """The variance of the gradient over noisy copies, not negative, [h,w,C] (Adebayo et al. 2018, arXiv 1810.03307).

    Divided by `samples`, as captum's, not by one less; summed without cancellation, so never below zero.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      key, samples, sigma, noise: as `smoothgrad`.
      output: the output explained, "logit", "prob" or "loss".
      chunk: copies in memory at once; 0 is all.
    """
    image = checks.image(image)
    draw, count = _draws(key, samples, noise, image.shape)
    f = _noisy_gradients(net, image, label, draw, sigma, output)
    return chunks.moments(f, count, chunk)[1]


def guided_backprop(net: Net, image: Image, label: Label, *, output: str = "logit") -> Attribution:
    """The gradient with negative signals stopped at every ReLU, signed [h,w,C] (Springenberg et al. 2014, arXiv 1412.6806).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      output: the output explained, "logit", "prob" or "loss".

    Raises:
      ValueError: for a model whose activations have no rule field.
    """
    return gradient(net.with_rules(act=rules.guided_act), image, label, output=output)


def deconvnet(net: Net, image: Image, label: Label, *, output: str = "logit") -> Attribution:
    """The gradient with ReLUs applied to the backward signal only, signed [h,w,C] (Zeiler and Fergus 2013, arXiv 1311.2901).

    Max pooling gives its signal to the winner of the forward pass, as there.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      output: the output explained, "logit", "prob" or "loss".

    Raises:
      ValueError: for a model whose activations have no rule field.
    """
    return gradient(net.with_rules(act=rules.deconvnet_act), image, label, output=output)
