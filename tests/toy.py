"""A data set of coloured noise and a config for it: seconds of training, no files."""

import numpy as np

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
