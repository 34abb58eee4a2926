"""Labels of a grid of least energy: a minimum cut, found on the device by primal-dual steps.

The energy of labels k = 0..K on a grid is the sum of unary[k] over cells and of w (k_p - k_q)^2 / K^2 over neighbors, w >= 0.
In level sets x^a = [k >= a] it is a cut: (k_p - k_q)^2 is the sum of |x_p^a - x_q^b| over the K^2 pairs of levels, less
k (K - k) of either end, which joins the unaries. The linear program of a cut has whole solutions, so what is left to do is to
solve it (Chambolle & Pock, doi 10.1007/s10851-010-0251-1, over-relaxed) and to round it.
"""

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Array, Count, Float, Int

_THRESHOLDS = (0.25, 0.5, 0.75)
_SWEEPS = 2

Unary = Float[AnyArray, "B n m L"]


def least_labels(
    unary: Unary,
    rows: Float[AnyArray, "B n_1 m"],
    cols: Float[AnyArray, "B n m_1"],
    *,
    iterations: int = 100,
) -> Int[Array, "B n m"]:
    """Labels that make the energy smallest, or nearly so.

    Args:
      unary: float32 [B,n,m,L], the cost of each of the L = 2 or 3 labels in each cell.
      rows: float32 [B,n-1,m] >= 0, the weight between a cell and the one below it.
      cols: float32 [B,n,m-1] >= 0, between a cell and the one to its right.
      iterations: primal-dual steps; 100 come within 5e-4 of the minimum on maps of saliency.

    Returns:
      int32 [B,n,m] in 0..L-1. What cells without costs and weights have as neighbors does not matter, so grids may be padded.
    """
    # The batch last: a step is arithmetic on neighbors along the first axes, and the longest axis is contiguous.
    costs = jnp.moveaxis(unary.astype(jnp.float32), (0, 3), (3, 0))
    rows, cols = (jnp.moveaxis(w.astype(jnp.float32), 0, 2) for w in (rows, cols))
    weights = (
        jnp.pad(rows, ((0, 1), (0, 0), (0, 0))),
        jnp.pad(cols, ((0, 0), (0, 1), (0, 0))),
    )
    levels = _relaxed(costs, weights, iterations)
    count = costs.shape[0]
    rounded = [(levels > at).sum(0) for at in _THRESHOLDS]
    constant = [jnp.full(levels.shape[1:], k) for k in range(count)]
    tried = _descended(jnp.stack(rounded), costs, weights)
    tried = jnp.concatenate([tried, jnp.stack(constant)])
    energies = _energy(tried, costs, weights)
    best = energies.argmin(0)
    return jnp.moveaxis(jnp.take_along_axis(tried, best[None, None, None], 0)[0], 2, 0)


def _ahead(x, axis):
    """Each cell's neighbor below (-3) or to the right (-2); 0 beyond the edge."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, 1)
    return jnp.pad(jax.lax.slice_in_dim(x, 1, None, axis=axis), pad)


def _behind(x, axis):
    """Each cell's neighbor above or to the left; 0 beyond the edge."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 0)
    return jnp.pad(jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis), pad)


_AXES = (-3, -2)


def _relaxed(costs, weights, iterations):
    """The level sets [K,n,m,B] in 0..1 that solve the linear program, nearly."""
    top = costs.shape[0] - 1
    incident = sum(w + _behind(w, axis) for w, axis in zip(weights, _AXES, strict=True))
    level = jnp.arange(top + 1)[:, None, None, None]
    own = costs - level * (top - level) / top**2 * incident
    slope = own[1:] - own[:-1]
    # Steps suit costs of about 1, whatever the grid; cells that pad it do not count.
    used = jnp.maximum((slope != 0).sum((0, 1, 2)), 1)
    scale = jnp.abs(slope).sum((0, 1, 2)) / used
    scale = jnp.where(scale > 0, scale, 1)
    ratio = 12.0 if top > 1 else 4.0
    # Cells in one row, and a row of the grid beyond either end: neighbors are then slices, and nothing is padded in a step,
    # which on a CPU takes seventeen times as long. An edge from the end of a row to the next one's start has the weight 0.
    count, height, width, batch = slope.shape
    cells, ends = height * width, (height + 2) * width
    slope = (slope / scale).reshape(count, cells, batch)
    limits = [(w / (scale * top**2)).reshape(cells, batch) for w in weights]

    def at(x: Array, shift: int = 0):
        return x[..., width + shift : width + shift + cells, :]

    def put(x: Array, value: Array):
        return jax.lax.dynamic_update_slice(x, value, (*[0] * (x.ndim - 2), width, 0))

    def step(_: Count, state: tuple):
        x, ahead, flows = state
        moved, inflow = [], slope
        for flow, limit, shift in zip(flows, limits, (width, 1), strict=True):
            slopes = at(ahead, shift)[None] - at(ahead)[:, None]
            flow = put(flow, jnp.clip(at(flow) + 0.5 / ratio * slopes, -limit, limit))
            into, out = at(flow, -shift), at(flow)
            inflow += sum(into[k] for k in range(top)) - sum(out[:, k] for k in range(top))
            moved.append(flow)
        new = _ordered(x - ratio / (4 * top) * inflow)
        return new, put(ahead, 2 * new - x), tuple(moved)

    x = jnp.full(slope.shape, 0.5)
    start = (x, jnp.full((count, ends, batch), 0.5), (jnp.zeros((count, count, ends, batch)),) * 2)
    return jax.lax.fori_loop(0, iterations, step, start)[0].reshape(count, height, width, batch)


def _ordered(x):
    """The nearest level sets: in 0..1, each within the one before."""
    if len(x) == 2:  # the mean of two in the wrong order
        surplus = jnp.maximum(x[1] - x[0], 0) / 2
        x = x + jnp.stack([surplus, -surplus])
    return jnp.clip(x, 0, 1)


def _descended(labels, costs, weights):
    """Labels [T,n,m,B] after sweeps in which the cells of one color of a checkerboard choose their best, then the others'."""
    top = costs.shape[0] - 1
    total = sum(w + _behind(w, axis) for w, axis in zip(weights, _AXES, strict=True))
    share = jnp.arange(top + 1)[:, None, None, None] / top
    fixed = costs + share**2 * total
    color = (jnp.arange(labels.shape[1])[:, None] + jnp.arange(labels.shape[2])) % 2

    def half(turn: Count, labels: Array):
        t = labels / top
        pull = sum(
            w * _ahead(t, axis) + _behind(w * t, axis)
            for w, axis in zip(weights, _AXES, strict=True)
        )
        best = (fixed - 2 * share * pull[:, None]).argmin(1).astype(labels.dtype)
        return jnp.where((color == turn % 2)[..., None], best, labels)

    return jax.lax.fori_loop(0, 2 * _SWEEPS, half, labels)


def _energy(labels, costs, weights):
    """The energies [T,B] of labels [T,n,m,B]."""
    top = costs.shape[0] - 1
    chosen = sum(jnp.where(labels == k, costs[k], 0) for k in range(top + 1))
    t = labels / top
    # Beyond the edge the weight is 0.
    bent = sum(w * jnp.square(_ahead(t, axis) - t) for w, axis in zip(weights, _AXES, strict=True))
    return (chosen + bent).sum((1, 2))
