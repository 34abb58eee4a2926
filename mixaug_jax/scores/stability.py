"""Scores of stability, and checks of whether an explanation depends on what it explains.

Each is f(explain, net, image [h,w,C] preprocessed, label) -> a float32 scalar. `explain(net, image, label) -> [h,w,C] or
[h,w,1]` is a method with its options bound: functools.partial(METHODS["gradcam"], layer="layer4"). An explanation with a
value that is NaN or infinite gets the worst score: infinity, or a similarity of 1; so does a constant one where similarity is
the score. A constant explanation is stable, though, and complete only by chance.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import chunks, heatmap
from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.attribution.target import BASELINES, outputs, replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Baseline,
    Count,
    Explain,
    Float,
    Given,
    Heatmap,
    Image,
    Images,
    Label,
    Net,
    Seed,
    Tree,
    Value,
)
from mixaug_jax.models.probability import class_logits
from mixaug_jax.models.wrapped import Wrapped
from mixaug_jax.scores.agreement import similarity
from mixaug_jax.scores.replacement import fill

MODES = ("cascading", "independent")


@dataclasses.dataclass(frozen=True)
class Randomization:
    """What of a network is drawn anew, and how maps are compared.

    Attributes:
      mode: "cascading", from the logits down to a layer and all above it; or "independent", that layer alone.
      measure: "spearman" (Quantus's default), "pearson" or "ssim".
      reduce: how channels become one map, see `attribution.heatmap`; "sum" keeps the sign.
    """

    mode: str = "cascading"
    measure: str = "spearman"
    reduce: str = "abs_sum"


def max_sensitivity(
    explain: Explain,
    net: Net,
    image: Image,
    label: Label,
    *,
    radius: float = 0.02,
    samples: int = 10,
    noise: Given = (),
    key: Seed = 0,
    chunk: int = 4,
) -> Value:
    """The largest relative change of the explanation near the image, not negative, smaller is more stable.

    Yeh et al. 2019, arXiv 1901.09392, definition as captum's: max over x' of |phi(x') - phi(x)| / |phi(x)|, Euclidean norms,
    x' uniform within `radius` of x in every value. Where phi(x) is zero the change itself counts.

    Args:
      explain, net, image, label: see this module.
      radius: in the units of the preprocessed image.
      samples: number of x'.
      noise: [samples,h,w,C], in place of uniform draws from -1..1; x' = x + radius noise.
      key: a random key or a seed; sample i uses the key folded with i.
      chunk: explanations in memory at once (times what each of them holds); 0 is all.
    """
    image = checks.image(image)
    checks.not_negative("radius", radius)
    key = as_key(key)
    # Given noise says how many samples there are.
    if checks.given(noise):
        noise = checks.array("noise", noise, (0, *image.shape))
        samples = len(noise)
    checks.count("samples", samples)
    clean = explain(net, image, label)
    largest = jnp.abs(clean).max()
    # Divided before squaring, which small numbers do not survive.
    scale = jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.square(clean / scale).sum())

    # Uniform in the cube around the image, or what was given.
    def draw(index: Count) -> Image:
        if checks.given(noise):
            return noise[index]
        uniform = jax.random.uniform
        return uniform(jax.random.fold_in(key, index), image.shape, minval=-1, maxval=1)

    def change(index: Count) -> Value:
        moved = explain(net, image + radius * draw(index), label) - clean
        return jnp.sqrt(jnp.square(moved / scale).sum())

    # A map of zeros has no length to divide by: the change itself counts.
    worst = chunks.every(jax.vmap(change), samples, chunk).max() / jnp.where(length > 0, length, 1)
    return _finite_or_worst(worst)


def completeness(
    explain: Explain,
    net: Net,
    image: Image,
    label: Label,
    *,
    baseline: Baseline = "zero",
    key: Seed = 0,
    output: str = "logit",
) -> Value:
    """The sum of the explanation less the change of the output from the baseline to the image; 0 is complete.

    Sundararajan et al. 2017, arXiv 1703.01365, section 3, in the output's units and with its sign, as captum's convergence
    delta; take absolute values before a mean over images.

    Args:
      explain, net, image, label: see this module.
      baseline: the one that the explanation has: "zero", "mean", "blur" or an array, as in `attribution` (whose "blur" is not
        that of `replacement.fill`), or another name of `replacement.fill`.
      key: a random key or a seed, for the baseline "noise".
      output: the output that the explanation explains, "logit", "prob" or "loss".
    """
    change = output_change(net, image, label, baseline=baseline, key=key, output=output)
    return _finite_or_worst(explain(net, image, label).sum() - change)


def output_change(
    net: Net,
    image: Image,
    label: Label,
    *,
    baseline: Baseline = "zero",
    key: Seed = 0,
    output: str = "logit",
) -> Value:
    """What complete explanations sum to: the output for the image less that for the baseline; arguments as `completeness`."""
    image = checks.image(image)
    # Two baselines are called blur; the one that methods of attribution have counts.
    elsewhere = isinstance(baseline, str) and baseline not in BASELINES
    start = fill(image, baseline, key) if elsewhere else replacement(image, baseline)
    there, absent = outputs(net, jnp.stack([image, start]), label, output)
    return there - absent


def alike(trained: Heatmap, other: Heatmap, measure: str) -> Value:
    """Their `agreement.similarity`, or 1 where nothing in `trained` could have changed, or a value is not finite."""
    # What said nothing before cannot show that it changed.
    says = jnp.isfinite(trained).all() & jnp.isfinite(other).all() & (trained.max() > trained.min())
    return jnp.where(says, similarity(trained, other, measure), 1.0)


def _finite_or_worst(score):
    return jnp.where(jnp.isfinite(score), score, jnp.inf)


def class_sensitivity(
    explain: Explain,
    net: Net,
    image: Image,
    label: Label,
    *,
    other: Label = -1,
    measure: str = "pearson",
    reduce: str = "abs_sum",
) -> Value:
    """How alike the explanations of two classes are, -1..1, smaller is more sensitive to the class.

    Rebuffi et al. 2020, arXiv 2004.02866: the correlation of the maps of the most and the least likely class.

    Args:
      explain, net, image: see this module.
      label: one class.
      other: the other one; -1 is the least likely, of the classes other than `label`.
      measure: "spearman", "pearson" or "ssim".
      reduce: how channels become one map, see `attribution.heatmap`.
    """
    image = checks.image(image)
    logits = class_logits(net.logits(image[None]))[0]
    checks.label(label, logits.size)
    # The label may itself be the least likely class, and is no other one.
    least = jnp.argmin(jnp.where(jnp.arange(logits.size) == label, jnp.inf, logits))
    known = checks.concrete(other)
    if known is None or known.shape or known != -1:
        checks.label(other, logits.size)
        least = jnp.asarray(other)
    maps = [heatmap(explain(net, image, k), reduce) for k in (label, least)]
    return alike(*maps, measure)


def parameter_randomization(
    explain: Explain,
    net: Net,
    image: Image,
    label: Label,
    *,
    mode: str = "cascading",
    measure: str = "spearman",
    reduce: str = "abs_sum",
    key: Seed = 0,
) -> Value:
    """How alike the explanation stays as the network's layers are re-initialized, the mean over layers, smaller is better.

    Adebayo et al. 2018, arXiv 1810.03292. Quantus's average includes the network as trained, whose similarity is 1;
    this one does not.

    Args:
      explain, net, image, label, key: as `randomized_similarities`.
      mode, measure, reduce: see `Randomization`.
    """
    randomization = Randomization(mode, measure, reduce)
    return randomized_similarities(explain, net, image, label, randomization, key=key).mean()


def randomized_similarities(
    explain: Explain,
    net: Net,
    image: Image,
    label: Label,
    randomization: Randomization = Randomization(),
    *,
    key: Seed = 0,
) -> Float[Array, " layers"]:
    """The similarity of the trained network's explanation to that after each randomization, [layers with variables].

    The layers of a wrapped network are its direct submodules, in the order in which they are called.

    Args:
      explain, net, image, label: see this module. `net` is one whose variables can be drawn anew.
      randomization: what is drawn anew, and how maps are compared. Element i is of the i-th layer from the top. Batch
        statistics are re-initialized, too.
      key: a random key or a seed of the new variables; one key gives all images the same networks.
    """
    trained, again = randomized_maps(explain, net, image, label, randomization, key=key)
    return jax.lax.map(lambda m: alike(trained, m, randomization.measure), again)


def randomized_maps(
    explain: Explain,
    net: Net,
    image: Image,
    label: Label,
    randomization: Randomization = Randomization(),
    *,
    key: Seed = 0,
) -> tuple[Heatmap, Float[Array, "layers h w"]]:
    """The trained network's heat map and that after each randomization; arguments as `randomized_similarities`."""
    image = checks.image(image)
    checks.choice("mode", randomization.mode, MODES)
    fresh = net.reinitialized(as_key(key), image).variables
    first = _first_layer(net, image, fresh)
    # Layers without variables are left out: they would repeat the network before.
    levels = sorted(set(jax.tree.leaves(first)), reverse=True)

    def redrawn(level: Count) -> Heatmap:
        # A variable belongs to the first layer that needs it, and is drawn anew with it.
        def pick(layer: Count, old: AnyArray, new: AnyArray) -> Array:
            hit = layer == level if randomization.mode == "independent" else layer >= level
            return jnp.where(hit, new.astype(old.dtype), old)

        variables = jax.tree.map(pick, first, net.variables, fresh)
        changed = dataclasses.replace(net, variables=variables)
        return heatmap(explain(changed, image, label), randomization.reduce)

    # One network after the other, since each holds all variables anew; the trained one is that of a layer that is not there,
    # so that one explanation is compiled.
    maps = jax.lax.map(redrawn, jnp.asarray([max(levels, default=0) + 1, *levels]))
    return maps[0], maps[1:]


def _first_layer(net, image, tree):
    """For every variable of `tree`, the index of the first layer that needs it."""
    find = _part_of if isinstance(net.model, Wrapped) else _needed_from
    index = find(net, image)
    return jax.tree_util.tree_map_with_path(lambda path, _: index(_names(path)), tree)


def _names(path):
    return tuple(str(entry.key) for entry in path)


def _needed_from(net, image):
    """f(path of a variable) -> the index of the first layer of a chain that needs it."""

    def variables(layer: str) -> set:
        def init(x: Images) -> Tree:
            return net.model.init(jax.random.key(0), x, train=False, stop=layer)

        shapes = jax.eval_shape(init, image[None])
        return {_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}

    known = [variables(layer) for layer in net.layers]
    return lambda names: next(i for i, needed in enumerate(known) if names in needed)


def _part_of(net, image):
    """f(path of a variable) -> the index of the direct submodule that has it, in the order of calls; 0 for the module's own."""
    parts = [tuple(part.split(".")) for part in net.model.parts]

    def index(names: tuple) -> int:
        inside = names[1:]  # after the collection, "params"
        return next((i for i, part in enumerate(parts) if inside[: len(part)] == part), 0)

    return index


def magnitude(values: np.ndarray, options: Mapping) -> np.ndarray:
    """Absolute values [N], for a mean over images in which signs would cancel."""
    return np.abs(values)
