"""Interventions: what becomes of a network's answers when units are switched off (`inserting`: when one is forced on).

Bau, Zhu, Strobelt, Lapedriza, Zhou, Torralba: "Understanding the role of individual units in a deep neural network", PNAS 2020
(arXiv 2009.05041): a unit matters for a class if the class's accuracy falls without it, whatever concept it detects.

    removed = remove(net, dataset, range(500), "layer3", unit_sets.single(64).units)
    drops = rates.importance(removed, classes)      # [units, classes]

An image goes once through the network up to the layer, and from there on once for each set of units. Where the rest is a mean
over space and a dense layer, not even that: each unit then adds its own part to the logits.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.frames import frame
from mixaug_jax.core.types import (
    AnyArray,
    Bool,
    Count,
    Dataset,
    Devices,
    Float,
    Indices,
    Int,
    Net,
    Scalar,
)
from mixaug_jax.dissection.affine_tails import dense_rest
from mixaug_jax.models.net import count_logits
from mixaug_jax.models.probability import log_probabilities, predicted

VALUES = ("zero", "mean")
_SETS = 16  # of one call; few, as the last call is filled up
_TOGETHER = 4  # sets that go through the rest of the network as one batch


@dataclasses.dataclass(frozen=True)
class Removing:
    """How units are removed; only the first two decide the results.

    Attributes:
      value: what stands in the place of a unit's activations: "zero", their "mean" over images and places, or a number.
      precision: of float32 matrix products, "default", "high" or "highest".
      batch_size: images of a device at once.
      threads: that read images.
    """

    value: str | Scalar = "zero"
    precision: str = "highest"
    batch_size: Count = 50
    threads: Count = 4

    def __post_init__(self):
        if isinstance(self.value, str):
            checks.choice("value", self.value, VALUES)
        elif np.shape(self.value) or self.value is None:
            raise ValueError(
                f"value must be {', '.join(VALUES)} or a number; got {checks.shown(self.value)}"
            )
        else:
            checks.number("value", float(self.value), -np.inf, np.inf)
        checks.choice("precision", self.precision, devices_lib.PRECISIONS)
        for name in ("batch_size", "threads"):
            checks.count(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Removed:
    """What a network says of N images without each of S sets of units, and with all of its U units.

    Attributes:
      labels: int32 [N], the true classes.
      predicted: int32 [N,S], the most probable class without each set.
      loss: float32 [N,S], minus the logarithm of the true class's probability without each set, nats.
      clean_predicted, clean_loss: [N], with all units.
      mean: float32 [N,U], each unit's activation, averaged over places.
    """

    labels: Int[np.ndarray, " N"]
    predicted: Int[np.ndarray, "N S"]
    loss: Float[np.ndarray, "N S"]
    clean_predicted: Int[np.ndarray, " N"]
    clean_loss: Float[np.ndarray, " N"]
    mean: Float[np.ndarray, "N U"]

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each set of units: the accuracy and the mean loss without it, and
        what is lost of the accuracy with all units."""
        accuracy = (self.predicted == self.labels[:, None]).mean(0)
        return frame(
            {
                "set": np.arange(len(accuracy)),
                "accuracy": accuracy,
                "drop": (self.clean_predicted == self.labels).mean() - accuracy,
                "loss": self.loss.mean(0),
            }
        )


def remove(
    net: Net,
    dataset: Dataset,
    indices: Indices | Sequence[int] | range,
    layer: str,
    sets: Bool[AnyArray, "S U"] | Sequence[Sequence[bool]],
    options: Removing = Removing(),
    *,
    means: Float[np.ndarray, " U"] | None = None,
    devices: Devices = None,
) -> Removed:
    """Removes each of many sets of a layer's units, and says what the network then predicts (Bau et al., PNAS 2020).

    Runs on all devices of all processes: each process takes its share of the images, and gets the rows of all. Results do not
    depend on how many images or sets go at once, but for rounding.

    Args:
      net: `models.Net`; units are the last axis of what its layer gives.
      dataset: examples with image and label, as `data.Source`.
      indices: [N] of the examples.
      layer: any but the last, which gives the logits.
      sets: the units of each set; S may be 0.
      options: what takes the place of activations, and what it may take.
      means: of the units, for options.value = "mean"; by default those of these images, which takes a second walk.
      devices: default all of all processes.

    Raises:
      ValueError: no image, an unknown layer, sets that are not of booleans or of another number of units, as many means, a
        label that is no class of the network, activations or logits that are not finite.
    """
    indices, devices = checks.indices("indices", indices, len(dataset)), walk.chosen(devices)
    blank = _check(net, dataset, indices, layer)
    sets = _boolean(sets, layer, blank[1].shape[-1])
    # Removing nothing is a walk that has each unit's mean as a by-product.
    if means is None and options.value == "mean":
        none = np.zeros((0, sets.shape[1]), bool)
        plain = dataclasses.replace(options, value="zero")
        found = remove(net, dataset, indices, layer, none, plain, devices=devices)
        means = found.mean.mean(0, np.float64)
    value = _value(options, means, sets.shape[1])
    net = dataclasses.replace(
        net, variables=devices_lib.replicate(jax.device_get(net.variables), devices)
    )
    with devices_lib.precision(options.precision):
        # Where a mean and a dense layer are all that follows, sets need sums and no network.
        dense = dense_rest(net, layer, *blank)
        rest = _Rest(net, layer, dense, _padded(sets), value, devices)
        parts = []
        report = say.progress(f"{layer}, {len(sets)} sets removed", len(indices))
        for start, stop, batch in _batches(net, dataset, indices, options, devices):
            parts.append({k: v[: stop - start] for k, v in rest(batch, len(sets)).items()})
            # Of all images, as if the other processes were as far as this one.
            report(min(len(indices), stop * len(indices) // max(1, rest.share(len(indices)))))
        own = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    found = walk.gather(own, len(indices), devices)
    _check_finite(found, indices)
    return Removed(**found)


def _check(net, dataset, indices, layer):
    """Raises for what cannot work, before anything is compiled; returns `_blank`."""
    checks.choice("layer", layer, net.layers[:-1])
    if not indices.size:
        raise ValueError("there are no images: a removal needs at least one")
    return _blank(net, np.shape(net.preprocess(dataset[int(indices[0])]["image"])), layer)


def _boolean(sets, layer, units):
    """Sets as bool [S,U]; ValueError for numbers, which may be meant as indices, and for other shapes."""
    try:
        found = np.asarray(sets)
    except ValueError:  # rows of different lengths
        found = np.zeros(0)
    if found.dtype != bool:
        raise ValueError(
            f"sets must be booleans [S,{units}], for each set and unit whether it is removed; got {checks.shown(sets)}"
        )
    if found.ndim != 2 or found.shape[1] != units:
        raise ValueError(f"sets have shape {list(found.shape)}; layer {layer!r} has {units} units")
    return found


def _value(options, means, units):
    """float32 [U], what stands in the place of removed units."""
    if options.value != "mean":
        return np.full(units, 0 if options.value == "zero" else options.value, np.float32)
    if np.shape(means) != (units,) or not np.isfinite(means).all():
        raise ValueError(
            f"means must be {units} finite numbers, one a unit; got {checks.shown(means)}"
        )
    return np.asarray(means, np.float32)


def _blank(net, shape, layer):
    """An image of zeros, and as many zeros as the layer gives of it."""
    x = np.zeros((1, *shape), np.float32)
    h = jax.eval_shape(_features(layer), net, x)
    return x, np.zeros(h.shape, h.dtype)


@functools.cache
def _features(layer):  # one function a layer, which JAX then traces once for each network
    return lambda net, x: net.features(x, layer)


def _padded(sets):
    """Sets, `_SETS` in one array; the last ones are filled up with empty sets, so that all calls have one shape."""
    sets = np.concatenate([sets, np.zeros((-len(sets) % _SETS, sets.shape[1]), bool)])
    return sets.reshape(-1, _SETS, sets.shape[1])


def _check_finite(found, indices):
    wrong = ~np.isfinite(found["clean_loss"]) | ~np.isfinite(found["mean"]).all(1)
    wrong |= ~np.isfinite(found["loss"]).all(1)
    if wrong.any():
        raise ValueError(
            f"what the network gives of image {indices[int(wrong.argmax())]} holds NaN or infinity; removals need finite values"
        )


def _batches(net, dataset, indices, options, devices) -> Iterator[tuple[int, int, dict]]:
    """Yields (start, stop, padded batch) of this process's share, as many in every process."""
    classes = max(2, count_logits(net, np.shape(net.preprocess(dataset[int(indices[0])]["image"]))))

    def read(index: Any) -> dict:
        example = dataset[int(index)]
        checks.label(int(example["label"]), classes)
        return {
            "image": np.asarray(net.preprocess(example["image"]), np.float32),
            "label": np.int32(example["label"]),
        }

    own = indices[walk.share(len(indices), devices)]
    examples = walk.read_ahead(read, own, options.threads)
    for start, stop, rows in walk.spans(len(indices), options.batch_size, devices):
        # A process that has no image left pads with any, so that its devices take part in the collectives.
        now = list(itertools.islice(examples, stop - start)) or [read(indices[0])]
        batch = {name: np.stack([row[name] for row in now]) for name in now[0]}
        yield start, stop, {name: walk.pad_rows(v, rows) for name, v in batch.items()}


@dataclasses.dataclass(frozen=True)
class _Rest:
    """The rest of a network, under all sets in turn.

    Attributes:
      net: its variables on the devices.
      layer: whose units are removed.
      dense: the weights [U,K] of the units' means on the logits, and the logits [K] without any; None where the rest has to be
        run.
      sets: bool [calls,sets of a call,U].
      value: float32 [U], in the place of a removed unit.
      devices: a tuple.
    """

    net: Any
    layer: str
    dense: Any
    sets: np.ndarray
    value: np.ndarray
    devices: tuple

    def share(self, images: int) -> int:
        """How many of the images are this process's."""
        return len(walk.share(images, self.devices))

    def __call__(self, batch: dict, sets: int) -> dict[str, np.ndarray]:
        """The columns of `Removed` of a batch, for the first `sets` sets."""
        begin, run, add = _programs(self.layer, self.devices)
        batch = devices_lib.shard_batch(batch, self.devices)
        known = begin(self.net, batch)
        if self.dense is None:
            made = [run(self.net, known, chunk, self.value) for chunk in self.sets]
        else:
            made = [add(self.net, known, chunk, self.value, *self.dense) for chunk in self.sets]
        kept = ("labels", "clean_predicted", "clean_loss", "mean")
        found = {name: _local(known[name]) for name in kept}
        rows = len(found["labels"])
        # Sets are padded to whole chunks, so that one program serves all; what was made of padding goes.
        for name, dtype in (("predicted", np.int32), ("loss", np.float32)):
            parts = [np.zeros((rows, 0), dtype), *(_local(part[name]) for part in made)]
            found[name] = np.concatenate(parts, 1)[:, :sets]
        return found


def _local(array) -> np.ndarray:
    """This process's rows of an array that is split over the devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


@functools.cache
def _programs(layer: str, devices: tuple):
    """Mapped over devices: (net, batch) -> what is known of it with all units; then what its sets' removal gives, by running
    the rest or by adding parts. Kept, so that a second network of the same architecture compiles nothing."""
    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED

    def begin(net: Net, batch: dict) -> dict:
        x, label = batch["image"], batch["label"]
        h = net.features(x, layer)
        logits = net.logits(x, layer=layer, value=h)
        clean, loss = _answers(net, logits, label)
        mean = h.mean(tuple(range(1, h.ndim - 1)))
        found = {"image": x, "labels": label, "h": h, "mean": mean}
        return found | {"clean_predicted": clean, "clean_loss": loss}

    def run(net: Net, known: dict, sets: jax.Array, value: jax.Array) -> dict:
        def one(units: jax.Array) -> dict:
            h = jnp.where(units, value, known["h"])
            logits = net.logits(known["image"], layer=layer, value=h)
            return _named(_answers(net, logits, known["labels"]))

        return _by_image(jax.lax.map(one, sets, batch_size=_TOGETHER))

    def add(net: Net, known: dict, sets: Any, value: Any, weights: Any, offset: Any) -> dict:
        def one(units: jax.Array) -> dict:
            # Added up anew, not taken from the logits: what is equal without any unit stays equal.
            logits = jnp.where(units, value, known["mean"]) @ weights + offset
            return _named(_answers(net, logits, known["labels"]))

        return _by_image(jax.lax.map(one, sets, batch_size=_TOGETHER))

    def mapped(f: Any, specs: tuple) -> Any:
        return devices_lib.pmap_inference(f, specs, split, devices=devices)

    return (
        mapped(begin, (whole, split)),
        mapped(run, (whole, split, whole, whole)),
        mapped(add, (whole, split, whole, whole, whole, whole)),
    )


def _answers(net, logits, label):
    """The predicted class [B] int32, and the loss of the true one [B]."""
    known = log_probabilities(net, logits)
    loss = -jnp.take_along_axis(known, label[:, None], -1)[:, 0]
    return predicted(logits).astype(jnp.int32), loss


def _named(found):
    return dict(zip(("predicted", "loss"), found, strict=True))


def _by_image(found):
    return jax.tree.map(lambda x: x.T, found)
