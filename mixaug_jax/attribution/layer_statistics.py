"""Statistics of a network's layers over many images, of each cell: what the bottlenecks draw their noise with."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import chunks
from mixaug_jax.attribution.bottleneck import MIN_ACTIVE, VARIANTS, bottleneck_layer
from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Bool, Float, Images, Net

Statistics = tuple[Float[np.ndarray, "..."], ...]  # (mean, std, active) of a layer


def iba_statistics(
    net: Net,
    batches: Iterable,
    *,
    layer: str = "",
    layers: Sequence[str] = (),
    variant: str = "library",
) -> tuple:
    """Each cell's statistics over many images, for `iba`, or of several layers in one pass, for `iba_readout`.

    Args:
      net: the network.
      batches: iterable of preprocessed images [B,h,w,C], none larger than the first; 10 000 images are advised by the authors.
      layer: as in `iba`.
      layers: in place of `layer`, any layers of the network.
      variant: "library": mean and standard deviation (divided by n - 1); a cell is active where more than 1 percent of the
        images are not zero. "paper": where a layer has no negative value in any image, its estimator for layers after a ReLU:
        mean 0, the root mean square of the values that are not zero (at least 1e-5 in their sum of squares); else mean and
        standard deviation (divided by n, with the same bound); all cells active.

    Returns:
      (mean, std, active), float32 [h',w',K] each ([K] of a layer without a map); with `layers` a tuple of such, one each.

    Raises:
      ValueError: for fewer than two images, batches of several sizes, images that nobody preprocessed, or an unknown layer.
    """
    checks.choice("variant", variant, VARIANTS)
    if layers:
        checks.choices("layers", layers, net.layers)
    chosen, found, shape = tuple(layers), Moments(), ()
    for batch in batches:
        if not len(batch):
            continue
        images = np.asarray(checks.images(np.asarray(batch)), np.float32)
        shape = shape or images.shape
        if images.shape[1:] != shape[1:] or len(images) > shape[0]:
            got = f"{list(images.shape)} after {list(shape)}"
            raise ValueError(f"batches must be of one size, none larger than the first; got {got}")
        if not found.count:  # the first batch tells the layer of all
            chosen = chosen or (bottleneck_layer(net, images[0], layer),)
        filled = np.zeros(shape, np.float32)  # one shape, so one compile
        filled[: len(images)] = images
        real = np.arange(len(filled)) < len(images)
        found = found.joined(jax.device_get(_program(net, filled, real, chosen)))
    if found.count < 2:
        raise ValueError(f"iba_statistics needs at least 2 images; got {found.count}")
    stats = tuple(found.statistics(name, variant) for name in chosen)
    return stats if layers else stats[0]


@dataclasses.dataclass(frozen=True)
class Moments:
    """What is known of layers after some images.

    Attributes:
      count: how many images.
      layers: {layer: (mean, sum of squared deviations, number of non-zeros, smallest value)}, of each cell, float64 and int64.
    """

    count: int = 0
    layers: dict = dataclasses.field(default_factory=dict)

    def joined(self, batch: tuple) -> "Moments":
        """With those of a batch, which `moments` gave."""
        count, layers = int(batch[0]), {}
        for name, (mean, spread, live, least) in batch[1].items():
            # Joined in float64, so that the number of batches does not matter.
            new = (count, np.float64(mean), np.float64(spread))
            before = self.layers.get(name, (0.0, 0.0, 0, np.inf))
            _, *both = chunks.merge_moments((self.count, *before[:2]), new)
            layers[name] = (*both, before[2] + live.astype(np.int64), np.minimum(before[3], least))
        return Moments(self.count + count, layers)

    def statistics(self, layer: str, variant: str) -> Statistics:
        """(mean, std, active) of a layer; see `iba_statistics`."""
        mean, spread, nonzero, least = self.layers[layer]
        if variant == "library":
            # A cell that is almost always zero has hardly a deviation to draw noise with: the library shuts it.
            active = nonzero > MIN_ACTIVE * self.count
            stats = mean, np.sqrt(spread / (self.count - 1)), active
        elif least.min() >= 0:
            # After a ReLU most values are zeros, which the paper's estimator leaves out.
            squares = spread + self.count * mean**2
            std = np.sqrt(np.maximum(squares, 1e-5) / np.maximum(nonzero, 1))
            stats = np.zeros_like(mean), std, np.ones_like(mean)
        else:
            std = np.sqrt(np.maximum(spread, 1e-5) / self.count)
            stats = mean, std, np.ones_like(mean)
        return tuple(np.float32(s) for s in stats)


def moments(
    net: Net, images: Images, real: Bool[AnyArray, " B"], layers: tuple[str, ...], axis: str = ""
) -> tuple:
    """(number of real images, {layer: what `Moments` holds}) of a batch.

    Args:
      net: the network.
      images: [B,h,w,C].
      real: which of them count.
      layers: of the network.
      axis: of devices that hold the batch together; "": there is none.
    """

    def over(values: Any, op: str = "psum"):
        return getattr(jax.lax, op)(values, axis) if axis else values

    count, found = over(real.sum()), {}
    for name, features in net.capture(images, layers).items():
        features = net.maps(name, features)
        where = real.reshape(-1, *[1] * (features.ndim - 1))
        # Two passes within a batch: the square of a mean less the mean of squares would lose its digits.
        mean = over(jnp.sum(features, 0, where=where)) / jnp.maximum(count, 1)
        spread = over(jnp.sum(jnp.square(features - mean), 0, where=where))
        live = over(jnp.sum(features != 0, 0, where=where))
        least = over(jnp.min(features, 0, where=where, initial=jnp.inf), "pmin")
        found[name] = (mean, spread, live, least)
    return count, found


_program = jax.jit(functools.partial(moments), static_argnums=3)
