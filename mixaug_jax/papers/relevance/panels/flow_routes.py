"""Counterfactuals through a flow: of any network by gradient steps on the latents, or of the flow's own linear classifier.

The first is the idea of Dombrowski et al., "Diffeomorphic Counterfactuals" (arXiv 2206.05075); the second is how Sixt et al.
2022 (arXiv 2204.11642) made theirs, where the explained network is the flow.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

from mixaug_jax.core import checks, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Array, Count, Float, Net, RandomKey, Scalar, UInt8
from mixaug_jax.explain import programs
from mixaug_jax.explain.examples import on_devices
from mixaug_jax.models.net import Preprocess
from mixaug_jax.papers.relevance.panels import flow as flows
from mixaug_jax.papers.relevance.panels import flow_training, seen
from mixaug_jax.papers.relevance.panels.flow import Flow
from mixaug_jax.papers.relevance.panels.nearest_scenes import PERCENTS, caption
from mixaug_jax.papers.relevance.panels.panel import Panel, Pictures, signed_percentiles, sure

RATE, MOST, PULL = 0.05, 100, 0.1  # of Adam, its steps, and how strongly latents are held
_BLURRED = "The pictures are made by a computer, and are blurred."
MISSED = 0.5  # of the logit, between what was asked for and what was reached
Stored = UInt8[np.ndarray, "..."]
Targets = Float[np.ndarray, "T"]


class Head(NamedTuple):
    """A linear classifier on a flow's last latents: logit = weights . latents + bias."""

    weights: np.ndarray
    bias: float


def counterfactual(
    net: Net,
    pictures: Pictures,
    key: RandomKey,
    *,
    flow: Flow,
    rows: Count = 30,
    percents: tuple = PERCENTS,
    shift: Scalar = 0.0,
) -> Panel:
    """Moves the latents of images until a network's logit is what is asked for: Adam on (logit - target)^2 + .1 |z - z0|^2 / D.

    Args:
      net: the network; how it sees images must be a `Preprocess` of their size.
      pictures, key, rows, percents, shift: as of `oracle`.
      flow: trained on such images, made smaller.

    Raises:
      ValueError: a side that the flow's does not divide, a network that sees images otherwise.
    """
    checks.count("rows", rows)
    chosen = np.asarray(jax.random.permutation(key, len(pictures)))[:rows]
    targets = signed_percentiles(pictures.logits, percents)
    images, distance = moved(net, pictures.images[chosen], targets + np.float32(shift), flow)
    stored = enlarged(images.reshape(-1, *images.shape[2:]), pictures.images.shape[1])
    # Asked anew of the stored picture: enlarging and rounding change what the network says of it.
    logits = (seen.logits(net, stored) - np.float32(shift)).reshape(len(chosen), len(targets))
    missed = float((np.abs(logits - targets) > MISSED).mean())
    note = (
        f"Pictures are a flow's. The logit of {100 * missed:.0f} % of them misses its target by more than {MISSED:g}; the "
        f"mean change of a latent is {distance.mean():.2f}."
    )
    names = tuple(sure(target, pictures.classes) for target in targets)
    shape = *logits.shape, *stored.shape[1:]
    text = f"{caption(pictures.classes)} {_BLURRED}"
    return Panel("rows", stored.reshape(shape), logits, names, text, note=note)


def enlarged(images: Stored, side: Count) -> Stored:
    """Images at a larger side, by linear interpolation."""
    shape = (len(images), side, side, 3)
    large = jax.image.resize(jnp.asarray(images, jnp.float32), shape, "linear")
    return np.asarray(jnp.clip(jnp.round(large), 0, 255).astype(jnp.uint8))


def moved(net: Net, images: Stored, targets: Targets, flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """Images whose latents were moved, uint8 [N,T,s,s,3] of the flow's side, and how far, the root of the mean square, [N,T].

    Each process of a job moves its share.
    """
    _check_view(net, images.shape[1])
    devices = walk.chosen(None)
    share = walk.share(len(images), devices)
    own = flow_training.small(images[share.start : share.stop], flow.side)
    arrays = {"flow": flow, "targets": np.asarray(targets, np.float32)}
    task = programs.Task(_program(images.shape[1], devices), devices, 0, arrays, 4)
    found = task.run(on_devices(net, devices), {"image": own}, "counterfactuals", len(images))
    found = walk.gather(found, len(images), devices)
    return found["image"], found["distance"]


def _check_view(net, side):
    view = net.preprocess
    if not isinstance(view, Preprocess) or view.size != side or view.resize not in (0, side):
        raise ValueError(
            f"counterfactuals through a flow need a network that sees whole images of {side} pixels by a Preprocess; got {view}"
        )


@functools.lru_cache(maxsize=16)
def _program(side, devices):
    def every(net: Net, seed: Any, arrays: Any, rows: dict) -> dict:
        return jax.lax.map(lambda row: _moved(net, arrays, row["image"], side), rows)

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    own = walk.own(devices)
    return devices_lib.pmap_inference(every, (whole, whole, whole, split), split, devices=own)


def _moved(net, arrays, image, side):
    """One image's latents, moved to each of the targets."""
    flow, targets = arrays["flow"], arrays["targets"]
    first, _ = flows.encode(flow, flows.as_numbers(image[None]))
    first = jnp.repeat(first, len(targets), 0)
    adam = optax.adam(RATE)

    def loss(latents: Any):
        logits = seen.logit(net.logits(_view(net, flows.decode(flow, latents), side)))
        pull = PULL * jnp.square(latents - first).mean(1)
        return (jnp.square(logits - targets) + pull).sum()

    def one(carry: tuple, _: Any):
        latents, memory = carry
        # Targets do not touch each other: Adam works by element.
        moves, memory = adam.update(jax.grad(loss)(latents), memory)
        return (optax.apply_updates(latents, moves), memory), ()

    (latents, _), _ = jax.lax.scan(one, (first, adam.init(first)), length=MOST)
    images = flows.as_stored(flows.decode(flow, latents))
    return {"image": images, "distance": jnp.sqrt(jnp.square(latents - first).mean(1))}


def _view(net, images, side):
    """What a flow gives, as the network sees it."""
    view = net.preprocess
    large = jax.image.resize(images, (len(images), side, side, 3), "linear")
    large = large[..., ::-1] if view.order == "bgr" else large
    return (large + 0.5 - jnp.asarray(view.mean)) / jnp.asarray(view.std)


def fit_head(
    latents: Float[Array, "N D"] | np.ndarray, labels: np.ndarray, penalty: Scalar = 1e-2
) -> Head:
    """Fits logistic regression to a flow's last latents.

    Args:
      latents: [N,D].
      labels: 0 or 1, [N].
      penalty: on the weights' squares, a half of it.
    """
    x, sign = np.asarray(latents, np.float64), 2.0 * np.asarray(labels) - 1

    def loss(solved: np.ndarray):
        margin = sign * (x @ solved[:-1] + solved[-1])
        slope = -sign / (1 + np.exp(np.clip(margin, -60, 60))) / len(x)
        value = np.logaddexp(0, -margin).mean() + penalty / 2 * np.square(solved[:-1]).sum()
        return value, np.append(x.T @ slope + penalty * solved[:-1], slope.sum())

    found = scipy.optimize.minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B")
    return Head(found.x[:-1].astype(np.float32), float(found.x[-1]))


def along_head(latents: Float[Array, "N D"], head: Head, targets: Targets) -> Float[Array, "N T D"]:
    """Latents moved along a linear classifier's weights until its logit is the target; all others stay.

    z' = z - (w.z / |w|) w/|w| + ((target - b) / |w|) w/|w| on the last latents (Sixt et al. 2022).
    """
    weights = jnp.zeros(latents.shape[1]).at[-len(head.weights) :].set(head.weights)
    size = jnp.linalg.norm(weights)
    along = weights / size
    kept = latents - (latents @ along)[:, None] * along
    return kept[:, None] + ((jnp.asarray(targets) - head.bias) / size)[None, :, None] * along


def flow_classifier(
    net: Net,
    pictures: Pictures,
    key: RandomKey,
    *,
    flow: Flow,
    labels: np.ndarray,
    rows: Count = 30,
    percents: tuple = PERCENTS,
) -> Panel:
    """Counterfactuals of a linear classifier on the flow's last latents, which is fitted to the labels here.

    In the paper it is trained together with the flow.

    Args:
      net: not used: the explained network is the flow.
      pictures: whose images are encoded; what another network says of them is not used.
      key, rows, percents, flow: as of `counterfactual`.
      labels: the pictures' classes, 0 or 1.
    """
    numbers = flows.as_numbers(flow_training.small(pictures.images, flow.side))
    latents = _encoded(flow, numbers)
    head = fit_head(latents[:, -flow.last :], labels)
    own = np.asarray(latents[:, -flow.last :]) @ head.weights + head.bias
    targets = signed_percentiles(own.astype(np.float32), percents)
    chosen = np.asarray(jax.random.permutation(key, len(pictures)))[:rows]
    # Along the classifier's weights: the shortest way in latents to a wanted logit.
    found = along_head(latents[chosen], head, targets)
    images = np.asarray(flows.as_stored(_decoded(flow, found.reshape(-1, found.shape[2]))))
    stored = enlarged(images, pictures.images.shape[1])
    right = float(((own > 0) == (np.asarray(labels) > 0)).mean())
    note = f"The flow's own classifier is right on {100 * right:.0f} % of these pictures; its logits are the targets."
    logits = np.broadcast_to(targets, (len(chosen), len(targets))).copy()
    names = tuple(sure(target, pictures.classes) for target in targets)
    shape = *logits.shape, *stored.shape[1:]
    text = f"{caption(pictures.classes)} {_BLURRED}"
    return Panel("rows", stored.reshape(shape), logits, names, text, note=note)


_encoded = jax.jit(lambda flow, x: jax.lax.map(lambda one: flows.encode(flow, one[None])[0][0], x))
_decoded = jax.jit(lambda flow, z: jax.lax.map(lambda one: flows.decode(flow, one[None])[0], z))
