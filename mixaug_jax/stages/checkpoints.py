"""What the stages share: a run's checkpoints, one after the other."""

import os
from collections.abc import Callable

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.training import checkpoint


def each_checkpoint(
    workdir: os.PathLike | str, which: str, name: str, advice: str, work: Callable
) -> None:
    """Calls `work(net, folder, step)` for checkpoints of a run.

    In a job of several processes all of them work, each on its share of the images.

    Args:
      workdir: the run's, a path.
      which: "latest", "best", "all" or a step's number.
      name: of the stage's folder in it; which="all" has one in that for each step.
      advice: what to lower where memory runs out.
      work: what to do.

    Raises:
      ValueError: no such checkpoint.
      MemoryError: memory ran out.
    """
    for step, net in checkpoint.loaded(workdir, which):
        folder = workdir / name / (str(step) if which == "all" else "")
        with devices_lib.out_of_memory(advice):
            work(net, folder, step)
    devices_lib.barrier(name)
