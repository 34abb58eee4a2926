"""The stage `explain`: what it writes, what it skips, where regions come from, and what cannot work."""

import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
import toy

import mixaug_jax
from mixaug_jax import data
from mixaug_jax.attribution import METHODS
from mixaug_jax.core import checks
from mixaug_jax.explain import evaluation, regions, running
from mixaug_jax.models import imagenet
from mixaug_jax.scores import SCORES
from mixaug_jax.stages import explain

ROOT = pathlib.Path(__file__).parents[2]
FIGURES = {f"{name}.{e}" for name in ("curves", "overlays") for e in ("png", "svg", "pdf")}
CONTROLS = ("random", "center", "sobel")


def files_of(*methods):
    tables = {"scores.csv", "images.csv", "entries.json", "checksums.json"}
    return {f"{m}.npz" for m in (*methods, *CONTROLS)} | tables | FIGURES


def settings(**options):
    """The gradient, no curves, and nothing that takes long."""
    config = toy.config(epochs=1, keep_every=0.5)
    quick = {"methods": ("gradient",), "scores": ("pointing_game", "energy_pointing_game")}
    quick |= {"max_images": 8, "replicates": 5}
    config.explain.update(quick | options)
    return config


def boxed(**fields):
    """The toy's pictures, a box on the right half, called as their class; the third picture has none."""
    plain = toy.source(21, seed=2)

    def read(i):
        example = plain[i]
        boxes = np.float32([[0, 8, 16, 16]][: i != 2])
        return example | {
            "boxes": boxes,
            "box_labels": np.full(len(boxes), example["label"], np.int32),
        }

    given = {"box_names": plain.class_names} | fields
    return dataclasses.replace(plain, read=read, **given)


@pytest.fixture
def workdir(trained, tmp_path, monkeypatch):
    """A trained run without results; images with boxes."""
    toy.use(monkeypatch, boxed())
    return toy.copy_run(trained, tmp_path / "run")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_it_writes(workdir, capsys):
    config = settings(scores=("pointing_game", "energy_pointing_game", "deletion"), max_images=0)
    config.explain.options.deletion.window = 8
    explain.run(config, workdir)
    folder = workdir / "attribution"
    assert {path.name for path in folder.iterdir()} == files_of("gradient")
    found = {m: evaluation.load(folder / f"{m}.npz") for m in ("gradient", *CONTROLS)}
    one = found["gradient"]
    assert one.indices.tolist() == list(range(21))
    assert one.labels.tolist() == [boxed()[i]["label"] for i in range(21)]
    assert one.settings["options"] == {"output": "logit", "key": 0}
    assert one.settings["scores"]["deletion"]["window"] == 8
    assert (one.settings["region"], one.settings["split"]) == ("class_boxes", "validation")
    told = json.loads((folder / "entries.json").read_text())
    assert told == {
        method: result.entries | {"images": 21, "empty": result.empty}
        for method, result in found.items()
    }
    assert [told[m]["kind"] for m in told] == ["method", *["control"] * 3]
    assert told["gradient"]["scores"]["deletion"]["better"] == -1
    with np.load(folder / "gradient.npz") as file:
        stored = set(file.files)
        assert file["heat"].dtype == np.float32
        assert file["score.pointing_game"].dtype == np.float64
        assert file["curve.deletion"].shape == (21, 3)
        assert json.loads(str(file["settings"])) == one.settings
    assert {"heat", "indices", "labels", "predicted", "score.background_attribution"} <= stored
    table = rows(folder / "scores.csv")
    assert list(table[0]) == [
        "method",
        "kind",
        "score",
        "mean",
        "low",
        "high",
        "images",
        "left_out",
    ]
    assert [r["method"] for r in table if r["score"] == "deletion"] == ["gradient", *CONTROLS]
    assert {r["kind"] for r in table if r["method"] in CONTROLS} == {"control"}
    energy = {r["method"]: r for r in table if r["score"] == "energy_pointing_game"}
    for method, row in energy.items():
        values = found[method].scores["energy_pointing_game"]
        assert float(row["mean"]) == pytest.approx(np.nanmean(values), abs=1e-5)
        assert (row["images"], row["left_out"]) == ("20", "1")
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    background = next(r for r in table if r["score"] == "background_attribution")
    assert float(background["mean"]) == pytest.approx(
        1 - float(energy["gradient"]["mean"]), abs=1e-5
    )
    said = capsys.readouterr().out
    assert "explaining step 4: gradient, random, center, sobel; 21 images, true class" in said
    assert "regions from class_boxes, 1 images without one" in said
    assert "written to" in said


def test_the_same_again_computes_nothing_and_other_settings_do(workdir, monkeypatch, capsys):
    computed = []
    evaluate_method = running.evaluate_method

    def counted(net, examples, method, *arguments, **options):
        computed.append(method)
        return evaluate_method(net, examples, method, *arguments, **options)

    monkeypatch.setattr(running, "evaluate_method", counted)
    monkeypatch.setattr(explain, "_draw", lambda *arguments: None)  # it takes its time
    explain.run(settings(), workdir)
    assert computed == ["gradient", *CONTROLS]
    computed.clear()
    capsys.readouterr()
    explain.run(settings(memory_gb=0.0, replicates=3), workdir)
    assert not computed
    assert "already there" in capsys.readouterr().out
    explain.run(settings(methods=("gradient", "input_x_gradient")), workdir)
    assert computed == ["input_x_gradient"]
    changes = (
        {"max_images": 7},
        {"reduce": "abs_max"},
        {"label": "predicted"},
        {"region": "boxes"},
    )
    for changed in (*changes, {"scores": ("sparseness",)}, {"split": "test"}):
        computed.clear()
        explain.run(settings(**changed), workdir)
        assert "gradient" in computed, changed
    computed.clear()
    config = settings(methods=("gradient", "input_x_gradient"), split="test")
    config.explain.options.input_x_gradient.output = "prob"
    explain.run(config, workdir)
    assert computed == ["input_x_gradient"]
    computed.clear()
    (workdir / "attribution" / "center.npz").write_bytes(b"half a file")
    explain.run(config, workdir)
    assert computed == ["center"]
    toy.use(monkeypatch, dataclasses.replace(toy.source(21, seed=5), box_names=("a",)))
    computed.clear()
    explain.run(config, workdir)
    assert computed == ["gradient", "input_x_gradient", *CONTROLS], "other images"


def test_every_checkpoint(workdir):
    explain.run(settings(), workdir, which="all")
    found = [
        evaluation.load(workdir / "attribution" / step / "gradient.npz") for step in ("2", "4")
    ]
    assert found[0].settings["weights"] != found[1].settings["weights"]
    assert np.abs(found[0].heat - found[1].heat).max() > 0
    for step in ("2", "4"):
        names = {path.name for path in (workdir / "attribution" / step).iterdir()}
        assert names == files_of("gradient")
    explain.run(settings(), workdir, which="best")
    assert (workdir / "attribution" / "gradient.npz").exists()
    with pytest.raises(ValueError, match=r"'3' is not in .*; allowed: latest, best, all, 2, 4"):
        explain.run(settings(), workdir, which="3")


def test_without_regions(workdir, monkeypatch, capsys):
    toy.use(monkeypatch, toy.source(21, seed=2))
    config = settings(scores=("pointing_game", "sparseness"))
    with pytest.raises(
        ValueError, match=r"left out pointing_game, because scenes has no boxes and no masks"
    ):
        explain.run(config, workdir)
    assert not (workdir / "attribution").exists()
    explain.check(config)
    explain.run(config, workdir, required=False)
    said = capsys.readouterr().out
    assert said.count("left out pointing_game, because scenes has no boxes") == 1
    assert set(evaluation.load(workdir / "attribution" / "gradient.npz").scores) == {"sparseness"}


def test_images_of_other_classes(workdir, monkeypatch, capsys):
    toy.use(monkeypatch, boxed(class_names=("photo",), box_names=("photo",)))
    with pytest.raises(ValueError, match="the network has 4 classes and the data set 1") as caught:
        explain.run(settings(), workdir)
    assert "is explained" not in str(caught.value)  # for nothing is
    explain.run(settings(), workdir, required=False)
    assert "the predicted class is explained" in capsys.readouterr().out
    found = evaluation.load(workdir / "attribution" / "gradient.npz")
    np.testing.assert_array_equal(found.labels, found.predicted)
    assert found.settings["region"] == "boxes"


def test_some_of_imagenets_classes_have_their_own_labels(workdir, monkeypatch):
    """Here ImageNet has four classes; the data has two of them, with boxes that are called like them."""
    monkeypatch.setattr(imagenet, "CLASSES", 4)
    monkeypatch.setattr(imagenet, "wnids", lambda: ("n00", "n01", "n02", "n03"))
    plain, names = boxed(), ("n01", "n03")

    def read(i):
        example = plain[i]
        number = np.full(len(example["boxes"]), i % 2, np.int32)
        return example | {"label": i % 2, "box_labels": number}

    part = dataclasses.replace(plain, read=read, class_names=names, box_names=names)
    toy.use(monkeypatch, part)
    explain.run(settings(), workdir)
    found = evaluation.load(workdir / "attribution" / "gradient.npz")
    np.testing.assert_array_equal(found.labels, np.where(found.indices % 2, 3, 1))
    assert found.settings["region"] == "class_boxes"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("methods", ("grad",), "each of explain.methods must be one of .*deconvnet.*'grad'"),
        ("scores", ("auc",), "each of explain.scores must be one of .*best_box_iou.*'auc'"),
        ("layer", "layer4", "explain.layer must be one of relu1, relu3, relu4; got 'layer4'"),
        ("split", "val", "explain.split must be one of train, validation, test; got"),
        ("label", "given", "explain.label must be one of true, predicted, mapped; got 'given'"),
        ("region", "mask", "explain.region must be one of auto, .*'mask'"),
        ("reduce", "max", "explain.reduce must be one of auto, .*'max'"),
        ("max_images", -1, "explain.max_images must be an integer of at least 0"),
        ("reference", 1, "explain.reference must be an integer of at least 2"),
        ("memory_gb", -1.0, "explain.memory_gb must be a number at least 0"),
        ("boxes", "nowhere.csv", "the boxes nowhere.csv cannot be read: No such file"),
    ],
)
def test_bad_settings_are_said_before_any_compile(workdir, key, value, message):
    config = settings(**{key: value})
    for call in (lambda: explain.check(config), lambda: explain.run(config, workdir)):
        with pytest.raises(ValueError, match=message):
            call()
    assert not (workdir / "attribution").exists()


def test_options_that_do_not_fit_are_said_before_any_compile(workdir, monkeypatch):
    monkeypatch.setattr(running, "evaluate_method", unreachable)
    config = settings(methods=("occlusion",))
    config.explain.options.occlusion.window = 40
    with pytest.raises(
        ValueError, match="window must not be longer than the image's side of 16 pixels; got 40"
    ):
        explain.run(config, workdir)


@pytest.mark.parametrize(
    ("entry", "option", "value", "message"),
    [
        ("gradient", "output", "abc", "output must be one of logit, prob, loss; got 'abc'"),
        # Of entries that are not even asked for.
        ("gradcam", "output", "abc", "output must be one of logit, prob, loss; got 'abc'"),
        ("layercam", "layer", "fc", "layer must be one of relu1, relu3, relu4; got 'fc'"),
        ("road", "order", "up", "order must be one of morf, lerf; got 'up'"),
        ("max_sensitivity", "radius", -1.0, "radius must not be negative; got -1.0"),
        ("pointing_game", "tolerance", -3, "tolerance must not be negative; got -3"),
    ],
)
def test_options_of_every_entry_are_said_before_a_training(workdir, entry, option, value, message):
    config = settings()
    explain.check(config)
    config.explain.options[entry][option] = value
    with pytest.raises(ValueError, match=message):
        explain.check(config)


def cannot(net, image, label):
    raise checks.UnsupportedError("this network has no such thing")


def unheard_of(explain, net, image, label):
    raise checks.UnsupportedError("nobody draws its weights again")


def bright(net, image, label, *, gain=2.0):
    return gain * image


def test_what_a_network_cannot_do_is_left_out(workdir, monkeypatch, capsys):
    """A method or a score, where they are part of all; entries that were added to the dicts are there by name."""
    for table, entry in ((METHODS, cannot), (METHODS, bright), (SCORES, unheard_of)):
        monkeypatch.setitem(table, entry.__name__, entry)
    config = settings(methods=("cannot", "bright"), scores=("unheard_of", "mass_accuracy"))
    explain.check(config)
    with pytest.raises(ValueError, match="this network has no such thing"):
        explain.run(config, workdir)
    assert not (workdir / "attribution").exists()
    explain.run(config, workdir, required=False)
    said = capsys.readouterr().out
    assert "explain: cannot is left out, because this network has no such thing" in said
    assert "explain: unheard_of is left out, because nobody draws its weights again" in said
    folder = workdir / "attribution"
    assert {path.name for path in folder.iterdir()} == files_of("bright")
    found = evaluation.load(folder / "bright.npz")
    assert set(found.scores) == {"mass_accuracy"}
    assert found.settings["options"] == {"gain": 2.0, "key": 0}
    assert set(found.settings["code"]) == {"bright"}
    # What cannot work for another reason is said although something before it is left out.
    config = settings(methods=("cannot", "gradcam"))
    config.explain.options.gradcam.output = "abc"
    with pytest.raises(ValueError, match="output must be one of"):
        explain.check(config)


def unreachable(*arguments, **options):
    raise AssertionError("computed something")


def test_a_split_that_is_not_there(workdir):
    config = settings(split="test")
    config.data.test_split = ""
    with pytest.raises(ValueError, match=r"explain\.split='test', but data\.test_split is empty"):
        explain.check(config)


def test_a_folder_with_boxes_from_files(tmp_path, workdir, monkeypatch):
    """Boxes of annotations.json and of a CSV, in stored pixels, follow the network's resize and crop."""
    draw = np.random.default_rng(0)
    notes, lines = {}, ["ImageId,PredictionString"]
    for split in ("train", "val"):
        for k in range(4):
            path = tmp_path / "photos" / split / f"level {k}" / f"{split}{k}.png"
            path.parent.mkdir(parents=True)
            PIL.Image.fromarray(draw.integers(0, 256, (32, 64, 3), np.uint8)).save(path)
            notes[str(path.relative_to(tmp_path / "photos"))] = {"boxes": [["head", 0, 32, 16, 64]]}
            lines.append(f"{split}{k},level {k} 32 0 64 16".replace("level ", "level_"))
    (tmp_path / "photos" / "annotations.json").write_text(json.dumps(notes))
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    config = settings(max_images=0)
    monkeypatch.undo()  # the real data sets
    config.data.name = "folder"
    config.data.dir = str(tmp_path / "photos")
    source = data.open_source("validation", config)
    assert [source.file_name(i) for i in range(4)] == [f"val{k}.png" for k in range(4)]
    net = mixaug_jax.load(workdir)
    wanted = {"methods": (), "scores": ("mass_accuracy",), "devices": jax.devices()[:1]}
    heads = mixaug_jax.evaluate(net, source, **wanted)["center"]
    assert heads.settings["region"] == "boxes"
    # 32 x 64 becomes 16 x 32, whose middle is 16 wide: the box covers its upper right quarter.
    heat = heads.heat[0]
    expected = heat[:8, 8:].sum() / heat.sum()
    np.testing.assert_allclose(heads.scores["mass_accuracy"], [expected] * 4, rtol=1e-5)
    files = mixaug_jax.evaluate(net, regions.add_boxes(source, tmp_path / "boxes.csv"), **wanted)
    np.testing.assert_allclose(files["center"].scores["mass_accuracy"], [expected] * 4, rtol=1e-5)


def test_command_line(tmp_path):
    """Training, and the light stages after it, of a tiny network; then the stage by name."""
    command = [
        *(sys.executable, "-m", "mixaug_jax.main", "--config=configs/baseline.py"),
        *(f"--workdir={tmp_path / 'run'}", f"--config.data.dir={tmp_path / 'scenes'}"),
        *("--config.data.size=32", "--config.data.batch_size=8", "--config.train.steps=2"),
        *(f"--config.data.scenes.{s}=12" for s in ("train", "validation", "test")),
        *("--config.model.name=tiny", "--config.model.width=0.5", "--config.eval.batch_size=12"),
    ]
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    quick |= {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    quick |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}

    def call(*more):
        return subprocess.run(
            [*command, *more], cwd=ROOT, env=os.environ | quick, capture_output=True, text=True
        )

    done = call("--stage=train")
    assert done.returncode == 0, done.stderr
    chosen = ("--stage=explain", "--config.explain.methods=('occlusion',)")
    done = call(
        *chosen, "--config.explain.max_images=4", "--config.explain.scores=('mass_accuracy',)"
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run" / "attribution"
    assert {path.name for path in folder.iterdir()} == files_of("occlusion")
    assert evaluation.load(folder / "occlusion.npz").settings["region"] == "class_masks"
