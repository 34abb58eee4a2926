"""Trained readouts for the methods that have the argument `readout`: those that a caller gives, or one trained on the spot."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixaug_jax.attribution import readout as readout_lib
from mixaug_jax.attribution import readout_training
from mixaug_jax.attribution.readout import Readout
from mixaug_jax.core import entries
from mixaug_jax.core.files import checksum
from mixaug_jax.core.types import AnyArray, Net


def asked(method: Callable) -> bool:
    """Whether a method wants a trained readout."""
    return "readout" in entries.keywords(method)


def check(net: Net, given: Mapping[str, Mapping]) -> None:
    """Raises ValueError where {method: options} hold a readout of other weights than the network's."""
    found = [o["readout"] for o in given.values() if isinstance(o.get("readout"), Readout)]
    for readout in found:
        readout_lib.check_weights(readout, checksum(net.variables))


def filled_in(net: Net, given: Mapping, reference: AnyArray, compute: bool) -> dict[str, Any]:
    """{"readout"} for a method whose options are `given`; {} where it is among them.

    Args:
      net: the network.
      given: the options.
      reference: preprocessed images [n,h,w,C] to train on, for the class that the network predicts.
      compute: whether to train; else its shapes alone.
    """
    if "readout" in given:
        return {}
    if not compute:
        return {"readout": readout_lib.blank(net, np.asarray(reference[0]))}
    training = dataclasses.replace(readout_training.QUICK, target="predicted")
    pictures = readout_training.Pictures(lambda i: (reference[i], 0), len(reference))
    return {"readout": readout_training.fit(net, pictures, training)}
