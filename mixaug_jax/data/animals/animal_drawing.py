"""Draws an animal: sphere tracing of eight rounded boxes under a soft light.

In place of the original's Blender scene (bevel, subdivision, area light): rounded boxes, a wrapped Lambert light at the lamp's
place, the other blocks as balls that darken, no cast shadows, no noise, so that pairs differ in what was changed alone. Rays
are separate x, y and z arrays: numpy reduces a trailing axis of three at half the speed. Only numpy is imported here, and the
color maps once they are drawn with, because the processes that render import this file.
"""

import functools

import numpy as np

from mixaug_jax.data.animals import animal_pose
from mixaug_jax.data.animals.animal_pose import Animal
from mixaug_jax.data.animals.animal_samplers import Sampler

CAMERA = 9.0  # on the x axis
FOCAL = 50 / 18  # lens over half the width of the film: of half a picture at distance 1
_LIGHT = (10.0, 10.0, 10.0)
_WALL = 10.0  # behind the block that is farthest away
_WRAP, _POWER, _AMBIENT, _SHOULDER = 0.35, 1.3, 0.10, 2.2
_STEPS, _NEAR = 10, 0.004
# Samples of a pixel, from its middle; the first one gives the mask.
_OFFSETS = np.array([(0, 0), (-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)], np.float32)  # fmt: skip


def project(points: np.ndarray, size: int) -> np.ndarray:
    """Rows and columns [n,2], in pixels from the upper left corner, of points [n,3] of the scene."""
    depth = CAMERA - points[:, 0]
    right, up = points[:, 1] * FOCAL / depth, points[:, 2] * FOCAL / depth
    return np.stack([(1 - up) * size / 2, (1 + right) * size / 2], 1)


def picture(animal: Animal, size: int, sampler: Sampler) -> tuple[np.ndarray, np.ndarray]:
    """The picture uint8 [S,S,3] of an animal, and the block, uint8 [S,S], that is seen in each pixel's middle: 0 is background.

    Args:
      animal: what is drawn.
      size: side, pixels.
      sampler: whose color maps are used.
    """
    centers, frames = animal_pose.blocks(animal)
    half, rounding = animal_pose.sizes(animal.spherical)
    sample, number, point, normal = _seen(centers, frames, half, rounding, size)
    light = _lit(point, normal) * _open(point, normal, centers, number, half)
    pixel = sample // len(_OFFSETS)
    # Of each pixel's samples some meet the animal: what they leave of it is background.
    cover = np.bincount(pixel, minlength=size * size) / len(_OFFSETS)
    ground = _ground(centers[:, 0].min() - _WALL, size)
    channels = []
    for own, behind in zip(_albedo(animal, sampler, 0), _albedo(animal, sampler, 1), strict=True):
        shown = np.bincount(pixel, _shoulder(own * light), size * size) / len(_OFFSETS)
        channels.append(shown + (1 - cover) * _shoulder(behind * ground))
    mask = np.zeros(size * size, np.uint8)
    # The first sample lies in the middle of its pixel.
    middle = sample % len(_OFFSETS) == 0
    mask[pixel[middle]] = number[middle] + 1
    image = _encoded(np.stack(channels, -1))
    return image.reshape(size, size, 3), mask.reshape(size, size)


def _seen(centers, frames, half, rounding, size):
    """Of samples that show a block: their numbers, which block, and point and normal there as x, y, z."""
    reach = np.sqrt(3) * (half - rounding) + rounding
    sample, number = _candidates(centers, reach, size)
    ray = _rays(sample, size)
    # In the frame of each ray's block: where it comes from, and where it goes.
    origin = np.einsum("kji,kj->ki", frames, np.array([CAMERA, 0, 0]) - centers)
    turn = frames.astype(np.float32)[number]
    start = tuple(origin.astype(np.float32)[number, i] for i in range(3))
    way = tuple(ray[0] * turn[:, 0, i] + ray[1] * turn[:, 1, i] + ray[2] * turn[:, 2, i] for i in range(3))  # fmt: skip
    along = -(start[0] * way[0] + start[1] * way[1] + start[2] * way[2])
    within = reach**2 - (start[0] ** 2 + start[1] ** 2 + start[2] ** 2 - along**2)
    keep = np.flatnonzero(within > 0)
    sample, number, turn = sample[keep], number[keep], turn[keep]
    start, way = (tuple(a[keep] for a in triple) for triple in (start, way))
    far = along[keep] - np.sqrt(within[keep])
    far, hit = _traced(start, way, far, np.float32(half - rounding), np.float32(rounding))
    hit = np.flatnonzero(hit)
    # The last of several assignments holds: the nearest.
    hit = hit[np.argsort(-far[hit], kind="stable")]
    nearest = np.full(size * size * len(_OFFSETS), -1, np.int64)
    nearest[sample[hit]] = hit
    chosen = nearest[nearest >= 0]
    sample, number, turn, far = sample[chosen], number[chosen], turn[chosen], far[chosen]
    own = [s[chosen] + far * w[chosen] for s, w in zip(start, way, strict=True)]
    outward = [np.sign(p) * np.maximum(np.abs(p) - np.float32(half - rounding), 0) for p in own]
    length = np.maximum(np.sqrt(outward[0] ** 2 + outward[1] ** 2 + outward[2] ** 2), 1e-9)

    def world(v: list) -> list:
        return [v[0] * turn[:, i, 0] + v[1] * turn[:, i, 1] + v[2] * turn[:, i, 2] for i in range(3)]  # fmt: skip

    place = centers.astype(np.float32)[number]
    point = [p + place[:, i] for i, p in enumerate(world(own))]
    return sample, number, point, [n / length for n in world(outward)]


def _candidates(centers, reach, size):
    """(samples, blocks): the samples of the pixels around each block."""
    at = project(centers, size)
    around = reach * FOCAL / (CAMERA - centers[:, 0] - reach) * size / 2 + 1
    pixels, number = [], []
    for k, ((row, col), r) in enumerate(zip(at, around, strict=True)):
        rows = np.arange(max(int(row - r), 0), min(int(row + r) + 1, size))
        cols = np.arange(max(int(col - r), 0), min(int(col + r) + 1, size))
        pixels.append((rows[:, None] * size + cols).ravel())
        number.append(np.full(len(pixels[-1]), k))
    count = len(_OFFSETS)
    sample = np.concatenate(pixels)[:, None] * count + np.arange(count)
    return sample.ravel(), np.repeat(np.concatenate(number), count)


@functools.lru_cache(maxsize=4)
def _every_ray(size):
    """Directions of all samples, as x, y, z."""
    pixel = np.arange(size * size, dtype=np.float32)
    row = (pixel // size + 0.5)[:, None] + _OFFSETS[:, 0]
    col = (pixel % size + 0.5)[:, None] + _OFFSETS[:, 1]
    right, up = (2 * col / size - 1) / FOCAL, (1 - 2 * row / size) / FOCAL
    length = np.sqrt(1 + right**2 + up**2)
    return tuple((a / length).ravel().astype(np.float32) for a in (-np.ones_like(right), right, up))


def _rays(sample, size):
    return tuple(a[sample] for a in _every_ray(size))


def _traced(start, way, far, inner, rounding):
    """Distances along the rays to rounded boxes, and whether they are met."""
    for _ in range(_STEPS):
        distance = np.sqrt(
            sum(
                np.square(np.maximum(np.abs(s + far * w) - inner, 0))
                for s, w in zip(start, way, strict=True)
            )
        )
        distance -= rounding
        far = far + distance
    return far, distance < _NEAR


def _lit(point, normal):
    """The lamp's light on surfaces: 1 where it shines straight on the scene's middle."""
    to = [lamp - p for lamp, p in zip(_LIGHT, point, strict=True)]
    squared = to[0] ** 2 + to[1] ** 2 + to[2] ** 2
    cosine = (normal[0] * to[0] + normal[1] * to[1] + normal[2] * to[2]) / np.sqrt(squared)
    wrapped = np.maximum((cosine + _WRAP) / (1 + _WRAP), 0) ** _POWER
    return _AMBIENT + wrapped * (sum(lamp * lamp for lamp in _LIGHT) / squared)


def _open(point, normal, centers, number, half):
    """How much of its light a surface gets beside the other blocks, taken as balls."""
    left = np.ones_like(point[0])
    for k, center in enumerate(centers.astype(np.float32)):
        to = [c - p for c, p in zip(center, point, strict=True)]
        squared = to[0] ** 2 + to[1] ** 2 + to[2] ** 2
        facing = (normal[0] * to[0] + normal[1] * to[1] + normal[2] * to[2]) / np.sqrt(squared)
        hidden = np.maximum(facing, 0) * np.minimum(np.float32(half**2) / squared, 1)
        left *= 1 - np.where(number == k, 0, hidden)
    return left


def _ground(depth, size):
    """Light on the wall behind, of every pixel."""
    ray = [a[:: len(_OFFSETS)] for a in _every_ray(size)]
    far = np.float32(depth - CAMERA) / ray[0]
    point = [np.float32(depth), ray[1] * far, ray[2] * far]
    return _lit(point, (1.0, 0.0, 0.0))


def _albedo(animal, sampler, which):
    """Red, green and blue, which are taken as shares of reflected light, of the animal (0) or the background (1)."""
    value = (animal.obj_color, animal.bg_color)[which]
    if sampler.squeezed and value > 0.5:
        value = 0.9 * (value - 0.5) + 0.5
    table = _color_map(sampler.maps[which])
    return table[min(int(value * len(table)), len(table) - 1)]


@functools.lru_cache(maxsize=8)
def _color_map(name):
    # Processes that only read pictures import this file, too.
    from matplotlib import colormaps

    return colormaps[name](np.arange(256))[:, :3].astype(np.float32)


def _shoulder(light):
    return 1 - np.exp(-_SHOULDER * light)


def _encoded(linear):
    """sRGB bytes."""
    linear = np.clip(linear, 0, 1).astype(np.float32)
    bright = 1.055 * np.maximum(linear, 1e-6) ** np.float32(1 / 2.4) - 0.055
    return np.round(255 * np.where(linear <= 0.0031308, 12.92 * linear, bright)).astype(np.uint8)
