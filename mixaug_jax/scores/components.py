"""The largest connected region of a binary map, under jit."""

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import Array, Bool, Count, Mask, Value

Box = tuple[Count, Count, Count, Count]  # row0, col0, row1, col1, ends exclusive


def largest_component(on: Mask) -> Mask:
    """bool [H,W] -> bool [H,W], the region of neighboring True cells (8 neighbors) that has the most; of equals, the last.

    All False where `on` is.
    """
    size = on.size
    # Every cell starts with a label of its own, and the largest spreads over the region.
    labels = jnp.where(on, jnp.arange(1, size + 1).reshape(on.shape), 0)

    def spread(state: tuple) -> tuple:
        labels, _ = state
        new = jax.lax.reduce_window(labels, 0, jax.lax.max, (3, 3), (1, 1), "SAME")
        new = jnp.where(on, new, 0)
        for axis in (0, 1):  # along whole runs at once, so that few rounds are needed
            new = jnp.maximum(_run_max(new, on, axis, False), _run_max(new, on, axis, True))
        return new, (new != labels).any()

    labels, _ = jax.lax.while_loop(lambda state: state[1], spread, (labels, on.any()))
    # Searched from behind, so that of equal regions the last one counts.
    sizes = jnp.zeros(size + 1, jnp.int32).at[labels.ravel()].add(1).at[0].set(0)
    return on & (labels == size - jnp.argmax(sizes[::-1]))


def _run_max(labels, on, axis, reverse):
    """The largest label so far in each unbroken run of True cells along `axis`; 0 outside."""

    def join(left: tuple, right: tuple) -> tuple:
        return jnp.where(right[1], right[0], jnp.maximum(left[0], right[0])), left[1] | right[1]

    return jax.lax.associative_scan(join, (labels, ~on), reverse=reverse, axis=axis)[0]


def tight_box(region: Mask) -> Box:
    """bool [H,W] -> the smallest box (row0, col0, row1, col1) around its True cells, ends exclusive; empty: (H, W, 0, 0)."""

    def span(line: Bool[Array, " n"]) -> tuple[Count, Count]:
        place = jnp.arange(line.size)
        return jnp.where(line, place, line.size).min(), jnp.where(line, place + 1, 0).max()

    (row0, row1), (col0, col1) = span(region.any(1)), span(region.any(0))
    return row0, col0, row1, col1


def box_iou(a: Box, b: Box) -> Value:
    """Intersection over union of two boxes (row0, col0, row1, col1), float32; 0 where both are empty."""

    def area(box: Box) -> Count:
        return jnp.maximum(box[2] - box[0], 0) * jnp.maximum(box[3] - box[1], 0)

    common = (*(jnp.maximum(p, q) for p, q in zip(a[:2], b[:2], strict=True)),)
    common += (*(jnp.minimum(p, q) for p, q in zip(a[2:], b[2:], strict=True)),)
    # A box of no pixel has its ends before its starts, and no negative area.
    both = area(common)
    return both / jnp.maximum(area(a) + area(b) - both, 1)
