"""Augmentations as points: what comes with a change of accuracy."""

import math

import numpy as np
import pytest
import reports
import studies
import toy
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba

from mixaug_jax import data, study
from mixaug_jax.draw import change_figures
from mixaug_jax.draw.change_figures import Change
from mixaug_jax.report import writing
from mixaug_jax.report.study import study_changes, study_figures

# Accuracy, unique concepts and pointing of each, which every seed shifts alike but for a little of its own.
PLANTED = {"baseline": (0.8, 5, 0.5), "cutmix": (0.85, 8, 0.4), "mixup": (0.75, 4, 0.7)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    source = toy.source(24, classes=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", lambda split, config, annotations=True: source)
        for run in studies.asked(folder, PLANTED):
            accuracy, unique, pointing = PLANTED[run.name]
            own = 0.01 * run.seed * (1 + list(PLANTED).index(run.name))
            studies.write_run(
                run,
                accuracy=accuracy + own,
                unique=unique + run.seed,
                scores={
                    "gradcam": {"pointing_game": pointing + own, "energy_pointing_game": 0.3 + own}
                },
            )
        writing.write_report(folder)
    return folder


def test_points_are_the_paired_differences(folder, monkeypatch):
    found, drawn = study.gather(folder), []
    plain = change_figures.changes
    monkeypatch.setattr(
        change_figures, "changes", lambda *a: drawn.append((*a, plain(*a))) or drawn[-1][-1]
    )
    study_changes.section(found, folder, 0.0)
    ((panels, across, names, figure),) = drawn
    assert across == "change of test accuracy"
    assert names == ("baseline", "cutmix", "mixup")
    shades = [
        mark.get_facecolor()[0]
        for mark in figure.axes[0].collections
        if isinstance(mark, PathCollection)
    ]
    colors = [to_rgba(study_figures.color(found, name)) for name in ("cutmix", "mixup")]
    np.testing.assert_allclose(shades, colors)
    assert [len(panel.points) for panel in panels] == [2, 2]
    for panel, column in zip(panels, (1, 2), strict=True):
        for name, (x, y) in panel.points.items():
            more = 0.01 * list(PLANTED).index(name)
            extra = more if column == 2 else 0
            assert math.isclose(x.value, PLANTED[name][0] - 0.8 + more, abs_tol=1e-9)
            wanted = PLANTED[name][column] - PLANTED["baseline"][column] + extra
            assert math.isclose(y.value, wanted, abs_tol=1e-6)
            assert x.low < x.value < x.high  # over three seeds
    marks = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    points = [mark.get_offsets()[0] for mark in marks]
    wanted = [[x.value, y.value] for x, y in panels[0].points.values()]
    np.testing.assert_allclose(points, wanted)


def test_the_page_shows_them(folder):
    built = reports.Page(folder / "report" / "report.html")
    assert "Each augmentation against baseline: differences paired by seed" in built.text
    assert "Intervals: 95 % t-intervals over seeds" in built.text
    assert (folder / "report" / "changes.svg").exists()


def test_one_comparison_has_no_figure(tmp_path):
    for run in studies.asked(tmp_path, ("baseline", "cutmix")):
        studies.write_run(run)
    assert study_changes.section(study.gather(tmp_path), tmp_path, 0.0) == ""


def test_what_has_no_interval_is_a_point():
    point = (Change(0.1), Change(-0.2, -0.3, -0.1))
    panel = change_figures.Panel("change of concepts", {"cutmix": point, "mixup": point})
    figure = change_figures.changes([panel], "change of accuracy", ["cutmix", "mixup"])
    assert len(figure.axes) == 1
    assert [t.get_text() for t in figure.axes[0].texts] == ["cutmix", "mixup"]


def test_many_points_are_named_in_the_legend_within_the_figure():
    names = [f"cutmix-alpha{k}.0-prob0.5-unmixed" for k in range(9)]
    points = {name: (Change(0.1 * k), Change(0.2)) for k, name in enumerate(names)}
    figure = change_figures.changes([change_figures.Panel("t", points)], "accuracy", names)
    assert not figure.axes[0].texts
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    assert legend.get_window_extent().x1 <= figure.bbox.x1
