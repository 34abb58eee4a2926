"""Jobs of two processes on this machine: what ends one of them ends both, with one sentence and one exit code."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

from mixaug_jax.core import processes

JOB = """
import os, pathlib, sys, time; sys.path.insert(0, {tests!r})
import jax, conftest; jax.config.update("jax_num_cpu_devices", 1)
from mixaug_jax import command
from mixaug_jax.core import devices, processes
me = int(os.environ["JAX_PROCESS_ID"])
{before}
processes.join(heartbeat=4, wait={wait})
def up(): pathlib.Path({folder!r}, f"up{{me}}").touch()
with processes.one_fate(command.exit_code, 4):
{body}
{after}
"""


def run(folder, body, processes=2, wait=60, then=None, before="", after=""):
    """Exit codes and error streams of a job; `then(pair)` is called when all processes are up, `before` and `after` is code
    outside of the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    tests = str(pathlib.Path(__file__).parents[1])
    code = JOB.format(
        tests=tests, folder=str(folder), body=lines, wait=wait, before=before, after=after
    )
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ
            | {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(k),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(processes)
    ]
    if then:
        end = time.monotonic() + 120
        while not all((folder / f"up{k}").exists() for k in range(2)):
            assert time.monotonic() < end
            time.sleep(0.05)
        then(pair)
    said = [process.communicate(timeout=120)[1] for process in pair]
    return [process.returncode for process in pair], said


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_other_settings_are_said_before_anything_runs(tmp_path):
    body = """
processes.compare("versions", {"jax": 1})
processes.compare("settings", {"train.lr": (0.1, 0.5)[me], "seed": 0})
up()
"""
    codes, said = run(tmp_path, body)
    assert codes == [2, 2]
    sentence = "processes 0 and 1 of this job differ in their settings (train.lr: 0.1 and 0.5); start all with the same"
    assert all(sentence in text for text in said)
    assert not list(tmp_path.iterdir())


def test_an_error_of_one_ends_both(tmp_path):
    """While the other one waits in a collective, which knows nothing of it."""
    began = time.monotonic()
    body = """
if me == 1:
    raise ValueError("planted,\\n in two lines")
devices.barrier("never")
"""
    codes, said = run(tmp_path, body)
    assert codes == [2, 2]
    assert errors(said[0]) == ["error: process 1 of the job ended with: planted, in two lines"]
    assert errors(said[1])[0] == "error: planted, in two lines"
    assert time.monotonic() - began < 60


def test_an_error_that_nobody_expects_is_printed_in_full(tmp_path):
    codes, said = run(tmp_path, "devices.barrier('never') if me else [][0]")
    assert codes == [1, 1]
    assert "IndexError" in said[0]
    assert "Traceback" in said[0]
    assert errors(said[1]) == ["error: process 0 of the job ended with: list index out of range"]


def test_a_killed_process_is_missed(tmp_path):
    codes, said = run(
        tmp_path,
        "up(); devices.barrier('never') if me == 0 else time.sleep(99)",
        then=lambda pair: pair[1].kill(),
    )
    assert codes == [5, -signal.SIGKILL]
    assert errors(said[0])[0].startswith(
        "error: process 1 of the job has given no sign of life for 4 s"
    )


@pytest.mark.parametrize("busy", [2, 99])
def test_so_is_one_that_was_done_and_waited(tmp_path, busy):
    """Whether the other is at work when it is killed, or soon waits, too: JAX's own farewell aborts after half a minute."""

    def kill(pair):
        time.sleep(1)  # the main thread of process 1 is at its end, and waits for process 0
        pair[1].kill()

    codes, said = run(tmp_path, f"up(); time.sleep(0 if me else {busy})", then=kill)
    assert codes == [5, -signal.SIGKILL]
    assert errors(said[0])[0].startswith(
        "error: process 1 of the job has given no sign of life for 4 s"
    )


def test_one_that_is_done_waits_longer_than_a_sign_of_life_may_take(tmp_path):
    codes, said = run(tmp_path, "time.sleep(0 if me else 10)")
    assert codes == [0, 0]
    assert errors(said[0]) == errors(said[1]) == []


@pytest.mark.parametrize(("last", "code"), [("", 0), ("raise SystemExit(3)", 3), ("[][0]", 1)])
def test_no_process_ends_under_the_thread_that_watches(last, code, tmp_path):
    """Which is in a call of JAX's nearly always here: the interpreter would abort. The error is one that nobody catches."""
    busy = "processes._SECONDS = 0"
    codes, said = run(tmp_path, "devices.barrier('all')", before=busy, after=last)
    assert codes == [code, code]
    assert errors(said[0]) == errors(said[1]) == []
    assert all(("IndexError" in text) == (code == 1) for text in said)


def test_a_signal_to_one_ends_both(tmp_path):
    """Also where the main thread waits in a collective and hears nothing."""
    codes, said = run(
        tmp_path,
        "processes.stop_at_signals(); up(); devices.barrier('never') if me else time.sleep(99)",
        then=lambda pair: pair[1].send_signal(signal.SIGTERM),
    )
    assert codes == [143, 143]
    assert "process 1 of the job ended with: stopped by a signal" in said[0]


TRAIN = """
import toy, mixaug_jax
from mixaug_jax import data
data.open_splits = lambda config: toy.splits()
config = toy.config(steps=100_000)
config.train.log_every = 1
from mixaug_jax.training import loop
at = loop._at_cadence
loop._at_cadence = lambda run, step, *rest: (step == 3 and up(), at(run, step, *rest))
mixaug_jax.train(config, FOLDER)
"""


def test_a_signal_in_training_saves_after_the_same_step(tmp_path):
    from mixaug_jax.training import checkpoint

    folder = tmp_path / "run"
    body = TRAIN.replace("FOLDER", repr(str(folder)))
    codes, said = run(tmp_path, body, then=lambda pair: pair[0].send_signal(signal.SIGTERM))
    assert "stopped by a signal at step" in said[0]
    assert codes == [1, 1]  # of a program that does not ask for the code; the command's is 143
    (step,) = checkpoint.steps(folder)
    assert f"at step {step}" in said[0]
    assert f"at step {step}" in said[1]


def test_a_process_that_does_not_come(tmp_path):
    codes, said = run(tmp_path, "up()", processes=1, wait=2)
    assert codes == [2]
    assert errors(said[0]) == [
        "error: not all of 2 processes came within 2 s; --wait_s sets how long to wait"
    ]


def test_folders_that_are_not_shared(tmp_path):
    body = f"processes.check_shared(pathlib.Path({str(tmp_path)!r}) / str(me))"
    (tmp_path / "1").mkdir()
    codes, said = run(tmp_path, body)
    assert codes == [2, 2]
    assert "is not the folder that process 0 sees there; --workdir must be on a disk" in said[1]


def test_a_folder_that_is_shared(tmp_path):
    folder = tmp_path / "new"
    codes, _ = run(tmp_path, f"processes.check_shared(pathlib.Path({str(folder)!r}))")
    assert codes == [0, 0]
    assert not list(folder.iterdir())


def test_one_process_alone_compares_nothing(tmp_path):
    processes.compare("settings", {"a": 1})
    processes.check_shared(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="planted"), processes.one_fate(lambda error: 2):
        raise ValueError("planted")


@pytest.mark.parametrize("over", [True, False])
def test_the_store_may_go_when_a_process_has_left(over, monkeypatch):
    """JAX takes it down at the end of the job, which is no loss of process 0, and no error."""
    wake = socket.socketpair()

    class Gone:
        def key_value_set(self, *given, **options):
            if over:
                wake[1].send(bytes([processes._OVER]))
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: the store is down")

    ended, left = [], threading.Event()
    monkeypatch.setattr(processes, "_store", Gone)
    monkeypatch.setattr(processes, "_SECONDS", 0)
    monkeypatch.setattr(processes.os, "_exit", lambda code: (ended.append(code), sys.exit()))
    if over:
        processes._leave(left)
    with contextlib.nullcontext() if over else pytest.raises(SystemExit):
        processes._watch(4, wake, left)
    assert ended == ([] if over else [processes.GONE])
    for end in wake:
        end.close()


@pytest.mark.parametrize("failed", [True, False])
def test_who_leaves_waits_for_the_others(failed, monkeypatch):
    """However long they take; but not after an error, when they may wait for it."""
    asked = []

    class Slow:
        def key_value_set(self, key, value, **options):
            asked.append(key)

        def blocking_key_value_get(self, key, milliseconds):
            asked.append(key)
            if len(asked) == 2:
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: not there yet")
            return "done"

    left = threading.Event()
    monkeypatch.setattr(processes, "_store", Slow)
    if failed:
        monkeypatch.setattr(sys, "last_value", ValueError("planted"), raising=False)
    else:
        monkeypatch.delattr(sys, "last_value", raising=False)
    processes._leave(left)
    done, gone = "mixaug_jax/done/0", "mixaug_jax/left/0"
    assert asked == ([done, gone] if failed else [done] * 3 + [gone] * 2)
    assert left.is_set()


@pytest.mark.parametrize("kind", [ValueError, jax.errors.JaxRuntimeError])
def test_a_collective_that_breaks_waits_for_the_reason(kind, monkeypatch):
    """Another process is gone, which is found out meanwhile; where arrays are read the error is a ValueError."""
    ended, slept = [], []
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    monkeypatch.setattr(processes, "fail", lambda *given: ended.append(given))
    sentence = "UNKNOWN: Gloo all-reduce failed: Connection closed by peer"
    with processes.one_fate(lambda error: 2, heartbeat=4):
        raise kind(sentence)
    assert slept == [9]
    assert ended == [(1, sentence)]
