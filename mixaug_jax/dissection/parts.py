"""What a dissection has counted so far, kept on disk until all is done, so that one that was stopped goes on from there."""

import dataclasses
import pathlib
import urllib.parse
from collections.abc import Callable

import numpy as np

from mixaug_jax.core import walk
from mixaug_jax.core.files import load_if, load_npz, save_npz
from mixaug_jax.core.types import Path

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Parts:
    """Arrays by name, of one layer; in a job of several processes all of them ask for the same, and the first one writes.

    Attributes:
      folder: which all processes see; "" keeps nothing.
      settings: all that decides the layer's result, as JSON has it. Parts of other settings are not taken.
      devices: a tuple, of all processes.
    """

    folder: Path = ""
    settings: dict = dataclasses.field(default_factory=dict)
    devices: tuple = ()

    def get(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """What was kept of that name; what `make` gives, which is then kept, where there is none."""
        if not self.folder:
            return make()
        if self.has(name):
            return _load(self._path(name)).arrays
        made = make()
        if walk.is_first(self.devices):
            save_npz(self._path(name), made, self.settings)
        return made

    def has(self, name: str) -> bool:
        """Whether there is a part of that name, of the same settings."""
        if not self.folder:
            return False
        first = walk.is_first(self.devices)
        there = first and load_if(_load, self._path(name), self.settings) is not None
        return bool(walk.told(np.array(there), self.devices))

    def _path(self, name) -> pathlib.Path:
        layer = urllib.parse.quote(self.settings["layer"], safe="")
        return pathlib.Path(self.folder) / f"{layer}-{name}.npz"


NO_PARTS = Parts()


@dataclasses.dataclass(frozen=True)
class _Part:
    arrays: Arrays
    settings: dict


def _load(path) -> _Part:
    return load_npz(
        path, lambda arrays, settings: _Part(arrays, settings), "a part of a dissection"
    )
