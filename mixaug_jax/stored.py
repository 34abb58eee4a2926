"""What the stages share: checkpoints one after the other, results as files that carry their settings."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np

from mixaug_jax import checkpoint, parallel


def each_checkpoint(workdir, which: str, name: str, advice: str, work: Callable) -> None:
    """Calls `work(net, folder, step)` for checkpoints of a run.

    In a job of several processes the first one works, on its own devices; the others wait.

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
    for step in checkpoint.steps(workdir, which):
        net = checkpoint.load(workdir, step)
        if parallel.is_main():
            folder = workdir / name / (str(step) if which == "all" else "")
            with parallel.out_of_memory(advice):
                work(net, folder, step)
    parallel.barrier(name)


def save_npz(path, arrays: dict, settings: dict) -> None:
    """Writes arrays, `settings` and the packages' `versions` (both as JSON text) to a .npz, which appears when it is whole."""
    notes = {"settings": settings, "versions": checkpoint.versions()}
    arrays = arrays | {name: np.array(json.dumps(note)) for name, note in notes.items()}
    path = pathlib.Path(path)
    whole = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with whole.open("wb") as file:
            np.savez_compressed(file, **arrays)
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def load_if(load: Callable, path, settings: dict):
    """`load(path)` if its settings are these; None where it is not there, cannot be read, or was made with others."""
    if not pathlib.Path(path).exists():
        return None
    with contextlib.suppress(ValueError):  # an unreadable file is replaced
        result = load(path)
        if result.settings == settings:
            return result
    return None
