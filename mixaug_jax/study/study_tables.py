"""The study's numbers as CSV files, one row a number, and the headline ones as text."""

import os
import pathlib

import numpy as np

from mixaug_jax.core.files import write_csv
from mixaug_jax.study import sentences
from mixaug_jax.study.results import Study
from mixaug_jax.study.sentences import title

_MEASURE = ("axis", "measure", "subject", "setting", "level", "category", "better", "headline")


def write_tables(study: Study, folder: os.PathLike | str) -> None:
    """Writes values.csv (one row a run's number), means.csv (one an augmentation's), differences.csv (one a comparison's) and
    cross_model_deletion.csv (one a seed, model and source). Cells of what is not there are empty."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (
        ("values", value_rows),
        ("means", mean_rows),
        ("differences", difference_rows),
        ("cross_model_deletion", cross_rows),
    ):
        write_csv(folder / f"{name}.csv", *make(study))


def value_rows(study: Study) -> tuple[list[str], list[list]]:
    """Header and a row for each number of a run, with its interval over images."""
    header = ["augmentation", "seed", *_MEASURE, "value", "image_low", "image_high"]
    rows = [
        [
            study.augmentations[a],
            study.seeds[s],
            *_cells(study.measures[m]),
            *map(_text, (study.values[a, s, m], *study.image_intervals[a, s, m])),
        ]
        for a, s, m in np.ndindex(study.values.shape)
        if not np.isnan(study.values[a, s, m])
    ]
    return header, rows


def mean_rows(study: Study) -> tuple[list[str], list[list]]:
    """Header and a row for each augmentation and measure."""
    header = ["augmentation", *_MEASURE, "mean", "low", "high", "n", "interval_of", "mean_rank"]
    rows = [
        [
            study.augmentations[a],
            *_cells(study.measures[m]),
            *map(_text, (study.mean[a, m], *study.interval[a, m])),
            int(study.n[a, m]),
            str(study.interval_of[a, m]),
            _text(study.rank[a, m]),
        ]
        for a, m in np.ndindex(study.mean.shape)
    ]
    return header, rows


def difference_rows(study: Study) -> tuple[list[str], list[list]]:
    """Header and a row for each comparison and measure."""
    header = ["augmentation", "minus", *_MEASURE]
    header += ["difference", "low", "high", "n", "interval_of", "p", "p_holm"]
    rows = [
        [
            *study.comparisons[k],
            *_cells(study.measures[m]),
            *map(_text, (study.difference[k, m], *study.difference_interval[k, m])),
            int(study.pairs[k, m]),
            str(study.difference_of[k, m]),
            _text(study.p[k, m]),
            _text(study.p_holm[k, m]),
        ]
        for k, m in np.ndindex(study.difference.shape)
    ]
    return header, rows


def cross_rows(study: Study) -> tuple[list[str], list[list]]:
    """Header and a row for each seed, model and source of rankings."""
    header = ["seed", "method", "images", "model", "source", "area", "relative_to_random"]
    rows = [
        [
            seed,
            found.method,
            len(found.indices),
            found.models[m],
            found.sources[s],
            _text(found.area[m, s]),
            _text(found.relative[m, s]),
        ]
        for seed, found in study.cross_deletion.items()
        for m, s in np.ndindex(found.area.shape)
    ]
    return header, rows


def summary(study: Study) -> str:
    """The headline measures of each augmentation, what the data support, and what is missing, as lines of text."""
    width = max(map(len, study.augmentations))
    lines = [*filter(None, [sentences.at_chance(study)])]
    for m in study.headlines:
        lines.append(f"{title(study.measures[m])}:")
        for a, name in enumerate(study.augmentations):
            mean, (low, high) = study.mean[a, m], study.interval[a, m]
            if np.isnan(mean):
                lines.append(f"  {name:{width}}  not there")
                continue
            n, over = study.n[a, m], study.interval_of[a, m]
            # Two seeds bear no interval over seeds, and one over images would be taken for it.
            ends = f"{low:10.4g} to {high:<10.4g}" if over else f"{'no interval':^24}"
            of = {"seeds": f"95 %, {n} seeds", "images": "95 % over images, one seed"}.get(over, "")
            rank = "" if np.isnan(study.rank[a, m]) else f"  rank {study.rank[a, m]:.2g}"
            lines.append(f"  {name:{width}}  {mean:10.4g}  {ends} {of}{rank}")
    lines += ["", *study.sentences.values()]
    if study.problems:
        lines += ["", "missing or left out:", *(f"  {text}" for text in study.problems)]
    return "\n".join(lines)


def _cells(measure) -> list:
    level = f"{measure.level:g}" if measure.level else ""
    cells = [measure.axis, measure.name, measure.subject, measure.setting, level]
    return [*cells, measure.category, measure.better, int(measure.headline)]


def _text(value) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
