"""A machine's devices, divided among runs that go on at once."""

import os

import pytest

from mixaug_jax.study import sharing


@pytest.fixture(autouse=True)
def _no_devices(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sharing, "_numbered", lambda folder, stem: [])


def test_one_run_has_the_whole_machine():
    assert sharing.places(1) == [sharing.Place({}, ())]


@pytest.mark.parametrize("jobs", [2, 3, 7])
def test_cores_are_divided_without_overlap(jobs, monkeypatch):
    monkeypatch.setattr(sharing, "_cores", lambda: [str(k) for k in range(4, 11)])
    found = [place.cores for place in sharing.places(jobs)]
    assert sorted(core for cores in found for core in cores) == list(range(4, 11))
    assert {len(cores) for cores in found} <= {7 // jobs, 7 // jobs + 1}
    with pytest.raises(ValueError, match="jobs=8 must be at most 7: a run needs a processor core"):
        sharing.places(8)


def test_gpus_are_those_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3,GPU-ab")
    found = [dict(place.environment) for place in sharing.places(2)]
    assert found == [{"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "3,GPU-ab"}]
    with pytest.raises(ValueError, match="at most 3: a run needs a GPU of its own"):
        sharing.places(4)


def test_device_files_are_counted(tmp_path, monkeypatch):
    monkeypatch.undo()
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert sharing._numbered(tmp_path, "nvidia") == ["0", "2", "10"]


def test_chips_go_one_to_each(monkeypatch):
    numbers = {"accel": ["0", "1", "2", "3"]}
    monkeypatch.setattr(sharing, "_numbered", lambda folder, stem: numbers.get(stem, []))
    found = [place.environment["TPU_VISIBLE_CHIPS"] for place in sharing.places(4)]
    assert found == ["0", "1", "2", "3"]


@pytest.mark.parametrize("jobs", [0, -1])
def test_jobs_are_counted(jobs):
    with pytest.raises(ValueError, match="jobs must be an integer of at least 1"):
        sharing.places(jobs)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system pins no process")
def test_a_process_stays_on_its_cores():
    before = os.sched_getaffinity(0)
    try:
        sharing.settle(os.getpid(), sharing.Place({}, (min(before),)))
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
