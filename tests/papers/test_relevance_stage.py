"""The stage relevance: from a run on animals to files and a section; stopped, gone on with, refused; its evaluator."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import toy

from mixaug_jax import data, pipeline
from mixaug_jax.config import get_config, keys
from mixaug_jax.config.opening import open_config
from mixaug_jax.core import files
from mixaug_jax.data.animals import animal_pairs, animal_set
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES
from mixaug_jax.explain import evaluation
from mixaug_jax.papers import relevance
from mixaug_jax.papers.relevance import (
    evaluator,
    evaluator_training,
    forward_passes,
    relevance_result,
    relevance_stage,
)
from mixaug_jax.report.study import study_relevance
from mixaug_jax.study import collect, comparing
from mixaug_jax.training import checkpoint


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def settings(cache):
    """configs/relevance.py, small."""
    config = open_config("configs/relevance.py")
    config.data.update(size=32, batch_size=16, dir=str(cache))
    config.data.animals.update(train=48, validation=16, test=16)
    config.model.name, config.model.width = "tiny", 1.0
    config.train.update(epochs=1, log_every=1, warmup=0.0)
    config.relevance.update(scenes=24, replicates=200, trees=False, evaluator=False)
    config.relevance.update(evaluator_scenes=64, evaluator_epochs=2, evaluator_width=0.0625)
    config.explain.update(methods=("gradient",), scores=("pointing_game",), max_images=8)
    return config


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """A working directory with a network, explanations and relevance."""
    workdir = tmp_path_factory.mktemp("run")
    for stage in ("train", "explain", "relevance"):
        pipeline.run(settings(cache), workdir, stage)
    return workdir


def test_the_config_and_the_keys_fit():
    config = open_config("configs/relevance.py")
    assert config.stages == ("train", "explain", "relevance", "panels", "report")
    assert set(config.relevance) == {key.removeprefix("relevance.") for key in relevance.KEYS}
    defaults = keys.defaults("relevance", relevance.KEYS)
    keys.check_values({f"relevance.{k}": v for k, v in defaults.items()}, relevance.KEYS)
    assert "relevance" in get_config("cutmix", "animals").stages
    relevance_stage.check(get_config("cutmix", "animals"))


def test_what_is_written(run, cache):
    folder = run / "relevance"
    rows = files.read_csv(folder / "relevance.csv")
    assert [row["attribute"] for row in rows] == [*animal_pairs.CHANGES][1:]
    assert all(0 <= row["flips_low"] <= row["flips"] <= row["flips_high"] <= 1 for row in rows)
    result = relevance_result.load(folder / "relevance.npz")
    # A logit is that of the network on the picture of the pair.
    net, pairs = checkpoint.load(run), animal_set.pairs(settings(cache), "test", "independent", 24)
    for name, index in (("yaw", 3), ("colors_and_shape", 23)):
        image = net.preprocess(pairs[name][index]["image"])
        logits = np.asarray(net.logits(image[None]))[0]
        assert result.changed[name][index] == pytest.approx(logits[1] - logits[0], abs=1e-5)
    right = relevance_result.accuracies(result)
    assert {name: len(values) for name, values in right.items()} == {
        "scenes": 24, "ambiguous": int(result.near.sum()), "unbiased": 24}  # fmt: skip
    pipeline.run(settings(cache), run, "report")
    text = (run / "report" / "report.html").read_text()
    for part in ("Which attributes the network uses", "figure-relevance_attributes", "on head or right arms"):  # fmt: skip
        assert part in text


def test_explanations_point_where_the_blocks_are(run, cache):
    found = relevance_result.load_pointing(run / "relevance" / "pointing.npz")
    assert set(found.controls) == {"random", "center", "sobel"}
    heat = evaluation.load(run / "attribution" / "gradient.npz")
    source = animal_set.animals("validation", settings(cache))
    for k, index in enumerate(heat.indices):
        parts = source[int(index)]["parts"]
        top = np.unravel_index(heat.heat[k].argmax(), parts.shape)
        assert found.hits["gradient"][k] == (parts[top] in (6, 7, 8))
        assert found.area[k] == pytest.approx((parts >= 6).mean())


def test_explanations_of_other_images_are_left_out(run, cache, tmp_path, capsys):
    """As the stage explain leaves them beside the others: of more images, another split, another class, other pixels."""
    workdir, config = tmp_path / "run", settings(cache)
    for name in ("attribution", "relevance"):
        shutil.copytree(run / name, workdir / name)
    net, given = checkpoint.load(run), (workdir / "relevance", workdir / "attribution")
    whole = evaluation.load(run / "attribution" / "gradient.npz")
    others = {
        "more": {"indices": np.arange(len(whole.indices)) + 1},
        "split": {"settings": {"split": "test"}},
        "label": {"settings": {"label": "predicted"}},
        "pixels": {"settings": {"examples": 1}},
    }
    for name, change in others.items():
        changed = whole.settings | {"method": name} | change.pop("settings", {})
        other = dataclasses.replace(whole, settings=changed, **change)
        evaluation.save(other, workdir / "attribution" / f"{name}.npz")
    found = relevance_stage._pointing(config, net, *given)
    before = relevance_result.load_pointing(run / "relevance" / "pointing.npz")
    assert set(found.hits) == set(before.hits)
    for name, hits in before.hits.items():
        np.testing.assert_array_equal(found.hits[name], hits)
    assert "relevance: label, more, pixels, split left out: explained" in capsys.readouterr().out
    # Of today's images there are none, and what was found of the others is no longer there.
    config.explain.max_images = 4
    assert relevance_stage._pointing(config, net, *given) is None
    assert not (workdir / "relevance" / "pointing.npz").exists()


def test_what_is_there_is_not_computed_again(run, cache, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(forward_passes, "logits", never)
    before = (run / "relevance" / "relevance.csv").read_bytes()
    pipeline.run(settings(cache), run, "relevance")
    assert (run / "relevance" / "relevance.csv").read_bytes() == before
    changed = settings(cache)
    changed.relevance.mode = "released"
    with pytest.raises(AssertionError, match="computed again"):
        pipeline.run(changed, run, "relevance")


def test_a_run_that_was_killed_goes_on(run, cache, tmp_path, monkeypatch):
    workdir = toy.copy_run(run, tmp_path / "killed")
    whole, calls = forward_passes.logits, []

    def killed(*args, **kwargs):
        calls.append(0)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(forward_passes, "logits", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(settings(cache), workdir, "relevance")
    assert not (workdir / "relevance" / "relevance.npz").exists()
    monkeypatch.setattr(forward_passes, "logits", whole)
    pipeline.run(settings(cache), workdir, "relevance")
    for name in ("relevance.csv",):
        assert (workdir / "relevance" / name).read_bytes() == (
            run / "relevance" / name
        ).read_bytes()


def test_one_and_four_devices_give_the_same(run, cache):
    net = checkpoint.load(run)
    source = animal_set.animals("test", settings(cache))
    one, four = (forward_passes.logits(net, source, "x", devices=jax.devices()[:n]) for n in (1, 4))
    assert one.shape == (16, 2)
    np.testing.assert_array_equal(one, four)


def test_a_network_of_other_classes_is_refused(trained, cache, tmp_path, monkeypatch, capsys):
    workdir = toy.copy_run(trained, tmp_path / "other")
    config = settings(cache)
    monkeypatch.setattr(checkpoint, "check_settings", lambda workdir, config: None)
    with pytest.raises(ValueError, match="relevance: the network has 4 classes and the animals 2"):
        relevance_stage.run(config, workdir)
    relevance_stage.run(config, workdir, required=False)
    assert "relevance: left out, because the network has 4 classes" in capsys.readouterr().out


def test_settings_that_cannot_work(cache):
    with pytest.raises(ValueError, match=r"is for animals, and data\.name is 'scenes'; start from"):
        relevance_stage.check(get_config("baseline", "scenes"))
    for change, words in (
        ({"mode": "both"}, r"relevance\.mode must be one of independent, released; got 'both'"),
        ({"scenes": 1}, r"relevance\.scenes must be an integer of at least 2"),
        ({"replicates": 199}, r"relevance\.replicates must be an integer of at least 200"),
        ({"split": "train"}, r"relevance\.split must be one of validation, test; got 'train'"),
    ):
        config = settings(cache)
        config.relevance.update(change)
        with pytest.raises(ValueError, match=words):
            relevance_stage.check(config)
    config = settings(cache)
    config.data.animals.sampler = "study"
    config.data.test_split = ""
    with pytest.raises(ValueError, match=r"relevance\.split='test', but data\.test_split is empty"):
        relevance_stage.check(config)


def test_unbiased_scenes_are_as_the_run_draws_its_own_but_for_the_bias(cache):
    config = settings(cache)
    assert evaluator_training.unbiased(config, 2, 3).data.animals.sampler == "unbiased"
    config.data.animals.update(sampler="color_biased", ranges="intended", seed=4)
    config.relevance.mode = "released"
    found = evaluator_training.unbiased(config, 2, 3).data.animals
    assert (found.sampler, found.label_noise) == ("color_biased_unbiased_released", 0)
    assert (found.seed, found.ranges, found.train, found.test) == (4, "intended", 2, 3)
    assert config.data.animals.sampler == "color_biased"


def test_an_evaluator_sees_whole_pictures_in_its_own_order_whatever_the_run(cache, monkeypatch):
    monkeypatch.setattr(evaluator_training, "ARCHITECTURE", "tiny")
    whole, seen = data.batches, []

    def first(*args, **kwargs):
        seen.append(next(whole(*args, **kwargs)))
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "batches", first)
    plain, other = settings(cache), settings(cache)
    other.seed = 5
    other.data.update(flip=True, crop="resized", crop_scale=(0.1, 0.2), resize=1.5)
    for config in (plain, other):
        config.relevance.evaluator_width = 0.5
        with pytest.raises(KeyboardInterrupt):
            evaluator_training.keep(config)
    np.testing.assert_array_equal(seen[0]["image"], seen[1]["image"])
    np.testing.assert_array_equal(seen[0]["targets"], seen[1]["targets"])
    scenes = animal_set.animals("train", evaluator_training.unbiased(plain, 64, 100))
    targets = [evaluator.encoded(s["attributes"], s["label"]) for s in map(scenes.__getitem__, range(64))]  # fmt: skip
    scene = np.abs(np.stack(targets) - seen[1]["targets"][0]).sum(1).argmin()
    np.testing.assert_array_equal(seen[1]["image"][0], scenes[int(scene)]["image"])


def test_an_evaluator_that_was_stopped_goes_on_to_the_same(cache, monkeypatch):
    config = settings(cache)
    monkeypatch.setattr(evaluator_training, "ARCHITECTURE", "tiny")  # which compiles in no time
    config.relevance.evaluator_width = 1.0
    whole = evaluator_training.keep(config)
    # It is judged on scenes of its own: what it says there, by hand.
    held = animal_set.animals("test", evaluator_training.unbiased(config, 64, 100))
    off = whole.read(held)[0] - np.stack([held[i]["attributes"] for i in range(len(held))])
    around = np.abs((off[:, ATTRIBUTES.index("yaw")] + np.pi) % (2 * np.pi) - np.pi)
    assert (len(held), [*whole.error]) == (100, [*ATTRIBUTES])
    assert whole.error["yaw"] == pytest.approx(around.mean(), rel=1e-4)
    color = off[:, ATTRIBUTES.index("obj_color")]
    assert whole.error["obj_color"] == pytest.approx(np.abs(color).mean(), rel=1e-4)
    (state,) = cache.glob("evaluator-32px-*/state.npz")
    state.parent.rename(cache / "moved")
    save = files.save_npz

    def killed(*args, **kwargs):
        save(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_npz", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluator_training.keep(config)
    monkeypatch.setattr(files, "save_npz", save)
    again = evaluator_training.keep(config)
    assert files.checksum(again.net.variables) == files.checksum(whole.net.variables)
    assert again.error == whole.error
    # It is there: nothing is trained again, and it reads pictures that are no data set.
    monkeypatch.setattr(evaluator_training, "_program", None)
    kept = evaluator_training.keep(config)
    images = [animal_set.animals("test", config)[0]]
    values, logit = kept.read(images)
    assert (values.shape, logit.shape) == ((1, 10), (1,))


def test_a_study_compares_flips_and_accuracies(run, tmp_path):
    part = {p.title: p for p in collect.read_run(run)[0]}
    found = {m.name: v for m, v in part["relevance/relevance"].values.items()}
    rows = {r["attribute"]: r["flips"] for r in files.read_csv(run / "relevance" / "relevance.csv")}
    for name, share in rows.items():
        assert found[f"flips_{name}"] == pytest.approx(share, abs=1e-5)
    heads = {m.name for m in part["relevance/relevance"].values if m.headline}
    assert heads == {"flips_obj_color", "flips_spherical", "flips_arm_position", "flips_bg_color",
                     "unbiased_accuracy", "ambiguous_accuracy"}  # fmt: skip
    assert "weights" not in part["relevance/relevance"].settings
    pointing = {m.subject: m.control for m in part["relevance/pointing"].values}
    assert pointing == {"gradient": False, "random": True, "center": True, "sobel": True}
    parts = {}
    for seed in range(3):
        for name in ("baseline", "cutmix"):
            more = 0.01 * seed + 0.3 * (name == "cutmix")
            measured = part["relevance/relevance"].values
            shifted = {measure: value + more for measure, value in measured.items()}
            parts[name, seed] = [collect.Part("relevance/relevance", shifted, {}, {})]
    study = comparing.compare(("baseline", "cutmix"), (0, 1, 2), parts, "", at_chance={})
    assert "Relevance: " in study.sentences["relevance"]
    html = study_relevance.section(study, tmp_path)
    for words in ("flip rate of obj_color", "accuracy on unbiased animals", "cutmix"):
        assert words in html
    none = comparing.compare(("baseline",), (0,), {}, "", at_chance={})
    assert study_relevance.section(none, tmp_path) == ""
