"""The stage `intervene`: what it writes, what it skips, what it needs of a dissection, and what cannot work."""

import csv
import dataclasses
import pathlib

import jobs
import numpy as np
import pytest
import toy

from mixaug_jax import dissection
from mixaug_jax.core import files
from mixaug_jax.dissection import (
    activations,
    intervening,
    interventions,
    removal_result,
    unit_sets,
)
from mixaug_jax.report.run import run_interventions
from mixaug_jax.stages import dissect, intervene

NAMES = (("none", "none"), ("even", "object"), ("odd", "object"))
TABLES = {"units.csv", "classes.csv", "concepts.csv", "orders.csv", "checksums.json"}


def source(split):
    """The toy's pictures; their brighter places show whether the class is even or odd."""
    plain = toy.splits()[split]

    def read(i):
        example = plain[i]
        bright = example["image"][..., :1] > 60 + 40 * example["label"]
        return example | {"concepts": (bright * (1 + example["label"] % 2)).astype(np.uint8)}

    return dataclasses.replace(plain, read=read, concept_names=NAMES)


def settings(**options):
    config = toy.config(epochs=1, keep_every=0.5)
    config.dissect.update(
        {"max_images": 16, "shuffles": 0, "random_baseline": False, "iou": (0.01,)}
    )
    config.dissect.colors = "off"
    config.intervene.update({"max_images": 20} | options)
    return config


@pytest.fixture
def workdir(trained, tmp_path, monkeypatch):
    """A trained run without results."""
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    toy.use(monkeypatch, source)
    return toy.copy_run(trained, tmp_path / "run")


@pytest.fixture
def removed(monkeypatch):
    """(layer, sets) of each walk over images."""
    calls, whole = [], interventions.remove

    def counted(net, dataset, indices, layer, sets, *arguments, **more):
        calls.append((layer, len(indices), len(sets)))
        return whole(net, dataset, indices, layer, sets, *arguments, **more)

    monkeypatch.setattr(intervening, "remove", counted)
    return calls


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_it_writes(workdir, removed, capsys, monkeypatch):
    config, told = settings(layers=("relu4",)), []
    monkeypatch.setattr(intervene.processes, "compare", lambda what, given: told.append(given))
    dissect.run(config, workdir)
    intervene.run(config, workdir)
    assert [*told[-1]] == ["detected"]  # processes that see another dissection do not go on
    assert told[-1]["detected"] is not None
    folder = workdir / "interventions"
    figures = {f"removals_relu4.{ending}" for ending in ("png", "svg", "pdf")}
    assert {p.name for p in folder.iterdir()} == TABLES | figures | {"relu4.npz"}
    result = removal_result.load(folder / "relu4.npz")
    # Importance on training images, all else on the test split.
    assert removed[0] == ("relu4", 20, 16)
    assert removed[1] == ("relu4", 20, len(result.sets))
    assert result.settings["split"] == "test"
    assert result.indices.tolist() == (np.arange(20) * 37 // 20).tolist()
    units = rows(folder / "units.csv")
    assert [int(row["unit"]) for row in units] == list(range(16))
    means, (_, index) = result.class_means(), removal_result.selectivity(result.class_means())
    for unit, row in enumerate(units):
        assert row["selective_for"] == f"level {means[:, unit].argmax()}"
        assert float(row["selectivity"]) == pytest.approx(index[unit], abs=1e-5)
        assert float(row["importance"]) == pytest.approx(result.importance[unit].max(), abs=1e-5)
        assert float(row["iou"]) == pytest.approx(result.detected.iou[unit], abs=1e-5)
        low, drop, high = (float(row[f"heldout_{k}"]) for k in ("low", "drop", "high"))
        assert low <= drop <= high
    # Half of the classes show each concept: those whose number is even, or odd.
    np.testing.assert_allclose(result.detected.shown[:, 1:], np.eye(2)[[0, 1, 0, 1]], atol=1e-12)
    assert result.detected.showing(1).tolist() == [0, 2]
    orders = rows(folder / "orders.csv")
    assert {row["order"] for row in orders} == {unit_sets.RANDOM, unit_sets.HIGH, unit_sets.LOW}
    # Without any unit there is one prediction for all images: chance.
    assert {float(row["balanced_accuracy"]) for row in orders if row["share"] == "1.0000"} == {0.25}
    classes = rows(folder / "classes.csv")
    assert len(classes) == 4 * 2 * 4
    said = capsys.readouterr().out
    assert (
        "intervening on step 4: relu4; 20 training images name important units, 20 others" in said
    )
    assert "relu4: 16 units, 20 images, balanced accuracy" in said
    assert "area under the accuracy" in said
    # A part of the page, from the same files.
    (workdir / "report").mkdir()
    part = run_interventions.section(folder, workdir / "report", [], 3.25)
    assert "relu4 has 16 units; with all of them the balanced accuracy is" in part
    assert files.read_csv(workdir / "report" / "intervention_units.csv")[0]["layer"] == "relu4"
    # What the page's browser says of units is of the same weights.
    dissected = dissection.load(workdir / "dissection" / "relu4.npz")
    (again,) = run_interventions.of(folder, {"relu4": dissected}).values()
    np.testing.assert_array_equal(again.importance, result.importance)
    other = dataclasses.replace(dissected, settings=dissected.settings | {"weights": 1})
    assert run_interventions.of(folder, {"relu4": other, "relu3": dissected}) == {}


SOME = {"layers": ("relu3", "relu4"), "sets": ("units", "important"), "max_images": 13}
JOB = """
sys.path.insert(0, {folder!r})
import pytest, test_intervene, toy
from mixaug_jax.stages import intervene
toy.use(pytest.MonkeyPatch(), test_intervene.source)
intervene.run(test_intervene.settings(**test_intervene.SOME), {workdir!r})
"""


def test_the_same_by_one_device_by_four_and_by_two_processes(workdir, tmp_path):
    """By running the rest of the network (relu3) and by adding parts (relu4)."""
    folders = [workdir]
    for processes in (1, 2):
        folders.append(toy.copy_run(workdir, tmp_path / f"of{processes}"))
        body = JOB.format(folder=str(pathlib.Path(__file__).parent), workdir=str(folders[-1]))
        ended = jobs.run(tmp_path, body, processes)
        assert [one.code for one in ended] == [0] * processes, ended[0].errors
    intervene.run(settings(**SOME), workdir)
    for layer in SOME["layers"]:
        first, *others = (
            removal_result.load(f / "interventions" / f"{layer}.npz") for f in folders
        )
        assert len(first.sets) > first.units
        for other in others:
            for name in ("labels", "predicted", "clean_predicted", "importance"):
                np.testing.assert_array_equal(getattr(other, name), getattr(first, name), name)
            np.testing.assert_array_equal(other.sets.units, first.sets.units)
            for name in ("loss", "clean_loss", "mean", "importance_loss"):
                np.testing.assert_allclose(
                    getattr(other, name), getattr(first, name), atol=1e-6, err_msg=name
                )


def test_the_same_again_computes_nothing_and_other_settings_do(
    workdir, removed, monkeypatch, capsys
):
    config = settings(layers=("relu4",), sets=("units", "ranks"))
    dissect.run(config, workdir)
    intervene.run(config, workdir)
    assert len(removed) == 2
    (workdir / "interventions" / "removals_relu4.svg").unlink()
    intervene.run(config, workdir)
    assert len(removed) == 2
    assert "already there" in capsys.readouterr().out
    assert (workdir / "interventions" / "removals_relu4.svg").exists()
    monkeypatch.setattr(intervene, "_write", lambda *arguments, again: None)  # it takes its time
    for changed in (
        {"value": "mean"},
        {"value": "0.5"},
        {"seed": 1},
        {"max_images": 12},
        {"sets": ("units",)},
    ):
        before = len(removed)
        intervene.run(
            settings(**{"layers": ("relu4",), "sets": ("units", "ranks")} | changed), workdir
        )
        assert len(removed) == before + 2, changed


def test_without_a_dissection(workdir, capsys):
    """Under --stage=all the sets of detectors are left out, with a line; by name that is an error, unless no set needs it."""
    config = settings(layers=("relu4",))
    intervene.run(config, workdir, required=False)
    assert (
        "there is no dissection of these weights, which names its detectors"
        in capsys.readouterr().out
    )
    result = removal_result.load(workdir / "interventions" / "relu4.npz")
    assert {*result.sets.kind.tolist()} == {
        unit_sets.SINGLE, unit_sets.MOST, unit_sets.LEAST, unit_sets.RANDOM, unit_sets.ALL
    }  # fmt: skip
    assert files.read_csv(workdir / "interventions" / "concepts.csv") == []
    with pytest.raises(ValueError, match="relu4: there is no dissection of these weights"):
        intervene.run(config, workdir)
    intervene.run(settings(layers=("relu4",), sets=("units", "important")), workdir)
    # Of an older checkpoint the dissection speaks of other weights.
    dissect.run(config, workdir, which="2")
    with pytest.raises(ValueError, match="relu4: there is no dissection of these weights"):
        intervene.run(config, workdir)
    with pytest.raises(ValueError, match=r"intervene\.layers must be"):
        intervene.run(settings(layers=("fc",)), workdir)


def test_what_the_data_do_not_allow(workdir, monkeypatch, capsys):
    config = settings()
    toy.use(monkeypatch, lambda split: dataclasses.replace(source(split), class_names=("a", "b")))
    intervene.run(config, workdir, required=False)
    assert "intervene: left out, because the network has 4 classes and the data set 2" in (
        capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="intervene: the network has 4 classes"):
        intervene.run(config, workdir)
    toy.use(monkeypatch, lambda split: dataclasses.replace(source(split), multi_label=True))
    intervene.run(config, workdir, required=False)
    assert "an image may show several classes" in capsys.readouterr().out
    with pytest.raises(ValueError, match="an image may show several classes"):
        intervene.run(config, workdir)
    toy.use(monkeypatch, source)
    monkeypatch.setattr(activations, "last_maps", lambda net, dataset: ())
    said = "no layer of the network has maps of more than one node; name others in intervene"
    intervene.run(config, workdir, required=False)
    assert f"intervene: left out, because {said}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=said):
        intervene.run(config, workdir)
    with pytest.raises(ValueError, match="dissect: no layer of the network has maps"):
        dissect.run(config, workdir)
    intervene.check(config)
    assert not (workdir / "interventions").exists()


@pytest.mark.parametrize(
    ("empty", "said"),
    [
        (("train_split",), r"data\.train_split is empty: importance is measured"),
        (
            ("test_split", "validation_split"),
            r"data\.test_split and data\.validation_split are empty",
        ),
    ],
)
def test_a_split_that_is_not_there_is_named(empty, said):
    config = settings()
    for name in empty:
        config.data[name] = ""
    with pytest.raises(ValueError, match=said):
        intervene._open_splits(config)
