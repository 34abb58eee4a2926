"""A data set of colored noise and a config for it: seconds of training, no files."""

import pathlib

import numpy as np
import pytest

import mixaug_jax
from mixaug_jax import data
from mixaug_jax.config import get_config
from mixaug_jax.data.source import Source


def source(size=64, *, side=16, classes=4, seed=0):
    """`size` pictures of noise around a level of their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=size)
    images = rng.normal(60 + 40 * labels[:, None, None, None], 20, (size, side, side, 3))
    images = images.clip(0, 255).astype(np.uint8)

    def read(i):
        return {"image": images[i], "label": int(labels[i])}

    return Source(read, size, tuple(f"level {k}" for k in range(classes)))


def splits(size=64):
    """What `data.open_splits` gives; sizes that no batch divides."""
    return {
        "train": source(size, seed=1),
        "validation": source(21, seed=2),
        "test": source(37, seed=3),
    }


def config(method="baseline", **train):
    """`tiny` at 16 px, batches of 16, four steps an epoch."""
    config = get_config(method, "scenes")
    config.data.update(size=16, batch_size=16)
    config.model.name, config.model.width = "tiny", 1.0
    config.eval.batch_size = 16
    config.train.update({"epochs": 2, "log_every": 1, "warmup": 0.0, "lr": 0.05} | train)
    return config


def train_run(workdir):
    """Makes a working directory with checkpoints of steps 2 and 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_splits", lambda config: splits())
        mixaug_jax.train(config(epochs=1, keep_every=0.5, checkpoint_every=0.5), workdir)


def copy_run(trained, workdir):
    """The same without results."""
    workdir.mkdir()
    for name in ("config.json", "checkpoints"):
        (workdir / name).symlink_to(pathlib.Path(trained) / name)
    return workdir


def use(monkeypatch, source):
    """Puts a source, or a function of the split, in the place of the data."""
    give = source if callable(source) else lambda split: source
    monkeypatch.setattr(data, "open_source", lambda split, config, annotations=True: give(split))
