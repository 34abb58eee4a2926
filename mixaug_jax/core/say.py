"""The only voice: console lines, and how far long work has come.

    say.line("dissecting layer4")
    report = say.progress("forward", 500)
    report(64)

On a terminal progress is a bar; elsewhere a plain line at most every ten seconds. How much is said is `set_verbosity`'s to
decide, for the process as a whole: -1 results and errors, 0 what a user wants to know, 1 everything.
"""

import sys
import time
from collections.abc import Callable

import tqdm

RESULTS, NORMAL, EVERYTHING = -1, 0, 1
_SECONDS = 10.0  # between two lines of progress
# A console belongs to a process, so what may go there is the one setting that no argument carries.
_console = {"verbosity": NORMAL, "muted": False, "said": set()}


def set_verbosity(level: int) -> None:
    """Sets how much is said: -1 results and errors, 0 the default, 1 everything.

    Raises:
      ValueError: another level.
    """
    if level not in (RESULTS, NORMAL, EVERYTHING):
        raise ValueError(f"verbosity must be one of -1, 0, 1; got {level!r}")
    _console["verbosity"] = level


def mute() -> None:
    """Says nothing from now on but errors: in a job of several processes the first one speaks."""
    _console["muted"] = True


def line(text: str = "") -> None:
    """Prints a line at once (output may be a pipe)."""
    _print(text, NORMAL)


def once(text: str) -> None:
    """Prints a line unless this process has said it before: what every stage would say of the same data."""
    if text not in _console["said"]:
        _console["said"].add(text)
        line(text)


def detail(text: str) -> None:
    """Prints a line that only --verbosity=1 asks for."""
    _print(text, EVERYTHING)


def result(text: str) -> None:
    """Prints what a command was run for, which is said at every verbosity."""
    _print(text, RESULTS)


def warning(text: str) -> None:
    """Prints something that a user should look at, on the error stream."""
    _print(f"warning: {text}", RESULTS, sys.stderr)


def error(text: object) -> None:
    """Prints why a command ends, on the error stream, from whichever process."""
    print(f"error: {text}", file=sys.stderr, flush=True)


def _print(text, level, file=None):
    if level <= _console["verbosity"] and not _console["muted"]:
        # As tqdm writes it, so that a bar that is on the screen stays below.
        tqdm.tqdm.write(text, file=file or sys.stdout)
        (file or sys.stdout).flush()


def progress(title: str, total: int, things: str = "images") -> Callable[[int], None]:
    """A function `report(done)` that shows how far work has come and when it will end.

    The pace is that since the first call: what comes before it is compilation mostly.

    Args:
      title: of the work.
      total: how many there are; `report(total)` ends it.
      things: what they are, for "images/s".
    """
    stream = sys.stdout  # the console of now: work may send what it prints elsewhere
    return (_bar if stream.isatty() else _lines)(title, total, things, stream)


def _bar(title, total, things, stream):
    shown = []

    def report(done: int) -> None:
        quiet = _console["verbosity"] < NORMAL or _console["muted"]
        # Made with the first report, so that the time before it, compiling as a rule, is not taken for pace.
        if not shown:
            bar = tqdm.tqdm(total=total, initial=done, desc=title, unit=f" {things}", file=stream,
                            leave=False, disable=quiet)  # fmt: skip
            shown.append(bar)
        shown[0].update(done - shown[0].n)
        if done >= total:
            shown[0].close()

    return report


def _lines(title, total, things, stream):
    clock, first, last = None, 0, 0.0

    def report(done: int) -> None:
        nonlocal clock, first, last
        if clock is None:
            clock, first = Clock(done, total), done
        elapsed = clock.elapsed()
        # Neither first nor last: where work is short, nothing is said at all.
        if done in (first, total) or elapsed - last < _SECONDS:
            return
        last = elapsed
        _, left = clock.tick(done)
        pace = (done - first) / elapsed
        _print(
            f"{title}: {done} of {total} {things}  {pace:.1f} {things}/s  ETA {left}",
            NORMAL,
            stream,
        )

    return report


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
