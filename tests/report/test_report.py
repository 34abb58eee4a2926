"""The report of a run: what it says, what it leaves out, and that files alone make it."""

import base64
import csv
import dataclasses
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import planted
import pytest
import reports
import studies
import toy
from absl import flags
from ml_collections import config_flags

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.config import opening
from mixaug_jax.core import stats
from mixaug_jax.draw import style, training_figures
from mixaug_jax.explain import evaluation
from mixaug_jax.report import augmentations, provenance, writing
from mixaug_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dissected():
    return reports.found()


@pytest.fixture(scope="module", autouse=True)
def _noise():
    """Every split is 48 pictures of noise of six classes."""
    source = toy.source(48, classes=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", lambda split, config, annotations=True: source)
        yield


@pytest.fixture(scope="module")
def run(dissected, tmp_path_factory):
    """A working directory with results of every stage but occlude, and its report."""
    run = reports.write_run(tmp_path_factory.mktemp("run"), dissected)
    mixaug_jax.write_report(run)
    return run


@pytest.fixture(scope="module")
def built(run):
    return reports.Page(run / "report" / "report.html")


def test_what_a_run_says(built):
    found = built
    assert found.open == []
    low, high = stats.wilson(0.75, 48)
    assert (
        "tiny (width 1), trained with mixup on scenes (seed 0, 8 steps), classifies 75.0% of 48 test images right "
        f"(95 % interval {low:.1%} to {high:.1%})."
    ) in found.text
    assert "pixels has 3 unique concepts at IoU > 0.04" in found.text
    assert "with label maps shuffled against the images, chance gives" in found.text
    assert (
        "Pointing game (means over 40 images; larger is better): no method is shown to beat both controls; Grad-CAM 0.750 is "
        "ahead of both, but the difference is not supported; a control matches or beats gradient 0.500 (controls: center 0.625 "
        "and random 0.125). Area under the deletion curve (means over 40 images; smaller is better): Grad-CAM 0.250; controls: "
        "random 0.500."
    ) in found.text
    assert "occlude: not run (--stage=occlude)." in found.text
    assert "Smaller is better for deletion." in found.text


def test_everything_is_inside_and_beside_it(run, built):
    found = built
    folder = run / "report"
    images = found.every("img")
    names = ["augmentation", "training", "unique_pixels", "units_pixels", "overlays", "curves"]
    assert len(images) == len(names)
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in images)
    for name in names:
        assert all((folder / f"{name}{ending}").stat().st_size for ending in style.ENDINGS)
    tables = {"training", "unique", "concepts", "units", "scores", "settings", "settings_changed"}
    assert {file.stem for file in folder.glob("*.csv")} == tables
    links = {a["href"] for a in found.every("a")}
    # A page that is mailed alone holds its tables: no link leads to a file beside it.
    held = {a["download"]: a["href"] for a in found.every("a") if "download" in a}
    assert held.keys() == {f"{name}.csv" for name in tables} | {"references.bib"}
    for name, address in held.items():
        kind, content = address.split(";base64,")
        assert kind == f"data:text/{'csv' if name.endswith('csv') else 'plain'}"
        assert base64.b64decode(content) == (folder / name).read_bytes()
    assert all(link.startswith(("#", "data:")) for link in links)
    targets = {attrs["id"] for _, attrs in found.elements if "id" in attrs}
    targets |= {f"unit-pixels-{unit}" for unit in range(3)}  # which the script makes
    assert {link[1:] for link in links if link.startswith("#")} <= targets
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", found.raw)
    assert "url(" not in found.raw
    assert (folder / "report.html").stat().st_size < 10e6
    assert not list(folder.glob("*.tmp"))


def test_markup_is_for_everybody(built):
    found = built
    assert found.every("html") == [{"lang": "en"}]
    assert len(found.every("h1")) == len(found.every("main")) == 1
    assert {th["scope"] for th in found.every("th")} == {"col", "row"}
    columns = [th for th in found.every("th") if th["scope"] == "col"]
    copying = [b for b in found.every("button") if b.get("data-copy")]
    saving = [b["data-save"] for b in found.every("button") if b.get("data-save")]
    assert len(found.every("button")) == len(columns) + len(copying) + len(saving)
    assert len(saving) == len(found.every("img"))
    assert len(copying) == 2 * len(found.every("table")) + 1  # BibTeX
    assert len(found.every("figcaption")) == len(found.every("figure"))
    assert len({attrs["id"] for attrs in found.every("figure")}) == len(found.every("figure"))


def test_what_is_missing_is_said(tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    (run / "metrics.jsonl").unlink()
    (run / "versions.json").unlink()
    text = reports.Page(writing.write_report(run)).text
    assert "is at step 0 of 8: its training is not finished." in text
    for said in (
        "train: not run (there is no metrics.jsonl).",
        "dissect: not run (--stage=dissect).",
        "explain: not run (--stage=explain).",
        "there is no versions.json",
    ):
        assert said in text
    assert "unique concepts at" not in text
    assert "Pointing game (means" not in text


def test_imported_weights_have_no_training(tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    config = config_lib.read(run)
    with config.unlocked():
        config.weights, config.resolved.steps = "/models/resnet<50>.pth", 0
    checkpoint.write_settings(run, config)
    (run / "metrics.jsonl").unlink()
    found = reports.Page(writing.write_report(run))
    assert "imported from /models/resnet<50>.pth; its accuracy was not measured here." in found.text
    assert "The weights were imported, not trained here." in found.text
    assert not found.every("img")


def test_names_of_users_are_text(tmp_path):
    bad = "<script>alert('x')</script>\"&"
    names = (("none", "none"), (bad, "object"), *planted.NAMES[2:])
    from mixaug_jax import dissection

    options = dissection.Options(size=16, random_baseline=False, shuffles=0)
    source, thresholds = planted.source(names=names), {"pixels": [0.5] * 3}
    dissected = dissection.dissect(
        planted.net(), source, ("pixels",), options, thresholds=thresholds
    )["pixels"]
    run = reports.write_run(tmp_path / "run & <b>", dissected)
    config = config_lib.read(run)
    with config.unlocked():
        config.data.dir = bad
    checkpoint.write_settings(run, config)
    found = reports.Page(writing.write_report(run))
    kinds = [script.get("type") for script in found.every("script")]
    assert kinds == ["application/json", None]  # the units, and the page's own script
    assert not found.every("b")
    assert bad in found.text
    with (run / "report" / "concepts.csv").open(newline="") as file:
        assert bad in {row["concept"] for row in csv.DictReader(file)}


def test_files_alone_make_it_again(run, monkeypatch):
    assert not (run / "checkpoints").exists()
    page_file = run / "report" / "report.html"
    first = page_file.read_bytes()

    def gone(*_, **__):
        raise ValueError("the disk is not mounted")

    monkeypatch.setattr(data, "open_source", gone)
    assert writing.write_report(run) == page_file
    assert page_file.read_bytes() == first


def test_data_that_is_gone_is_said(tmp_path, monkeypatch):
    def gone(*_, **__):
        raise ValueError("the disk is not mounted")

    monkeypatch.setattr(data, "open_source", gone)
    run = reports.write_run(tmp_path / "run", scores=())
    (run / "report").mkdir()
    (run / "report" / "pictures.npz").write_bytes(b"PK damaged")
    text = reports.Page(writing.write_report(run)).text
    assert "classifies 75.0% of 48 test images right (95 % interval" in text  # the run's own
    assert "its pictures are left out (the disk is not mounted)" in text


def test_other_settings_make_other_pictures(run, tmp_path):
    config = config_lib.read(run)
    shutil.copyfile(run / "report" / "pictures.npz", tmp_path / "p.npz")
    before = augmentations.pictures({run.name: config}, tmp_path / "p.npz")
    with config.unlocked():
        config.mix.alpha = 8.0
    after = augmentations.pictures({run.name: config}, tmp_path / "p.npz")
    np.testing.assert_array_equal(after.images[0], before.images[0])
    assert (after.images[1] != before.images[1]).any()


def test_wilson():
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
    ):
        np.testing.assert_allclose(stats.wilson(hits / count, count), (low, high), atol=5e-5)
    assert stats.wilson(1.0, 29)[1] == 1


def flags_of(command):
    """The settings that a command's --config flags make, and its folder."""
    argv = shlex.split(command.replace("\\\n", ""))
    assert argv[:3] == ["python", "-m", "mixaug_jax.main"]
    file, folder, *argv = argv[3:]
    method, name = re.fullmatch(r"--config=configs/(\w+)\.py:(\w+)", file).groups()
    values, argv = flags.FlagValues(), ["", *argv]
    config = config_lib.get_config(method, name)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    values(argv)
    return values.config, folder.removeprefix("--workdir=")


def test_the_command_makes_the_same_settings():
    config = toy.config("cutmix")
    config.dissect.iou = (0.02,)
    config.dissect.layers = ("layer1", "layer 2")
    config.data.dir = "/my data/it's"
    config.compile_cache = "/tmp/cache"
    config.train.nesterov = False
    asked = {"dissect.q": 0.005}
    made, workdir = flags_of(provenance.command(config, "/runs/a b", asked))
    assert workdir == "/runs/a b"
    assert made.dissect.q == 0.005
    made.dissect.q, made.compile_cache = config.dissect.q, config.compile_cache
    assert made.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    "source",
    [
        "configs/attribution_table.py:folder",
        "configs/relevance.py:animals",
        "configs/rendergan.py:cutmix",
        "configs/taylor_study.py:scenes",
    ],
)
def test_the_run_of_a_paper_is_made_again_by_its_own_config(source):
    config = opening.open_config(source, ["train.epochs=3"])
    config = config.copy_and_resolve_references()
    words = shlex.split(provenance.command(config, "/runs/a").replace("\\\n", ""))
    assert words[3:] == [f"--config={source}", "--workdir=/runs/a", "--config.train.epochs=3"]
    assert provenance.differences(config) == [("train.epochs", 3, opening.open_config(source).train.epochs)]  # fmt: skip


def test_options_of_a_later_dissection_are_in_the_command(tmp_path):
    from mixaug_jax import dissection

    options = dissection.Options(size=16, random_baseline=False, shuffles=0, iou=(0.2,))
    dissected = dissection.dissect(planted.net(), planted.source(), ("pixels",), options)["pixels"]
    run = reports.write_run(tmp_path / "run", dissected, scores=())
    text = reports.Page(writing.write_report(run)).text
    assert "'--config.dissect.iou=(0.2,)'" in text
    assert "--config.dissect.shuffles=0" in text
    assert "dissect.q" not in text.partition("Settings")[0]


def test_what_was_explained_is_in_the_command(tmp_path):
    run = reports.write_run(tmp_path / "run")
    found = studies.explanations("gradcam", {"pointing_game": 1.0}, label="true")
    settings_ = found.settings | {"scores": {"pointing_game": {}}, "images": 6}
    found = dataclasses.replace(found, settings=settings_)
    evaluation.save(found, run / "attribution" / "gradcam.npz")
    text = reports.Page(writing.write_report(run)).text
    for flag in (
        "'--config.explain.methods=(''gradcam'', ''gradient'')'".replace("''", "'\"'\"'"),
        "--config.explain.max_images=6",
        "--config.explain.split=test",
    ):
        assert flag in text
    assert "explain.label=" not in text


def test_damaged_results_are_said(dissected, tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    reports.write_dissection(run / "dissection", dissected)
    (run / "dissection" / "pixels.npz").write_bytes(b"PK damaged")
    text = reports.Page(writing.write_report(run)).text
    assert "pixels.npz is no result of a dissection" in text
    assert "--stage=dissect makes it again." in text


def test_dissections_of_many_checkpoints(dissected, tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    for step in (100, 20):
        reports.write_dissection(run / "dissection" / str(step), dissected)
    writing.write_report(run)
    with (run / "report" / "unique_by_step.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["20"] * 3 + ["100"] * 3
    assert {row["unique"] for row in rows} == {"3"}
    assert (run / "report" / "unique_pixels.svg").exists()


def test_occlusion(tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    reports.write_occlusion(run / "occlusion" / "8")  # of --checkpoint=all
    found = reports.Page(writing.write_report(run))
    assert "1 of 4 ranked by the loss of the true label; 1 of 4 ranked by" in found.text
    assert (
        "Top: those of the largest score, lowest: those whose score is nearest to 0." in found.text
    )
    assert "By chance:" not in found.text  # without sweep.npz
    assert {"figure-rises", "figure-curves_gradient"} <= {f["id"] for f in found.every("figure")}
    with (run / "report" / "sweep.csv").open(newline="") as file:
        changes = [float(row["accuracy change"]) for row in csv.DictReader(file)]
    assert changes == sorted(changes, reverse=True)
    assert len(changes) == 16


def test_a_unique_count_has_an_interval_that_holds_it_and_says_of_what(run, built):
    with (run / "report" / "unique.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        count = int(row["unique"])
        if count < 5:
            assert (row["unique low"], row["unique high"]) == ("", "")
        else:
            assert float(row["unique low"]) <= count <= float(row["unique high"])
    assert "another set of equally many images is expected to give" in built.text
    assert "resampled" not in built.text.partition("Pointing game (means")[0]


def test_metrics_that_were_not_finite_are_gaps():
    lines = [{"step": 1, "a": 1.0}, {"step": 2, "b": 0.0}, {"step": 3, "a": None}]
    steps, values = training_figures.series(lines, "a")
    np.testing.assert_array_equal(steps, [1, 3])
    np.testing.assert_array_equal(values, [1, np.nan])
    # A short run has one point, which would not show as a line.
    short = training_figures.training_curves([{"step": 1, "train_loss": 0.1}]).axes[0].lines
    longer = training_figures.training_curves([{"step": s, "train_loss": 0.1} for s in (1, 2)])
    assert short[0].get_marker() == "o"
    assert longer.axes[0].lines[0].get_marker() == "None"
    panels = training_figures.training_curves([{"step": 1, "learning_rate": 0.1}]).axes
    assert [len(panel.lines) for panel in panels] == [0, 0]


def test_no_working_directory_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"neither config\.json nor study\.json"):
        writing.write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_stage(run):
    command = [sys.executable, "-m", "mixaug_jax.main", "--config=configs/mixup.py"]
    command += ["--stage=report", f"--workdir={run}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"report {run / 'report' / 'report.html'}" in done.stdout.splitlines()
