"""The runs of a study, one process each: a crash ends one run, and its memory is free again."""

import collections
import contextlib
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from mixaug_jax.core import files, say
from mixaug_jax.study import plan, sharing

LOG = "log.txt"  # what a run printed, in its working directory
_FINISHED = "finished.json"
FAILED = "failed.txt"  # why the last try ended, for whoever compares the runs later, elsewhere
_SECONDS = 60.0  # between two lines about a run that goes on
_POLL = 0.1  # seconds between two looks at the runs


class Stopped(RuntimeError):  # noqa: N818
    """The study was asked to stop; the runs that were going on are saved, and the same command goes on."""


def run_missing(runs: Sequence[plan.Run], jobs: int = 1) -> list[str]:
    """Makes the runs that are not finished, `jobs` at once, and goes on after one that fails.

    A run is a process of `mixaug_jax.main`, which itself skips what is there and goes on from the last checkpoint. What it
    prints is in `log.txt` in its working directory. While it lives no other study touches that folder. Runs at once have the
    machine's devices divided among them, see `sharing`.

    Returns:
      A sentence for each run that failed, in the order of `runs`.

    Raises:
      ValueError: more jobs than devices.
      Stopped: SIGTERM or Ctrl-C came. After SIGTERM the runs that were going on have saved a checkpoint.
    """
    places = sharing.places(jobs)
    missing = [run for run in runs if not finished(run)]
    if len(missing) < len(runs):
        say.line(f"study: {len(runs) - len(missing)} of {len(runs)} runs are finished already")
    waiting, failures, broken = collections.deque(enumerate(missing)), {}, []
    clock = say.Clock(0, len(missing))

    def work(place: Any, children: dict, stopped: list):
        try:
            while waiting and not stopped:
                number, run = waiting.popleft()
                where = f"[{number + 1} of {len(missing)}] {run.title}"
                say.line(f"{where}: {run.command}")
                began = time.monotonic()
                failure = _make(run, place, children, stopped)
                if stopped:
                    return
                took = f"{say.duration(time.monotonic() - began)}"
                _, left = clock.tick(len(missing) - len(waiting) - len(children))
                if failure:
                    failures[number] = f"{run.title}: {failure}"
                say.line(f"{where}: {failure or 'finished'} after {took}; ETA {left}")
        except (OSError, ValueError, IndexError) as error:  # IndexError: another took the last
            broken.extend([] if isinstance(error, IndexError) else [error])

    with _forwarding() as (children, stopped):
        # Daemons: one that waits for another study's lock must not keep a stopped process alive.
        threads = [
            threading.Thread(target=work, args=(place, children, stopped), daemon=True)
            for place in places
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not (stopped and not children):
            time.sleep(_POLL)
        if stopped:
            names = " and ".join(sorted(set(stopped)))
            raise Stopped(f"stopped during {names}; the same command goes on from there")
    if broken:
        raise broken[0]
    return [failures[number] for number in sorted(failures)]


def _make(run: plan.Run, place: sharing.Place, children: dict, stopped: list) -> str:
    """Makes one run; returns what went wrong, or ""."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    waiting = f"{run.title}: another process is at it; waiting until that ends"
    with (
        files.lock(run.workdir / "lock", waiting) as lock,
        files.append(run.workdir / LOG) as output,
    ):
        if stopped or finished(run):  # by the process that was waited for
            return ""
        (run.workdir / FAILED).unlink(missing_ok=True)
        # The child holds the lock too, so it lasts even where this process is killed.
        process = subprocess.Popen(
            [sys.executable, "-m", "mixaug_jax.main", *run.flags],
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
            env=_environment(run) | place.environment,
        )
        sharing.settle(process.pid, place)
        children[run.title] = process
        try:
            code = _watch(process, run)
        finally:
            del children[run.title]
    if stopped:
        return ""
    if code == 0:
        files.write_json(run.workdir / _FINISHED, _fingerprint(run))
        return ""
    what = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
    failure = (
        f"{what} ({last_line(run.workdir) or 'no output'}; all of it is in {run.workdir / LOG})"
    )
    files.write_text(run.workdir / FAILED, failure)
    return failure


def _environment(run) -> dict[str, str]:
    """The child finds this package, installed or not, and what runs before it compiled on such a machine."""
    package = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    compiled = str(run.workdir.parents[1] / plan.COMPILED / platform.node())
    # The later dict wins: a user's own cache is kept, while PYTHONPATH is always set here.
    return {"JAX_COMPILATION_CACHE_DIR": compiled} | os.environ | {"PYTHONPATH": path}


def _watch(process, run) -> int:
    """Waits for the end, and says now and then how far the run is."""
    while True:
        try:
            return process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            say.line(f"  {run.title}: {last_line(run.workdir)}")


def last_line(workdir: pathlib.Path) -> str:
    """The last line that the run of a working directory printed, or ""."""
    with contextlib.suppress(FileNotFoundError), (workdir / LOG).open("rb") as file:
        # Logs grow long; a character that is cut in two here is replaced when decoding.
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
        lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
    return ""


@contextlib.contextmanager
def _forwarding():
    """Passes SIGTERM and Ctrl-C on to processes.

    Yields the processes by title, to be filled, and the titles of those that a signal has reached. Signals reach the main
    thread only; elsewhere nothing is passed on.
    """
    children: dict[str, subprocess.Popen] = {}
    stopped: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield children, stopped
        return

    def forward(number: Any, _: Any):
        titles = dict(children)
        stopped.extend(titles or ["the study"])
        for process in titles.values():
            # SIGTERM for either signal: it is the one on which a run saves before it ends.
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield children, stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finished(run: plan.Run) -> bool:
    """Whether the run ended well with these settings, and what it wrote is still there."""
    return ended(run.workdir, plan.settings(run.config))


def ended(workdir: pathlib.Path, settings: dict) -> bool:
    """The same of a working directory and what `plan.settings` gives."""
    try:
        stored = files.read_json(workdir / _FINISHED)
    except (OSError, ValueError):
        return False
    # What is damaged its stage makes again.
    there = [workdir / name for name in stored.get("files", [])]
    return stored.get("settings") == settings and all(
        path.is_dir() or files.is_intact(path) for path in there
    )


def _fingerprint(run: plan.Run) -> dict:
    results = [
        str(path.relative_to(run.workdir))
        for folder in ("dissection", "attribution", "occlusion", "report")
        for path in sorted((run.workdir / folder).glob("*"))
        if path.is_file()
    ]
    steps = [path.name for path in (run.workdir / "checkpoints").glob("*") if path.name.isdigit()]
    newest = [f"checkpoints/{max(steps, key=int)}"] if steps else []
    return {"settings": plan.settings(run.config), "files": newest + results}
