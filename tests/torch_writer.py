"""Files in PyTorch's format: by PyTorch where it is installed, and else by a pickler that writes what PyTorch would."""

import importlib.util
import io
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

HAS_TORCH = importlib.util.find_spec("torch") is not None
_KINDS = {"float32": "FloatStorage", "int64": "LongStorage"}


class Named(NamedTuple):
    """What is pickled as a call of module.name, or as that name alone where `args` is None."""

    module: str
    name: str
    args: tuple | None = ()


class Plain(NamedTuple):
    """A numpy array that is to be pickled as one, and not as a tensor."""

    array: np.ndarray


class _Writer(
    pickle._Pickler
):  # the one in Python, whose `save` can be told what to do with an object
    def __init__(self, file):
        super().__init__(file, 2)
        self.storages = []

    def save(self, obj: Any, save_persistent_id: bool = True):
        if isinstance(obj, Plain):
            obj = obj.array
        elif isinstance(obj, np.ndarray):
            return self._tensor(obj)
        if isinstance(obj, Named):
            self._call(obj.module, obj.name, obj.args)
            return None
        return super().save(obj, save_persistent_id)

    def _call(self, module, name, args):
        self.write(f"c{module}\n{name}\n".encode())
        if args is not None:
            super().save(args)
            self.write(b"R")

    def _tensor(self, array):
        key = str(len(self.storages))
        self.storages.append(np.ascontiguousarray(array))
        self.write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        super().save("storage")
        self.write(f"ctorch\n{_KINDS[str(array.dtype)]}\n".encode())
        for value in (key, "cpu", array.size):
            super().save(value)
        self.write(b"tQ")
        strides = tuple(s // array.itemsize for s in self.storages[-1].strides)
        for value in (0, array.shape, strides if array.ndim else (), False):
            super().save(value)
        self._call("collections", "OrderedDict", ())
        self.write(b"tR")


def pickled(content: Any) -> tuple[bytes, list[np.ndarray]]:
    """What PyTorch's pickle of a content would be, with its storages."""
    stream = io.BytesIO()
    writer = _Writer(stream)
    writer.dump(content)
    return stream.getvalue(), writer.storages


def save(content: Any, path: Any) -> None:
    """Writes a content whose arrays are tensors."""
    if HAS_TORCH:
        import torch

        torch.save(_torch(content), path)
        return
    data, storages = pickled(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, array in enumerate(storages):
            archive.writestr(f"archive/data/{key}", array.tobytes())


def _torch(content):
    import torch

    if isinstance(content, np.ndarray):
        return torch.from_numpy(content.copy())
    if isinstance(content, Plain):
        return content.array
    if isinstance(content, Named):
        value = getattr(__import__(content.module), content.name)
        return value if content.args is None else value(*content.args)
    if type(content) is dict:
        return {name: _torch(value) for name, value in content.items()}
    return content
