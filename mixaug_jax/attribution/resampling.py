"""Blurring and enlarging maps, as products with small matrices made while tracing."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import AnyArray, Array, Float, Image, Num, Shaped


def apply(
    rows: Shaped[AnyArray, "H h"], cols: Shaped[AnyArray, "W w"], x: Shaped[AnyArray, "h w ..."]
) -> Float[Array, "H W ..."]:
    """rows [H,h] and cols [W,w] along the two first axes of x [h,w,...] -> [H,W,...] float32."""
    # Accelerators would round weights and maps to bfloat16.
    highest = jax.lax.Precision.HIGHEST
    x = jnp.tensordot(jnp.asarray(rows, jnp.float32), x, 1, precision=highest)
    y = jnp.tensordot(jnp.asarray(cols, jnp.float32), x, ((1,), (1,)), precision=highest)
    return jnp.swapaxes(y, 0, 1)


def blur(x: Image, sigma: float) -> Image:
    """Gaussian blur of x [h,w,C] over the whole image, weights renormalized at the borders; `sigma` in pixels."""

    def matrix(length: int) -> Float[np.ndarray, "n n"]:
        place = np.arange(length)
        weights = np.exp(-(((place[:, None] - place) / sigma) ** 2) / 2)
        return weights / weights.sum(1, keepdims=True)

    return apply(matrix(x.shape[0]), matrix(x.shape[1]), x)


def smooth(x: Image, sigma: float, taps: int = 0) -> Image:
    """Gaussian filter of x [h,w,C], its taps summing to 1, the border mirrored without its edge.

    Args:
      sigma: in cells; 0 leaves x as it is.
      taps: how many, an odd number; 0 is 2 round(2 sigma) + 1.
    """
    if sigma == 0:
        return x
    # Two deviations to each side: the released library's kernel.
    reach = taps // 2 if taps else round(2 * sigma)
    weights = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2)

    def matrix(length: int) -> Float[np.ndarray, "n n"]:
        source = np.pad(np.arange(length), reach, mode="reflect")
        rows = np.zeros((length, length))
        for k, tap in enumerate(weights / weights.sum()):
            rows[np.arange(length), source[k : k + length]] += tap
        return rows

    return apply(matrix(x.shape[0]), matrix(x.shape[1]), x)


def enlarge(
    x: Num[AnyArray, "h w ..."], size: Sequence[int], method: str = "bilinear"
) -> Num[Array, "H W ..."]:
    """x [h,w,C] at size (H, W), half-pixel centers.

    Args:
      method: "nearest", "bilinear" (the outer values continue beyond the border, as in torch and OpenCV), "mirror":
        bilinear between a map and its mirror image, as scikit-image does by default; the outer half cell differs; or "aligned":
        bilinear with the centers of the corners in the corners, as torch with align_corners (smaller sizes, too).
    """
    if method == "aligned":
        return apply(aligned_matrix(x.shape[0], size[0]), aligned_matrix(x.shape[1], size[1]), x)
    if method == "mirror":
        return apply(mirror_matrix(x.shape[0], size[0]), mirror_matrix(x.shape[1], size[1]), x)
    return jax.image.resize(x, (*size, *x.shape[2:]), method, antialias=False)


def mirror_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """[target,source], whose product with a line is its linear interpolation between mirrored borders."""
    place = (np.arange(target) + 0.5) * source / target - 0.5
    node = np.floor(place).astype(int)
    rows = np.zeros((target, source))
    for offset, weight in ((0, 1 - place + node), (1, place - node)):
        mirrored = np.abs(node + offset)
        mirrored = np.minimum(mirrored, np.abs(2 * (source - 1) - mirrored))
        mirrored = np.minimum(mirrored, source - 1)  # a line of one value has only that
        rows[np.arange(target), mirrored] += weight
    return rows


def aligned_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """[target,source], whose product with a line is its linear interpolation from its first to its last value."""
    place = np.arange(target) * ((source - 1) / max(target - 1, 1))
    return np.maximum(1 - np.abs(place[:, None] - np.arange(source)), 0)
