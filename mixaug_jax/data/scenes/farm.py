"""Renders many scenes on all cores, in order: plain child processes that send them through pipes.

`multiprocessing` starts its children by importing the caller's `__main__` again, which a notebook
or `python -c` does not have and which would run an unguarded script twice. A child here runs
`python -m mixaug_jax.data.scenes.farm` instead: it imports numpy and the renderer, nothing of the caller.
"""

import contextlib
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

from mixaug_jax.data.scenes import renderer

_CHUNK = 32  # scenes that a process renders and sends at a time


def render_all(settings: renderer.Settings, processes: int | None = None) -> Iterator[dict]:
    """Yields what `renderer.render` gives for all scenes, split after split as in `renderer.SPLITS`.

    Args:
        settings: `renderer.Settings`.
        processes: how many to render with; None is one for each core this process may use, 0 is in
            this process. The scenes are the same.
    """
    chunks = _chunks(settings)
    if processes is None:
        processes = _cores() if sum(map(_length, chunks)) > 4 * _CHUNK and sys.executable else 0
    with contextlib.ExitStack() as stack:
        children = [_child(stack, settings, k, processes) for k in range(processes)]
        for number, chunk in enumerate(chunks):
            scenes = _receive(children[number % processes]) if processes else None
            # A child that cannot start or has died leaves its share to this process.
            yield from scenes or _render_chunk(settings, chunk)


def _chunks(settings):
    """(split, first, last + 1) of every chunk, in order."""
    return [
        (split, first, min(first + _CHUNK, getattr(settings, split)))
        for split in renderer.SPLITS
        for first in range(0, getattr(settings, split), _CHUNK)
    ]


def _length(chunk):
    return chunk[2] - chunk[1]


def _render_chunk(settings, chunk):
    split, first, end = chunk
    return [renderer.render(settings, split, index) for index in range(first, end)]


def _cores():
    # What the process may use, which on a shared machine is not what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _child(stack, settings, number, processes):
    """Starts process `number`, which sends every chunk whose number is it modulo `processes`."""
    order = json.dumps([dataclasses.asdict(settings), number, processes])
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    child = subprocess.Popen(
        [sys.executable, "-m", "mixaug_jax.data.scenes.farm", order],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
    )
    stack.enter_context(child)
    stack.callback(child.kill)
    return child


def _receive(child):
    try:
        return pickle.load(child.stdout)
    except (EOFError, pickle.UnpicklingError):
        return None


def _work(order):
    settings, number, processes = json.loads(order)
    settings = renderer.Settings(**settings)
    # A parent that has gone away closes the pipe, and that is the end of this process too.
    with contextlib.suppress(BrokenPipeError):
        for chunk in _chunks(settings)[number::processes]:
            pickle.dump(_render_chunk(settings, chunk), sys.stdout.buffer, protocol=5)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _work(sys.argv[1])
