"""The linear regions of a network on images: whether two inputs see the same linear function, and roots of single units."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import rules
from mixaug_jax.attribution.target import input_gradient, select
from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Bool, Count, Float, Image, Label, Net, RandomKey
from mixaug_jax.papers.deep_taylor import admissible
from mixaug_jax.papers.deep_taylor.roots import RULES, SMALLEST

CHUNK = 10  # units whose roots are tested at once


def recorded(net: Net, h: Float[AnyArray, "..."], layer: str = "") -> tuple[Array, rules.Recorder]:
    """Runs a network and notes what its ReLUs and max pools do.

    Args:
      net: with rule fields.
      h: the output of `layer` for one image, or ("") the preprocessed image.
      layer: where to go on from.

    Returns:
      The logits [K], and what was noted from there to the logits.

    Raises:
      checks.UnsupportedError: a network without rule fields.
    """
    recorder = rules.Recorder()
    watched = net.with_rules(act=recorder.act, pool=recorder.pool)
    # What is computed again in a backward pass would be noted out of place.
    watched = dataclasses.replace(watched, model=watched.model.clone(remat=False))
    h = h[None]
    logits = watched.logits(h, layer=layer, value=h) if layer else watched.logits(h)
    return logits[0], recorder


def same_function(
    net: Net, h: Float[AnyArray, "..."], layer: str = ""
) -> Callable[[Array], Bool[Array, ""]]:
    """A test whether another point has every ReLU and every winner of a max pool as `h` has them."""
    _, here = recorded(net, h, layer)

    def inside(at: Array) -> Bool[Array, ""]:
        _, there = recorded(net, at, layer)
        same = [((a > 0) == (b > 0)).all() for a, b in zip(here.sums, there.sums, strict=True)]
        same += [(a == b).all() for a, b in zip(here.winners, there.winners, strict=True)]
        return jnp.stack(same).all()

    return inside


def nearby(
    net: Net, x: Image, label: Label, key: RandomKey, *, length: float = 1.0, share: float = 0.5
) -> Image:
    """A point in the linear region of an image that differs from it in every value, and has a smaller logit.

    Each value goes against its gradient (any way where that is 0) by a random size; `share` of the way to the region's border,
    and at most `length` away in any value.

    Args:
      net: with rule fields.
      x: preprocessed.
      label: whose logit.
      key: decides the sizes.
      length, share: how far.
    """
    sizes, signs = jax.random.split(key)
    down = -jnp.sign(input_gradient(net, x[None], label)[0])
    down = jnp.where(down == 0, jax.random.rademacher(signs, x.shape), down)
    way = down * jax.random.uniform(sizes, x.shape, minval=0.5)
    return x + share * admissible.farthest(same_function(net, x), x, way, length) * way


def unit_direction(
    rule: str, h: Float[AnyArray, "..."], w: Float[AnyArray, "..."], gamma: float = 1.0
) -> Float[Array, "..."]:
    """The direction of one unit's root within what it sees, as `roots.direction`; for inputs of both signs.

    Args:
      rule: of `roots.RULES`, but "zero".
      h: a layer's output [h,w,C].
      w: the unit's weights laid out on it, 0 where it does not look.
      gamma: of that rule.
    """
    checks.choice("rule", rule, RULES[:-1])
    if rule == "w_squared":
        return w
    if rule == "z_plus":
        return h * (w * h > 0)
    return h * (w != 0) * (1 + gamma * (w * h > 0) * (rule == "gamma"))


@dataclasses.dataclass(frozen=True)
class Roots:
    """Whose roots are looked for, and how.

    Attributes:
      layer: whose output the roots are points of.
      rules: of the roots.
      units: how many.
      gamma: of that rule.
    """

    layer: str
    rules: tuple[str, ...]
    units: int = 200
    gamma: float = 1.0


def check_units(
    net: Net, image: Image, label: Label, key: RandomKey, roots: Roots
) -> dict[str, Array]:
    """Whether roots of random active units lie in the linear region of the image.

    The units are those of the first ReLU after the layer. Each one's root, for its own pre-activation, is a change of what the
    layer gives where the unit looks; `admissible.NEAR` of the way there the rest of the network is run.

    Args:
      net: with rule fields.
      image, label: preprocessed, and the class whose logit's gradient is compared.
      key: decides which units.
      roots: of which layer, how many units, by which rules.

    Returns:
      [rules,units] float32 each, NaN where the unit has no root or no active unit was left to draw: same_pattern and
      same_gradient, 1 in the region and 0 outside; distance, |h - root| / |h| of the layer's whole output; and inside, the
      share of the way to the root that lies in the region.
    """
    layer, units = roots.layer, roots.units
    h = net.features(image[None], layer)[0]
    inside = same_function(net, h, layer)

    def sums(at: Array) -> Array:
        return recorded(net, at, layer)[1].sums[0].ravel()

    def gradient(at: Array) -> Array:
        def logit(at: Array) -> Array:
            logits = net.logits(at[None], layer=layer, value=at[None])
            return select(net, logits, label, "logit")[0]

        return jax.grad(logit)(at)

    z, here = sums(h), gradient(h)
    # The active ones in random order: a draw without replacement whose number need not be known.
    order = jnp.argsort(jnp.where(z > 0, jax.random.uniform(key, z.shape), 2))
    drawn = jnp.resize(order, units)
    there = (z[drawn] > 0) & (jnp.arange(units) < len(z))

    def one(unit: Count) -> dict[str, Array]:
        w = jax.grad(lambda at: sums(at)[unit])(h)
        # Stacked, so that the network is compiled once for all rules.
        return jax.vmap(lambda v: tested(v, w, z[unit]))(
            jnp.stack([unit_direction(rule, h, w, roots.gamma) for rule in roots.rules])
        )

    def tested(v: Array, w: Array, z: Array) -> dict[str, Array]:
        through = (w * v).sum()
        has = jnp.abs(through) > SMALLEST
        way = -admissible.NEAR * z / jnp.where(has, through, 1) * v
        alike = jnp.isclose(gradient(h + way), here, admissible.RTOL, admissible.ATOL).all()
        reach = admissible.farthest(inside, h, way)
        values = {
            "same_pattern": reach >= 1,  # regions are convex
            "same_gradient": alike,
            "distance": jnp.linalg.norm(way) / jnp.linalg.norm(h),
            "inside": reach,
        }
        return {name: jnp.where(has, value, jnp.nan) for name, value in values.items()}

    found = jax.lax.map(one, drawn, batch_size=min(CHUNK, units))
    return {name: jnp.where(there[:, None], value, jnp.nan).T for name, value in found.items()}
