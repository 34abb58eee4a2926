"""Lines about work that takes longer than a few seconds."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mixaug_jax import log

_SECONDS = 10.0  # between two lines


def reporter(title: str, total: int, things: str = "images") -> Callable[[int], None]:
    """`report(done)` prints "title: done of total images, images/s, ETA", every ten seconds until all are done.

    The pace is that since the first call: what comes before it is compilation mostly.
    """
    clock, first, last = None, 0, 0.0

    def report(done: int) -> None:
        nonlocal clock, first, last
        if clock is None:
            clock, first = log.Clock(done, total), done
        elapsed = clock.elapsed()
        if done in (first, total) or elapsed - last < _SECONDS:
            return
        last = elapsed
        _, left = clock.tick(done)
        pace = (done - first) / elapsed
        log.say(f"{title}: {done} of {total} {things}  {pace:.1f} {things}/s  ETA {left}")

    return report


@dataclasses.dataclass(frozen=True)
class Watched:
    """Activations that say how far they have been read. Each walk from image 0 is a new one."""

    activations: Any
    title: str
    _report: list = dataclasses.field(default_factory=list)

    @property
    def shape(self):
        return self.activations.shape

    def __getitem__(self, images: slice):
        if not images.start or not self._report:
            self._report[:] = [reporter(self.title, self.shape[0])]
        self._report[0](min(images.stop, self.shape[0]))
        return self.activations[images]
