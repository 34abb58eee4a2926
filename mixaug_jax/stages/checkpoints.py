"""What the stages share: a run's checkpoints, one after the other."""

import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import processes
from mixaug_jax.training import checkpoint
from mixaug_jax.training.writers import TensorBoard


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
        before = _figures(folder)
        with devices_lib.out_of_memory(advice):
            work(net, folder, step)
        if processes.is_main():
            new = _figures(folder).items() - before.items()
            _show(workdir, step, {f"{name}/{path.stem}": path for path, _ in sorted(new)})
    devices_lib.barrier(name)


def _figures(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    """The figures in a folder and when they were drawn, nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def _show(workdir: pathlib.Path, step: int, figures: Mapping[str, pathlib.Path]) -> None:
    """Adds figures to the run's events for TensorBoard, where tensorboardX is installed."""
    if not figures:
        return
    try:
        board = TensorBoard(workdir)
    except ImportError:  # the extra `tensorboard`
        return
    pictures = {name: np.asarray(Image.open(p).convert("RGB"))[None] for name, p in figures.items()}
    board.write_images(step, pictures)
    board.close()
