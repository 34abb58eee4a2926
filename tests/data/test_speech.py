"""Spectrograms on their way to a network: batches, mixing, settings; and a network trained on recordings."""

import jax
import numpy as np
import pytest
from recordings import config, write_recordings

from mixaug_jax import config as config_lib
from mixaug_jax import data, mixing, training
from mixaug_jax.config import get_config
from mixaug_jax.data import transforms
from mixaug_jax.mixing import MIXERS
from mixaug_jax.training import checkpoint


@pytest.fixture
def root(tmp_path):
    write_recordings(tmp_path)
    return tmp_path


def test_random_places_in_time_keep_the_mask_beside_the_sound():
    rng = np.random.default_rng(0)
    columns = np.arange(1, 21, dtype=np.uint8)
    valid = (columns > 4) & (columns < 12)
    image = np.broadcast_to((columns * valid)[None, :, None], (16, 20, 1))
    firsts = set()
    for _ in range(200):
        out = transforms.time_crop(rng, {"image": image, "valid": valid}, 16, 3)
        assert out["image"].shape == (16, 16, 1)
        row = out["image"][0, :, 0]
        np.testing.assert_array_equal(out["valid"], row > 0)
        np.testing.assert_array_equal(out["image"][5, :, 0], row)
        kept = row[row > 0]
        np.testing.assert_array_equal(np.diff(kept), 1)
        firsts.add((int(kept[0]), int(np.flatnonzero(row)[0])))
    assert len(firsts) == 20 + 2 * 3 - 16 + 1  # every place that there is


@pytest.mark.parametrize("train", [True, False])
def test_batches_have_one_channel_and_the_mask(root, train):
    settings = config(root)
    source = data.open_splits(settings)["train"]
    batch = next(iter(data.batches(source, settings, train=train)))
    size = 8 if train else 4
    assert batch["image"].shape == (size, 16, 16, 1)
    assert (batch["image"].dtype, batch["valid"].dtype) == (np.uint8, bool)
    assert batch["valid"].shape == (size, 16)
    hidden = batch["image"].transpose(0, 2, 1, 3)[~batch["valid"]]
    assert (hidden == 0).all()
    again = next(iter(data.batches(source, settings, train=train)))
    np.testing.assert_array_equal(again["image"], batch["image"])


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_mixer_takes_one_channel(root, name):
    settings = config_lib.resolve(config(root, name), train_size=16, class_names=("a", "b"))
    training.mixing_batches.check_mixing(settings)


@pytest.mark.parametrize("name", ["cutmix", "mixup", "saliencymix"])
def test_mixed_spectrograms(root, name):
    settings = config(root, name)
    source = data.open_splits(settings)["train"]
    batch = next(iter(data.batches(source, settings, train=True)))
    images = transforms.device_transform(
        batch["image"], batch["seed"], jitter=0, lighting=0, mean=(0.26,), std=(0.29,)
    )
    targets = jax.nn.one_hot(batch["label"], 2)
    options = mixing.own_options(settings.mix)
    if name == "saliencymix":
        options |= {"mean": (0.26,), "std": (0.29,)}
    mixed, labels = jax.jit(lambda k: MIXERS[name](k, images, targets, **options))(
        jax.random.key(0)
    )
    assert mixed.shape == images.shape
    assert np.isfinite(mixed).all()
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)


def test_published_saliencymix_needs_colors(root):
    settings = config(root, "saliencymix")
    settings.mix.variant = "released"
    with pytest.raises(ValueError, match="images must have 3 channels; got 1"):
        training.train(settings, root / "run")
    assert not (root / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("flip", True, "no mirror image"),
        ("crop", "resized", "data.crop 'time' or 'none'"),
        ("resize", 1.5, "data.resize 1"),
        ("mean", (0.5,) * 3, "data.mean and data.std must have one value a channel"),
        ("jitter", 0.4, "for colors"),
        ("lighting", 0.1, "for colors"),
        ("name", "folder", "configs/METHOD.py:folder"),
        ("audio.rate", 0, "data.audio.rate must be an integer of at least 1 .* got 0"),
        ("audio.window", 0.0, "data.audio.window must be a number above 0 .* got 0.0"),
        ("audio.hop", 1e-9, "must last a sample"),
        ("audio.span", 400.0, "data.audio.span must be a number .* at most 200; got 400.0"),
        ("audio.masks", -1, "data.audio.masks must be an integer of at least 0 .* got -1"),
        ("audio.mask_frames", 1.2, "data.audio.mask_frames must be a number .* at most 1; got 1.2"),
        ("audio.high", 5000.0, "half the rate"),
        ("size", 200, "200 bands .* are too narrow for windows of 128 samples"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, key, value, sentence):
    settings = config(tmp_path)
    section, _, name = key.rpartition(".")
    (settings.data[section] if section else settings.data)[name] = value
    with pytest.raises(ValueError, match=sentence):
        training.train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_has_no_crop_in_time():
    settings = get_config("baseline", "folder")
    settings.data.crop = "time"
    with pytest.raises(ValueError, match="for recordings only"):
        training.train(settings, "nowhere")


def test_a_network_from_wav_files_to_its_answers(root, tmp_path):
    settings = config(root)
    settings.train.epochs = settings.eval.every = settings.train.checkpoint_every = 12
    result = training.train(settings, tmp_path / "run")
    assert result["test_accuracy"] > 0.9  # two pitches
    net = checkpoint.load(tmp_path / "run")
    test = data.open_source("test", settings)
    inputs = np.stack([net.preprocess(test[i]["image"]) for i in range(len(test))])
    assert inputs.shape == (8, 16, 16, 1)
    right = np.asarray(net.logits(inputs)).argmax(axis=1) == [
        e["label"] for e in map(test.read, range(8))
    ]
    assert right.mean() == result["test_accuracy"]
    gradient = jax.grad(lambda x: net.logits(x)[:, 0].sum())(inputs)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
