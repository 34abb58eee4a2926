"""The table of all stages, and what runs them: `run` for one network, `run_study` for many."""

import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax import data, report, study
from mixaug_jax.config import brought
from mixaug_jax.core import checks, files, processes, say
from mixaug_jax.papers import bottleneck_table, deep_taylor, released, relevance, rendergan
from mixaug_jax.papers.relevance import panels
from mixaug_jax.stages import dissect, explain, forecast, intervene, occlude, train, weights
from mixaug_jax.stages.base import Stage
from mixaug_jax.study import plan, study_tables
from mixaug_jax.training import checkpoint as checkpoint_lib
from mixaug_jax.training import resuming

STAGES: dict[str, Stage] = {
    "train": train.STAGE,
    "dissect": dissect.STAGE,
    "intervene": intervene.STAGE,
    "explain": explain.STAGE,
    "occlude": occlude.STAGE,
    "report": report.STAGE,
    "import": weights.IMPORT,
    "export": weights.EXPORT,
    "released": released.STAGE,
    "bottleneck_table": bottleneck_table.STAGE,
    "taylor": deep_taylor.STAGE,
    "relevance": relevance.STAGE,
    "panels": panels.STAGE,
    "gan": rendergan.GAN,
    "decode": rendergan.DECODE,
}
ALL = (
    "train",
    "dissect",
    "intervene",
    "explain",
    "occlude",
    "report",
)  # what "all" does, unless config.stages says otherwise


def run(
    config: ml_collections.ConfigDict,
    workdir: os.PathLike | str,
    stage: str = "all",
    *,
    checkpoint: str = "latest",
    code: str = "recorded",
) -> None:
    """Does what `python -m mixaug_jax.main` does: one stage of a run, or all of them.

    Args:
      config: from `get_config`, changed at will.
      workdir: folder of the run; made where missing.
      stage: a name in `STAGES`, or "all": those that `config.stages` names (the default: `ALL`). What cannot work is said
        before the first of them begins.
      checkpoint: what later stages read: "latest", "best", "all" or a step's number.
      code: where entries that a user brought to the run come from: "recorded", the file that brought them, if that is still
        the same; "stored", the run's own copy, which is then run.

    Raises:
      ValueError: settings or data that cannot work, an unknown stage, a working directory that another process is at work in.
      FloatingPointError: the loss is not finite; the last good checkpoint stays.
      training.Interrupted: SIGTERM came; everything is saved.
      MemoryError, OSError: memory or disk ran out.
    """
    workdir = pathlib.Path(workdir).absolute()  # a stage of a user's own is given a path, too
    _agree(config, workdir, f"{stage} of checkpoint {checkpoint}")
    # A page may be made of a run that goes on; whatever else is asked for writes what another call might write, too.
    if stage == "report":
        _run(config, workdir, stage, checkpoint, code)
        return
    with processes.claimed(workdir / files.RUN_LOCK):
        resuming.heal_settings(workdir)
        _run(config, workdir, stage, checkpoint, code)


def _run(config, workdir, stage, checkpoint, code):
    """Does what `run` says, in a working directory that no other process writes to."""
    if (workdir / "config.json").exists():
        brought.bring(brought.read(config_lib.read(workdir)), workdir, code)
    names, config = _names(config, stage), data.settled(config)
    # What cannot work is said before a training, not after it; a network that is there already each stage asks itself.
    given = checkpoint_lib.is_given(workdir) and not config.weights
    for name in names if len(names) > 1 and not given else ():
        STAGES[name].check(config)
    for name in names:
        began = time.monotonic()
        if name != "train" or config.weights:
            processes.stop_at_signals()
        STAGES[name].run(config, workdir, which=checkpoint, required=stage != "all")
        say.line(f"{name}: {say.duration(time.monotonic() - began)}")


def _agree(config, workdir, stage):
    """All processes of a job must do the same, with the same packages, in a folder that all of them see."""
    settings = config_lib.flatten(json.loads(config_lib.to_json(config)))
    processes.compare("settings", {"stage": stage} | settings)
    processes.compare("versions", files.versions())
    processes.check_shared(workdir)


def _names(config, stage):
    """The stages that a name stands for."""
    own = tuple(config.stages)
    names = (stage,) if stage != "all" else own or ALL
    checks.choices("stage", names, STAGES)
    if stage == "train" and own and stage not in own:
        raise ValueError(
            f"this config trains nothing: config.stages is {', '.join(own)}; leave out --stage=train"
        )
    return names


def check(
    config: ml_collections.ConfigDict, workdir: os.PathLike | str, stage: str = "all"
) -> None:
    """Says all that can be said of a run before its first step, and raises where it cannot work.

    Args:
      config, workdir, stage: as in `run`.

    Raises:
      ValueError: settings or data that cannot work, an unknown stage.
    """
    config = data.settled(config)
    for name in _names(config, stage):
        STAGES[name].check(config)
        say.detail(f"{name}: nothing speaks against it")
    forecast.say_forecast(config, workdir)
    say.result("nothing speaks against it; leave out --check to begin")


def run_study(
    configs: Any = (),
    seeds: Sequence[int] = (),
    workdir: os.PathLike | str = "",
    *,
    overrides: Sequence[str] = (),
    unmixed_labels: bool = False,
    sweep: Sequence[str] = (),
    jobs: int = 1,
) -> study.Study:
    """Makes the runs that are missing and compares all of them.

    Each run is a process of its own (`python -m mixaug_jax.main --stage=all`), so a notebook on a TPU has to call this before
    it uses the TPU itself. What is there already is not made again; a run that fails does not stop the others.

    Args:
      configs: config files ("FILE.py" or "FILE.py:DATA") or ConfigDicts, or {name: either}; see `study.make_plan`. Without any,
        no run is made, and those that are there are compared.
      seeds: of the trainings.
      workdir: the study's folder. Runs are in `<workdir>/<config>/<seed>`.
      overrides: "key=value" for every config, e.g. "train.epochs=3".
      unmixed_labels: add, for each config that mixes labels, the same with the one label of which an image shows more.
      sweep: "key=value,value" makes each value an augmentation of its own, e.g. "mix.alpha=0.2,1.0".
      jobs: runs at once, each on its own devices of this machine.

    Returns:
      The comparison; `problems` holds the runs that failed. Its tables are in `<workdir>/tables`, its page in
      `<workdir>/report/report.html`.

    Raises:
      ValueError: settings that cannot work, or a folder of other settings; nothing has been run.
      study.Stopped: SIGTERM or Ctrl-C came; the same call goes on.
    """
    if len(configs):
        runs = study.make_plan(
            configs, seeds, workdir, overrides, unmixed_labels=unmixed_labels, sweep=sweep
        )
        plan.write_asked(runs, workdir, overrides)
        study.run_missing(runs, jobs)
    # From the files alone, so that a study whose runs were made elsewhere is compared alike.
    found = study.gather(workdir)
    study_tables.write_tables(found, pathlib.Path(workdir).expanduser() / "tables")
    say.result(study_tables.summary(found))
    report.write_study(found, workdir)
    return found
