"""Pickles that PyTorch wrote, read without PyTorch and without running anything from the file.

A pickle is a small program that may call any function. Here it reaches only the few names in `_ALLOWED`, which stand for
functions of this file; any other name stands for a `Foreign` object, which remembers its name and nothing else. What a
pickle may cost is bounded by `scan` before it is read: no more of it than is in proportion to its file, and no value that is
small in the file and endless in memory.
"""

import functools
import io
import math
import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

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
_NAMES = 1000  # so many foreign names a pickle may have: each takes a kilobyte
_NESTED, _EXPANDED = (
    100,
    10**6,
)  # how deep tuples may lie in tuples, and how many values they may come to
_VALUES = 2**40  # of one tensor


class Tensor(NamedTuple):
    """An array that is still in its file.

    Attributes:
      shape, dtype: the array's.
      read: () -> the array, from the file; ValueError where the file is cut short.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


class Foreign:
    """In place of an object that is not read. Whatever a pickle does to it, it stays the name that its class has."""

    __slots__ = ()
    name = ""

    def __new__(cls, *_: Any, **__: Any):
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        pass

    def __call__(self, *_: Any):
        return self

    def __setstate__(self, state: Any):
        pass

    def __setitem__(self, key: Any, value: Any):
        pass

    def append(self, value: Any) -> None:
        """Does nothing, and so do the others: what a pickle would add to a list or a set."""

    extend = add = update = append


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


def _tensor(storage, offset, shape, strides, *_) -> Tensor | Foreign:
    """`torch._utils._rebuild_tensor` and `_v2`, whose further arguments (gradient flag, hooks) are of no use here."""
    if isinstance(storage, Foreign):
        return storage
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage or with too few strides")
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int for n in numbers) or len(shape) > 32 or math.prod(shape) > _VALUES:
        raise ValueError("a tensor of an impossible shape")
    read = functools.partial(_read, storage, offset, tuple(shape), tuple(strides))
    return Tensor(tuple(shape), storage.dtype, read)


def _read(storage: _Storage, offset, shape, strides) -> np.ndarray:
    run = storage.open(storage.key, storage.dtype)[storage.base :][: storage.size]
    # `as_strided` checks nothing and would read whatever memory lies beyond the storage.
    reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (math.prod(shape) and reach >= len(run)):
        raise ValueError(
            f"a tensor of shape {list(shape)} reaches beyond its storage: the file is damaged"
        )
    if math.prod(shape) > len(run):
        raise ValueError(f"a tensor of shape {list(shape)} repeats the {len(run)} stored values")
    strides = [s * storage.dtype.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(run[offset:], shape, strides, writeable=False)


def _tensor_of_dtype(*args) -> Foreign:
    """`torch._utils._rebuild_tensor_v3`, of the dtypes that have no storage of their own, 8-bit floats among them."""
    kind = args[6] if len(args) > 6 else None
    return kind() if isinstance(kind, type) and issubclass(kind, Foreign) else Foreign()


def _of_subclass(function, _, args, *__):
    """`torch._tensor._rebuild_from_type_v2`: the tensor that a subclass of PyTorch's wraps, if it is built as others are."""
    return function(*args) if isinstance(function, _Allowed) else Foreign()


def _number(kind: _NumberType | Foreign, value: bytes) -> float | int | bool | Foreign:
    """A numpy number, as training scripts store for the best accuracy."""
    if isinstance(kind, Foreign):
        return kind
    return np.frombuffer(value, kind.dtype)[0].item()


def _number_type(name, *_) -> _NumberType | Foreign:
    # NumPy understands whole sentences as dtypes, so only short ones are shown to it.
    plain = isinstance(name, str) and len(name) < 9 and np.dtype(name).kind in "biuf"
    return _NumberType(name) if plain else Foreign()


def _items(items=()):
    plain = all(isinstance(item, (int, float, str, bytes)) for item in items)
    return tuple(items) if plain else Foreign()


_ALLOWED = {
    "collections.OrderedDict": _Dict,
    "collections.defaultdict": lambda *_: _Dict(),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch.Size": _items,
    "builtins.set": _items,
    "builtins.frozenset": _items,
    "builtins.complex": complex,
    "_codecs.encode": lambda text, *_: text.encode("latin1"),  # how protocol 2 writes bytes
    "numpy.dtype": _number_type,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
}


class _Unpickler(pickle.Unpickler):
    """Knows the names in `_ALLOWED` and PyTorch's storage types; every other name is a class of `Foreign` objects.

    Attributes:
      open_storage: becomes `_Storage.open`.
      dtypes: of each storage that was met, by its key.
      foreign: the classes, by name.
    """

    def __init__(self, file: io.BufferedIOBase, open_storage: Callable):
        # latin1 decodes any byte, so strings that Python 2 pickled cannot fail.
        super().__init__(file, encoding="latin1")
        self.open_storage = open_storage
        self.dtypes = {}
        self.foreign = {}

    def find_class(self, module: str, name: str):
        if module in ("torch", "torch.cuda") and name in _STORAGES:
            return _StorageType(name)
        # Until protocol 2, modules have the names that they had before Python 3.
        name = f"{IMPORT_MAPPING.get(module, module)}.{name}"
        if name in _ALLOWED:
            return _Allowed(_ALLOWED[name])
        if name not in self.foreign:
            if len(self.foreign) == _NAMES:
                raise ValueError(f"it has objects of more than {_NAMES} kinds")
            self.foreign[name] = type("Foreign", (Foreign,), {"__slots__": (), "name": name})
        return self.foreign[name]

    def persistent_load(self, saved_id):
        # PyTorch's id is ("storage", type, key, device, size), in old files with a view at the end.
        if saved_id[:1] == ("module",):  # of a whole network's class, with its source
            return saved_id[1]
        word, kind, key, _, size, *view = saved_id
        if word == "storage" and isinstance(kind, type) and issubclass(kind, Foreign):
            return kind()
        if word != "storage" or not isinstance(kind, _StorageType):
            raise ValueError("a reference to something that is not a storage")
        if not isinstance(key, (str, int)):
            raise ValueError("a storage without a name")
        self.dtypes[str(key)] = dtype = np.dtype(_STORAGES[kind.name])
        base = 0
        # A part of another storage, in files of PyTorch 0.4 and before.
        if view and view[0] is not None:
            _, base, size = view[0]
        return _Storage(self.open_storage, str(key), dtype, int(size), int(base))


def limit(size: int) -> int:
    """How many bytes of pickle a file of `size` bytes may have: they can take a hundred times as much memory."""
    return 2**18 + size // 16


def load(
    stream: io.BytesIO, path: Any, open_storage: Callable[[str, np.dtype], np.ndarray]
) -> tuple[Any, dict[str, np.dtype]]:
    """The object of the next pickle in a stream, and the dtypes of its storages by key; the stream stands behind it then.

    Args:
      stream: what of the file may be read as pickles.
      path: of the file, for messages.
      open_storage: f(key, dtype) -> all values of a storage.

    Raises:
      ValueError: a damaged pickle, or one that costs more than it should.
    """
    try:
        start = stream.tell()
        scan(stream)
        stop = stream.tell()
        unpickler = _Unpickler(io.BytesIO(stream.getvalue()[start:stop]), open_storage)
        return unpickler.load(), unpickler.dtypes
    except Exception as error:  # whatever a damaged pickle makes the unpickler raise
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is cut short or not a file of weights ({type(error).__name__}: {said})"
        ) from None


def scan(stream: io.BytesIO) -> None:
    """Walks over the instructions of a pickle, up to and including its last, and runs none of them.

    Raises:
      ValueError: no pickle; places of the memo that are numbered far beyond their count, for which the reader would make
        room; tuples of tuples that are short in the file and endless when they are hashed, or too deep for it.
    """
    # Of each value on the stack: how many values it comes to, and how deep they lie. None is a mark.
    stack: list[tuple[int, int] | None] = []
    memo = {}
    for count, (op, arg, _) in enumerate(pickletools.genops(stream)):
        name = op.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if arg > 256 + 2 * count:
                raise ValueError("its memo has holes")
            memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "MARK":
            stack.append(None)
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            _apply(op, stack)


def _apply(op, stack):
    """What an instruction does to the stack of `scan`."""
    before, taken = op.stack_before, []
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    under = [stack.pop() for _ in before]
    if not op.stack_after:
        return
    if op.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"):
        stack.append(under[-1])  # it was there before, and nothing hashes what is in it
        return
    taken += under
    size = 1 + sum(size for size, _ in taken)
    depth = 1 + max((depth for _, depth in taken), default=0)
    if depth > _NESTED or size > _EXPANDED:
        raise ValueError("it holds tuples in tuples without end")
    # Lists and dicts cannot be hashed, so what is in them does not count.
    stack.append((1, 0) if op.name in ("LIST", "DICT") else (size, depth))
