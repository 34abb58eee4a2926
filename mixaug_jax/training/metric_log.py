"""`metrics.jsonl`, one JSON object a line, and TensorBoard events where tensorboardX is installed."""

import json
import math
import os
import pathlib

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files


class MetricLog:
    """Appends one JSON object a line to `<workdir>/metrics.jsonl`; does nothing in other processes.

    Args:
      workdir: the run's working directory.
      start: step the run starts from; lines past it, left by a killed run, are dropped.
    """

    def __init__(self, workdir, start: int = 0):
        self._file = self._events = None
        if not devices_lib.is_main():
            return
        path = pathlib.Path(workdir) / "metrics.jsonl"
        kept = [line for line in read(workdir) if line["step"] <= start] if start else []
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = files.append(path)
        self._events = _tensorboard(workdir, start)

    def write(self, step: int, **values: float) -> None:
        """Adds a line {"step": step, name: value, ...}; a value that is not finite becomes null (JSON has no NaN)."""
        if self._file is None:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Ends the files."""
        for file in (self._file, self._events):
            if file is not None:
                file.close()


def read(workdir: os.PathLike | str) -> list[dict]:
    """The lines of `metrics.jsonl`; a last line cut short by a kill is left out."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def finished(lines: list[dict], steps: int) -> dict:
    """The line of the last of `steps` with the scores of a finished run, or {}: a run may have been made longer since. It has
    `test_accuracy`, or `validation_accuracy` and `validation_images` where the run has no test split."""
    ends = ("test_accuracy", "validation_images")
    last = [line for line in lines if line["step"] == steps and any(end in line for end in ends)]
    return last[-1] if last else {}


def judged(line: dict) -> str:
    """The split that the accuracy in a finished run's line is of."""
    return "test" if "test_accuracy" in line else "validation"


def _tensorboard(workdir, start):
    try:
        import tensorboardX
    except ImportError:  # the extra `tensorboard`
        return None
    return tensorboardX.SummaryWriter(str(workdir), purge_step=start)
