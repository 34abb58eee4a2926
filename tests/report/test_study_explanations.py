"""The explanations on a study's page, from files of runs that were never computed."""

import dataclasses
import shutil

import numpy as np
import pytest
import reports
import score_cases
import studies
import toy

from mixaug_jax import data, study
from mixaug_jax.draw import explanation_figures
from mixaug_jax.explain import evaluation
from mixaug_jax.report import writing
from mixaug_jax.report.study import study_explanations, study_figures
from mixaug_jax.study import crossing

SIDE = 64  # what the networks of these settings see
HITS = np.array([1, np.nan, 0, 1, np.nan, 1.0])  # two images without a region


def write(run, method, shift):
    """A method's maps, whose curve starts at 1 + shift."""
    curve = np.linspace(1, 0, 5, dtype=np.float32) + np.float32(shift)
    values = {"pointing_game": HITS, "deletion": curve.mean()}
    settings = {"region": "", "label": "true"}
    found = studies.explanations(method, values, **settings)
    heat = np.random.default_rng(len(run.name)).normal(size=(6, SIDE, SIDE)).astype(np.float32)
    curves = {"deletion": np.tile(curve, (6, 1))}
    found = dataclasses.replace(found, heat=heat, curves=curves)
    evaluation.save(found, run.workdir / "attribution" / f"{method}.npz")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two augmentations, one seed, gradcam and a random order: the folder with its page, and the study."""

    def refuse(*_):
        raise ValueError("no networks")

    folder = tmp_path_factory.mktemp("study")
    source = toy.source(24, classes=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", lambda split, config, annotations=True: source)
        patch.setattr(crossing, "cross_deletion", refuse)
        for run in studies.asked(folder, ("baseline", "cutmix"), (0,)):
            studies.write_run(run)
            write(run, "gradcam", 0.1 * (run.name == "cutmix"))
            write(run, "random", 0.3)
        found = study.gather(folder)
        writing.write_study(found, folder)
    return folder, found


def test_page_shows_maps_and_curves_of_the_judged_method(made):
    folder, found = made
    built = reports.Page(folder / "report" / "report.html")
    assert study_explanations.method(found) == "gradcam"
    assert "explanations" in {attrs.get("id") for attrs in built.every("section")}
    assert "Explanations by gradcam under each augmentation. " in built.text
    assert "Mean curves of 6 images" in built.text
    assert "6 explained, 6 dissected." in built.text
    alt = [image["alt"] for image in built.every("img")]
    assert "rows of images, columns of heat maps: baseline, cutmix" in alt
    assert "line charts; areas: baseline 0.500 (deletion), cutmix 0.600 (deletion)" in alt
    for name in ("overlays", "curves"):
        assert all((folder / "report" / f"{name}.{e}").exists() for e in ("png", "svg"))


def test_sheet_has_the_images_with_a_region(made):
    seed, found = study_explanations.results(made[1])
    assert (seed, [*found]) == (0, ["baseline", "cutmix"])
    assert study_explanations._shown(found["baseline"]).tolist() == [0, 2, 3, 5]
    nothing = dataclasses.replace(found["baseline"], entries=score_cases.said("deletion"))
    assert study_explanations._shown(nothing).tolist() == [0, 1, 3, 4]


def test_pictures_are_kept_and_are_those_of_the_maps(made, monkeypatch):
    folder, found = made
    monkeypatch.setattr(data, "open_source", lambda *_, **__: pytest.fail("the data was opened"))
    page_file = folder / "report" / "report.html"
    before = page_file.read_bytes()
    assert writing.write_study(found, folder).read_bytes() == before
    kept = study_explanations._stored(folder / "report" / "explained.npz")
    assert kept.images.shape == (4, SIDE, SIDE, 3)
    assert kept.settings["images"] == [0, 2, 3, 5]
    assert not kept.masks.any()


def test_data_that_is_gone_leaves_the_curves(made, tmp_path, monkeypatch):
    def gone(*_, **__):
        raise ValueError("the disk is not mounted")

    monkeypatch.setattr(data, "open_source", gone)
    text = study_explanations.section(made[1], tmp_path)
    assert "cannot be read here: the disk is not mounted" in text
    assert "figure-curves" in text
    assert not (tmp_path / "overlays.png").exists()


def test_maps_of_other_images_are_not_beside_these(made, tmp_path):
    folder, found = made
    other = tmp_path / "run"
    shutil.copytree(folder / "cutmix" / "0" / "attribution", other / "attribution")
    path = other / "attribution" / "gradcam.npz"
    one = evaluation.load(path)
    evaluation.save(dataclasses.replace(one, indices=one.indices + 1), path)
    workdirs = found.workdirs | {("cutmix", 0): str(other)}
    assert [*study_explanations.results(dataclasses.replace(found, workdirs=workdirs))[1]] == [
        "baseline"
    ]
    empty = dataclasses.replace(found, workdirs={})
    assert "no run has explanations" in study_explanations.section(empty, tmp_path)


def test_a_line_for_each_augmentation_and_its_random_order(made):
    seed, found = study_explanations.results(made[1])
    random = study_explanations._load(made[1], seed, "random")
    colors = {name: study_figures.color(made[1], name) for name in found}
    (panel,) = explanation_figures.compared_curves(found, random, colors).axes
    for name, start in (("baseline", 1.0), ("cutmix", 1.1)):
        lines = [line for line in panel.lines if line.get_color() == colors[name]]
        np.testing.assert_allclose([line.get_ydata()[0] for line in lines], [start, 1.3])
        assert [line.is_dashed() for line in lines] == [False, True]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        "baseline  0.500",
        "cutmix  0.600",
    ]


def test_sheet_marks_hits():
    images = np.zeros((2, 8, 6, 3), np.uint8)
    heats = {"one": np.ones((2, 8, 6)), "two_names": np.ones((2, 8, 6))}
    hits = {"one": np.array([1.0, 0]), "two_names": np.array([np.nan, np.nan])}
    figure = explanation_figures.sheet(images, np.zeros((2, 8, 6), bool), heats, hits)
    assert [panel.get_title() for panel in figure.axes[:3]] == ["image", "one", "two\nnames"]
    marks = [len(panel.collections) for panel in figure.axes[:-1]]  # the last is the bar of colors
    assert marks == [0, 2, 0, 0, 2, 0]  # each white on black
