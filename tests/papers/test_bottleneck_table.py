"""The stage of the table: every row, what is kept and made again, and what cannot be measured."""

import csv
import dataclasses
import re

import jax
import numpy as np
import pytest
import toy

from mixaug_jax.attribution import METHODS, readout
from mixaug_jax.config import keys
from mixaug_jax.core import checks
from mixaug_jax.models import MODELS
from mixaug_jax.papers import bottleneck_table
from mixaug_jax.papers.bottleneck_table import row_results, table_stage

FEW = ("random", "center", "gradient", "occlusion_8", "iba_readout")


def settings(**table):
    config = toy.config(epochs=1)
    small = {
        "rows": FEW,
        "tiles": (8, 4),
        "sens_tiles": (8,),
        "sens_images": 2,
        "sens_sizes": 2,
        "sens_masks": 3,
    }
    with config.unlocked():
        config.table = keys.defaults("table", bottleneck_table.KEYS)
    config.table.update(small | table)
    config.explain.update(max_images=3, reference=4, replicates=20, split="test")
    config.readout.update(steps=2, batch_size=4, stat_images=8)
    config.data.threads = 1
    return config


def boxed(source):
    """The same with one box a picture, called as its class."""

    def read(i):
        example = source.read(i)
        box = np.float32([[2, 3, 9, 10]])
        return {**example, "boxes": box, "box_labels": np.int32([example["label"]])}

    return dataclasses.replace(source, read=read, box_names=source.class_names)


@pytest.fixture
def workdir(trained, tmp_path, monkeypatch):
    toy.use(monkeypatch, lambda split: boxed(toy.splits()[split]))
    return toy.copy_run(trained, tmp_path / "run")


@pytest.fixture
def measured(monkeypatch):
    """The rows that are computed."""
    names, measure = [], row_results.measure

    def noted(row, shared):
        names.append(row.name)
        return measure(row, shared)

    monkeypatch.setattr(row_results, "measure", noted)
    return names


def table(workdir):
    with (workdir / "bottleneck_table" / "table.csv").open(newline="") as file:
        return {(row["row"], row["column"]): row for row in csv.DictReader(file)}


def test_the_table(workdir, measured, capsys):
    bottleneck_table.STAGE.run(settings(), workdir)
    said = capsys.readouterr().out
    assert measured == list(FEW)
    found = table(workdir)
    columns = ["degradation 8", "degradation 4", "boxes", "sensitivity-n 8"]
    for name in FEW:
        for column in columns:
            row = found[name, column]
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
            assert 1 <= int(row["rank"]) <= len(FEW)
    assert {int(found[name, "boxes"]["rank"]) for name in FEW} >= {1}
    # Signed maps have no share of their sum.
    assert {name for name, column in found if column == "mass"} == {"center", "iba_readout"}
    assert re.search(r"A bottleneck comes first in \d of 3 settings here", said)
    assert "5 rows on 3 images; " in said
    # An untrained center knows where the box is; its share is what NumPy counts.
    place = np.arange(16) - 7.5
    heat = -np.hypot(place[:, None], place)
    inside = np.zeros((16, 16), bool)
    inside[2:9, 3:10] = True
    top = np.argsort(-heat.ravel())[:49]
    assert abs(float(found["center", "boxes"]["value"]) - inside.ravel()[top].mean()) < 0.1
    for ending in ("png", "svg", "pdf"):
        assert (workdir / "bottleneck_table" / f"degradation_curves.{ending}").stat().st_size > 1000
        assert (workdir / "bottleneck_table" / f"sensitivity_n.{ending}").stat().st_size > 1000
    section = (workdir / "sections" / "bottleneck_table.html").read_text()
    assert "recalled from the paper, not confirmed" in section
    assert "not confirmed" in section
    assert "occlusion_8" in section

    # The same again computes nothing; a row that is gone is made again, and so is one of other settings.
    before = (workdir / "bottleneck_table" / "table.csv").read_bytes()
    measured.clear()
    (workdir / "bottleneck_table" / "center.npz").unlink()
    bottleneck_table.STAGE.run(settings(), workdir)
    assert measured == ["center"]
    same = [line.rsplit(b",", 1)[0] for line in before.splitlines()]  # but for the seconds
    again = (workdir / "bottleneck_table" / "table.csv").read_bytes().splitlines()
    assert [line.rsplit(b",", 1)[0] for line in again] == same
    measured.clear()
    bottleneck_table.STAGE.run(settings(rows=("center", "gradient"), maps="ours"), workdir)
    assert measured == ["gradient"], "the center's map is the same in both"


def test_killed_between_rows_it_goes_on(workdir, measured, monkeypatch):
    save = row_results.save

    def killed(result, path):
        save(result, path)
        if path.stem == "center":
            raise KeyboardInterrupt

    few = settings(rows=("random", "center", "gradient"), sens_tiles=())
    with monkeypatch.context() as patch:
        patch.setattr(row_results, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            bottleneck_table.STAGE.run(few, workdir)
    bottleneck_table.STAGE.run(few, workdir)
    assert measured == ["random", "center", "gradient"]


def test_without_boxes_their_column_is_left_out(workdir, monkeypatch, capsys):
    toy.use(monkeypatch, lambda split: toy.splits()[split])
    bottleneck_table.STAGE.run(settings(rows=("random", "gradient"), sens_tiles=()), workdir)
    assert "no boxes and no masks in this data: their column is left out" in capsys.readouterr().out
    assert not any(column == "boxes" for _, column in table(workdir))


def test_a_network_that_no_readout_can_read(workdir, monkeypatch, capsys):
    """Its row is left out with a line, and nothing is trained for it."""

    def tokens(net, image, layers=()):
        raise checks.UnsupportedError("a readout bottleneck reads maps [h,w,K]")

    monkeypatch.setattr(readout, "readout_layers", tokens)
    few = settings(rows=("center", "iba_readout"), tiles=(8,), sens_tiles=())
    bottleneck_table.STAGE.run(few, workdir)
    said = capsys.readouterr().out
    assert "bottleneck_table: iba_readout is left out, because a readout bottleneck reads" in said
    assert {name for name, _ in table(workdir)} == {"center"}
    assert not (workdir / "readout").exists()


def test_what_is_read_of_a_vgg():
    for name, last in (("vgg11", "conv5_2"), ("vgg16", "conv5_3")):
        layers = MODELS[name](4, stem="cifar").clone(single_layers=True).layers
        read = table_stage.vgg_read(layers)
        assert read == ("conv3_1", "conv4_1", "conv5_1", last, "fc")
        assert set(read) <= set(layers)


def test_one_device_and_four(workdir, monkeypatch):
    few = settings(rows=("random", "gradient"))
    bottleneck_table.STAGE.run(few, workdir)
    four = table(workdir)
    for path in (workdir / "bottleneck_table").glob("*.npz"):
        path.unlink()
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *arguments: one)
    bottleneck_table.STAGE.run(few, workdir)
    for place, row in table(workdir).items():
        for key in ("value", "low", "high"):
            assert abs(float(row[key]) - float(four[place][key])) < 1e-4, place


def test_rows_by_name():
    known = table_stage.published_rows.published((8, 4), (10.0,))
    chosen = table_stage.published_rows.chosen
    assert list(chosen((), "published", known)) == list(known)
    every = chosen(("all",), "published", known)
    plain = {name for name, method in METHODS.items() if not method.attention}
    assert every.keys() == known.keys() | plain
    assert chosen(("iba_10",), "ours", known)["iba_10"].parts[0].method == "iba"
    with pytest.raises(ValueError, match=r"table\.rows must be one of .*did you mean 'gradcam'"):
        chosen(("grad_cam",), "published", known)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("table", "tiles", (17,), r"must be at most data\.size=16 pixels; got 17"),
        ("table", "maps", "mine", r"table\.maps must be one of published, ours"),
        ("table", "snapshots", -1, r"table\.snapshots must be an integer of at least 0"),
        (
            "table",
            "layer",
            "relu9",
            r"table\.layer must be one of relu1, relu3, relu4; got 'relu9'",
        ),
        ("table", "rows", ("iba_9",), r"table\.rows must be one of .*got 'iba_9'"),
        ("explain", "split", "validation", ""),
    ],
)
def test_bad_settings_are_said_first(workdir, section, key, value, message):
    config = settings()
    config[section][key] = value
    if not message:
        config.data.validation_split = ""
        message = r"explain\.split='validation', but data\.validation_split is empty"
    with pytest.raises(ValueError, match=message):
        bottleneck_table.STAGE.run(config, workdir)
    assert not (workdir / "bottleneck_table").exists()


@pytest.mark.parametrize("data", ["scenes", "folder", "imagenet2012,full"])
def test_the_config(data):
    scope = {}
    exec(
        (
            table_stage.pathlib.Path(__file__).parents[2] / "configs" / "attribution_table.py"
        ).read_text(),
        scope,
    )
    config = scope["get_config"](data)
    assert config.stages == ("train", "bottleneck_table", "report")
    values = {f"table.{k}": v for k, v in config.table.to_dict().items()}
    keys.check_values(values, bottleneck_table.KEYS)
    if data.endswith("full"):
        assert (config.table.tiles, config.table.snapshots, config.readout.beta) == (
            (8, 14),
            100,
            10.0,
        )
    with pytest.raises(ValueError, match="presets folder and full; got 'all'"):
        scope["get_config"]("scenes,all")
