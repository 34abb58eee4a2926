"""Where the pixels of a label map fall between the nodes of an activation map.

Half-pixel centres: pixel t of a target axis with H pixels lies at (t + 1/2) h/H - 1/2 on a source axis of h nodes, which is
`jax.image.resize(..., "bilinear", antialias=False)` and torch's `align_corners=False`. Beyond the outer nodes stands one more node on
each side: a copy of the outer one (padding "edge") or 0 (padding "zero", the geometry of github.com/davidbau/dissect, where the
values of a border strip half a cell wide fade to about a half). A *cell* is the space between two neighbouring nodes.

Values are clamped between the corners that they lie between, so rounding never lifts a pixel above its corners: a constant map stays
constant, and a cell whose corners are all at most T has no pixel above T. Both hold exactly in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np

PADDINGS = ("edge", "zero")


def pixels(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower node [target] int (numbered with the padding: 0..source) and the fraction [target] float32 of each pixel."""
    # (t + 1/2) source/target - 1/2 in integers: exact where a centre falls on a node.
    numerator = (2 * np.arange(target) + 1) * source - target
    node, rest = np.divmod(numerator, 2 * target)
    return node + 1, (rest / (2 * target)).astype(np.float32)


def cells(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same pixels by cell: lower node [m] of each cell that holds one, fractions [m, e] float32, which are real [m, e] bool."""
    node, fraction = pixels(source, target)
    starts, cell, counts = np.unique(node, return_inverse=True, return_counts=True)
    place = np.arange(target) - np.searchsorted(node, node)
    fractions = np.zeros((len(starts), counts.max()), np.float32)
    real = np.zeros(fractions.shape, bool)
    fractions[cell, place], real[cell, place] = fraction, True
    return starts, fractions, real


def pad(activations: jax.Array, padding: str) -> jax.Array:
    """One node around [h, w, ...] float32: a copy of the border ("edge") or zeros ("zero")."""
    widths = [(1, 1), (1, 1)] + [(0, 0)] * (activations.ndim - 2)
    return jnp.pad(activations, widths, mode="edge" if padding == "edge" else "constant")


def lerp(a, b, fraction):
    """From a to b, never outside them."""
    # One product and one sum, so that a compiler which contracts them into one rounding does so in every program alike.
    value = a + fraction * (b - a)
    return jnp.clip(value, jnp.minimum(a, b), jnp.maximum(a, b))


def upsample(activations: jax.Array, size: tuple[int, int], padding: str) -> jax.Array:
    """One map [h, w, U] float32 at label-map size [H, W, U]."""
    row, row_fraction = pixels(activations.shape[0], size[0])
    column, column_fraction = pixels(activations.shape[1], size[1])
    nodes = pad(activations, padding)
    rows = lerp(nodes[row], nodes[row + 1], row_fraction[:, None, None])
    return lerp(rows[:, column], rows[:, column + 1], column_fraction[:, None])


def check_padding(padding: str) -> None:
    if padding not in PADDINGS:
        raise ValueError(f"padding={padding!r} is not known; use one of {', '.join(PADDINGS)}")

