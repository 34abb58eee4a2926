"""Of which checkpoint the results are that a page shows, and what it says where that is not the latest one."""

import csv
import shutil
import types

import pytest
import reports
import toy

import mixaug_jax
from mixaug_jax import data
from mixaug_jax.core import files
from mixaug_jax.report import writing
from mixaug_jax.report.run import age
from mixaug_jax.report.run.found_files import Steps, latest, results_of, steps_of_run
from mixaug_jax.report.study import study_page
from mixaug_jax.stages import explain
from mixaug_jax.training import weight_log


def settings(epochs):
    config = toy.config(epochs=epochs, keep_every=1.0)
    quick = {"methods": ("gradient",), "scores": ("sparseness",), "max_images": 8, "replicates": 5}
    config.explain.update(quick)
    return config


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A run of 4 steps that was explained and then went on to 8."""
    workdir = tmp_path_factory.mktemp("extended")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_splits", lambda config: toy.splits())
        toy.use(patch, toy.source(21, seed=2))
        mixaug_jax.train(settings(1), workdir)
        explain.run(settings(1), workdir)
        first = reports.Page(writing.write_report(workdir)).text
        mixaug_jax.train(settings(2), workdir)
        second = reports.Page(writing.write_report(workdir)).text
        explain.run(settings(2), workdir, which="all")
        third = reports.Page(writing.write_report(workdir)).text
    return workdir, (first, second, third)


def test_older_results_are_said_to_be(extended):
    _, (first, second, _) = extended
    assert "Results of step 4, the latest checkpoint." in first
    assert "not all results are of it" not in first
    said = "These are results of step 4, and the latest checkpoint is that of step 8"
    assert f"{said}: --stage=explain brings them up to date." in second
    assert "is that of step 8, but not all results are of it (explain: step 4)." in second


def test_the_newest_results_are_shown(extended):
    workdir, (*_, third) = extended
    assert "Results of step 8, the latest checkpoint." in third
    assert "not all results are of it" not in third
    # Those of step 4 are still in the stage's own folder.
    assert results_of(workdir / "attribution", steps_of_run(workdir))["gradient"] == 4
    with (workdir / "report" / "scores.csv").open(newline="") as file:
        shown = {row["method"]: float(row["sparseness"]) for row in csv.DictReader(file)}
    with (workdir / "attribution" / "8" / "scores.csv").open(newline="") as file:
        stored = {row["method"]: float(row["mean"]) for row in csv.DictReader(file)}
    assert shown == stored


def test_one_older_file_is_named(extended, tmp_path):
    workdir, _ = extended
    copied = tmp_path / "run"
    shutil.copytree(workdir, copied)
    shutil.copy(copied / "attribution" / "gradient.npz", copied / "attribution" / "8")
    text = reports.Page(writing.write_report(copied)).text
    assert "results of step 4 (gradient), step 8 (random, center, sobel)" in text
    # Weights that no checkpoint had, as of a network that was trained again from the start.
    noted = weight_log.read(copied)
    (copied / "weights.json").write_text(f'{{"8": {noted[8] + 1}}}')
    assert (
        "These are results of weights that no checkpoint of this run had"
        in reports.Page(writing.write_report(copied)).text
    )


def test_the_weights_of_every_checkpoint_are_noted(extended):
    workdir, _ = extended
    noted = weight_log.read(workdir)
    assert sorted(noted) == [4, 8]
    for step, check in noted.items():
        assert files.checksum(mixaug_jax.load(workdir, step).variables) == check
    # A page can be made where the checkpoints are gone; one that was set aside is not the latest.
    assert steps_of_run(workdir) == Steps({check: step for step, check in noted.items()}, 8)


def test_what_is_not_known_is_not_claimed(tmp_path):
    (tmp_path / "weights.json").write_text("[]")
    known = steps_of_run(tmp_path)
    assert known == Steps({}, -1)
    assert age.notes(known, {"explain": {"gradient": -1}}, "explain") == []
    assert age.warning(known, {"explain": {"gradient": -1}}) == []
    assert latest(tmp_path / "attribution", "scores.csv", known) == tmp_path / "attribution"


def test_a_study_says_which_run_has_older_results(extended):
    workdir, _ = extended
    study = types.SimpleNamespace(workdirs={("cutmix", 1): str(workdir), ("mixup", 0): "/nowhere"})
    assert study_page._older(study) == [
        "cutmix, seed 1: The latest checkpoint is that of step 8, but not all results are of it (explain: step 4)."
    ]
