"""Checkpoints: `<workdir>/checkpoints/<step>/{variables,train,config,checksums}`, written by orbax.

`variables` is what later stages read (the averaged weights where `train.ema` is on); `train` is what a resumed
run needs besides; `config` holds the settings and the versions of the packages; `checksums` tells a damaged one. A
checkpoint is written beside its place and renamed when it is whole.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

from mixaug_jax import config as config_lib
from mixaug_jax import models
from mixaug_jax.config import brought
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, processes, say
from mixaug_jax.core.files import DamagedError
from mixaug_jax.core.types import Config, Path, Tree
from mixaug_jax.models import build
from mixaug_jax.models.net import count_classes, count_logits, input_shape
from mixaug_jax.training import damage, disk, weight_log

METRIC = "validation_accuracy"  # what "best" means


def folder(workdir) -> pathlib.Path:
    """Where a working directory keeps its checkpoints, as an absolute path (orbax takes no other)."""
    return pathlib.Path(workdir).absolute() / "checkpoints"


def check_settings(workdir, config) -> None:
    """Raises ValueError, naming what differs, where a working directory is that of a run of other settings."""
    stored = config_lib.read(workdir)
    changed = config_lib.difference(stored, config)
    if "resolved" in config:
        changed += [f"{file} has changed" for file in brought.changed(stored, config)]
    if changed:
        raise ValueError(
            f"{workdir} holds a run of other settings ({'; '.join(changed)}); use another --workdir, or "
            "these settings again"
        )


def write_settings(workdir: Path, config: Config, versions: dict | None = None) -> None:
    """Makes a working directory with its config.json and versions.json (None: of now); waits for all processes."""
    if processes.is_main():
        workdir = pathlib.Path(workdir)
        for name, text in (
            ("config.json", config_lib.to_json(config)),
            ("versions.json", json.dumps(versions or files.versions(), indent=2)),
        ):
            files.write_text(workdir / name, text)
        files.seal(workdir, ("config.json", "versions.json"))
        brought.copy_to(brought.read(config), workdir)
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
    _whole_steps(workdir)  # the storage library would not open beside a damaged one
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep.AnyPreservationPolicy(policies),
        best_fn=(lambda m: m[METRIC]) if scored else None,
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager(folder(workdir), options=options)


def write_checkpoint(
    manager, step: int, *, variables: Any, train: Any, config, metrics: dict
) -> None:
    """Starts writing a checkpoint (in the background; the manager's `wait_until_finished` ends it).

    Args:
      manager: from `manager`.
      step: number of finished training steps.
      variables: tree of global arrays.
      train: tree of global arrays.
      config: the resolved settings.
      metrics: numbers by name; without METRIC the checkpoint cannot be the best one.
    """
    settings = {"config": config.to_dict(), "versions": files.versions()}
    scores = metrics if METRIC in metrics else None
    args = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        train=ocp.args.StandardSave(train),
        config=ocp.args.JsonSave(settings),
        checksums=ocp.args.JsonSave(damage.checksums(variables, train, settings, scores or {})),
    )
    if processes.is_main():
        weight_log.note(manager.directory.parent, step, variables)
    manager.save(step, args=args, metrics=scores)


def is_given(workdir: Path) -> bool:
    """Whether a working directory holds a network that was not trained there, but imported or saved."""
    path = pathlib.Path(workdir) / "config.json"
    return path.exists() and not config_lib.read(workdir).get("resolved", {}).get("steps", 1)


def write_network(workdir: Path, config: Config, variables: Tree) -> None:
    """Writes variables that were not trained here as checkpoint 0 of a working directory, and waits for it.

    Raises:
      OSError: the disk is full.
    """
    write_settings(workdir, config)
    with disk.full_disk(workdir), manager(workdir, scored=False) as writer:
        arrays = {"variables": devices_lib.replicate(variables)}
        arrays |= {"train": {"step": devices_lib.replicate(0)}}
        write_checkpoint(writer, 0, **arrays, config=config, metrics={})


def save(
    net: models.Net,
    workdir: Path,
    *,
    config: Config | None = None,
    model: str = "",
) -> None:
    """Writes any network as checkpoint 0 of a working directory, which `load` and every later stage read.

    The weights go into the checkpoint; the architecture is made again when it is loaded: one of MODELS by its name, another
    linen module by its class and its fields, from the installed package or the file that defines it (of which a copy is kept),
    an nnx module by the function in MODELS that `model` names. Classes are called by their numbers.

    Args:
      net: whose preprocessing is a `models.Preprocess`.
      workdir: folder for the checkpoint; made where missing. The same network is not written twice.
      config: settings of the later stages; None is `get_config("baseline", data="folder")`.
      model: a name in MODELS of what makes the network; "" finds out.

    Raises:
      ValueError: a network that cannot be made again from a file, or a working directory of another run.
      OSError: the disk is full.
    """
    config = config_lib.get_config("baseline", data="folder") if config is None else config
    config_lib.check(config)
    if not isinstance(net.preprocess, models.Preprocess):
        raise ValueError(
            f"preprocess must be a models.Preprocess, whose values can be stored; got {net.preprocess!r}"
        )
    _check_variables(net, build.shapes_for(net.model, input_shape(net.preprocess)))
    settings = build.described(net, model)
    shape = input_shape(net.preprocess)
    classes, logits = tuple(map(str, range(count_classes(net, shape)))), count_logits(net, shape)
    config = config_lib.resolve(config, train_size=0, class_names=classes)
    with config.unlocked():
        config.resolved.update(
            steps=0,
            weights_checksum=files.checksum(net.variables),
            model=settings,
            logits=logits,
            loss=net.loss,
            preprocess=dataclasses.asdict(net.preprocess),
            code=_code_of(config, settings),
        )
    if _whole_steps(workdir):  # the same network may be saved again
        check_settings(workdir, config)
        there = config_lib.read(workdir).resolved
        if there.get("weights_checksum") != config.resolved.weights_checksum:
            raise ValueError(f"{workdir} holds a run of other weights; use another folder")
        say.line(f"{workdir} holds this network already")
        return
    write_network(workdir, config, net.variables)
    say.line(f"checkpoint {folder(workdir) / '0'}")


def _check_variables(net, shapes):
    """Raises ValueError where a network's variables are not those that its model has anew."""
    given, known = (
        {jax.tree_util.keystr(p): v.dtype for p, v in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (net.variables, shapes)
    )
    for path in {**known, **given}:
        here, there = (str(found.get(path, "not there")) for found in (given, known))
        if here != there:
            raise ValueError(
                f"the variable {path} is {here} in the network and {there} in its model as it starts, so it could not be "
                "loaded again"
            )


def _code_of(config, settings):
    """The files outside the package that make a network, as JSON text for `resolved.code`."""
    named = config.copy_and_resolve_references()
    with named.unlocked():
        named.model.name = settings["name"]
    found = brought.recorded(config if settings.get("module") else named)
    if settings.get("sha256"):
        note = {"sha256": settings["sha256"], "module": settings["module"].partition(":")[0]}
        found.setdefault(settings["file"], note | {"entries": {}})
    return json.dumps(found) if found else ""


def steps_there(workdir: pathlib.Path | str) -> list[int]:
    """The steps of the checkpoints in a working directory, rising; none is opened."""
    return sorted(int(path.name) for path in folder(workdir).glob("*") if path.name.isdigit())


def _whole_steps(workdir, without=()) -> dict[int, dict]:
    """{step: metrics} of the checkpoints, rising; those whose settings or metrics are damaged are set aside. Reads no array."""
    found = {}
    for step in [step for step in steps_there(workdir) if step not in without]:
        path = folder(workdir) / str(step)
        try:
            damage.check_json(path)
            found[step] = damage.read_json(path, "metrics")
        except DamagedError as error:
            damage.set_aside(path, error)
    return found


def steps(workdir: Path, which: str | int = "latest", without: Collection[int] = ()) -> list[int]:
    """The checkpoints that "latest", "best", "all" or a step's number stands for; those in `without` do not count.

    Raises:
      ValueError: there is none, or not that one.
    """
    found = _whole_steps(workdir, without)
    if not found:
        # Two faults that look alike from outside: never trained, or nothing left that can be read.
        lost = pathlib.Path(workdir) / "damaged"
        damaged = lost.is_dir() or without
        why = (
            f"has no whole checkpoint left (damaged ones go to {lost})"
            if damaged
            else "has no checkpoints"
        )
        raise ValueError(f"{workdir} {why}; run --stage=train first")
    if which == "all":
        return [*found]
    if which == "latest":
        return [*found][-1:]
    if which == "best":
        scored = {step: metrics[METRIC] for step, metrics in found.items() if METRIC in metrics}
        if not scored:
            raise ValueError(f"no checkpoint in {workdir} was scored on validation data")
        # Of equals the later one, which was trained longer.
        return [max(scored, key=lambda step: (scored[step], step))]
    if str(which).isdigit() and int(which) in found:
        return [int(which)]
    raise ValueError(
        f"checkpoint={which!r} is not in {workdir}; allowed: latest, best, all, "
        + ", ".join(map(str, found))
    )


def step_of(workdir: Path, which: str | int) -> int:
    """The one checkpoint that "latest", "best" or a step's number stands for.

    Raises:
      ValueError: there is none, or "all", which is many.
    """
    if which == "all":
        raise ValueError(
            "checkpoint='all' is many, and one is asked for: latest, best or a step's number"
        )
    (step,) = steps(workdir, which)
    return step


def load(workdir: Path, checkpoint: str | int = "latest", *, code: str = "recorded") -> models.Net:
    """The network of a working directory.

    Args:
      workdir: written by training, by an import of weights, or by `save`.
      checkpoint: "latest", "best" or a step's number.
      code: where an architecture that a user brought comes from: "recorded", the file that brought it, if that is still the
        same; "stored", the run's own copy, which is then run.

    Returns:
      `models.Net` with its variables (float32, on every device) and its own preprocessing.

    Raises:
      ValueError: no such checkpoint, or an architecture whose code is not there any more.
    """
    step_of(workdir, checkpoint)  # "all" is refused
    ((_, net),) = loaded(workdir, checkpoint, code=code)
    return net


def load_alone(workdir: Path) -> models.Net:
    """The network of the newest whole checkpoint, for one process of a job that reads it while the others do something else.

    Its variables are on this process's own devices; what is damaged stays where it is.

    Raises:
      ValueError: there is no whole checkpoint, or an architecture whose code is not there any more.
    """
    for step in reversed(steps_there(workdir)):
        with contextlib.suppress(DamagedError):
            return _read(folder(workdir) / str(step), workdir, "recorded", alone=True)
    raise ValueError(f"{workdir} has no whole checkpoint; run --stage=train first")


def loaded(
    workdir: Path, which: str | int = "latest", *, code: str = "recorded"
) -> Iterator[tuple[int, models.Net]]:
    """Each checkpoint that "latest", "best", "all" or a step's number stands for, as (step, network); see `load`.

    A damaged one is set aside, which is said, and the one that is then the latest, or the best, takes its place.

    Raises:
      ValueError: no such checkpoint, none that is whole, or an architecture whose code is not there any more.
    """
    damaged, whole = set(), 0
    pending = steps(workdir, which)
    while pending:
        step = pending.pop(0)
        try:
            net = _read(folder(workdir) / str(step), workdir, code)
        except DamagedError as error:
            damage.set_aside(folder(workdir) / str(step), error)
            damaged.add(step)
            # The next best, say, is known only now; where none is left that is an error.
            if which != "all" or (not pending and not whole):
                pending = steps(workdir, which, damaged)
            continue
        whole += 1
        yield step, net


def _read(path, workdir, code, alone=False) -> models.Net:
    known = damage.check_json(path)
    config = config_lib.from_json(json.dumps(damage.stored_config(path)))
    brought.bring(brought.read(config), workdir, code)
    stored = functools.partial(brought.copy_of, workdir=workdir) if code == "stored" else None
    model = build.build_model(config, stored=stored)
    shapes = build.variable_shapes(model, config)
    me, given = jax.process_index(), {}
    if alone:
        given["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"alone{me}"
        )
    with ocp.StandardCheckpointer(**given) as reader:
        like = devices_lib.replicated_like(shapes, jax.local_devices() if alone else None)
        variables = damage.read_arrays(lambda: reader.restore(path / "variables", like))
    damage.check_arrays(known, "variables", variables)
    return build.as_net(config, model, variables)
