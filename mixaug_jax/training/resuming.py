"""What a run that goes on takes over: its settings, the last whole checkpoint, where its learning rate's schedule began."""

import json
import pathlib
from typing import Any

import ml_collections
import orbax.checkpoint as ocp

from mixaug_jax import config as config_lib
from mixaug_jax.config import keys
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, say
from mixaug_jax.core.files import DamagedError
from mixaug_jax.core.types import Config, Path
from mixaug_jax.training import checkpoint, damage
from mixaug_jax.training import step as steps


def resumed(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The resolved config with `resolved.rate_start`, the step at which its schedule begins; says where the rate jumps.

    With train.restart the schedule begins anew at the last checkpoint, unless a run with these very settings has restarted
    there before. Without, it goes on; where the run is made longer that moves the rate, which is said.

    Args:
      config: of the run that goes on.
      workdir: whose config.json and checkpoints are those of the run so far.

    Raises:
      ValueError: imported weights, which no training goes on from.
    """
    stored = config_lib.read(workdir)
    if not stored.resolved.steps:
        raise ValueError(f"{workdir} holds imported weights; train in another --workdir")
    found = checkpoint.steps_there(workdir)
    at = found[-1] if found else 0
    start = stored.resolved.get("rate_start", 0)
    again = _rates(stored) == _rates(config) and stored.train.get("restart", False)
    if config.train.restart and not again:
        start = at
    if start:  # config.json of a run that was stopped is else that of an unbroken one
        with config.unlocked():
            config.resolved.rate_start = start
    if at and at < config.resolved.steps:
        before, after = (float(steps.learning_rate(c)(at)) for c in (stored, config))
        if before != after:
            why = "the schedule begins anew" if start == at else (
                f"the run has {config.resolved.steps} steps in place of {stored.resolved.steps}"
            )  # fmt: skip
            say.line(
                f"learning rate: {after:.4g} in place of {before:.4g} from step {at} on: {why}"
            )
    return config


def _rates(config):
    """The settings of the rate and of the length."""
    flat = config_lib.flatten(config.to_dict())
    return {k: v for k, v in flat.items() if keys.decides(k) in (keys.RATE, keys.LENGTH)}


def heal_settings(workdir: Path) -> None:
    """Writes a damaged config.json or versions.json of a working directory again, from its newest checkpoint; says so.

    Raises:
      files.DamagedError: config.json is damaged and no checkpoint is left to write it from.
    """
    workdir = pathlib.Path(workdir)
    names = [name for name in ("config.json", "versions.json") if (workdir / name).exists()]
    read = {
        "config.json": lambda path: config_lib.read(path.parent),
        "versions.json": files.read_json,
    }
    damaged = [name for name in names if _is_damaged(read[name], workdir / name)]
    for step in reversed(checkpoint.steps_there(workdir) if damaged else ()):
        path = checkpoint.folder(workdir) / str(step)
        try:
            damage.check_json(path)
            stored = damage.read_json(path, "config")
        except DamagedError:  # said when it is set aside
            continue
        checkpoint.write_settings(
            workdir, config_lib.from_json(json.dumps(stored["config"])), stored["versions"]
        )
        say.line(
            f"{workdir}: {', '.join(damaged)} was damaged, and is written again from checkpoint {step}"
        )
        return
    if "config.json" in damaged:
        config_lib.read(workdir)


def _is_damaged(read, path):
    try:
        read(path)
    except DamagedError:
        return True
    return False


def restore(
    manager, *, variables: Any, train: Any, config: Config | None
) -> tuple[int, Any, Any] | None:
    """The newest whole checkpoint, on this run's devices, whatever number of devices wrote it.

    A damaged one is moved to `<workdir>/damaged/<step>`, with a warning, and the one before is used; without any, training
    begins anew.

    Args:
      manager: from `manager`.
      variables: tree of arrays or shapes to restore into.
      train: the same.
      config: this run's settings, whose model must be that of the checkpoint; None: what is stored does not depend on it.

    Returns:
      (step, variables, train), or None where there is no checkpoint.

    Raises:
      ValueError: the checkpoint is of another model.
    """
    for step in sorted(manager.all_steps(), reverse=True):
        path = pathlib.Path(manager.directory) / str(step)
        try:
            known = damage.check_json(path)
            # Settings first: to the storage library, another model's shapes look like damage.
            if config is not None:
                _same_model(damage.stored_config(path), config, step)
            args = ocp.args.Composite(
                variables=ocp.args.StandardRestore(devices_lib.replicated_like(variables)),
                train=ocp.args.StandardRestore(devices_lib.replicated_like(train)),
            )
            items = damage.read_arrays(
                lambda step=step, args=args: manager.restore(step, args=args)
            )
            damage.check_arrays(known, "variables", items.variables)
            damage.check_arrays(known, "train", items.train)
            return step, items.variables, items.train
        except DamagedError as error:
            damage.set_aside(path, error)
            manager.reload()
    return None


def _same_model(stored: dict, config, step: int) -> None:
    # Through JSON as the stored ones were, so that tuples compare as lists.
    here = json.loads(json.dumps(config.model.to_dict()))
    if stored["model"] != here:
        raise ValueError(
            f"checkpoint {step} holds another model, {stored['model']}, than config.model, {here}; "
            "use another --workdir or the settings in its config.json"
        )
