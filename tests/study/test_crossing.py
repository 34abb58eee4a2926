"""Deletion across the models of a seed: the numbers, the images, and the cache."""

import dataclasses

import jax
import numpy as np
import pytest
import studies
import toy

from mixaug_jax import data, models, scores
from mixaug_jax.study import gather, study_tables
from mixaug_jax.training import checkpoint


def test_few_images_are_not_judged(tmp_path):
    """Of 24 images one network misses five: 19 are left."""
    for run in studies.asked(tmp_path, seeds=[0]):
        studies.write_run(run, scores={})
        found = studies.explanations("gradcam", {"pointing_game": 1.0}, images=24)
        missed = np.arange(24) < 5 * (run.name == "cutmix")
        found = dataclasses.replace(found, predicted=np.where(missed, 99, found.predicted))
        studies.evaluation.save(found, run.workdir / "attribution" / "gradcam.npz")
    with pytest.MonkeyPatch.context() as patch:
        first = [{"label": 0, "image": np.zeros((16, 16, 3), np.uint8)}] * 24
        patch.setattr(data, "open_source", lambda split, config, annotations=True: first)
        study = gather(tmp_path)
    assert not study.cross_deletion
    assert (
        "seed 0: no deletion across models: it needs 20 images whose class all models find and all maps explain, and there are "
        "19"
    ) in study.problems
    assert not study.find("faithfulness", "gain_over_random")


def test_deletion_across_models(tmp_path, monkeypatch):
    """Against the function itself, on the images that all models find; read from the cache the second time."""
    runs = studies.asked(tmp_path, seeds=[0])
    source = toy.source(24)
    labels = np.array([source[i]["label"] for i in range(24)])
    nets, heats = {}, {}
    for k, run in enumerate(runs):
        model = models.MODELS["tiny"](4)
        variables = model.init(jax.random.key(k), np.zeros((1, 16, 16, 3), np.float32))
        nets[str(run.workdir)] = models.Net(model, variables, models.Preprocess(16))
        heats[run.name] = np.random.default_rng(k).normal(size=(24, 16, 16)).astype(np.float32)
        studies.write_run(run, scores={})
        found = dataclasses.replace(
            studies.explanations("gradcam", {"pointing_game": 1.0}, images=24),
            heat=heats[run.name],
            labels=labels,
            predicted=np.where(np.arange(24) == k, 99, labels),  # each misses one
        )
        path = run.workdir / "attribution" / "gradcam.npz"
        studies.evaluation.save(found, path)
    monkeypatch.setattr(data, "open_source", lambda split, config, annotations=True: source)
    monkeypatch.setattr(checkpoint, "load", lambda workdir: nets[str(workdir)])
    study = gather(tmp_path)
    found = study.cross_deletion[0]
    assert found.indices.tolist() == list(range(2, 24))
    assert found.models == ("baseline", "cutmix")
    pixels = np.stack([models.Preprocess(16)(source[i]["image"]) for i in found.indices])
    expected = scores.cross_model_deletion(
        dict(zip(found.models, nets.values(), strict=True)),
        {name: heat[2:] for name, heat in heats.items()},
        pixels,
        labels[2:],
    )
    np.testing.assert_allclose(found.area, expected["D"], rtol=1e-6)
    np.testing.assert_allclose(found.own_vs_others, expected["own_vs_others"], rtol=1e-5, atol=1e-7)
    (i,) = study.find("faithfulness", "gain_over_random")
    np.testing.assert_allclose(study.values[:, 0, i], expected["gain_over_random"], atol=1e-6)
    assert study.difference_of[0, i] == "images"
    low, high = study.interval[0, i]
    assert low < study.mean[0, i] < high
    assert len(study_tables.cross_rows(study)[1]) == 2 * 4

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(checkpoint, "load", fail)
    monkeypatch.setattr(data, "open_source", fail)  # a report is made from files alone
    np.testing.assert_array_equal(gather(tmp_path).cross_deletion[0].area, found.area)
    heats["cutmix"][5] += 1
    studies.evaluation.save(
        dataclasses.replace(studies.evaluation.load(path), heat=heats["cutmix"]), path
    )
    with pytest.raises(AssertionError, match="computed again"):
        gather(tmp_path)

    def gone(*_, **__):
        raise FileNotFoundError("the data set has moved")

    monkeypatch.setattr(data, "open_source", gone)
    study = gather(tmp_path)
    assert "seed 0: no deletion across models: the data set has moved" in study.problems
    assert not study.cross_deletion
