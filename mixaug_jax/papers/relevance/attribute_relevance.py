"""How relevant each attribute is to a network: what becomes of its logit where that attribute alone is drawn again.

Sixt, Schuessler, Popescu, Weiss and Landgraf 2022 (arXiv 2204.11642) intervene on single attributes. How they sum the pairs up
is not in the released code, so the measures are ours: change of the logit, flips of the prediction beside those of an attribute
that should not matter, and how much of the change the attribute's own change explains.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.core.types import AnyArray, Count, Float, Scalar
from mixaug_jax.data.animals.animal_pairs import CHANGES
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, CIRCULAR
from mixaug_jax.data.animals.animal_samplers import ambiguous

CONTROL = "bg_color"  # drawn freely in the study, so that it tells nothing
LEAST_R2 = 0.1  # of what is called relevant
FEWEST = 10  # scenes a regressor, below which chance alone explains a large share of the change
_TINY = 1e-12
# What a study asks of: two biases, what may tell the class, and the control.
HEADLINES = ("obj_color", "spherical", "arm_position", CONTROL)


class Pairs(NamedTuple):
    """Logits of N scenes, as they are and with attributes drawn again.

    Attributes:
      original: [N], the logit of class 1 minus that of class 0.
      values: [N,10], in the order of `ATTRIBUTES`.
      changed: {one of `CHANGES`: [N]}, that logit of the changed scenes.
      changed_values: {the same: [N,10]}.
    """

    original: Float[AnyArray, " N"]
    values: Float[AnyArray, "N a"]
    changed: Mapping[str, Float[AnyArray, " N"]]
    changed_values: Mapping[str, Float[AnyArray, "N a"]]


class Row(NamedTuple):
    """What an attribute is to a network; intervals are over bootstrap resamples of the scenes, the same for all attributes.

    Attributes:
      attribute: one of `CHANGES`.
      change, change_low, change_high: mean absolute change of the logit, in standard deviations of the logit over scenes.
      shift, shift_low, shift_high: mean change of the logit.
      flips, flips_low, flips_high: share of predictions that flip.
      beside, beside_low, beside_high: the same minus that of the control attribute.
      p: one-sided, of `beside` above the tolerance, after Holm's correction over all attributes but the control.
      r2, r2_low, r2_high: of the regression of the change of the logit on the change of the value, 0..1.
      slope, slope_low, slope_high: of that regression; NaN where there is more than one regressor.
      near_flips, near_low, near_high: flips among scenes whose arms hardly tell the class.
      near_r2, near_r2_low, near_r2_high: R2 among them; NaN for fewer than `FEWEST` scenes a regressor.
      relevant: whether `beside_low` is above the tolerance, `p` is below 5 %, and `r2` is at least `LEAST_R2`.
    """

    attribute: str
    change: float
    change_low: float
    change_high: float
    shift: float
    shift_low: float
    shift_high: float
    flips: float
    flips_low: float
    flips_high: float
    beside: float
    beside_low: float
    beside_high: float
    p: float
    r2: float
    r2_low: float
    r2_high: float
    slope: float
    slope_low: float
    slope_high: float
    near_flips: float
    near_low: float
    near_high: float
    near_r2: float
    near_r2_low: float
    near_r2_high: float
    relevant: bool


def measure(
    pairs: Pairs,
    *,
    tolerance: Scalar = 0.02,
    replicates: Count = stats.REPLICATES,
    seed: Count = 0,
) -> list[Row]:
    """A row for each attribute that was drawn again, in the order of `pairs.changed`.

    Args:
      pairs: of one network.
      tolerance: flips beyond the control's that do not count.
      replicates: of the bootstrap over scenes. No p is below 1 / (replicates + 1), and Holm's correction multiplies the least
        of ten by ten, so of fewer than 200 nothing is called relevant.
      seed: of its draws.

    Raises:
      ValueError: the control was not drawn again.
    """
    names = [*pairs.changed]
    if CONTROL not in names:
        raise ValueError(f"{CONTROL} must be among the changes: flips are compared with its own")
    near = ambiguous(pairs.values[:, ATTRIBUTES.index("arm_position")])
    flips = flipped(pairs)
    changes = [_change(pairs, name, near) for name in names]
    near_flips = np.where(near[:, None], flips, np.nan)
    # One call, since drawing the scenes takes longer than all that is made of them.
    columns = [flips, near_flips, _squared(pairs.original), *(one.columns for one in changes)]
    again = stats.bootstrap_means(np.concatenate(columns, 1), replicates, seed)
    again = np.split(again, np.cumsum([part.shape[1] for part in columns])[:-1], 1)
    flips_again, near_again, logits_again, *changes_again = again
    spread = np.sqrt(np.maximum(logits_again[:, 1] - logits_again[:, 0] ** 2, _TINY**2))
    control = names.index(CONTROL)
    beside, beside_again = flips - flips[:, [control]], flips_again - flips_again[:, [control]]
    p = (1 + (beside_again <= tolerance).sum(0)) / (1 + replicates)
    p = stats.holm(np.where(np.arange(len(names)) == control, np.nan, p))
    rows = []
    for k, one in enumerate(changes):
        low, high = stats.percentiles(beside_again[:, k])
        of_flips = float(flips[:, k].mean()), *stats.percentiles(flips_again[:, k])
        of_beside = float(beside[:, k].mean()), low, high, float(p[k])
        near_share = float(flips[near, k].mean()) if near.any() else np.nan
        of_near = near_share, *stats.percentiles(near_again[:, k])
        sizes, fit, near_r2 = _found(one, changes_again[k], spread)
        found = low > tolerance and p[k] < stats.ALPHA and one.r2 >= LEAST_R2
        rows.append(Row(one.name, *sizes, *of_flips, *of_beside, *fit, *of_near, *near_r2, bool(found)))  # fmt: skip
    return rows


class _Change(NamedTuple):
    """What one attribute does to the logit, and columns whose means over resamples give the intervals."""

    name: str
    regressors: int
    change: float
    shift: float
    scale: float
    r2: float
    near_r2: float
    slope: float
    columns: np.ndarray


def _change(pairs, name, near) -> _Change:
    delta = np.asarray(pairs.changed[name], np.float64) - pairs.original
    moved = regressors(name, pairs.values, pairs.changed_values[name])
    own, count = _moments(moved, delta), moved.shape[1]
    near_own, near_r2 = np.full_like(own, np.nan), np.nan
    # Any line explains two points.
    if near.sum() >= FEWEST * count:
        near_own[near] = _moments(moved[near], delta[near])
        near_r2 = explained(moved[near], delta[near])
    return _Change(
        name,
        count,
        change=float(np.abs(delta).mean() / max(float(np.std(pairs.original)), _TINY)),
        shift=float(delta.mean()),
        scale=_scale(delta),
        r2=explained(moved, delta),
        near_r2=near_r2,
        slope=_slope(moved, delta),
        columns=np.concatenate([own, near_own, np.abs(delta)[:, None]], 1),
    )


def _found(one, again, spread):
    """Values with their intervals, (change, shift), (R2, slope) and (R2 near), from the means [R,...] of a change's columns and
    the deviations [R] of the logits."""
    k, size = one.regressors, (one.regressors + 2) ** 2
    own, near = again[:, :size], again[:, size:-1]
    # A resample may hold none of the few scenes.
    near = near[~np.isnan(near).any(1)]
    shift = one.scale * own.reshape(-1, k + 2, k + 2)[:, k, k + 1]
    sizes = *_interval(one.change, again[:, -1] / spread), *_interval(one.shift, shift)
    slopes = one.scale * _slopes(own, k)
    fit = *_interval(one.r2, _r2(own, k)), *_interval(one.slope, slopes)
    return sizes, fit, _interval(one.near_r2, _r2(near, k))


def _interval(value, again) -> tuple[float, float, float]:
    """A value with its interval, which contains it: resampling lifts an R2 near 0."""
    if np.isnan(value):
        return np.nan, np.nan, np.nan
    low, high = stats.percentiles(again)
    return value, min(low, value), max(high, value)


def _squared(values):
    """Columns [N,2] whose means give the deviation: values around their mean, and their squares."""
    around = np.asarray(values, np.float64) - np.mean(values, dtype=np.float64)
    return np.stack([around, around**2], 1)


def flipped(pairs: Pairs) -> Float[np.ndarray, "N attributes"]:
    """1 where the prediction of a scene is another once the attribute is drawn again, else 0."""
    before = np.asarray(pairs.original) > 0
    return np.stack([(np.asarray(c) > 0) != before for c in pairs.changed.values()], 1).astype(
        float
    )


def regressors(
    name: str, before: Float[AnyArray, "N a"], after: Float[AnyArray, "N a"]
) -> Float[np.ndarray, "N k"]:
    """How far the values of what `name` draws again have moved; an angle moves by its sine and its cosine.

    Args:
      name: one of `CHANGES`.
      before, after: all attributes.
    """
    columns = []
    for attribute in CHANGES[name]:
        old, new = (np.asarray(v, np.float64)[:, ATTRIBUTES.index(attribute)] for v in (before, after))  # fmt: skip
        if attribute in CIRCULAR:
            columns += [np.sin(new) - np.sin(old), np.cos(new) - np.cos(old)]
        else:
            columns.append(new - old)
    return np.stack(columns, 1)


def explained(moved: Float[AnyArray, "N k"], delta: Float[AnyArray, " N"]) -> float:
    """R2 of the multiple regression of `delta` on `moved`, 0 where either does not vary, NaN without scenes."""
    if not len(delta):
        return np.nan
    return float(_r2(_moments(moved, delta).mean(0)[None], moved.shape[1])[0])


def _moments(moved, delta):
    """Products of (regressors, delta, 1) with each other, [N,(k+2)^2], whose means give the regression."""
    scaled = np.asarray(delta, np.float64)[:, None] / _scale(delta)
    one = np.concatenate([moved, scaled, np.ones((len(delta), 1))], 1)
    return (one[:, :, None] * one[:, None, :]).reshape(len(one), -1)


def _scale(delta):
    return max(float(np.std(delta)), _TINY)


def _r2(means, k):
    means = means.reshape(len(means), k + 2, k + 2)
    center = means[:, :-1, -1]
    spread = means[:, :-1, :-1] - center[:, :, None] * center[:, None, :]
    with_delta, own = spread[:, :k, k], spread[:, k, k]
    inverse = np.linalg.pinv(spread[:, :k, :k], rcond=1e-9, hermitian=True)
    part = np.einsum("ri,rij,rj->r", with_delta, inverse, with_delta)
    return np.where(own > 1e-9, np.clip(part / np.maximum(own, 1e-9), 0, 1), 0.0)


def _slopes(means, k):
    """Of the one regressor, for the scaled change, from the means of `_moments`; NaN where it does not vary, or for several."""
    means = means.reshape(len(means), k + 2, k + 2)
    own = means[:, 0, 0] - means[:, 0, 2] ** 2
    with_delta = means[:, 0, 1] - means[:, 0, 2] * means[:, 1, 2]
    there = (k == 1) & (own > _TINY)
    return np.where(there, with_delta / np.where(there, own, 1), np.nan)


def _slope(moved, delta):
    if moved.shape[1] != 1 or np.ptp(moved[:, 0]) == 0:
        return np.nan
    return float(np.cov(moved[:, 0], delta)[0, 1] / np.var(moved[:, 0], ddof=1))
