"""Surfaces of the scenes: ten procedural materials and the eleven basic color names.

A material modulates lightness between the dark and the light end of a color, so that every pixel
of a surface keeps the color's name. Basic color terms: Berlin and Kay, Basic Color Terms, 1969.
"""

import math
from dataclasses import dataclass

import numpy as np

# name -> (dark end, light end), sRGB in [0, 1].
COLORS = {
    "black": ((0.04, 0.04, 0.04), (0.14, 0.14, 0.15)),
    "blue": ((0.07, 0.18, 0.66), (0.20, 0.39, 0.92)),
    "brown": ((0.33, 0.18, 0.06), (0.49, 0.29, 0.13)),
    "gray": ((0.41, 0.41, 0.41), (0.57, 0.57, 0.57)),
    "green": ((0.06, 0.40, 0.10), (0.21, 0.66, 0.22)),
    "orange": ((0.88, 0.43, 0.03), (0.98, 0.57, 0.11)),
    "pink": ((0.95, 0.51, 0.66), (0.99, 0.71, 0.81)),
    "purple": ((0.37, 0.09, 0.52), (0.57, 0.25, 0.72)),
    "red": ((0.73, 0.05, 0.06), (0.91, 0.14, 0.13)),
    "white": ((0.88, 0.88, 0.88), (0.98, 0.98, 0.98)),
    "yellow": ((0.89, 0.80, 0.08), (0.98, 0.93, 0.34)),
}
_DARK, _LIGHT = np.asarray(list(COLORS.values()), np.float32).transpose(1, 0, 2)[..., None, None]
_BASE, _CONTRAST = (_LIGHT + _DARK) / 2, (_LIGHT - _DARK) / 2


@dataclass(frozen=True)
class Surface:
    """A material in a color: indices into `MATERIALS` and `COLORS`, and how the pattern lies.

    `period` is the pattern's length as a share of the image's side, `angle` in radians, `phase`
    the pattern's shift in periods.
    """

    material: int
    color: int
    angle: float
    period: float
    phase: tuple[float, float]


def paint(surface: Surface, window: tuple[int, int, int, int], side: int) -> np.ndarray:
    """The surface's sRGB, float32 [3,rows,cols], at the pixel centers of a window.

    The window is (row0, col0, row1, col1). Periods below four pixels are drawn as four pixels: a
    finer pattern would only alias.
    """
    # The pattern lies in the image and not in the window: a part cut off changes no pixel of the rest.
    row0, col0, row1, col1 = window
    period = max(surface.period * side, 4.0)
    down, right = math.cos(surface.angle) / period, math.sin(surface.angle) / period
    rows = np.arange(row0, row1, dtype=np.float32)[:, None] - side / 2
    cols = np.arange(col0, col1, dtype=np.float32)[None, :] - side / 2
    a = down * rows + (right * cols + surface.phase[0])
    b = down * cols - (right * rows - surface.phase[1])
    # The steepest ramp that still takes about a pixel and a half from dark to light.
    pattern = _PATTERNS[surface.material](a, b, max(period / 4.7, 1.0))
    base, contrast = _BASE[surface.color], _CONTRAST[surface.color]
    return base + contrast * pattern


def _step(x, sharp):
    return np.minimum(np.maximum(x * sharp, -1), 1)


def _wave(x):
    return np.sin(2 * math.pi * x)


def _hump(x):
    return np.cos(2 * math.pi * x)


def _brick(a, b, sharp):
    """Long stones in rows, every other row shifted by half a stone, light mortar between them."""
    along = 0.5 * b + 0.5 * (np.floor(a) % 2)
    return _step(np.maximum(_hump(a), 3 * _hump(along) - 2) - 0.7, 2 * sharp)


def _checker(a, b, sharp):
    return _step(_wave(0.5 * a) * _wave(0.5 * b), 2 * sharp)


def _dots(a, b, sharp):
    return _step(_hump(a) + _hump(b) - 0.7, sharp)


def _fabric(a, b, sharp):
    """A plain weave: threads along and across, in turn above one another."""
    along, across = _wave(0.75 * a), _wave(0.75 * b)
    # Which thread is on top changes with every crossing.
    over = 0.5 + 0.5 * _step(along * across, 3 * sharp)
    along, across = np.abs(along), np.abs(across)
    return 2 * (across + over * (along - across)) - 1


def _marble(a, b, sharp):
    """Thin dark veins in a light cloudy ground, bent by a slow turbulence."""
    bend = _wave(0.31 * b + 0.2 * a) + 0.6 * _wave(0.57 * a - 0.43 * b)
    vein = np.abs(_wave(0.22 * a + 0.16 * bend))
    return np.minimum(3.2 * vein, 1) * (1.6 + 0.25 * bend) - 1


def _metal(a, b, sharp):
    """Brushed: fine streaks of many lengths across one direction, and a broad sheen."""
    sheen = _wave(0.17 * a + 0.255 * b)
    return 0.2 * (_wave(0.83 * a) + _wave(1.31 * a + 0.03 * b)) + 0.6 * sheen * np.abs(sheen)


def _plain(a, b, sharp):
    return np.zeros_like(a)


def _stripes(a, b, sharp):
    return _step(_wave(0.8 * a), sharp)


def _water(a, b, sharp):
    """Short crests that come and go."""
    crest = _wave(0.75 * a + 0.22 * _wave(0.55 * b + 0.1 * a))
    return crest * (0.65 + 0.35 * _wave(0.27 * b - 0.3 * a))


def _wood(a, b, sharp):
    """Long grain of uneven width, bent round the knots."""
    rings = 0.6 * a + 0.55 * _wave(0.07 * b) + 0.22 * _wave(0.19 * b + 0.05 * a)
    return 0.75 * _wave(rings + 0.15 * _wave(0.5 * rings)) + 0.25 * _wave(1.7 * a)


# name -> f(a, b, sharp) in [-1, 1]: a, b in periods; sharp, at least 1, the steepness of edges.
MATERIALS = {
    "brick": _brick,
    "checker": _checker,
    "dots": _dots,
    "fabric": _fabric,
    "marble": _marble,
    "metal": _metal,
    "plain": _plain,
    "stripes": _stripes,
    "water": _water,
    "wood": _wood,
}
_PATTERNS = tuple(MATERIALS.values())
