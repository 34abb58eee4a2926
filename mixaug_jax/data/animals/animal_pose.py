"""What is known of an animal, and where its eight blocks lie.

The generator Two4Two of Sixt, Schuessler, Popescu, Weiss and Landgraf 2022, "Do Users Benefit From Interpretable Vision?",
arXiv 2204.11642: a spine of four blocks and four arms. Only numpy is imported here, because the processes that render import
this file.
"""

import math
from dataclasses import astuple, dataclass

import numpy as np

CLASSES = ("peaky", "stretchy")
BLOCKS = (
    "arm left top",
    "arm left bottom",
    "spine tail",
    "spine left",
    "spine right",
    "head",
    "arm right top",
    "arm right bottom",
)
LEGAL = (6, 7, 8)  # numbers of the blocks between which the class lies, from 1: head and right arms
# Least and largest value; of angles in radians, of positions in units of the scene, whose picture is 6.48 wide.
LIMITS = {
    "arm_position": (0.0, 1.0),
    "bending": (-math.pi / 8, math.pi / 8),
    "bg_color": (0.0, 1.0),
    "obj_color": (0.0, 1.0),
    "pitch": (-math.pi / 3, math.pi / 3),
    "roll": (-math.pi / 3, math.pi / 3),
    "yaw": (-math.pi, math.pi),
    "position_x": (-3.0, 3.0),
    "position_y": (-3.0, 3.0),
    "spherical": (0.0, 1.0),
}
ATTRIBUTES = tuple(LIMITS)
CIRCULAR = ("yaw",)
_MIDDLE = 0.5  # of the spine, which it is bent around


@dataclass(frozen=True)
class Animal:
    """One animal; see `LIMITS` for ranges and units.

    Attributes:
      label: 0 peaky, 1 stretchy.
      arm_position: how far out the right arms stand: the class lies here.
      bending: of the spine, in the picture's plane.
      bg_color, obj_color: of background and animal, values of a color map.
      pitch, roll, yaw: rotations about z, y and x; yaw turns in the picture's plane.
      position_x, position_y: to the right, and up.
      spherical: 0: cubes with soft edges, 1: balls.
    """

    label: int
    arm_position: float
    bending: float
    bg_color: float
    obj_color: float
    pitch: float
    roll: float
    yaw: float
    position_x: float
    position_y: float
    spherical: float

    @property
    def vector(self) -> np.ndarray:
        """float32 [10], in the order of `ATTRIBUTES`."""
        return np.asarray(astuple(self)[1:], np.float32)


def sizes(spherical: float) -> tuple[float, float]:
    """Half the edge of a block, and the radius of its rounding: equal for balls."""
    half = 0.4 + 0.05 * spherical
    return half, 0.07 + (half - 0.07) * spherical


def blocks(animal: Animal) -> tuple[np.ndarray, np.ndarray]:
    """Centers [8,3] of the blocks, and the rotation [3,3] of each.

    x points to the camera, y to the right, z up. The bounding box of the centers is centered before and after the rotations, so
    beyond arm_position 0.5 the whole animal moves a little with its arms, as in the original. Signs of the original's rotations
    are not confirmed; but for yaw, their distributions are symmetric. Its skinning bends blocks a little; here they are rigid.
    """
    bend = animal.bending
    # Columns: where it lies, and which side bends how far (half at the middle, more behind the joint).
    center, frame = [], []
    for y, z in _straight(animal.arm_position):
        side = 1 if y > _MIDDLE else -1
        point, turn = np.array([0.0, y, z]), side * bend / 2
        outer = y < -_MIDDLE or y > 1 + _MIDDLE - 1e-9
        if outer:
            joint = np.array([0.0, _MIDDLE + side * 0.5, 0.0])
            point = joint + _about_x(side * bend) @ (point - joint)
        middle = np.array([0.0, _MIDDLE, 0.0])
        center.append(middle + _about_x(turn) @ (point - middle))
        frame.append(_about_x(turn + (side * bend if outer else 0)))
    turned = _about_x(animal.yaw) @ _about_z(animal.pitch) @ _about_y(animal.roll)
    centers = _boxed(_boxed(np.array(center)) @ turned.T)
    moved = np.array([0, animal.position_x, animal.position_y])
    return centers + moved, turned @ np.array(frame)


def _straight(arm_position):
    """(y, z) of the blocks before anything is bent."""
    right = 1.5 + arm_position
    spine = [(y, 0.0) for y in (-1.0, 0.0, 1.0, 2.0)]
    return [(-1.5, 1.0), (-1.5, -1.0), *spine, (right, 1.0), (right, -1.0)]


def _boxed(points):
    """Points moved so that their bounding box is centered."""
    return points - (points.min(0) + points.max(0)) / 2


def _about_x(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
