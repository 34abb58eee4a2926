"""Files that `torch.save` writes, in both of its formats, read without PyTorch and without running anything from the file.

A pickle is a small program that may call any function. Here it reaches only the few names in `_ALLOWED`, which stand for
functions of this file; any other name ends the reading with a sentence that says which.
"""

import functools
import io
import math
import pathlib
import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older, non-zip format
PROTOCOL = 1001

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Tensor(NamedTuple):
    """An array that is still in its file.

    Attributes:
      shape, dtype: the array's.
      read: () -> the array, from the file; ValueError where the file is cut short.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


# What a pickle can lay hands on is a named tuple: of other objects, frozen or not, it could set the attributes.
class _StorageType(NamedTuple):
    name: str


class _Storage(NamedTuple):
    """`size` values from the `base`-th on of a run of values; `open(key, dtype)` is that whole run."""

    open: Callable[[str, np.dtype], np.ndarray]
    key: str
    dtype: np.dtype
    size: int
    base: int


class _Allowed(NamedTuple):
    function: Callable[..., Any]

    def __call__(self, *args):
        return self.function(*args)


class _Dict(dict):
    """In place of an OrderedDict, whose attributes a pickle could set; PyTorch's only one, `_metadata`, is of no use here."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _NumberType(NamedTuple):
    dtype: str

    def __setstate__(self, state):
        # NumPy pickles the byte order as the second entry; "|" is where none applies.
        if state[1] not in ("<", "|", "="):
            raise ValueError("numbers in another byte order")


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
    """`torch._utils._rebuild_tensor` and `_v2`, whose further arguments (gradient flag, hooks) are of no use here."""
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage or with too few strides")
    shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
    read = functools.partial(_read, storage, int(offset), shape, strides)
    return Tensor(shape, storage.dtype, read)


def _read(storage: _Storage, offset, shape, strides) -> np.ndarray:
    run = storage.open(storage.key, storage.dtype)[storage.base :][: storage.size]
    # `as_strided` checks nothing and would read whatever memory lies beyond the storage.
    reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (math.prod(shape) and reach >= len(run)):
        raise ValueError(
            f"a tensor of shape {list(shape)} reaches beyond its storage: the file is damaged"
        )
    strides = [s * storage.dtype.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(run[offset:], shape, strides, writeable=False)


def _number(kind: _NumberType, value: bytes) -> float | int | bool:
    """A numpy number, as training scripts store for the best accuracy."""
    return np.frombuffer(value, kind.dtype)[0].item()


def _number_type(name, *_) -> _NumberType:
    if np.dtype(name).kind not in "biuf":
        raise ValueError(f"a number of type {name!r}")
    return _NumberType(str(name))


def _items(items=()):
    return tuple(items)


_ALLOWED = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": _items,
    "builtins.set": _items,
    "builtins.frozenset": _items,
    "builtins.complex": complex,
    "_codecs.encode": lambda text, *_: text.encode("latin1"),  # how protocol 2 writes bytes
    "numpy.dtype": _number_type,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
}


class _RefusedError(Exception):
    """Holds the name that a pickle asked for."""


class _Unpickler(pickle.Unpickler):
    """Knows the names in `_ALLOWED` and PyTorch's storage types, and no others.

    Attributes:
      open_storage: becomes `_Storage.open`.
      dtypes: of each storage that was met, by its key.
    """

    def __init__(self, file: io.BufferedIOBase, open_storage: Callable):
        # latin1 decodes any byte, so strings that Python 2 pickled cannot fail.
        super().__init__(file, encoding="latin1")
        self.open_storage = open_storage
        self.dtypes = {}

    def find_class(self, module: str, name: str):
        if module in ("torch", "torch.cuda") and name in _STORAGES:
            return _StorageType(name)
        # Until protocol 2, modules have the names that they had before Python 3.
        name = f"{IMPORT_MAPPING.get(module, module)}.{name}"
        if name not in _ALLOWED:
            raise _RefusedError(name)
        return _Allowed(_ALLOWED[name])

    def persistent_load(self, saved_id):
        # PyTorch's id is ("storage", type, key, device, size), in old files with a view at the end.
        word, kind, key, _, size, *view = saved_id
        if word != "storage" or not isinstance(kind, _StorageType):
            raise ValueError("a reference to something that is not a storage")
        self.dtypes[str(key)] = dtype = np.dtype(_STORAGES[kind.name])
        base = 0
        if (
            view and view[0] is not None
        ):  # a part of another storage, in files of PyTorch 0.4 and before
            _, base, size = view[0]
        return _Storage(self.open_storage, str(key), dtype, int(size), int(base))


def _load(unpickler: _Unpickler, path) -> Any:
    try:
        return unpickler.load()
    except _RefusedError as refused:
        raise ValueError(
            f"{path} asks for {refused}, which is refused: only tensors, plain containers, strings and numbers are read; "
            "where the file is yours, save model.state_dict() alone"
        ) from None
    except Exception as error:  # whatever a damaged pickle makes the unpickler raise
        raise ValueError(
            f"{path} is cut short or not a file of weights ({type(error).__name__}: {error})"
        ) from None


def map_values(path, start: int, size: int, dtype: np.dtype) -> np.ndarray:
    """`size` bytes of the file as values, left on disk until they are used."""
    if start + size > path.stat().st_size:
        raise ValueError(
            f"{path} is cut short: {start + size} bytes are needed, it has {path.stat().st_size}"
        )
    count = size // dtype.itemsize
    return np.memmap(path, dtype, "r", start, (count,)) if count else np.empty(0, dtype)


def read_zip(path: pathlib.Path) -> Any:
    """The object in a file of PyTorch 1.6 or later, with a `Tensor` for each tensor.

    Raises:
      ValueError: the file is damaged, from a machine of another byte order, or asks for something that is refused.
    """

    def open_storage(key: str, dtype: np.dtype) -> np.ndarray:
        info = members.get(f"{root}/data/{key}")
        if info is None:
            raise ValueError(f"{path} is damaged: it has no storage {key}")
        # PyTorch never compresses, so its tensors can be mapped; a repacked archive must be read.
        if info.compress_type == zipfile.ZIP_STORED:
            return map_values(path, _start_of_member(path, info), info.file_size, dtype)
        with zipfile.ZipFile(path) as archive:
            return np.frombuffer(archive.read(info), dtype)

    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        roots = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"{path} is a zip file, but not one of weights")
        root = roots[0]
        _check_byte_order(
            path,
            f"{root}/byteorder" not in members or archive.read(f"{root}/byteorder") == b"little",
        )
        with archive.open(f"{root}/data.pkl") as file:
            return _load(_Unpickler(file, open_storage), path)


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
    """The object in a file of the format before PyTorch 1.6, with a `Tensor` for each tensor.

    Raises:
      ValueError: as `read_zip`.
    """

    def open_storage(key: str, dtype: np.dtype) -> np.ndarray:
        if key not in places:
            raise ValueError(f"{path} is damaged: it has no storage {key}")
        return map_values(path, *places[key], dtype)

    def load():
        unpickler = _Unpickler(file, open_storage)
        return _load(unpickler, path), unpickler.dtypes

    places = {}
    with open(path, "rb") as file:
        if load()[0] != MAGIC:
            raise ValueError(f"{path} is a pickle, but not one that PyTorch wrote")
        if load()[0] != PROTOCOL:
            raise ValueError(f"{path} is of an unknown version of PyTorch's format")
        _check_byte_order(path, load()[0].get("little_endian"))
        content, dtypes = load()
        for key in map(
            str, load()[0]
        ):  # the storages follow in this order, each after its number of values
            size = int.from_bytes(file.read(8), "little") * dtypes[key].itemsize
            places[key] = (file.tell(), size)
            file.seek(size, 1)
    return content
