"""Lines about work that takes longer than a few seconds."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mixaug_jax import log

_SECONDS = 10.0  # between two lines


def reporter(title: str, total: int) -> Callable[[int], None]:
    """`report(done)` prints "title: done of total images, images/s, ETA", every ten seconds."""
    clock = log.Clock(0, total)
    last = 0.0

    def report(done: int) -> None:
        nonlocal last
        elapsed = clock.elapsed()
        if elapsed - last < _SECONDS:
            return
        last = elapsed
        _, left = clock.tick(done)
        log.say(f"{title}: {done} of {total} images  {done / elapsed:.0f} images/s  ETA {left}")

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
