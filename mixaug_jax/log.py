"""What a run says: one console line at a time, `metrics.jsonl`, and TensorBoard events where tensorboardX is installed."""

import json
import math
import pathlib
import time

from mixaug_jax import parallel


def say(text: str = "") -> None:
    """Prints in the main process only, at once (output may be a pipe)."""
    if parallel.is_main():
        print(text, flush=True)


class MetricLog:
    """Appends one JSON object a line to `<workdir>/metrics.jsonl`; does nothing in other processes.

    Args:
      workdir: the run's working directory.
      start: step the run starts from; lines past it, left by a killed run, are dropped.
    """

    def __init__(self, workdir, start: int = 0):
        self._file = self._events = None
        if not parallel.is_main():
            return
        path = pathlib.Path(workdir) / "metrics.jsonl"
        kept = [line for line in read(workdir) if line["step"] <= start] if start else []
        whole = path.with_suffix(".tmp")
        whole.write_text("".join(json.dumps(line) + "\n" for line in kept))
        whole.replace(path)
        self._file = path.open("a")
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


def read(workdir) -> list[dict]:
    """The lines of `metrics.jsonl`; a last line cut short by a kill is left out."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _tensorboard(workdir, start):
    try:
        import tensorboardX
    except ImportError:  # the extra `tensorboard`
        return None
    return tensorboardX.SummaryWriter(str(workdir), purge_step=start)


class Clock:
    """Seconds since the last line, and the time that is left."""

    def __init__(self, start: int, total: int):
        self._start, self._total = start, total
        self._begin = self._last = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the clock was made, pauses left out."""
        return time.monotonic() - self._begin

    def skip(self, seconds: float) -> None:
        """Leaves a pause out."""
        self._begin += seconds
        self._last += seconds

    def tick(self, done: int) -> tuple[float, str]:
        """Seconds since the last tick, and the time left at the pace so far, as "1:23:45"."""
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-9), now
        pace = (now - self._begin) / max(1, done - self._start)
        return seconds, duration(pace * (self._total - done))


def duration(seconds: float) -> str:
    """ "1:02:03" or "2:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
