"""Files of named weights: which format a file is in, and the plain formats (safetensors, npz) themselves."""

import json
import math
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np

from mixaug_jax.core import checks, files
from mixaug_jax.models import torch_files
from mixaug_jax.models.torch_files import Tensor

CONTAINERS = (
    "state_dict",
    "model",
    "net",
)  # where training scripts keep the weights in their checkpoints

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class State(NamedTuple):
    """What a file of weights holds: tensors by name, still on disk, and its author's notes (safetensors only)."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_state(path: str | pathlib.Path) -> State:
    """The weights in a .pth, .pt, .pth.tar, .safetensors or .npz file, whatever it is called: its content decides.

    A checkpoint's weights are looked for under the keys `CONTAINERS`, else at its top level. "module." in front of every name
    (left there by PyTorch's parallel wrappers) is dropped, and so are batch norms' counters "num_batches_tracked".

    Raises:
      ValueError: in one sentence, where there is no such file, or it is not one of these, damaged, without tensors, or asks for
        code to be run.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path} is {'a folder' if path.is_dir() else 'no file'}; a file of weights is needed"
        )
    content, metadata = _read(path)
    tensors = _tensors(content, path)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    kept = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    return State(kept, metadata)


def _read(path):
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path} is empty")
    if head[:4] == b"PK\x03\x04":
        return _read_zip(path), {}
    if head[8:9] == b"{":
        return read_safetensors(path)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise ValueError(f"{path} is a web page, not weights: the download went wrong")
    if head[257:262] == b"ustar":
        raise ValueError(
            f"{path} is a tar file, as PyTorch wrote before version 0.1.10; load and save it again with a newer one"
        )
    return torch_files.read_legacy(path), {}


def _read_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return read_npz(path)
        return torch_files.read_zip(path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is cut short or damaged ({error})") from None


def _tensors(content, path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not weights by name")
    inner = next((content[c] for c in CONTAINERS if isinstance(content.get(c), Mapping)), content)
    if not inner:
        raise ValueError(f"{path} holds no weights: its dict is empty")
    others = [
        n for n, value in inner.items() if not (isinstance(n, str) and isinstance(value, Tensor))
    ]
    if others:
        allowed = ", ".join(CONTAINERS)
        raise ValueError(
            f"{path} holds something other than weights under {_listed(others)}; weights are looked for under {allowed}, "
            "or all by themselves"
        )
    return dict(inner)


def _listed(names) -> str:
    more = f" and {len(names) - 5} more names" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def read_npz(path: pathlib.Path) -> dict[str, Tensor]:
    """Arrays by name from numpy's own format; object arrays, which are pickles, are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as arrays of numbers ({error})") from None
    return {n: Tensor(a.shape, a.dtype, lambda a=a: a) for n, a in loaded.items()}


def read_safetensors(path: pathlib.Path) -> State:
    """Tensors by name: a header in JSON (name: dtype, shape, first and last byte) after its own length in 8 bytes, then bytes.

    Raises:
      ValueError: for a damaged header, a dtype that is not read here, or a file that is cut short.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            metadata = dict(header.pop("__metadata__", {}))
            tensors = {name: _entry(path, 8 + length, name, **e) for name, e in header.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is cut short or no safetensors file ({error})") from None
    return State(tensors, metadata)


def _entry(path, start, name, *, dtype, shape, data_offsets) -> Tensor:
    checks.choice(f"the dtype of {name}", dtype, _SAFETENSORS)
    kind = np.dtype(_SAFETENSORS[dtype])
    first, last = data_offsets
    if min((first, *shape)) < 0 or math.prod(shape) * kind.itemsize != last - first:
        raise ValueError(f"{name} of shape {shape} does not fill its {last - first} bytes")

    def read():
        return torch_files.map_values(path, start + first, last - first, kind).reshape(shape)

    return Tensor(tuple(shape), kind, read)


def write_safetensors(
    path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes float32 arrays by name, with notes of strings."""
    header, start = {"__metadata__": {"format": "pt", **metadata}}, 0
    for name, array in arrays.items():
        size = 4 * array.size
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": (start, start + size)}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    with files.whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, "<f4"))
