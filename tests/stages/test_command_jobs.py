"""Two processes of the command: all stages together, and what ends one of them in the middle of a stage."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from mixaug_jax.core import files

SMALL = {
    "data.size": 32,
    "data.batch_size": 8,
    "data.scenes.train": 16,
    "data.scenes.validation": 9,
    "data.scenes.test": 5,
    "model.name": "tiny",
    "model.width": 0.5,
    "train.epochs": 1,
    "explain.methods": "gradient",
    "explain.scores": "pointing_game,deletion",
    "explain.options.deletion.window": 8,
    "explain.replicates": 5,
    "explain.max_images": 9,
    "occlude.light": 9,
    "occlude.rankings": "gradient",
    "occlude.selections": "top",
    "occlude.shares": "20",
    "occlude.values": "zero",
    "occlude.replicates": 5,
    "dissect.layers": "relu1",
    "dissect.max_images": 9,
}
RESULTS = ("dissection", "attribution", "occlusion", "report")


class Job:
    """A pair of processes of the command, that write what they say to files."""

    def __init__(self, folder, workdir, heartbeat=100):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}"}
        keys = [f"--config.{key}={value}" for key, value in SMALL.items()]
        command = [sys.executable, "-m", "mixaug_jax.main", "--config=baseline:scenes"]
        command += [f"--workdir={workdir}", "--multihost", f"--heartbeat_s={heartbeat}", *keys]
        quick = {
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        self.said = [folder / f"said{k}" for k in range(2)]
        self.pair = []
        for k, path in enumerate(self.said):
            told = job | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(k)}
            with path.open("w") as file:
                self.pair.append(
                    subprocess.Popen(
                        command, env=os.environ | quick | told, stdout=file, stderr=file
                    )
                )

    def wait_for(self, text):
        """Until process 0 has said something."""
        end = time.monotonic() + 900
        while text not in self.said[0].read_text():
            assert self.pair[0].poll() is None, self.said[0].read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def ends(self):
        """Exit codes, and what each has said."""
        try:
            codes = [process.wait(timeout=900) for process in self.pair]
        finally:
            for process in self.pair:
                process.kill()
        return codes, [path.read_text() for path in self.said]


def results(workdir):
    """What is in the stages' files; of figures their names: a layout's last bits depend on what else a process has drawn."""
    found = {}
    for name in RESULTS[:3]:
        for path in sorted((workdir / name).rglob("*")):
            figure = path.suffix in (".png", ".svg", ".pdf") or path.name == files.SEALS
            if path.is_file():
                found[str(path.relative_to(workdir))] = b"" if figure else path.read_bytes()
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def whole(place):
    """A working directory that two processes have filled from the training to the page, and what they said."""
    workdir = place / "whole"
    codes, said = Job(place, workdir).ends()
    assert codes == [0, 0], said
    return workdir, said


def test_all_stages_by_two_processes(whole):
    workdir, said = whole
    for name in ("train", "dissect", "explain", "occlude", "report"):
        assert f"{name}: " in said[0]
    assert (workdir / "report" / "report.html").exists()
    # The first one speaks; "[Gloo]" is the library that joins them.
    assert [line for line in said[1].splitlines() if not line.startswith("[Gloo]")] == []


def test_a_pair_that_is_killed_and_stopped_ends_with_the_same_files(whole, place):
    """SIGKILL in the explanations, SIGTERM in the occlusion; the same command goes on each time."""
    workdir = place / "again"
    shutil.copytree(whole[0], workdir)
    for name in RESULTS[1:]:
        shutil.rmtree(workdir / name)
    job = Job(place, workdir, heartbeat=6)
    job.wait_for("explaining step")
    job.pair[1].kill()
    codes, said = job.ends()
    assert codes == [5, -signal.SIGKILL], said
    assert "error: process 1 of the job has given no sign of life for 6 s" in said[0]
    job = Job(place, workdir)
    job.wait_for("occluding: step")
    job.pair[0].send_signal(signal.SIGTERM)
    codes, said = job.ends()
    assert codes == [143, 143], said
    assert "error: stopped by a signal: what is written is whole" in said[0]
    assert "process 0 of the job ended with: stopped by a signal" in said[1]
    codes, said = Job(place, workdir).ends()
    assert codes == [0, 0], said
    # The explanations, which the first process knows and tells the other.
    assert "already there" in said[0]
    assert results(workdir) == results(whole[0])
