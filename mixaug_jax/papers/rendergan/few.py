"""The small generator: a few dozen numbers a picture, from which maps are made, in place of networks that draw the maps.

Its links are those of the chain, so labels are safe by construction, and what it has learned can be read as a table. One more
thing differs from the published generator: its blur chooses among Gaussians.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core.types import Array, Count, Float, RandomKey
from mixaug_jax.data.markers import tag_renderer, tags
from mixaug_jax.models.layers import batch_statistics
from mixaug_jax.papers.rendergan import chain

_LATENTS = 50  # of the labels, and of the links
_WIDTH = 128
_SLOPE = 0.2
_NODES = 4  # a side of the grids of light
_OCTAVES = (2, 4, 8, 16, 32)
_BLURS = (0.0, 1.2, 2.2, 3.6)  # at 64 pixels
_LIGHTS = ("black", "white", "shift")
# Numbers of each picture, by what they set.
HEADS = {
    "blur": len(_BLURS),
    **{name: _NODES**2 for name in _LIGHTS},
    "level": 1,
    "strength": 1,
    "octaves": len(_OCTAVES),
    "noise": 2,
}
POSE = {"zrot": 1, "yrot": 1, "xrot": 1, "center": 2, "radius": 1, "inner": 1, "bulge": 1, "focal": 1}  # fmt: skip


def choice_of_blurs(
    x: chain.Pictures, parameters: Mapping, tags: Any
) -> tuple[chain.Pictures, Float[Array, ""]]:
    """Takes away what is fine by a mixture of Gaussians, the same for all of a picture's pixels.

    Args:
      x: [B,S,S].
      parameters: {"weights": [B,4], rows summing to 1}.
      tags: not used.
    """
    weights = parameters["weights"][:, :, None, None]
    return sum(weights[:, k] * chain.smooth(x, w) for k, w in enumerate(_BLURS)), jnp.zeros(())


LINKS = chain.CHAIN | {"blur": choice_of_blurs}


class Norm(nn.Module):
    """Batch norm by the batch's own statistics, in training and in sampling (the code's mode); x [...,C].

    Attributes:
      axis_name: the mapped axis over whose devices the batch lies; "": one device's batch.
    """

    axis_name: str

    @nn.compact
    def __call__(self, x: jax.Array):
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean, var, _ = batch_statistics(x, self.axis_name)
        return (x - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + bias


class Few(nn.Module):
    """Numbers from noise: two networks of two hidden layers, one for the labels and one for the links.

    Attributes:
      size: side of the picture, pixels.
      spin: markers are turned by so much at most, radians.
      axis_name: as in `Norm`.
    """

    size: int
    spin: float
    axis_name: str = ""

    @nn.compact
    def __call__(self, latents: Mapping):
        """From what `draw` gives: the labels, and the parameters of each link."""
        pose = self._network("pose", latents["pose"], POSE)
        labels = self._labels(latents["bits"], pose)
        # What the links do may depend on how a marker lies; how it lies is learned through the renderer only.
        seen = jax.lax.stop_gradient(jnp.concatenate([jnp.tanh(pose[name]) for name in POSE], -1))
        heads = self._network("links", jnp.concatenate([latents["links"], seen], -1), HEADS)
        return labels, self._parameters(heads, latents)

    def made(self, latents: Mapping, kept: Any = None):
        """Labels, rendered tags, the pictures [B,S,S] after each link, and penalties; `kept` as in `chain.through`."""
        labels, parameters = self(latents)
        made = tag_renderer.render(labels, self.size)
        return labels, made, *chain.through(LINKS, made, parameters, kept)

    def _network(self, name, x, heads):
        for k in (1, 2):
            x = nn.Dense(_WIDTH, use_bias=False, name=f"{name}{k}")(x)
            x = nn.leaky_relu(Norm(self.axis_name, name=f"{name}_norm{k}")(x), _SLOPE)
        init = nn.initializers.normal(0.05)
        return {n: nn.Dense(c, kernel_init=init, name=f"{name}_{n}")(x) for n, c in heads.items()}

    def _labels(self, bits, heads):
        """Each of its range around its middle; see `tags.draw`."""
        scale = self.size / tags.SIDE
        ranges = {
            "zrot": (0, self.spin),
            "yrot": (0, math.radians(60)),
            "xrot": (0, math.radians(60)),
            "center": (0, 4 * scale),
            "radius": (24 * scale, 2 * scale),
            "inner": (0.45, 0.03),
            "bulge": (0.6, 0.2),
            "focal": (3.0, 1.0),
        }
        found = {n: middle + half * jnp.tanh(heads[n]) for n, (middle, half) in ranges.items()}
        return tags.Labels(bits, **{n: v if n == "center" else v[:, 0] for n, v in found.items()})

    def _parameters(self, heads, latents):
        grids = {n: heads[n].reshape(-1, _NODES, _NODES) for n in _LIGHTS}
        light = {n: jax.nn.sigmoid(grids[n]) for n in ("black", "white")}
        light["shift"] = jnp.tanh(grids["shift"] - 0.3)
        ground = (latents["octaves"] * jax.nn.softmax(heads["octaves"])[:, :, None, None]).sum(1)
        # Shifts in these heads let a new generator begin with little of everything, so that bits are seen at once.
        strength = 2 * jax.nn.softplus(heads["strength"] - 1.5)[:, :, None]
        loud = jax.nn.softplus(heads["noise"] - 3.5)[:, :, None, None]
        return {
            "blur": {"weights": jax.nn.softmax(heads["blur"])},
            "lighting": {n: self._enlarged(v, "cubic") for n, v in light.items()},
            "background": {
                "ground": jnp.tanh(heads["level"] - 0.6)[:, :, None] + strength * ground
            },
            "detail": {"fine": loud[:, 0] * latents["full"] + loud[:, 1] * latents["half"]},
        }

    def _enlarged(self, grid, method):
        return jax.image.resize(grid, (len(grid), self.size, self.size), method)


def draw(keys: Any, size: Count) -> dict[str, Array]:
    """What a generator makes pictures of: a picture's noise follows from its own key, however many are made at once.

    Args:
      keys: [B] random keys.
      size: side of the picture, pixels.

    Returns:
      bits [B,12]; pose and links [B,50] in -1..1; octaves [B,5,S,S] in -0.5..0.5; full and half [B,S,S], normal.
    """
    return jax.vmap(lambda key: _drawn(key, size))(keys)


def _drawn(key: RandomKey, size: int):
    keys = jax.random.split(key, 5 + len(_OCTAVES))
    shape = (size, size)
    octaves = [
        jax.image.resize(jax.random.uniform(k, (n, n), minval=-0.5, maxval=0.5), shape, "linear")
        for k, n in zip(keys[5:], _OCTAVES, strict=True)
    ]
    half = jax.random.normal(keys[4], (-(-size // 2),) * 2)
    return {
        "bits": jax.random.bernoulli(keys[0], 0.5, (tags.BITS,)).astype(jnp.float32),
        "pose": jax.random.uniform(keys[1], (_LATENTS,), minval=-1, maxval=1),
        "links": jax.random.uniform(keys[2], (_LATENTS,), minval=-1, maxval=1),
        "octaves": jnp.stack(octaves),
        "full": jax.random.normal(keys[3], shape),
        "half": jax.image.resize(half, shape, "linear"),
    }
