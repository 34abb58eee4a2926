"""Released weights in a working directory: later stages read them as if they had been trained here."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from recipe import weight

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import data, models
from mixaug_jax.config import keys
from mixaug_jax.data.source import Source
from mixaug_jax.models import imagenet, mapping, weights
from mixaug_jax.papers.released import table
from mixaug_jax.stages import imported_accuracy
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
    # As a damaged checkpoint is set aside.
    (tmp_path / "run/checkpoints/0").rename(tmp_path / "aside")
    stage.import_run(config(path), tmp_path / "run")
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


@pytest.fixture
def bare(tmp_path):
    """A file of weights that says nothing of itself."""
    model = models.MODELS["resnet18"](7, width=1 / 32, stem="cifar")
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    path = tmp_path / "bare.npz"
    named = mapping.torch_shapes(shapes)
    np.savez(path, **{name: weight(name, shape) for name, shape in named.items()})
    return path


def typed(path, *settings):
    """A config as the command line sets it."""
    found = config(path)
    for setting in settings:
        keys.assign(found, *setting.split("="))
    return found


def test_what_a_file_does_not_tell_can_be_typed(bare, tmp_path, capsys):
    settings = ("assume.pool=max", "assume.slope=0.1", "view.preset=torchvision_v2", "view.size=16")
    settings += ("view.mean=0.1,0.2,0.3", "view.std=1,1,1", "view.interpolation=bicubic")
    stage.import_run(typed(bare, *settings), tmp_path / "run")
    said = capsys.readouterr().out
    assert (
        "resnet18 with stem cifar, pool max, last_stride 2, dilation 1, epsilon 1e-05, slope 0.1"
        in said
    )
    loaded = mixaug_jax.load(tmp_path / "run")
    view = models.Preprocess(16, 17, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0), interpolation="bicubic")
    assert loaded.preprocess == view
    assumed = models.Assume(pool="max", slope=0.1)
    other = weights.import_weights(bare, assume=assumed, view=view)
    assert loaded.model == other.model
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.logits(x), other.logits(x))
    with pytest.raises(ValueError, match=r"assume\.slope: 0\.1 -> 0\.2"):
        stage.import_run(typed(bare, *settings, "assume.slope=0.2"), tmp_path / "run")
    again = weights.import_weights(stage.export_run(tmp_path / "run"))
    assert (again.model, again.preprocess) == (loaded.model, view)


@pytest.mark.parametrize("assumed", [1, 2])
def test_a_layers_stride_is_what_is_assumed_of_the_weights(bare, tmp_path, assumed):
    given = typed(bare, "model.last_stride=1", f"assume.last_stride={assumed}")
    stage.import_run(given, tmp_path / "run")
    loaded = mixaug_jax.load(tmp_path / "run")
    assert loaded.model.last_stride == assumed
    expected = weights.import_weights(bare, assume=models.Assume(last_stride=assumed))
    assert loaded.model == expected.model


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("assume.dilation=3", "assume.dilation must be one of 1, 2, 4, 8; got 3"),
        ("assume.pool=avg", "assume.pool must be one of auto, max, none; got 'avg'"),
        ("view.preset=tim", r"view\.preset must be one of .*did you mean 'timm'"),
        ("view.resize=9", "view: resize must be 0 or at least size, 32 pixels; got 9"),
        ("weights_key=ema", "key must be one of ''; got 'ema'"),
        ("weights_check=none.npz", r"none\.npz is no \.npz file with arrays images and logits"),
    ],
)
def test_settings_that_cannot_work(bare, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        stage.import_run(typed(bare, setting), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def source_of(net, labels):
    """Images, labeled by what the network says of them where `labels` is None."""
    images = np.random.default_rng(0).integers(0, 256, (70, 20, 20, 3), np.uint8)
    seen = np.stack([net.preprocess(image) for image in images])
    labels = np.argmax(net.logits(seen), -1) if labels is None else labels
    names = tuple("abcdefg")
    return Source(lambda i: {"image": images[i], "label": int(labels[i])}, 70, names)


def test_accuracy_is_measured_where_the_data_have_the_classes(bare, tmp_path, monkeypatch, capsys):
    net = weights.import_weights(bare)
    monkeypatch.setattr(data, "open_source", lambda *_, **__: source_of(net, None))
    stage.import_run(config(bare), tmp_path / "right")
    said = capsys.readouterr()
    assert "accuracy 100.0% of 70 images of the validation split (94.8% to 100.0%)" in said.out
    assert "chance is 14.3%" in said.out
    assert said.err == ""
    labels = np.arange(70) % 7  # independent of the images
    monkeypatch.setattr(data, "open_source", lambda *_, **__: source_of(net, labels))
    stage.import_run(config(bare), tmp_path / "chance")
    assert "warning: the imported network is no better than chance here" in capsys.readouterr().err


def measured(logits, labels, names, monkeypatch, capsys):
    """What is said of a network with these logits for images of one pixel, which is the image's number."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    source = Source(lambda i: {"image": images[i], "label": labels[i]}, len(labels), names)
    monkeypatch.setattr(data, "open_source", lambda *_, **__: source)
    module = nn.Dense(np.shape(logits)[1], use_bias=False)
    net = models.Net.wrap(
        OneHot(module, len(labels)),
        {"params": {"last": {"kernel": jnp.asarray(logits, jnp.float32)}}},
        lambda image: np.float32(image),
    )
    classes = imagenet.wnids() if np.shape(logits)[1] == 1000 else ("0", "1")
    settings = config_lib.resolve(mixaug_jax.get_config(), train_size=0, class_names=classes)
    imported_accuracy.say_accuracy(net, settings)
    return capsys.readouterr().out


class OneHot(nn.Module):
    """The row of a table whose number an image is."""

    last: nn.Module
    rows: int

    def __call__(self, x):
        return self.last(jax.nn.one_hot(x[:, 0, 0, 0].astype(int), self.rows))


def test_one_logit_tells_two_classes_apart(monkeypatch, capsys):
    said = measured([[-1], [2], [3], [-4]], [0, 1, 1, 1], ("a", "b"), monkeypatch, capsys)
    assert "accuracy 75.0% of 4 images" in said
    assert "chance is 50.0%" in said


def test_a_part_of_imagenet_is_measured_by_its_own_labels(monkeypatch, capsys):
    wnids = imagenet.wnids()
    logits = np.zeros((2, 1000))
    logits[0, 7], logits[1, 3] = 1, 1
    said = measured(logits, [1, 0], (wnids[3], wnids[7]), monkeypatch, capsys)
    assert "accuracy 100.0% of 2 images" in said


def test_accuracy_is_not_measured_on_other_data(bare, tmp_path, monkeypatch, capsys):
    other = Source(lambda i: {}, 5, ("a", "b"))
    monkeypatch.setattr(data, "open_source", lambda *_, **__: other)
    stage.import_run(config(bare), tmp_path / "other")
    said = capsys.readouterr().out
    assert "accuracy not measured: the data have 2 classes, the network has 7" in said
    settings = mixaug_jax.get_config(data="folder")
    settings.weights, settings.data.dir = str(bare), str(tmp_path / "nowhere")
    monkeypatch.undo()
    stage.import_run(settings, tmp_path / "nothing")
    assert "accuracy not measured: " in capsys.readouterr().out


def test_released_networks_are_seen_as_is_set(bare):
    settings = typed("", "view.preset=torchvision_v2", "assume.epsilon=0.001")
    own = table._config_of(_released(settings), bare)
    assert (own.view.preset, own.assume.epsilon, own.weights) == (
        "torchvision_v2",
        0.001,
        str(bare),
    )


def _released(settings):
    with settings.unlocked():
        settings.released = keys.defaults("released", table.KEYS)
    return settings
