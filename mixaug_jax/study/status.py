"""How far the runs of a study are, from the files of its folder."""

import os
import pathlib
from typing import NamedTuple

from mixaug_jax.core import files
from mixaug_jax.study import plan, runs

STATES = ("done", "running", "failed", "waiting")


class Status(NamedTuple):
    """A run's state, one of STATES, and why or how far."""

    title: str
    state: str
    why: str


def read(workdir: os.PathLike | str) -> list[Status]:
    """The state of every run of a study's folder, in the order in which they are made.

    A run whose process was killed with whoever watched it could not say so: it is one that began, did not end, and whose
    folder no process holds.

    Raises:
      ValueError: no study's folder.
    """
    folder = pathlib.Path(workdir).expanduser().absolute()
    asked = plan.read_asked(folder)
    if not asked:
        raise ValueError(f"{folder} is no study: it has no study.json")
    return [_status(folder, name, asked["configs"]) for name in asked["commands"]]


def _status(folder, name, settings):
    config, _, seed = name.rpartition("/")
    workdir, title = folder / config / seed, f"{config} seed {seed}"
    if files.is_locked(workdir / "lock"):
        return Status(title, "running", runs.last_line(workdir))
    if runs.ended(workdir, settings[config]):
        return Status(title, "done", "")
    failed = workdir / runs.FAILED
    if failed.exists():
        return Status(title, "failed", failed.read_text(encoding="utf-8"))
    if not (workdir / runs.LOG).exists():
        return Status(title, "waiting", "")
    last = runs.last_line(workdir) or "no output"
    return Status(title, "failed", f"ended without a word, stopped or killed ({last})")


def lines(found: list[Status]) -> list[str]:
    """A line a run, after one that counts them."""
    counts = [f"{sum(s.state == state for s in found)} {state}" for state in STATES]
    width = max(len(status.title) for status in found)
    each = [f"{s.title:{width}}  {s.state:8} {s.why}".rstrip() for s in found]
    return [f"{len(found)} runs: {', '.join(counts)}", *each]
