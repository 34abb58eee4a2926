"""Jobs of several processes on this machine, that run Python code or the command."""

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys

TESTS = pathlib.Path(__file__).parent
BEGIN = """
import os, sys; sys.path.insert(0, {tests!r})
import jax, conftest; jax.config.update("jax_num_cpu_devices", {devices})
from mixaug_jax import command
from mixaug_jax.core import processes
me = int(os.environ.get("JAX_PROCESS_ID", 0))
if "JAX_PROCESS_ID" in os.environ: processes.join(heartbeat=90)
with processes.one_fate(command.exit_code, 90):
    exec(compile({body!r}, "the job", "exec"))
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code and what it printed."""

    code: int
    output: str
    errors: str


def start(body, processes=2, devices=1):
    """The processes of a job that runs Python code, in which `me` is the process's number; 1 process is no job."""
    code = BEGIN.format(tests=str(TESTS), devices=devices, body=body)
    return _started(["-c", code], [{}] * processes)


def command(flags, places, devices=1):
    """The processes of a job that runs the command, each with a folder of its own for temporary files."""
    own = {
        "PYTHONPATH": str(TESTS.parent),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as in the tests' own process
    }
    words = ["-m", "mixaug_jax.main", "--multihost", *flags]
    return _started(words, [own | {"TMPDIR": str(place)} for place in places])


def _started(words, given):
    processes = len(given)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}"}
    job["JAX_NUM_PROCESSES"] = str(processes)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            env=os.environ | (job | {"JAX_PROCESS_ID": str(k)} if processes > 1 else {}) | own,
            **pipes,
        )
        for k, own in enumerate(given)
    ]


def ends(started, seconds=600):
    """How each process of a job ended."""
    try:
        said = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(p.returncode, *texts) for p, texts in zip(started, said, strict=True)]


def run(folder, body, processes=2, devices=1):
    """`ends(start(...))`, started in a folder."""
    return ends(start(f"os.chdir({str(folder)!r})\n{body}", processes, devices))
