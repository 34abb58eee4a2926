"""Room on the disk: looked at before a run, and said where it is used up."""

import contextlib
import errno
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax

from mixaug_jax.core.types import Path


@contextlib.contextmanager
def full_disk(workdir: Path) -> Iterator[None]:
    """Turns whatever a full disk makes of writing files into one OSError that says so."""
    try:
        yield
    except Exception as error:  # the storage library raises several kinds, from its own threads
        if any(sign in repr(error) for sign in ("No space left", "Disk quota", "File too large")):
            raise OSError(
                errno.ENOSPC,
                f"the disk is full: {workdir} could not be written, its earlier checkpoints are whole; "
                "make room and run the same command again",
            ) from error
        raise


def check_space(workdir: Path, tree: Any) -> None:
    """Raises OSError where the disk has not room for two checkpoints of `tree` (arrays or their shapes)."""
    need = 2 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    free = shutil.disk_usage(pathlib.Path(workdir).absolute()).free
    if free < need:
        raise OSError(
            errno.ENOSPC,
            f"{workdir} has {free / 2**20:.0f} MiB free; two checkpoints need {need / 2**20:.0f} MiB",
        )
