"""Who else hears of a training: what a recorder is told, and what TensorBoard's events hold."""

import json

import jax
import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import data, training
from mixaug_jax.training import first_batch, metric_log, step, writers


class Recorder:
    """Keeps all that it is told."""

    def __init__(self):
        self.scalars, self.images, self.hparams, self.closed = [], [], [], 0

    def write_scalars(self, step, scalars):
        self.scalars.append({"step": step, **scalars})

    def write_images(self, step, images):
        self.images.append((step, images))

    def write_hparams(self, hparams):
        self.hparams.append(hparams)

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def noise(monkeypatch):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())


def test_a_recorder_hears_what_the_log_holds(tmp_path):
    heard, config = Recorder(), toy.config("cutmix", epochs=1)
    mixaug_jax.train(config, tmp_path, writers=(heard,))
    assert heard.scalars == metric_log.read(tmp_path)
    assert [line["step"] for line in heard.scalars if "train_loss" in line] == [1, 2, 3, 4]
    (given,) = heard.hparams
    assert (given["train.lr"], given["mix.name"], given["data.size"]) == (0.05, "cutmix", 16)
    json.dumps(given)  # plain values
    ((step, images),) = heard.images
    shown = images[first_batch.NAME]
    assert (step, shown.dtype, shown.shape[1:]) == (1, np.uint8, (16, 16, 3))
    assert heard.closed == 1
    # A finished run says nothing more, and one that goes on neither shows nor repeats its beginning.
    mixaug_jax.train(config, tmp_path, writers=(heard,))
    config.train.epochs = 2
    mixaug_jax.train(config, tmp_path, writers=(heard,))
    assert [line["step"] for line in heard.scalars if "train_loss" in line] == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
    ]
    assert (len(heard.images), len(heard.hparams)) == (1, 2)


def test_images_are_mixed_as_the_first_step_mixes_them(tmp_path):
    """Without mixing they are the batch; with Cutout each has pixels of the data's mean, and the others are kept."""
    plain, cut = Recorder(), Recorder()
    mixaug_jax.train(toy.config(steps=1), tmp_path / "plain", writers=(plain,))
    config = toy.config("cutout", steps=1)
    mixaug_jax.train(config, tmp_path / "cut", writers=(cut,))
    (_, before), (_, after) = *plain.images, *cut.images
    before, after = before[first_batch.NAME], after[first_batch.NAME]
    changed = (before != after).any(-1)
    assert changed.any((1, 2)).all()
    assert not changed.all((1, 2)).any()
    mean = np.clip(np.rint(255 * np.asarray(config.data.mean)), 0, 255)
    np.testing.assert_array_equal(after[changed], np.broadcast_to(mean, after[changed].shape))


def test_they_are_what_the_first_step_itself_sees(tmp_path, monkeypatch):
    """The same boxes as on the first device, not only ones like them."""
    seen, mixed = {}, step.mixed

    def heard(*given, shard, **named):
        out = mixed(*given, shard=shard, **named)
        jax.debug.callback(lambda k, x: seen.update({int(k): np.asarray(x)}), shard, out[0])
        return out

    monkeypatch.setattr(step, "mixed", heard)
    config, told = toy.config("cutmix", steps=1), Recorder()
    mixaug_jax.train(config, tmp_path / "run", writers=(told,))
    jax.effects_barrier()
    ((_, shown),) = told.images
    expected = 255 * (seen[0] * np.asarray(config.data.std) + np.asarray(config.data.mean))
    shown = shown[first_batch.NAME]
    np.testing.assert_allclose(shown, expected[: len(shown)], atol=0.51)


def test_tensorboard_has_settings_curves_and_pictures(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    board = training.TensorBoard(tmp_path / "events")
    mixaug_jax.train(toy.config(steps=2), tmp_path / "run", writers=(board,))
    for folder in (tmp_path / "events", tmp_path / "run"):  # the second one by itself
        (events,) = folder.glob("events.*")
        content = events.read_bytes()
        assert all(word in content for word in (b"train_loss", b"train.lr", b"PNG", b"settings"))
        assert first_batch.NAME.encode() in content


def test_tiled_in_rows():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    picture = writers.tiled(images)
    assert picture.shape == (4, 9, 1)
    np.testing.assert_array_equal(picture[::2, ::3, 0], [[0, 1, 2], [3, 4, 0]])


def test_what_is_no_writer_is_said_before_a_run(tmp_path, unchecked):
    class Silent:
        def write_scalars(self, step, scalars):
            pass

    with pytest.raises(ValueError, match="Silent has no write_images; a writer has write_scalars"):
        mixaug_jax.train(toy.config(), tmp_path / "run", writers=(Silent(),))
    with pytest.raises(ValueError, match="writers must be several"):
        mixaug_jax.train(toy.config(), tmp_path / "run", writers=Recorder())
    assert not (tmp_path / "run").exists()
