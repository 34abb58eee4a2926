"""The part of a study's page about occlusion: what removing parts of images does under each augmentation."""

import pathlib

from mixaug_jax.report import figures, page, study_figures, tables
from mixaug_jax.report.page import Table
from mixaug_jax.study.results import Study

_GRID = ("label", "score", "selection", "share", "value", "images")  # what makes sweeps comparable


def section(study: Study, folder: pathlib.Path) -> str:
    """Changes of accuracy by augmentation, from each run's `anomaly/sweep.csv`."""
    title = "Occlusion"
    sweeps, left = _sweeps(study)
    if not sweeps:
        return page.section("anomaly", title, page.missing("anomaly: no run has a sweep."))
    figures.save_figure(study_figures.anomaly(study, sweeps), folder / "anomaly")
    first = next(iter(sweeps.values()))[0][0]
    caption = (
        f"Accuracy when parts are removed. In the order of {first['score']} of the {first['label']} label's loss, replaced by "
        f"{first['value']}; lines are means over seeds, bands reach over the seeds."
    )
    alt = "line charts, a line for each augmentation"
    parts = [page.figure(folder, "anomaly", caption, alt=alt)]
    parts.append(page.table(folder, _table(sweeps)))
    if left:
        text = f"Left out, because of other removals or images: {', '.join(left)}."
        parts.append(page.missing(text))
    return page.section("anomaly", title, *parts)


def _sweeps(study):
    """The rows of the sweeps by augmentation, and the runs whose grid or images are not those of the first."""
    sweeps, left, first = {}, [], None
    for (name, seed), where in study.workdirs.items():
        rows = tables.read_csv(pathlib.Path(where) / "anomaly" / "sweep.csv")
        grid = [[row[key] for key in _GRID] for row in rows]
        first = first or grid
        if rows and grid == first:
            sweeps.setdefault(name, []).append(rows)
        elif rows:
            left.append(f"{name} seed {seed}")
    return sweeps, left


def _table(sweeps) -> Table:
    labels = dict.fromkeys(row["label"] for row in next(iter(sweeps.values()))[0])
    rows = [
        (
            name,
            len(seeds),
            *(sum(_rising(rows, label) for rows in seeds) / len(seeds) for label in labels),
        )
        for name, seeds in sweeps.items()
    ]
    header = ("augmentation", "seeds", *(f"rises, ranked by the {label} label" for label in labels))
    caption = (
        "Removals that raise the accuracy (its interval over images lies above 0), mean over seeds."
    )
    return Table("anomaly", caption, header, rows)


def _rising(rows, label) -> int:
    """How many different removals raise the accuracy."""
    return len({row["removal"] for row in rows if row["rises"] and row["label"] == label})
