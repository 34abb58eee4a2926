"""A normalizing flow on small images: an invertible map to latents that are normal under the images' distribution.

Glow's steps (Kingma and Dhariwal 2018, arXiv 1807.03039) with the scale of Sixt et al. 2022 (arXiv 2204.11642): actnorm, a 1x1
convolution by its PLU factors, and an affine coupling; between levels space goes to channels and, from the second level on,
half of the channels leave. Their network has 7 levels of 32 steps on 128 pixels; ours 3 of 8 on 32.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.scipy.linalg

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Count, Float, Outputs, RandomKey, UInt8
from mixaug_jax.models.convolution import conv

WIDTHS = (32, 64, 96)
STEPS = 8
Batch = Float[AnyArray, "B S S C"]
Latents = Float[Array, "B D"]
_VALUES = 256  # of a stored channel


class Step(nn.Module):
    """Actnorm, a 1x1 convolution, an affine coupling, or their inverse.

    The actnorm makes the first batch, that of `init`, have mean 0 and deviation 1 in each channel; the coupling begins as the
    identity.

    Attributes:
      width: hidden channels of the coupling.
    """

    width: int

    @nn.compact
    def __call__(self, x: Batch, inverse: bool = False) -> tuple[Batch, Outputs]:
        """[B,H,W,C], C even -> the same shape, and the logarithm of the determinant of the step (not of its inverse), [B]."""
        channels = x.shape[-1]
        # Set from the first batch, so that every step starts with mean 0 and deviation 1.
        bias = self.param("bias", lambda _: -x.mean((0, 1, 2)))
        log_scale = self.param("log_scale", lambda _: -jnp.log(x.std((0, 1, 2)) + 1e-3))
        lower, upper, order = self._factors(channels)

        def coupled(half: Any):
            h = nn.relu(_Conv(self.width, 3, name="first")(half))
            h = nn.relu(_Conv(self.width, 1, name="second")(h))
            # It starts as zeros: each coupling changes nothing at first.
            last = _Conv(channels, 3, nn.initializers.zeros, name="last")(h)
            shift, scale = jnp.split(last, 2, -1)
            return shift, nn.sigmoid(scale) + 0.5

        if inverse:
            kept, moved = jnp.split(x, 2, -1)
            shift, scale = coupled(kept)
            x = jnp.concatenate([kept, moved / scale - shift], -1)
            flat = x.reshape(-1, channels).T
            # Two triangular systems are solved; no inverse is formed.
            flat = jax.scipy.linalg.solve_triangular(lower, order.T @ flat, lower=True)
            flat = jax.scipy.linalg.solve_triangular(upper, flat)
            x = flat.T.reshape(x.shape) * jnp.exp(-log_scale) - bias
        else:
            x = (x + bias) * jnp.exp(log_scale)
            x = x @ (order @ lower @ upper).T
            kept, moved = jnp.split(x, 2, -1)
            shift, scale = coupled(kept)
            x = jnp.concatenate([kept, (moved + shift) * scale], -1)
        # Each pixel is multiplied alike by scale and matrix; only the coupling differs from place to place.
        of_pixel = log_scale.sum() + jnp.log(jnp.abs(jnp.diag(upper))).sum()
        return x, x.shape[1] * x.shape[2] * of_pixel + jnp.log(scale).sum((1, 2, 3))

    def _factors(self, channels):
        """The triangular factors of the 1x1 convolution and the order of its rows, at first a random rotation."""

        def rotation():
            drawn = jax.random.normal(self.make_rng("params"), (channels, channels))
            return jax.scipy.linalg.lu(jnp.linalg.qr(drawn)[0])

        order, lower, upper = self.variable("fixed", "rotation", rotation).value
        zeros = nn.initializers.zeros
        lower = lower + jnp.tril(self.param("lower", zeros, lower.shape), -1)
        size = jnp.diag(upper) * jnp.exp(self.param("log_size", zeros, (channels,)))
        above = jnp.triu(upper + self.param("upper", zeros, upper.shape), 1)
        return lower, above + jnp.diag(size), order


class _Conv(nn.Module):
    """`nn.Conv`, its names included, with gradients that are fast on CPU within `scan`, which the steps of a level are."""

    features: int
    size: int
    start: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B h w C"]) -> Float[Array, "B h w F"]:
        shape = self.size, self.size, x.shape[-1], self.features
        kernel = self.param("kernel", self.start, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv(x, kernel, 1, self.size // 2) + bias


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Flow:
    """A flow as a value; a pytree whose leaves are the variables.

    Attributes:
      levels: of each level the variables of its steps, stacked [steps, ...].
      side: of its images, pixels.
      widths: of the couplings, one a level.
    """

    levels: tuple[Any, ...]
    side: int = dataclasses.field(metadata={"static": True})
    widths: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def last(self) -> int:
        """How many latents, the last ones, are of the last level."""
        count = len(self.widths)
        return 3 * 4**count * (self.side >> count) ** 2 >> max(0, count - 2)


@functools.partial(jax.jit, static_argnames=("widths", "steps"))
def init(
    key: RandomKey, images: Batch, widths: tuple[int, ...] = WIDTHS, steps: Count = STEPS
) -> Flow:
    """A flow before its training.

    Args:
      key: decides the rotations and the couplings.
      images: a first batch, [B,S,S,3] as `spread_values` gives, whose statistics the actnorms take.
      widths: hidden channels of the couplings, one a level.
      steps: of each level.

    Raises:
      ValueError: a side that cannot be halved so often.
    """
    side = images.shape[1]
    check_levels(side, len(widths))
    levels, x = [], jnp.asarray(images)
    for number, width in enumerate(widths):
        keys = jax.random.split(jax.random.fold_in(key, number), steps)
        x, variables = jax.lax.scan(_first(Step(width)), _squeezed(x), keys)
        levels.append(variables)
        x = _left(x, number, len(widths))[0]
    return Flow(tuple(levels), side, tuple(widths))


def encode(flow: Flow, images: Batch) -> tuple[Latents, Outputs]:
    """Images [B,S,S,3] -> latents [B,D], those of the last level last, and the logarithm of the determinant, [B]."""
    x, left, total = jnp.asarray(images), [], jnp.zeros(len(images))
    for number, (variables, width) in enumerate(zip(flow.levels, flow.widths, strict=True)):
        (x, total), _ = jax.lax.scan(_forward(Step(width)), (_squeezed(x), total), variables)
        x, gone = _left(x, number, len(flow.widths))
        left.append(gone.reshape(len(x), -1))
    return jnp.concatenate([*left, x.reshape(len(x), -1)], 1), total


def decode(flow: Flow, latents: Latents) -> Batch:
    """Latents [B,D] -> images [B,S,S,3]: the inverse of `encode`."""
    shapes = _shapes(flow)
    sizes = [math.prod(gone) for _, gone in shapes]
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    *left, x = jnp.split(latents, ends, 1)
    x = x.reshape(len(latents), *shapes[-1][0])
    for number in reversed(range(len(flow.levels))):
        gone = left[number].reshape(len(latents), *shapes[number][1])
        x = jnp.concatenate([x, gone], -1)
        step = _backward(Step(flow.widths[number]))
        x, _ = jax.lax.scan(step, x, flow.levels[number], reverse=True)
        x = _unsqueezed(x)
    return x


def _first(step):
    def one(x: Any, key: Any):
        variables = step.init(key, x)
        return step.apply(variables, x)[0], variables

    return one


def _forward(step):
    def one(carry: tuple, variables: Any):
        x, total = carry
        x, more = step.apply(variables, x)
        return (x, total + more), ()

    return one


def _backward(step):
    def one(x: Any, variables: Any):
        return step.apply(variables, x, inverse=True)[0], ()

    return one


def _shapes(flow):
    """Of each level what goes on and what leaves, [h,w,C]."""
    found, side, channels = [], flow.side, 3
    for number in range(len(flow.widths)):
        side, channels = side // 2, 4 * channels
        leaves = _leaving(channels, number, len(flow.widths))
        channels -= leaves
        found.append(((side, side, channels), (side, side, leaves)))
    return found


def _leaving(channels, number, count):
    return channels // 2 if 0 < number < count - 1 else 0


def _left(x, number, count):
    leaves = _leaving(x.shape[-1], number, count)
    return x[..., : x.shape[-1] - leaves], x[..., x.shape[-1] - leaves :]


def _squeezed(x):
    """[B,2h,2w,C] -> [B,h,w,4C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def _unsqueezed(x):
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def spread_values(images: UInt8[AnyArray, "B S S C"], key: RandomKey) -> Batch:
    """Stored images as numbers within -.5...5, each value spread evenly over its step of 1/256 (dequantized)."""
    noise = jax.random.uniform(key, images.shape)
    return (jnp.asarray(images, jnp.float32) + noise) / _VALUES - 0.5


def as_numbers(images: UInt8[AnyArray, "B S S C"]) -> Batch:
    """Stored images as numbers, each in the middle of its step."""
    return (jnp.asarray(images, jnp.float32) + 0.5) / _VALUES - 0.5


def as_stored(images: Batch) -> UInt8[Array, "B S S C"]:
    """What a flow gives as stored images, cut to 0..255."""
    return jnp.clip(jnp.floor((images + 0.5) * _VALUES), 0, _VALUES - 1).astype(jnp.uint8)


def bits(flow: Flow, images: Batch) -> Outputs:
    """Bits per dimension of images [B,S,S,C] with spread values, [B]: what a code by the flow takes for a channel."""
    latents, volume = encode(flow, images)
    normal = -0.5 * jnp.square(latents).sum(1) - 0.5 * latents.shape[1] * math.log(2 * math.pi)
    return math.log2(_VALUES) - (normal + volume) / (latents.shape[1] * math.log(2))


def check_side(side: Count, images: Count) -> None:
    """Raises ValueError unless images of `images` pixels a side can be made those of a flow by whole pixels."""
    checks.count("the flow's side", side)
    if images % side:
        raise ValueError(
            f"the images' side, {images} pixels, must be a multiple of the flow's, {side}"
        )


def check_levels(side: Count, levels: Count) -> None:
    """Raises ValueError unless a side can be halved so often."""
    if side % 2**levels:
        raise ValueError(
            f"a flow of {levels} levels needs a side that {2**levels} divides; got {side} pixels"
        )
