"""The published generator: networks that draw what the links are given, pixel by pixel (RenderGAN, after its code).

    noise -> how the marker lies -> its picture
    noise, pose -> front -> light -> middle -> blur, ground -> detail, which sees the picture so far

Lengths of the layout are those of 64 pixels, with one enlargement fewer for each halving. The code's dropout between the dense
layers of the pose is left out; heads begin where the links change little, without which the bits are hidden for some 150 steps.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core.types import Count, Features
from mixaug_jax.data.markers import tag_renderer, tags
from mixaug_jax.models.convolution import conv
from mixaug_jax.models.layers import conv_init
from mixaug_jax.papers.rendergan import chain
from mixaug_jax.papers.rendergan.few import POSE, Norm

SIZES = (16, 32, 64, 128)
_FEWEST = 4  # nodes a side, of the front's first map
_POSES = 10  # numbers that set how a marker lies: a direction as two, and those of `tags.Labels`
_NARROW = 0.25  # scale of their norm at the start
_HEAD = nn.initializers.normal(0.02)
_GROUND, _SHARE = -0.5, 0.25  # where the heads of the ground and of the blur begin


def check(size: Count) -> None:
    """Raises ValueError for a side of pictures that the layout cannot make."""
    if size not in SIZES:
        listed = ", ".join(map(str, SIZES))
        raise ValueError(
            f"markers.generator='maps' makes pictures of {listed} pixels; data.size is {size}"
        )


def up(x: Features) -> Features:
    """Twice as many rows and columns, each pixel as four."""
    return x.repeat(2, 1).repeat(2, 2)


def pooled(x: Features, times: Count = 1) -> Features:
    """Half as many rows and columns, `times` times, by the mean."""
    for _ in range(times):
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
    return x


class Maps(nn.Module):
    """Pictures from noise by networks of maps; the same interface as `few.Few`.

    Attributes:
      size: side of the picture, pixels, of `SIZES`.
      spin: markers are turned by so much at most, radians.
      filters: n of the layout; 64 as published.
      axis_name: as in `few.Norm`.
    """

    size: int
    spin: float
    filters: int
    axis_name: str = ""

    @nn.compact
    def made(self, latents: Mapping, kept: Any = None):
        """Labels, rendered tags, the pictures after each link, and penalties; `kept` as in `chain.through`."""
        given, pose_penalty = self._pose(latents["pose"])
        labels = self._labels(latents["bits"], given)
        made = tag_renderer.render(labels, self.size)
        # What is rendered, and how it lies, is seen; it is learned through the renderer only.
        seen = jax.tree.map(lambda v: jax.lax.stop_gradient(v)[..., None], made)
        noise = jnp.concatenate([latents["links"], jax.lax.stop_gradient(given)], -1)
        parameters, drawn = self._links(noise, seen)
        parameters["detail"] = lambda x: {"fine": self._detail(x, seen, drawn)}
        pictures, penalties = chain.through(chain.CHAIN, made, parameters, kept)
        return labels, made, pictures, penalties | {"labels": pose_penalty}

    def _pose(self, noise):
        """[B,10] in -1..1, and the penalty on what was beyond."""
        x = noise
        for k in (1, 2):
            x = nn.Dense(4 * self.filters, use_bias=False, name=f"pose{k}")(x)
            x = nn.relu(Norm(self.axis_name, name=f"pose_norm{k}")(x))
        x = nn.Dense(_POSES, name="pose_head")(x)
        return chain.bounded(_NARROW * Norm(self.axis_name, name="pose_norm")(x), -1, 1)

    def _labels(self, bits, given):
        """Each of its range; a whole turn has no end, so its direction comes from two numbers."""
        scale = self.size / tags.SIDE
        turn = given[:, 0] if self.spin < math.pi else jnp.arctan2(given[:, 1], given[:, 0]) / math.pi  # fmt: skip
        found = {"zrot": self.spin * turn}
        ranges = {
            # Middle and half width of each range: the last layer gives -1..1.
            "yrot": (0, math.radians(60)),
            "xrot": (0, math.radians(60)),
            "center": (0, 4 * scale),
            "radius": (24 * scale, 2 * scale),
            "inner": (0.45, 0.03),
            "bulge": (0.6, 0.2),
            "focal": (3.0, 1.0),
        }
        at = 2
        for name, (middle, half) in ranges.items():
            value = middle + half * given[:, at : at + POSE[name]]
            found[name], at = (value if name == "center" else value[:, 0]), at + POSE[name]
        return tags.Labels(bits, **found)

    def _links(self, noise, seen):
        """The parameters of blur, lighting and background, and maps that the detail sees, all of the picture's side."""
        n, half, quarter = self.filters, pooled(seen.tag), pooled(seen.depth, 2)
        front = self._front(noise)
        lights = self._lights(front, seen.depth)
        middle = jnp.concatenate([front, quarter, pooled(lights), pooled(half)], -1)
        middle = self._convs("middle", up(middle), (2 * n,) * 3)
        # Heads begin near what leaves pictures as they are; random ones would hide the bits.
        share = self._head("blur", middle, 1).mean((1, 2, 3)) + _SHARE
        back = self._convs("back", up(jnp.concatenate([middle, half], -1)), (n, n))
        ground = self._head("ground", back, 1) + _GROUND
        lights = up(lights)
        parameters = {
            "blur": {"share": share},
            "lighting": {
                "black": 1 + lights[..., 0],
                "white": 1 + lights[..., 1],
                "shift": lights[..., 2],
            },
            "background": {"ground": ground[..., 0]},
        }
        return parameters, jnp.concatenate([ground, back, lights], -1)

    def _front(self, noise):
        """[B,S/4,S/4,2n], or 8n where nothing is enlarged."""
        x = nn.Dense(_FEWEST**2 * 8 * self.filters, use_bias=False, name="front")(noise)
        x = nn.relu(Norm(self.axis_name, name="front_norm")(x))
        x = x.reshape(len(x), _FEWEST, _FEWEST, -1)
        ups = int(math.log2(self.size / 4 / _FEWEST))
        for k in range(ups):
            filters = self.filters * (2 if k == ups - 1 else 4)
            x = self._convs(f"front{k}", up(x), (filters,) * 2)
        return x

    def _lights(self, front, depth):
        """[B,S/2,S/2,3]: what is added to the scales of black and white, and to both."""
        n = self.filters
        seen = self._convs("depth", pooled(depth, 2), (max(n // 2, 1),) * 2)
        x = self._convs("light", jnp.concatenate([front, seen], -1), (n,))
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, n).max((2, 4))
        x = up(self._convs("light_coarse", x, (n, n)))
        x = up(self._convs("light_middle", x, (n,)))
        return self._head("lights", self._convs("light_fine", x, (n,)), 3, size=1)

    def _detail(self, x, seen, drawn):
        beside = 1 - seen.cover
        x = jnp.concatenate([x[..., None], beside, seen.tag, drawn], -1)
        return self._head("detail", self._convs("detail", x, (self.filters,) * 3), 1)[..., 0]

    def _convs(self, name, x, filters):
        """Convolutions of 3 x 3 pixels, each normalized and rectified."""
        for k, count in enumerate(filters):
            kernel = self.param(f"{name}_conv{k}", conv_init, (3, 3, x.shape[-1], count))
            x = nn.relu(Norm(self.axis_name, name=f"{name}_norm{k}")(conv(x, kernel, 1, 1)))
        return x

    def _head(self, name, x, count, size=3):
        """A convolution that begins near 0."""
        kernel = self.param(f"{name}_head", _HEAD, (size, size, x.shape[-1], count))
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (count,))
        return conv(x, kernel, 1, size // 2) + bias
