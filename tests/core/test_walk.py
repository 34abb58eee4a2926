"""A walk over many images: which ones, in which order, how far ahead, and integers that never overflow."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import walk


@pytest.mark.parametrize(("count", "wanted"), [(10, 3), (7, 7), (100, 99), (5, 1), (1, 1)])
def test_spread_takes_even_distances(count, wanted):
    indices = walk.spread(count, wanted)
    assert len(indices) == wanted
    assert indices[0] == 0
    assert indices[-1] < count
    steps = np.diff(np.append(indices, count))  # also from the last one to the end
    assert set(steps) <= {count // wanted, -(-count // wanted)}


@pytest.mark.parametrize("wanted", [0, 6, 100])
def test_spread_takes_all_where_that_is_few_enough(wanted):
    np.testing.assert_array_equal(walk.spread(6, wanted), np.arange(6))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_reading_ahead_keeps_order_and_bound(threads):
    started, lock = [], threading.Lock()

    def read(index):
        with lock:
            started.append(index)
        time.sleep(0.002 * (index % 3))  # later ones may be ready first
        return 10 * index

    def items():
        for index in range(20):
            asked.append(index)
            yield index

    asked = []
    found = walk.read_ahead(read, items(), threads)
    for index in range(20):
        assert next(found) == 10 * index
        assert len(asked) <= index + 2 * threads
    assert list(found) == []
    assert sorted(started) == asked == list(range(20))
    assert list(walk.read_ahead(read, [], threads)) == []


def test_an_error_while_reading_comes_in_its_turn():
    found = walk.read_ahead(lambda x: 1 // x, [1, 1, 0, 1], 2)
    assert [next(found), next(found)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_rows_are_padded_with_zeros():
    array = np.arange(6, dtype=np.int16).reshape(3, 2) + 1
    padded = walk.pad_rows(array, 5)
    np.testing.assert_array_equal(padded, [[1, 2], [3, 4], [5, 6], [0, 0], [0, 0]])
    assert padded.dtype == np.int16
    np.testing.assert_array_equal(walk.pad_rows(array, 3), array)
    np.testing.assert_array_equal(walk.pad_rows(np.ones(1), 2), [1, 0])
    np.testing.assert_array_equal(walk.pad_rows(np.ones(1), 3, 1), [0, 1, 0])


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(("images", "batch_size"), [(1, 1), (7, 2), (8, 2), (9, 50)])
def test_spans_hold_every_image_once(images, batch_size, count):
    devices = tuple(jax.devices()[:count])
    spans = list(walk.spans(images, batch_size, devices))
    assert [i for start, stop, _ in spans for i in range(start, stop)] == list(range(images))
    assert {rows % count for _, _, rows in spans} == {0}
    for start, stop, rows in spans:
        assert 0 < stop - start <= rows <= count * batch_size
        assert rows < images + count  # not more padding than the devices need


def test_all_devices_are_the_default():
    assert walk.chosen(None) == tuple(jax.devices())
    assert walk.chosen(jax.devices()[1:3]) == tuple(jax.devices()[1:3])


@pytest.fixture
def added():
    """A function (batches, images, count of devices) -> (total, what went to the host in turn)."""

    def run(batches, images, count):
        devices = tuple(jax.devices()[:count])
        whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
        given = {"devices": devices}
        step = devices_lib.pmap(
            lambda s, x: {"sum": s["sum"] + x.sum(), "rows": s["rows"] + len(x)},
            (split, split), split, **given,
        )  # fmt: skip
        reduce = devices_lib.pmap(
            lambda s: jax.tree.map(lambda v: jax.lax.psum(v[0], devices_lib.AXIS), s),
            (split,), whole, **given,
        )  # fmt: skip
        flushed = []

        def combine(one, two):
            flushed.append(two)
            return {k: one[k] + two[k] for k in one}

        state = {"sum": np.int32(0), "rows": np.int32(0)}
        batches = (jnp.asarray(x, jnp.int32) for x in batches)
        found = walk.total(walk.Programs(step, reduce, combine), state, batches, images, devices)
        return found, flushed

    return run


@pytest.mark.parametrize("count", [1, 2])
def test_totals_go_to_the_host_before_they_overflow(added, count):
    """The largest values that may be added four at a time: a fifth would pass 2^31 - 1."""
    value = walk.LIMIT // 4
    found, flushed = added([np.full(2, value)] * 5, images=4, count=count)
    assert found == {"sum": 10 * value, "rows": 10}
    assert found["sum"] > walk.LIMIT
    assert found["sum"].dtype == np.int64
    assert [int(part["rows"]) for part in flushed] == [4, 2]


def test_totals_count_the_rows_of_whole_batches(added):
    """Padding too, so that processes with an image more or less go to the host at the same step."""
    batches = [[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0]]
    found, flushed = added(batches, images=8, count=2)
    assert found["sum"] == 21
    assert [int(part["sum"]) for part in flushed] == [11]


def test_a_batch_larger_than_the_limit_is_a_step_of_its_own(added):
    found, flushed = added([[1, 2, 3, 4]] * 3, images=2, count=1)
    assert found["sum"] == 30
    assert [int(part["sum"]) for part in flushed] == [10, 10]


@pytest.mark.parametrize("process", [0, 1])
def test_progress_is_that_of_all_images(process, monkeypatch):
    """A process that has done half of its share reports half of all images."""
    reported = []
    monkeypatch.setattr(walk.say, "progress", lambda title, total: reported.append)
    monkeypatch.setattr(walk, "share", lambda images, devices: range(4 * process, 4 + 5 * process))
    report = walk.progress("reading", 9, ())
    for done in (0, 2, len(walk.share(9, ()))):
        report(done)
    assert reported == [0, (4, 3)[process], 9]
