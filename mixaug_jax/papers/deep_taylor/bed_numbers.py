"""What the study measures on its test bed: roots and regions of every layer, and every kind of recursion."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import Array, Count, Float
from mixaug_jax.papers.deep_taylor import admissible, drawing, recursion, relu_stack
from mixaug_jax.papers.deep_taylor import roots as roots_lib
from mixaug_jax.papers.deep_taylor.recursion import Recursion
from mixaug_jax.papers.deep_taylor.relu_stack import Stack, inputs_of

DIRECTIONS = 24  # in which a region is looked for, the number of published points
FEW = 100  # inputs of what is costly: sampled roots
LARGEST = 10**6  # a tree of roots, see `tree_size`
AT_ONCE = (
    10**6
)  # of its values, those of several inputs together: all inputs of the published test bed


@dataclasses.dataclass(frozen=True)
class Bed:
    """What is measured.

    Attributes:
      rules: of `roots.RULES`.
      gamma: of that rule.
      delta: see `Recursion`.
      seed: of the directions in which regions are looked for.
    """

    rules: tuple[str, ...] = roots_lib.RULES
    gamma: float = 1.0
    delta: float = 0.01
    seed: int = 0


def measure(stack: Stack, x: Float[np.ndarray, "N in"], bed: Bed) -> dict[str, np.ndarray]:
    """Everything of the test bed, in float64 whatever the package computes in.

    Args:
      stack: the network.
      x: inputs whose first output is above 0.
      bed: what to measure.

    Returns:
      By rule "roots/RULE/READING/NAME" [N,layers], READING "activation" or "relevance": of the neurons that are active, and
      have a root, the share whose root is in_region (every ReLU as at the input), same_gradient, segment, not_negative; the
      share without_root of those that are active; the number of exceptions, roots in the region without the gradient; the mean
      distance |h - root| / |h| and the mean of what the first output is
      at the root, as a share of what it is.
      "maps/RULE", "maps/RULE/other" [N,in], and of "gradient": train-free maps of outputs 0 and 1.
      "full/RULE/published|exact" [N,in]. "recursive/RULE/left" [N], the mean output at the leaves of the tree, as a share.
      Of the first `FEW` inputs: "sampled/map" [n,in] and "sampled/kept" [n]; "constant/error" [n], between the
      recursion with one constant root a layer and gradient times (x - root); "regions/widths|lowest" [n,layers], the mean width
      of the region and the lowest output in it as a share; "drawing/error|slope|same|apart" [n], of a ramp as an explanation.
    """
    # Near a border of a region float32 cannot tell on which side a root lies.
    with jax.enable_x64(True):
        found = {
            name: np.asarray(value)
            for rule in bed.rules
            for name, value in _of_rule(stack, jnp.asarray(x), rule, bed).items()
        }
        found |= {k: np.asarray(v) for k, v in _gradients(stack, jnp.asarray(x)).items()}
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(bed.seed)))
        few = jnp.asarray(x[:FEW])
        found |= {
            k: np.asarray(v) for k, v in _of_regions(stack, few, keys(jnp.arange(len(few)))).items()
        }
        found |= {
            k: np.asarray(v) for k, v in _drawings(stack, few, keys(jnp.arange(len(few)))).items()
        }
    return found


@functools.partial(jax.jit, static_argnums=(2, 3))
def _of_rule(stack, x, rule, bed):
    def one(x: Array) -> dict[str, Array]:
        found = {f"maps/{rule}": recursion.train_free(stack, x, rule, bed.gamma)[0][0]}
        left = recursion.recursive(stack, x, rule, bed.gamma)
        found[f"recursive/{rule}/left"] = (left / relu_stack.forward(stack, x)[0]).mean()
        found[f"maps/{rule}/other"] = recursion.train_free(stack, x, rule, bed.gamma, output=1)[0][
            0
        ]
        for kind in ("published", "exact") if rule != "zero" else ():
            how = Recursion(rule, bed.gamma, bed.delta, kind == "exact")
            found[f"full/{rule}/{kind}"] = recursion.full_backward(stack, x, how)
        for reading in ("activation", "relevance"):
            told = _judged(stack, x, rule, bed.gamma, reading)
            found |= {f"roots/{rule}/{reading}/{name}": value for name, value in told.items()}
        return found

    return _every(one, stack, x)


def _every(one, stack, *rows):
    """`one` of every input, of as many at once as their trees of roots leave memory for."""
    at_once = max(1, AT_ONCE // tree_size(len(stack), len(stack[0].kernel)))
    if at_once >= len(rows[0]):
        return jax.vmap(one)(*rows)
    return jax.lax.map(lambda row: one(*row), rows, batch_size=at_once)


def tree_size(depth: Count, width: Count) -> int:
    """How many values the recursions of one input hold: each neuron's root has roots of its own in the next layer.

    Raises:
      ValueError: more than fit into memory.
    """
    if width**depth > LARGEST:
        raise ValueError(
            f"taylor.width ** taylor.depth must be at most {LARGEST}, as each root has roots in the next layer; got "
            f"{width} ** {depth}"
        )
    return width**depth


def _judged(stack, x, rule, gamma, reading):
    """The verdicts on the roots of every layer, shares of its neurons that count: {name: [layers]}."""
    stack = recursion.explained(stack, 0)
    hidden, received = inputs_of(stack, x), recursion.train_free(stack, x, rule, gamma)
    columns = []
    for k, (layer, h) in enumerate(zip(stack, hidden[:-1], strict=True)):
        if reading == "activation":
            points, has, active = roots_lib.own_roots(rule, h, layer, gamma)
        else:
            points, has = received[1][k], received[2][k]
            active = (received[0][k + 1] if k + 1 < len(stack) else hidden[-1]) > 0
        verdict = admissible.judge(stack[k:], h, points)
        left = (
            jax.vmap(lambda at, k=k: relu_stack.forward(stack[k:], at)[0])(points) / hidden[-1][0]
        )
        values = {
            "in_region": verdict.same_pattern,
            "same_gradient": verdict.same_gradient,
            "segment": verdict.segment,
            "not_negative": (points >= 0).all(-1),
            "distance": jnp.linalg.norm(points - h, axis=-1) / jnp.linalg.norm(h),
            "output_left": left,
        }
        counts = active & has
        column = {name: _mean(value, counts) for name, value in values.items()}
        # A root in the region must have the gradient, and so must the way to it.
        wrong = verdict.same_pattern & ~(verdict.same_gradient & verdict.segment) & counts
        columns.append(column | {"without_root": _mean(~has, active), "exceptions": wrong.sum()})
    return {name: jnp.stack([column[name] for column in columns]) for name in columns[0]}


def _mean(values, counts):
    """Over those that count; NaN where none does."""
    number = counts.sum()
    return jnp.where(
        number > 0, jnp.where(counts, values, 0).sum() / jnp.maximum(number, 1), jnp.nan
    )


@jax.jit
def _gradients(stack, x):
    def one(x: Array) -> dict[str, Array]:
        zero = jnp.zeros_like(x)
        names = ("maps/gradient", "maps/gradient/other")
        return {n: recursion.gradient_times(stack, x, zero, k) for k, n in enumerate(names)}

    return jax.vmap(one)(x) | {"output": relu_stack.forward(stack, x)}


@jax.jit
def _of_regions(stack, x, keys):
    whole = stack
    stack = recursion.explained(stack, 0)

    def one(x: Array, key: Array) -> dict[str, Array]:
        candidates, widths, lowest = [], [], []
        hidden = inputs_of(stack, x)
        for k, h in enumerate(hidden[:-1]):
            ways = admissible.unit_directions(jax.random.fold_in(key, k), DIRECTIONS, len(h))
            # Points at the border of the region in random directions: as far as roots of this layer may lie.
            candidates.append(admissible.reach(stack[k:], h, ways))
            widths.append(admissible.widths(candidates[-1]))
            outputs = relu_stack.forward(stack[k:], candidates[-1])[:, 0]
            lowest.append(outputs.min() / hidden[-1][0])
        relevance, _ = recursion.sampled(whole, x, candidates)
        # Halfway to the border, so surely inside: there the claim is exact, and what is left is rounding.
        ones = [(h + points[0]) / 2 for h, points in zip(hidden, candidates, strict=False)]
        constant = recursion.locally_constant(whole, x, ones)
        expected = recursion.gradient_times(whole, x, ones[0])
        return {
            "sampled/map": relevance,
            "constant/error": jnp.abs(constant - expected).max() / jnp.abs(expected).max(),
            "sampled/kept": relevance.sum() / hidden[-1][0],
            "regions/widths": jnp.stack(widths),
            "regions/lowest": jnp.stack(lowest),
        }

    return _every(one, stack, x, keys)


@jax.jit
def _drawings(stack, x, keys):
    stack = recursion.explained(stack, 0)
    parts = drawing.Parts(
        lambda x: relu_stack.forward(stack[:1], x),
        lambda h: relu_stack.forward(stack[1:], h)[0],
    )

    def one(x: Array, key: Array) -> dict[str, Array]:
        on = admissible.pattern(stack, x)

        def inside(at: Array) -> Array:
            return (admissible.pattern(stack, at) == on).all()

        way = admissible.unit_directions(key, 1, len(x))[0]
        root = x + 0.5 * admissible.farthest(inside, x, way) * way
        # A ramp: no explanation of a random network looks like it by chance.
        drawn = drawing.draw(parts, x, root, jnp.arange(1.0, len(x) + 1))
        apart = jnp.abs(drawn.untouched - drawn.target).max() / jnp.abs(drawn.target).max()
        return {
            "drawing/error": drawn.error,
            "drawing/slope": drawn.slope,
            "drawing/same": inside(root),
            "drawing/apart": apart,
        }

    return _every(one, stack, x, keys)
