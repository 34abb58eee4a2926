"""From what is measured of each image to the columns of an `Evaluation`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixaug_jax.core import entries
from mixaug_jax.explain.examples import Examples
from mixaug_jax.explain.job import Job
from mixaug_jax.scores.faithfulness import auc


def finished(found: Mapping[str, Any], examples: Examples, job: Job) -> tuple[dict, dict, dict]:
    """Scores float64 [N], NaN where there is no region, curves float32 [N,T+1], and pairs float32 [N,2,sizes,samples]."""
    scores, curves, pairs = {}, {}, {}
    shown = examples.masks.any((1, 2))
    for name, score in job.scores.items():
        measured, told = found[name], job.told(name)
        if isinstance(measured, tuple):
            measured = pairs[name] = np.stack(measured, 1)
        measured = np.asarray(measured)
        if measured.ndim == 2:
            curves[name] = measured.astype(np.float32)
        values = _values(score, measured, told).astype(np.float64)
        if "mask" in entries.arguments(score):
            # No map can hit a region that is not there, so these must not count as misses.
            values = np.where(shown, values, np.nan)
        scores[name] = values
        scores |= {part: record.f(values, examples) for part, record in score.also.items()}
    return scores, curves, pairs


def _values(score, measured, told):
    """[N], the value of each example from what was measured."""
    if score.value is not None:
        return np.asarray(score.value(measured, told))
    if measured.ndim == 1:
        return measured
    count = measured.shape[1]
    positions = score.positions(told, count) if score.positions else ()
    return np.asarray(auc(measured, positions=positions))
