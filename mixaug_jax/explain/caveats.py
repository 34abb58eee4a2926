"""What is to be known of a method's maps before their scores are believed, measured beside the scores.

* "missing": how much of the change of the output a map that should sum to it leaves out. A path's integral is a sum over few
  places, and on photographs the gradient changes quickly along it.
* "ties": by how much the area under a curve depends on the order of equal values, which no map tells.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import entries, walk
from mixaug_jax.explain import programs
from mixaug_jax.explain.examples import Examples
from mixaug_jax.explain.job import Job
from mixaug_jax.scores.faithfulness import auc, opposite_ties
from mixaug_jax.scores.score import Score
from mixaug_jax.scores.stability import output_change

_CHANGE = Score(output_change)


def missing(
    net: Any, name: str, job: Job, examples: Examples, maps: np.ndarray, devices: tuple
) -> float:
    """The share of the output's change that maps leave out or add, the median over images; NaN where no output changes.

    Args:
      net: on the devices.
      name: of a method in the job, with `Method.complete`.
      job: how it is run.
      examples: the N images.
      maps: attributions [n,h,w,C] of this process's share of them.
      devices: that compute.
    """
    told = {**entries.options(job.methods[name]), **job.of_method(name)}
    told = {k: v for k, v in told.items() if k in ("baseline", "output")}
    asked = {k: v for k, v in examples.own(devices).items() if k in ("image", "label")}
    # Two evaluations of the network for each image.
    task = programs.net_task(_CHANGE, told, max(1, job.at_once // 2), devices)
    change = task.run(net, asked, f"{name}, completeness", len(examples)).astype(np.float64)
    change, told = walk.gather(
        (change, maps.sum((1, 2, 3), dtype=np.float64)), len(examples), devices
    )
    some = np.isfinite(change) & (change != 0)
    left = np.abs(told - change)[some] / np.abs(change[some])
    return float(np.median(left)) if some.any() else float("nan")


def tie_spreads(
    net: Any,
    job: Job,
    examples: Examples,
    heat: np.ndarray,
    found: Mapping[str, Any],
    devices: tuple,
) -> dict[str, float]:
    """{score: how far the mean area moves when equal values go in the opposite order}, of scores with `Score.ties`.

    Args:
      net, job, examples, devices: as `missing`.
      heat: maps [n,h,w] of a method with `Method.cam`, of this process's share of the images.
      found: {score: curves [n,T+1]} of these, in the order that equal values have.
    """
    rows, spreads = examples.own(devices), {}
    for score, record in job.scores.items():
        if not record.ties:
            continue
        window = job.told(score).get("window", 1)
        asked = {k: v for k, v in rows.items() if k in entries.arguments(record)}
        asked["heatmap"] = np.asarray(_opposite(window)(heat))
        task = programs.net_task(record, job.of_score(score), job.at_once, devices)
        again = task.run(net, asked, f"{score}, ties", len(examples))
        again, curves = walk.gather((again, found[score]), len(examples), devices)
        moved = np.asarray(auc(again) - auc(curves), np.float64)
        spreads[score] = float(abs(moved.mean()))
    return spreads


@functools.cache
def _opposite(window):
    return jax.jit(jax.vmap(functools.partial(opposite_ties, window=window)))


def sentences(said: Mapping[str, Mapping], kind: str) -> str:
    """What results say of maps, in words; "" where there is nothing to say.

    Args:
      said: {method: entries of its result}, see `evaluation.Evaluation`.
      kind: "missing" or "ties".
    """
    if kind == "missing":
        found = {v["title"]: v.get("missing", np.nan) for v in said.values()}
        shares = {title: share for title, share in found.items() if np.isfinite(share)}
        each = ", ".join(f"{title} {100 * share:.1f} %" for title, share in shares.items())
        return each and f"share of the output's change that maps miss, median over images: {each}"
    spreads = {v["title"]: v["ties"] for v in said.values() if v.get("ties")}
    each = "; ".join(
        f"{title} " + ", ".join(f"{spread:.4f} ({score})" for score, spread in by_score.items())
        for title, by_score in spreads.items()
    )
    return (
        each
        and f"Equal values of a map go in an arbitrary order; the opposite one moves the area by: {each}."
    )
