"""What a run that goes on takes over from its working directory: where its learning rate's schedule began."""

import pathlib

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax.config import keys
from mixaug_jax.core import say
from mixaug_jax.training import checkpoint
from mixaug_jax.training import step as steps


def resumed(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The resolved config with `resolved.rate_start`, the step at which its schedule begins; says where the rate jumps.

    With train.restart the schedule begins anew at the last checkpoint, unless a run with these very settings has restarted
    there before. Without, it goes on; where the run is made longer that moves the rate, which is said.

    Args:
      config: of the run that goes on.
      workdir: whose config.json and checkpoints are those of the run so far.

    Raises:
      ValueError: imported weights, which no training goes on from.
    """
    stored = config_lib.read(workdir)
    if not stored.resolved.steps:
        raise ValueError(f"{workdir} holds imported weights; train in another --workdir")
    found = checkpoint.steps_there(workdir)
    at = found[-1] if found else 0
    start = stored.resolved.get("rate_start", 0)
    again = _rates(stored) == _rates(config) and stored.train.get("restart", False)
    if config.train.restart and not again:
        start = at
    with config.unlocked():
        config.resolved.rate_start = start
    if at and at < config.resolved.steps:
        before, after = (float(steps.learning_rate(c)(at)) for c in (stored, config))
        if before != after:
            why = "the schedule begins anew" if start == at else (
                f"the run has {config.resolved.steps} steps in place of {stored.resolved.steps}"
            )  # fmt: skip
            say.line(
                f"learning rate: {after:.4g} in place of {before:.4g} from step {at} on: {why}"
            )
    return config


def _rates(config):
    """The settings of the rate and of the length."""
    flat = config_lib.flatten(config.to_dict())
    return {k: v for k, v in flat.items() if keys.decides(k) in (keys.RATE, keys.LENGTH)}
