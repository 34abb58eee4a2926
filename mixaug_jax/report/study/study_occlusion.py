"""The part of a study's page about occlusion: what removing parts of images does under each augmentation."""

import pathlib

import numpy as np

from mixaug_jax.core import files
from mixaug_jax.core.types import Scalar
from mixaug_jax.draw import page, style
from mixaug_jax.draw.page import Table
from mixaug_jax.report.run import answers
from mixaug_jax.report.study import study_figures, study_numbers
from mixaug_jax.study import sentences
from mixaug_jax.study.results import Study

_GRID = (
    "label",
    "ranking",
    "selection",
    "share",
    "value",
    "images",
)  # what makes sweeps comparable


def section(study: Study, folder: pathlib.Path, column: Scalar = 0.0) -> str:
    """Changes of accuracy by augmentation, from each run's `occlusion/sweep.csv`."""
    title = answers.OCCLUSION
    sweeps, left = _sweeps(study)
    if not sweeps:
        return page.section("occlusion", title, page.missing("occlude: no run has a sweep."))
    by_name = {name: [*seeds.values()] for name, seeds in sweeps.items()}
    style.save_figure(study_figures.occlusion(study, by_name), folder / "occlusion", column=column)
    # Only sweeps of equal grids are left, so the first says what was done in all.
    rows = next(iter(by_name.values()))[0]
    first = rows[0]
    caption = (
        f"Accuracy under occlusion, {first['images']} images. In the order of {first['ranking']} of the {first['label']} "
        f"label's loss, replaced by {first['value']}; lines: mean over seeds, bands: range over seeds. {answers.words(rows)}"
    )
    alt = f"line charts of the change of accuracy, a line for each of {', '.join(by_name)}"
    parts = [page.figure(folder, "occlusion", caption, alt=alt)]
    parts.append(page.table(folder, _table(study, sweeps)))
    if left:
        text = f"Left out, because of other removals or images: {', '.join(left)}."
        parts.append(page.missing(text))
    return page.section("occlusion", title, *parts)


def _sweeps(study):
    """The rows of the sweeps by augmentation and seed, and the runs whose grid or images are not those of the first."""
    sweeps, left, first = {}, [], None
    for (name, seed), where in study.workdirs.items():
        rows = files.read_csv(pathlib.Path(where) / "occlusion" / "sweep.csv")
        grid = [[row[key] for key in _GRID] for row in rows]
        first = first or grid
        if rows and grid == first:
            sweeps.setdefault(name, {})[seed] = rows
        elif rows:
            left.append(f"{name} seed {seed}")
    return sweeps, left


def _table(study, sweeps) -> Table:
    one = next(iter(next(iter(sweeps.values())).values()))
    labels = dict.fromkeys(row["label"] for row in one)
    judged = [m for m in study.headlines if study.measures[m].axis == "occlusion"]
    rows = []
    for name, seeds in sweeps.items():
        cells = [name, len(seeds), answers.rising(one, next(iter(labels)))[1]]
        for label in labels:
            # Averaged over seeds, so that a count stands beside the count by chance.
            found = [answers.rising(rows, label)[0] for rows in seeds.values()]
            chance = [
                _by_chance(study, name, seed, label, n)
                for seed, n in zip(seeds, found, strict=True)
            ]
            cells += [round(float(np.mean(numbers)), 1) for numbers in (found, chance)]
        a = study.augmentations.index(name)
        rows.append([*cells, *(study_numbers.mean(study, a, m) for m in judged)])
    header = ["augmentation", "seeds", "removals"]
    for label in labels:
        header += [f"rises, {label} label", f"by chance, {label} label"]
    header += [sentences.title(study.measures[m]) for m in judged]
    caption = (
        "How many of the removals raise the accuracy (its interval over images lies above 0), by whose loss ranks the units; "
        f"means over seeds. {answers.CHANCE}"
        + " The last column is the mean over rankings, shares and values."
        * bool(judged)
    )
    return Table("occlusion", caption, header, rows)


def _by_chance(study, name, seed, label, found) -> float:
    """How many removals would raise the accuracy if none had an effect; NaN where the study does not know."""
    place = {"name": "rising_above_chance", "setting": f"{label} label"}
    for m in study.find("occlusion", **place):
        above = study.values[study.augmentations.index(name), study.seeds.index(seed), m]
        return max(0.0, float(found - above))
    return np.nan
