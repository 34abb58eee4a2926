"""Results that are kept in files, and made where they are not there."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from mixaug_jax.core import files, processes
from mixaug_jax.core.types import Path


def keep(
    path: Path, settings: Mapping, *, load: Callable, make: Callable, save: Callable
) -> tuple[Any, bool]:
    """A result from its file if these settings made it; else made by all processes and written by the first one.

    Args:
      path: of the file; in a job of several processes only the first one need see it.
      settings: all that decides the result, as its file has them.
      load: f(path) -> a result with `settings`; raises ValueError where the file is damaged.
      make: f() -> the result, in all processes alike.
      save: f(result, path).

    Returns:
      The result, None in another process than the first where it was read; and whether it is new.
    """
    path = pathlib.Path(path)
    # One process looks, since it may be writing before another has looked; all go its way, because making takes all.
    found = files.load_if(load, path, settings) if processes.is_main() else None
    if processes.agreed(found is not None):
        return found, False
    found = make()
    if processes.is_main():
        save(found, path)
    return found, True
