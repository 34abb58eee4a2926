"""The per-sample information bottleneck (Schulz et al. 2020, arXiv 2001.00396): how many bits of each place are needed."""

import dataclasses
import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixaug_jax.attribution import chunks, resampling
from mixaug_jax.attribution.cam import outputs_from
from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.attribution.target import map_layer, nan_like
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    Array,
    Attribution,
    Count,
    Float,
    Given,
    Image,
    Indices,
    Label,
    Net,
    Scalar,
    Seed,
)

# The released library (package IBA) and the code of the paper differ in their settings. "library": deviations of all values,
# at least MIN_STD; cells that are almost always zero are shut. "paper": its estimator for layers after a ReLU; noise of at
# least exp(-5); features kept positive.
VARIANTS = ("library", "paper")
MIN_STD = 0.01
MIN_ACTIVE = 0.01  # share of images in which a cell must not be zero
LIMITS = (math.exp(-5), math.exp(5))  # of the noise in the paper's code
START = 5.0  # alpha, the logit of lambda, everywhere
LEARNING_RATE = 1.0
DEPTH = 0.5  # of the default layer: layer2 of a ResNet, as in the paper


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """How `bottleneck` looks for the mask: the options of `iba`, which says what they are."""

    layer: str = ""
    variant: str = "library"
    beta: float = 10.0
    steps: int = 10
    samples: int = 10
    sigma: float = 1.0
    key: Seed = 0
    noise: Given = ()
    chunk: int = 10


def iba(
    net: Net,
    image: Image,
    label: Label,
    *,
    stats: Given = (),
    layer: str = "",
    variant: str = "library",
    beta: float = 10.0,
    steps: int = 10,
    samples: int = 10,
    sigma: float = 1.0,
    key: Seed = 0,
    noise: Given = (),
    chunk: int = 10,
) -> Attribution:
    """The per-sample bottleneck's capacity in bits per pixel, not negative, [h,w,1] (Schulz et al. 2020, arXiv 2001.00396).

    Noise replaces as much of a layer as the label's cross-entropy allows; what remains is the information used, summed
    over channels, spread over the pixels of each cell and enlarged bilinearly (as scikit-image in the library, as OpenCV
    in the paper's code, which then scales maps to 0..1). It is that of the last step's forward pass, as in both.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      stats: (mean, std, active), [h',w',K] each, from `iba_statistics` for this layer and variant; required.
      layer: where the noise is added; "" is the middle one of those with a map.
      variant: "library" or "paper", the settings of one or the other published code; see `iba_statistics`.
      beta: weight of the information's mean over the layer, nats a cell (the paper's beta/k for k cells).
      steps: of Adam with rate 1.
      samples: noisy copies in each step.
      sigma: of the Gaussian that smooths the mask lambda, in cells; 0 is none.
      key: a random key or a seed; copy i of step t uses the key folded with t and then i.
      noise: [steps,samples,h',w',K] standard normal in place of draws.
      chunk: copies in memory at once; 0 is all.

    Raises:
      ValueError: without stats, or where they or the noise do not have the layer's shape.
    """
    image = checks.image(image)
    options = Options(layer, variant, beta, steps, samples, sigma, key, noise, chunk)
    capacity, _ = fit_bottleneck(net, image, label, stats, options)
    # A cell's bits are spread over its pixels, so that the map still sums to the information.
    cells, pixels = math.prod(capacity.shape[:2]), math.prod(image.shape[:2])
    # Rounding can make the capacity of a cell that is all noise as low as -1e-7.
    bits = jnp.maximum(capacity.sum(-1, keepdims=True), 0) / math.log(2) * (cells / pixels)
    border = "mirror" if variant == "library" else "bilinear"
    return resampling.enlarge(bits, image.shape[:2], border)


def fit_bottleneck(
    net: Net, image: Image, label: Label, stats: Given, options: Options
) -> tuple[Float[Array, "m n K"], Float[Array, "steps 2"]]:
    """What `iba` optimizes.

    Args:
      net, image, label, stats: as in `iba`.
      options: its others.

    Returns:
      capacity [h',w',K] in nats of the last step's forward pass, and float32 [steps,2]: each step's mean cross-entropy and
      mean capacity, whose sum, the latter beta-fold, is the loss.
    """
    checks.choice("variant", options.variant, VARIANTS)
    checks.count("steps", options.steps)
    checks.not_negative("beta", options.beta)
    checks.not_negative("sigma", options.sigma)
    paper = options.variant == "paper"

    # What the noise is added to, standardized: mean 0 and deviation 1 are those of the noise.
    layer = _map_layer(net, image, options.layer)
    features = net.features(image[None], layer)[0]
    mean, std, active = _checked_stats(stats, features.shape)
    draw, samples = _noise(options, features.shape)
    std = std if paper else jnp.maximum(std, MIN_STD)
    signal = (features - mean) / std

    # The two terms of the loss. Only the second one needs the network, once for each noisy copy.
    def information(alpha: Float[Array, "h w K"]) -> tuple[Scalar, Float[Array, "h w K"]]:
        cells = _capacity(signal, *_masks(alpha, options.sigma)) * active
        return cells.mean(), cells

    def cross_entropy(alpha: Float[Array, "h w K"], noise: Float[Array, "h w K"]) -> Scalar:
        lam, rest = _masks(alpha, options.sigma)
        rest = jnp.clip(rest, *LIMITS) if paper else rest
        z = ((lam * signal + rest * noise) * std + mean) * active
        z = jnp.maximum(z, 0) if paper else z
        return outputs_from(net, image[None], layer, z[None], label, "loss")[0]

    each = jax.vmap(jax.value_and_grad(cross_entropy), (None, 0))
    adam = optax.adam(LEARNING_RATE)

    def step(carry: tuple, t: Count) -> tuple:
        alpha, state, _ = carry
        model = chunks.total(lambda i: each(alpha, draw(t, i)), samples, options.chunk)
        loss, slope = jax.tree.map(lambda x: x / samples, model)
        (info, cells), info_slope = jax.value_and_grad(information, has_aux=True)(alpha)
        updates, state = adam.update(slope + options.beta * info_slope, state)
        return (alpha + updates, state, cells), jnp.stack([loss, info])

    # The cells of the last forward pass stand for the result, as in both codes, not those after the last update.
    alpha = jnp.full(features.shape, START)
    start = (alpha, adam.init(alpha), jnp.zeros_like(alpha))
    (_, _, cells), losses = jax.lax.scan(step, start, jnp.arange(options.steps))
    return nan_like(losses.sum(), cells), losses


def _masks(alpha, sigma):
    """lambda = smoothed sigmoid of alpha, and 1 - lambda, which near lambda = 1 must not be computed as a difference."""
    lam, rest = (resampling.smooth(jax.nn.sigmoid(a), sigma) for a in (alpha, -alpha))
    return lam, rest


def _capacity(signal, lam, rest):
    """KL divergence, in nats, of a cell's noisy value from noise alone; `signal` is the cell's value, standardized."""
    rest = jnp.maximum(rest, np.finfo(np.float32).tiny)  # alpha beyond 87, after as many steps
    return 0.5 * ((lam * signal) ** 2 + rest**2 - 2 * jnp.log(rest) - 1)


def _checked_stats(stats, shape):
    if not isinstance(stats, (tuple, list)) or len(stats) != 3:
        raise ValueError("iba needs stats=(mean, std, active) of the layer; see iba_statistics")
    names = ("mean", "std", "active")
    return [checks.array(f"stats {n}", s, shape) for n, s in zip(names, stats, strict=True)]


def _noise(options, shape):
    """draw(step, indices [c]) -> [c,h',w',K] standard normal, and the number of samples."""
    if checks.given(options.noise):
        noise = checks.array("noise", options.noise, (options.steps, 0, *shape))
        return lambda t, indices: noise[t, indices], noise.shape[1]
    checks.count("samples", options.samples)
    key = as_key(options.key)

    def draw(t: Count, indices: Indices) -> Float[Array, "c h w K"]:
        # Step first, then copy: one more copy changes no other copy's noise.
        key_t = jax.random.fold_in(key, t)
        return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key_t, i), shape))(indices)

    return draw, options.samples


def iba_statistics(
    net: Net, batches: Iterable, *, layer: str = "", variant: str = "library"
) -> tuple[Float[np.ndarray, "h w K"], ...]:
    """Each cell's statistics over many images, for `iba`.

    Args:
      net: the network.
      batches: iterable of preprocessed images [B,h,w,C], none larger than the first; 10 000 images are advised by the authors.
      layer: as in `iba`.
      variant: "library": mean and standard deviation (divided by n - 1); a cell is active where more than 1 percent of the
        images are not zero. "paper": its estimator for layers after a ReLU: mean 0, the root mean square of the values that
        are not zero (at least 1e-5 in their sum of squares), all cells active.

    Returns:
      (mean, std, active), float32 [h',w',K] each.

    Raises:
      ValueError: for fewer than two images, batches of several sizes, or images that nobody preprocessed.
    """
    checks.choice("variant", variant, VARIANTS)
    moments, nonzero, shape = (0, 0.0, 0.0), 0, ()
    for batch in batches:
        if not len(batch):
            continue
        images = np.asarray(checks.images(np.asarray(batch)), np.float32)
        shape = shape or images.shape
        if images.shape[1:] != shape[1:] or len(images) > shape[0]:
            got = f"{list(images.shape)} after {list(shape)}"
            raise ValueError(f"batches must be of one size, none larger than the first; got {got}")
        if not moments[0]:  # the first batch tells the layer of all
            layer = _map_layer(net, images[0], layer)
        filled = np.zeros(shape, np.float32)  # one shape, so one compile
        filled[: len(images)] = images
        mean, spread, live = jax.device_get(_batch_moments(net, filled, len(images), layer))
        # Batches are joined in float64, so that their number does not matter.
        moments = chunks.merge_moments(moments, (len(images), np.float64(mean), np.float64(spread)))
        nonzero = nonzero + live.astype(np.int64)
    count, mean, spread = moments
    if count < 2:
        raise ValueError(f"iba_statistics needs at least 2 images; got {count}")
    if variant == "library":
        # A cell that is almost always zero has hardly a deviation to draw noise with: the library shuts it.
        stats = mean, np.sqrt(spread / (count - 1)), nonzero > MIN_ACTIVE * count
    else:
        # After a ReLU most values are zeros, which the paper's estimator leaves out.
        squares = spread + count * mean**2
        std = np.sqrt(np.maximum(squares, 1e-5) / np.maximum(nonzero, 1))
        stats = np.zeros_like(mean), std, np.ones_like(mean)
    return tuple(np.float32(s) for s in stats)


def _map_layer(net, image, layer):
    """The layer of the bottleneck, whose features are maps as they are."""
    layer = map_layer(net, image, layer, DEPTH)
    batch = jax.ShapeDtypeStruct((1, *image.shape), jnp.float32)
    features = jax.eval_shape(lambda net, x: net.features(x, layer), net, batch)
    if features.ndim != 4:
        raise checks.UnsupportedError(
            f"iba adds noise to maps [h,w,K]; layer {layer!r} of {net.name} gives {list(features.shape[1:])}"
        )
    return layer


@functools.partial(jax.jit, static_argnames="layer")
def _batch_moments(net, images, count, layer):
    """Mean, sum of squared deviations and number of non-zeros over the first `count` images, [h',w',K] each."""
    features = net.features(images, layer)
    real = (jnp.arange(len(images)) < count).reshape(-1, 1, 1, 1)
    mean = jnp.mean(features, 0, where=real)
    spread = jnp.sum(jnp.square(features - mean), 0, where=real)
    return mean, spread, jnp.sum(features != 0, 0, where=real)
