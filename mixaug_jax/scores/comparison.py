"""Scores over many images or models: IBA's degradation score, and deletion across models."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution.controls import center, random
from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.core import checks
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Baseline, Float, Given, Images, Net, Seed, Value
from mixaug_jax.models.net import count_classes
from mixaug_jax.scores.faithfulness import auc, deletion, lerf, morf

CONTROLS = ("random", "center")


@dataclasses.dataclass(frozen=True, eq=False)
class Removal:
    """How `cross_model_deletion` removes pixels: the options of `faithfulness.deletion`, which says what they are."""

    window: int = 1
    step: int = 0
    baseline: Baseline = "zero"
    output: str = "prob"
    chunk: int = 16


def degradation_score(morf: Given, lerf: Given, *, top: float = 0.0) -> float:
    """The area between the mean LeRF and MoRF curves of many images, larger is better (Schulz et al. 2020, arXiv 2001.00396).

    Both curves are first normalized, (p - b) / (t - b): b is the mean probability with everything removed, t that of the
    clean images. Where removal does not lower the mean probability, t <= b, the score has no meaning and is 0.

    Args:
      morf, lerf: [N,T+1], the curves of N images, ending with everything removed. One that is NaN makes the score NaN: leave
        out such images.
      top: t, the mean probability of the clean images' most likely class; 0 takes the curves' mean start, the same where their
        label is the predicted class.

    Returns:
      float.
    """
    morf, lerf = (np.asarray(c, np.float64) for c in (morf, lerf))
    if morf.shape != lerf.shape or morf.ndim != 2 or not len(morf):
        shapes = f"{list(morf.shape)} and {list(lerf.shape)}"
        raise ValueError(f"morf and lerf must be curves [N,T+1] of the same images; got {shapes}")
    start = top or morf[:, 0].mean()
    end = morf[:, -1].mean()
    # Removal that does not lower the mean leaves nothing to divide by.
    if start <= end:
        return 0.0
    return float(auc(lerf.mean(0) - morf.mean(0)) / (start - end))


def degradation(result: Any) -> tuple[np.ndarray, Callable] | None:
    """A summary for `Score`: `degradation_score` of the curves of morf and lerf, where both are there."""
    curves = result.curves
    if not {morf.__name__, lerf.__name__} <= curves.keys():
        return None
    first, last = curves[morf.__name__], curves[lerf.__name__]
    # Curves of tiles of other sizes have no common points.
    if first.shape != last.shape:
        return None
    return ~np.isnan(first + last).any(1), lambda at: degradation_score(first[at], last[at])


def cross_model_deletion(
    nets: Mapping[str, Net],
    maps: Mapping[str, Given],
    images: Images,
    labels: Given,
    removal: Removal = Removal(),
    *,
    key: Seed = 0,
    precision: str = "highest",
) -> dict[str, Any]:
    """How every model's output falls when pixels are removed in the order of every model's explanations.

    For comparing models that differ in how well they bear occlusion: one trained with cut boxes keeps its output longer under
    any deletion, so the areas under different models' own curves cannot be compared. Here D[m, s] is the mean over images of
    the area under model m's deletion curve with pixels ranked by source s, and R[m, s] = D[m, s] / D[m, random] relates it to
    model m's own robustness, its area under random removal. Below 1 is better than chance; 0 / 0 counts as 1, and another
    number over 0 is infinite.

    Three ways to read R for the question that Won et al. 2023, arXiv 2303.14608, raise; none is that paper's own formula:

    * own_vs_others [m]: the mean of R[m, s] over the other models s, less R[m, m]. One judge, so its robustness cancels:
      positive if m's own explanations are more faithful to m than other models' explanations are. NaN with a single model;
      where D[m, random] = 0 infinite with the sign of the difference of D, or 0 where there is none.
    * fixed_evaluators [s]: the mean of R[m, s] over all models m. Every source before the same judges: smaller is better, and
      1 is chance. The controls have a value, too.
    * gain_over_random [m]: 1 - R[m, m] = (D[m, random] - D[m, m]) / D[m, random], what a model's own explanations gain over
      chance: larger is better.

    Args:
      nets: {name: Net}; their images must be preprocessed alike.
      maps: {source: [N,h,w]} with a source for every name in `nets`, and others; "random" (a ranking for each image, the same
        for all models) and "center" are added where they are missing. A map with NaN ranks like zeros.
      images: [N,h,w,C] preprocessed. Pass only those that all models classify right where that is wanted.
      labels: int [N].
      removal: how pixels are removed; one image at a time, so its `chunk` bounds the memory.
      key: a random key or a seed, folded with the image's index, for "random" and for the baseline "noise".
      precision: of the networks' matrix products, see `devices.precision`.

    Returns:
      dict of "precision", "models" and "sources" (tuples of names), "per_image" [M,S,N], "D" and "R" [M,S], and the readings
      "own_vs_others" [M], "fixed_evaluators" [S], "gain_over_random" [M]; float64.

    Raises:
      ValueError: without a net or image, for a model without maps, maps of another size, a label out of range, or an unknown
        precision.
    """
    multiplied = devices_lib.precision(precision)
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    maps = _check(nets, maps, images, labels)
    images = images.astype(jnp.float32)
    # A key for each image and not for each model: all judges see the same random ranking and noise.
    keys = jax.vmap(functools.partial(jax.random.fold_in, as_key(key)))(jnp.arange(len(images)))
    maps = _with_controls(maps, images, keys)
    # One program for all pairs: the network is its argument.
    areas = functools.partial(_areas, removal=removal)
    areas = jax.jit(areas, compiler_options=devices_lib.compiler_options(images.devices()))
    with multiplied:
        rows = [
            [areas(net, m, images, labels, keys) for m in maps.values()] for net in nets.values()
        ]
    per_image = np.asarray(rows, np.float64)
    return {
        "precision": precision,
        "models": tuple(nets),
        "sources": tuple(maps),
        "per_image": per_image,
        **readings(per_image.mean(-1), tuple(nets), tuple(maps)),
    }


def _areas(net, heats, images, labels, keys, *, removal):
    """The area under each image's deletion curve, [N]; the images one after the other."""

    def area(example: tuple) -> Value:
        heat, image, label, key = example
        return auc(deletion(heat, net, image, label, key=key, **vars(removal)))

    return jax.lax.map(area, (heats, images, labels, keys))


def readings(
    d: Float[np.ndarray, "M S"], models: Sequence[str], sources: Sequence[str]
) -> dict[str, np.ndarray]:
    """The normalized matrix and the three readings of `cross_model_deletion`, from D [M,S] float64.

    For resampled images, too: `readings(per_image[..., chosen].mean(-1), models, sources)`.

    Args:
      d: [M,S].
      models: the rows' names.
      sources: the columns' names, with every model and "random" among them.
    """
    chance = d[:, [sources.index("random")]]
    r = _over(d, chance, 1)
    own = [sources.index(name) for name in models]
    square, alone = d[:, own], np.eye(len(models), dtype=bool)
    # The difference is taken before the division: R can be infinite on both sides of it.
    ahead = square.mean(1, where=~alone) - square[alone] if len(models) > 1 else np.nan
    return {
        "D": d,
        "R": r,
        "own_vs_others": _over(ahead, chance[:, 0], 0),
        "fixed_evaluators": r.mean(0),
        "gain_over_random": 1 - r[:, own][alone],
    }


def _over(value, chance, nothing):
    """value / chance, with `nothing` for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((value == 0) & (chance == 0), nothing, value / chance)


def _with_controls(maps, images, keys):
    # The controls look at no network and no label: 0 stands for both.
    added = {}
    if "random" not in maps:
        added["random"] = jax.vmap(lambda image, key: random(0, image, 0, key=key))(images, keys)
    if "center" not in maps:
        added["center"] = jax.vmap(lambda image: center(0, image, 0))(images)
    return {**maps, **{name: a[..., 0] for name, a in added.items()}}


def _check(nets, maps, images, labels):
    """The maps as arrays."""
    if not nets:
        raise ValueError("nets is empty: cross-model deletion needs at least one model")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be [N,h,w,C]; got {list(images.shape)}")
    checks.images(images)
    # Every model judges every model's maps.
    missing = [name for name in nets if name not in maps]
    if missing:
        raise ValueError(
            f"maps has no source {', '.join(missing)}: every model in nets needs its own"
        )
    # Under a control's name a model's maps would stand for chance.
    clash = [name for name in nets if name in CONTROLS]
    if clash:
        raise ValueError(
            f"nets has a model called {', '.join(clash)}, which is the name of a control"
        )
    maps = {k: checks.array(f"maps[{k!r}]", m, images.shape[:3]) for k, m in maps.items()}
    if labels.shape != images.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be {len(images)} integers; got {labels.dtype} {labels.shape}"
        )
    for net in nets.values():
        classes = count_classes(net, images.shape[1:])
        for label in (int(labels.min()), int(labels.max())):
            checks.label(label, classes)
    return maps
