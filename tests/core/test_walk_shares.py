"""What many processes share out among them."""

import pytest

from mixaug_jax.core import walk


class _Device:
    def __init__(self, process_index):
        self.process_index = process_index


@pytest.mark.parametrize(
    ("images", "processes", "local"), [(10, 3, 1), (2, 4, 2), (0, 2, 1), (64, 2, 4)]
)
def test_shares_cover_all_images_once(images, processes, local, monkeypatch):
    devices = tuple(_Device(k) for k in range(processes) for _ in range(local))
    seen, steps = [], set()
    for process in range(processes):
        monkeypatch.setattr(walk.jax, "process_index", lambda process=process: process)
        own = walk.share(images, devices)
        spans = list(walk.spans(images, 2, devices))
        steps.add(len(spans))
        assert [k for start, stop, _ in spans for k in range(start, stop)] == list(range(len(own)))
        assert all(
            rows % local == 0 and stop - start <= rows <= 2 * local for start, stop, rows in spans
        )
        seen += own
    assert seen == list(range(images))
    assert len(steps) == 1  # lockstep
