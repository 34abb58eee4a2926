"""What stands in the place of removed pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import resampling, target
from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.core import checks
from mixaug_jax.core.types import Baseline, Float, Image, Seed

BASELINES = ("zero", "mean", "image_mean", "blur", "noise")


def fill(image: Image, baseline: Baseline, key: Seed = 0) -> Image:
    """The image's replacement, [h,w,C] -> [h,w,C].

    Args:
      baseline: "zero" (the mean color of the data, where images are normalized); "mean", the image's own of each channel;
        "image_mean", over all channels; "blur", see `rise_blur`; "noise", uniform between the channel's smallest and largest
        value in the image; or an array that broadcasts to the image.
      key: a random key or a seed, for "noise".
    """
    if not isinstance(baseline, str):
        return target.replacement(image, baseline)
    checks.choice("baseline", baseline, BASELINES)
    # Those that are not attribution's own, whose blur is another one.
    if baseline == "image_mean":
        return jnp.full_like(image, image.mean())
    if baseline == "blur":
        return rise_blur(image)
    if baseline == "noise":
        low, high = image.min((0, 1)), image.max((0, 1))
        return low + (high - low) * jax.random.uniform(as_key(key), image.shape)
    return target.replacement(image, baseline)


def rise_blur(image: Image) -> Image:
    """Blurred with the 11 x 11 kernel, sigma 5, of RISE's insertion (Petsiuk et al. 2018, arXiv 1806.07421), zeros outside.

    Their kernel is what scipy's Gaussian filter makes of a single 1 on 11 x 11 pixels with mirrored borders, so its rim is
    heavier than a Gaussian's. In pixels, whatever the image's size.
    """
    kernel = _rise_kernel()

    def matrix(length: int) -> Float[np.ndarray, "n n"]:
        return sum(w * np.eye(length, k=k - 5) for k, w in enumerate(kernel))

    return resampling.apply(matrix(image.shape[0]), matrix(image.shape[1]), image)


def _rise_kernel(taps=11, sigma=5, reach=20):
    offset = np.arange(-reach, reach + 1)
    weights = np.exp(-((offset / sigma) ** 2) / 2)
    # scipy's filter of a single 1: mirrored images of it add to the rim.
    source = np.pad(np.arange(taps), reach, mode="symmetric")
    hits = np.stack([source[i : i + 2 * reach + 1] == taps // 2 for i in range(taps)])
    return hits @ (weights / weights.sum())
