"""Files of named weights: which format a file is in, where its weights are, and the plain formats (safetensors, npz)."""

import functools
import json
import math
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from mixaug_jax.core import files
from mixaug_jax.models import noted_classes, pickles, torch_files
from mixaug_jax.models.pickles import Foreign, Tensor

# Where training scripts keep the weights in their checkpoints, the likeliest first; "" is the checkpoint itself.
CONTAINERS = ("state_dict", "model", "net", "model_state_dict", "network", "weights", "")
_AVERAGED = ("ema", "averag", "teacher", "swa")  # in the names of averages of the weights
_WRAPPERS = ("module.",)  # of PyTorch's parallel modules
# Of compiled, sharded and checkpointed modules, which may stand anywhere in a name.
_INSIDE = re.compile(r"(^|\.)(_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.)+")
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "U64": np.uint64,
    "I32": np.int32,
    "U32": np.uint32,
    "I16": np.int16,
    "U16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class State(NamedTuple):
    """What a file of weights holds.

    Attributes:
      tensors: by name, still on disk.
      metadata: its author's notes (safetensors only).
      containers: the names of the parts that hold weights, of which one was taken.
      arch: the architecture's name, where a training script noted it; else "".
      class_names: of the network's classes, where one noted them; else ().
      remarks: sentences about what was chosen and what was left out.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    containers: tuple[str, ...] = ()
    arch: str = ""
    remarks: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


def read_state(path: str | pathlib.Path, key: str = "") -> State:
    """The weights in a .pth, .pt, .pth.tar, .safetensors or .npz file, whatever it is called: its content decides.

    An index of shards (model.safetensors.index.json, pytorch_model.bin.index.json) is read with the files that it names. A
    checkpoint's weights may lie in any of its dicts; where several have some, `CONTAINERS` says which is taken, and averages of
    the weights come last. What wrappers put into the names ("module.", "_orig_mod.") is dropped, and so are counters of batch
    norms, averages and profilers.

    Args:
      path: of the file.
      key: the name of the dict to take; one that is not there is ignored.

    Raises:
      ValueError: in one sentence, where there is no such file, or it is not one of these, damaged, without tensors, or out of
        proportion.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path} is {'a folder' if path.is_dir() else 'no file'}; a file of weights is needed"
        )
    content, metadata = _read(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds {_kind(content)}, not weights by name; {_ADVICE}")
    found = _containers(content)
    if not found:
        what = [f"{name} ({_kind(value)})" for name, value in content.items()]
        more = f"only {_listed(what)}; {_ADVICE}" if what else "its dict is empty"
        raise ValueError(f"{path} holds no weights by name: {more}")
    # `found` has the one to prefer first; a key may also be a prefix of names, which is looked at later.
    taken = key if key in found else next(iter(found))
    # Refused here rather than imported without them, which a shape would not always tell.
    unread = [(name, value) for name, value in found[taken].items() if _is_unread(value)]
    for name, value in unread[:1]:
        kind = value.name.removeprefix("torch.")
        said = next((word for sign, word in _UNREAD.items() if sign in kind), f"of {kind}")
        raise ValueError(f"{path}: {name} is {said}, which is not read; {_SAVE}")
    tensors = _unwrapped(_tensors(found[taken]))
    arch = content.get("arch", "")
    return State(
        tensors,
        metadata,
        tuple(found),
        arch if isinstance(arch, str) else "",
        _remarks(content, found, taken),
        noted_classes.noted(content) or noted_classes.noted(metadata),
    )


_ADVICE = "where the file is yours, save model.state_dict() alone"
_SAVE = "save it again as float32"
_UNREAD = {"_rebuild_qtensor": "quantized", "_rebuild_sparse": "sparse"}
# What a file begins with, and what it is then.
_OTHERS = {
    b"\x1f\x8b": "compressed (gzip); gunzip it first",
    b"BZh": "compressed (bzip2); bunzip2 it first",
    b"\xfd7zXZ": "compressed (xz); unxz it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unzstd it first",
    b"\x89HDF": "an HDF5 file, as Keras writes, and no file of PyTorch's",
}


def _kind(value) -> str:
    """What an object is, in words; of a foreign one, the name that its file gives."""
    if isinstance(value, Foreign):
        return f"a {value.name}, which is not read and not run"
    return "the name of a class" if isinstance(value, type) else f"a {type(value).__name__}"


def _containers(content: Mapping) -> dict[str, Mapping]:
    """The dicts with weights in a checkpoint by their names, in the order in which one of them is taken."""
    inner = {str(k): v for k, v in content.items() if isinstance(v, Mapping) and k != "optimizer"}
    inner |= {
        f"{name}.{k}": v
        for name, outer in inner.items()
        for k, v in outer.items()
        if isinstance(v, Mapping)
    }
    everything = {"": content, **inner}
    found = [
        n for n, held in everything.items() if _tensors(held) or any(map(_is_unread, held.values()))
    ]
    # A single number beside the weights, as the best accuracy, makes no container.
    ranks = {
        n: max((len(t.shape) for t in _tensors(everything[n]).values()), default=2) for n in found
    }
    found = [n for n in found if ranks[n] > 1] or found

    def order(name):
        place = CONTAINERS.index(name) if name in CONTAINERS else len(CONTAINERS)
        return any(word in name.lower() for word in _AVERAGED), place

    return {name: everything[name] for name in sorted(found, key=order)}


def _tensors(content) -> dict[str, Tensor]:
    return {n: t for n, t in content.items() if isinstance(n, str) and isinstance(t, Tensor)}


def _is_unread(value) -> bool:
    """Whether an object is a tensor of a kind that is not read: of 8-bit floats, quantized, sparse."""
    name = value.name if isinstance(value, Foreign) else ""
    return name.startswith(("torch.float", "torch._utils._rebuild")) or name.endswith("Storage")


def _unwrapped(tensors):
    """Without counters, and without what wrappers put in front of every name."""
    tensors = {n: t for n, t in tensors.items() if n.rpartition(".")[2] not in _COUNTERS}
    tensors = {_INSIDE.sub(r"\1", name): tensor for name, tensor in tensors.items()}
    while tensors:
        wrapper = next((w for w in _WRAPPERS if all(n.startswith(w) for n in tensors)), "")
        if not wrapper:
            break
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def _remarks(content, found, taken) -> tuple[str, ...]:
    said = []
    if len(found) > 1:
        names = ", ".join(name or "the top level" for name in found)
        said.append(f"weights under {names}: {taken or 'the top level'} is taken")
    foreign = [f"{n} ({v.name})" for n, v in content.items() if isinstance(v, Foreign) and v.name]
    if foreign:
        said.append(f"not read: {_listed(foreign)}")
    return tuple(said)


def _listed(names) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _read(path) -> tuple[Any, dict[str, str]]:
    with open(path, "rb") as file:
        head = file.read(512)
    # Told by the first bytes: names of downloaded files say little, and what is no file of weights gets its own sentence.
    if not head:
        raise ValueError(f"{path} is empty")
    if head.startswith(b"version https://git-lfs.github.com/"):
        raise ValueError(
            f"{path} is a pointer of Git LFS, not the weights that it stands for; git lfs pull fetches them"
        )
    if head[:4] == b"PK\x03\x04":
        return _read_zip(path), {}
    if _is_index(head):
        return read_shards(path), {}
    if head[8:9] == b"{":
        return read_safetensors(path)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise ValueError(f"{path} is a web page, not weights: the download went wrong")
    other = next((said for sign, said in _OTHERS.items() if head.startswith(sign)), "")
    if other:
        raise ValueError(f"{path} is {other}")
    if head[257:262] == b"ustar":
        raise ValueError(
            f"{path} is a tar file: unpack it; where PyTorch wrote it, before version 0.1.10, load and save it again with a "
            "newer one"
        )
    return torch_files.read_legacy(path), {}


def _read_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return read_npz(path)
        return torch_files.read_zip(path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is cut short or damaged ({error})") from None


def _is_index(head: bytes) -> bool:
    # JSON; the length that a safetensors file begins with has zeros in its eight bytes.
    return head.lstrip()[:1] == b"{" and 0 not in head[:8]


def files_of(path: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The files that weights are in: the one, or an index and its shards."""
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        index = _is_index(file.read(512))
    shards = sorted(set(_weight_map(path).values())) if index else ()
    return path, *(path.with_name(shard) for shard in shards)


def read_shards(path: pathlib.Path) -> dict[str, Tensor]:
    """Tensors by name from an index of shards, {"weight_map": {name: file beside the index}}.

    Raises:
      ValueError: no such index, a shard that is missing or lacks a tensor.
    """
    places = _weight_map(path)
    shards = {}
    for shard in dict.fromkeys(places.values()):
        if not path.with_name(shard).is_file():
            raise ValueError(f"{path} names {shard}, which is not beside it")
        shards[shard] = _read(path.with_name(shard))[0]
    tensors = {}
    for name, shard in places.items():
        held = shards[shard]
        tensors[name] = held.get(name) if isinstance(held, Mapping) else None
        if not isinstance(tensors[name], Tensor):
            raise ValueError(f"{path} says that {name} is in {shard}, where it is not")
    return tensors


def _weight_map(path):
    try:
        places = json.loads(path.read_text())["weight_map"]
        plain = all(isinstance(shard, str) and "/" not in shard for shard in places.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        plain, places = False, {}
    if not places or not plain or any(pathlib.Path(s).name != s for s in places.values()):
        raise ValueError(f"{path} is no index of weights: it needs a weight_map of names to files")
    if path.name in places.values():
        raise ValueError(f"{path} names itself among its shards")
    return places


def read_npz(path: pathlib.Path) -> dict[str, Tensor]:
    """Arrays by name from numpy's own format; object arrays, which are pickles, are refused.

    Raises:
      ValueError: a damaged file, arrays of objects, or more bytes than are in proportion to the file's.
    """

    def read(name):
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]

    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            # Headers alone; an array is read when it is asked for.
            for name, info in torch_files.members(path, archive).items():
                shape, dtype = _npy_header(archive, info)
                name = name.removesuffix(".npy")
                tensors[name] = Tensor(shape, dtype, lambda name=name: read(name))
    except (EOFError, zlib.error, SyntaxError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read as arrays of numbers ({error})") from None
    except ValueError as error:
        said = str(error)
        # Our own sentences about this file are raised as they are.
        if said.startswith(str(path)):
            raise
        raise ValueError(f"{path} cannot be read as arrays of numbers ({said})") from None
    return tensors


def _npy_header(archive, info):
    """Shape and dtype of a member, whose bytes must be there: NumPy makes room for them before it reads."""
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"version {version} of the format")
        shape, _, dtype = read(file)
        # Reading it would run whatever code the file brings.
        if dtype.hasobject:
            raise ValueError("an array of objects, which is a pickle")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} of shape {list(shape)} has too few bytes")
    return tuple(shape), dtype


def read_safetensors(path: pathlib.Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the notes, of a safetensors file, by the library of that name.

    Raises:
      ValueError: a damaged file, a header out of proportion, or a dtype that is not read here.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if pickles.limit(size) < length <= size:
            raise ValueError(f"{path} has a header of {length} bytes, too long for its size")
        _refuse_repeated(path, file.read(min(length, size)))

    try:
        # Open as long as a tensor may be read: opening it reads the header anew.
        opened = safetensors.safe_open(path, "np", backend="pread")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is cut short or no safetensors file ({error})") from None
    tensors = {}
    for name in opened.keys():  # noqa: SIM118, it is no dict
        view = opened.get_slice(name)
        kind = _SAFETENSORS.get(view.get_dtype())
        if kind is None:
            raise ValueError(f"{path}: {name} is of {view.get_dtype()}, which is not read; {_SAVE}")
        read = functools.partial(opened.get_tensor, name)
        tensors[name] = Tensor(tuple(view.get_shape()), np.dtype(kind), read)
    return tensors, dict(opened.metadata() or {})


def _refuse_repeated(path, header):
    """Raises ValueError for two tensors of one name, of which the library would keep one."""

    def pairs(items):
        if len(dict(items)) < len(items):
            raise ValueError(f"{path} is damaged: a name stands twice in its header")
        return dict(items)

    try:
        json.loads(header, object_pairs_hook=pairs)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return  # the library says what is wrong with it


def write_safetensors(
    path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes float32 arrays by name, with notes of strings."""
    # The library writes memory as it lies, so strided arrays are laid out first.
    arrays = {name: np.asarray(array, np.float32, order="C") for name, array in arrays.items()}
    files.write_bytes(path, safetensors.numpy.save(arrays, {"format": "pt", **metadata}))
