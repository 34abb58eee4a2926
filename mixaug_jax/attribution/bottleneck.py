"""The per-sample information bottleneck (Schulz et al. 2020, arXiv 2001.00396): how many bits of each place are needed."""

import dataclasses
import math

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
    AnyArray,
    Array,
    Attribution,
    Count,
    Features,
    Float,
    Given,
    Image,
    Images,
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
Cells = Float[AnyArray, "h w K"]
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
      layer: where the noise is added; "" is the middle one of those with a map. Of tokens only those of patches get noise.
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
    layer = bottleneck_layer(net, image, options.layer)
    output = net.features(image[None], layer)
    features = net.maps(layer, output)[0]
    mean, std, active = _checked_stats(stats, features.shape)
    draw, samples = _noise(options, features.shape)
    std = std if paper else jnp.maximum(std, MIN_STD)
    signal = (features - mean) / std

    # The two terms of the loss. Only the second one needs the network, once for each noisy copy.
    def capacity(alpha: Float[Array, "h w K"]) -> tuple[Scalar, Float[Array, "h w K"]]:
        cells = information(signal, *masks(alpha, options.sigma)) * active
        return cells.mean(), cells

    def cross_entropy(alpha: Float[Array, "h w K"], noise: Float[Array, "h w K"]) -> Scalar:
        lam, rest = masks(alpha, options.sigma)
        rest = jnp.clip(rest, *LIMITS) if paper else rest
        z = ((lam * signal + rest * noise) * std + mean) * active
        # After a ReLU, as there; a layer whose features are of both signs is left as it is.
        z = jnp.where((features >= 0).all(), jnp.maximum(z, 0), z) if paper else z
        # A class token, which is no place, stays without noise.
        h = net.with_maps(layer, output, z[None])
        return outputs_from(net, image[None], layer, h, label, "loss")[0]

    each = jax.vmap(jax.value_and_grad(cross_entropy), (None, 0))
    adam = optax.adam(LEARNING_RATE)

    def step(carry: tuple, t: Count) -> tuple:
        alpha, state, _ = carry
        model = chunks.total(lambda i: each(alpha, draw(t, i)), samples, options.chunk)
        loss, slope = jax.tree.map(lambda x: x / samples, model)
        (info, cells), info_slope = jax.value_and_grad(capacity, has_aux=True)(alpha)
        updates, state = adam.update(slope + options.beta * info_slope, state)
        return (alpha + updates, state, cells), jnp.stack([loss, info])

    # The cells of the last forward pass stand for the result, as in both codes, not those after the last update.
    alpha = jnp.full(features.shape, START)
    start = (alpha, adam.init(alpha), jnp.zeros_like(alpha))
    (_, _, cells), losses = jax.lax.scan(step, start, jnp.arange(options.steps))
    return nan_like(losses.sum(), cells), losses


def masks(alpha: Cells, sigma: float, taps: int = 0) -> tuple[Cells, Cells]:
    """lambda = smoothed sigmoid of alpha [h,w,K], and 1 - lambda, which near lambda = 1 must not be computed as a difference.

    sigma, taps: of the Gaussian, see `resampling.smooth`.
    """
    lam, rest = (resampling.smooth(jax.nn.sigmoid(a), sigma, taps) for a in (alpha, -alpha))
    return lam, rest


def information(signal: Cells, lam: Cells, rest: Cells) -> Cells:
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


def bottleneck_layer(net: Net, image: Image, layer: str) -> str:
    """The layer of the bottleneck, `layer` or the middle one for "".

    Raises:
      ValueError: a layer that is not there, or has no map, or (`checks.UnsupportedError`) one whose map reaches no logit, or of
        tokens that the network cannot put back.
    """
    layer = map_layer(net, image, layer, DEPTH)
    batch = jax.ShapeDtypeStruct((1, *image.shape), jnp.float32)

    def there_and_back(net: Net, x: Images) -> tuple[Features, Features]:
        h = net.features(x, layer)
        return h, net.with_maps(layer, h, net.maps(layer, h))

    # A layer without maps gives something, but not what could be put back in its place.
    features, again = jax.eval_shape(there_and_back, net, batch)
    if features.shape != again.shape:
        raise checks.UnsupportedError(
            f"iba adds noise to maps [h,w,K]; layer {layer!r} of {net.name} gives {list(features.shape[1:])}"
        )
    return layer
