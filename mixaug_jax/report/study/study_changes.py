"""The part of a study's page on what comes with a change of accuracy: concepts, and explanations that point at the object."""

import pathlib

import numpy as np

from mixaug_jax.core.types import Scalar
from mixaug_jax.draw import change_figures, page, style
from mixaug_jax.report.study import study_numbers
from mixaug_jax.study.results import Study
from mixaug_jax.study.sentences import title

_FEWEST = 2  # points, below which the list of differences says all


def section(study: Study, folder: pathlib.Path, column: Scalar) -> str:
    """The augmentations as points: change of accuracy against change of concepts and of pointing; "" without any."""
    shown = [pair for pair in study.comparisons if pair[1] == study.augmentations[0]]
    across = _headlines(study, "accuracy")[:1]
    # Of what is judged of where explanations lie, whether they point at the object: the rest counts what lies beside it.
    pointing = [m for m in _headlines(study, "alignment") if study.measures[m].better > 0]
    upwards = _headlines(study, "concepts")[:1] + pointing[:1]
    panels = [
        change_figures.Panel(f"change of {title(study.measures[m])}", points)
        for m in upwards
        for points in [_points(study, shown, across[0], m) if across else {}]
        if len(points) >= _FEWEST
    ]
    if not panels:
        return ""
    # All of them, so that each has the color that it has in other figures.
    names = study.augmentations
    figure = change_figures.changes(panels, f"change of {title(study.measures[across[0]])}", names)
    style.save_figure(figure, folder / "changes", column=column)
    rows = [study.comparisons.index(pair) for pair in shown]
    caption = (
        f"Each augmentation against {study.augmentations[0]}: differences paired by seed, means over the seeds that both have. "
        f"{study_numbers.what_intervals_are(study.difference_of[rows][:, [*across, *upwards]])} Where the lines cross nothing "
        "changes."
    )
    said = "; ".join(
        f"{name} {x.value:+.3g} and {y.value:+.3g}" for name, (x, y) in panels[0].points.items()
    )
    alt = f"scatter plot of changes; of accuracy and of {panels[0].title.removeprefix('change of ')}: {said}"
    return page.section(
        "changes",
        "What comes with accuracy",
        page.figure(folder, "changes", caption, alt=alt),
    )


def _headlines(study, axis) -> list[int]:
    return [m for m in study.headlines if study.measures[m].axis == axis]


def _points(study, pairs, across, upwards):
    """{name: (change across, change upwards)} of the augmentations that have both."""
    found = {}
    for pair in pairs:
        p = study.comparisons.index(pair)
        one, other = (
            change_figures.Change(
                float(study.difference[p, m]), *map(float, study.difference_interval[p, m])
            )
            for m in (across, upwards)
        )
        if np.isfinite([one.value, other.value]).all():
            found[pair[0]] = one, other
    return found
