"""Runs as jobs of a scheduler, tried on submitit's local one; a stand-in for `mixaug_jax.main` takes no time."""

import os
import pathlib
import signal
import time

import pytest

from mixaug_jax import config as config_lib
from mixaug_jax.study import __main__ as study_command
from mixaug_jax.study import launching, plan, runs, status

pytest.importorskip("submitit")

# Python reads it before anything else: what would be a run leaves a result. A run called mixup waits for a signal once.
STAND_IN = """
import os, pathlib, signal, sys, time
words = sys.orig_argv
if "mixaug_jax.main" in words:
    folder = pathlib.Path(next(w for w in words if w.startswith("--workdir=")).partition("=")[2])
    with (folder / "ran").open("a") as file:
        file.write("ran\\n")
    def saved(number, frame):
        (folder / "saved").touch()
        os._exit(143)
    signal.signal(signal.SIGTERM, saved)
    if "mixup" in str(folder) and not (folder / "saved").exists():
        (folder / "up").touch()
        time.sleep(60)
    if "cutout" in str(folder):
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "dissection").mkdir(exist_ok=True)
    (folder / "dissection" / "units.csv").touch()
    os._exit(0)
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "sitecustomize.py").write_text(STAND_IN)
    root = str(pathlib.Path(launching.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "stand_in"), root]))
    configs = {name: config_lib.get_config(name) for name in ("baseline", "mixup", "cutout")}
    made = plan.make_plan(configs, (0,), tmp_path / "study")
    plan.write_asked(made, tmp_path / "study", ())
    return made


def wait(there, seconds=60):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_preempted_job_saves_and_comes_again_and_a_killed_one_is_reported(planned, tmp_path):
    study = tmp_path / "study"
    resources = launching.Resources(hours=1, gpus=0)
    jobs = launching.launch(planned, study, resources, "local")
    preempted = planned[1].workdir
    wait((preempted / "up").exists)
    states = {s.title: s for s in status.read(study)}
    assert states["mixup seed 0"].state == "running"
    # The controller passes the signal on to the job, as Slurm sends it to a job's processes.
    for task in (
        pathlib.Path(f"/proc/{jobs[1].job_id}/task/{jobs[1].job_id}/children").read_text().split()
    ):
        os.kill(int(task), signal.SIGUSR2)
    for job in jobs:
        job.wait()
    assert (preempted / "saved").exists()
    assert len((preempted / "ran").read_text().splitlines()) == 2
    assert all(runs.finished(run) for run in planned[:2])
    found = status.read(study)
    assert [s.state for s in found] == ["done", "done", "failed"]
    assert "was killed by signal 9" in found[2].why
    assert jobs[2].exception() is not None
    assert status.lines(found)[0] == "3 runs: 2 done, 0 running, 1 failed, 0 waiting"
    # The same command makes what failed, and nothing else.
    again = launching.launch(planned, study, resources, "local")
    assert len(again) == 1
    again[0].wait()


def test_what_a_job_asks_for(planned, tmp_path, monkeypatch):
    """The file that is handed to sbatch, and the last job that waits for the others."""
    from submitit.slurm import slurm

    handed = []

    def submit(self, command):
        job_id = f"{100 + len(handed)}"
        handed.append(self._make_submission_file_text(command, "x"))
        return slurm.SlurmJob(self.folder, job_id)

    monkeypatch.setattr(slurm.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(slurm.SlurmExecutor, "_submit_command", submit)
    resources = launching.Resources(
        hours=2.5,
        gpus=2,
        cpus=3,
        memory_gb=12,
        partition="fast",
        at_once=2,
        more={"account": "vision"},
    )
    jobs = launching.launch(planned, tmp_path / "study", resources)
    assert len(jobs) == 4
    for line in (
        "time=150",
        "gpus-per-node=2",
        "cpus-per-task=3",
        "mem=12GB",
        "partition=fast",
        "account=vision",
        "array=0-2%2",
    ):
        assert f"#SBATCH --{line}\n" in handed[0]
    assert "#SBATCH --dependency=afterany:100\n" in handed[1]
    assert "--signal=" in handed[0]


def test_a_launch_where_there_is_no_slurm(planned, tmp_path):
    with pytest.raises(ValueError, match=r"--launch=slurm: .*srun"):
        launching.launch(planned, tmp_path / "study", launching.Resources())


def test_status_of_runs_that_nobody_watches(planned, tmp_path, capsys):
    study = tmp_path / "study"
    assert [s.state for s in status.read(study)] == ["waiting"] * 3
    planned[0].workdir.mkdir(parents=True)
    (planned[0].workdir / "log.txt").write_text("step 1\nstep 2 of 9\n")
    assert study_command.main([f"--workdir={study}", "--status"]) == 0
    printed = capsys.readouterr().out
    assert "3 runs: 0 done, 0 running, 1 failed, 2 waiting" in printed
    assert (
        "baseline seed 0  failed   ended without a word, stopped or killed (step 2 of 9)" in printed
    )
    assert study_command.main([f"--workdir={tmp_path}", "--status"]) == 2
    assert "is no study: it has no study.json" in capsys.readouterr().err
