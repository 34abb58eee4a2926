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
      change: mean absolute change of the logit, in standard deviations of the logit over scenes.
      shift: mean change of the logit.
      flips, flips_low, flips_high: share of predictions that flip.
      beside, beside_low, beside_high: the same minus that of the control attribute.
      p: one-sided, of `beside` above the tolerance, after Holm's correction over all attributes but the control.
      r2, r2_low, r2_high: of the regression of the change of the logit on the change of the value, 0..1.
      slope: of that regression; NaN where there is more than one regressor.
      near_flips, near_low, near_high: flips among scenes whose arms hardly tell the class.
      near_r2: R2 among them.
      relevant: whether `beside_low` is above the tolerance, `p` is below 5 %, and `r2` is at least `LEAST_R2`.
    """

    attribute: str
    change: float
    shift: float
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
    near_flips: float
    near_low: float
    near_high: float
    near_r2: float
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
    columns = [flips, near_flips, *(_moments(one.moved, one.delta) for one in changes)]
    again = stats.bootstrap_means(np.concatenate(columns, 1), replicates, seed)
    again = np.split(again, np.cumsum([part.shape[1] for part in columns])[:-1], 1)
    flips_again, near_again, *moments = again
    control = names.index(CONTROL)
    beside, beside_again = flips - flips[:, [control]], flips_again - flips_again[:, [control]]
    p = (1 + (beside_again <= tolerance).sum(0)) / (1 + replicates)
    p = stats.holm(np.where(np.arange(len(names)) == control, np.nan, p))
    rows = []
    for k, one in enumerate(changes):
        low, high = stats.percentiles(beside_again[:, k])
        of_flips = float(flips[:, k].mean()), *stats.percentiles(flips_again[:, k])
        of_beside = float(beside[:, k].mean()), low, high, float(p[k])
        ends = stats.percentiles(_r2(moments[k], one.moved.shape[1]))
        near_share = float(flips[near, k].mean()) if near.any() else np.nan
        of_near = near_share, *stats.percentiles(near_again[:, k]), one.near_r2
        found = low > tolerance and p[k] < stats.ALPHA and one.r2 >= LEAST_R2
        # Resampling lifts an R2 near 0, and an interval contains its estimate.
        r2 = one.r2, min(ends[0], one.r2), max(ends[1], one.r2), one.slope
        rows.append(Row(one.name, *one.sizes, *of_flips, *of_beside, *r2, *of_near, bool(found)))
    return rows


class _Change(NamedTuple):
    """What one attribute does to the logit, without any resampling."""

    name: str
    delta: np.ndarray
    moved: np.ndarray
    sizes: tuple[float, float]
    r2: float
    near_r2: float
    slope: float


def _change(pairs, name, near) -> _Change:
    delta = np.asarray(pairs.changed[name], np.float64) - pairs.original
    moved = regressors(name, pairs.values, pairs.changed_values[name])
    spread = max(float(np.std(pairs.original)), 1e-12)
    sizes = float(np.abs(delta).mean() / spread), float(delta.mean())
    r2 = explained(moved, delta), explained(moved[near], delta[near])
    return _Change(name, delta, moved, sizes, *r2, _slope(moved, delta))


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
    spread = max(float(np.std(delta)), 1e-12)
    one = np.concatenate([moved, np.asarray(delta, np.float64)[:, None] / spread, np.ones((len(delta), 1))], 1)  # fmt: skip
    return (one[:, :, None] * one[:, None, :]).reshape(len(one), -1)


def _r2(means, k):
    means = means.reshape(len(means), k + 2, k + 2)
    center = means[:, :-1, -1]
    spread = means[:, :-1, :-1] - center[:, :, None] * center[:, None, :]
    with_delta, own = spread[:, :k, k], spread[:, k, k]
    inverse = np.linalg.pinv(spread[:, :k, :k], rcond=1e-9, hermitian=True)
    part = np.einsum("ri,rij,rj->r", with_delta, inverse, with_delta)
    return np.where(own > 1e-9, np.clip(part / np.maximum(own, 1e-9), 0, 1), 0.0)


def _slope(moved, delta):
    if moved.shape[1] != 1 or np.ptp(moved[:, 0]) == 0:
        return np.nan
    return float(np.cov(moved[:, 0], delta)[0, 1] / np.var(moved[:, 0], ddof=1))
