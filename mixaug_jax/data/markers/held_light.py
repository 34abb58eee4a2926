"""Light and camera of the held pictures: how a bent marker shines, what a lens, a sensor and a file make of it."""

import io
import math
from typing import Any

import numpy as np
import PIL.Image
from scipy import ndimage

from mixaug_jax.core.types import Count, Float, UInt8

Samples = Float[np.ndarray, "H W"]


def rough(rng: np.random.Generator, side: Count) -> Samples:
    """Noise [side,side] whose power falls with the frequency (1/f), deviation 1."""
    down, right = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    far = np.maximum(np.hypot(down, right), 1 / side)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / far, (side, side))
    return ((noise - noise.mean()) / (noise.std() + 1e-9)).astype(np.float32)


def ramp(rng: np.random.Generator, side: Count) -> Samples:
    """Light that falls off towards one side, about 1."""
    line = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    down, right = rng.normal(0, 0.25, 2)
    return np.clip(1 + down * line[:, None] + right * line[None, :], 0.3, 1.7).astype(np.float32)


def shade(rng: np.random.Generator, side: Count, tag: Any) -> Samples:
    """Light [side,side] on a bent and tilted marker: Lambert's, sometimes a highlight (Phong's), sometimes a hard shadow.

    Args:
      rng: draws it.
      side: samples.
      tag: with `east` and `south`, [side,side] radii on the marker, and `lean`, the slope it is tilted by.
    """
    bend = rng.uniform(0.2, 0.7)
    x, y = tag.lean[0] + bend * tag.east, tag.lean[1] + bend * tag.south
    long = np.sqrt(x**2 + y**2 + 1)
    a, high = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.5)
    light = (math.cos(a) * math.cos(high), math.sin(a) * math.cos(high), math.sin(high))
    facing = np.clip((x * light[0] + y * light[1] + light[2]) / long, 0, 1)
    ambient = rng.uniform(0.25, 0.7)
    found = (ambient + (1 - ambient) * facing) * ramp(rng, side)
    if rng.random() < 1 / 3:
        # Halfway between the light and the camera, which looks straight down.
        half = np.array([light[0], light[1], light[2] + 1])
        half /= np.linalg.norm(half)
        shine = np.clip((x * half[0] + y * half[1] + half[2]) / long, 0, 1)
        found = found + rng.uniform(0.1, 0.8) * shine ** rng.uniform(10, 60)
    if rng.random() < 0.15:
        a, far = rng.uniform(0, 2 * math.pi), rng.uniform(-0.6, 0.6)
        dark = math.cos(a) * tag.east + math.sin(a) * tag.south > far
        found = np.where(dark, found * rng.uniform(0.35, 0.7), found)
    return found.astype(np.float32)


def photographed(
    rng: np.random.Generator, gray: Samples, samples: Count, size: Count
) -> UInt8[np.ndarray, "S S"]:
    """What a camera makes of light [size*samples,size*samples]: uint8 [size,size]."""
    width = rng.gamma(3, 0.22) * samples
    gray = ndimage.gaussian_filter(gray.astype(np.float32), width, truncate=3.0)
    if rng.random() < 0.4:  # it moved
        steps, a = rng.uniform(0.5, 2.5) * samples, rng.uniform(0, 2 * math.pi)
        moved = [
            np.roll(gray, (round(k * math.sin(a)), round(k * math.cos(a))), (0, 1))
            for k in np.linspace(-steps / 2, steps / 2, 5)
        ]
        gray = np.mean(moved, 0)
    light = gray.reshape(size, samples, size, samples).mean((1, 3)) * rng.uniform(0.5, 1.15)
    full = 10 ** rng.uniform(2.3, 4)  # electrons of a full pixel
    light = rng.poisson(np.clip(light, 0, 4) * full) / full + rng.normal(
        0, rng.uniform(0, 0.03), (size, size)
    )
    light = np.clip(light, 0, 1) ** rng.uniform(0.7, 1.15)
    stored, quality = io.BytesIO(), int(rng.integers(40, 96))
    PIL.Image.fromarray(np.uint8(np.round(255 * light))).save(stored, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(stored))
