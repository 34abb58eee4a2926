"""The evaluator's training: once on unbiased scenes, kept in the cache for all runs.

The released code trains a MobileNetV2 x 0.5 for 61 epochs with batches of 50 and Adam at 1e-3, divided by 10 at each third;
here it is a narrow ResNet-18, and the rate falls by a cosine.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixaug_jax import data, models
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, processes, say, walk
from mixaug_jax.core.types import Array, Config, Float
from mixaug_jax.data import rendered, transforms
from mixaug_jax.data.animals import animal_samplers, animal_set
from mixaug_jax.data.source import Source
from mixaug_jax.papers.relevance import evaluator, relevance_keys
from mixaug_jax.papers.relevance.evaluator import OUTPUTS, Evaluator

ARCHITECTURE = "resnet18"
_BATCH, _RATE, _SEED = 64, 1e-3, 0
_STATE, _WHAT = "state.npz", "the evaluator's training"


class State(NamedTuple):
    """What training carries from step to step, the same on every device.

    Attributes:
      variables: {"params", "batch_stats"}.
      optimizer: Adam's state.
    """

    variables: Any
    optimizer: Any


class _Kept(NamedTuple):
    step: int
    leaves: list
    settings: dict


def keep(config: Config) -> Evaluator:
    """The evaluator of a config's animals; trained where the cache does not have it, on from where a training was stopped.

    Args:
      config: resolved settings of a run on animals; reads data.{size, dir, mean, std, threads}, data.animals.{seed,
        sampler, ranges}, precision, and of `relevance` mode, evaluator_scenes, evaluator_epochs and evaluator_width.

    Raises:
      FloatingPointError: the loss is not finite.
    """
    asked = relevance_keys.of_config(config)
    config = unbiased(config, asked.evaluator_scenes, max(100, asked.evaluator_scenes // 6))
    # Its own and not the run's, which shares it with others; nor are targets mirrored with a picture.
    config.seed = _SEED
    config.data.update(crop="none", flip=False, resize=1.0)
    # In the cache and not in the run: the evaluator is the same for all runs of these animals.
    settings = _settings(config, asked)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = rendered.cache_root(config) / f"evaluator-{config.data.size}px-{digest}"
    with contextlib.ExitStack() as stack:
        if processes.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            waiting = "waiting for another process to train the evaluator"
            # Runs of a study start together: one trains, and the others wait for what it writes.
            stack.enter_context(files.lock(folder.with_name(folder.name + ".lock"), waiting))
        state = _trained(config, asked, settings, folder)
    d = config.data
    view = models.Preprocess(d.size, d.size, tuple(d.mean), tuple(d.std))
    net = models.Net(_module(asked), state.variables, view)
    held = animal_set.animals("test", config)
    return evaluator.judged(net, held, threads=d.threads)


def unbiased(config: Config, train: int, test: int) -> Config:
    """A copy of a config whose animals show their class by the arms alone, in the mode of the interventions, with true labels,
    and are otherwise as its sampler draws them, see `animal_samplers.unbiased`.

    Args:
      config: of a run on animals.
      train, test: numbers of scenes.
    """
    mode = relevance_keys.of_config(config).mode
    config = config.copy_and_resolve_references()
    sampler = animal_samplers.unbiased(config.data.animals.sampler, mode)
    config.data.animals.update(sampler=sampler, label_noise=0.0)
    config.data.animals.update(train=train, validation=1, test=test)
    return config


def _settings(config, asked) -> dict:
    """All that decides the evaluator, as JSON has it."""
    d = config.data
    settings = {
        "animals": d.animals.to_dict(),
        "size": d.size,
        "view": [list(d.mean), list(d.std)],
        "epochs": asked.evaluator_epochs,
        "width": asked.evaluator_width,
        "batch": _BATCH,
        "rate": _RATE,
        "seed": _SEED,
        "architecture": ARCHITECTURE,
        "precision": config.precision,
    }
    # Tuples become lists, as in the file that it is compared with.
    return json.loads(json.dumps(settings))


def _module(asked):
    return models.MODELS[ARCHITECTURE](OUTPUTS, width=asked.evaluator_width)


def _trained(config, asked, settings, folder) -> State:
    """The state after the last step."""
    # A multiple of the devices, as near the usual size as that allows.
    batch = max(jax.device_count(), _BATCH // jax.device_count() * jax.device_count())
    epoch = max(1, asked.evaluator_scenes // batch)
    total = epoch * asked.evaluator_epochs
    module = _module(asked)
    start, state = _restored(_initial(module, total, config.data.size), settings, folder)
    if start == total:
        return state
    say.line(
        f"the evaluator is trained on {asked.evaluator_scenes} unbiased scenes, once for all runs"
    )
    source = _with_targets(animal_set.animals("train", config))
    config.data.batch_size = batch
    batches = devices_lib.prefetch(data.batches(source, config, train=True, start=start), config.data.prefetch)  # fmt: skip
    step = _program(module, total, tuple(config.data.mean), tuple(config.data.std))
    clock, losses = say.Clock(start, total), []
    for number in range(start + 1, total + 1):
        given = next(batches)
        state, loss = step(state, {name: given[name] for name in ("image", "targets")})
        # Left on the device until a line is due: asking for each loss would stop the devices at every step.
        losses.append(loss)
        if number % epoch == 0 or number == total:
            mean = float(np.mean(jax.device_get(losses)))
            if not np.isfinite(mean):
                raise FloatingPointError(f"the evaluator's loss is not finite before step {number}")
            _, left = clock.tick(number)
            say.line(f"evaluator: step {number}/{total}  loss {mean:.4f}  ETA {left}")
            losses = []
            if processes.is_main():
                arrays = {f"leaf{k}": np.asarray(v) for k, v in enumerate(jax.tree.leaves(jax.device_get(state)))}  # fmt: skip
                files.save_npz(folder / _STATE, arrays | {"step": np.array(number)}, settings)
    return jax.device_get(state)


def _restored(state, settings, folder) -> tuple[int, State]:
    """What the first process finds, in all of them; the initial state where it finds nothing."""
    leaves, tree = jax.tree.flatten(jax.device_get(state))

    def make(arrays: dict, settings: dict) -> _Kept:
        return _Kept(int(arrays.pop("step")), [arrays[f"leaf{k}"] for k in range(len(leaves))], settings)  # fmt: skip

    def load(path: Any) -> _Kept:
        return files.load_npz(path, make, _WHAT)

    found = files.load_if(load, folder / _STATE, settings) if processes.is_main() else None
    kept = found or _Kept(0, leaves, settings)
    step, leaves = walk.told((np.array(kept.step), kept.leaves), walk.chosen(None))
    return int(step), jax.tree.unflatten(tree, leaves)


def _adam(total):
    return optax.adam(optax.cosine_decay_schedule(_RATE, total))


def _initial(module, total, size) -> State:
    def init(key: Any) -> State:
        variables = module.init(key, jnp.zeros((1, size, size, 3)))
        return State(variables, _adam(total).init(variables["params"]))

    lowered = jax.jit(init).lower(jax.random.key(0))
    return lowered.compile(devices_lib.quick_options())(jax.random.key(0))


def _with_targets(source: Source) -> Source:
    def read(index: int) -> dict:
        example = source[index]
        return example | {"targets": evaluator.encoded(example["attributes"], example["label"])}

    return dataclasses.replace(source, read=read)


def loss_of(
    outputs: Float[Array, "B outputs"], targets: Float[Array, "B outputs"]
) -> Float[Array, ""]:
    """Binary cross-entropy of the class, and the mean squared error of everything else."""
    label = optax.sigmoid_binary_cross_entropy(outputs[:, 0], targets[:, 0]).mean()
    return label + jnp.square(outputs[:, 1:] - targets[:, 1:]).mean()


@functools.lru_cache(maxsize=4)
def _program(module, total, mean, std):
    def step(state: State, batch: dict) -> tuple[State, Any]:
        seeds = jnp.zeros(len(batch["image"]), jnp.uint32)
        images = transforms.device_transform(
            batch["image"], seeds, jitter=0.0, lighting=0.0, mean=mean, std=std
        )

        def loss(params: Any):
            variables = {**state.variables, "params": params}
            outputs, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
            return loss_of(outputs, batch["targets"]), updated

        (value, updated), grads = jax.value_and_grad(loss, has_aux=True)(state.variables["params"])
        # Batch statistics too, so that the state stays the same on all devices.
        value, updated, grads = jax.lax.pmean((value, updated, grads), devices_lib.AXIS)
        moves, optimizer = _adam(total).update(grads, state.optimizer)
        params = optax.apply_updates(state.variables["params"], moves)
        return State({"params": params, **updated}, optimizer), value

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    return devices_lib.pmap(step, (whole, split), (whole, whole))
