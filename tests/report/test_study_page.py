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
from mixaug_jax.report import writing
from mixaug_jax.report.study import study_figures, study_numbers, study_occlusion, study_page
from mixaug_jax.study import measures
from mixaug_jax.study.crossing import CrossDeletion


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
            reports.write_occlusion(run.workdir / "occlusion", 0.125 * (run.name == "mixup"))
    path = folder / "cutmix" / "1" / "report" / "report.html"
    path.parent.mkdir()
    path.write_text("the run's own page")
    writing.write_report(folder)
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
    assert "explain: no run has explanations of a method that is judged." in built.text
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
    (chance,) = [r for r in rows(folder, "chance") if r["measure"].startswith("unique concepts by")]
    assert chance["measure"] == "unique concepts by chance (layer4, IoU > 0.04)"
    assert (chance["baseline"], chance["baseline low"]) == ("1.0", "")  # the same in all seeds


def test_ranks_stand_where_a_difference_is_supported(built, gathered, tmp_path):
    (accuracy,) = gathered.find("accuracy", "test_accuracy")
    assert np.isnan(gathered.rank).all()
    assert "Ranks: 1 is the best" not in built.text
    assert "<small>rank" not in built.raw
    rank = np.full_like(gathered.rank, np.nan)
    rank[:, accuracy] = [1, 2.5, 2.5]
    text = study_numbers.comparison(dataclasses.replace(gathered, rank=rank), tmp_path)
    assert "Ranks: 1 is the best" in text
    assert text.count("<small>rank 1</small>") == 1
    assert text.count("<small>rank 2.5</small>") == 2


def test_networks_at_chance_are_named_at_the_top(gathered, folder, tmp_path):
    there = {("cutmix", 0): "cutmix seed 0 (test accuracy 50.0% of 40 images, chance 50.0%)"}
    study = dataclasses.replace(gathered, at_chance=there)
    text = study_page.make(study, folder, tmp_path)
    said = "The accuracy of this network does not exceed chance, so it is compared with no other: cutmix seed 0"
    assert f'<p class="banner">{said}' in text
    assert text.index(said) < text.index("Augmentations compared on")


def test_long_tables_are_cut_on_the_page_alone(gathered, tmp_path, monkeypatch):
    monkeypatch.setattr(study_numbers, "_MOST", 3)
    text = study_numbers.comparison(gathered, tmp_path)
    count = len(gathered.measures)
    assert f"The first 3 of {count} rows; measures.csv has all." in text
    with (tmp_path / "measures.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == count


def test_what_was_compared_is_said(built, folder):
    assert (
        "Augmentations compared on scenes: resnet18 (width 0.25), 2 seeds, 24 test images, 6 dissected."
    ) in built.text
    found = {row["setting"]: row["value"] for row in rows(folder, "settings")}
    assert found["train.epochs"] == "3"
    assert found["mix.name"] == "baseline: none; cutmix: cutmix; mixup: mixup"
    assert found["mix.alpha"].startswith("cutmix: ")
    assert "seed" not in found


def test_runs_lead_to_their_own_pages(folder, built):
    links = {a["href"] for a in built.every("a")}
    assert "../cutmix/1/report/report.html" in links
    assert all(
        link.startswith(("#", "data:")) or (folder / "report" / link).exists() for link in links
    )
    assert "are on the runs' own pages, beside this one: cutmix 1." in built.text
    assert [row["page"] for row in rows(folder, "runs")] == ["", "", "", "report", ""]


def test_figures_and_command(folder, built):
    names = {"differences", "concepts_layer4", "occlusion", "augmentations", "training", "changes"}
    assert {attrs["id"] for attrs in built.every("figure") if attrs["id"].startswith("figure")} == {
        f"figure-{name}" for name in names
    }
    for name in names:
        assert all((folder / "report" / f"{name}.{e}").exists() for e in ("png", "svg"))
    alt = [image["alt"] for image in built.every("img")]
    assert "a row of images for each of images, cutmix, mixup, with their labels" in alt
    files = ",".join(f"{folder}/configs/{name}.py" for name in ("baseline", "cutmix", "mixup"))
    assert f"python -m mixaug_jax.study \\ --configs={files} \\ --seeds=0,1" in built.text
    assert "--config.train.epochs=3" in built.text
    changed = {
        (r["augmentation"], r["setting"]): r["value"] for r in rows(folder, "settings_changed")
    }
    assert changed["all", "train.epochs"] == "3"


def test_files_alone_make_it_again(folder, monkeypatch):
    page_file = folder / "report" / "report.html"
    before = page_file.read_bytes()
    monkeypatch.setattr(data, "open_source", lambda *_, **__: pytest.fail("the data was opened"))
    assert writing.write_report(folder) == page_file
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
    corners = [patch.get_xy() for patch in panels[2].patches]  # twice, white on black
    assert corners == [(-0.5, -0.5), (-0.5, -0.5), (0.5, 0.5), (0.5, 0.5)]
    broken = dataclasses.replace(whole, relative=np.full((3, 5), np.inf))
    study_figures.cross_deletion(dataclasses.replace(gathered, cross_deletion={0: broken}))


def test_page_with_deletion_across_models(gathered, tmp_path):
    there = dataclasses.replace(gathered, cross_deletion={0: cross(gathered.augmentations)})
    text = study_page._cross_deletion(there, tmp_path, 0.0)
    assert "in the order of another model&#39;s gradcam" in text
    assert (
        "Only images that all models of the seed classify correctly are used: 1 (seed 0)." in text
    )
    assert "Tiles of 1/16 of the side are set to the mean color." in text
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
    labels = [panel.get_ylabel() for panel in figure.axes]
    assert labels == [f"unique concepts\nat IoU > {level}" for level in (0.03, 0.04, 0.05)]
    (total,) = gathered.find("concepts", "unique", setting="unit", level=0.04, category="total")
    heights = [bars[-1].get_height() for bars in figure.axes[1].containers]
    np.testing.assert_allclose(heights, gathered.mean[:, total])


def test_occlusion_by_augmentation(gathered, folder):
    table = rows(folder, "occlusion")
    assert [row["augmentation"] for row in table] == ["baseline", "cutmix", "mixup"]
    assert {row["rises, true label"] for row in table} == {"1.0"}
    assert {row["removals"] for row in table} == {"4"}
    assert {row["by chance, true label"] for row in table} == {""}  # without sweep.npz
    sweeps, left = study_occlusion._sweeps(gathered)
    assert not left
    assert [*sweeps["mixup"]] == [0]
    by_name = {name: [*seeds.values()] for name, seeds in sweeps.items()}
    lowest = study_figures.occlusion(gathered, by_name).axes[1]
    np.testing.assert_allclose(lowest.lines[1].get_ydata(), [0, 12.5])
    np.testing.assert_allclose(lowest.lines[3].get_ydata(), [12.5, 25])
    np.testing.assert_allclose(lowest.lines[3].get_xdata(), [5, 50])


def test_what_chance_raises_is_the_rest_of_what_rises(gathered):
    measure = measures.Measure("occlusion", "rising_above_chance", setting="true label", better=0)
    values = np.concatenate([gathered.values, np.full((3, 2, 1), -1.5)], -1)
    there = dataclasses.replace(gathered, measures=(*gathered.measures, measure), values=values)
    table = study_occlusion._table(there, study_occlusion._sweeps(there)[0])
    chance = [row[table.header.index("by chance, true label")] for row in table.rows]
    assert chance == [2.5, 2.5, 2.5]


def test_sweeps_of_other_grids_are_left_out(gathered, folder, tmp_path):
    other = tmp_path / "run"
    reports.write_occlusion(other / "occlusion")
    path = other / "occlusion" / "sweep.csv"
    path.write_text(path.read_text().replace(",blur,", ",noise,"))
    workdirs = dict(gathered.workdirs) | {("mixup", 0): str(other)}
    (tmp_path / "report").mkdir()
    text = study_occlusion.section(
        dataclasses.replace(gathered, workdirs=workdirs), tmp_path / "report"
    )
    assert "Left out, because of other removals or images: mixup seed 0." in text
    assert ">mixup<" not in text


def test_a_study_without_results(tmp_path):
    studies.asked(tmp_path, ("baseline", "cutmix"), (0,))
    text = reports.Page(writing.write_report(tmp_path)).text
    assert "No run has any result yet." in text
    assert "baseline seed 0: not started" in text
