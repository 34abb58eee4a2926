"""Network Dissection of activations that any network gave, in whatever framework.

result = dissect_arrays(np.load("layer4.npy", mmap_mode="r"), label_maps, names)
result.unique()  # [IoU thresholds, categories]
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from mixaug_jax.core import checks, walk
from mixaug_jax.core.files import checksum
from mixaug_jax.core.types import Activations, Devices, LabelMaps, Sliced, Thresholds
from mixaug_jax.dissection import concepts, tables
from mixaug_jax.dissection.activations import Largest, Watched, check_activations, read
from mixaug_jax.dissection.measuring import Layer, measure, top_images
from mixaug_jax.dissection.result import Dissection, Options

_AT_ONCE = 64  # images


def dissect_arrays(
    activations: Activations | Sliced,
    segmentation: LabelMaps | Sliced,
    names: Sequence[tuple[str, str]],
    options: Options = Options(),  # noqa: B008 (it is frozen)
    *,
    thresholds: Thresholds | Sequence[float] | None = None,
    layer: str = "layer",
    devices: Devices = None,
) -> Dissection:
    """Network Dissection (Bau et al., CVPR 2017) of stored activations, with its shuffled control and its intervals.

    There is no network, so nothing is counted with random weights; and there are no images, so top_images are places 0..N-1 in
    the arrays. Both arrays are read a few images at a time, as memory maps may be. In a job of several processes all call it
    with the same arguments, and get the same; each reads its `walk.share` of the activations, and any of the label maps.

    Args:
      activations: [N,h,w,U] finite floats; a map as a vision transformer's tokens [T,D] without their class token make it is
        `tokens.reshape(h, w, D)`.
      segmentation: [N,H,W,K] integers, the concepts of each image's pixels in K slots, 0 = none; resized and cut as the network
        saw the image.
      names: (name, category) of each number; entry 0 is ("none", "none").
      options: how units are measured and counted; size, max_images, random_baseline and precision have no meaning here.
      thresholds: [U] to use in place of the quantiles.
      layer: a name for tables and figures.
      devices: default all of all processes; no result depends on them.

    Raises:
      ValueError: arrays or names that do not fit each other, numbers outside the names, no image, NaN.
    """
    # Off by one, all names would be wrong and nothing else would say so.
    if any(isinstance(pair, str) or len(pair) != 2 for pair in names):
        raise ValueError(f"names must be pairs (name, category); got {checks.shown(names)}")
    names = tuple((str(name), str(category)) for name, category in names)
    if names[:1] != (concepts.NONE,):
        raise ValueError(f"names must begin with {concepts.NONE}, number 0; got {names[:1]}")
    if options.size or options.max_images:
        raise ValueError(
            "size and max_images must be 0 where arrays are given: slice the arrays instead"
        )
    vocabulary = concepts.Vocabulary(names)
    check_activations(activations)
    images, _, _, units = activations.shape
    # What no activation decides is checked before any is read.
    unknown = np.zeros(units, np.float32) if thresholds is None else np.asarray(thresholds)
    tables.check(activations, unknown, segmentation, len(names), vocabulary.category)
    # As a data set of the images in their order, whose label maps were made before.
    options = dataclasses.replace(options, random_baseline=False, precision=Options.precision)
    indices, devices = np.arange(images), walk.chosen(devices)
    labels = concepts.LabelMaps(
        segmentation, indices, vocabulary, _labels(segmentation, names, devices)
    )
    found = measure(Layer(activations, labels, options, layer, devices), thresholds)
    largest = _largest(activations, layer, devices)
    found |= top_images(activations, largest, indices, devices)
    # What `compare` and the tables read of a result, with the arrays in place of a network.
    settings = {
        "layer": layer,
        "activations": {"shape": activations.shape, "examples": _probe(activations, devices)},
        "options": dataclasses.asdict(options),
        "thresholds": checksum(np.asarray(() if thresholds is None else thresholds, np.float32)),
        "labels": labels.settings,
    }
    return Dissection(
        layer=layer,
        names=names,
        random=np.full_like(found["counts"], -1),
        indices=indices,
        settings=json.loads(json.dumps(settings)),
        **found,
    )


def _labels(segmentation, names, devices) -> dict:
    """The settings of label maps that nobody made here."""
    images, height, width, _ = map(int, segmentation.shape)
    return {
        "shape": [height, width],
        "images": images,
        "names": names,
        "examples": _probe(segmentation, devices),
    }


def _probe(array, devices) -> int:
    """A checksum of up to eight images: enough to tell other arrays from these."""

    def image(index: int) -> np.ndarray:
        return np.asarray(array[index : index + 1])

    return walk.fingerprint(image, int(array.shape[0]), devices)


def _largest(activations, layer, devices) -> Largest:
    """In the images of this process's share."""
    images, _, _, units = activations.shape
    mine = walk.share(images, devices)
    watched = Watched(activations, f"{layer}, largest activations", devices)
    found = Largest.none(units)
    for start in range(mine.start, mine.stop, _AT_ONCE):
        batch = read(watched, start, min(start + _AT_ONCE, mine.stop))
        found = found.with_images(batch.max((1, 2)), start)
    return found
