"""What a network gives for every example of a data set, on all devices of all processes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import walk
from mixaug_jax.core.types import Count, Dataset, Devices, Float, Net
from mixaug_jax.explain.examples import on_devices

_ROWS = 32  # at once on a device, however many there are: the same program gives the same values


def logits(
    net: Net, source: Dataset, title: str, *, threads: Count = 4, devices: Devices = None
) -> Float[np.ndarray, "N K"]:
    """The network's logits, float32, the same in every process.

    Args:
      net: the network.
      source: examples with image.
      title: what is said while it goes on.
      threads: that read.
      devices: None: all.
    """
    devices = walk.chosen(devices)
    own, here = walk.share(len(source), devices), walk.own(devices)
    read = functools.partial(_image, source, net.preprocess)
    images = walk.read_ahead(read, own, threads)
    program, placed = _program(here), on_devices(net, devices)
    report, found = walk.progress(title, len(source), devices), []
    rows = _ROWS * len(here)
    for start in range(0, len(own), rows):
        taken = np.stack([next(images) for _ in own[start : start + rows]])
        padded = walk.pad_rows(taken, rows)
        given = program(placed, devices_lib.shard_batch(padded, here))
        found.append(np.asarray(jax.device_get(given))[: len(taken)])
        report(start + len(taken))
    # A process without images knows how many logits there are by asking, not by computing.
    width = jax.eval_shape(lambda net, x: net.logits(x), net, read(0)[None]).shape[-1]
    whole = np.concatenate([np.zeros((0, width), np.float32), *found])
    return walk.gather(whole, len(source), devices)


def _image(source, preprocess, index) -> np.ndarray:
    return np.asarray(preprocess(source[int(index)]["image"]))


@functools.lru_cache(maxsize=8)
def _program(devices):
    def answers(net: Any, images: Any):
        return net.logits(images).astype(jnp.float32)

    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    return devices_lib.pmap_inference(answers, specs, devices_lib.SHARDED, devices=devices)
