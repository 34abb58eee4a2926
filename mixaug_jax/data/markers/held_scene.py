"""Draws the pictures that decoders are judged on: printed markers on furry bodies, lit, hidden in part, and photographed.

They stand in place of photographs of bees (the published ones cannot be shipped), so nothing here is shared with the renderer
that decoders learn from, neither code nor a family of parameters. A picture is a function of (settings, split, index) alone.
Only numpy, scipy and pillow are imported here, because the processes that render import this file.
"""

import functools
import hashlib
import math
import pathlib
from dataclasses import dataclass

import numpy as np
import PIL.Image
from scipy import ndimage

from mixaug_jax.data.markers import held_light
from mixaug_jax.data.scenes.materials import COLORS, MATERIALS, Surface, paint

VERSION = 1  # of the pixels: part of the cache folder's name
SPLITS = ("unlabeled", "labeled", "validation", "test")
PARTS = ("none", "outer ring", "white half", "black half", *(f"cell {k}" for k in range(12)))
OBJECTS = ("none", "marker", "body", "ground")
_RIM, _WHITE, _BLACK, _CELL = 1, 2, 3, 4
_TURN = 720  # directions of which the print is told apart
_SAMPLES = 4  # a side of a pixel
_PHOTOS = ("*.jpg", "*.jpeg", "*.png")
_TEST_SHARE = 5  # every fifth photograph is for the test split alone
FEWEST_PHOTOS = 2


@dataclass(frozen=True)
class Settings:
    """All that decides the pixels.

    Attributes:
      size: side, pixels.
      seed: of all draws.
      spin: markers are turned by so much at most, radians.
      unlabeled, labeled, validation, test: numbers of pictures.
      photos: a folder of photographs to lie behind; "": the scenes' materials.
      content: checksum of those photographs.
    """

    size: int
    seed: int
    spin: float
    unlabeled: int
    labeled: int
    validation: int
    test: int
    photos: str = ""
    content: str = ""


def photo_files(folder: str) -> list[pathlib.Path]:
    """The photographs in a folder, in the order of their names."""
    return sorted(path for kind in _PHOTOS for path in pathlib.Path(folder).rglob(kind))


def content_of(folder: str) -> str:
    """A checksum of the names and contents of the photographs in a folder."""
    found = hashlib.sha256()
    for path in photo_files(folder):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def render(settings: Settings, split: str, index: int) -> dict:
    """One picture.

    Returns:
      image uint8 [S,S,1]; bits uint8 [12]; zrot float32, radians; parts and objects uint8 [S,S], numbers in `PARTS` and
      `OBJECTS` of what is seen of each pixel; tilt float32, radians; hidden float32, the share of the marker that is not seen;
      light float32 in 0..1, the mean gray value of the marker.
    """
    rng = np.random.default_rng((settings.seed, SPLITS.index(split), index))
    # Painted finer than the picture and averaged at last, as a camera does.
    side = settings.size * _SAMPLES
    photo = _photo(settings, split, rng)
    tag = _tag(rng, settings, side)
    gray, objects = _ground(rng, side, photo)
    gray, objects = _body(rng, side, gray, objects, tag)
    shade = held_light.shade(rng, side, tag)
    if rng.random() < 0.25:
        gray, objects = _neighbor(rng, settings, side, gray, objects, tag)
    # The tag lies over what was painted so far, and may be hidden in part by what comes in front.
    on = tag.on
    gray = np.where(on, tag.value * shade, gray * held_light.ramp(rng, side))
    objects = np.where(on, OBJECTS.index("marker"), objects)
    gray, hiding = _front(rng, side, gray, tag)
    parts = np.where(on & ~hiding, tag.parts, 0)
    objects = np.where(hiding, OBJECTS.index("body"), objects)
    picture = held_light.photographed(rng, gray, _SAMPLES, settings.size)
    # Labels cannot be averaged: each pixel has the one at its middle.
    middle = slice(_SAMPLES // 2, None, _SAMPLES)
    seen = (on & ~hiding)[middle, middle]
    shown = picture[seen] if seen.any() else picture
    return {
        "image": picture[..., None],
        "bits": tag.bits,
        "zrot": np.float32(tag.zrot),
        "parts": parts[middle, middle].astype(np.uint8),
        "objects": objects[middle, middle].astype(np.uint8),
        "tilt": np.float32(tag.tilt),
        "hidden": np.float32(1 - (on & ~hiding).sum() / max(tag.area, 1)),
        "light": np.float32(shown.mean() / 255),
    }


@dataclass(frozen=True)
class _Print:
    """A printed marker as it lies, at every sample: whether it is there, its gray, its parts, and the way it leans."""

    bits: np.ndarray
    zrot: float
    tilt: float
    on: np.ndarray
    value: np.ndarray
    parts: np.ndarray
    east: np.ndarray
    south: np.ndarray
    lean: tuple[float, float]
    center: tuple[float, float]
    radius: float
    area: float


def _tag(rng, settings, side, shift=(0.0, 0.0)) -> _Print:
    """Looked at from afar: foreshortened along one direction, its dome moved by the tilt, edges that wobble."""
    bits = rng.integers(0, 2, 12).astype(np.uint8)
    zrot = rng.uniform(-settings.spin, settings.spin)
    tilt = min(abs(rng.normal(0, math.radians(22))), math.radians(65))
    toward = rng.uniform(0, 2 * math.pi)
    radius = side * rng.normal(0.375, 0.02)
    center = [float(side / 2 + rng.uniform(-1, 1) * side / 16 + moved) for moved in shift]
    row, col = np.mgrid[:side, :side].astype(np.float32)
    south, east = (row + 0.5 - center[0]) / radius, (col + 0.5 - center[1]) / radius
    c, s = math.cos(toward), math.sin(toward)
    along, across = c * east + s * south, c * south - s * east
    height = rng.uniform(0.1, 0.35)
    lie = along / math.cos(tilt)
    for _ in range(2):  # the dome rises towards the camera, and so stands further along the tilt
        dome = height * np.clip(1 - lie**2 - across**2, 0, 1)
        lie = (along - dome * math.sin(tilt)) / math.cos(tilt)
    east, south = c * lie - s * across, s * lie + c * across
    c, s = math.cos(zrot), math.sin(zrot)
    own_x, own_y = c * east + s * south, c * south - s * east
    value, parts, on = _ink(rng, bits, own_x, own_y)
    lean = (math.cos(toward) * math.sin(tilt), math.sin(toward) * math.sin(tilt))
    area = math.pi * radius**2 * math.cos(tilt)
    return _Print(
        bits, zrot, tilt, on, value, parts, east, south, lean, tuple(center), radius, area
    )


def _wobble(rng, angle, strength):
    """A closed curve that is not quite a circle."""
    at = np.arange(_TURN, dtype=np.float32) * (2 * math.pi / _TURN)
    waves = sum(
        rng.normal(0, strength / k) * np.sin(k * at + rng.uniform(0, 2 * math.pi))
        for k in range(2, 6)
    )
    return waves.astype(np.float32)[angle]


def _ink(rng, bits, x, y):
    """(gray in 0..1, part, whether it is there) of a printed marker at its own x, y in radii."""
    away = np.sqrt(x * x + y * y)
    angle = np.int16(np.arctan2(y, x) * (_TURN / (2 * math.pi))) % _TURN
    inner = rng.normal(0.45, 0.015) + _wobble(rng, angle, 0.02)
    outer = rng.normal(0.8, 0.012) + _wobble(rng, angle, 0.02)
    turned = angle * (12 / _TURN) + _wobble(rng, angle, 0.08)
    cell = np.floor(turned).astype(np.int64) % 12
    # The halves are a little off the middle.
    half = np.where(x + rng.normal(0, 0.02) + 0.02 * np.sin(3 * y) > 0, _WHITE, _BLACK)
    parts = np.where(away < inner, half, np.where(away < outer, _CELL + cell, _RIM))
    black, white = rng.uniform(0.05, 0.2), rng.uniform(0.75, 0.98)
    light = np.array([0, 1, 1, 0, *bits])[parts]
    value = np.where(light > 0, white, black).astype(np.float32)
    ragged = _wobble(rng, angle, 0.5)
    for _ in range(rng.poisson(1.5)):  # dirt
        r, a, size = rng.uniform(0, 1), rng.uniform(0, 2 * math.pi), rng.uniform(0.04, 0.14)
        near = _far(x - r * math.cos(a), y - r * math.sin(a)) < size * (1 + ragged)
        value = np.where(near, 0.5 * value + 0.5 * rng.uniform(0.1, 0.6), value)
    return value, parts, away < 1 + _wobble(rng, angle, 0.015)


def _ground(rng, side, photo):
    """A photograph's part, or a material with rough noise on it."""
    if photo is None:
        kind, color = rng.integers(len(MATERIALS)), rng.integers(len(COLORS))
        phase = tuple(rng.uniform(0, 1, 2))
        surface = Surface(
            int(kind), int(color), rng.uniform(0, math.pi), rng.uniform(0.1, 0.6), phase
        )
        gray = paint(surface, (0, 0, side, side), side).mean(0)
        photo = np.clip(gray + rng.uniform(0.03, 0.25) * held_light.rough(rng, side), 0, 1)
    return photo.astype(np.float32), np.full((side, side), OBJECTS.index("ground"))


def _photo(settings, split, rng):
    """A gray part of one of the photographs, or None without any."""
    if not settings.photos:
        return None
    pictures = _photos(settings.photos, settings.content, split == "test")
    picture = pictures[rng.integers(len(pictures))]
    side = settings.size * _SAMPLES
    edge = max(1, int(min(picture.shape) * rng.uniform(0.15, 0.6)))
    row, col = (int(rng.integers(0, n - edge + 1)) for n in picture.shape)
    cut = PIL.Image.fromarray(picture[row : row + edge, col : col + edge])
    return np.asarray(cut.resize((side, side), PIL.Image.Resampling.BILINEAR)) / 255


@functools.lru_cache(maxsize=2)  # by content, too: a folder may change while a process goes on
def _photos(folder, content, test):
    files = photo_files(folder)
    chosen = [path for k, path in enumerate(files) if (k % _TEST_SHARE == 0) == test]
    return [_gray(path) for path in chosen]


def _gray(path):
    try:
        with PIL.Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    # Not every fault of a file is an OSError to the decoders; one that is would be taken for a fault of the cache's disk.
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(
            f"data.markers.photos: {path} cannot be read as a picture; repair or remove it"
        ) from error


def check_photos(settings: Settings) -> None:
    """Raises ValueError where one of the photographs cannot be read; nothing is rendered."""
    if settings.photos:
        for test in (True, False):
            _photos(settings.photos, settings.content, test)


def _body(rng, side, gray, objects, tag):
    """A dark body with fur, under the marker, and the marker's shadow on it."""
    row, col = np.mgrid[:side, :side].astype(np.float32)
    turn, long = rng.uniform(0, math.pi), rng.uniform(1.1, 2.4)
    down = (row - tag.center[0] - rng.normal(0, side / 10)) / tag.radius
    right = (col - tag.center[1] - rng.normal(0, side / 10)) / tag.radius
    a = math.cos(turn) * right + math.sin(turn) * down
    b = math.cos(turn) * down - math.sin(turn) * right
    body = (a / (1.6 * long)) ** 2 + (b / rng.uniform(1.0, 1.5)) ** 2 < 1
    # Noise smeared in one direction looks like hair.
    stretch = ndimage.gaussian_filter(
        rng.standard_normal((side, side), np.float32), (0.6, 4.0) if turn < 1.6 else (4.0, 0.6)
    )
    fur = rng.uniform(0.08, 0.35) + 0.35 * stretch
    gray = np.where(body, np.clip(fur, 0, 1), gray)
    objects = np.where(body, OBJECTS.index("body"), objects)
    shift = rng.uniform(-0.15, 0.15, 2)
    # The tag stands off the body a little, so its shadow does not lie straight under it.
    far = _far(tag.east - shift[1], tag.south - shift[0])
    return gray * (1 - 0.5 * np.clip((1.25 - far) / 0.25, 0, 1)), objects


def _neighbor(rng, settings, side, gray, objects, tag):
    """Another marker that reaches into the picture, beside this one and below it."""
    a, far = rng.uniform(0, 2 * math.pi), rng.uniform(2.1, 2.8) * tag.radius
    shift = (tag.center[0] - side / 2 + far * math.sin(a), tag.center[1] - side / 2 + far * math.cos(a))  # fmt: skip
    other = _tag(rng, settings, side, shift)
    # It is another's marker: its parts are none of this one's cells.
    return np.where(other.on, other.value * rng.uniform(0.5, 1), gray), objects


def _front(rng, side, gray, tag):
    """Hairs that reach over the edge, and a leg or the edge of a wing."""
    hiding = np.zeros((side, side), bool)
    row, col = np.mgrid[:side, :side].astype(np.float32)
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 7)):
            a = rng.uniform(0, 2 * math.pi)
            start = np.array([math.sin(a), math.cos(a)]) * tag.radius * rng.uniform(0.8, 1.1)
            step = rng.uniform(-1, 1, 2) * tag.radius * 0.6
            near = _near(row - tag.center[0], col - tag.center[1], start, start + step)
            hair = near < rng.uniform(0.5, 1.4) * side / 128
            gray, hiding = np.where(hair, rng.uniform(0.05, 0.7), gray), hiding | hair
    if rng.random() < 0.12:
        start, end = rng.uniform(0, side, (2, 2))
        near = _near(row, col, start, end + 2 * (end - start))
        leg = near < rng.uniform(0.03, 0.08) * side
        gray, hiding = np.where(leg, rng.uniform(0.05, 0.35), gray), hiding | leg
    return gray, hiding


def _far(x, y):
    return np.sqrt(x * x + y * y)  # quicker than hypot, and no overflow to fear


def _near(row, col, start, end):
    """How far each sample is from the line from start to end."""
    way = end - start
    share = ((row - start[0]) * way[0] + (col - start[1]) * way[1]) / max(way @ way, 1e-6)
    share = np.clip(share, 0, 1)
    return _far(row - start[0] - share * way[0], col - start[1] - share * way[1])
