"""Draws the scenes: a layout in relative units, and its picture and labels at any size.

A scene is a function of (settings, split, index) alone: the same numbers give the same pixels in
any order and in any number of processes. Only numpy is imported here, because the processes that
render (`mixaug_jax.data.farm`) import this file.
"""

import math
import sys
from dataclasses import dataclass, replace

import numpy as np

from mixaug_jax.data.scenes.materials import COLORS, MATERIALS, Surface, paint
from mixaug_jax.data.scenes.shapes import CLASSES, OBJECTS, PARTS, distance, pose

VERSION = 1  # of the pixels: part of the cache folder's name
SPLITS = ("train", "validation", "test")
CONCEPTS = (
    ("none", "none"),
    *((name, "object") for name in CLASSES),
    *((name, "part") for name in PARTS),
    *((name, "material") for name in MATERIALS),
    *((name, "color") for name in COLORS),
)
_NUMBER = {concept: number for number, concept in enumerate(CONCEPTS)}
_NUMBER |= {("none", "object"): 0, ("none", "part"): 0}
_FIRST_MATERIAL = 1 + len(CLASSES) + len(PARTS)
_FIRST_COLOR = _FIRST_MATERIAL + len(MATERIALS)


@dataclass(frozen=True)
class Settings:
    """All that decides the pixels; `config.data.scenes` and the size."""

    size: int
    seed: int
    train: int
    validation: int
    test: int
    background: float
    color: float
    position: float
    label_noise: float


@dataclass(frozen=True)
class Figure:
    """One object: its class, and lengths and places as shares of the image's side."""

    kind: int
    center: tuple[float, float]
    radius: float
    stretch: float
    angle: float
    mirror: bool
    surfaces: tuple[Surface, ...]


@dataclass(frozen=True)
class Scene:
    """A layout. `figures` stand back to front; `figures[target]` gives the class."""

    label: int
    target: int
    figures: tuple[Figure, ...]
    wall: Surface
    floor: Surface
    horizon: float
    tilt: float
    light: float
    exposure: float
    noise: float


def generator(settings: Settings, split: str, index: int) -> np.random.Generator:
    """The random numbers of one scene."""
    return np.random.default_rng((settings.seed, SPLITS.index(split), index))


def layout(settings: Settings, split: str, rng: np.random.Generator) -> Scene:
    """Draws a scene. Shortcuts are planted in training and validation, label noise in training.

    A shortcut gives class k the wall's material k, the color k for all its parts, or the k-th of
    ten places round the middle.
    """
    # Drawn in every split and under all settings, so that test scenes do not depend on what is planted.
    planted = split != "test"
    kind = int(rng.integers(len(CLASSES)))
    shortcut = rng.random(3) < (settings.background, settings.color, settings.position)
    by_background, by_color, by_position = shortcut & planted
    target = _target(rng, kind, by_color, by_position)
    # A background in a color of the target's would hide it from a person too.
    wall, floor = _surfaces(rng, 2, {surface.color for surface in target.surfaces})
    if by_background:
        # Swapped, so that the two materials still differ.
        other = wall.material if floor.material == kind else floor.material
        wall, floor = replace(wall, material=kind), replace(floor, material=other)
    # Distractors are of other classes, small, and at most one is in front of the target.
    others = [k for k in rng.permutation(len(CLASSES)) if k != kind][: int(rng.integers(4))]
    in_front = rng.random() < 0.5
    distractors = [
        _distractor(rng, int(k), target, over=in_front and n == len(others) - 1)
        for n, k in enumerate(others)
    ]
    behind = len(others) - 1 if in_front and others else len(others)
    # Drawn for every split, so that the test scenes do not depend on the label noise.
    label = kind
    wrong, other = rng.random(), int(rng.integers(len(CLASSES) - 1))
    if split == "train" and wrong < settings.label_noise:
        label = other + (other >= kind)
    return Scene(
        label=label,
        target=behind,
        figures=(*distractors[:behind], target, *distractors[behind:]),
        wall=wall,
        floor=floor,
        horizon=rng.uniform(0.5, 0.75),
        tilt=rng.uniform(-0.2, 0.2),
        light=rng.uniform(0, 2 * np.pi),
        exposure=rng.uniform(0.9, 1.08),
        noise=rng.uniform(0.01, 0.04),
    )


def _surfaces(rng, count, taken=()):
    """Surfaces that differ in material and in color, and have none of the taken colors."""
    materials = rng.permutation(len(MATERIALS))
    colors = [color for color in rng.permutation(len(COLORS)) if color not in taken]
    return [
        Surface(
            material=int(material),
            color=int(color),
            angle=rng.uniform(0, np.pi),
            period=rng.uniform(0.09, 0.15),
            phase=(rng.uniform(0, 10), rng.uniform(0, 10)),
        )
        for material, color in zip(materials[:count], colors[:count], strict=True)
    ]


def _target(rng, kind, by_color, by_position):
    # Large, so that the class can be told at 32 pixels; what is left over is room to move.
    radius = rng.uniform(0.33, 0.42)
    room = 0.5 - 0.9 * radius
    center = 0.5 + rng.uniform(-room, room, 2)
    if by_position:
        turn = 2 * np.pi * kind / len(CLASSES)
        center = 0.5 + room * np.array([np.sin(turn), np.cos(turn)]) + rng.uniform(-0.01, 0.01, 2)
    surfaces = _surfaces(rng, len(OBJECTS[CLASSES[kind]]))
    if by_color:
        surfaces = [replace(s, color=kind) for s in surfaces]
    return _figure(rng, kind, center, radius, surfaces)


def _distractor(rng, kind, target, over):
    """A small object; `over` the target's edge, or else beside or behind the target."""
    radius, turn = rng.uniform(0.07, 0.11), rng.uniform(0, 2 * np.pi)
    if over:
        reach = target.radius * rng.uniform(0.5, 0.9)
        center = target.center + reach * np.array([np.sin(turn), np.cos(turn)])
        center = np.clip(center, 0.06, 0.94)
    else:
        # Eight tries for a place off the target's middle; then the last one, wherever it is.
        for center in rng.uniform(0.06, 0.94, (8, 2)):
            if np.hypot(*(center - target.center)) > 0.6 * target.radius:
                break
    return _figure(rng, kind, center, radius, _surfaces(rng, len(OBJECTS[CLASSES[kind]])))


def _figure(rng, kind, center, radius, surfaces):
    return Figure(
        kind=kind,
        center=(float(center[0]), float(center[1])),
        radius=radius,
        stretch=rng.uniform(0.85, 1.18),
        angle=rng.uniform(-np.pi / 6, np.pi / 6),
        mirror=bool(rng.random() < 0.5),
        surfaces=tuple(surfaces),
    )


def draw(scene: Scene, side: int, rng: np.random.Generator) -> dict:
    """The scene's picture and labels at a size.

    Args:
        scene: what `layout` drew.
        side: pixels.
        rng: for the sensor's noise.

    Returns:
        A dict of image uint8 [side,side,3]; label int; boxes float32 [n,4] (row0, col0, row1,
        col1), the extents of the objects' visible pixels, the target first; box_labels int32 [n];
        concepts uint8 [side,side,4], numbers of `CONCEPTS` for (object, part, material, color) of
        the surface at each pixel's center. Objects without a visible pixel have no box.
    """
    # Back to front, color and light apart: shadows fall on whatever is behind a figure.
    picture = np.empty((3, side, side), np.float32)
    light = _daylight(scene, side)
    codes = np.empty((side, side), np.uint32)
    _background(scene, picture, codes)
    for figure in scene.figures:
        _draw_figure(figure, scene.light, picture, light, codes)
    # Four numbers a pixel were written at once, as one integer.
    concepts = codes.view(np.uint8).reshape(side, side, 4)
    picture *= light * (255 * scene.exposure)
    picture += (255 * scene.noise) * rng.standard_normal(picture.shape, np.float32)
    image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    boxes, box_labels = _boxes(scene, concepts[..., 0])
    return {
        "image": np.ascontiguousarray(image.transpose(1, 2, 0)),
        "label": scene.label,
        "boxes": boxes,
        "box_labels": box_labels,
        "concepts": concepts,
    }


def _code(object_name, part_name, surface):
    """Four concept numbers as one integer, in the order of a uint8 view."""
    numbers = (
        _NUMBER[object_name, "object"],
        _NUMBER[part_name, "part"],
        _FIRST_MATERIAL + surface.material,
        _FIRST_COLOR + surface.color,
    )
    return int.from_bytes(bytes(numbers), sys.byteorder)


def _daylight(scene, side):
    """A gentle fall of light across the picture."""
    ramp = np.linspace(-0.15, 0.15, side, dtype=np.float32)
    return 1 - (math.sin(scene.light) * ramp[:, None] + math.cos(scene.light) * ramp[None, :])


def _background(scene, picture, codes):
    """A wall above a floor, with a tilted edge between them."""
    side = len(codes)
    middle = np.arange(0.5 - side / 2, side / 2, dtype=np.float32)
    edge = scene.horizon * side + math.tan(scene.tilt) * middle
    above, below = max(int(edge.min()) - 1, 0), min(int(edge.max()) + 2, side)
    picture[:, :below] = paint(scene.wall, (0, 0, below, side), side)
    codes[:below] = _code("none", "none", scene.wall)
    picture[:, below:] = 0
    codes[below:] = _code("none", "none", scene.floor)
    rows = np.arange(above + 0.5, side, dtype=np.float32)[:, None]
    d = (edge - rows) * math.cos(scene.tilt)
    np.copyto(codes[above:], _code("none", "none", scene.floor), where=d < 0)
    floor = paint(scene.floor, (above, 0, side, side), side)
    _blend(picture[:, above:], floor, _cover(d))


def _draw_figure(figure, light_angle, picture, light, codes):
    side, name = len(codes), CLASSES[figure.kind]
    center, radius = (figure.center[0] * side, figure.center[1] * side), figure.radius * side
    stand = pose(center, radius, figure.stretch, figure.angle, figure.mirror)
    # Distances first, for the shadow of all parts lies under every one of them.
    parts = [
        (part, surface, *found)
        for (part, shapes), surface in zip(OBJECTS[name], figure.surfaces, strict=True)
        if (found := _union(shapes, stand, side))
    ]
    to_light = -math.sin(light_angle) / radius, -math.cos(light_angle) / radius
    _shadow([(window, d) for _, _, window, d in parts], radius, light_angle, light)
    line = max(0.032 * radius, 0.4)
    for part, surface, window, d in parts:
        row0, col0, row1, col1 = window
        cover = _cover(d)
        _blend(picture[:, row0:row1, col0:col1], paint(surface, window, side), cover)
        rows = np.arange(row0 + 0.5, row1, dtype=np.float32)[:, None] - center[0]
        cols = np.arange(col0 + 0.5, col1, dtype=np.float32)[None, :] - center[1]
        relief = (1 + 0.2 * to_light[0] * rows) + 0.2 * to_light[1] * cols
        # A darker outline, so that neighboring parts of one color stay apart.
        relief *= 1 - 0.6 * np.minimum(np.maximum(1 + d / line, 0), 1)
        _blend(light[row0:row1, col0:col1], relief, cover)
        np.copyto(codes[row0:row1, col0:col1], _code(name, part, surface), where=d < 0)


def _cover(d):
    """The share of each pixel that lies inside, from the distance at its center."""
    return np.minimum(np.maximum(0.5 - d, 0), 1)


def _blend(below, above, cover):
    below += cover * (above - below)


def _union(shapes, stand, side):
    """The distance to a part, (window, d), or None where it is outside the picture."""
    found = [hit for shape in shapes if (hit := distance(shape, stand, side))]
    if len(found) < 2:
        return found[0] if found else None
    corners = np.array([window for window, _ in found])
    row0, col0 = corners[:, :2].min(0).tolist()
    row1, col1 = corners[:, 2:].max(0).tolist()
    d = np.full((row1 - row0, col1 - col0), side, np.float32)
    for (top, left, bottom, right), near in found:
        inside = d[top - row0 : bottom - row0, left - col0 : right - col0]
        np.minimum(inside, near, out=inside)
    return (row0, col0, row1, col1), d


def _shadow(parts, radius, light_angle, light):
    """Darkens what lies behind a figure, on the side away from the light."""
    side = len(light)
    down = round(0.12 * radius * math.sin(light_angle))
    right = round(0.12 * radius * math.cos(light_angle))
    shade = np.ones((side, side), np.float32)
    for (row0, col0, row1, col1), d in parts:
        inside = shade[row0:row1, col0:col1]
        np.minimum(inside, 1 - 0.3 * _cover(d), out=inside)
    # Pixel p of the light takes pixel p - (down, right) of the shade.
    lit_rows, lit_cols = slice(max(down, 0), side + down), slice(max(right, 0), side + right)
    from_rows, from_cols = slice(max(-down, 0), side - down), slice(max(-right, 0), side - right)
    light[lit_rows, lit_cols] *= shade[from_rows, from_cols]


def _boxes(scene, objects):
    # By pixels that are seen, not by shapes: what is covered is in no box.
    order = [scene.figures[scene.target]]
    order += [f for i, f in enumerate(scene.figures) if i != scene.target]
    boxes, labels = [], []
    for figure in order:
        seen = objects == figure.kind + 1
        rows, cols = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        if rows.size:
            boxes.append((rows[0], cols[0], rows[-1] + 1, cols[-1] + 1))
            labels.append(figure.kind)
    return np.array(boxes, np.float32), np.array(labels, np.int32)


def render(settings: Settings, split: str, index: int) -> dict:
    """Scene `index` of a split: the dict of `draw`."""
    rng = generator(settings, split, index)
    return draw(layout(settings, split, rng), settings.size, rng)
