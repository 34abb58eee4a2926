"""Attribution along straight paths from a baseline to the image."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import chunks
from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.attribution.target import input_gradient, outputs, replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Attribution,
    Baseline,
    Float,
    Given,
    Image,
    Images,
    Indices,
    Label,
    Net,
    Outputs,
    Seed,
)

RULES = ("gausslegendre", "trapezoid", "right")
Places = tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]


def nodes(rule: str, steps: int) -> Places:
    """The places and weights of a rule to integrate over 0..1, float64 [steps] each; the weights sum to 1.

    Raises:
      ValueError: for an unknown rule, or too few steps for it.
    """
    checks.choice("rule", rule, RULES)
    checks.count("steps", steps, 2 if rule == "trapezoid" else 1)
    if rule == "gausslegendre":
        # NumPy's nodes are those of -1..1.
        place, weight = np.polynomial.legendre.leggauss(steps)
        return (place + 1) / 2, weight / 2
    if rule == "right":
        return np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)
    weight = np.full(steps, 1 / (steps - 1))
    weight[[0, -1]] /= 2
    return np.linspace(0, 1, steps), weight


def integrate(
    gradient: Callable, image: Image, start: Image, places: Sequence[AnyArray], chunk: int = 8
) -> Image:
    """(image - start) times the weighted sum of the gradients at start + alpha (image - start), [h,w,C].

    Args:
      gradient: f(x [n,h,w,C]) -> [n,h,w,C], that of the explained number.
      image: [h,w,C], where the path ends.
      start: [h,w,C], where it begins.
      places: (alphas, weights) [n] each, of any rule.
      chunk: gradients in memory at once; 0 is all.
    """
    alphas, weights = (jnp.asarray(p, jnp.float32) for p in places)
    way = image - start

    def f(indices: Indices) -> Images:
        column = (len(indices), 1, 1, 1)
        x = start + alphas[indices].reshape(column) * way
        # The way is a factor of the whole sum, so it is applied once at the end.
        return weights[indices].reshape(column) * gradient(x)

    return way * chunks.total(f, len(alphas), chunk)


def integrated_gradients(
    net: Net,
    image: Image,
    label: Label,
    *,
    steps: int = 64,
    rule: str = "gausslegendre",
    baseline: Baseline = "zero",
    output: str = "logit",
    chunk: int = 8,
) -> Attribution:
    """Integrated gradients, signed [h,w,C] (Sundararajan et al. 2017, arXiv 1703.01365, eq. 1 and 3).

    They sum to the difference of the output between image and baseline, up to the error of the rule. The weights of every rule
    sum to 1; captum's trapezoid gives the nodes of "trapezoid" weights that sum to (steps - 1) / steps, which shrinks its
    attributions by 2 percent at 50 steps. The code of the information-bottleneck paper averages gradients only, without the
    factor image - baseline.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      steps: number of gradients. Of 25 photographs EfficientNet-Lite0's maps at 16, 32, 64 and 128 of them missed 24, 10, 3.8
        and 1.3 percent of the logit's change (median): 64 is the smallest power of two below 5 percent.
      rule: "gausslegendre", "trapezoid" (both ends included) or "right" (Riemann sum, the paper's).
      baseline: "zero", "mean", "blur" or an array.
      output: the output explained, "logit", "prob" or "loss".
      chunk: gradients in memory at once; 0 is all.
    """
    image = checks.image(image)
    start = replacement(image, baseline)

    def gradient(x: Images) -> Images:
        return input_gradient(net, x, label, output)

    return integrate(gradient, image, start, nodes(rule, steps), chunk)


def split_ig(
    net: Net,
    image: Image,
    label: Label,
    *,
    part: float = 0.9,
    steps: int = 64,
    rule: str = "gausslegendre",
    baseline: Baseline = "zero",
    output: str = "logit",
    chunk: int = 8,
) -> Attribution:
    """Integrated gradients up to where the output has made most of its way, signed [h,w,C] (Miglani et al. 2020,
    arXiv 2010.12697): where it saturates, gradients are small and noisy.

    Sums to about `part` of the change of the output. The border is the first node whose output has reached it, so it moves with
    the number of steps.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      part: of the change of the output, above 0 and at most 1, which is all of the path where the output rises all along.
      steps: number of gradients.
      rule: "gausslegendre", "trapezoid" or "right".
      baseline: "zero", "mean", "blur" or an array.
      output: the output explained, "logit", "prob" or "loss".
      chunk: gradients in memory at once; 0 is all.

    Raises:
      ValueError: for options out of range.
    """
    image = checks.image(image)
    checks.number("part", part, 0, 1, above=True)
    start = replacement(image, baseline)
    alphas, weights = (jnp.asarray(p, image.dtype) for p in nodes(rule, steps))

    def values(indices: Indices) -> Outputs:
        x = start + alphas[indices].reshape(-1, 1, 1, 1) * (image - start)
        return outputs(net, x, label, output)

    first, last = outputs(net, jnp.stack([start, image]), label, output)
    change = last - first
    way = (chunks.every(values, steps, chunk) - first) / jnp.where(change != 0, change, 1)
    reached = jnp.cumsum(way >= part)
    # The node that reaches it is the last one that counts.
    kept = jnp.where((reached == 0) | ((reached == 1) & (way >= part)), weights, 0)

    def gradient(x: Images) -> Images:
        return input_gradient(net, x, label, output)

    return integrate(gradient, image, start, (alphas, kept), chunk)


def expected_gradients(
    net: Net,
    image: Image,
    label: Label,
    *,
    baselines: Given = (),
    key: Seed = 0,
    samples: int = 50,
    draws: Given = (),
    output: str = "logit",
    chunk: int = 8,
) -> Attribution:
    """The mean over random baselines b and places alpha of (image - b) times the gradient at b + alpha (image - b), [h,w,C].

    Erion et al. 2019, arXiv 1906.10670. captum's GradientShap, which adds noise besides, has none by default.
    Values for the same draws agree with captum's to rounding, but for places within rounding of the kink of a ReLU or of a
    tie of a max pool: there a float32 gradient is that of either side, which moves a map by its share of a sample.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      baselines: [n,h,w,C] images to draw baselines from, such as training images; required.
      key: a random key or a seed; sample i uses the key folded with i.
      samples: number of pairs (b, alpha).
      draws: in place of random draws, (index int [samples] into baselines, 0..n - 1, alpha [samples] in 0..1). Traced ones
        cannot be looked at: an index beyond the last baseline takes the last one.
      output: the output explained, "logit", "prob" or "loss".
      chunk: gradients in memory at once; 0 is all.

    Raises:
      ValueError: without baselines, for baselines of another size, or draws outside their ranges.
    """
    image = checks.image(image)
    if not checks.given(baselines):
        raise ValueError("expected_gradients needs baselines=, images [n,h,w,C] to compare with")
    baselines = checks.array("baselines", baselines, (0, *image.shape))
    # All pairs are drawn before the loop, so that chunks do not change them.
    if checks.given(draws):
        index, alpha = _given(draws, len(baselines))
        samples = len(index)
    else:
        checks.count("samples", samples)
        index, alpha = jax.vmap(lambda i: _draw(as_key(key), i, len(baselines)))(
            jnp.arange(samples)
        )

    def f(i: Indices) -> Images:
        # The mean over pairs of what `integrate` sums along one path.
        start = baselines[index[i]]
        way = image - start
        x = start + alpha[i].reshape(-1, 1, 1, 1) * way
        return way * input_gradient(net, x, label, output)

    return chunks.total(f, samples, chunk) / samples


def _given(draws, count):
    """Draws (index, alpha) as arrays; ValueError where they are known and wrong."""
    # NumPy's stay so: made JAX's while something is traced, their values could not be looked at.
    arrays = [d if isinstance(d, jax.Array) else np.asarray(d) for d in draws]
    if len(arrays) != 2 or arrays[0].shape != arrays[1].shape or arrays[0].ndim != 1:
        raise ValueError("draws must be a pair (index [samples], alpha [samples])")
    index, alpha = arrays
    if not index.size or not jnp.issubdtype(index.dtype, jnp.integer):
        raise ValueError(f"the index of draws must be one or more integers; got {index}")
    for name, values, last in (("index", index, count - 1), ("alpha", alpha, 1)):
        known = checks.concrete(values)
        if known is not None and not ((known >= 0) & (known <= last)).all():
            raise ValueError(f"the {name} of draws must lie in 0..{last}; got {known.tolist()}")
    return jnp.asarray(index), jnp.asarray(alpha, jnp.float32)


def _draw(key, i, count):
    which, where = jax.random.split(jax.random.fold_in(key, i))
    return jax.random.randint(which, (), 0, count), jax.random.uniform(where)
