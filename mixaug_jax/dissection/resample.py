"""Where the pixels of a label map fall between the nodes of an activation map.

Half-pixel centers: pixel t of an axis of H pixels lies at (t + 1/2) h/H - 1/2 on the axis of the h
nodes, which is `jax.image.resize(..., "bilinear", antialias=False)` and torch's
`align_corners=False`. Beyond the outer nodes stands one more node on each side: a copy of the outer
one (padding "edge"), or 0 (padding "zero", the geometry of github.com/davidbau/dissect, where the
values of a border strip half a cell wide fade to about a half). A *cell* is the space between two
neighboring nodes along an axis, or between four on the map.

Values are clamped between the corners that they lie between, so that rounding never lifts a pixel
above its corners: a constant map stays constant, and a cell whose corners are all at most T has no
pixel above T. Both hold exactly in float32.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Bool, Float, Int

PADDINGS = ("edge", "zero")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Maps of `nodes` (h, w) under label maps of `size` (H, W), with "edge" or "zero" padding."""

    nodes: tuple[int, int]
    size: tuple[int, int]
    padding: str

    def __post_init__(self):
        checks.choice("padding", self.padding, PADDINGS)

    @property
    def pixels(self) -> int:
        """Of a label map."""
        return self.size[0] * self.size[1]


def pixels(
    source: int, target: int
) -> tuple[Int[np.ndarray, " target"], Float[np.ndarray, " target"]]:
    """The lower node [target], numbered with padding (0..source), and the fraction [target] float32
    of the way to the next node, for each pixel of an axis."""
    # (t + 1/2) source/target - 1/2 in integers: exact where a center falls on a node.
    node, rest = np.divmod((2 * np.arange(target) + 1) * source - target, 2 * target)
    return node + 1, (rest / (2 * target)).astype(np.float32)


def cells(
    source: int, target: int
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m e"], Bool[np.ndarray, "m e"]]:
    """The pixels of an axis by the cell that holds them.

    Returns, for the m cells that hold a pixel and the e pixels of the fullest of them: the lower
    node [m], the pixels' fractions [m,e] float32, and which of those are pixels [m,e] bool.
    """
    node, fraction = pixels(source, target)
    starts, cell, counts = np.unique(node, return_inverse=True, return_counts=True)
    place = np.arange(target) - np.searchsorted(node, node)
    fractions = np.zeros((len(starts), counts.max()), np.float32)
    real = np.zeros(fractions.shape, bool)
    fractions[cell, place], real[cell, place] = fraction, True
    return starts, fractions, real


def cell_pixels(grid: Grid) -> int:
    """The most pixels that a cell can hold."""
    sides = zip(grid.nodes, grid.size, strict=True)
    return math.prod(cells(source, target)[1].shape[1] for source, target in sides)


def pad(activations: Float[AnyArray, "h w U"], grid: Grid) -> Float[jax.Array, "h+2 w+2 U"]:
    """One node around [h,w,U]."""
    mode = "edge" if grid.padding == "edge" else "constant"
    return jnp.pad(activations, ((1, 1), (1, 1), (0, 0)), mode)


def lerp(
    a: Float[AnyArray, "*S"], b: Float[AnyArray, "*S"], fraction: Float[AnyArray, "..."]
) -> Float[jax.Array, "..."]:
    """From a to b, never outside them; the same float32 in every program."""
    # The bound, which nothing finite passes, stands between product and sum: compilers would join
    # them into one operation of one rounding in some programs and not in others, and counts must
    # not depend on the program.
    value = a + jnp.maximum(fraction * (b - a), np.finfo(np.float32).min)
    return jnp.clip(value, jnp.minimum(a, b), jnp.maximum(a, b))


def upsample(activations: Float[AnyArray, "h w U"], grid: Grid) -> Float[jax.Array, "H W U"]:
    """A map [h,w,U] float32 at label-map size [H,W,U]."""
    row, row_fraction = pixels(grid.nodes[0], grid.size[0])
    column, column_fraction = pixels(grid.nodes[1], grid.size[1])
    nodes = pad(activations, grid)
    rows = lerp(nodes[row], nodes[row + 1], row_fraction[:, None, None])
    return lerp(rows[:, column], rows[:, column + 1], column_fraction[:, None])


def largest_corner(
    nodes: Float[AnyArray, "h w U"], grid: Grid
) -> Float[jax.Array, "rows columns U"]:
    """The largest of the four corners of each cell that holds a pixel, [rows,columns,U], from a
    padded map [h+2,w+2,U]."""
    row, column = cells(grid.nodes[0], grid.size[0])[0], cells(grid.nodes[1], grid.size[1])[0]
    top = jnp.maximum(nodes[row], nodes[row + 1])
    return jnp.maximum(top[:, column], top[:, column + 1])


def cell_values(
    nodes: Float[AnyArray, "h w U"],
    grid: Grid,
    r: Int[AnyArray, " M"],
    c: Int[AnyArray, " M"],
    u: Int[AnyArray, " M"],
) -> tuple[Float[jax.Array, "M e f"], Bool[jax.Array, "M e f"]]:
    """The pixels of chosen cells, as `upsample` computes them.

    Args:
      nodes: a padded map [h+2,w+2,U].
      r, c, u: [M], places of the cells in `largest_corner`.

    Returns:
      values [M,e,f] of the up to e x f pixels of a cell, and which of them are pixels, bool.
    """
    row, row_fraction, row_real = map(jnp.asarray, cells(grid.nodes[0], grid.size[0]))
    column, column_fraction, column_real = map(jnp.asarray, cells(grid.nodes[1], grid.size[1]))
    _, width, units = nodes.shape
    corner = (row[r] * width + column[c]) * units + u
    flat = nodes.reshape(-1)  # one gather of single numbers, not of whole rows of units

    def along_rows(corner: jax.Array) -> jax.Array:
        return lerp(flat[corner][:, None], flat[corner + width * units][:, None], row_fraction[r])

    left, right = along_rows(corner), along_rows(corner + units)
    values = lerp(left[:, :, None], right[:, :, None], column_fraction[c][:, None])
    return values, row_real[r][:, :, None] & column_real[c][:, None]
