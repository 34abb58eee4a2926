"""Renders many pictures on all cores, in order: plain child processes that send them through pipes.

`multiprocessing` starts its children by importing the caller's `__main__` again, which a notebook
or `python -c` does not have and which would run an unguarded script twice. A child here runs
`python -m mixaug_jax.data.farm` instead: it imports numpy and the renderer, nothing of the caller.
The renderer is the module that defines the settings: it has `SPLITS`, whose names are fields of
the settings with their numbers of pictures, and `render(settings, split, index) -> dict`.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_CHUNK = 32  # pictures that a process renders and sends at a time


def renderer_of(settings: Any) -> ModuleType:
    """The module that defines the class of the settings, and renders them."""
    return importlib.import_module(type(settings).__module__)


def render_all(settings: Any, processes: int | None = None) -> Iterator[dict]:
    """Yields what the renderer's `render` gives for all pictures, split after split as in its `SPLITS`.

    Args:
        settings: a frozen dataclass of numbers and texts, `Settings` of its renderer.
        processes: how many to render with; None is one for each core this process may use, 0 is in
            this process. The pictures are the same.
    """
    chunks = _chunks(settings)
    if processes is None:
        processes = _cores() if sum(map(_length, chunks)) > 4 * _CHUNK and sys.executable else 0
    with contextlib.ExitStack() as stack:
        children = [_child(stack, settings, k, processes) for k in range(processes)]
        for number, chunk in enumerate(chunks):
            pictures = _receive(children[number % processes]) if processes else None
            # A child that cannot start or has died leaves its share to this process.
            yield from pictures or _render_chunk(settings, chunk)


def _chunks(settings):
    """(split, first, last + 1) of every chunk, in order."""
    return [
        (split, first, min(first + _CHUNK, getattr(settings, split)))
        for split in renderer_of(settings).SPLITS
        for first in range(0, getattr(settings, split), _CHUNK)
    ]


def _length(chunk):
    return chunk[2] - chunk[1]


def _render_chunk(settings, chunk):
    split, first, end = chunk
    render = renderer_of(settings).render
    return [render(settings, split, index) for index in range(first, end)]


def _cores():
    # What the process may use, which on a shared machine is not what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _child(stack, settings, number, processes):
    """Starts process `number`, which sends every chunk whose number is it modulo `processes`."""
    given = dataclasses.asdict(settings)
    order = json.dumps([type(settings).__module__, given, number, processes])
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    child = subprocess.Popen(
        [sys.executable, "-m", "mixaug_jax.data.farm", order],
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
    renderer, settings, number, processes = json.loads(order)
    settings = importlib.import_module(renderer).Settings(**settings)
    # A parent that has gone away closes the pipe, and that is the end of this process too.
    with contextlib.suppress(BrokenPipeError):
        for chunk in _chunks(settings)[number::processes]:
            pickle.dump(_render_chunk(settings, chunk), sys.stdout.buffer, protocol=5)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _work(sys.argv[1])
