"""Decoders of markers: what is trained, read, counted and written."""

import contextlib

import numpy as np
import PIL.Image
import pytest
import rendergan_case
import tiny

import mixaug_jax
from mixaug_jax import data, pipeline
from mixaug_jax.core import files, stats
from mixaug_jax.data.source import Source
from mixaug_jax.explain import evaluation
from mixaug_jax.mixing import MIXERS
from mixaug_jax.papers.rendergan import decoding, learning, reading
from mixaug_jax.study import collect, plan


def reading_of(probabilities, targets, weights=None, hard=None):
    p, t = np.float32(probabilities), np.float32(targets)
    weights = np.ones_like(t) if weights is None else np.float32(weights)
    hard = np.full((len(t), 3), np.nan, np.float32) if hard is None else np.float32(hard)
    return reading.Reading(p, t, weights, hard)


def test_wrong_bits_are_of_those_that_are_known():
    p = np.full((3, 12), 0.9)
    targets, weights = np.ones((3, 12)), np.ones((3, 12))
    targets[0, :2] = 0  # two wrong
    targets[1, :6], weights[1, :5] = 0, 0  # one wrong of seven
    weights[2] = 0  # nothing known
    found = reading_of(p, targets, weights)
    np.testing.assert_allclose(found.wrong, [2, 12 / 7, np.nan])
    rows = {name: value for name, value, *_ in reading.summary(found)}
    assert rows["wrong bits of 12"] == pytest.approx((2 + 12 / 7) / 2)
    assert rows["all bits right"] == 0
    assert not any("third" in name for name in rows)


def test_confidence_is_that_of_the_least_sure_bit():
    p = np.full((2, 12), 0.99)
    p[0, 3], p[1, 4] = 0.4, 0.05
    np.testing.assert_allclose(reading_of(p, p > 0.5).confidence, [0.2, 0.9], atol=1e-6)


def test_summary_against_numpy():
    rng = np.random.default_rng(0)
    p, targets = rng.random((90, 12)), rng.integers(0, 2, (90, 12))
    hard = rng.random((90, 3))
    found = reading_of(p, targets, hard=hard)
    wrong = ((p > 0.5) != targets).sum(1)
    rows = {name: rest for name, *rest in reading.summary(found)}
    assert rows["wrong bits of 12"] == pytest.approx(list(stats.mean_interval(wrong, (0, 12))))
    assert rows["bits right"][0] == pytest.approx(1 - wrong.mean() / 12)
    sure = np.argsort(-(2 * np.abs(p - 0.5)).min(1))[:45]
    assert rows["wrong bits, the surer half"][0] == pytest.approx(wrong[sure].mean())
    tilted = np.argsort(-hard[:, 1])
    assert rows["wrong bits, tilt, the hardest third"][0] == pytest.approx(
        wrong[tilted[:30]].mean()
    )
    dark = np.argsort(hard[:, 2])
    assert rows["wrong bits, light, the hardest third"][0] == pytest.approx(wrong[dark[:30]].mean())
    curve = reading.curve(found)
    assert curve[0][1:3] == pytest.approx((1, wrong.mean()))
    for at, kept, value, *_ in curve:
        chosen = (2 * np.abs(p - 0.5)).min(1) >= at
        assert kept == pytest.approx(chosen.mean())
        assert value == pytest.approx(wrong[chosen].mean() if chosen.any() else np.nan, nan_ok=True)


def test_a_process_without_pictures_gives_no_rows(tmp_path, monkeypatch):
    """Of a job with more processes than pictures; it takes part in every step."""
    source = Source(
        lambda i: {"image": np.full((16, 16, 3), i, np.uint8), "targets": np.ones(12)}, 3, ()
    )
    monkeypatch.setattr(reading.walk, "share", lambda *given: range(0))
    monkeypatch.setattr(reading.walk, "spans", lambda *given: iter([(0, 0, 4)]))
    monkeypatch.setattr(reading.walk, "gather", lambda rows, *given: rows)
    answered = np.zeros((4, 12), np.float32)
    monkeypatch.setattr(reading, "_program", lambda devices: lambda net, images: answered)
    net = tiny.net(12, loss="sigmoid")
    found = reading.read(net, source, rendergan_case.config(tmp_path, "handmade"))
    assert found.probabilities.shape == found.targets.shape == found.weights.shape == (0, 12)
    assert found.hard.shape == (0, 3)


@pytest.fixture
def config(tmp_path):
    """Trained under CutMix with the label of what is seen, and explained at the cells."""
    found = rendergan_case.config(tmp_path / "cache", "handmade", "cutmix")
    found.mix.label = "visible"
    found.stages = ("gan", "decode", "explain", "report")
    found.explain.update(methods=("gradient",), scores=("pointing_game",), max_images=7)
    found.explain.region = "parts:class,white half"
    return found


def test_a_run_from_the_data_to_the_page(config, tmp_path):
    run = tmp_path / "run"
    pipeline.run(config, run)
    arrays = np.load(run / "decoding" / "reading.npz")
    source = data.open_source("test", config)
    np.testing.assert_array_equal(arrays["targets"], [source[i]["targets"] for i in range(21)])
    np.testing.assert_allclose(arrays["hard"][:, 1], [source[i]["tilt"] for i in range(21)])
    net = mixaug_jax.load(run)
    logits = net.logits(np.stack([net.preprocess(source[i]["image"]) for i in range(21)]))
    np.testing.assert_allclose(arrays["probabilities"], 1 / (1 + np.exp(-np.float64(logits))), atol=1e-5)  # fmt: skip
    rows = files.read_csv(run / "decoding" / "decoding.csv")
    assert rows[0]["what"] == "wrong bits of 12"
    text = (run / "report" / "report.html").read_text()
    assert "How well the markers are read" in text
    # A study misses what was asked for: explanations, but no dissection.
    parts, problems = collect.read_run(run)
    assert "attribution/gradient" in {part.title for part in parts}
    assert not problems
    # Bit i is pointed at in cell i or in the white half, as far as these are seen.
    found = evaluation.load(run / "attribution" / "gradient.npz")
    assert found.settings["region"] == "parts:class,white half"
    source = data.open_source("validation", config)
    shares = [
        np.isin(source[i]["parts"], (4 + source[i]["label"], 2)).mean() for i in found.indices
    ]
    np.testing.assert_array_equal(found.labels, [source[i]["label"] for i in found.indices])
    pointed = found.scores["pointing_game"]
    np.testing.assert_array_equal(np.isnan(pointed), np.float32(shares) == 0)
    config.markers.train = "plain"
    with pytest.raises(ValueError, match=r"other settings \(markers\.train: handmade -> plain\)"):
        decoding.STAGE.run(config, run)


def test_a_study_of_what_decoders_learn_from(tmp_path):
    """Each value of markers.train is an augmentation of a study; so is each mixer, by a name of its own."""
    sweep = ["markers.train=plain,detail+labeled"]
    runs = plan.make_plan([str(rendergan_case.PATH)], [0, 1], tmp_path, sweep=sweep)
    names = ["rendergan-trainplain", "rendergan-traindetail+labeled"]
    assert [run.name for run in runs] == 2 * names
    assert [run.config.markers.train for run in runs[:2]] == ["plain", "detail+labeled"]
    assert "--config.markers.train=detail+labeled" in runs[1].flags
    configs = {name: f"{rendergan_case.PATH}:{name}" for name in ("baseline", "cutmix", "fmix")}
    mixed = plan.make_plan(configs, [0], tmp_path, ["mix.label=visible", "markers.train=plain"])
    assert [run.config.mix.name for run in mixed] == ["none", "cutmix", "fmix"]
    assert [run.config.mix.get("label", "") for run in mixed] == ["", "visible", "visible"]
    asked = ["markers.train=labeled", "stages=gan,decode,dissect,explain,report"]
    sweep = ["mix.label=mixed,majority,visible"]
    labels = plan.make_plan(
        {k: configs[k] for k in ("baseline", "cutmix")}, [0], tmp_path, asked, sweep=sweep
    )
    assert [run.config.mix.get("label", "") for run in labels] == [
        "",
        "mixed",
        "majority",
        "visible",
    ]
    assert {run.config.markers.train for run in labels} == {"labeled"}


@pytest.mark.parametrize("how", ["published", *MIXERS])
def test_what_the_config_offers(how):
    """Any mixer on the decoder's training, and the published size in a word; computes nothing."""
    config = rendergan_case.opened(how)
    learning.STAGE.check(config)
    decoding.STAGE.check(config)
    published = how == "published"
    assert config.mix.name == ("none" if published else how)
    assert (config.markers.generator, config.data.size) == (("maps", 64) if published else ("few", 32))  # fmt: skip


def test_settings_that_cannot_work(config):
    config.markers.train = "learned"
    with pytest.raises(
        ValueError, match=r"markers\.train must be one of plain, handmade, poses, .* labeled"
    ):
        decoding.STAGE.check(config)
    config.markers.train = "labeled"
    decoding.STAGE.check(config)
    config.markers.train = "plain"
    config.data.test_split = ""
    with pytest.raises(ValueError, match=r"data\.test_split is empty"):
        decoding.STAGE.check(config)
    config.data.test_split = "tset"
    with pytest.raises(ValueError, match=r"data\.test_split must be one of .*; got 'tset'"):
        decoding.STAGE.check(config)


@pytest.mark.parametrize(
    ("row", "train", "words"),
    [
        ("a.png,01010101010,test", "detail", r"line 2: bits must be 12 characters .*'01010101010'"),
        ("a.png,010101010101,test", "detail", r"has no rows of validation in labels\.csv"),
        ("a.png,010101010101,validation", "detail", r"has no rows of test in labels\.csv"),
        ("a.png,010101010101,test\na.png,010101010101,validation", "detail+labeled", "no rows of labeled"),
        ("a.png,010101010101,test\na.png,010101010101,validation", "detail", ""),
    ],
)  # fmt: skip
def test_crops_are_looked_at_before_any_training(config, tmp_path, row, train, words):
    (tmp_path / "unlabeled").mkdir()
    for name in ("a.png", *(f"unlabeled/{k}.png" for k in range(4))):
        PIL.Image.new("L", (16, 16)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(f"file,bits,split\n{row}\n")
    config.data.markers.crops, config.markers.train = str(tmp_path), train
    config.data.batch_size, config.mix.name = 4, "none"
    with pytest.raises(ValueError, match=words) if words else contextlib.nullcontext():
        decoding.STAGE.check(config)
