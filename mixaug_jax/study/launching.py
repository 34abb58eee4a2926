"""The runs of a study as jobs of a Slurm cluster, by submitit."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mixaug_jax.core import files, say
from mixaug_jax.study import plan, runs

CLUSTERS = ("slurm", "local")  # local: processes of this machine, to try a launch
_RETRIES = 20  # how often a job is queued again after its time was up
_POLL = 0.1  # seconds


@dataclasses.dataclass(frozen=True)
class Resources:
    """What each job asks for.

    Attributes:
      hours: until the scheduler ends it; it saves before, and is queued again.
      gpus: of its node.
      cpus: cores.
      memory_gb: of the node; 0: what the cluster gives by default.
      partition: of the cluster; "": its default.
      at_once: jobs of the array that may run at the same time; 0: no limit.
      more: other parameters of sbatch, as {"account": "vision"}.
    """

    hours: float = 8.0
    gpus: int = 1
    cpus: int = 8
    memory_gb: float = 0.0
    partition: str = ""
    at_once: int = 0
    more: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Job:
    """One run, as submitit calls it on a node; a job that is stopped saves and is queued again."""

    run: plan.Run

    def __call__(self) -> None:
        """Makes the run, or goes on with it.

        Raises:
          RuntimeError: it failed; says why.
        """
        failures = runs.run_missing([self.run])
        if failures:
            raise RuntimeError(failures[0])

    def checkpoint(self) -> Any:
        """Called by submitit when the job is preempted or its time is up: the run saves, and the same job comes again."""
        submitit = _submitit()
        # `run_missing` passes the signal on; when its process has saved and ended, the folder is free.
        signal.raise_signal(signal.SIGTERM)
        while files.is_locked(self.run.workdir / "lock"):
            time.sleep(_POLL)
        return submitit.helpers.DelayedSubmission(self)


@dataclasses.dataclass(frozen=True)
class Gathering:
    """The last job, which compares the runs and writes the page."""

    workdir: pathlib.Path

    def __call__(self) -> int:
        """Gathers; returns the exit code, 1 where runs are missing."""
        command = [
            sys.executable,
            "-m",
            "mixaug_jax.study",
            f"--workdir={self.workdir}",
            "--gather",
        ]
        return subprocess.run(command).returncode


def launch(
    planned: Sequence[plan.Run],
    workdir: os.PathLike | str,
    resources: Resources,
    cluster: str = "slurm",
) -> list:
    """Hands the runs that are not finished to a scheduler: one job a run as an array, and a last one that gathers.

    Args:
      planned: from `make_plan`; `write_asked` has written them down.
      workdir: the study's folder, which every node sees; the jobs' own output is in its `jobs`.
      resources: what each job asks for.
      cluster: "slurm", or "local": processes of this machine, whose gathering is left to the caller.

    Returns:
      The jobs, of submitit.

    Raises:
      ValueError: submitit is not installed, or there is no Slurm here.
    """
    submitit = _submitit()
    folder = pathlib.Path(workdir).expanduser().absolute()
    missing = [run for run in planned if not runs.finished(run)]
    if not missing:
        say.line("study: every run is finished already")
        return []
    executor = _executor(submitit, folder / "jobs", resources, cluster)
    jobs = executor.submit_array([Job(run) for run in missing])
    for run, job in zip(missing, jobs, strict=True):
        say.line(f"{run.title}: job {job.job_id}")
    if cluster == "slurm":
        # After any end of theirs: a study with a failed run still has its page.
        array = jobs[0].job_id.partition("_")[0]
        executor.update_parameters(name="mixaug-gather", slurm_dependency=f"afterany:{array}")
        jobs.append(executor.submit(Gathering(folder)))
        say.line(f"gathering: job {jobs[-1].job_id}")
    return jobs


def _executor(submitit, folder, resources, cluster):
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=_RETRIES)
    except RuntimeError as error:
        raise ValueError(f"--launch={cluster}: {error}") from error
    given = {
        "name": "mixaug",
        "timeout_min": round(60 * resources.hours),
        "gpus_per_node": resources.gpus,
        "cpus_per_task": resources.cpus,
        "slurm_additional_parameters": dict(resources.more),
    }
    # Left to the cluster's own defaults where nothing is asked for.
    if resources.memory_gb:
        given["mem_gb"] = resources.memory_gb
    if resources.partition:
        given["slurm_partition"] = resources.partition
    if resources.at_once:
        given["slurm_array_parallelism"] = resources.at_once
    executor.update_parameters(**given)
    return executor


def _submitit():
    try:
        import submitit  # an extra, and only a launch needs it
    except ImportError as error:
        raise ValueError("--launch needs submitit: pip install 'mixaug_jax[slurm]'") from error
    return submitit
