"""What a network sees in its first step, for those who watch a training."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import mixing
from mixaug_jax.core import entries
from mixaug_jax.core.types import Config, UInt8
from mixaug_jax.data import transforms
from mixaug_jax.training import losses, mixing_batches

_SHOWN = 16  # images
NAME = "train/first_step"


def pictures(batch: Mapping, config: Config) -> dict[str, UInt8[np.ndarray, "N H W C"]]:
    """The images of the first device's share of a batch, changed in color and mixed as a step does it, as stored images are.

    Mixed hidden features cannot be seen, and mixing that looks at a network takes that network: such mixers' images are as
    before.

    Args:
      batch: as `step.train_step` takes it, on the devices.
      config: resolved.

    Returns:
      {NAME: uint8 [n,h,w,C]}, n at most 16.
    """
    d = config.data
    own = {k: np.asarray(v.addressable_shards[0].data) for k, v in batch.items()}
    count = max(1, len(own["image"]) // config.train.accumulate)
    own = {name: rows[:count] for name, rows in own.items()}
    mean, std = np.asarray(d.mean, np.float32), np.asarray(d.std, np.float32)
    given = {"jitter": d.jitter, "lighting": d.lighting, "mean": d.mean, "std": d.std}

    name = config.mix.name
    takes = {*entries.keywords(mixing.MIXERS[name])} if name != "none" else set()

    def seen(own: Mapping):
        images = transforms.device_transform(own["image"], own["seed"], **given)
        if {"active", "net"} & takes:
            return images
        # Step 0, micro-batch 0, and of the two keys that a step makes of it the one for mixing.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 0), 0)
        key = jax.random.split(key)[0]
        targets, _ = losses.targets_of(own, config)
        return mixing_batches.mixed(key, images, targets, config=config, shard=0)[0]

    # Nothing to mix and nothing to change is no program to compile.
    plain = name == "none" and not (d.jitter or d.lighting)
    images = own["image"] if plain else jnp.rint(255 * (jax.jit(seen)(own) * std + mean))
    return {NAME: np.clip(np.asarray(images[:_SHOWN]), 0, 255).astype(np.uint8)}
