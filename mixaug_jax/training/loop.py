"""The loop: `train(config, workdir)` trains, evaluates, logs and saves, and goes on from where it was."""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from clu import parameter_overview

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.config import brought
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, processes, say
from mixaug_jax.core.types import Tree
from mixaug_jax.models import build
from mixaug_jax.training import (
    checkpoint,
    disk,
    first_batch,
    losses,
    mixing_batches,
    predictions,
    resuming,
)
from mixaug_jax.training import progress as progress_lib
from mixaug_jax.training import step as steps
from mixaug_jax.training.metric_log import MetricLog, finished, read
from mixaug_jax.training.writers import Writer, checked

_MEMORY_ADVICE = (
    "memory ran out; lower data.batch_size or eval.batch_size, raise train.accumulate (smaller micro-batches, the same step), "
    "set model.remat=True or model.dtype=bfloat16, or lower data.size"
)


class Interrupted(RuntimeError):  # noqa: N818
    """The run was asked to stop (SIGTERM); everything is saved and the same command goes on."""


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for settings that no training can work with on the devices that there are; opens no data."""
    config_lib.check(config)
    config_lib.check_layers(config)
    _check_devices(config)
    # A mixer of images wants to know neither how many classes nor how many images there will be.
    some = {"train_size": config.data.batch_size, "class_names": ("one", "another")}
    if not mixing_batches.needs_network(config):
        mixing_batches.check_mixing(config_lib.resolve(config, **some))


def train(
    config: ml_collections.ConfigDict,
    workdir: os.PathLike | str,
    *,
    make: Callable | None = None,
    arrays: Tree = (),
    writers: Sequence[Writer] = (),
) -> dict:
    """Trains a network, or goes on with a run that was cut short, and evaluates it.

    Args:
      config: from `get_config`, changed at will.
      workdir: folder for checkpoints and logs; made where missing. A finished run is not trained again.
      make: makes the training data on the device, in place of the examples of data.train_split, see `data.Source`; an epoch is
        as long as theirs.
      arrays: what `make` is given.
      writers: who else is told of settings, metrics and the first images: anything with `write_scalars(step, {name: value})`,
        `write_images(step, {name: uint8 [N,H,W,C]})` and `write_hparams({key: value})`, see `writers.Writer`.

    Returns:
      {"test_accuracy": 0..1 on the test split ("validation_accuracy" where there is none), "step": number of steps,
      "checkpoint": path of the last checkpoint}.

    Raises:
      ValueError: settings or data that cannot work, a working directory of another config, or one that is in use.
      FloatingPointError: the loss is not finite; the last good checkpoint stays.
      Interrupted: SIGTERM came.
      MemoryError, OSError: memory or disk ran out.
    """
    check(config)
    writers = checked(writers)
    config = data.settled(config)
    sources = data.open_splits(config)
    if make is not None:
        sources["train"] = dataclasses.replace(sources["train"], make=make, arrays=arrays)
    train = sources["train"]
    losses.check_loss(config, train)
    mixing_batches.check_label(config, train)
    config = config_lib.resolve(
        config,
        train_size=len(train),
        class_names=train.class_names,
        multi_label=train.multi_label,
    )
    config = brought.noted(config)
    sizes = {name: len(source) for name, source in sources.items() if source is not None}
    processes.compare("data", sizes | {"classes": sources["train"].class_names})
    teacher = mixing_batches.teacher(config)
    # What `check` could not try: a network has a size once the classes are known.
    if mixing_batches.needs_network(config):
        mixing_batches.check_mixing(config, teacher)
    workdir = pathlib.Path(workdir).absolute()
    with processes.claimed(workdir / files.RUN_LOCK):
        return _train_in(workdir, config, sources, teacher, writers)


def _train_in(workdir, config, sources, teacher, writers) -> dict:
    """`train` in a working directory that no other process writes to."""
    resuming.heal_settings(workdir)
    # A run that goes on must be this one, and takes over where its schedule began.
    if checkpoint.folder(workdir).is_dir():
        checkpoint.check_settings(workdir, config)
        config = resuming.resumed(config, workdir)
    checkpoint.write_settings(workdir, config)
    _describe(config, sources, workdir)
    with (
        devices_lib.applied(config),
        devices_lib.out_of_memory(_MEMORY_ADVICE),
        disk.full_disk(workdir),
        checkpoint.manager(
            workdir,
            keep_steps=config.resolved.keep_steps,
            scored=sources["validation"] is not None,
        ) as manager,
    ):
        return _train(config, sources, workdir, manager, teacher, writers)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the parts of the loop share."""

    config: Any
    sources: dict
    workdir: pathlib.Path
    manager: Any
    metric_log: MetricLog
    evaluate: Callable

    @property
    def held_out(self) -> str:
        """The split that the finished network is judged on."""
        return "test" if self.sources["test"] is not None else "validation"


def _train(config, sources, workdir, manager, teacher, writers) -> dict:
    total = config.resolved.steps
    model, optimizer = build.build_model(config), steps.build_optimizer(config)
    state = _restore_or_init(model, optimizer, config, manager)
    start = int(state.step)
    if start > total:
        raise ValueError(
            f"{workdir} is at step {start} already, and the length asked for is {total} steps; "
            "a run may only be made longer"
        )
    # Evaluated once: what a finished run has logged is not computed again.
    scores = _finished(workdir, total) if start == total else {}
    processes.compare_views(workdir, {"step": start, "finished": bool(scores)})
    with contextlib.closing(MetricLog(workdir, start, writers)) as metric_log:
        run = _Run(config, sources, workdir, manager, metric_log, _evaluator(model, config))
        if start < total:
            metric_log.describe(config_lib.flatten(config.to_dict()))
            with _stop_signal() as stop:
                given = {"model": model, "optimizer": optimizer, "config": config}
                train_step = _train_step(given, sources["train"], teacher)
                state, scores = _loop(run, state, train_step, stop)
            manager.wait_until_finished()
            processes.stop_at_signals()  # no step is left after which all processes would stop
        net = build.as_net(config, model, state.evaluated)
        found = predictions.keep(workdir, net, sources[run.held_out], config, run.held_out)
        if f"{run.held_out}_images" not in scores:
            scores = run.evaluate(state.evaluated, sources[run.held_out], run.held_out)
            if not found.targets.size:  # one number, whatever rounding makes of two equal logits
                scores[f"{run.held_out}_accuracy"] = found.accuracy
            scores |= _ended(run)
            metric_log.write(total, **scores)
    path = checkpoint.folder(workdir) / str(total)
    name = f"{run.held_out}_accuracy"
    images = f"{len(sources[run.held_out])} images"
    say.line(f"{run.held_out} accuracy {scores[name]:.4f} ({images})\ncheckpoint {path}")
    return {name: scores[name], "step": total, "checkpoint": str(path)}


def _ended(run) -> dict:
    """What stands in the last line of a finished run alone: how many images its accuracy is of."""
    return {f"{run.held_out}_images": len(run.sources[run.held_out])}


def _train_step(given, source, teacher):
    """The mapped step: of a state and a batch, or of a state and the arrays that a source makes its data from."""
    config = given["config"]
    step, spec = functools.partial(steps.train_step, **given), devices_lib.SHARDED
    if source.make is not None:
        count = config.data.batch_size // jax.device_count()
        step = functools.partial(steps.made_step, make=source.make, count=count, **given)
        spec = devices_lib.REPLICATED
    # A network that the mixer looks at is one more argument: closed over, it would be compiled into the step.
    more = () if teacher is None else (devices_lib.replicate(teacher),)
    mapped = devices_lib.pmap(
        step,
        in_specs=(devices_lib.REPLICATED, spec, *(devices_lib.REPLICATED for _ in more)),
        out_specs=(devices_lib.REPLICATED, devices_lib.REPLICATED),
        # Donated, so that the old and the new state need not fit in memory together.
        donate_argnums=0,
        deterministic=config.deterministic,
    )
    return lambda state, data: mapped(state, data, *more)


def _loop(run, state, train_step, stop):
    config, start, total = run.config, int(state.step), run.config.resolved.steps
    batches = _batches(run.sources["train"], config, start)
    rate = steps.learning_rate(config)
    progress = progress_lib.Progress(run.metric_log, rate, config.data.batch_size, start, total)
    profile = progress_lib.Profile(run.workdir, config.train.profile_steps)
    say.line("compiling the training step ...")
    for step in range(start + 1, total + 1):
        with progress.waiting():
            batch = next(batches)
        if step == 1 and run.sources["train"].make is None:
            run.metric_log.show(step, functools.partial(first_batch.pictures, batch, config))
        with profile.step(step, step - start):
            state, metrics = train_step(state, batch)
        progress.add(step, metrics)
        # Processes must stop after the same step, or those that go on hang in a collective.
        stopping = devices_lib.stop_requested(stop, step)
        scores = _at_cadence(run, step, state, progress, stopping)
        if stopping:
            run.manager.wait_until_finished()
            raise Interrupted(
                f"stopped by a signal at step {step}: it is saved, and the same command goes on from there"
            )
    return state, scores


def _batches(source, config, start):
    """What each step takes: batches that are read ahead, or ever the same arrays where the step makes its data."""
    if source.make is not None:
        return itertools.repeat(devices_lib.replicate(source.arrays))
    batches = data.batches(source, config, train=True, start=start)
    return devices_lib.prefetch(batches, config.data.prefetch)


def _at_cadence(run, step, state, progress, stopping) -> dict:
    """Logs, evaluates and saves when their time has come; the scores of the validation split, if it was evaluated."""
    r = run.config.resolved
    last = step == r.steps
    saving = step % r.checkpoint_steps == 0 or last
    evaluating = step % r.eval_steps == 0 or saving  # so that the best checkpoint can be chosen
    saving = saving or stopping
    if saving:
        progress.check_finite(step)  # what is saved can be gone on from
    scores = {}
    if evaluating and run.sources["validation"] is not None:
        with progress.paused():
            scores = run.evaluate(state.evaluated, run.sources["validation"], "validation")
        # Without a test split this is the run's result, which is not measured once more.
        ended = _ended(run) if last and run.held_out == "validation" else {}
        scores |= ended
        run.metric_log.write(step, **scores)
        progress.note({} if ended else scores)  # the result has a line of its own
    if step % run.config.train.log_every == 0 or last or stopping:
        progress.report(step)
    if saving:
        with progress.paused():
            _save(run.manager, step, state, run.config, scores)
    return scores


def _save(manager, step, state, config, scores):
    variables, train = _split(state)
    checkpoint.write_checkpoint(
        manager, step, variables=variables, train=train, config=config, metrics=scores
    )


def _split(state):
    """The state as a checkpoint's items: what later stages read, and what a resumed run needs besides."""
    train = {"step": state.step, "opt_state": state.opt_state}
    # Without an average they are the evaluated ones, which need not be stored twice.
    if state.ema:
        train["variables"] = state.variables
    return state.evaluated, train


def _restore_or_init(model, optimizer, config, manager) -> steps.State:
    shapes = steps.state_shapes(model, optimizer, config)
    disk.check_space(manager.directory.parent, shapes)
    variables, train = _split(shapes)
    restored = resuming.restore(manager, variables=variables, train=train, config=config)
    if restored is None:
        state = steps.init_state(model, optimizer, config)
    else:
        step, variables, train = restored
        say.line(f"going on from the checkpoint of step {step}")
        # A checkpoint keeps as its variables those that are evaluated, the averaged ones where there are any.
        ema = variables if shapes.ema else {}
        state = steps.State(
            train["step"], train.get("variables", variables), train["opt_state"], ema
        )
    params = state.variables["params"]
    say.line(f"{parameter_overview.count_parameters(params):,} parameters")
    say.detail(parameter_overview.get_parameter_overview(params, include_stats=False))
    return state


def _evaluator(model, config):
    # Mapped once: the validation and the test split share the program.
    eval_step = devices_lib.pmap(
        functools.partial(steps.eval_step, model=model, config=config),
        in_specs=(devices_lib.REPLICATED, devices_lib.SHARDED),
        out_specs=devices_lib.REPLICATED,
        deterministic=config.deterministic,
    )

    def evaluate(variables: Tree, source: Any, split: str) -> dict:
        """Loss and accuracy over every example of a split."""
        began = time.monotonic()
        size = data.evaluation_batch(source, config)
        # eval.batch_size counts all processes together, of which each reads its own share.
        local = size // jax.process_count()
        batches = data.batches(source, config, train=False)
        batches = devices_lib.prefetch(
            (devices_lib.pad_batch(b, local) for b in batches), config.data.prefetch
        )
        total = steps.EvalMetrics.empty()
        for batch in batches:
            total = total.merge(eval_step(variables, batch))
        scores = {f"{split}_{k}": float(v) for k, v in total.compute().items()}
        say.detail(
            f"{split}: loss {scores[f'{split}_loss']:.4f}  accuracy {scores[f'{split}_accuracy']:.4f}  "
            f"({len(source)} images, {time.monotonic() - began:.1f} s)"
        )
        return scores

    return evaluate


def _finished(workdir, total) -> dict:
    """The scores that a finished run logged, or {}."""
    scores = {k: v for k, v in finished(read(workdir), total).items() if k != "step"}
    if scores:
        say.line(f"this run is finished ({total} steps); there is nothing to train")
    return scores


@contextlib.contextmanager
def _stop_signal():
    """An event that SIGTERM sets. Signals reach the main thread only; elsewhere the event is never set.

    Nor is it in a job of several processes, where JAX's runtime has to hear the signal: see `devices.stop_requested`.
    """
    stop = threading.Event()
    alone = jax.process_count() == 1
    if not alone or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_devices(config):
    micro = config.data.batch_size // config.train.accumulate
    mixing = config.mix.name != "none"
    # Images are mixed with others on their own device, so each needs two.
    devices_lib.check_batch_size(micro, 2 if mixing else 1, "data.batch_size / train.accumulate")
    devices_lib.check_batch_size(config.eval.batch_size, key="eval.batch_size")


def _describe(config, sources, workdir):
    devices = jax.devices()
    say.line(f"working directory {workdir}")
    say.line(
        f"{len(devices)} {devices[0].platform} device(s) ({devices[0].device_kind}), process "
        f"{jax.process_index() + 1} of {jax.process_count()}"
    )
    say.line("settings are in config.json; --verbosity=1 prints them")
    say.detail(config_lib.overview(config))
    sizes = ", ".join(f"{len(s)} {name}" for name, s in sources.items() if s is not None)
    r = config.resolved
    say.line(
        f"{config.data.name}: {sizes}, {len(r.class_names)} classes; {r.steps} steps of {config.data.batch_size} images"
    )
