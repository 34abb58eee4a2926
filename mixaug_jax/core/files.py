"""Files that are whole or not there, locks, and results that carry their settings: the only writers of the package.

A file is written beside its place and renamed when it is complete, so a killed run leaves no half of one. Results are .npz
files with their settings, the packages' versions and a format number.
"""

import contextlib
import csv
import fcntl
import importlib.metadata
import io
import json
import os
import pathlib
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import jax
import numpy as np

from mixaug_jax.core import __version__, say

FORMAT = 3  # of every .npz; 1, before there was a number, spoke other words, 2 had counts of bootstrap resamples
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")
_PACKAGES += ("tensorflow-datasets", "ml-collections", "clu")


def versions() -> dict[str, str]:
    """Names and versions of the packages that decide what a run computes."""
    return {"mixaug_jax": __version__} | {p: importlib.metadata.version(p) for p in _PACKAGES}


@contextlib.contextmanager
def whole(path: os.PathLike | str) -> Iterator[IO[bytes]]:
    """A binary file to write, which appears at `path` when the block ends well; its folder is made where missing."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: os.PathLike | str, content: bytes) -> None:
    """Writes a file that appears when it is whole."""
    with whole(path) as file:
        file.write(content)


def write_text(path: os.PathLike | str, text: str) -> None:
    """Writes UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: os.PathLike | str, value: Any) -> None:
    """Writes a value as JSON text."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: os.PathLike | str, header: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Writes a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: os.PathLike | str) -> list[dict]:
    """The rows of a table; numbers become int or float. Empty where there is no file."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def create(path: os.PathLike | str) -> IO[bytes]:
    """A binary file to fill bit by bit, in a folder that is itself renamed or removed in the end."""
    return open(path, "wb")


def append(path: os.PathLike | str) -> IO[str]:
    """A text file to add lines to: of a log, which is read while it grows."""
    return open(path, "a", encoding="utf-8")


@contextlib.contextmanager
def lock(path: os.PathLike | str, waiting: str = "") -> Iterator[IO[str]]:
    """Holds a lock file, which the system frees even when its holder is killed.

    Args:
      path: of the file; its folder is made where missing.
      waiting: what to say where another process holds it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                say.line(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def checksum(tree: Any) -> int:
    """A CRC-32 of the bytes of all arrays in a tree, in the order of its leaves."""
    check = 0
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        check = zlib.crc32(np.ascontiguousarray(leaf), check)
    return check


def save_npz(path: os.PathLike | str, arrays: Mapping[str, Any], settings: Mapping) -> None:
    """Writes arrays, `settings` and the packages' `versions` (both as JSON text), and the `format`, to a .npz."""
    notes = {"settings": settings, "versions": versions()}
    arrays = dict(arrays) | {name: np.array(json.dumps(note)) for name, note in notes.items()}
    with whole(path) as file:
        np.savez_compressed(file, **arrays, format=np.array(FORMAT))


def load_npz(path: os.PathLike | str, make: Callable, what: str) -> Any:
    """`make(arrays, settings)` of what `save_npz` wrote.

    Raises:
      ValueError: no such file, one of another format, or one that is not of this kind; `what` says which kind that is.
    """
    try:
        # Opened here: np.load would leave a damaged file open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
        number = int(arrays.pop("format", 1))
        if number != FORMAT:
            raise ValueError(f"it has the format {number}, this version reads {FORMAT}")
        del arrays["versions"]  # they are there for other readers
        return make(arrays, json.loads(str(arrays.pop("settings"))))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no result of {what}: {error}") from error


def load_if(load: Callable, path: os.PathLike | str, settings: Mapping) -> Any:
    """`load(path)` if its settings are these; None where it is not there, cannot be read, or was made with others."""
    if not pathlib.Path(path).exists():
        return None
    with contextlib.suppress(ValueError):  # an unreadable file is replaced
        result = load(path)
        if result.settings == settings:
            return result
    return None
