"""Backpropagation in other semirings: statistics of all paths from an output to a pixel, in one backward pass.

A gradient is the sum over paths of the products of the derivatives along each. Du et al. 2023 (arXiv 2307.03056) put other
sums and products in their place. What an edge is decides the result: here a convolution or dense layer with its batch norm is
one layer of edges, a ReLU is a gate, an average of k numbers has k edges of 1/k, a max pool that of its winner, a residual sum
two of 1."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import rules
from mixaug_jax.attribution.target import nan_like, select
from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Attribution, Features, Float, Image, Label, Net

STATISTICS = ("abs", "top", "bottom", "entropy")


def gradient_paths(net: Net, image: Image, label: Label, *, statistic: str = "abs") -> Attribution:
    """A statistic of all paths from the logit to each number of the image (Du et al. 2023, arXiv 2307.03056).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      statistic: "abs", the sum of the paths' absolute values, at least the gradient's; "top" and "bottom", the largest and the
        smallest path; or "entropy" of the shares of the paths' absolute values, in nats, of all channels of a pixel together.
        A path that a ReLU shuts has the value 0. Without any path all are 0.

    Returns:
      [h,w,C], of "entropy" [h,w,1].

    Raises:
      checks.UnsupportedError: a network without rules, one that normalizes before its convolutions, for all but "abs" one of
        leaky ReLUs, and for "top" and "bottom" one of grouped convolutions, or whose shortcuts do not branch by
        `StagedModel.branch`.
      ValueError: another statistic.
    """
    return layer_paths(net, checks.image(image), label, statistic=statistic)


def layer_paths(
    net: Net, image: Image, label: Label, *, statistic: str = "abs", layer: str = ""
) -> Float[Array, "..."]:
    """`gradient_paths` to each number of the output of `layer`, of its shape; to the image's for ""."""
    checks.choice("statistic", statistic, STATISTICS)
    if statistic == "entropy":
        _check_gates(net)
    x = image[None]
    value = net.features(x, layer) if layer else x

    def run(ruled: Net, h: Features) -> Array:
        pair = jnp.concatenate([x] * len(h))
        return ruled.logits(pair, layer=layer, value=h) if layer else ruled.logits(h)

    # Of a network with one logit, class 0 has minus that.
    logits = run(net, value)
    sign = jax.grad(lambda z: select(net, z, label, "logit")[0])(logits)
    if statistic == "abs":
        ruled = net.with_rules(affine=absolute_affine)
        return nan_like(logits.sum(), _back(run, ruled, value, jnp.abs(sign))[0])
    pair = jnp.concatenate([value] * 2)
    if statistic == "entropy":
        ruled = net.with_rules(affine=entropy_affine, pool=entropy_pool)
        start = jnp.concatenate([jnp.abs(sign), jnp.zeros_like(sign)])
        total, mixed = _back(run, ruled, pair, start).sum(-1, keepdims=True)
        safe = jnp.where(total > 0, total, 1)
        return nan_like(logits.sum(), jnp.where(total > 0, mixed / safe + jnp.log(safe), 0))
    _check_branches(net, x)
    ruled = net.with_rules(
        affine=extreme_affine, act=extreme_act, pool=extreme_pool, fork=extreme_fork
    )
    start = jnp.concatenate(
        [jnp.where(sign != 0, sign, -jnp.inf), jnp.where(sign != 0, sign, jnp.inf)]
    )
    found = _back(run, ruled, pair, start)[0 if statistic == "top" else 1]
    return nan_like(logits.sum(), jnp.where(jnp.isfinite(found), found, 0))


def path_entropy(net: Net, image: Image, label: Label) -> Float[Array, ""]:
    """How many routes a decision uses: the mean over pixels of the entropy of their paths, weighted by the sums of absolute
    values; nats."""
    entropy = gradient_paths(net, image, label, statistic="entropy")[..., 0]
    weight = gradient_paths(net, image, label, statistic="abs").sum(-1)
    total = weight.sum()
    return (entropy * weight).sum() / jnp.where(total > 0, total, 1)


def _back(run, ruled, value, start):
    return jax.vjp(functools.partial(run, ruled), value)[1](start)[0]


def _check_gates(net):
    """Whether a ReLU is open or shut: a leaky one's slope is an edge that adds to the entropy."""
    slope = getattr(net.model, "slope", 0.0)
    if slope:
        raise checks.UnsupportedError(
            f"{net.name} has leaky ReLUs (slope {slope:g}), of whose paths statistic abs is known, and entropy, top and bottom "
            "are not"
        )


def _check_branches(net, x):
    """Whether each residual sum has a branch, without which sums would be taken for maxima."""
    sums, branches = [], []

    def add(name: str, x: AnyArray, y: AnyArray) -> Array:
        sums.append(name)
        return x + y

    def fork(name: str, x: AnyArray) -> tuple[AnyArray, AnyArray]:
        branches.append(name)
        return x, x

    # Traced alone: the rules note their calls, and nothing is computed.
    jax.eval_shape(net.with_rules(add=add, fork=fork).logits, x)
    # Branches whose results stand side by side, as an Inception's, have no sum.
    if len(sums) > len(branches):
        raise checks.UnsupportedError(
            f"{net.name} has {len(sums)} residual sums and {len(branches)} branches, so the largest path cannot be told; "
            "statistic abs or entropy can"
        )


def _transposed(linear, x, kernel, bias, r):
    """What `linear` with this kernel sends back."""
    return jax.vjp(lambda x: linear(x, kernel, bias), x)[1](r)[0]


def absolute_affine(
    name: str, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray
) -> Array:
    """The backward rule of the sum of absolute values: that of |kernel|."""

    def backward(x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray) -> tuple:
        back = _transposed(linear, x, jnp.abs(kernel), bias, r)
        return back, jnp.zeros_like(kernel), jnp.zeros_like(bias)

    return rules.replaced(linear, backward, x, kernel, bias)


def entropy_affine(
    name: str, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray
) -> Array:
    """The backward rule of pairs (a, e), for x [2,...]: a sum of absolute values, and e = -sum |path| log |path|."""

    def backward(x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray) -> tuple:
        size = jnp.abs(kernel)
        # A product's rule for -a log a: what a path's entropy gains by one more edge.
        spread = -size * jnp.log(jnp.where(size > 0, size, 1))
        both = _transposed(linear, x, size, bias, r)
        more = _transposed(linear, x[:1], spread, bias, r[:1])
        back = both + jnp.concatenate([jnp.zeros_like(more), more])
        return back, jnp.zeros_like(kernel), jnp.zeros_like(bias)

    return rules.replaced(linear, backward, x, kernel, bias)


def entropy_pool(name: str, plain: Callable, x: AnyArray) -> Array:
    """The same of an average; a max pool's winner has an edge of 1."""
    if _is_max(name):
        return plain(x)

    def backward(x: AnyArray, r: AnyArray) -> tuple[Array]:
        _, vjp = jax.vjp(plain, x)

        def add(total: Array, part: Array) -> tuple[Array, None]:
            (back,) = vjp(jnp.where(part, r[:1], 0).repeat(2, 0))
            # One window's edges alone, which the gradient of ones tells.
            (edge,) = vjp(jnp.broadcast_to(part, r.shape).astype(r.dtype))
            return total - jnp.log(jnp.where(edge > 0, edge, 1))[:1] * back[:1], None

        more, _ = jax.lax.scan(add, jnp.zeros_like(x[:1]), _parts(x.shape, r.shape, 1))
        return (vjp(r)[0] + jnp.concatenate([jnp.zeros_like(more), more]),)

    return rules.replaced(plain, backward, x)


def _is_max(name):
    return name.rpartition(".")[2].startswith("max")


def extreme_affine(
    name: str, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray
) -> Array:
    """The backward rule of pairs (largest, smallest), for x [2,...]; minus and plus infinity where there is no path.

    Raises:
      checks.UnsupportedError: a grouped convolution.
    """
    if kernel.shape[-2] != x.shape[-1]:
        raise checks.UnsupportedError(
            f"layer {name} is a grouped convolution, of which statistic abs and entropy are known, top and bottom are not"
        )

    def backward(x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray) -> tuple:
        return _extremes(linear, x, kernel, r), jnp.zeros_like(kernel), jnp.zeros_like(bias)

    return rules.replaced(linear, backward, x, kernel, bias)


def _extremes(linear, x, kernel, r):
    """Over all outputs that an input reaches: products of both ends with the edge, then the largest and the smallest."""
    *window, inputs, filters = kernel.shape
    edges = jnp.asarray(kernel).reshape(-1, inputs, filters)
    wide = jnp.zeros((*x.shape[:-1], filters), x.dtype)
    none = jnp.zeros((filters,), x.dtype)
    known = jnp.isfinite(r)
    values = jnp.where(known, r, 0)

    def place(ends: tuple, at: Array) -> tuple[tuple, None]:
        # One place of the window moves every output to one input: by the layer's own transpose, whatever its stride and
        # padding.
        one = jax.nn.one_hot(at, len(edges), dtype=x.dtype).reshape(*window, 1, 1)
        moved = one * jnp.eye(filters, dtype=x.dtype)
        back = _transposed(linear, wide, moved, none, values)
        there = _transposed(linear, wide, moved, none, known.astype(x.dtype)) > 0.5

        def output(ends: tuple, k: Array) -> tuple[tuple, None]:
            # A loop over outputs: their products with all inputs would not fit in memory.
            both = back[..., k, None] * edges[at, :, k]
            most, least = jnp.maximum(both[0], both[1]), jnp.minimum(both[0], both[1])
            real = there[0, ..., k, None]
            high = jnp.maximum(ends[0], jnp.where(real, most, -jnp.inf))
            return (high, jnp.minimum(ends[1], jnp.where(real, least, jnp.inf))), None

        return jax.lax.scan(output, ends, jnp.arange(filters))[0], None

    shape = x.shape[1:]
    empty = (jnp.full(shape, -jnp.inf, x.dtype), jnp.full(shape, jnp.inf, x.dtype))
    return jnp.stack(jax.lax.scan(place, empty, jnp.arange(len(edges)))[0])


def extreme_act(name: str, x: AnyArray) -> Array:
    """A ReLU that is shut makes paths of 0."""
    rules.check_relu(name)

    def backward(x: AnyArray, r: AnyArray) -> tuple[Array]:
        return (jnp.where((x > 0) | ~jnp.isfinite(r), r, 0),)

    return rules.replaced(jax.nn.relu, backward, x)


def extreme_pool(name: str, plain: Callable, x: AnyArray) -> Array:
    """A max pool's winners, an average's edges of 1/k; where windows overlap, the extremes of all.

    Those of a max pool overlap by at most half, or, where the map keeps its size, are 3 wide.
    """

    def backward(x: AnyArray, r: AnyArray) -> tuple[Array]:
        _, vjp = jax.vjp(plain, x)
        # Infinity stands for no path, and infinity times 0 would be NaN.
        known = jnp.isfinite(r)

        def widen(ends: tuple, part: Array) -> tuple[tuple, None]:
            (value,) = vjp(jnp.where(known & part, r, 0).astype(r.dtype))
            (there,) = vjp((known & part).astype(r.dtype))
            high = jnp.maximum(ends[0], jnp.where(there[0] > 0, value[0], -jnp.inf))
            return (high, jnp.minimum(ends[1], jnp.where(there[1] > 0, value[1], jnp.inf))), None

        empty = jnp.full(x.shape[1:], -jnp.inf, x.dtype), jnp.full(x.shape[1:], jnp.inf, x.dtype)
        parts = _parts(x.shape, r.shape, 2 if _is_max(name) else 1)
        return (jnp.stack(jax.lax.scan(widen, empty, parts)[0]),)

    return rules.replaced(plain, backward, x)


def _parts(shape, pooled, overlap):
    """Masks [parts,1,h,w,1] of the windows of a pool [B,h,w,C] of `shape`: no two windows of a part share a pixel, so that
    nothing is added up.

    A window reaches over at most `overlap` pixels beyond its share of the side, rounded up.
    """
    if len(pooled) < 4:
        return jnp.ones((1, *[1] * len(pooled)), bool)
    turns = []
    for side, count in zip(shape[1:3], pooled[1:3], strict=True):
        apart = overlap == 1 and side % count == 0
        step = 1 if apart else min(1 - (-overlap * count // side), count)
        turns.append(np.arange(count) % step == np.arange(step)[:, None])
    rows, columns = turns
    both = rows[:, None, :, None] & columns[None, :, None, :]
    return jnp.asarray(both.reshape(-1, 1, *pooled[1:3], 1))


def _twice(x):
    return x, x


def extreme_fork(name: str, x: AnyArray) -> tuple[Array, Array]:
    """Where a block and its shortcut part, the extremes of both come back."""

    def backward(x: AnyArray, r: tuple) -> tuple[Array]:
        one, other = r
        ends = jnp.maximum(one[0], other[0]), jnp.minimum(one[1], other[1])
        return (jnp.stack(ends),)

    return rules.replaced(_twice, backward, x)
