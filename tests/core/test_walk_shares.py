"""What many processes share out among them."""

import jobs
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


@pytest.mark.parametrize("owners", [(1, 1), (0, 0, 1)])
def test_devices_that_leave_a_process_out_are_refused(owners, monkeypatch):
    monkeypatch.setattr(walk.jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="of this process alone, or as many of each of the 2"):
        walk.chosen(_Device(k) for k in owners)


def test_devices_of_one_process_or_of_all(monkeypatch):
    monkeypatch.setattr(walk.jax, "process_count", lambda: 2)
    alone, all_of_both = [_Device(0), _Device(0)], [_Device(0), _Device(1)]
    assert walk.chosen(alone) == walk.own(tuple(alone)) == tuple(alone)
    assert walk.chosen(all_of_both) == tuple(all_of_both)
    assert walk.own(tuple(all_of_both)) == (all_of_both[0],)
    assert [walk.together(tuple(d)) for d in (alone, all_of_both)] == [False, True]


SHARED = """
import jax, numpy as np
from mixaug_jax.core import walk
devices = walk.chosen(None)
assert len(devices) == 2 * len(walk.own(devices)) == 4
for images in (7, 1, 0):
    whole = {"deep": np.arange(images * 6.0).reshape(images, 2, 3) / 3, "flags": np.arange(images) % 3 == 0,
             "empty": np.zeros((images, 0), np.int16)}
    own = walk.share(images, devices)
    mine = jax.tree.map(lambda x: x[own.start : own.stop], whole)
    for found in (walk.gather(mine, images, devices), walk.join(mine, devices)):
        for name, array in whole.items():
            assert found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes()
            assert found[name].shape == array.shape
ragged = np.arange(5, dtype=np.int64) * 2**40 if me else np.zeros(0, np.int64)
assert walk.join(ragged, devices).tolist() == [k * 2**40 for k in range(5)]
local = tuple(jax.local_devices())
assert walk.gather(ragged, len(ragged), walk.chosen(local)) is ragged  # alone
# What is added up goes to the host at the same step, though process 1 has an image more.
from mixaug_jax.core import devices as devices_lib
whole, split, given = devices_lib.REPLICATED, devices_lib.SHARDED, {"devices": devices}
step = devices_lib.pmap(lambda s, x: s | {"sum": s["sum"] + x.sum()}, (split, split), split, devices=local)
reduce = devices_lib.pmap(lambda s: {"sum": jax.lax.psum(s["sum"][0], "data")}, (split,), whole, **given)
flushed = []
programs = walk.Programs(step, reduce, lambda a, b: flushed.append(int(b["sum"])) or {"sum": a["sum"] + b["sum"]})
values = np.array([walk.LIMIT // 8] * 13)
def batches():
    own = walk.share(13, devices)
    for start, stop, rows in walk.spans(13, 1, devices):
        yield walk.pad_rows(values[own.start + start : own.start + stop].astype(np.int32), rows)
total = walk.total(programs, {"sum": np.int32(0)}, batches(), 8, devices)["sum"]
assert int(total) == values.sum() > walk.LIMIT
assert flushed == [5 * (walk.LIMIT // 8)], flushed
"""


def test_rows_and_totals_of_two_processes(tmp_path):
    said = jobs.run(tmp_path, SHARED, devices=2)
    assert [process.code for process in said] == [0, 0], said[0].errors + said[1].errors
