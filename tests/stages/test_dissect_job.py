"""The stage `dissect` of a job of two processes: stopped, killed, and run to its end."""

import shutil
import signal
import time

import jobs
import numpy as np

import mixaug_jax
from mixaug_jax.config import get_config

SETTINGS = {
    "data.size": 32,
    "data.batch_size": 16,
    "data.scenes.train": 16,
    "data.scenes.validation": 16,
    "data.scenes.test": 21,
    "model.name": "tiny",
    "model.width": 1.0,
    "train.epochs": 1,
    "eval.batch_size": 8,
    "dissect.shuffles": 1,
}


def until_it_dissects(place, pair):
    """Waits until a process keeps activations in its own folder."""
    end = time.monotonic() + 400
    while not list(place.glob("mixaug_jax-*/*/*")):
        assert time.monotonic() < end
        assert all(process.poll() is None for process in pair)
        time.sleep(0.02)


def test_stopped_killed_and_run_to_its_end(tmp_path):
    alone, job, cache = (tmp_path / name for name in ("alone", "job", "cache"))
    config = get_config("baseline", "scenes")
    with config.unlocked():
        config.update_from_flattened_dict(SETTINGS | {"data.dir": str(cache)})
    mixaug_jax.run(config, alone, "train")
    shutil.copytree(alone, job)
    given = SETTINGS | {"data.dir": str(cache)}
    flags = ["--config=baseline", *(f"--config.{key}={value}" for key, value in given.items())]
    flags += [f"--workdir={job}", "--stage=dissect"]

    for signal_number, codes, sentence in (
        (signal.SIGTERM, [143, 143], "process 1 of the job ended with: stopped by a signal"),
        (signal.SIGKILL, [5, -9], "process 1 of the job has given no sign of life for 10 s"),
    ):
        places = [tmp_path / f"{signal_number.name}{k}" for k in range(2)]
        for place in places:
            place.mkdir()
        pair = jobs.command([*flags, "--heartbeat_s=10"], places, devices=2)
        until_it_dissects(places[1], pair)
        began = time.monotonic()
        pair[1].send_signal(signal_number)
        ended = jobs.ends(pair)
        print(f"{signal_number.name}: {time.monotonic() - began:.1f} s")
        assert [process.code for process in ended] == codes, ended[0].errors
        assert sentence in ended[0].errors
        assert not list((job / "dissection").glob("*.npz"))

    # Started again, the killed pair ends with what one process of as many devices finds, and removes what was left. One layer
    # is there already, which both must know.
    mixaug_jax.run(config, alone, "dissect")
    (job / "dissection").mkdir(exist_ok=True)
    there = job / "dissection" / "relu3.npz"
    shutil.copy(alone / "dissection" / "relu3.npz", there)
    before = there.stat()
    ended = jobs.ends(jobs.command(flags, places, devices=2))
    assert [process.code for process in ended] == [0, 0], ended[0].errors + ended[1].errors
    assert "dissect" not in ended[1].output
    assert not any(list(place.iterdir()) for place in places)
    assert (there.stat().st_ino, there.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    names = {path.name for path in (alone / "dissection").iterdir()}
    assert names == {path.name for path in (job / "dissection").iterdir()}
    for name in sorted(names):
        left, right = alone / "dissection" / name, job / "dissection" / name
        if name.endswith(".npz"):
            with np.load(left) as one, np.load(right) as two:
                assert one.files == two.files
                for key in one.files:
                    np.testing.assert_array_equal(one[key], two[key], err_msg=f"{name} {key}")
        elif name.endswith(".csv"):
            assert left.read_bytes() == right.read_bytes(), name


def test_label_maps_in_folders_that_are_not_shared(tmp_path):
    body = """
import planted, pathlib
from mixaug_jax import dissection
from dissection_jobs import Noise
dissection.make_label_maps(planted.source(4), Noise(), pathlib.Path("labels", str(me)), size=16)
"""
    ended = jobs.run(tmp_path, body)
    assert [process.code for process in ended] == [2, 2]
    sentence = "that process 0 sees there; the folder of label maps ($MIXAUG_JAX_CACHE; for scenes data.dir) must be on a disk"
    assert all(sentence in process.errors for process in ended)
