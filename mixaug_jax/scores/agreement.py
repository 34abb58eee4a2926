"""How alike two heat maps are."""

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Float, Heatmap, Num, Value

MEASURES = ("spearman", "pearson", "ssim")


def similarity(a: Heatmap, b: Heatmap, measure: str) -> Value:
    """float32 scalar of two maps [h,w], 1 for the same map.

    Where a map is constant no correlation exists: two constant maps are alike, 1, a constant and another one are not, 0. A map
    with a value that is NaN or infinite counts as zeros.

    Args:
      a, b: maps of one size.
      measure: "spearman", the correlation of ranks (equal values share their mean rank); "pearson"; or "ssim", see `ssim`.

    Raises:
      ValueError: for another measure, maps of different sizes or without pixels, or too small ones, see `ssim`.
    """
    checks.choice("measure", measure, MEASURES)
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(
            f"similarity needs two maps [h,w] of one size; got {list(a.shape)} and {list(b.shape)}"
        )
    # A map with a NaN says nothing, as a constant one.
    a, b = (jnp.where(jnp.isfinite(x).all(), x, 0).astype(jnp.float32) for x in (a, b))
    if measure == "ssim":
        return ssim(a, b)
    if measure == "spearman":
        a, b = mean_ranks(a), mean_ranks(b)
    same = (a.max() == a.min()) & (b.max() == b.min())
    return jnp.where(same, 1, correlation(a.ravel(), b.ravel()))


def correlation(a: Float[AnyArray, "*n k"], b: Float[AnyArray, "*n k"]) -> Float[Array, "*n"]:
    """Pearson's, over the last axis: [...,n] and [...,n] -> [...]; 0 where either is constant."""
    varies = (a.max(-1) > a.min(-1)) & (b.max(-1) > b.min(-1))
    a, b = (_unit(x) for x in (a, b))
    return jnp.where(varies, (a * b).sum(-1), 0.0)


def _unit(x):
    x = x - x.mean(-1, keepdims=True)
    # First by the largest: squares of small numbers would be flushed to 0.
    x = x / jnp.maximum(jnp.abs(x).max(-1, keepdims=True), jnp.finfo(x.dtype).tiny)
    length = jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)


def mean_ranks(x: Num[AnyArray, "*n"]) -> Float[Array, "*n"]:
    """The rank of each value, 0 the smallest, float32 of the same shape; equal values share the mean of their ranks."""
    line = jnp.sort(x.ravel())
    # Equal values lie between the first and the last place where one of them fits.
    first = jnp.searchsorted(line, x.ravel(), side="left")
    last = jnp.searchsorted(line, x.ravel(), side="right") - 1
    return ((first + last) / 2).astype(jnp.float32).reshape(x.shape)


def ssim(a: Heatmap, b: Heatmap, *, window: int = 7) -> Value:
    """Mean structural similarity of two maps [h,w], each divided by its largest absolute value (Wang et al. 2004).

    As scikit-image by default and Quantus's: a uniform window, unbiased variances, the range that of both maps together, only
    windows that lie inside. Two maps of zeros: 1.

    Raises:
      ValueError: for a map smaller than the window.
    """
    if min(a.shape) < window:
        raise ValueError(f"ssim needs maps of at least {window} x {window}; got {list(a.shape)}")
    a, b = (x / jnp.where((x == 0).all(), 1, jnp.abs(x).max()) for x in (a, b))
    span = jnp.maximum(a.max(), b.max()) - jnp.minimum(a.min(), b.min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    shift = (a.mean() + b.mean()) / 2  # keeps the variances clear of cancellation
    a, b = a - shift, b - shift
    n = window * window

    def mean(x: Float[Array, "h w"]) -> Float[Array, "r c"]:
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (window, window), (1, 1), "VALID") / n

    ma, mb = mean(a), mean(b)
    va, vb, vab = (mean(p * q) - mean(p) * mean(q) for p, q in ((a, a), (b, b), (a, b)))
    # As scikit-image divides by n - 1, in both variances and in the covariance.
    unbias = n / (n - 1)
    spread = (2 * unbias * vab + c2) / (unbias * (va + vb) + c2)
    ma, mb = ma + shift, mb + shift
    level = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    return jnp.where(span > 0, (level * spread).mean(), 1.0)
