"""Labels that a mixer left open, settled in the training step by what the batch knows of its images.

Each way to settle them is a few lines of `settled`: today by the part of each class that is still seen.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Config, Dataset
from mixaug_jax.data import parts_wanted
from mixaug_jax.mixing import labels


def check(config: Config, source: Dataset) -> None:
    """Raises ValueError where mix.label needs more of a batch than the training data tell; compiles nothing."""
    if not parts_wanted(config):
        return
    known = bool(source.class_parts)
    if source.make is not None:
        make = functools.partial(source.make, count=2)
        program = devices_lib.pmap(
            lambda key, arrays: make(key, arrays=arrays),
            in_specs=(devices_lib.REPLICATED, devices_lib.REPLICATED),
            out_specs=devices_lib.SHARDED,
        )
        known = "parts" in jax.eval_shape(program, jax.random.key(0), source.arrays)
    if not known:
        raise ValueError(_no_parts(config))


def _no_parts(config):
    return (
        f"mix.label={labels.VISIBLE!r} needs pictures whose pixels tell which class they show, which data.name="
        f"{config.data.name!r} does not have here; use markers, or another mix.label"
    )


def settled(targets: Any, batch: Mapping, classes: int, config: Config) -> Any:
    """Targets that a mixer left open, by what the batch tells of its images; others as they are.

    Args:
      targets: [B,K], or `labels.Pending` ones, whose columns may be several blocks of all classes.
      batch: with parts [B,H,W], 1 + the class that a pixel tells of, 0: none.
      classes: in a block.
      config: of the run.
    """
    if not isinstance(targets, labels.Pending):
        return targets
    if "parts" in batch:
        kept = labels.kept_shares(targets.mask, batch["parts"], classes)
    else:
        raise ValueError(_no_parts(config))
    return labels.settle(targets, jnp.tile(kept, (1, targets.own.shape[-1] // kept.shape[-1])))
