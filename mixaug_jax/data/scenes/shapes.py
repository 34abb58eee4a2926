"""The objects of the scenes: ten classes built from named parts, and the distances to them.

An object is drawn in its own frame: (row, col) in [-1, 1], rows pointing down, inside the unit
circle. Its parts are listed back to front; a part is a union of simple shapes. Shape alone decides
the class: colors and materials are drawn at random.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """An ellipse, a line or a convex polygon: one, two or more points (row, col).

    `radii` are an ellipse's, `width` half its band's thickness where it is not filled, and `round`
    half a line's thickness.
    """

    points: tuple[tuple[float, float], ...]
    radii: tuple[float, float] = (0.0, 0.0)
    width: float = 0.0
    round: float = 0.0


def polygon(*points: tuple[float, float]) -> Shape:
    """A convex polygon, corners in either order."""
    return Shape(points)


def box(row0: float, col0: float, row1: float, col1: float) -> Shape:
    """A rectangle along the axes."""
    return polygon((row0, col0), (row0, col1), (row1, col1), (row1, col0))


def ellipse(row: float, col: float, row_radius: float, col_radius: float) -> Shape:
    """An ellipse along the axes, from its center and its radii."""
    return Shape(((row, col),), (row_radius, col_radius))


def disc(row: float, col: float, radius: float) -> Shape:
    """A filled circle."""
    return ellipse(row, col, radius, radius)


def ring(row: float, col: float, row_radius: float, col_radius: float, width: float) -> Shape:
    """An elliptical band; `width` is half its thickness."""
    return Shape(((row, col),), (row_radius, col_radius), width)


def capsule(row0: float, col0: float, row1: float, col1: float, radius: float) -> Shape:
    """A line with round ends."""
    return Shape(((row0, col0), (row1, col1)), round=radius)


def _petals(count, distance, radius):
    angles = 2 * np.pi * np.arange(count) / count
    return tuple(
        disc(float(distance * np.sin(a)) - 0.4, float(distance * np.cos(a)), radius) for a in angles
    )


# class -> ((part, (shapes...)), ...), back to front.
OBJECTS = {
    "house": (
        ("chimney", (box(-0.85, 0.28, -0.25, 0.52),)),
        ("wall", (box(-0.15, -0.66, 0.82, 0.66),)),
        ("roof", (polygon((-0.08, -0.9), (-0.08, 0.9), (-0.8, 0.0)),)),
        ("door", (box(0.22, -0.46, 0.82, -0.08),)),
        ("window", (box(0.16, 0.14, 0.52, 0.5),)),
    ),
    "car": (
        ("cabin", (polygon((-0.5, -0.35), (-0.5, 0.3), (0.02, 0.62), (0.02, -0.62)),)),
        (
            "window",
            (
                polygon((-0.38, -0.28), (-0.38, -0.04), (-0.04, -0.04), (-0.04, -0.46)),
                polygon((-0.38, 0.08), (-0.38, 0.24), (-0.04, 0.44), (-0.04, 0.08)),
            ),
        ),
        (
            "chassis",
            (polygon((0.0, -0.96), (0.0, 0.8), (0.14, 0.96), (0.42, 0.96), (0.42, -0.96)),),
        ),
        ("headlight", (disc(0.14, 0.8, 0.13),)),
        ("wheel", (disc(0.42, -0.54, 0.26), disc(0.42, 0.54, 0.26))),
    ),
    "tree": (
        ("trunk", (polygon((0.1, -0.13), (0.1, 0.13), (0.98, 0.22), (0.98, -0.22)),)),
        (
            "crown",
            (
                disc(-0.52, 0.0, 0.44),
                disc(-0.12, -0.42, 0.42),
                disc(-0.12, 0.42, 0.42),
                disc(-0.05, 0.0, 0.4),
            ),
        ),
        ("fruit", (disc(-0.5, 0.1, 0.13), disc(-0.1, -0.42, 0.13), disc(0.02, 0.36, 0.13))),
    ),
    "fish": (
        (
            "tail",
            (
                polygon((-0.08, -0.42), (0.08, -0.42), (0.0, -0.8), (-0.52, -0.98)),
                polygon((0.08, -0.42), (-0.08, -0.42), (0.0, -0.8), (0.52, -0.98)),
            ),
        ),
        ("fin", (polygon((-0.2, -0.3), (-0.68, -0.12), (-0.2, 0.4)),)),
        ("body", (ellipse(0.0, 0.18, 0.42, 0.76),)),
        ("gill", (capsule(-0.2, 0.42, 0.2, 0.42, 0.05),)),
        ("eye", (disc(-0.12, 0.64, 0.11),)),
    ),
    "lamp": (
        ("pole", (box(-0.3, -0.075, 0.84, 0.075),)),
        ("base", (polygon((0.72, -0.3), (0.72, 0.3), (0.96, 0.5), (0.96, -0.5)),)),
        ("bulb", (disc(-0.2, 0.0, 0.2),)),
        ("shade", (polygon((-0.96, -0.3), (-0.96, 0.3), (-0.2, 0.72), (-0.2, -0.72)),)),
    ),
    "chair": (
        (
            "leg",
            (
                capsule(0.2, -0.42, 0.92, -0.52, 0.09),
                capsule(0.2, 0.42, 0.92, 0.56, 0.09),
            ),
        ),
        ("back", (polygon((-0.96, -0.58), (-0.96, -0.36), (0.12, -0.26), (0.12, -0.52)),)),
        ("seat", (box(0.06, -0.56, 0.28, 0.62),)),
    ),
    "mug": (
        ("handle", (ring(0.08, 0.52, 0.36, 0.36, 0.1),)),
        ("cup", (polygon((-0.56, -0.72), (-0.56, 0.5), (0.76, 0.42), (0.76, -0.64)),)),
        ("rim", (ellipse(-0.56, -0.11, 0.17, 0.63),)),
    ),
    "rocket": (
        (
            "flame",
            (polygon((0.5, -0.2), (0.5, 0.2), (0.99, 0.0)),),
        ),
        (
            "fin",
            (
                polygon((0.05, -0.2), (0.56, -0.62), (0.66, -0.6), (0.5, -0.2)),
                polygon((0.05, 0.2), (0.56, 0.62), (0.66, 0.6), (0.5, 0.2)),
            ),
        ),
        ("fuselage", (box(-0.42, -0.28, 0.54, 0.28),)),
        ("nose", (polygon((-0.4, -0.28), (-0.4, 0.28), (-0.98, 0.0)),)),
        ("porthole", (disc(-0.12, 0.0, 0.16),)),
    ),
    "boat": (
        ("mast", (box(-0.92, -0.06, 0.4, 0.06),)),
        ("sail", (polygon((-0.78, 0.1), (0.26, 0.1), (0.26, 0.78)),)),
        ("jib", (polygon((-0.6, -0.1), (0.26, -0.1), (0.26, -0.64)),)),
        ("hull", (polygon((0.34, -0.94), (0.34, 0.94), (0.82, 0.56), (0.82, -0.6)),)),
        ("flag", (polygon((-0.98, 0.02), (-0.72, 0.02), (-0.85, -0.36)),)),
    ),
    "flower": (
        ("stem", (capsule(-0.2, 0.0, 0.93, 0.0, 0.065),)),
        (
            "leaf",
            (
                polygon((0.82, 0.0), (0.34, 0.18), (0.26, 0.58), (0.5, 0.5)),
                polygon((0.9, 0.0), (0.5, -0.16), (0.42, -0.58), (0.66, -0.5)),
            ),
        ),
        ("petal", _petals(6, 0.36, 0.215)),
        ("disk", (disc(-0.4, 0.0, 0.22),)),
    ),
}

CLASSES = tuple(OBJECTS)
PARTS = tuple(dict.fromkeys(part for parts in OBJECTS.values() for part, _ in parts))


@dataclass(frozen=True)
class Pose:
    """Where an object stands: from its frame to pixels.

    `center` [2] is in pixels, `scale` [2] the pixels of the frame's unit along its rows and its
    columns, `unit` their mean, and `turn` [2,2] the mirroring and rotation that follow.
    """

    center: np.ndarray
    scale: np.ndarray
    unit: float
    turn: np.ndarray


def pose(
    center: tuple[float, float], radius: float, stretch: float, angle: float, mirror: bool
) -> Pose:
    """A `Pose`; lengths in pixels, `angle` in radians, `stretch` of the height over the width."""
    cos, sin, side = math.cos(angle), math.sin(angle), -1 if mirror else 1
    scale = np.array([radius * stretch**0.5, radius / stretch**0.5])
    turn = np.array([[cos, -sin * side], [sin, cos * side]])
    return Pose(np.asarray(center), scale, float(scale.mean()), turn)


def distance(
    shape: Shape, pose: Pose, side: int
) -> tuple[tuple[int, int, int, int], np.ndarray] | None:
    """Signed distance in pixels (negative inside) at the pixel centers of the shape's window.

    Exact to first order at the outline of ellipses, exact for all else but beyond the corners of
    polygons, where it is the larger of the distances to the two lines.

    Args:
        shape: a `Shape`.
        pose: where the object stands.
        side: the image's side in pixels.

    Returns:
        ((row0, col0, row1, col1), float32 [row1 - row0, col1 - col0]), or None where the shape is
        outside the image.
    """
    # The window that the shape reaches, with a pixel for the soft edge.
    points = pose.center + (np.array(shape.points) * pose.scale) @ pose.turn.T
    radii, width = np.array(shape.radii) * pose.scale, shape.width * pose.unit
    reach = 1 + shape.round * pose.unit + width + np.sqrt(pose.turn**2 @ radii**2)
    low, high = points.min(0) - reach, points.max(0) + reach
    window = (
        max(math.floor(low[0]), 0),
        max(math.floor(low[1]), 0),
        min(math.ceil(high[0]), side),
        min(math.ceil(high[1]), side),
    )
    if window[0] >= window[2] or window[1] >= window[3]:
        return None
    # At pixel centers; one, two or more points say what kind of shape it is.
    rows = np.arange(window[0] + 0.5, window[2], dtype=np.float32)[:, None]
    cols = np.arange(window[1] + 0.5, window[3], dtype=np.float32)[None, :]
    if len(points) == 1:
        return window, _ellipse(points[0], radii, pose.turn, width, rows, cols)
    if len(points) == 2:
        return window, _capsule(points, shape.round * pose.unit, rows, cols)
    return window, _polygon(points, rows, cols)


def _polygon(points, rows, cols):
    before = points[np.arange(len(points)) - 1]
    row, col = (points - before).T
    # Twice the signed area: a mirrored pose turns the corners' order round, and so the normals.
    area = (before[:, 0] * points[:, 1] - before[:, 1] * points[:, 0]).sum()
    length = np.hypot(row, col) * np.sign(area)
    # Signed distances to the lines through the edges; inside a convex polygon all are negative.
    down, right = col / length, -row / length
    offset = down * points[:, 0] + right * points[:, 1]
    down, right, offset = np.array([down, right, offset], np.float32)[..., None, None]
    return ((down * rows - offset) + right * cols).max(0)


def _capsule(points, radius, rows, cols):
    (row, col), (down, right) = points[0].tolist(), (points[1] - points[0]).tolist()
    y, x = rows - row, cols - col
    length = down * down + right * right
    # The nearest point of the line: beyond its ends, the end.
    along = np.minimum(np.maximum(y * (down / length) + x * (right / length), 0), 1)
    return np.hypot(y - along * down, x - along * right) - radius


def _ellipse(center, radii, turn, width, rows, cols):
    """f / |grad f| with f = |p / radii| - 1."""
    (row, col), (tall, wide) = center.tolist(), radii.tolist()
    to_frame = (turn / radii).tolist()
    y, x = rows - row, cols - col
    u = to_frame[0][0] * y + to_frame[1][0] * x
    v = to_frame[0][1] * y + to_frame[1][1] * x
    # First order suffices: the soft edge is one pixel wide.
    norm = np.hypot(u, v)
    d = norm * (norm - 1) / np.maximum(np.hypot(u / tall, v / wide), 1e-6)
    return np.abs(d) - width if width else d
