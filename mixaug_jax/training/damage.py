"""What tells a damaged checkpoint: checksums of its arrays and settings, stored with it and compared when it is read."""

import gc
import json
import pathlib
import shutil
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, processes, say
from mixaug_jax.core.files import DamagedError
from mixaug_jax.core.types import Path, Tree

ITEM = "checksums"  # of a checkpoint, beside its arrays, settings and metrics
_SECONDS = 0.5  # that a read under way may take
_NOT_DAMAGE = (MemoryError, PermissionError, jax.errors.JaxRuntimeError)
# As the storage library calls them.
_FILES = {"config": "metadata", "metrics": "metrics", ITEM: "metadata"}


def checksums(variables: Tree, train: Tree, config: dict, metrics: dict) -> dict[str, int]:
    """{name: CRC-32} of every array of a checkpoint, "variables/params/conv1/kernel", and of "config" and "metrics".

    Args:
      variables, train: trees of global arrays, each of which this process has a copy of.
      config, metrics: what is stored as JSON.
    """
    arrays = _of_arrays("variables", variables) | _of_arrays("train", train)
    return arrays | {"config": _of_json(config), "metrics": _of_json(metrics)}


def _of_arrays(item, tree):
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        here = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found[f"{item}/{name}"] = zlib.crc32(np.ascontiguousarray(here))
    return found


def _of_json(value):
    # Through JSON, as it comes back.
    return zlib.crc32(json.dumps(json.loads(json.dumps(value)), sort_keys=True).encode())


def read_json(path: Path, item: str) -> dict:
    """One of the JSON items of a checkpoint; {} where it has no such item.

    Args:
      path: of the checkpoint.
      item: "config", "metrics" or "checksums".

    Raises:
      DamagedError: it cannot be read.
    """
    folder = pathlib.Path(path).absolute() / item
    if not folder.is_dir():
        return {}
    # Not by the storage library, with which all processes of a job would have to read: one alone may.
    try:
        found = json.loads((folder / _FILES[item]).read_text())
    except _NOT_DAMAGE:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"its {item} cannot be read, {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"its {item} cannot be read")
    return found


def stored_config(path: Path) -> dict:
    """The settings in a checkpoint.

    Raises:
      DamagedError: they cannot be read.
    """
    found = read_json(path, "config").get("config")
    if not isinstance(found, dict):
        raise DamagedError("it has no settings")
    return found


def check_json(path: Path) -> dict[str, int]:
    """Compares the settings and the metrics of a checkpoint with their checksums; returns all of its checksums.

    A checkpoint of a version that stored none, for which this is {}, is taken as it is.

    Raises:
      DamagedError: they differ.
    """
    known = read_json(path, ITEM)
    for item in ("config", "metrics") if known else ():
        if _of_json(read_json(path, item)) != known.get(item):
            raise DamagedError(f"its {item} differs from what was written")
    return known


def check_arrays(known: dict[str, int], item: str, tree: Tree) -> None:
    """Compares restored arrays with their checksums.

    Args:
      known: from `check_json`.
      item: "variables" or "train".
      tree: its arrays.

    Raises:
      DamagedError: an array differs; says which.
    """
    for name, check in (_of_arrays(item, tree) if known else {}).items():
        if known.get(name) != check:
            raise DamagedError(f"the array {name} differs from what was written")


def read_arrays(read: Callable[[], Any]) -> Any:
    """`read()`, which lets the storage library read arrays.

    Raises:
      DamagedError: it failed, but for reasons that whole arrays have, too (memory, permission, another process that is gone),
        which are raised as they are.
    """
    before = sys.unraisablehook
    # At the first error the library closes its loop; each read that ends later, or never, would print a traceback.
    sys.unraisablehook = lambda found: None
    try:
        try:
            return read()
        except _NOT_DAMAGE:
            raise
        except Exception as error:
            if processes.is_broken(error):
                raise
            why = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        # Outside the block nothing holds these reads any more.
        time.sleep(_SECONDS)
        gc.collect()
    finally:
        sys.unraisablehook = before
    raise DamagedError(why)


def set_aside(path: Path, error: DamagedError) -> None:
    """Moves a damaged checkpoint to `<workdir>/damaged/<step>`, where nothing reads it, and says so.

    All processes of a job come by here; it is moved when all of them have found it damaged.

    Args:
      path: `<workdir>/checkpoints/<step>`.
      error: what is wrong with it.
    """
    path = pathlib.Path(path)
    damaged = path.parent.parent / "damaged" / path.name
    where = f"it is now in {damaged}"
    devices_lib.barrier("damaged checkpoint found")
    if processes.is_main():
        try:
            # Who trains here has it open, and may be about to delete it.
            with files.claim(path.parent.parent / files.RUN_LOCK):
                # A resumed run comes by the same step again, so it may have been set aside before.
                shutil.rmtree(damaged, ignore_errors=True)
                damaged.parent.mkdir(exist_ok=True)
                shutil.move(path, damaged)
        except (OSError, files.BusyError) as problem:  # or a folder of somebody else's
            where = f"it is left where it is, because {problem}"
    say.warning(
        f"checkpoint {path.name} is damaged ({error}); {where}, and the one before it is used"
    )
    devices_lib.barrier("damaged checkpoint set aside")
