"""The stage `train`: from the data to checkpoints; or, where `config.weights` names a file, from that file to checkpoint 0."""

import os

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax import training
from mixaug_jax.core import say
from mixaug_jax.stages import weights
from mixaug_jax.stages.base import Stage
from mixaug_jax.training import checkpoint, predictions


def run(
    config: ml_collections.ConfigDict,
    workdir: os.PathLike | str,
    *,
    which: str = "latest",
    required: bool = True,
) -> None:
    """Trains a network, or goes on with a run that was cut short, see `training.train`; or imports `config.weights`.

    Args:
      config: from `get_config`.
      workdir: folder for checkpoints and logs; made where missing.
      which: not used: training goes on from the latest checkpoint.
      required: whether the stage was asked for by name; under "all", a network that `save` wrote is left as it is.
    """
    if config.weights:
        weights.import_run(config, workdir)
        predictions.keep_given(workdir, config)
    elif checkpoint.is_given(workdir) and not required:
        say.line(f"{workdir} holds a network that was not trained here: there is nothing to train")
        predictions.keep_given(workdir, config)
    else:
        training.train(config, workdir)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for settings that cannot work; what is imported asks nothing of batches and devices."""
    (config_lib.check if config.weights else training.check)(config)


STAGE = Stage(run, check, "trains, or goes on; where weights names a file, imports it")
