"""Checkpoints: `<workdir>/checkpoints/<step>/{variables,train,config}`, written by orbax.

`variables` is what later stages read (the averaged weights where `train.ema` is on); `train` is what a resumed
run needs besides; `config` holds the settings and the versions of the packages. A checkpoint is written beside
its place and renamed when it is whole.
"""

import contextlib
import errno
import json
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

from mixaug_jax import config as config_lib
from mixaug_jax import models
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, say
from mixaug_jax.models import build

METRIC = "validation_accuracy"  # what "best" means


def folder(workdir) -> pathlib.Path:
    """Where a working directory keeps its checkpoints, as an absolute path (orbax takes no other)."""
    return pathlib.Path(workdir).absolute() / "checkpoints"


def check_settings(workdir, config) -> None:
    """Raises ValueError, naming what differs, where a working directory is that of a run of other settings."""
    changed = config_lib.difference(config_lib.read(workdir), config)
    if changed:
        raise ValueError(
            f"{workdir} holds a run of other settings ({'; '.join(changed)}); use another --workdir, or "
            "these settings again"
        )


def write_settings(workdir, config) -> None:
    """Makes a working directory with its config.json and versions.json; waits for all processes."""
    if devices_lib.is_main():
        workdir = pathlib.Path(workdir)
        for name, text in (
            ("config.json", config_lib.to_json(config)),
            ("versions.json", json.dumps(files.versions(), indent=2)),
        ):
            files.write_text(workdir / name, text)
    devices_lib.barrier("settings written")


def manager(workdir, *, keep_steps: int = 0, scored: bool = True) -> ocp.CheckpointManager:
    """Keeps the latest two checkpoints, the best if they are `scored` on validation data, every `keep_steps`-th (0: none)."""
    # Two, so that one is left where the newest turns out to be damaged. The union of policies: a plain "best N" would delete
    # the newest checkpoint when it is not among the best, and a killed run would start from an old one.
    policies = [
        keep.LatestN(2),
        keep.BestN(get_metric_fn=lambda m: m[METRIC], n=1, keep_checkpoints_without_metrics=False),
    ]
    if keep_steps:
        policies.append(keep.EveryNSteps(keep_steps))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep.AnyPreservationPolicy(policies),
        best_fn=(lambda m: m[METRIC]) if scored else None,
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager(folder(workdir), options=options)


def save(manager, step: int, *, variables: Any, train: Any, config, metrics: dict) -> None:
    """Starts writing a checkpoint (in the background; `wait` ends it).

    Args:
      manager: from `manager`.
      step: number of finished training steps.
      variables: tree of global arrays.
      train: tree of global arrays.
      config: the resolved settings.
      metrics: numbers by name; without METRIC the checkpoint cannot be the best one.
    """
    args = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        train=ocp.args.StandardSave(train),
        config=ocp.args.JsonSave({"config": config.to_dict(), "versions": files.versions()}),
    )
    manager.save(step, args=args, metrics=metrics if METRIC in metrics else None)


@contextlib.contextmanager
def full_disk(workdir):
    """Turns whatever a full disk makes of writing files into one OSError that says so."""
    try:
        yield
    except Exception as error:  # the storage library raises several kinds, from its own threads
        if any(sign in repr(error) for sign in ("No space left", "Disk quota", "File too large")):
            raise OSError(
                errno.ENOSPC,
                f"the disk is full: {workdir} could not be written, its earlier checkpoints are whole; "
                "make room and run the same command again",
            ) from error
        raise


def check_space(workdir, tree: Any) -> None:
    """Raises OSError where the disk has not room for two checkpoints of `tree` (arrays or their shapes)."""
    need = 2 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    free = shutil.disk_usage(folder(workdir).parent).free
    if free < need:
        raise OSError(
            errno.ENOSPC,
            f"{workdir} has {free / 2**20:.0f} MiB free; two checkpoints need {need / 2**20:.0f} MiB",
        )


def restore(manager, *, variables: Any, train: Any, config) -> tuple[int, Any, Any] | None:
    """The newest whole checkpoint, on this run's devices, whatever number of devices wrote it.

    A damaged one is moved to `<workdir>/damaged/<step>`, with a warning, and the one before is used.

    Args:
      manager: from `manager`.
      variables: tree of arrays or shapes to restore into.
      train: the same.
      config: this run's settings.

    Returns:
      (step, variables, train), or None where there is no checkpoint.

    Raises:
      ValueError: the checkpoint is of another model.
    """
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            stored = manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
            _same_model(stored.config["config"], config, step)
            args = ocp.args.Composite(
                variables=ocp.args.StandardRestore(devices_lib.replicated_like(variables)),
                train=ocp.args.StandardRestore(devices_lib.replicated_like(train)),
            )
            items = manager.restore(step, args=args)
            return step, items.variables, items.train
        except _OtherModelError:
            raise
        except Exception as error:  # whatever a damaged file makes the storage library raise
            _set_aside(manager, step, error)
    return None


class _OtherModelError(ValueError):
    pass


def _same_model(stored: dict, config, step: int) -> None:
    here = json.loads(json.dumps(config.model.to_dict()))
    if stored["model"] != here:
        raise _OtherModelError(
            f"checkpoint {step} holds another model, {stored['model']}, than config.model, {here}; "
            "use another --workdir or the settings in its config.json"
        )


def _set_aside(manager, step: int, error: Exception) -> None:
    damaged = manager.directory.parent / "damaged"
    say.warning(
        f"checkpoint {step} cannot be read ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]}); "
        f"it is now in {damaged} and the one before it is used"
    )
    if devices_lib.is_main():
        shutil.rmtree(damaged / str(step), ignore_errors=True)
        pathlib.Path(damaged).mkdir(exist_ok=True)
        shutil.move(manager.directory / str(step), damaged / str(step))
    devices_lib.barrier("damaged checkpoint set aside")
    manager.reload()


def steps(workdir, which: str | int = "latest") -> list[int]:
    """The checkpoints that "latest", "best", "all" or a step's number stands for.

    Raises:
      ValueError: there is none, or not that one.
    """
    if not folder(workdir).is_dir():
        raise ValueError(f"{workdir} has no checkpoints; run --stage=train first")
    with manager(workdir) as saved:
        found = sorted(saved.all_steps())
        best = saved.best_step()
    if not found:
        raise ValueError(f"{workdir} has no whole checkpoint; run --stage=train first")
    if which == "all":
        return found
    if which == "latest":
        return found[-1:]
    if which == "best":
        if best is None:
            raise ValueError(f"no checkpoint in {workdir} was scored on validation data")
        return [best]
    if str(which).isdigit() and int(which) in found:
        return [int(which)]
    raise ValueError(
        f"checkpoint={which!r} is not in {workdir}; allowed: latest, best, all, "
        + ", ".join(map(str, found))
    )


def load(workdir, checkpoint: str | int = "latest"):
    """The network of a working directory.

    Args:
      workdir: written by training (or by an import of weights).
      checkpoint: "latest", "best" or a step's number.

    Returns:
      `models.Net` with its variables (float32, on every device) and its own preprocessing.

    Raises:
      ValueError: no such checkpoint.
    """
    (step,) = steps(workdir, checkpoint)
    path = folder(workdir) / str(step)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        stored = reader.restore(path / "config")
    config = config_lib.from_json(json.dumps(stored["config"]))
    model = build.build_model(config)
    shapes = build.variable_shapes(model, config)
    with ocp.StandardCheckpointer() as reader:
        variables = reader.restore(path / "variables", devices_lib.replicated_like(shapes))
    return models.Net(model, variables, build.build_preprocess(config))
