"""The stage `train`: from the data to checkpoints; or, where `config.weights` names a file, from that file to checkpoint 0."""

from mixaug_jax import config as config_lib
from mixaug_jax import training
from mixaug_jax.stages import weights
from mixaug_jax.stages.base import Stage


def run(config, workdir, *, which: str = "latest", required: bool = True) -> None:
    """Trains a network, or goes on with a run that was cut short; see `training.train`.

    Args:
      config: from `get_config`.
      workdir: folder for checkpoints and logs; made where missing.
      which: not used: training goes on from the latest checkpoint.
      required: whether the stage was asked for by name; under "all", `config.weights` are imported in place of a training.
    """
    if config.weights and not required:
        weights.import_run(config, workdir)
    else:
        training.train(config, workdir)


STAGE = Stage(run, config_lib.check, "trains, or goes on; where weights names a file, imports it")
