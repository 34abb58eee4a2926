"""The stage `gan`: trains generator and discriminator on the unlabeled pictures; <workdir>/gan/ holds what it makes.

gan/settings.json checkpoints/<step>/ metrics.jsonl    links_<step>.png {statistics,worth,apart,kept}.csv
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, processes, say
from mixaug_jax.core.types import Config, Dataset, Path
from mixaug_jax.papers.rendergan import adversary, examining, few, looking, map_generator
from mixaug_jax.papers.rendergan.marker_options import LEARNED, check_own, settings_of
from mixaug_jax.stages.base import Stage
from mixaug_jax.training import checkpoint, disk, resuming
from mixaug_jax.training.metric_log import MetricLog

_EPOCH = 100  # steps, as published
_UNLABELED = "unlabeled"
_FEWEST = 2  # unlabeled pictures: a network that tells them from made ones learns from one and is asked about another


def run(
    config: ml_collections.ConfigDict,
    workdir: os.PathLike | str,
    *,
    which: str = "latest",
    required: bool = True,
) -> None:
    """Trains the generator, or goes on with a training that was cut short, and looks at what it makes.

    Args:
      config: of `configs/rendergan.py`.
      workdir: folder of the run; made where missing.
      which: not used: training goes on from the latest checkpoint.
      required: whether the stage was asked for by name; under "all", nothing is done where no generator is asked for.

    Raises:
      ValueError: settings or data that cannot work, a folder of another training, a reader that is none.
      FloatingPointError: a loss is not finite; the last good checkpoint stays.
    """
    check(config)
    # Nothing to do under `all` where a generator is given, or where none is needed.
    if not required and not _is_needed(config):
        return
    source = _open(config)
    folder = pathlib.Path(workdir).absolute() / "gan"
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(config)
    _check_same(folder, settings)
    with (
        devices_lib.applied(config),
        disk.full_disk(folder),
        checkpoint.manager(folder, scored=False) as manager,
        contextlib.closing(MetricLog(folder, manager.latest_step() or 0)) as log,
    ):
        state = _train(config, source, folder, manager, log)
        if processes.is_main():
            # By one process, so without the axis that batch statistics are averaged over.
            modules_here = modules(settings, axis_name="")
            params = {"generator": state.average, "discriminator": state.discriminator}
            examining.examine(config, modules_here, jax.device_get(params), source, folder.parent)
        manager.wait_until_finished()
    devices_lib.barrier("generator looked at")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for settings that cannot work, or unlabeled crops that are needed and not there."""
    config_lib.check(config)
    check_own(config)
    if config.markers.generator == "maps":
        map_generator.check(config.data.size)
    examining.check_reader(config)
    devices_lib.check_batch_size(config.markers.batch_size, key="markers.batch_size")
    if config.data.markers.crops and _is_needed(config):
        _open(config)


def _is_needed(config):
    """Whether this run's decoder learns from a generator that is not given."""
    return not config.markers.gan and config.markers.train in LEARNED


def _open(config):
    source = data.open_source(_UNLABELED, config, annotations=False)
    if len(source) < _FEWEST:
        raise ValueError(
            f"a generator needs {_FEWEST} unlabeled pictures or more (data.markers.unlabeled, or unlabeled/*.png in "
            f"data.markers.crops), of which some are held out to judge it; there is {len(source)}"
        )
    return source


def _check_same(folder, settings):
    path = folder / "settings.json"
    stored = _stored(folder) if path.exists() else settings
    changed = [f"{k}: {stored.get(k)} -> {v}" for k, v in settings.items() if stored.get(k) != v]
    if changed:
        raise ValueError(
            f"{folder} holds a generator of other settings ({'; '.join(changed)}); use another --workdir, or these settings "
            "again"
        )
    if processes.is_main():
        files.write_json(path, settings)
    devices_lib.barrier("settings of the generator")


def _stored(folder) -> dict:
    # There was but one generator before its name was noted.
    return {"generator": "few"} | files.read_json(folder / "settings.json")


def modules(settings: Mapping, axis_name: str = devices_lib.AXIS) -> tuple[Any, Any]:
    """The generator and the discriminator that `settings_of` a config describe."""
    size, spin, filters = settings["size"], float(settings["spin"]), settings["filters"]
    few_or_maps = {
        "few": lambda: few.Few(size, spin, axis_name),
        "maps": lambda: map_generator.Maps(size, spin, filters, axis_name),
    }
    return few_or_maps[settings["generator"]](), adversary.Discriminator(filters, axis_name)


def _train(config, source, folder, manager, log):
    generator, discriminator = modules(settings_of(config))
    alone = generator.clone(axis_name="")
    total = config.markers.steps
    state = adversary.init(generator, discriminator, config.seed, total)
    # What a restart needs is in the checkpoint, the running average of the generator among it; the decoder's model decides
    # nothing here, and what does has been compared.
    restored = resuming.restore(manager, **_items(state), config=None)
    if restored is not None:
        _, variables, train = restored
        state = adversary.Adversaries(average=variables, **train)
        say.line(f"going on from the generator of step {int(state.step)}")
        _draw(alone, state, source, folder, config, missing=True)
    start = int(state.step)
    if start >= total:
        return state
    step = _program(generator, discriminator, config.seed, total)
    batches = _batches(config, source, start)
    say.line("compiling the generator's step ...")
    clock, pending = say.Clock(start, total), []
    for number in range(start + 1, total + 1):
        state, metrics = step(state, next(batches))
        # Fetched once an epoch: each fetch waits for the device.
        pending.append(metrics)
        if number % _EPOCH == 0 or number == total:
            values = _means(pending, number)
            pending = []
            log.write(number, **values)
            _, left = clock.tick(number)
            say.line(
                f"generator: step {number}/{total}  loss {values['generator_loss']:.3f}  discriminator "
                f"{values['discriminator_loss']:.3f}, right {values['accuracy']:.3f}  ETA {left}"
            )
            checkpoint.write_checkpoint(manager, number, **_items(state), config=config, metrics={})
            _draw(alone, state, source, folder, config)
    return state


def _draw(alone, state, source, folder, config, missing=False):
    """The sheet of the links at the state's step; `missing`: only where a run killed after its checkpoint left none."""
    path = folder / f"links_{int(state.step)}.png"
    if processes.is_main() and not (missing and path.exists()):
        looking.draw_links(alone, state.average, source, path, config.seed)


def _items(state):
    names = ("step", "generator", "discriminator", "generator_state", "discriminator_state")
    return {"variables": state.average, "train": {name: getattr(state, name) for name in names}}


def _batches(config, source: Dataset, start):
    config = config.copy_and_resolve_references()
    config.data.batch_size = config.markers.batch_size
    batches = data.batches(source, config, train=True, start=start)
    images = ({"image": batch["image"]} for batch in batches)
    return devices_lib.prefetch(images, config.data.prefetch)


def _program(generator, discriminator, seed, steps):
    step = functools.partial(
        adversary.train_step,
        generator=generator,
        discriminator=discriminator,
        seed=seed,
        steps=steps,
    )
    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    out = (devices_lib.REPLICATED, devices_lib.REPLICATED)
    return devices_lib.pmap(step, specs, out, donate_argnums=0)


def _means(pending, number) -> dict:
    """The means of what the steps since the last report gave; FloatingPointError where one is not finite."""
    pending = jax.device_get(pending)
    values = {name: np.array([m[name] for m in pending]) for name in pending[0]}
    finite = np.isfinite([values["loss"]]).all(0)
    if not finite.all():
        bad = number - len(pending) + 1 + int(np.argmin(finite))
        raise FloatingPointError(
            f"a loss of the generator's training is not finite at step {bad}; the last checkpoint before it is kept"
        )
    return {name: float(value.mean()) for name, value in values.items()}


def load_generator(config: Config, workdir: Path) -> tuple[Any, Mapping]:
    """The generator that a run's decoder learns from, and its averaged parameters.

    Args:
      config: names it by markers.gan, a working directory; "": this one.
      workdir: the run's.

    Raises:
      ValueError: no generator there, or one of another size.
    """
    folder = pathlib.Path(config.markers.gan or workdir).expanduser() / "gan"
    if not checkpoint.steps_there(folder):
        raise ValueError(f"{folder} holds no generator; --stage=gan trains one")
    stored, own = _stored(folder), settings_of(config)
    # The two that shape its pictures and poses; all else of the run may differ.
    for name in ("size", "spin"):
        if stored[name] != own[name]:
            raise ValueError(
                f"{folder} holds a generator of {name} {stored[name]}; this run has {own[name]}"
            )
    generator, discriminator = modules(stored)
    shapes = _items(adversary.shapes(generator, discriminator, stored["steps"]))
    with checkpoint.manager(folder, scored=False) as manager:
        found = resuming.restore(manager, **shapes, config=None)
    if found is None:
        raise ValueError(
            f"{folder} has no whole checkpoint left; --stage=gan trains the generator again"
        )
    step, params, _ = found
    if step < stored["steps"]:
        say.line(f"{folder}: a generator of {step} of {stored['steps']} steps")
    return generator, params


STAGE = Stage(
    run, check, "trains the generator of RenderGAN (configs/rendergan.py)", keys=("markers.",)
)
