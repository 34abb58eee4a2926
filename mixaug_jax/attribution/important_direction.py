"""Important direction gradient integration, along any of the paths."""

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import blur_path, guided_path, squares
from mixaug_jax.attribution.target import replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import Attribution, Baseline, Image, Images, Indices, Label, Net

PATHS = ("straight", "guided", "blur")


def idgi(
    net: Net,
    image: Image,
    label: Label,
    *,
    path: str = "straight",
    steps: int = 64,
    baseline: Baseline = "zero",
    fraction: float = 0.25,
    max_dist: float = 0.02,
    max_sigma: float = 0.0,
    output: str = "prob",
    chunk: int = 8,
) -> Attribution:
    """Important direction gradient integration, [h,w,C] (Yang et al. 2023, arXiv 2303.14242): the change of the output in each
    step goes to the features by their share of the squared gradient.

    It sums to the change of the output whatever the steps are, so completeness is no evidence for it. It is not integrated
    gradients even of a linear model w x: there it gives w^2 / |w|^2 times the change, also to features that never change. A
    step whose gradient is 0 gives its change to the next one with another; the released code gives NaN.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      path: "straight", "guided" or "blur".
      steps: number of gradients.
      baseline: "zero", "mean", "blur" or an array; not of the path "blur", which begins at the widest blur.
      fraction, max_dist: of the path "guided", see `guided_ig`.
      max_sigma: of the path "blur", see `blur_ig`.
      output: the output explained, "prob" as published, "logit" or "loss".
      chunk: gradients in memory at once; 0 is all. The guided path has one.

    Raises:
      ValueError: for options out of range.
    """
    image = checks.image(image)
    checks.choice("path", path, PATHS)
    guided_path.check_guided(steps, fraction, max_dist)
    f = squares.valued(net, label, output)
    if path == "blur":
        # From the most blurred picture to the image: sigma falls along the path.
        sigmas = blur_path.sigmas_of(image, steps, max_sigma, "linear")[::-1]
        places = jnp.asarray(sigmas, image.dtype)

        def points(indices: Indices) -> Images:
            return jax.vmap(lambda s: blur_path.gaussian(image, s, sigmas[0]))(places[indices])

        return squares.walked(f, points, image, steps, chunk)
    start = replacement(image, baseline)
    if path == "guided":
        given = {"steps": steps, "fraction": fraction, "max_dist": max_dist}
        # That path chooses its points by the gradients that the squares are made of, so both come from one walk.
        return guided_path.along_guided(f, image, start, **given)[1]
    return squares.along_straight(f, image, start, jnp.linspace(0, 1, steps + 1), chunk)
