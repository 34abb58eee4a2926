"""What the stages share: checkpoints one after the other, results as files that carry their settings."""

import contextlib
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable

import jax
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


def checksum(tree) -> int:
    """A CRC-32 of the bytes of all arrays in a tree, in the order of its leaves."""
    check = 0
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        check = zlib.crc32(np.ascontiguousarray(leaf), check)
    return check


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


def load_npz(path, make: Callable, what: str):
    """`make(arrays, settings)` of what `save_npz` wrote.

    Raises:
      ValueError: no such file, or one that is not of this kind; `what` says which kind that is.
    """
    try:
        # Opened here: np.load would leave a damaged file open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
        del arrays["versions"]  # they are there for other readers
        return make(arrays, json.loads(str(arrays.pop("settings"))))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no result of {what}: {error}") from error


def load_if(load: Callable, path, settings: dict):
    """`load(path)` if its settings are these; None where it is not there, cannot be read, or was made with others."""
    if not pathlib.Path(path).exists():
        return None
    with contextlib.suppress(ValueError):  # an unreadable file is replaced
        result = load(path)
        if result.settings == settings:
            return result
    return None
