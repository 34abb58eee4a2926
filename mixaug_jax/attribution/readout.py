"""The readout bottleneck (Schulz et al. 2020, arXiv 2001.00396): a small network reads several layers and says, for any image,
how much of the first of them noise may replace."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import resampling
from mixaug_jax.attribution.bottleneck import LIMITS, MIN_STD, START, VARIANTS, information, masks
from mixaug_jax.attribution.target import map_shapes, nan_like
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    Array,
    Attribution,
    Features,
    Image,
    Key,
    Label,
    Net,
)

# Of the second convolution's units, as a function of the bottleneck's channels: the table of the paper's code was made with the
# first, its notebook and the library have the other ("some models were trained with it by mistake").
HIDDEN = {
    "quarter": lambda channels: max(1, channels // 4),
    "double": lambda channels: 2 * channels,
}
CLAMPS = ("published", "auto", "always", "never")
BOUND = 5.0  # of alpha, to both sides
READ = 4  # layers with a map, by default
SHUT = 0.02  # of lambda's mean: below it hardly anything passes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Readout:
    """A trained readout bottleneck.

    Attributes:
      params: of `ReadoutNet`.
      stats: (mean, std, active) of each layer, from `iba_statistics`.
      layers: that are read; noise goes into the first.
      variant: "paper" or "library", see `iba_readout`.
      sigma: of the Gaussian that smooths lambda, in cells; 0 is none.
      weights: the checksum of the network's variables that it was trained for; 0 fits any.
    """

    params: Any
    stats: tuple
    layers: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    variant: str = dataclasses.field(default="paper", metadata={"static": True})
    sigma: float = dataclasses.field(default=0.0, metadata={"static": True})
    weights: int = dataclasses.field(default=0, metadata={"static": True})


class ReadoutNet(nn.Module):
    """Three 1x1 convolutions with ReLUs between them, from the outputs of several layers to the logits of a mask.

    The first one is applied to each layer at that layer's own size, and what it gives is resized: both are linear, and the
    products are many times fewer.

    Attributes:
      hidden: units of the first and of the second convolution.
      channels: of the bottleneck's layer.
    """

    hidden: tuple[int, int]
    channels: int

    @nn.compact
    def __call__(self, maps: Sequence[Features]) -> Features:
        """Standardized outputs of layers, [B,h,w,C] (the first one's size is the mask's) or [B,K] -> alpha [B,h,w,channels]."""
        first, second = self.hidden
        total = sum(m.shape[-1] for m in maps)
        kernel, bias = _Pointwise((total, first), name="conv1")()
        size, start, x = maps[0].shape[1:3], 0, bias
        # Convolved at each map's own size and then enlarged, which is the same and far less work: both are linear.
        for one in maps:
            part = one @ kernel[start : start + one.shape[-1]]
            start += one.shape[-1]
            x = x + (part[:, None, None] if part.ndim == 2 else resized(part, size))
        for name, units in (("conv2", second), ("conv3", self.channels)):
            kernel, bias = _Pointwise((x.shape[-1], units), name == "conv3", name=name)()
            x = nn.relu(x) @ kernel + bias
        return x


class _Pointwise(nn.Module):
    """The kernel [in,out] and bias [out] of a 1x1 convolution, as torch draws them; of the last one as the paper's code scales
    them, so that at first nearly everything passes."""

    shape: tuple[int, int]
    last: bool = False

    @nn.compact
    def __call__(self):
        limit = 1 / math.sqrt(self.shape[0])

        def uniform(scale: float):
            return lambda key, shape: (
                scale * jax.random.uniform(key, shape, minval=-limit, maxval=limit)
            )

        kernel = self.param("kernel", uniform(1e-3 if self.last else 1.0), self.shape)
        bias = nn.initializers.constant(START) if self.last else uniform(1.0)
        return kernel, self.param("bias", bias, self.shape[1:])


def resized(maps: Features, size: Sequence[int]) -> Features:
    """Maps [B,h,w,C] at another size, bilinearly with aligned corners; of that size already, they stay to the bit."""
    if maps.shape[1:3] == tuple(size):
        return maps
    return jax.vmap(lambda m: resampling.enlarge(m, size, "aligned"))(maps)


def _captured(net, x):  # not within `readout_layers`, so that JAX knows it again and traces once
    return net.capture(x, net.layers)


def readout_layers(net: Net, image: Any, layers: Sequence[str] = ()) -> tuple[str, ...]:
    """The layers that are read: the deepest of each of the four smallest sizes of map, and the network's last.

    So they are layer1 to layer4 and fc of a ResNet, as in the paper. The network's first layer is left out where others follow:
    noise that early leaves nothing to choose. Where there are fewer sizes, the deepest other layers after the first that is
    read come besides. The last layer gives the logits, but where a wrapped network computes them outside of its submodules.

    Args:
      net, image: an image [h,w,C] as the network sees it, or its shape.
      layers: others in their place; noise goes into the first of them.

    Raises:
      ValueError: an unknown layer, a first one without a map, or one that comes before it.
    """
    shapes = map_shapes(net, image)
    found = jax.eval_shape(_captured, net, jax.ShapeDtypeStruct((1, *image.shape), jnp.float32))
    tokens = [name for name in shapes if found[name].ndim != 4]
    if tokens:
        raise checks.UnsupportedError(
            f"a readout bottleneck reads maps [h,w,K]; {net.name} gives tokens at {tokens[0]}"
        )
    if not layers:
        # Later layers of one size take the place of earlier ones.
        deepest = list({shape[:2]: name for name, shape in shapes.items()}.values())
        if len(deepest) > 1 and deepest[0] == net.layers[0]:
            del deepest[0]
        read, order = deepest[-READ:], list(shapes)
        others = [name for name in order[order.index(read[0]) :] if name not in read]
        read += others[::-1][: READ - len(read)]
        # A last layer with a map is read once.
        return tuple(dict.fromkeys((*sorted(read, key=order.index), net.layers[-1])))
    checks.choices("layers", layers, net.layers)
    checks.choice("the first of layers", layers[0], shapes)
    order = [net.layers.index(name) for name in layers]
    # Noise goes into the first one; a layer before it would be read without any.
    if min(order) < order[0] or len(set(layers)) < len(layers):
        raise ValueError(
            f"layers must be different, the first one being the first of the network; got {', '.join(layers)}"
        )
    return tuple(layers)


def init(key: Key[Array, ""], net: Net, image: Any, layers: Sequence[str], hidden: str) -> Any:
    """The published start of `ReadoutNet`'s parameters, with which about half of all alphas exceed the bound.

    Args:
      key: decides them.
      net, image: as in `readout_layers`.
      layers: that are read.
      hidden: "quarter" or "double", the units of the second convolution by the bottleneck's channels.
    """
    checks.choice("hidden", hidden, HIDDEN)
    shape = jax.ShapeDtypeStruct((1, *image.shape), jnp.float32)
    found = jax.eval_shape(lambda net, x: net.capture(x, layers), net, shape)
    total, channels = sum(found[n].shape[-1] for n in layers), found[layers[0]].shape[-1]
    model = ReadoutNet((max(1, total // 2), HIDDEN[hidden](channels)), channels)
    maps = [jnp.zeros(found[name].shape) for name in layers]
    return model.init(key, maps)["params"]


def blank(net: Net, image: Any, layers: Sequence[str] = (), hidden: str = "quarter") -> Readout:
    """A readout of zeros, as large as one that is trained: for traces, which need shapes alone."""
    layers = readout_layers(net, image, layers)
    shapes = jax.eval_shape(lambda key: init(key, net, image, layers, hidden), jax.random.key(0))
    params = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    batch = jax.ShapeDtypeStruct((1, *image.shape), jnp.float32)
    found = jax.eval_shape(lambda net, x: net.capture(x, layers), net, batch)
    stats = tuple((np.zeros(found[name].shape[1:], np.float32),) * 3 for name in layers)
    return Readout(params, stats, layers)


def standardized(features: dict, readout: Readout) -> list[Features]:
    """What the readout network sees of each layer {layer: [B,...]}: its output by the deviation, in "library" less the mean."""
    maps = []
    for name, (mean, std, _) in zip(readout.layers, readout.stats, strict=True):
        # Without the floor cells that never change would be 0 / 0, and with them the loss.
        plain = readout.variant == "paper"
        maps.append(features[name] / std if plain else (features[name] - mean) / _floored(std))
    return maps


def _floored(std):
    return jnp.maximum(std, MIN_STD)


def alphas(readout: Readout, maps: Sequence[Features]) -> Features:
    """The logits of the mask lambda [B,h,w,C], before they are bounded."""
    params = readout.params
    units = tuple(params[name]["bias"].shape[0] for name in ("conv1", "conv2", "conv3"))
    return ReadoutNet(units[:2], units[2]).apply({"params": params}, maps)


def capacities(readout: Readout, features: dict, alpha: Features) -> dict[str, Features]:
    """lambda, 1 - lambda and the capacity in nats, each [B,h,w,C], of {layer: its output} and alpha.

    The network's output depends on neither noise nor class here.
    """
    mean, std, active = readout.stats[0]
    paper = readout.variant == "paper"
    std = std if paper else _floored(std)
    # The paper's code has as many taps as four deviations are long.
    taps = 2 * int(2 * readout.sigma) + 1 if paper else 0
    bounded = jnp.clip(alpha, -BOUND, BOUND)
    lam, rest = jax.vmap(lambda a: masks(a, readout.sigma, taps))(bounded)
    signal = (features[readout.layers[0]] - mean) / std
    cells = jax.vmap(information)(signal, lam, rest) * active
    return {"lam": lam, "rest": rest, "signal": signal, "capacity": cells}


def noisy(
    readout: Readout, found: dict, noise: Features, features: Features, clamp: str = "published"
) -> Features:
    """The bottleneck's output [B,h,w,C], with noise where lambda is small.

    Args:
      readout: the readout.
      found: of `capacities`.
      noise: standard normal [B,h,w,C].
      features: what the layer gives without noise, [B,h,w,C].
      clamp: whether negative values become 0: "always" (the library's code, whatever is asked for), "never" (the paper's),
        "published" (as the variant's code), or "auto" (where no value of the layer is negative, so after a ReLU).
    """
    checks.choice("clamp", clamp, CLAMPS)
    mean, std, active = readout.stats[0]
    paper = readout.variant == "paper"
    std = std if paper else _floored(std)
    rest = jnp.clip(found["rest"], *LIMITS) if paper else found["rest"]
    z = ((found["lam"] * found["signal"] + rest * noise) * std + mean) * active
    if clamp == "published":
        clamp = "never" if paper else "always"
    clamped = {"always": True, "never": False, "auto": (features >= 0).all()}[clamp]
    return jnp.where(clamped, jnp.maximum(z, 0), z)


def iba_readout(
    net: Net, image: Image, label: Label, *, readout: Readout | tuple = ()
) -> Attribution:
    """The readout bottleneck's capacity in bits per pixel, not negative, [h,w,1] (Schulz et al. 2020, arXiv 2001.00396).

    A small network, trained once for all images, reads several layers and says where noise may replace the first of them. One
    forward pass gives the map; it knows no label: the map is the same for every class.

    Args:
      net, image: see `mixaug_jax.attribution`.
      label: is not looked at.
      readout: from `train_readout`, for this network; required. Its `variant` is that of the code: "paper" standardizes by the
        deviation alone and enlarges as OpenCV (and then scales maps to 0..1, which this does not); "library" takes the mean off
        and enlarges as scikit-image.

    Raises:
      ValueError: without a readout, or with one of another network.
    """
    image = checks.image(image)
    readout = checked(net, image, readout)
    features = net.capture(image[None], readout.layers)
    alpha = alphas(readout, standardized(features, readout))
    cells = capacities(readout, features, alpha)["capacity"][0]
    # A cell's bits are spread over its pixels, so that the map still sums to the information.
    count, pixels = math.prod(cells.shape[:2]), math.prod(image.shape[:2])
    bits = jnp.maximum(cells.sum(-1, keepdims=True), 0) / math.log(2) * (count / pixels)
    bits = nan_like(sum(f.sum() for f in features.values()), bits)  # which a ReLU loses
    border = "mirror" if readout.variant == "library" else "bilinear"
    return resampling.enlarge(bits, image.shape[:2], border)


def checked(net: Net, image: Image, readout: Any) -> Readout:
    """The readout; ValueError in one sentence for none, or for one whose layers or shapes are not this network's."""
    if not isinstance(readout, Readout):
        raise ValueError(
            "iba_readout needs readout=, from attribution.train_readout for this network"
        )
    checks.choice("variant", readout.variant, VARIANTS)
    layers = readout_layers(net, image, readout.layers)
    shape = jax.ShapeDtypeStruct((1, *image.shape), jnp.float32)
    found = jax.eval_shape(lambda net, x: net.capture(x, layers), net, shape)
    wanted = [found[name].shape[1:] for name in layers]
    given = [tuple(jnp.shape(mean)) for mean, _, _ in readout.stats]
    if wanted != given:
        raise ValueError(
            f"readout is of another network: its layers have the shapes {given}, those of {net.name} {wanted}"
        )
    return readout


def check_weights(readout: Readout, weights: int) -> None:
    """Raises ValueError where a readout was trained for other weights than those with this checksum."""
    if readout.weights and readout.weights != weights:
        raise ValueError(
            "readout was trained for other weights of this network; train one for these (attribution.train_readout)"
        )
