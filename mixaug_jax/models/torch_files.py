"""Files that `torch.save` writes, in both of its formats: where the pickle is in them, and where the values of the tensors."""

import functools
import io
import pathlib
import zipfile
from typing import Any

import numpy as np

from mixaug_jax.models import pickles

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older, non-zip format
_MAGIC = MAGIC.to_bytes(10, "little")
PROTOCOL = 1001
_RATIO, _FREE = 20, 2**20  # a zip may unpack to so many times its size, and so many bytes beside


def map_values(path: pathlib.Path, start: int, size: int, dtype: np.dtype) -> np.ndarray:
    """`size` bytes of the file as values, left on disk until they are used."""
    if start + size > path.stat().st_size:
        raise ValueError(
            f"{path} is cut short: {start + size} bytes are needed, it has {path.stat().st_size}"
        )
    count = size // dtype.itemsize
    return np.memmap(path, dtype, "r", start, (count,)) if count else np.empty(0, dtype)


def members(path: pathlib.Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of a zip file by name.

    Raises:
      ValueError: two of one name, or more bytes than are in proportion to the file's.
    """
    found = {info.filename: info for info in archive.infolist()}
    if len(found) < len(archive.infolist()):
        raise ValueError(f"{path} is damaged: it has two members of one name")
    size = path.stat().st_size
    if sum(info.file_size for info in found.values()) > _RATIO * size + _FREE:
        raise ValueError(
            f"{path} would unpack to more than {_RATIO} times its size, which is refused"
        )
    return found


def read_zip(path: pathlib.Path) -> Any:
    """The object in a file of PyTorch 1.6 or later, with a `Tensor` for each tensor and a `Foreign` for what is not read.

    Raises:
      ValueError: the file is damaged, out of proportion, or from a machine of another byte order.
    """

    def open_storage(key: str, dtype: np.dtype) -> np.ndarray:
        info = inside.get(f"{root}/data/{key}")
        if info is None:
            raise ValueError(f"{path} is damaged: it has no storage {key}")
        # PyTorch never compresses, so its tensors can be mapped; a repacked archive must be read.
        if info.compress_type == zipfile.ZIP_STORED:
            return map_values(path, _start_of_member(path, info), info.file_size, dtype)
        return np.frombuffer(unpacked(info.filename), dtype)

    @functools.lru_cache(maxsize=1)  # tensors that share a storage stand beside each other
    def unpacked(name):
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    with zipfile.ZipFile(path) as archive:
        inside = members(path, archive)
        roots = [name.removesuffix("/data.pkl") for name in inside if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"{path} is a zip file, but not one of weights")
        root = roots[0]
        order = f"{root}/byteorder"
        _check_byte_order(path, order not in inside or archive.read(order) == b"little")
        _check_length(path, inside[f"{root}/data.pkl"].file_size)
        stream = io.BytesIO(archive.read(f"{root}/data.pkl"))
    return pickles.load(stream, path, open_storage)[0]


def _check_length(path, size):
    if size > pickles.limit(path.stat().st_size):
        raise ValueError(
            f"{path} has {size} bytes that are no values of tensors, too many for its size (np.savez saves NumPy arrays)"
        )


def _check_byte_order(path, little: bool) -> None:
    if not little:
        raise ValueError(f"{path} was written on a big-endian machine, which is not read here")


def _start_of_member(path, info: zipfile.ZipInfo) -> int:
    # The local header may be padded further than the central directory says: PyTorch aligns its storages.
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2")
    # 30 bytes are fixed in a local header; the lengths of name and extra field end them.
    return info.header_offset + 30 + int(name) + int(extra)


def read_legacy(path: pathlib.Path) -> Any:
    """The object in a file of the format before PyTorch 1.6, as `read_zip` gives it.

    Raises:
      ValueError: as `read_zip`.
    """

    def open_storage(key: str, dtype: np.dtype) -> np.ndarray:
        if key not in places:
            raise ValueError(f"{path} is damaged: it has no storage {key}")
        return map_values(path, *places[key], dtype)

    def load():
        return pickles.load(stream, path, open_storage)

    size = path.stat().st_size
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read(pickles.limit(size)))
    # Before it is read as far as PyTorch's pickles may reach, and called cut short there.
    if stream.getvalue()[:1] == b"\x80" and _MAGIC not in stream.getvalue()[:64]:
        raise ValueError(
            f"{path} is a pickle, but not one that PyTorch wrote; torch.save(model.state_dict(), ...) writes one"
        )
    if load()[0] != MAGIC:
        raise ValueError(f"{path} is a pickle, but not one that PyTorch wrote")
    if load()[0] != PROTOCOL:
        raise ValueError(f"{path} is of an unknown version of PyTorch's format")
    system = load()[0]
    _check_byte_order(path, isinstance(system, dict) and system.get("little_endian"))
    content, dtypes = load()
    keys, places = load()[0], {}
    plain = isinstance(keys, list) and all(isinstance(key, (str, int)) for key in keys)
    if not plain or not all(str(key) in dtypes for key in keys):
        raise ValueError(f"{path} is damaged: its storages are not those of its tensors")
    start = stream.tell()
    with open(path, "rb") as file:
        for key in map(str, keys):  # in this order, each after its number of values
            file.seek(start)
            length = int.from_bytes(file.read(8), "little") * dtypes[key].itemsize
            places[key] = (start + 8, length)
            start += 8 + length
            if start > size:
                raise ValueError(f"{path} is cut short: {start} bytes are needed, it has {size}")
    return content
