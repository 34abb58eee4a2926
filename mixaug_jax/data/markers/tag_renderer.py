"""Draws markers from their labels, with derivatives with respect to each of them.

Every sample of a pixel is followed back to the bent disc (RenderGAN's is a three-dimensional model, and a network that imitates
it, arXiv 1611.01331, section 3.1). Edges are ramps a little wider than a sample, so that a shift of one changes the picture.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import Array, Count, Float, Scalar, UInt8
from mixaug_jax.data.markers.tags import BITS, MIDDLE, Labels

_SAMPLES = 2  # a side of a pixel
_NEWTON = 3
_RAMP = 1.2  # width of an edge, samples
_FARTHEST = 1.2  # radii; the bent surface goes on so far
_STEEPEST = 0.05  # least slope that a step is divided by


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tags:
    """Pictures of B markers, float32.

    Attributes:
      tag: [B,S,S] in -1..1, white is 1; the ground is -1.
      cover: [B,S,S] in 0..1, how much of a pixel the marker covers.
      depth: [B,S,S], how far behind its middle's plane the marker is, in radii; 0 beside it.
    """

    tag: Any
    cover: Any
    depth: Any


def render(labels: Labels, size: Count) -> Tags:
    """Pictures [B,size,size] of the markers that `labels` describes."""
    return jax.vmap(functools.partial(_render, size=size))(labels)


def cells(labels: Labels, size: Count) -> UInt8[Array, "B S S"]:
    """The cell that the middle of each pixel lies in, [B,size,size]: 1 + the number of its bit, 0 outside of all cells."""
    return jax.vmap(functools.partial(_cells, size=size))(labels)


def _cells(label, size):
    x, y, _ = _seen(label, size, 1)
    r = jnp.sqrt(x**2 + y**2 + 1e-12)
    cell = jnp.floor(_turned(x, y, r)).astype(jnp.int32) % BITS
    return jnp.where((r >= label.inner) & (r < MIDDLE), cell + 1, 0).astype(jnp.uint8)


def _seen(label, size, samples):
    """The marker's own x and y, in radii, and the depth at each of samples x samples points of a pixel."""
    # From the picture's middle, in the order of pixels, then of the samples in each.
    at = (np.arange(size * samples, dtype=np.float32) + 0.5) / samples - size / 2
    right = (at[None, :] - label.center[1]) / label.radius
    down = (at[:, None] - label.center[0]) / label.radius
    shape = (size * samples,) * 2
    return _on_disc(label, jnp.broadcast_to(right, shape), jnp.broadcast_to(down, shape))


def _render(label, size):
    x, y, depth = _seen(label, size, _SAMPLES)
    width = _RAMP / _SAMPLES / label.radius
    value, cover = _printed(label, x, y, width)
    pixels = (size, _SAMPLES, size, _SAMPLES)
    value, cover, depth = (
        v.reshape(pixels).mean((1, 3)) for v in (value * cover, cover, depth * cover)
    )
    return Tags(2 * value - 1, cover, depth)


def rotation(zrot: Scalar, yrot: Scalar, xrot: Scalar) -> Float[Array, "3 3"]:
    """The matrix Rz Ry Rx; the axes point right, down, and away from the camera."""
    (cz, sz), (cy, sy), (cx, sx) = ((jnp.cos(a), jnp.sin(a)) for a in (zrot, yrot, xrot))
    one, zero = jnp.ones_like(cz), jnp.zeros_like(cz)
    about_z = jnp.array([[cz, -sz, zero], [sz, cz, zero], [zero, zero, one]])
    about_y = jnp.array([[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    about_x = jnp.array([[one, zero, zero], [zero, cx, -sx], [zero, sx, cx]])
    return about_z @ about_y @ about_x


def _on_disc(label, right, down):
    """The marker's own x and y, in radii, at each sample, and the depth there."""
    matrix = rotation(label.zrot, label.yrot, label.xrot)
    # A row of the matrix's transpose is an axis of the marker: products below stay exact whatever the precision of matmul.
    origin = [-label.focal * matrix[2, k] for k in range(3)]
    slope = [
        matrix[0, k] * right / label.focal + matrix[1, k] * down / label.focal + matrix[2, k]
        for k in range(3)
    ]

    def surface(t: Array):
        x, y = origin[0] + t * slope[0], origin[1] + t * slope[1]
        return x, y, jnp.sqrt(x**2 + y**2 + 1e-12)

    def away(value: Array):
        """`value`, at least a little from 0, on its own side of it."""
        return jnp.where(value < 0, jnp.minimum(value, -_STEEPEST), jnp.maximum(value, _STEEPEST))

    b = label.bulge
    t = -origin[2] / away(slope[2])
    for _ in range(_NEWTON):
        x, y, r = surface(t)
        bent = jnp.minimum(r, _FARTHEST)
        gap = origin[2] + t * slope[2] - jnp.cos(b) + jnp.cos(b * bent)
        turning = jnp.where(r < _FARTHEST, (x * slope[0] + y * slope[1]) / r, 0)
        t = t - gap / away(slope[2] - b * jnp.sin(b * bent) * turning)
    x, y, _ = surface(t)
    return x, y, t - label.focal


def _turned(x, y, r):
    """How far each point is around the marker, in cells, 0..12."""
    return jnp.arctan2(y, x + jnp.where(r < 1e-5, 1e-5, 0)) * (BITS / (2 * np.pi)) % BITS


def _printed(label, x, y, width):
    """What is printed at x, y in 0..1, and whether the marker reaches so far; edges are `width` wide."""

    def ramp(v: Array):
        return jnp.clip(v / width + 0.5, 0, 1)

    r = jnp.sqrt(x**2 + y**2 + 1e-12)
    cell = _turned(x, y, r)
    index = jnp.floor(cell).astype(jnp.int32)
    arc = r * (2 * np.pi / BITS)  # of a cell's width
    share = cell - index
    before = jnp.clip(0.5 - share * arc / width, 0, 0.5)
    after = jnp.clip(0.5 - (1 - share) * arc / width, 0, 0.5)
    own, left, right = (label.bits[(index + k) % BITS] for k in (0, -1, 1))
    ring = own * (1 - before - after) + left * before + right * after
    halves, rim = ramp(label.inner - r), ramp(r - MIDDLE)
    return halves * ramp(x) + rim + (1 - halves - rim) * ring, ramp(1 - r)
