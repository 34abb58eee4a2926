"""Whether the classes that gain or lose are those whose explanations, or concepts, change."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixaug_jax.core.types import Float
from mixaug_jax.dissection import result as dissection
from mixaug_jax.explain import evaluation
from mixaug_jax.study import class_statistics, sentences
from mixaug_jax.study.class_results import Link
from mixaug_jax.study.results import Study


def numbers_by_class(
    study: Study, workdir: str, classes: tuple[str, ...]
) -> dict[str, Float[np.ndarray, " K"]]:
    """{what: [K]} of one run: the means over each class's images of the judged scores, and how well the best unit of the last
    dissected layer fits the concept that is called like the class; what is not there is left out."""
    found: dict[str, Any] = {}
    judged = [study.measures[m] for m in study.headlines]
    for method in dict.fromkeys(m.subject for m in judged):
        path = pathlib.Path(workdir, "attribution", f"{method}.npz")
        result = _loaded(evaluation.load, path)
        for measure in judged if result else ():
            if measure.subject == method and measure.name in result.scores:
                found[sentences.title(measure)] = _means(
                    result.scores[measure.name], result.labels, len(classes)
                )
    layer = next((m.subject for m in judged if m.axis == "concepts"), "")
    result = _loaded(dissection.load, pathlib.Path(workdir, "dissection", f"{layer}.npz"))
    # Concepts and classes are linked by their names, the only thing that both have.
    names = [name for name, _ in result.names] if result else []
    if set(classes) & set(names):
        iou = result.iou().max(0)
        fits = [iou[names.index(name)] if name in names else np.nan for name in classes]
        found[f"IoU of the best unit with the class's own concept ({layer})"] = np.array(fits)
    return found


def links(
    effects: Float[np.ndarray, "S K"],
    runs: list[Mapping[str, np.ndarray]],
    references: list[Mapping[str, np.ndarray]],
) -> list[Link]:
    """The links of one comparison, of what `numbers_by_class` found in all runs of both sides.

    Args:
      effects: changes of recall, of S seeds and K classes.
      runs, references: of the same seeds.
    """
    found = []
    for what in runs[0] if runs else ():
        if not all(what in one for one in (*runs, *references)):
            continue
        # Differences within each seed, whose runs share all draws but those of the augmentation.
        change = np.mean(
            [one[what] - other[what] for one, other in zip(runs, references, strict=True)], 0
        )
        there = ~np.isnan(change)
        if there.sum() >= class_statistics.FEWEST_CLASSES:
            rho, p = class_statistics.rank_correlation(effects.mean(0)[there], change[there])
            found.append(Link(what, rho, p, int(there.sum())))
    return found


def _means(values, labels, classes):
    there = ~np.isnan(values)
    return class_statistics.class_means(
        values[None, there].astype(np.float64), labels[there].astype(np.int64), classes
    )[0]


def _loaded(load, path):
    """None for a file that is not there or damaged, which the study says elsewhere."""
    try:
        return load(path) if path.exists() else None
    except ValueError:
        return None
