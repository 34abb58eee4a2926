"""The stage `occlude`: what it writes, what it skips, and what cannot work."""

import csv
import dataclasses

import numpy as np
import pytest
import toy

from mixaug_jax import config as config_lib
from mixaug_jax.draw import occlusion_figures, occlusion_tables
from mixaug_jax.occlusion import grid, sweeping
from mixaug_jax.stages import occlude

TABLES = {"sweep.npz", "sweep.csv", "rises.png", "rises.svg", "rises.pdf", "checksums.json"}


def settings(**options):
    config = toy.config(epochs=1)
    small = {"rankings": ("gradient_x_input",), "shares": (10, 50), "values": ("zero", "blur")}
    config.occlude.update({"max_images": 10, "light": 4, "replicates": 50} | small | options)
    return config


@pytest.fixture
def workdir(trained, tmp_path, monkeypatch):
    """A trained run without results."""
    toy.use(monkeypatch, lambda split: toy.splits()[split])
    return toy.copy_run(trained, tmp_path / "run")


@pytest.fixture
def swept(monkeypatch):
    """The indices of images that are swept."""
    counts, sweep = [], occlude.sweep

    def counted(net, dataset, indices, options, **more):
        counts.append(len(indices))
        return sweep(net, dataset, indices, options, **more)

    monkeypatch.setattr(occlude, "sweep", counted)
    return counts


def test_what_it_writes(workdir, capsys):
    config = settings(labels=("true", "predicted", 3))
    occlude.run(config, workdir)
    folder = workdir / "occlusion"
    curves = {f"curves_gradient_x_input.{e}" for e in ("png", "svg", "pdf")}
    assert {path.name for path in folder.iterdir()} == TABLES | curves
    result = sweeping.load(folder / "sweep.npz")
    assert result.labels == ("true", "predicted", "3")
    assert result.indices.tolist() == [0, 3, 7, 11, 14, 18, 22, 25, 29, 33], "of the test split"
    assert result.grid.selections == grid.Grid().selections
    found = sweeping.outcome(result, replicates=50)
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == occlusion_tables.HEADER
    assert len(rows) == 3 * 1 * 3 * 2 * 2
    row = next(
        r for r in rows if (r["label"], r["selection"], r["share"]) == ("true", "lowest", "50")
    )
    place = (0, 0, 1, 1, 0)
    assert row["value"] == "zero"
    assert float(row["accuracy_change"]) == pytest.approx(found.accuracy[place], abs=1e-6)
    assert float(row["loss_high"]) == pytest.approx(found.loss_interval[place][1], rel=1e-5)
    assert float(row["first_order_loss_change"]) == pytest.approx(
        found.first_order[place], rel=1e-5
    )
    assert float(row["leak_loss"]) == pytest.approx(found.leak_loss[place[1:]], rel=1e-5)
    assert {r["leak_loss"] for r in rows if r["label"] != "true"} == {""}
    said = capsys.readouterr().out
    assert "a grid of 1 x 3 x 2 x 2 cells (rankings, selections, shares, values), 10 images" in said
    assert "ranked by the loss of the true label: accuracy rises in" in said
    assert "ranked by the loss of class 3: accuracy rises in" in said
    assert f"written to {folder}: sweep.npz, sweep.csv, rises, curves_gradient_x_input" in said


def test_the_same_again_computes_nothing_and_other_settings_do(workdir, swept, monkeypatch, capsys):
    occlude.run(settings(), workdir)
    capsys.readouterr()
    (workdir / "occlusion" / "rises.svg").unlink()
    occlude.run(settings(replicates=60), workdir)
    assert swept == [10]
    assert "already there" in capsys.readouterr().out
    assert (workdir / "occlusion" / "rises.svg").exists()
    monkeypatch.setattr(
        occlude, "save_figure", lambda *arguments, column: None
    )  # it takes its time
    changes = (
        {"seed": 1},
        {"labels": ("true",)},
        {"max_images": 9},
        {"rankings": ("abs_gradient",)},
    )
    for k, changed in enumerate(changes, 2):
        occlude.run(settings(**changed), workdir)
        assert len(swept) == k, changed
    assert not list((workdir / "occlusion").glob("curves_*")), "of another grid"


def test_the_light_form(workdir, swept, monkeypatch, capsys):
    """A part of the images, unless more are swept already; classes that do not fit are said."""
    monkeypatch.setattr(occlude, "save_figure", lambda *arguments, column: None)
    occlude.run(settings(light=0), workdir, required=False)
    assert not (workdir / "occlusion").exists()
    occlude.run(settings(), workdir, required=False)
    occlude.run(settings(), workdir)
    occlude.run(settings(), workdir, required=False)
    assert swept == [4, 10]
    occlude.run(settings(seed=1), workdir, required=False)
    assert swept == [4, 10, 4]
    odd = dataclasses.replace(toy.source(), class_names=("one", "two"))
    toy.use(monkeypatch, lambda split: odd)
    occlude.run(settings(), workdir, required=False)
    assert (
        "left out, because the network has 4 classes and the data set 2" in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="occlude: the network has 4 classes and the data set 2"):
        occlude.run(settings(), workdir)


def test_the_light_form_of_another_split_or_data_set(workdir, swept, monkeypatch):
    """A sweep of more images takes the place of fewer of the same split only."""
    monkeypatch.setattr(occlude, "save_figure", lambda *arguments, column: None)
    monkeypatch.setattr(occlude.checkpoint, "check_settings", lambda *arguments: None)
    occlude.run(settings(), workdir)
    made = sweeping.load(workdir / "occlusion" / "sweep.npz").settings
    assert (made["dataset"], made["split"]) == ("scenes", "test")
    occlude.run(settings(split="test"), workdir, required=False)
    assert swept == [10]
    occlude.run(settings(split="validation"), workdir, required=False)
    assert swept == [10, 4]
    occlude.run(settings(), workdir)
    other = settings()
    other.data.name = "folder"
    occlude.run(other, workdir, required=False)
    assert swept == [10, 4, 10, 4]


def test_every_checkpoint(workdir, monkeypatch):
    monkeypatch.setattr(occlude, "save_figure", lambda *arguments, column: None)
    occlude.run(settings(), workdir, which="all")
    found = [sweeping.load(workdir / "occlusion" / step / "sweep.npz") for step in ("2", "4")]
    assert found[0].settings["weights"] != found[1].settings["weights"]
    compared = sweeping.compare(dict(zip(("early", "late"), found, strict=True)), replicates=20)
    both = [sweeping.outcome(swept, replicates=20) for swept in found]
    difference = both[1].accuracy - both[0].accuracy
    np.testing.assert_allclose(compared.accuracy[0], difference, atol=1e-12)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "shares",
            (5, 101),
            r"occlude\.shares must be a number at least 0 and at most 100; got 101",
        ),
        ("shares", (-5,), r"occlude\.shares must be a number at least 0 and at most 100; got -5"),
        ("rankings", ("saliency",), r"occlude\.rankings must be one of gradient, .*got 'saliency'"),
        ("grid", "half", r"occlude\.grid must be one of default, full; got 'half'"),
        ("window", (0, 1), r"each of occlude\.window must be an integer of at least 1"),
        (
            "labels",
            ("wrong",),
            r"each of occlude\.labels must be true, predicted, or a class's number",
        ),
        ("labels", (), r"occlude\.labels must be a list of one or more values"),
        ("split", "val", r"occlude\.split must be one of '', train, validation, test; got 'val'"),
        ("max_images", -1, r"occlude\.max_images must be an integer of at least 0"),
        ("replicates", 0, r"occlude\.replicates must be an integer of at least 1"),
        ("batch", 0, r"occlude\.batch must be an integer of at least 1"),
        ("window", (4, 17), r"occlude\.window must not be larger than the image's \(16, 16\)"),
        ("labels", ("true", 4), r"occlude\.labels names class 4; the classes are 0..3"),
    ],
)
def test_bad_settings_are_said_before_any_compile(workdir, key, value, message):
    config = settings(**{key: value})
    for run in (lambda: occlude.check(config), lambda: occlude.run(config, workdir)):
        with pytest.raises(ValueError, match=message):
            run()
    assert not (workdir / "occlusion").exists()


def test_the_split_is_test_where_there_is_one(workdir, monkeypatch):
    opened = []
    toy.use(monkeypatch, lambda split: opened.append(split) or toy.splits()[split])
    config = settings()
    occlude.check(config)
    config.data.test_split = ""
    occlude.check(config)
    assert opened == ["test", "validation"]
    config.occlude.split = "test"
    with pytest.raises(ValueError, match=r"occlude\.split='test', but data\.test_split is empty"):
        occlude.check(config)


def test_defaults_are_those_of_the_functions():
    config = config_lib.get_config()
    assert occlude.options_of(config) == sweeping.Options(batch_size=config.occlude.batch)
    assert grid.from_config(config.occlude) == grid.Grid()
    with config_lib.get_config().unlocked() as config:
        config.occlude.grid = "full"
    assert grid.from_config(config.occlude) == grid.FULL


def test_figures_show_every_cell(workdir):
    """The map has a cell for each score, selection, share and value; dots where accuracy rises."""
    occlude.run(settings(), workdir)
    result = sweeping.load(workdir / "occlusion" / "sweep.npz")
    found = sweeping.outcome(result, replicates=50)
    rises = np.zeros_like(found.rises)
    rises[0, 0, 1, 1, 0] = True
    figure = occlusion_figures.rises(result, dataclasses.replace(found, rises=rises))
    upper, lower = figure.axes[:2]
    np.testing.assert_allclose(
        upper.images[0].get_array(), 100 * found.accuracy[0].reshape(3, 4), atol=1e-9
    )
    assert upper.collections[0].get_offsets().tolist() == [[2, 1]]
    assert not len(lower.collections[0].get_offsets())
    title = f"accuracy rises in {found.rising[0]} of {found.removals} different removals (1 of 12 cells)"
    assert title in upper.get_title(loc="left")
    assert [t.get_text() for t in upper.get_yticklabels()][1] == "gradient x input, lowest"
    curves = occlusion_figures.curves(result, found, "gradient_x_input", label=1)
    panel = curves.axes[1]
    assert panel.get_title() == "lowest"
    assert curves.axes[0].get_ylabel().endswith("logarithmic beyond ±1")
    np.testing.assert_allclose(
        panel.lines[1].get_ydata(), 100 * found.accuracy[1, 0, 1, :, 1], atol=1e-9
    )
