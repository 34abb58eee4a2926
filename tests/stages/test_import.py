"""Released weights in a working directory: later stages read them as if they had been trained here."""

import jax
import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import data, models
from mixaug_jax.models import weights
from mixaug_jax.stages import weights as stage
from mixaug_jax.training import checkpoint


@pytest.fixture
def released(tmp_path):
    """A file of weights, and the network in it."""
    model = models.MODELS["resnet18"](7, width=0.125, stem="cifar")
    image = np.zeros((1, 16, 16, 3), np.float32)
    preprocess = models.Preprocess(
        16, 18, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), order="bgr", interpolation="bicubic"
    )
    net = models.Net(model, model.init(jax.random.key(0), image), preprocess)
    path = tmp_path / "released.safetensors"
    weights.export_weights(net, path)
    return path, net


def config(path):
    settings = mixaug_jax.get_config()
    settings.weights = str(path)
    return settings


def test_import_load_and_export_again(released, tmp_path, capsys):
    path, net = released
    stage.import_run(config(path), tmp_path / "run")
    loaded = mixaug_jax.load(tmp_path / "run")
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    assert loaded.preprocess == net.preprocess
    np.testing.assert_array_equal(loaded.preprocess(image), net.preprocess(image))
    x = net.preprocess(image)[None]
    np.testing.assert_array_equal(loaded.logits(x), net.logits(x))
    again = weights.import_weights(stage.export_run(tmp_path / "run"))
    assert again.preprocess == net.preprocess
    jax.tree.map(np.testing.assert_array_equal, again.variables, dict(net.variables))
    assert "resnet18, 7 classes, width 0.125" in capsys.readouterr().out
    stage.import_run(config(path), tmp_path / "run")
    assert "imported already" in capsys.readouterr().out
    assert checkpoint.steps(tmp_path / "run") == [0]


def test_other_weights_and_training_are_refused_where_weights_were_imported(
    released, tmp_path, monkeypatch
):
    path, net = released
    stage.import_run(config(path), tmp_path / "run")
    weights.export_weights(net, tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"weights: .*released.* -> .*other"):
        stage.import_run(config(tmp_path / "other.safetensors"), tmp_path / "run")
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    with pytest.raises(ValueError, match="holds imported weights"):
        mixaug_jax.train(config(path), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run") == [0]
    stage.import_run(config(path), tmp_path / "run")  # the refusals have changed nothing
    with pytest.raises(ValueError, match="weights is empty"):
        stage.import_run(mixaug_jax.get_config(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
