"""ROAD's linear imputation of removed pixels."""

import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from mixaug_jax.core.types import Image, Mask


def _neighbors(x):
    """The weighted sum over a pixel's eight neighbors, [h,w,C]: 1/6 each beside it, 1/12 each at its corners, 0 outside."""
    x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    line = x[:-2] + x[2:]
    beside = line[:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:]
    return beside / 6 + (line[:, :-2] + line[:, 2:]) / 12


def impute(image: Image, gone: Mask) -> Image:
    """Removed pixels such that each is the weighted mean of its neighbors, removed ones included.

    Rong et al. 2022 (ROAD), arXiv 2202.00449: direct neighbors count 1/6, diagonal ones 1/12, renormalized at
    the border. The equations, multiplied by the weights that lie inside the image, are symmetric and positive definite;
    conjugate gradients solve them.

    Args:
      image: [h,w,C] float32.
      gone: bool [h,w]. Where nothing is left, the image's mean stands everywhere.

    Returns:
      [h,w,C]; pixels that are not `gone` as they were.
    """
    gone = gone[..., None]
    inside = _neighbors(jnp.ones(gone.shape))

    def equations(x: Image) -> Image:
        return jnp.where(gone, inside * x - _neighbors(x), 0)

    known = _neighbors(jnp.where(gone, 0, image))
    start = jnp.where(gone, image.mean((0, 1)), 0)
    # Iterations needed grow with the side of the largest hole; hundreds at 224 pixels.
    limit = 10 * sum(image.shape[:2])
    x, _ = cg(equations, jnp.where(gone, known, 0), start, tol=1e-6, maxiter=limit)
    x = jnp.where(gone.all(), start, x)  # with nothing known any constant solves the equations
    return jnp.where(gone, x, image)
