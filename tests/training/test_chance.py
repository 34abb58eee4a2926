"""The accuracy of a finished run beside chance, from its files."""

import json

import numpy as np
import pytest
import reports

from mixaug_jax import config as config_lib
from mixaug_jax.training import chance, checkpoint


@pytest.mark.parametrize(
    ("right", "images", "at_chance"),
    [
        (12, 48, True),
        (17, 48, True),
        (30, 48, False),
        (48, 48, False),
        (250, 1000, True),
        (290, 1000, False),
    ],
)
def test_chance_is_where_wilsons_interval_reaches_one_of_the_classes(right, images, at_chance):
    found = chance.Accuracy("test", right / images, images, 0.25)
    assert found.at_chance is at_chance
    low, high = found.interval
    assert low <= right / images <= high
    assert (low <= 0.25) is at_chance


def test_of_an_unknown_number_of_images_nothing_is_said():
    found = chance.Accuracy("test", 0.25, 0, 0.25)
    assert found.interval == (0, 1)
    assert not found.at_chance


def test_it_is_read_from_the_runs_files(tmp_path):
    run = reports.write_run(tmp_path / "run", accuracy=0.5, scores=())
    classes = len(config_lib.read(run).resolved.class_names)
    assert chance.read(run) == chance.Accuracy("test", 0.5, 48, 1 / classes)
    # A class that most images are of is found without a look at them.
    label = np.array([0] * 30 + [1] * 18)
    np.savez(run / "predictions.npz", label=label, predicted=np.zeros(48, int))
    found = chance.read(run)
    assert found == chance.Accuracy("test", 0.5, 48, 30 / 48)
    assert found.at_chance
    (run / "predictions.npz").write_bytes(b"damaged")
    assert chance.read(run).chance == 1 / classes
    (run / "metrics.jsonl").write_text(json.dumps({"step": 4, "validation_accuracy": 0.5}) + "\n")
    assert chance.read(run) is None


def test_a_network_that_was_trained_elsewhere_has_its_predictions(tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    config = config_lib.read(run)
    with config.unlocked():
        config.resolved.steps = 0
    checkpoint.write_settings(run, config)
    (run / "metrics.jsonl").unlink()
    assert chance.read(run) is None
    label = np.arange(40) % 4
    np.savez(run / "predictions.npz", label=label, predicted=np.where(label < 3, label, 0))
    assert chance.read(run) == chance.Accuracy("test", 0.75, 40, 0.25)
