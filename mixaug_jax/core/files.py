"""Files that are whole or not there, locks, and results that carry their settings: the only writers of the package.

A file is written beside its place and renamed when it is complete, so a killed run leaves no half of one. Results are .npz
files with their settings, the packages' versions and a format number. Damage is never read as if it were whole: a .npz has a
checksum of each array, and `seal` keeps those of tables, figures and settings beside them.
"""

import contextlib
import csv
import fcntl
import importlib.metadata
import io
import json
import os
import pathlib
import re
import shutil
import socket
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import jax
import numpy as np

from mixaug_jax.core import __version__, say

FORMAT = 3  # of every .npz; 1, before there was a number, spoke other words, 2 had counts of bootstrap resamples
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")
_PACKAGES += ("tensorflow-datasets", "ml-collections", "clu")
_SINCE = time.strftime("%Y-%m-%d %H:%M:%S")  # tells this process from another of the same number
SEALS = "checksums.json"  # of the files in a folder
RUN_LOCK = "run.lock"  # of a working directory that is in use
_BLOCK = 1 << 22  # bytes that are read at once
# What spreadsheets take for a formula, and with an apostrophe before it for text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class DamagedError(ValueError):
    """A file is not as it was written."""


class BusyError(ValueError):
    """Another process is at work in the same folder."""


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
    """Writes a table; a text that a spreadsheet would take for a formula gets an apostrophe, which `read_csv` takes away."""
    lines = []
    for row in (header, *rows):
        line = io.StringIO()
        # Its own end of a line, without which a carriage return in a cell would not be quoted.
        csv.writer(line).writerow([_plain_text(cell) for cell in row])
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    write_text(path, "".join(lines))


def _plain_text(cell: Any) -> Any:
    # An apostrophe of the text's own gets a second one, so that what is read back is what was written.
    risky = isinstance(cell, str) and _FORMULA.match(cell)
    return f"'{cell}" if risky and isinstance(_number(cell), str) else cell


def read_csv(path: os.PathLike | str, *, text: Collection[str] = ()) -> list[dict]:
    """The rows of a table; numbers become int or float. Empty where there is no file.

    Args:
      path: of the file.
      text: columns that stay text, so that "007" is not 7.

    Raises:
      DamagedError: it is not as it was written, or no table.
    """
    if not pathlib.Path(path).exists():
        return []
    content = read_text(path)
    try:
        header, *rows = csv.reader(io.StringIO(content, newline=""), strict=True)
        header = [_cell(name) for name in header]
        kinds = [_unescaped if name in text else _cell for name in header]
        read = [[kind(cell) for kind, cell in zip(kinds, row, strict=True)] for row in rows]
        return [dict(zip(header, row, strict=True)) for row in read]
    except (ValueError, csv.Error) as error:
        raise _damaged(path, f"it is no table, {error}") from error


def _cell(text: str) -> str | int | float:
    return _number(text) if _unescaped(text) == text else _unescaped(text)


def _unescaped(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_json(path: os.PathLike | str, kind: type = dict) -> Any:
    """What a file holds as JSON text, of a kind.

    Raises:
      DamagedError: it is not as it was written, no JSON, or of another kind.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DamagedError):
            raise
        raise _damaged(path, f"it is no JSON, {error}") from error
    if not isinstance(found, kind):
        raise _damaged(path, f"it holds a {type(found).__name__} in place of a {kind.__name__}")
    return found


def read_text(path: os.PathLike | str) -> str:
    """The UTF-8 text of a file, the same as when its folder was sealed, if it was.

    Raises:
      DamagedError: it is not as it was written.
      FileNotFoundError: it is not there.
    """
    content = pathlib.Path(path).read_bytes()
    _check_seal(path, content)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, "it is no text") from error


def _damaged(path, why) -> DamagedError:
    return DamagedError(f"{path} is damaged: {why}; make it again by the stage that wrote it")


def seal(folder: os.PathLike | str, names: Iterable[str] = ()) -> None:
    """Keeps the checksums of files as they are now, in `checksums.json` beside them.

    So they can be told from damaged ones: `read_text`, `read_json`, `read_csv` and `is_intact` compare them.

    Args:
      folder: where the files are.
      names: which; the others keep the checksums they had. (): all but .npz files, which have checksums of their own.
    """
    folder = pathlib.Path(folder)
    known = _seals(folder) if names else {}
    chosen = [folder / name for name in names] or [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix not in (".npz", ".tmp", ".lock") and path.name != SEALS
    ]
    known |= {path.name: _crc(path) for path in chosen}
    write_json(folder / SEALS, known)


def is_intact(path: os.PathLike | str, *, sealed: bool = False) -> bool:
    """Whether a file is there and as it was written: when its folder was sealed, or by the checksums in a .npz.

    Args:
      path: of the file; what has no checksum is taken as it is.
      sealed: what has no checksum is not taken.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return False
    if path.suffix == ".npz":
        try:
            _read_npz(path)
        except Exception:  # zip, zlib and NumPy each raise kinds of their own
            return False
    known = _seals(path.parent).get(path.name)
    return not sealed if known is None else known == _crc(path)


def _crc(path):
    check = 0
    with open(path, "rb") as file:  # which may be larger than memory
        while block := file.read(_BLOCK):
            check = zlib.crc32(block, check)
    return check


def _check_seal(path, content):
    path = pathlib.Path(path)
    if _seals(path.parent).get(path.name, check := zlib.crc32(content)) != check:
        raise _damaged(path, f"it is not as it was written ({SEALS} beside it says so)")


def _seals(folder) -> dict:
    """The checksums of a folder; a damaged list says nothing, and the next `seal` makes it again."""
    try:
        found = json.loads((folder / SEALS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def create(path: os.PathLike | str) -> IO[bytes]:
    """A binary file to fill bit by bit, in a folder that is itself renamed or removed in the end."""
    return open(path, "wb")


def extend(path: os.PathLike | str, others: Iterable[pathlib.Path]) -> None:
    """Adds other files' bytes to a file, in their order, and removes them."""
    with open(path, "ab") as file:
        for other in others:
            with other.open("rb") as part:
                shutil.copyfileobj(part, file, _BLOCK)
            other.unlink()


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


def is_locked(path: os.PathLike | str) -> bool:
    """Whether a process holds the lock file."""
    if not pathlib.Path(path).exists():
        return False
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def claim(path: os.PathLike | str) -> Iterator[None]:
    """Holds a lock file for the time of a block, or raises at once; a process may claim again what it holds.

    Args:
      path: of the file, which says who holds it; the system frees it even when its holder is killed.

    Raises:
      BusyError: another process holds it; says which.
    """
    path = pathlib.Path(path)
    new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    me = f"process {os.getpid()} on {socket.gethostname()} since {_SINCE}"
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = file.read(200).strip() or "another process"
            if holder != me:
                raise BusyError(
                    f"{path.parent} is in use by {holder}; wait until that ends, or use another --workdir"
                ) from error
            yield
            return
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(me)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
            if new and os.listdir(path.parent) == [path.name]:  # nothing was done there
                path.unlink()
                path.parent.rmdir()


def checksum(tree: Any) -> int:
    """A CRC-32 of the bytes of all arrays in a tree, in the order of its leaves."""
    check = 0
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        check = zlib.crc32(np.ascontiguousarray(leaf), check)
    return check


def byte_count(tree: Any) -> int:
    """How many bytes `checksum` reads."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(jax.device_get(tree)))


def joined_checksum(parts: Iterable[Sequence[int]]) -> int:
    """The `checksum` of trees one after the other, from the (checksum, bytes) of each."""
    check = 0
    for own, count in parts:
        # A CRC is linear: what came before counts as it would before as many zeros.
        zeros = bytes(count)
        check = zlib.crc32(zeros, check) ^ zlib.crc32(zeros) ^ own
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
        arrays = _read_npz(path)
        number = int(arrays.pop("format", 1))
        if number != FORMAT:
            raise ValueError(f"it has the format {number}, this version reads {FORMAT}")
        del arrays["versions"]  # they are there for other readers
        return make(arrays, json.loads(str(arrays.pop("settings"))))
    except MemoryError:
        raise
    except Exception as error:  # zip, zlib, NumPy, json and `make` each raise kinds of their own
        raise DamagedError(f"{path} is no result of {what}: {error}") from error


def _read_npz(path) -> dict[str, np.ndarray]:
    """The arrays of a .npz; each is read to its end, where the checksum is compared, which np.load may leave out."""
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)))
            for name in archive.namelist()
        }


def load_if(load: Callable, path: os.PathLike | str, settings: Mapping) -> Any:
    """`load(path)` if its settings are these; None where it is not there, has other ones, or is damaged, which is said."""
    if not pathlib.Path(path).exists():
        return None
    try:
        result = load(path)
    except ValueError as error:  # an unreadable file is replaced
        say.line(f"{error}; it is made again")
        return None
    return result if result.settings == settings else None
