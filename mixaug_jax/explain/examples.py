"""The images that are explained, the class that is explained of each, and where its object is."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import checks, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import checksum as checksum_of
from mixaug_jax.core.types import Devices, Net
from mixaug_jax.data import transforms
from mixaug_jax.explain import regions
from mixaug_jax.models import imagenet
from mixaug_jax.models.net import count_classes
from mixaug_jax.models.probability import class_logits, probabilities
from mixaug_jax.scores.alignment import is_difficult

LABELS = ("true", "predicted", "mapped")


@dataclasses.dataclass(frozen=True)
class Examples:
    """N images as a network sees them.

    Attributes:
      images: float32 [N,h,w,C], preprocessed.
      indices: int32 [N], where they are in the data set.
      labels: int32 [N], the class to explain.
      predicted: int32 [N], the class with the largest logit; of one logit class 1 where it is above 0.
      masks: bool [N,h,w], the region that should be pointed at; empty where there is none, or it was cropped away.
      difficult: bool [N], see `is_difficult`.
      region: how masks were found, one of `regions.KINDS`, or "" where the data set tells no place of anything.
      unlabeled: how many images were left out, because nothing in them is a class of the network.
      probabilities: float32 [N], of the predicted class.
    """

    images: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    masks: np.ndarray
    difficult: np.ndarray
    region: str
    unlabeled: int
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @functools.cached_property
    def checksum(self) -> int:
        """Of everything that decides a result."""
        return checksum_of((self.images, self.indices, self.labels, self.masks, self.difficult))


def load_examples(
    net: Net,
    dataset: Any,
    find: regions.Finder,
    *,
    max_images: int = 0,
    label: str = "true",
    batch_size: int = 64,
    threads: int = 4,
    devices: Devices = None,
) -> Examples:
    """Reads images and finds what to explain and where it is.

    Args:
      net: the network.
      dataset: as `data.Source`.
      find: how regions are found, from `finder` with the same label.
      max_images: at most so many, spread evenly over the data set; 0: all.
      label: the class to explain, "true", "predicted", or "mapped": for a network of ImageNet's 1000 classes on images whose
        boxes or concepts are named as in COCO, the class with the largest logit among those that the image's objects are.
      batch_size: images of a forward pass, on each device.
      threads: that read.
      devices: default all of this process.

    Raises:
      ValueError: a label that the network cannot have, or nothing to explain in any image.
    """
    chosen = walk.spread(len(dataset), max_images)
    devices = walk.chosen(devices)
    rows = len(devices) * min(batch_size, -(-len(chosen) // len(devices)))
    net, classes = on_devices(net, devices), num_classes(net, dataset)

    # Read by threads, looked at here: regions need the class, which may depend on a whole batch's logits.
    def read(index: Any):
        example = dataset[int(index)]
        if label == "true" and not 0 <= example["label"] < classes:
            raise ValueError(
                f"image {index} has the label {example['label']}; the network's classes go from 0 to "
                f"{classes - 1}"
            )
        return (
            index,
            net.preprocess(example["image"]),
            transforms.seen_part(example, net.preprocess),
        )

    # A forward pass takes a full batch, whatever the number of images that are left.
    found, pending = [], []
    report = say.progress("reading", len(chosen))
    for count, one in enumerate(walk.read_ahead(read, chosen, threads), 1):
        pending.append(one)
        if len(pending) == rows or count == len(chosen):
            found += _explained(net, pending, find, label, rows, devices)
            pending = []
            report(count)
    if not found:
        raise ValueError(
            "label='mapped', but none of the images has an object that is one of ImageNet's classes"
        )
    # One row an image so far; from here on one array a column.
    columns = [np.array(column) for column in zip(*found, strict=True)]
    pixels, indices, labels, predicted, masks, kinds, probabilities = columns
    return Examples(
        images=pixels,
        indices=indices.astype(np.int32),
        labels=labels.astype(np.int32),
        predicted=predicted.astype(np.int32),
        masks=masks,
        difficult=is_difficult(masks.mean((1, 2)), kinds) & masks.any((1, 2)),
        region=find.kind,
        unlabeled=len(chosen) - len(found),
        probabilities=probabilities.astype(np.float32),
    )


def _explained(net, batch, find, label, rows, devices):
    """[(image, index, label, predicted, mask, kinds of objects, probability of the predicted class)] of those that have
    something to explain."""
    stacked = walk.pad_rows(np.stack([image for _, image, _ in batch]), rows)
    forward = _forward(devices)(net, devices_lib.shard_batch(stacked, devices))
    logits, probabilities = (np.asarray(values)[: len(batch)] for values in forward)
    found = []
    for (index, image, example), values, shares in zip(batch, logits, probabilities, strict=True):
        predicted = int(values.argmax())
        target = predicted
        if label == "true":
            target = int(example["label"])
        elif label == "mapped":
            candidates = find.candidates(example)
            if not candidates:
                continue
            target = candidates[int(values[candidates].argmax())]
        mask, kinds = find(example, target)
        mask = _resized(mask, image.shape[:2])
        found.append((image, index, target, predicted, mask, kinds, shares[predicted]))
    return found


def _resized(mask, size):
    """At the network's input size, where a preprocessing of the user's own has resized the whole image."""
    rows, cols = map(transforms.nearest, mask.shape, size)
    return mask[rows[:, None], cols]


@functools.cache
def _forward(devices):
    def forward(net: Net, x: Any):
        logits = net.logits(x)
        return class_logits(logits), probabilities(net, logits)

    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    return devices_lib.pmap_inference(forward, specs, devices_lib.SHARDED, devices=devices)


def on_devices(net: Net, devices: Devices):
    """The network with a copy of its variables on each of the devices."""
    variables = devices_lib.replicate(jax.device_get(net.variables), devices)
    return dataclasses.replace(net, variables=variables)


def finder(net: Net, dataset: Any, label: str, region: str) -> regions.Finder:
    """How regions are found for a network's classes; checks that `label` can be explained."""
    checks.choice("label", label, LABELS)
    classes, names = num_classes(net, dataset), tuple(getattr(dataset, "class_names", ()))
    if label == "true" and len(names) != classes:
        raise ValueError(
            f"label='true', but the network has {classes} classes and the data set {len(names)}; "
            "name the folders of ImageNet's classes by their WordNet numbers (n01440764), or explain another label: "
            "'predicted', or 'mapped' for a network of ImageNet's classes"
        )
    if label == "mapped":
        if classes != imagenet.CLASSES:
            raise ValueError(
                f"label='mapped' is for networks of ImageNet's {imagenet.CLASSES} classes; this one has {classes}"
            )
        shows = regions.imagenet_classes(dataset)
        if not any(shows.values()):
            raise ValueError(
                "label='mapped', but no box or concept of the data set has a name that is one of "
                "COCO's and shows a class of ImageNet"
            )
    else:
        shows = regions.own_classes(names) if len(names) == classes else {}
    return regions.finder(dataset, shows, region)


def num_classes(net: Net, dataset: Any) -> int:
    """How many classes the network has; computes nothing."""
    return count_classes(net, np.shape(net.preprocess(dataset[0]["image"])))
