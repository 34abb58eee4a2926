"""The file of a readout bottleneck: what is needed to explain, and while it is trained what is needed to go on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from mixaug_jax.attribution.readout import Readout
from mixaug_jax.core import files
from mixaug_jax.core.types import Net, Path

MEASURES = ("clean_ce", "ce", "nats", "passed")  # of a step, in the order of a history's columns
_STATS = ("mean", "std", "active")


@dataclasses.dataclass(frozen=True)
class Progress:
    """A training of a readout bottleneck.

    Attributes:
      step: how many steps are done.
      readout: as it is after them.
      opt_state: of Adam.
      history: float32 [step,4], `MEASURES` of each step.
      settings: of the training, of the network and of the data.
    """

    step: int
    readout: Readout
    opt_state: Any
    history: np.ndarray
    settings: dict


def load_readout(path: Path, net: Net) -> Readout:
    """What `train_readout` kept for this network.

    Raises:
      ValueError: no such file, an unfinished one, or a readout of other weights.
    """
    found = load_progress(path)
    if found.settings["weights"] != files.checksum(net.variables):
        raise ValueError(f"{path} is the readout of other weights; train one for these")
    if found.step < found.settings["length"]:
        raise ValueError(f"{path} is not trained to its end; the same command goes on")
    return found.readout


def save_progress(found: Progress, path: Path) -> None:
    """Writes a training's state as flat arrays."""
    arrays = {
        f"params.{layer}.{k}": v
        for layer, one in found.readout.params.items()
        for k, v in one.items()
    }
    for name, stats in zip(found.readout.layers, found.readout.stats, strict=True):
        arrays |= {f"stats.{name}.{k}": v for k, v in zip(_STATS, stats, strict=True)}
    if found.step < found.settings["length"]:  # what only a training that goes on needs
        arrays |= {f"adam.{k}": leaf for k, leaf in enumerate(jax.tree.leaves(found.opt_state))}
    arrays |= {"history": found.history, "step": np.array(found.step)}
    files.save_npz(path, arrays, found.settings)


def load_progress(path: Path) -> Progress:
    """What `save_progress` wrote; ValueError for another file."""

    def make(arrays: Mapping, settings: dict):
        params: dict[str, dict] = {}
        for key in arrays:
            kind, _, name = key.partition(".")
            if kind == "params":
                layer, _, part = name.partition(".")
                params.setdefault(layer, {})[part] = arrays[key]
        layers, step = tuple(settings["layers"]), int(arrays["step"])
        stats = tuple(tuple(arrays[f"stats.{n}.{k}"] for k in _STATS) for n in layers)
        opt_state = optax.adam(settings["lr"]).init(params)
        # What a finished training had in its optimizer is not stored.
        if step < settings["length"]:
            leaves, form = jax.tree.flatten(opt_state)
            opt_state = form.unflatten([arrays[f"adam.{k}"] for k in range(len(leaves))])
        form = (settings["variant"], float(settings["sigma"]), settings["weights"])
        return Progress(
            step, Readout(params, stats, layers, *form), opt_state, arrays["history"], settings
        )

    return files.load_npz(path, make, "a readout bottleneck")
