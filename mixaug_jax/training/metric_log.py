"""`metrics.jsonl`, one JSON object a line, TensorBoard events where tensorboardX is installed, and what other writers are told.

The last value of a line, `check`, is a checksum of the others: a line that was damaged is left out, and not believed.
"""

import json
import math
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixaug_jax.core import files, processes, say
from mixaug_jax.training import writers as writers_lib


class MetricLog:
    """Appends one JSON object a line to `<workdir>/metrics.jsonl`; does nothing in other processes.

    Args:
      workdir: the run's working directory.
      start: step the run starts from; lines past it, left by a killed run, are dropped.
      writers: who else is told, see `writers.Writer`.
    """

    def __init__(self, workdir, start: int = 0, writers: Sequence[writers_lib.Writer] = ()):
        self._file, self._writers = None, ()
        if not processes.is_main():
            return
        path = pathlib.Path(workdir) / "metrics.jsonl"
        found = read(workdir) if start else []
        lost = len(path.read_bytes().splitlines()) - len(found) if found else 0
        if lost:
            say.line(
                f"{path}: {lost} of {lost + len(found)} lines are damaged or cut short, and left out"
            )
        # What a killed run had done after its last checkpoint is done again, and logged again.
        kept = [line for line in found if line["step"] <= start]
        files.write_text(path, "".join(map(_line, kept)))
        self._file = files.append(path)
        self._writers = (*_tensorboard(workdir, start), *writers)

    def write(self, step: int, **values: float) -> None:
        """Adds a line {"step": step, name: value, ...}; a value that is not finite becomes null (JSON has no NaN)."""
        if self._file is None:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(_line({"step": step, **finite}))
        self._file.flush()
        for writer in self._writers:
            writer.write_scalars(step, values)

    def describe(self, settings: Mapping[str, Any]) -> None:
        """Tells the writers the settings, as {"train.lr": 0.1, ...}."""
        for writer in self._writers:
            writer.write_hparams(writers_lib.settings_of(settings))

    def show(self, step: int, make: Callable[[], Mapping]) -> None:
        """Tells the writers the images that `make` makes, which is not called where nobody listens."""
        images = make() if self._writers else {}
        for writer in self._writers:
            writer.write_images(step, images)

    def close(self) -> None:
        """Ends the files, and the writers that can be ended."""
        for file in (self._file, *self._writers):
            if hasattr(file, "close"):
                file.close()


def _line(values):
    return json.dumps(values | {"check": _check(values)}) + "\n"


def _check(values):
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def read(workdir: os.PathLike | str) -> list[dict]:
    """The lines of `metrics.jsonl`; those that were cut short by a kill, or damaged, are left out."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    return [values for line in text.split("\n") if (values := _values(line))]


def _values(line) -> dict | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        return None
    check = values.pop("check", None)  # lines of the versions before had none
    plain = all(value is None or isinstance(value, int | float) for value in values.values())
    return values if plain and check in (None, _check(values)) else None


def finished(lines: list[dict], steps: int) -> dict:
    """The line of the last of `steps` with the scores of a finished run, or {}: a run may have been made longer since. It has
    `test_accuracy`, or `validation_accuracy` and `validation_images` where the run has no test split."""
    ends = ("test_accuracy", "validation_images")
    last = [
        line
        for line in lines
        if line["step"] == steps and any(line.get(end) is not None for end in ends)
    ]
    return last[-1] if last else {}


def judged(line: dict) -> str:
    """The split that the accuracy in a finished run's line is of."""
    return "test" if "test_accuracy" in line else "validation"


def _tensorboard(workdir, start):
    try:
        return (writers_lib.TensorBoard(workdir, start),)
    except ImportError:  # the extra `tensorboard`
        return ()
