"""Which unit of one network is which of another: units whose activations rise and fall together on the same images.

Li, Yosinski, Clune, Lipson, Hopcroft: "Convergent Learning: Do different neural networks learn the same representations?",
ICLR 2016 (arXiv 1511.07543): correlations of activations over images and places, and the matching one to one of largest sum.

    found = match((cutmix, baseline), dataset, range(500), ("layer4", "layer4"))
    found.other, found.value     # of each unit its match, and their correlation
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy import optimize

from mixaug_jax.core import checks, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.frames import frame
from mixaug_jax.core.types import Count, Dataset, Devices, Float, Indices, Int, Net
from mixaug_jax.dissection.activations import Forward, shapes
from mixaug_jax.dissection.counting import derangements


@dataclasses.dataclass(frozen=True)
class Matched:
    """The units of a layer of two networks, U and V of them.

    Attributes:
      correlation: float64 [U,V], of activations over images and places; 0 for a unit that never changes.
      other: int [U], the unit of the second network that each of the first is matched with, one to one; -1 for the units that
        are left over where U > V.
      value: float64 [U], their correlation; NaN for those left over.
      null: float64 [U], the same for the images of the second network shuffled against those of the first: what the largest of
        many correlations is by chance.
    """

    correlation: Float[np.ndarray, "U V"]
    other: Int[np.ndarray, " U"]
    value: Float[np.ndarray, " U"]
    null: Float[np.ndarray, " U"]

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each unit: its other, their correlation, and what chance gives."""
        unit = np.arange(len(self.other))
        return frame({"unit": unit, "other": self.other, "value": self.value, "null": self.null})


@dataclasses.dataclass(frozen=True)
class Matching:
    """How units are matched.

    Attributes:
      seed: of the shuffle.
      precision: of float32 matrix products, "default", "high" or "highest".
      batch_size: images of a device at once.
      threads: that read images.
    """

    seed: Count = 0
    precision: str = "highest"
    batch_size: Count = 50
    threads: Count = 4

    def __post_init__(self):
        checks.count("seed", self.seed, 0)
        checks.choice("precision", self.precision, devices_lib.PRECISIONS)
        for name in ("batch_size", "threads"):
            checks.count(name, getattr(self, name))


def match(
    nets: tuple[Net, Net],
    dataset: Dataset,
    indices: Indices | Sequence[int] | range,
    layers: tuple[str, str],
    options: Matching = Matching(),
    *,
    devices: Devices = None,
) -> Matched:
    """Matches the units of two networks by the correlation of their activations on the same images (Li et al. 2016).

    Runs on all devices of all processes, each over its share of the images; all of them then hold the activations of all, 4
    bytes an image, place and unit.

    Args:
      nets: the two networks; each sees an image through its own preprocessing.
      dataset: examples with image, as `data.Source`.
      indices: [N] of the examples, two at least.
      layers: of each network, maps [h,w,U] and [h,w,V] of equal size; of other sizes their means over places are taken.
      options: the seed of the shuffle, and what it may take.
      devices: default all of all processes.

    Raises:
      ValueError: no pairs, fewer than two images, an unknown layer, activations that are not finite.
    """
    for name, given in (("nets", nets), ("layers", layers)):
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise ValueError(
                f"{name} must be a pair, one of each network; got {checks.shown(given)}"
            )
    indices = checks.indices("indices", indices, len(dataset))
    checks.count("the number of images", len(indices), 2)
    devices = walk.chosen(devices)
    local = sum(device.process_index == jax.process_index() for device in devices)
    rows = local * min(options.batch_size, -(-len(indices) // local))
    sizes = [shapes(net, dataset, (k,))[k] for net, k in zip(nets, layers, strict=True)]
    # Places correspond only where both maps have as many.
    pooled = sizes[0][:2] != sizes[1][:2]
    found = []
    for net, layer, size in zip(nets, layers, sizes, strict=True):
        variables = devices_lib.replicate(jax.device_get(net.variables), devices)
        net = dataclasses.replace(net, variables=variables)
        forward = Forward(net, dataset, indices, (layer,), rows, options.threads, devices)
        with devices_lib.precision(options.precision):
            found.append(_activations(forward, size, pooled))
    first, second = found
    correlation = _correlation(first, second)
    (order,) = derangements(len(indices), 1, options.seed)
    other, value = _assigned(correlation)
    return Matched(correlation, other, value, _assigned(_correlation(first, second[order]))[1])


def _activations(forward, size, pooled) -> np.ndarray:
    """float32 [N,places,U] of one layer."""
    (layer,), (height, width, units) = forward.layers, size
    total, devices = len(forward.indices), forward.devices
    mine = walk.share(total, devices)
    parts = [np.zeros((0, 1 if pooled else height * width, units), np.float32)]
    report = say.progress(f"{layer}, activations", len(mine))
    for batch in forward.run(mine.start, mine.stop):
        h = batch[layer].reshape(len(batch[layer]), -1, units)
        parts.append(h.mean(1, keepdims=True) if pooled else h)
        report(sum(map(len, parts)))
    whole = walk.gather(np.concatenate(parts), total, devices)
    # One such value would make every correlation NaN, and no match would be found anywhere.
    finite = np.isfinite(whole).all((1, 2))
    if not finite.all():
        index = forward.indices[int(finite.argmin())]
        raise ValueError(f"the activations of {layer} in image {index} hold NaN or infinity")
    return whole


def _correlation(first, second) -> np.ndarray:
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (first, second))
    a, b = (x - x.mean(0) for x in (a, b))
    scale = np.outer(np.sqrt((a**2).sum(0)), np.sqrt((b**2).sum(0)))
    return np.divide(a.T @ b, scale, out=np.zeros(scale.shape), where=scale > 0).clip(-1, 1)


def _assigned(correlation) -> tuple[np.ndarray, np.ndarray]:
    """The one-to-one matching of the largest sum of correlations."""
    units, others = optimize.linear_sum_assignment(correlation, maximize=True)
    other = np.full(len(correlation), -1, np.int64)
    value = np.full(len(correlation), np.nan)
    other[units], value[units] = others, correlation[units, others]
    return other, value
