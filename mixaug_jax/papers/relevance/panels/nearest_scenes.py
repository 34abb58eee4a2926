"""What a perfect counterfactual would show: the nearest scene with one attribute changed that a network judges as asked."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from mixaug_jax.core import checks, walk
from mixaug_jax.core.types import Count, Float, Net, RandomKey, Scalar, UInt8
from mixaug_jax.papers.relevance.panels import seen
from mixaug_jax.papers.relevance.panels.panel import Panel, Pictures, signed_percentiles, sure

PERCENTS = (-75, -33, 0, 33, 75)
POINTS = 9  # of an attribute's range that are looked at first
HALVINGS = 6  # of the interval between two of them
Render = Callable[[np.ndarray], np.ndarray]
Scenes = Float[np.ndarray, "n A"]


class Changes(NamedTuple):
    """What was found for N scenes and T targets.

    Attributes:
      attributes: float32 [N,T,A] of the changed scenes.
      logits: float32 [N,T], of them.
      which: int [N,T], the number of the attribute that was changed.
      reached: bool [N,T], whether the logit can be reached by one attribute within its range; where not, the scene is the one
        that comes nearest.
    """

    attributes: np.ndarray
    logits: np.ndarray
    which: np.ndarray
    reached: np.ndarray


def oracle(
    net: Net,
    pictures: Pictures,
    key: RandomKey,
    *,
    render: Render,
    rows: Count = 30,
    percents: tuple = PERCENTS,
    shift: Scalar = 0.0,
) -> Panel:
    """Shows scenes, rendered again with the one attribute changed that reaches a logit by the smallest change.

    Attributes vary between the least and the largest value among the pictures, and changes are shares of that range. No
    explanation method can show more (a control of the panels of Sixt et al. 2022, arXiv 2204.11642).

    Args:
      net: the network.
      pictures: with attributes; its rows are drawn from them.
      key: decides which.
      render: f(attributes [n,A]) -> uint8 [n,S,S,3], the same pictures for the same attributes.
      rows: how many scenes, at most.
      percents: of |logit|, with signs: the targets, one a column.
      shift: what was taken from the network's logits to make those of `pictures`.

    Raises:
      ValueError: pictures without attributes, logits that are not finite.
    """
    if not pictures.attributes.shape[1]:
        raise ValueError("the panel oracle needs pictures whose attributes are known")
    checks.count("rows", rows)
    targets = signed_percentiles(pictures.logits, percents)
    chosen = np.asarray(jax.random.permutation(key, len(pictures)))[:rows]

    def ask(values: Scenes) -> np.ndarray:
        return seen.logits(net, rendered(render, values)) - np.float32(shift)

    # The range that occurs: beyond it a scene would be none of the data set's.
    ends = np.stack([pictures.attributes.min(0), pictures.attributes.max(0)], 1)
    found = nearest(ask, pictures.attributes[chosen], targets, ends)
    shape = found.logits.shape
    images = rendered(render, found.attributes.reshape(-1, found.attributes.shape[2]))
    return Panel(
        "rows",
        images.reshape(*shape, *images.shape[1:]),
        found.logits,
        tuple(sure(target, pictures.classes) for target in targets),
        caption(pictures.classes),
        attributes=found.attributes,
    )


def caption(classes: tuple[str, str]) -> str:
    """What a panel of counterfactuals shows, for lay people."""
    return (
        f"Each row is one picture, changed as little as possible so that the network takes it more and more for "
        f"{classes[1]}, from left to right. What changes along a row is what the network goes by; what stays is not."
    )


def rendered(render: Render, values: Scenes) -> UInt8[np.ndarray, "n S S 3"]:
    """Pictures of scenes; each process of a job renders its share, and all get all."""
    devices = walk.chosen(None)
    share = walk.share(len(values), devices)
    # A process without any renders one, for the shape.
    own = np.asarray(render(values[share.start : share.stop] if len(share) else values[:1]))
    return walk.gather(own[: len(share)], len(values), devices)


def nearest(
    ask: Callable[[np.ndarray], np.ndarray],
    scenes: Scenes,
    targets: Float[np.ndarray, "..."],
    ends: Float[np.ndarray, "A 2"],
) -> Changes:
    """Finds, for each scene and target, the smallest change of one attribute that makes the logit the target.

    An attribute's range is looked at in `POINTS` places and at the scene's own value; of the intervals at whose ends the logit
    lies on both sides of the target the one nearest to that value is halved `HALVINGS` times.

    Args:
      ask: f(attributes [n,A]) -> logits [n].
      scenes: [N,A].
      targets: [T] logits.
      ends: the least and the largest value of each attribute.
    """
    count, names = scenes.shape
    points = np.linspace(ends[:, 0], ends[:, 1], POINTS, axis=1)  # [A,POINTS]
    many = np.repeat(scenes[:, None], names, 1)[:, :, None].repeat(POINTS, 2)
    index = np.arange(names)
    many[:, index, :, index] = points[:, None]
    own = np.broadcast_to(ask(scenes)[:, None, None], (count, names, 1))
    logits = np.asarray(ask(many.reshape(-1, names))).reshape(count, names, POINTS)
    values = np.concatenate([np.broadcast_to(points, logits.shape), scenes[:, :, None]], 2)
    logits = np.concatenate([logits, own], 2)
    order = np.argsort(values, 2, kind="stable")
    values, logits = np.take_along_axis(values, order, 2), np.take_along_axis(logits, order, 2)
    width = np.maximum(ends[:, 1] - ends[:, 0], 1e-9)
    which, low, high, reached = _brackets(scenes, values, logits, targets, width)
    return _halved(ask, scenes, which, (low, high), targets, reached)


def _brackets(scenes, values, logits, targets, width):
    """Of each scene and target the attribute, the two values between which the logit passes it, and whether there are any; else
    twice the value that comes nearest."""
    beyond = logits[:, None] - targets[None, :, None, None]  # [N,T,A,P]
    left, right = beyond[..., :-1], beyond[..., 1:]
    passes = (left <= 0) != (right <= 0)
    step = left / np.where(passes, left - right, 1)
    v = np.broadcast_to(values[:, None], beyond.shape)
    at = v[..., :-1] + step * (v[..., 1:] - v[..., :-1])
    far = np.abs(at - scenes[:, None, :, None]) / width[:, None]
    far = np.where(passes, far, np.inf)
    shape = far.shape[:2]
    best = far.reshape(*shape, -1).argmin(2)
    reached = np.isfinite(far.reshape(*shape, -1).min(2))
    instead = np.abs(beyond).reshape(*shape, -1).argmin(2)
    pieces, places = far.shape[3], beyond.shape[3]
    which = np.where(reached, best // pieces, instead // places)
    first = np.where(reached, best % pieces, instead % places)
    n, t = np.ix_(*map(np.arange, shape))
    second = np.where(reached, first + 1, first)
    return which, v[n, t, which, first], v[n, t, which, second], reached


def _halved(ask, scenes, which, ends, targets, reached):
    names = scenes.shape[1]

    def changed(value: np.ndarray) -> np.ndarray:
        found = np.repeat(scenes[:, None], len(targets), 1)
        np.put_along_axis(found, which[..., None], value[..., None], 2)
        return found.astype(np.float32)

    def beyond(value: np.ndarray) -> np.ndarray:
        return np.asarray(ask(changed(value).reshape(-1, names))).reshape(which.shape) - targets

    low, high = ends
    # The side that the low end is on, so that a logit may rise or fall with the attribute.
    below = beyond(low) <= 0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        same = (beyond(middle) <= 0) == below
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    value = (low + high) / 2
    logits = (beyond(value) + targets).astype(np.float32)
    return Changes(changed(value), logits, which, reached)
