"""The training of a flow: the mean of its bits per dimension, without labels, on all devices."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixaug_jax.core import checks, say
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Count, Tree, UInt8
from mixaug_jax.papers.relevance.panels import flow as flows
from mixaug_jax.papers.relevance.panels.flow import Flow

_FIRST = 256  # images of the first batch, which the actnorms take their statistics from
_REPORT = 20  # steps between two looks at the clock
_CLIP = 50.0  # of the gradient's norm, as in later flows
Stored = UInt8[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class Training:
    """How a flow is trained.

    Attributes:
      steps: of Adam.
      batch: images of a step, over all devices.
      lr: the rate, which rises over the first tenth of the steps and falls to 0 by a cosine.
      seed: of weights, batches and noise.
      depth: steps of the flow in each level.
      widths: hidden channels of its couplings, one a level.
    """

    steps: int = 2000
    batch: int = 64
    lr: float = 1e-3
    seed: int = 0
    depth: int = flows.STEPS
    widths: tuple[int, ...] = flows.WIDTHS


def small(images: Stored, side: Count) -> Stored:
    """Images made smaller by means of whole blocks of pixels.

    Raises:
      ValueError: a side that does not divide theirs.
    """
    flows.check_side(side, images.shape[1])
    each = images.shape[1] // side
    blocks = images.reshape(len(images), side, each, side, each, 3).mean((2, 4))
    return np.round(blocks).astype(np.uint8)


def train_flow(images: Stored, training: Training) -> tuple[Flow, list[float]]:
    """Trains a flow; equal settings give the same batches on any number of devices.

    Args:
      images: all of them, at the flow's size.
      training: how.

    Returns:
      The flow, and the mean bits per dimension of each `_REPORT` steps.

    Raises:
      ValueError: a batch that the devices do not divide, a side that cannot be halved so often.
      FloatingPointError: the bits are not finite.
    """
    checks.count("steps", training.steps)
    devices_lib.check_batch_size(training.batch, key="panels.flow_batch")
    key = jax.random.key(training.seed)
    few = images[np.linspace(0, len(images) - 1, min(_FIRST, len(images))).astype(int)]
    first = flows.spread_values(few, jax.random.fold_in(key, 0))
    flow = flows.init(jax.random.fold_in(key, 1), first, training.widths, training.depth)
    state = devices_lib.replicate(start(flow, training))
    pictures = devices_lib.replicate(jnp.asarray(images))
    run = _program(training, flow.side)
    report, bits = say.progress("flow", training.steps, "steps"), []
    for begin in range(0, training.steps, _REPORT):
        end = min(begin + _REPORT, training.steps)
        state, mean = run(state, pictures, np.int32(begin), np.int32(end))
        bits.append(float(mean))
        if not math.isfinite(bits[-1]):
            raise FloatingPointError(
                f"the flow's bits per dimension are not finite at step {end}; lower panels.flow_lr"
            )
        report(end)
    return dataclasses.replace(flow, levels=_joined(state)), bits


def start(flow: Flow, training: Training) -> dict[str, Tree]:
    """What the training carries from step to step: params, what is fixed, and Adam's state."""
    params = tuple(level["params"] for level in flow.levels)
    fixed = tuple(level["fixed"] for level in flow.levels)
    return {"params": params, "fixed": fixed, "adam": _optimizer(training).init(params)}


def _joined(state: Mapping):
    pairs = zip(state["params"], state["fixed"], strict=True)
    return tuple({"params": params, "fixed": fixed} for params, fixed in pairs)


def _optimizer(training):
    warm = max(1, training.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, training.lr, warm, max(training.steps, warm + 1))
    return optax.chain(optax.clip_by_global_norm(_CLIP), optax.adam(rate))


@functools.lru_cache(maxsize=8)
def _program(training, side):
    adam, count = _optimizer(training), len(jax.devices())
    local = training.batch // count

    def loss(params: Any, fixed: Any, batch: Any):
        flow = Flow(_joined({"params": params, "fixed": fixed}), side, training.widths)
        return flows.bits(flow, batch).mean()

    def one(step: Any, carry: tuple, images: Any):
        state, total = carry
        key = jax.random.fold_in(jax.random.key(training.seed), step + 2)
        # The batch of all devices, of which each takes its part.
        chosen = jax.random.randint(key, (training.batch,), 0, len(images))
        place = jax.lax.axis_index(devices_lib.AXIS) * local
        mine = jax.lax.dynamic_slice_in_dim(chosen, place, local)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(place + jnp.arange(local))
        batch = jax.vmap(flows.spread_values)(images[mine][:, None], keys)[:, 0]
        found, grads = jax.value_and_grad(loss)(state["params"], state["fixed"], batch)
        found, grads = jax.lax.pmean((found, grads), devices_lib.AXIS)
        moves, memory = adam.update(grads, state["adam"], state["params"])
        params = optax.apply_updates(state["params"], moves)
        return {"params": params, "fixed": state["fixed"], "adam": memory}, total + found

    def several(state: Any, images: Any, begin: Any, end: Any):
        run = functools.partial(one, images=images)
        state, total = jax.lax.fori_loop(begin, end, run, (state, jnp.float32(0)))
        return state, total / (end - begin)

    whole = devices_lib.REPLICATED
    return devices_lib.pmap(several, (whole,) * 4, (whole, whole), donate_argnums=0)


def pixel_bits(images: Stored) -> float:
    """Bits per dimension by a normal distribution of each pixel and channel of its own: what a flow has to be better than."""
    spread = images.astype(np.float64).std(0) + 1e-3
    # That of the value itself, in steps of 1, plus the even noise of a step.
    variance = np.square(spread) + 1 / 12
    return float((0.5 * np.log2(2 * np.pi * np.e * variance)).mean())
