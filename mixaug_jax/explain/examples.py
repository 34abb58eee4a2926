"""The images that are explained, the class that is explained of each, and where its object is."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import checks, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import checksum as checksum_of
from mixaug_jax.core.types import Devices, Net
from mixaug_jax.data import transforms
from mixaug_jax.explain import regions
from mixaug_jax.models import imagenet
from mixaug_jax.models.net import count_classes
from mixaug_jax.models.probability import class_logits, predicted, probabilities
from mixaug_jax.scores.alignment import is_difficult

LABELS = ("true", "predicted", "mapped")


@dataclasses.dataclass(frozen=True)
class Examples:
    """N images as a network sees them; the pixels are in the processes that explain them.

    Attributes:
      images: float32 [n,h,w,C], preprocessed, of this process's share of the N, see `walk.share`; all of them in one process.
      indices: int32 [N], where they are in the data set.
      labels: int32 [N], the class to explain.
      predicted: int32 [N], the class with the largest logit; of one logit class 1 where it is above 0.
      masks: bool [N,h,w], the region that should be pointed at; empty where there is none, or it was cropped away.
      difficult: bool [N], see `is_difficult`.
      region: how masks were found, one of `regions.KINDS`, or "" where the data set tells no place of anything.
      unlabeled: how many images were left out, because nothing in them is a class of the network.
      probabilities: float32 [N], of the predicted class.
      pixels: uint32 [N], checksums of the preprocessed images.
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
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @functools.cached_property
    def checksum(self) -> int:
        """Of everything that decides a result."""
        return checksum_of((self.pixels, self.indices, self.labels, self.masks, self.difficult))

    def own(self, devices: tuple) -> dict[str, np.ndarray]:
        """What methods and scores look at of this process's share: image, label, index and mask."""
        share = walk.share(len(self), devices)
        part = slice(share.start, share.stop)
        named = {"label": self.labels, "index": self.indices, "mask": self.masks}
        return {"image": self.images} | {name: column[part] for name, column in named.items()}


@dataclasses.dataclass(frozen=True)
class Reading:
    """Which images are explained, and how they are read.

    Attributes:
      max_images: at most so many, spread evenly over the data set; 0: all.
      label: the class to explain, "true", "predicted", or "mapped": for a network of ImageNet's 1000 classes on images whose
        boxes or concepts are named as in COCO, the class with the largest logit among those that the image's objects are.
      batch_size: images of a forward pass, on each device.
      threads: that read.
    """

    max_images: int = 0
    label: str = "true"
    batch_size: int = 64
    threads: int = 4


def load_examples(
    net: Net,
    dataset: Any,
    find: regions.Finder,
    reading: Reading = Reading(),
    *,
    devices: Devices = None,
) -> Examples:
    """Reads images and finds what to explain and where it is; each process of a job reads its share.

    Args:
      net: the network.
      dataset: as `data.Source`.
      find: how regions are found, from `finder` with the same label.
      reading: which images, and the class that is explained.
      devices: default all of all processes.

    Raises:
      ValueError: a label that the network cannot have, or nothing to explain in any image.
    """
    chosen = walk.spread(len(dataset), reading.max_images)
    devices = walk.chosen(devices)
    net, read = on_devices(net, devices), _reader(net, dataset, reading.label)
    blank = np.asarray(net.preprocess(dataset[0]["image"]))  # of the shape of what a process lacks
    # Read by threads, looked at here: regions need the class, which may depend on a whole batch's logits.
    own = walk.share(len(chosen), devices)
    ready = walk.read_ahead(read, chosen[own.start : own.stop], reading.threads)
    # A forward pass takes a full batch, whatever the number of images that are left.
    held, rows, report = {}, [], walk.progress("reading", len(chosen), devices)
    for start, stop, padded in walk.spans(len(chosen), reading.batch_size, devices):
        batch = list(itertools.islice(ready, stop - start))
        stacked = np.stack([image for image, _ in batch] or [blank])
        said = _said(net, walk.pad_rows(stacked, padded), devices)
        for (image, example), *values in zip(batch, *said, strict=False):
            rows.append(_row(image, example, *values, find, reading.label))
            if rows[-1]["kept"]:
                held[own[len(rows) - 1]] = image
        report(stop)
    columns = walk.gather(_columns(rows, blank.shape), len(chosen), devices)
    places = np.flatnonzero(columns.pop("kept"))
    if not len(places):
        raise ValueError(
            "label='mapped', but none of the images has an object that is one of ImageNet's classes"
        )

    # Where others were left out this process's share has moved: what it does not hold is read again.
    def pixels(place: Any):
        return held[place] if place in held else read(chosen[place])[0]

    own = walk.share(len(places), devices)
    images = list(walk.read_ahead(pixels, places[own.start : own.stop].tolist(), reading.threads))
    columns = {name: column[places] for name, column in columns.items()}
    kinds = columns.pop("kinds")
    masks = columns["masks"]
    return Examples(
        images=np.stack(images) if images else np.zeros((0, *blank.shape), blank.dtype),
        indices=chosen[places].astype(np.int32),
        **columns,
        difficult=is_difficult(masks.mean((1, 2)), kinds) & masks.any((1, 2)),
        region=find.kind,
        unlabeled=len(chosen) - len(places),
    )


def _reader(net, dataset, label):
    """A function of an index: the preprocessed image, and the part of the example that the network sees."""
    classes = num_classes(net, dataset)

    def read(index: Any):
        example = dataset[int(index)]
        if label == "true" and not 0 <= example["label"] < classes:
            raise ValueError(
                f"image {index} has the label {example['label']}; the network's classes go from 0 to "
                f"{classes - 1}"
            )
        return net.preprocess(example["image"]), transforms.seen_part(example, net.preprocess)

    return read


def _said(net, images, devices):
    """Logits [n,K] and probabilities [n,K] of this process's images [n,h,w,C]."""
    own = walk.own(devices)
    return jax.device_get(_forward(own)(net, devices_lib.shard_batch(images, own)))


_COLUMNS = {
    "labels": np.int32,
    "predicted": np.int32,
    "masks": bool,
    "kinds": np.int64,
    "probabilities": np.float32,
    "pixels": np.uint32,
    "kept": bool,
}


def _row(image, example, logits, probabilities, find, label) -> dict:
    """What is known of an image: `_COLUMNS`, `kinds` how many kinds of objects it shows, `kept` whether it is explained."""
    predicted = target = int(logits.argmax())
    kept = True
    if label == "true":
        target = int(example["label"])
    elif label == "mapped":
        candidates = find.candidates(example)
        kept = bool(candidates)
        target = candidates[int(logits[candidates].argmax())] if kept else predicted
    mask, kinds = find(example, target)
    mask = _resized(mask, image.shape[:2])
    values = (target, predicted, mask, kinds, probabilities[predicted], checksum_of(image), kept)
    return dict(zip(_COLUMNS, values, strict=True))


def _columns(rows, shape) -> dict[str, np.ndarray]:
    """One array a column, [n,...]; of images of a shape [h,w,C]."""
    return {
        name: np.array([row[name] for row in rows], dtype).reshape(
            len(rows), *(shape[:2] if name == "masks" else ())
        )
        for name, dtype in _COLUMNS.items()
    }


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


@functools.cache
def predictor(devices: tuple) -> Callable:
    """f(net, images [B,h,w,C]) -> the predicted classes [B], mapped over this process's devices."""
    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)

    def classes(net: Net, x: Any):
        return predicted(net.logits(x))

    return devices_lib.pmap_inference(classes, specs, devices_lib.SHARDED, devices=devices)


def on_devices(net: Net, devices: Devices):
    """The network with a copy of its variables on each of those devices that are of this process."""
    variables = devices_lib.replicate(jax.device_get(net.variables), walk.own(devices))
    return dataclasses.replace(net, variables=variables)


def finder(net: Net, dataset: Any, label: str, region: str) -> regions.Finder:
    """How regions are found for a network's classes; checks that `label` can be explained."""
    checks.choice("label", label, LABELS)
    classes, names = num_classes(net, dataset), tuple(getattr(dataset, "class_names", ()))
    # Numbers of the data's classes name nothing in a network of other classes.
    if label == "true" and len(names) != classes:
        raise ValueError(
            f"label='true', but the network has {classes} classes and the data set {len(names)}; "
            "name the folders of ImageNet's classes by their WordNet numbers (n01440764) or their names (tench), "
            "or explain another label: "
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
