"""What a network says of many images: logits and activations, on all devices of all processes."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Activations, Count, Dataset, Indices, Logits, Net, Outputs, UInt8
from mixaug_jax.explain import programs
from mixaug_jax.explain.examples import on_devices
from mixaug_jax.models.net import count_logits
from mixaug_jax.papers.relevance.panels.panel import PerImage, Pictures

_ROWS = 64  # images that a device takes at once
Stored = UInt8[np.ndarray, "N H W 3"]


def logit(logits: Logits) -> Outputs:
    """What is explained of a network with two classes: the logit of class 1 minus that of class 0, or its one logit."""
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def check_net(net: Net, images: Stored) -> None:
    """Raises ValueError, in one sentence, for a network of other than two classes."""
    found = count_logits(net, np.shape(net.preprocess(images[0])))
    if found > 2:
        raise ValueError(f"panels explain networks of two classes; this one has {found}")


def logits(net: Net, images: Stored) -> PerImage:
    """The explained logit of stored images, float32 [N], the same in every process."""
    return _run(_logit, net, images)


def activations(net: Net, images: Stored, layer: str) -> Activations:
    """The maps [N,h,w,U] of a layer, the same in every process.

    Raises:
      ValueError: another layer, or one without maps.
    """
    checks.choice("layer", layer, net.layers)
    found = _run(_features(layer), net, images)
    if found.ndim != 4:
        raise ValueError(f"layer {layer} has no maps, but outputs of the shape {found.shape[1:]}")
    return found


def read_pictures(
    net: Net, dataset: Dataset, *, max_images: Count = 0, attributes: bool = True
) -> Pictures:
    """Reads images of a data set of two classes and asks a network about them.

    Args:
      net: the network.
      dataset: as `data.Source`; its examples may have `attributes` float32 [A].
      max_images: at most so many, spread evenly; 0: all.
      attributes: whether those are kept.

    Raises:
      ValueError: a set or a network of other than two classes.
    """
    if len(dataset.class_names) != 2:
        raise ValueError(
            f"panels explain networks of two classes; this set has {len(dataset.class_names)}"
        )
    indices = indices_of(dataset, max_images)
    examples = list(walk.read_ahead(lambda i: dataset[int(i)], indices, 4))
    images = np.stack([example["image"] for example in examples])
    check_net(net, images)
    empty = np.zeros(0, np.float32)
    known = [example.get("attributes", empty) if attributes else empty for example in examples]
    names = tuple(dataset.class_names)
    return Pictures(images, logits(net, images), names, np.asarray(np.stack(known), np.float32))


def indices_of(dataset: Dataset, max_images: Count) -> Indices:
    """Which images `read_pictures` reads."""
    return walk.spread(len(dataset), max_images)


def _logit(net: Net, x: Any):
    return logit(net.logits(x))


@functools.cache
def _features(layer) -> Callable:
    def features(net: Net, x: Any):
        return net.maps(layer, net.features(x, layer))

    return features


def _run(work, net, images):
    devices = walk.chosen(None)
    share = walk.share(len(images), devices)
    shape = np.shape(net.preprocess(images[0]))
    own = [net.preprocess(images[i]) for i in share]
    views = np.stack(own) if own else np.zeros((0, *shape), np.float32)
    task = programs.Task(_program(work, devices), devices, 0, {}, _ROWS)
    found = task.run(on_devices(net, devices), {"image": views}, "panels", len(images))
    return walk.gather(found, len(images), devices)


@functools.lru_cache(maxsize=64)
def _program(work, devices):
    def every(net: Net, seed: Any, arrays: Any, rows: dict) -> Any:
        return jnp.asarray(work(net, rows["image"]), jnp.float32)

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    own = walk.own(devices)
    return devices_lib.pmap_inference(every, (whole, whole, whole, split), split, devices=own)
