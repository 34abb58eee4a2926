"""The stage `dissect`: what it writes, what it skips, and what cannot work."""

import csv
import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import planted
import pytest
import toy

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import dissection
from mixaug_jax.dissection import activations, network
from mixaug_jax.draw import dissection_figures, unit_pictures
from mixaug_jax.stages import dissect

ROOT = pathlib.Path(__file__).parents[2]
TABLES = {"units.csv", "concepts.csv", "counts.csv", "checksums.json"}


def files_of(*layers):
    kinds, endings = ("unique", "units"), ("png", "svg", "pdf")
    pictures = {f"{k}_{s}.{e}" for k in kinds for s in layers for e in endings}
    return TABLES | pictures | {"pictures"} | {f"{s}.npz" for s in layers}


def settings(**options):
    config = toy.config(epochs=1, keep_every=0.5)
    config.dissect.update({"max_images": 8, "shuffles": 2} | options)
    return config


@pytest.fixture
def workdir(trained, tmp_path, monkeypatch):
    """A trained run without results; images with masks."""
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    toy.use(monkeypatch, planted.source(20))
    return toy.copy_run(trained, tmp_path / "run")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_logical_forms_where_they_are_asked_for(workdir, capsys):
    config = settings(formulas=5, layers=("relu4",))
    dissect.run(config, workdir)
    folder = workdir / "dissection"
    found = dissection.load(folder / "relu4.npz")
    table = rows(folder / "formulas.csv")
    assert [int(row["unit"]) for row in table] == found.formulas.units.tolist()
    assert [row["form"] for row in table] == found.formulas.texts(found.names)
    best = found.top_labels(1)[0][:, 0]
    for row in table:
        assert row["concept"] == found.names[best[int(row["unit"])]][0]
        assert float(row["form_iou"]) >= float(row["iou"]) > 0
        assert (row["above_chance"] == "yes") == (
            float(row["form_iou"]) > float(row["form_chance"])
        )
    assert "logical forms of 5 units; " in capsys.readouterr().out
    mixaug_jax.write_report(workdir)
    page = (workdir / "report" / "report.html").read_text()
    assert "Logical forms" in page
    assert "one layer in 3 would still have such a unit" in page
    assert len(rows(workdir / "report" / "formulas.csv")) == 5
    # Without them nothing is left of them.
    dissect.run(settings(layers=("relu4",)), workdir)
    assert not (folder / "formulas.csv").exists()


def test_what_it_writes(workdir, capsys):
    config = settings()
    config.data.dir = str(workdir.parent / "cache")
    dissect.run(config, workdir)
    folder = workdir / "dissection"
    assert {path.name for path in folder.iterdir()} == files_of("relu3", "relu4")
    (events,) = workdir.glob("events.*")  # for TensorBoard, which shows the figures, too
    assert b"dissection/unique_relu4" in events.read_bytes()
    result = dissection.load(folder / "relu4.npz")
    assert result.names[:5] == planted.NAMES
    assert result.categories == ("object", "part", "material", "color")
    assert result.settings["options"]["shuffles"] == 2
    assert result.indices.tolist() == [0, 2, 5, 7, 10, 12, 15, 17]
    units = rows(folder / "units.csv")
    assert [(r["layer"], int(r["unit"])) for r in units] == [
        *(("relu3", u) for u in range(8)),
        *(("relu4", u) for u in range(16)),
    ]
    labels, values = result.top_labels()
    for unit, row in enumerate(units[8:]):
        assert float(row["threshold"]) == pytest.approx(result.threshold[unit], rel=1e-5)
        assert float(row["iou_1"]) == pytest.approx(values[unit, 0], abs=1e-6)
        if values[unit, 0]:
            assert (row["concept_1"], row["category_1"]) == result.names[labels[unit, 0]]
        assert int(row["image_1"]) == result.top_images[unit, 0]
    counts = rows(folder / "counts.csv")
    assert len(counts) == 2 * 2 * 3 * 5
    found = [r for r in counts if (r["layer"], r["per"]) == ("relu4", "category")]
    assert [int(r["unique"]) for r in found[:4]] == result.counts[1, 1, 0].tolist()
    assert int(found[4]["unique"]) == result.counts[1, 1, 0].sum()
    assert found[4]["category"] == "total"
    assert float(found[0]["detectors_null_mean"]) == result.null[:, 1, 0, 0, 0].mean()
    assert int(found[0]["unique_random"]) == result.random[1, 1, 0, 0]
    present = {r["concept"] for r in rows(folder / "concepts.csv")}
    assert {"cat", "dog", "paw", "fur"} <= present
    said = capsys.readouterr().out
    assert "dissecting step 4: relu3, relu4; 8 images, 15 concepts" in said
    assert "relu4: 16 units, 8 images; unique concepts" in said
    assert "label maps shuffled " in said
    assert "written to" in said


def test_the_same_again_computes_nothing_and_other_settings_do(workdir, monkeypatch, capsys):
    config = settings(layers=("relu3",), random_baseline=False)
    dissect.run(config, workdir)
    before = (workdir / "dissection" / "relu3.npz").stat().st_mtime_ns
    computed = []
    whole = network.dissect

    def counted(net, dataset, layers, options, **more):
        computed.append(layers)
        return whole(net, dataset, layers, options, **more)

    monkeypatch.setattr(network, "dissect", counted)
    capsys.readouterr()
    dissect.run(config, workdir)
    assert not computed
    assert "already there" in capsys.readouterr().out
    assert (workdir / "dissection" / "relu3.npz").stat().st_mtime_ns == before
    config.dissect.layers = ("relu3", "relu4")
    dissect.run(config, workdir)
    assert computed == [["relu4"]]
    monkeypatch.setattr(dissect, "_write", lambda *arguments, **options: None)  # it takes its time
    for changed in (
        {"q": 0.02},
        {"max_images": 7},
        {"iou": (0.1,)},
        {"seed": 1},
        {"colors": "off"},
    ):
        computed.clear()
        dissect.run(settings(**{"layers": ("relu3",), "random_baseline": False} | changed), workdir)
        assert computed == [["relu3"]], changed
    computed.clear()
    toy.use(monkeypatch, planted.source(20, seed=9))
    dissect.run(config, workdir)
    assert computed == [["relu3", "relu4"]], "other images"


def test_an_interrupted_run_starts_cleanly(workdir, monkeypatch):
    config = settings(layers=("relu3",), random_baseline=False)
    with monkeypatch.context() as patch:
        patch.setattr(activations, "collect", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dissect.run(config, workdir)
    folder = workdir / "dissection"
    assert not list(folder.iterdir())
    (folder / "cache").mkdir()  # what a killed run leaves
    (folder / "cache" / "relu3.float32").write_bytes(b"stale")
    (folder / "relu3.npz").write_bytes(b"half a file")
    dissect.run(config, workdir)
    assert {path.name for path in folder.iterdir()} == files_of("relu3")
    assert dissection.load(folder / "relu3.npz").layer == "relu3"


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_every_checkpoint(workdir):
    config = settings(layers=("relu4",), random_baseline=False)
    dissect.run(config, workdir, which="all")
    found = [dissection.load(workdir / "dissection" / s / "relu4.npz") for s in ("2", "4")]
    assert found[0].settings["weights"] != found[1].settings["weights"]
    dissect.run(config, workdir, which="2")
    again = dissection.load(workdir / "dissection" / "relu4.npz")
    np.testing.assert_array_equal(again.threshold, found[0].threshold)
    with pytest.raises(ValueError, match=r"'3' is not in .*; allowed: latest, best, all, 2, 4"):
        dissect.run(config, workdir, which="3")


def test_missing_masks(workdir, monkeypatch, capsys):
    bare = dataclasses.replace(
        planted.source(20),
        read=lambda i: {"image": planted.source(20)[i]["image"]},
        concept_names=(),
    )
    toy.use(monkeypatch, bare)
    config = settings(layers=("relu4",), random_baseline=False)
    dissect.run(config, workdir)  # asked for by name, and still by colors alone
    assert "only computed colors are looked for" in capsys.readouterr().out
    assert dissection.load(workdir / "dissection" / "relu4.npz").categories == ("color",)
    config.dissect.colors = "off"
    dissect.check(config)
    with pytest.raises(
        ValueError, match=r"has no masks in .* and dissect\.colors is off, and a diss"
    ):
        dissect.run(config, workdir)
    dissect.run(config, workdir, required=False)
    assert "left out, because scenes has no masks" in capsys.readouterr().out
    unmasked = dataclasses.replace(bare, concept_names=planted.NAMES)
    toy.use(monkeypatch, unmasked)
    with pytest.raises(ValueError, match="none of the 8 images has a mask"):
        dissect.run(config, workdir)
    dissect.run(config, workdir, required=False)
    assert "left out, because none of the 8 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("q", 1.5, "dissect.q must be a number above 0 and below 1; got 1.5"),
        ("split", "val", "dissect.split must be one of train, validation, test; got"),
        ("rule", "mean", "dissect.rule must be one of linear"),
        ("over", "", "dissect.over must be one of upsampled, raw; got ''"),
        ("padding", "wrap", "dissect.padding must be one of edge, zero; got 'wrap'"),
        ("iou", (), "dissect.iou must be 1 to 100 values, no two alike"),
        ("iou", (0.5, 1.0), "each of dissect.iou must be a number at least 0 and below 1"),
        ("max_images", -1, "dissect.max_images must be an integer of at least 0"),
        ("cache_gb", -1.0, "dissect.cache_gb must be a number at least 0"),
        ("colors", "none.npy", "color table none.npy must be"),
        ("broden", "nowhere", "category.csv cannot be read"),
    ],
)
def test_bad_settings_are_said_before_any_compile(workdir, monkeypatch, key, value, message):
    config = settings(**{key: value})
    for run in (lambda: dissect.check(config), lambda: dissect.run(config, workdir)):
        with pytest.raises(ValueError, match=message):
            run()
    assert not (workdir / "dissection").exists()


def test_a_layer_that_the_network_has_not_is_said_before_any_work(workdir):
    dissect.check(settings(layers=("layer4",)))  # the network may be that of a file
    sentence = "dissect.layers must be one of relu1, relu3, relu4, fc; got 'layer4'"
    with pytest.raises(ValueError, match=sentence):
        dissect.run(settings(layers=("relu4", "layer4")), workdir)
    assert not (workdir / "dissection").exists()


def test_a_split_that_is_not_there(workdir):
    config = settings(split="test")
    config.data.test_split = ""
    with pytest.raises(ValueError, match=r"dissect\.split='test', but data\.test_split is empty"):
        dissect.check(config)


def test_another_runs_settings_are_refused(workdir, tmp_path):
    config = settings()
    config.data.size = 32
    with pytest.raises(ValueError, match=r"a run of other settings \(data.size: 16 -> 32\)"):
        dissect.run(config, workdir)
    with pytest.raises(ValueError, match=r"it has no config\.json"):
        dissect.run(settings(), tmp_path / "nowhere")


def test_a_broden_folder_in_place_of_the_data_set(workdir, tmp_path, monkeypatch):
    """Images are seen whole: nothing is cut off, whatever the network's preprocessing."""
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    lines = ["image,split,ih,iw,sh,sw,object,scene"]
    for i in range(6):
        for name, size in ((f"{i}.png", (40, 20)), (f"{i}_object.png", (20, 10))):
            pixels = draw.integers(0, 3, (*size[::-1], 3)).astype(np.uint8) * [1, 0, 0]
            PIL.Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name)
        lines.append(f"{i}.png,train,20,40,10,20,{i}_object.png,{3 * (i % 2) or ''}")
    (tmp_path / "index.csv").write_text("\n".join(lines))
    (tmp_path / "category.csv").write_text("name\nobject\nscene\n")
    table = "number,name,category\n1,cat,object(1)\n2,dog,object(1)\n3,street-s,scene(3)\n"
    (tmp_path / "label.csv").write_text(table)
    options = {"layers": ("relu4",), "random_baseline": False, "colors": "off"}
    dissect.run(settings(**options, broden=str(tmp_path)), workdir)
    result = dissection.load(workdir / "dissection" / "relu4.npz")
    assert result.categories == ("object", "scene")
    assert result.tally.concept[3] == 3 * 16 * 16
    near = (2 * np.arange(16) + 1) * 10 // 32, (2 * np.arange(16) + 1) * 20 // 32
    cats = 0
    for i in range(6):
        with PIL.Image.open(tmp_path / "images" / f"{i}_object.png") as image:
            cats += (np.asarray(image)[near[0][:, None], near[1], 0] == 1).sum()
    assert result.tally.concept[1] == cats


def test_defaults_are_the_papers():
    d = config_lib.get_config().dissect
    assert (d.q, tuple(d.iou), d.over, d.padding) == (0.01, (0.03, 0.04, 0.05), "upsampled", "edge")
    assert d.shuffles == 5
    options = dataclasses.asdict(dissection.Options(max_images=500))
    assert {k: v for k, v in d.to_dict().items() if k in options} == {
        k: v for k, v in options.items() if k != "precision"
    }


def test_command_line(tmp_path):
    """Training and dissection of a tiny network; then the stage by name."""
    command = [
        *(sys.executable, "-m", "mixaug_jax.main", "--config=configs/baseline.py"),
        *(f"--workdir={tmp_path / 'run'}", f"--config.data.dir={tmp_path / 'scenes'}"),
        *("--config.data.size=32", "--config.data.batch_size=8", "--config.train.steps=2"),
        *(f"--config.data.scenes.{s}=12" for s in ("train", "validation", "test")),
        *("--config.model.name=tiny", "--config.model.width=0.5", "--config.eval.batch_size=12"),
        "--config.dissect.layers=('relu4',)",
        "--config.dissect.shuffles=2",
    ]
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    quick |= {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    quick |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}

    def run(*more):
        return subprocess.run(
            [*command, *more], cwd=ROOT, env=os.environ | quick, capture_output=True, text=True
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "relu4: 8 units, 12 images; unique concepts" in done.stdout
    folder = tmp_path / "run" / "dissection"
    assert {path.name for path in folder.iterdir()} == files_of("relu4")
    again = run("--stage=dissect", "--checkpoint=best")
    assert again.returncode == 0, again.stderr
    assert "already there" in again.stdout
    assert "compiling the training step" not in again.stdout


def test_figures_are_made_again_when_they_are_missing(workdir, monkeypatch):
    config = settings(layers=("relu4",), random_baseline=False)
    dissect.run(config, workdir)
    (workdir / "dissection" / "units_relu4.svg").unlink()
    dissect.run(config, workdir)
    assert (workdir / "dissection" / "units_relu4.svg").exists()
    monkeypatch.setattr(dissection_figures, "unit_sheet", interrupted)
    monkeypatch.setattr(unit_pictures, "save", interrupted)
    dissect.run(config, workdir)  # nothing is drawn where all is there


def test_pictures_of_units_are_those_of_the_dissection(workdir):
    config = settings(layers=("relu3", "relu4"), random_baseline=False)
    dissect.run(config, workdir)
    folder = workdir / "dissection"
    first = {n: unit_pictures.load(folder / "pictures" / f"{n}.npz") for n in ("relu3", "relu4")}
    for layer, made in first.items():
        result = dissection.load(folder / f"{layer}.npz")
        live = ~unit_pictures.dead_units(result)
        assert made.settings == result.settings
        assert set(made.images) == set(result.top_images[live].flat)
        # The counts are of the same masks: where a unit is on in one of all images, it is on in its top image.
        assert (made.on[live, 0].any((1, 2)) | (result.tally.unit[live] == 0)).all()
    # One that is damaged or of other settings is made again; the other stays.
    (folder / "pictures" / "relu3.npz").write_bytes(b"half a file")
    before = (folder / "pictures" / "relu4.npz").stat().st_mtime_ns
    dissect.run(config, workdir)
    assert unit_pictures.load(folder / "pictures" / "relu3.npz").sheets
    assert (folder / "pictures" / "relu4.npz").stat().st_mtime_ns == before
    config.dissect.q = 0.05
    dissect.run(config, workdir)
    wider = unit_pictures.load(folder / "pictures" / "relu4.npz")
    assert wider.on.sum() > first["relu4"].on.sum()
