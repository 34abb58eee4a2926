"""The training of a flow: the mean of its bits per dimension, without labels, on all devices."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixaug_jax.core import checks, files, say, stored, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Count, Dataset, Path, Tree, UInt8
from mixaug_jax.papers.relevance.panels import flow as flows
from mixaug_jax.papers.relevance.panels.flow import Flow

_FIRST = 256  # images of the first batch, which the actnorms take their statistics from
_REPORT = 10  # steps of one call: on a CPU some seconds
_MOST = 20_000  # images that a flow is trained on
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


def check_side(side: Count, image_side: Count) -> None:
    """Raises ValueError unless a flow can have this side: `2 ** levels` divides it, and it divides the images'."""
    flows.check_side(side, image_side)
    flows.check_levels(side, len(flows.WIDTHS))


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
    # The first step's scales are set from these, so that they must be from all over the data.
    first = flows.spread_values(few, jax.random.fold_in(key, 0))
    flow = flows.init(jax.random.fold_in(key, 1), first, training.widths, training.depth)
    state = devices_lib.replicate(start(flow, training))
    pictures = devices_lib.replicate(jnp.asarray(images))
    run = _program(training, flow.side)
    report, bits = say.progress("flow", training.steps, "steps"), []
    # Many steps are one program: small ones would wait for the host each time.
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


class KeptFlow(NamedTuple):
    """A trained flow in a file, with the mean bits of its steps."""

    flow: Flow
    bits: np.ndarray
    settings: Mapping


def keep_flow(path: Path, source: Dataset, side: Count, training: Training, told: Mapping) -> Flow:
    """The flow of a file if these settings made it; else it is trained, and written.

    Args:
      path: of the file.
      source: of its images, of which it takes at most 20,000.
      side: of the flow's images, pixels.
      training: how.
      told: what tells the data from others, as JSON has it.

    Raises:
      ValueError, FloatingPointError: as `train_flow`.
    """
    settings = dataclasses.asdict(training) | {"side": side, "data": dict(told)}
    settings = json.loads(json.dumps(settings))

    def make() -> KeptFlow:
        chosen = walk.spread(len(source), _MOST)
        parts = walk.read_ahead(lambda i: small(source[int(i)]["image"][None], side), chosen, 4)
        images = np.concatenate(list(parts))
        flow, bits = train_flow(images, training)
        say.line(
            f"flow: {bits[-1]:.2f} bits per dimension; {pixel_bits(images):.2f} by a normal distribution of each pixel"
        )
        return KeptFlow(jax.device_get(flow), np.array(bits), settings)

    def load(path: Path) -> KeptFlow:
        return files.load_npz(path, functools.partial(_unpacked, side, training), "a flow")

    found, _ = stored.keep(path, settings, load=load, make=make, save=_save_flow)
    # Only the first process has it; the others know its shapes, into which it is sent.
    if jax.process_count() == 1:
        return found.flow
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), _shapes(side, training))
    return walk.told(found.flow if found else blank, walk.chosen(None))


def _shapes(side, training):
    first = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    given = functools.partial(flows.init, widths=training.widths, steps=training.depth)
    return jax.eval_shape(given, jax.random.key(0), first)


def _save_flow(kept, path):
    leaves = {f"leaf_{k:04}": x for k, x in enumerate(jax.tree.leaves(kept.flow))}
    files.save_npz(path, leaves | {"bits": kept.bits}, kept.settings)


def _unpacked(side, training, arrays, settings):
    tree = jax.tree.structure(_shapes(side, training))
    leaves = [arrays[name] for name in sorted(arrays) if name.startswith("leaf_")]
    return KeptFlow(jax.tree.unflatten(tree, leaves), arrays["bits"], settings)
