"""The report of a study, from folders of runs that were never computed."""

import csv
import dataclasses

import numpy as np
import pytest
import reports
import studies
import toy
from matplotlib.collections import PathCollection

from mixaug_jax import data, study
from mixaug_jax.report import stage, study_anomaly, study_figures, study_page
from mixaug_jax.study.deletion import CrossDeletion


@pytest.fixture(scope="module", autouse=True)
def _noise():
    source = toy.source(24, classes=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", lambda split, config, annotations=True: source)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three augmentations, two seeds; one run is not there. Scores without heat maps of two models: no cross deletion."""
    folder = tmp_path_factory.mktemp("study")
    runs = studies.asked(folder, ("baseline", "cutmix", "mixup"), (0, 1), ["train.epochs=3"])
    for run in runs:
        if (run.name, run.seed) == ("mixup", 1):
            continue
        worse = 0.1 * (run.name != "baseline")
        studies.write_run(run, accuracy=0.9 - worse - 0.01 * run.seed, unique=8 - run.seed)
        if run.seed == 0:
            reports.write_anomaly(run.workdir / "anomaly", 0.125 * (run.name == "mixup"))
    path = folder / "cutmix" / "1" / "report" / "report.html"
    path.parent.mkdir()
    path.write_text("the run's own page")
    stage.write_report(folder)
    return folder


@pytest.fixture(scope="module")
def built(folder):
    return reports.Page(folder / "report" / "report.html")


@pytest.fixture(scope="module")
def gathered(folder):
    return study.gather(folder)


def rows(folder, name):
    with (folder / "report" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_study_says(built, gathered):
    assert built.open == []
    assert "baseline, cutmix, mixup: 2 seeds" in built.text
    for axis, sentence in gathered.sentences.items():
        assert f"{axis.capitalize()}." in built.text
        assert sentence.partition(": ")[2][1:] in built.text
    assert "mixup seed 1: not started" in built.text
    assert "attribute" not in {attrs.get("id") for attrs in built.every("section")}
    assert "No seed has explanations of two models." in built.text


def test_numbers_are_those_of_the_study(folder, gathered):
    (accuracy,) = gathered.find("accuracy", "test_accuracy")
    table = rows(folder, "comparison")
    assert [row["augmentation"] for row in table] == ["baseline", "cutmix", "mixup"]
    for a, row in enumerate(table):
        np.testing.assert_allclose(float(row["test accuracy"]), gathered.mean[a, accuracy])
    assert table[2]["test accuracy low"] == ""  # one seed
    found = [row for row in rows(folder, "differences") if row["measure"] == "test accuracy"]
    assert [row["comparison"] for row in found] == ["cutmix minus baseline", "mixup minus baseline"]
    np.testing.assert_allclose([float(row["difference"]) for row in found], -0.1)
    assert [row["seeds"] for row in found] == ["2", "1"]
    chance = rows(folder, "chance")[0]
    assert float(chance["unique concepts by chance (layer4, IoU > 0.04)"]) == 1


def test_runs_lead_to_their_own_pages(folder, built):
    links = {a["href"] for a in built.every("a")}
    assert "../cutmix/1/report/report.html" in links
    assert all(link.startswith("#") or (folder / "report" / link).exists() for link in links)
    assert [row["page"] for row in rows(folder, "runs")] == ["", "", "", "report", ""]


def test_figures_and_command(folder, built):
    names = {"differences", "concepts_layer4", "anomaly", "augmentations", "training"}
    assert {attrs["id"] for attrs in built.every("figure") if attrs["id"].startswith("figure")} == {
        f"figure-{name}" for name in names
    }
    for name in names:
        assert all((folder / "report" / f"{name}.{e}").exists() for e in ("png", "svg"))
    alt = [image["alt"] for image in built.every("img")]
    assert "rows of images: images, cutmix, mixup" in alt
    assert (
        "python -m mixaug_jax.study \\ --configs=configs/baseline.py,configs/cutmix.py,configs/mixup.py \\ --seeds=0,1"
    ) in built.text
    assert "--config.train.epochs=3" in built.text
    changed = {
        (r["augmentation"], r["setting"]): r["value"] for r in rows(folder, "settings_changed")
    }
    assert changed["all", "train.epochs"] == "3"


def test_files_alone_make_it_again(folder, monkeypatch):
    page_file = folder / "report" / "report.html"
    before = page_file.read_bytes()
    monkeypatch.setattr(data, "open_source", lambda *_, **__: pytest.fail("the data was opened"))
    assert stage.write_report(folder) == page_file
    assert page_file.read_bytes() == before


def cross(models, shift=0.0):
    sources = (*models, "random", "center")
    relative = 0.5 + 0.1 * np.arange(len(models) * len(sources)).reshape(len(models), -1) + shift
    zeros = np.zeros(len(models))
    return CrossDeletion(
        models, sources, relative, relative, zeros, np.zeros(len(sources)), zeros,
        relative[..., None], np.arange(1), "gradcam",
    )  # fmt: skip


def test_deletion_across_models_is_averaged_over_whole_seeds(gathered):
    whole = cross(("baseline", "cutmix", "mixup"))
    other = cross(("baseline", "cutmix", "mixup"), 0.2)
    part = cross(("baseline", "cutmix"))
    figure = study_figures.cross_deletion(
        dataclasses.replace(gathered, cross_deletion={0: whole, 1: part, 2: other})
    )
    panels = [panel for panel in figure.axes if panel.get_title()]
    assert [p.get_title() for p in panels] == ["mean of 2 seeds", "seed 0", "seed 1", "seed 2"]
    np.testing.assert_allclose(panels[0].images[0].get_array(), whole.relative + 0.1)
    assert panels[2].images[0].get_array().shape == (2, 4)
    assert panels[1].texts[0].get_text() == "0.50"
    broken = dataclasses.replace(whole, relative=np.full((3, 5), np.inf))
    study_figures.cross_deletion(dataclasses.replace(gathered, cross_deletion={0: broken}))


def test_page_with_deletion_across_models(gathered, tmp_path):
    there = dataclasses.replace(gathered, cross_deletion={0: cross(gathered.augmentations)})
    text = study_page._cross_deletion(there, tmp_path)
    assert "in the order of another model&#x27;s gradcam" in text
    assert "figure-cross_deletion" in text
    assert (tmp_path / "cross_deletion.svg").exists()


def test_differences_point_by_point(gathered):
    measures = gathered.headlines
    figure = study_figures.differences(gathered, measures)
    assert len([panel for panel in figure.axes if panel.get_title()]) == len(measures)
    panel = figure.axes[0]
    marks = [c for c in panel.collections if isinstance(c, PathCollection)]
    means = [c.get_offsets()[0] for c in marks if c.get_sizes()[0] > 20]
    np.testing.assert_allclose(means, [(-0.1, 0), (-0.1, 1)])
    assert [len(c.get_offsets()) for c in marks] == [2, 1, 2, 1]  # the seeds, then their mean
    assert panel.get_xlabel().startswith("better")


def test_concepts_have_a_bar_for_each_augmentation(gathered):
    figure = study_figures.concepts(gathered, "layer4")
    assert [p.get_ylabel() for p in figure.axes] == ["IoU > 0.03", "IoU > 0.04", "IoU > 0.05"]
    (total,) = gathered.find("concepts", "unique", setting="unit", level=0.04, category="total")
    heights = [bars[-1].get_height() for bars in figure.axes[1].containers]
    np.testing.assert_allclose(heights, gathered.mean[:, total])


def test_occlusion_by_augmentation(gathered, folder):
    table = rows(folder, "anomaly")
    assert [row["augmentation"] for row in table] == ["baseline", "cutmix", "mixup"]
    assert {row["rises, ranked by the true label"] for row in table} == {"1.0"}
    sweeps, left = study_anomaly._sweeps(gathered)
    assert not left
    lowest = study_figures.anomaly(gathered, sweeps).axes[1]
    np.testing.assert_allclose(lowest.lines[1].get_ydata(), [0, 12.5])
    np.testing.assert_allclose(lowest.lines[3].get_ydata(), [12.5, 25])
    np.testing.assert_allclose(lowest.lines[3].get_xdata(), [5, 50])


def test_sweeps_of_other_grids_are_left_out(gathered, folder, tmp_path):
    other = tmp_path / "run"
    reports.write_anomaly(other / "anomaly")
    path = other / "anomaly" / "sweep.csv"
    path.write_text(path.read_text().replace(",blur,", ",noise,"))
    workdirs = dict(gathered.workdirs) | {("mixup", 0): str(other)}
    (tmp_path / "report").mkdir()
    text = study_anomaly.section(
        dataclasses.replace(gathered, workdirs=workdirs), tmp_path / "report"
    )
    assert "Left out, because of other removals or images: mixup seed 0." in text
    assert ">mixup<" not in text


def test_a_study_without_results(tmp_path):
    studies.asked(tmp_path, ("baseline", "cutmix"), (0,))
    text = reports.Page(stage.write_report(tmp_path)).text
    assert "No run has any result yet." in text
    assert "baseline seed 0: not started" in text
