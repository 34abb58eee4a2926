"""Commands in a working directory that another process is at work in."""

import subprocess
import sys

import pytest
import toy

from mixaug_jax import data, main, pipeline
from mixaug_jax.core import files
from mixaug_jax.training import metric_log, train

HOLDER = """
import sys, time
from mixaug_jax.core import files
with files.claim(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A run's working directory that a second process holds, and that process."""
    workdir = tmp_path_factory.mktemp("run")
    toy.train_run(workdir)
    command = [sys.executable, "-c", HOLDER, str(workdir / files.RUN_LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield workdir, process
        process.kill()


@pytest.mark.parametrize(
    "stage", ["all", "train", "dissect", "intervene", "explain", "occlude", "export"]
)
def test_a_second_command_ends_with_one_sentence(stage, busy, capsys):
    workdir, process = busy
    log = (workdir / "metrics.jsonl").read_bytes()
    code = main.main(["--config=baseline:scenes", f"--workdir={workdir}", f"--stage={stage}"])
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert f"{workdir} is in use by process {process.pid} on " in said
    assert (workdir / "metrics.jsonl").read_bytes() == log


def test_so_does_a_training_from_python(busy, monkeypatch):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    with pytest.raises(files.BusyError, match="is in use by process"):
        train(toy.config(epochs=2), busy[0])
    assert metric_log.read(busy[0])[-1]["step"] == 4


def test_caches_of_a_run_at_work_are_kept(busy, capsys):
    cache = busy[0] / "dissection" / "cache"
    cache.mkdir(parents=True)
    assert main.main(["clean", str(busy[0])]) == 2
    assert "is in use by process" in capsys.readouterr().err
    assert cache.is_dir()


def test_a_page_may_be_made_meanwhile(busy, capsys):
    pipeline.run(toy.config(), busy[0], "report")
    assert (busy[0] / "report" / "report.html").exists()
    assert "report" in capsys.readouterr().out


def test_a_mistyped_folder_is_not_made(tmp_path, capsys):
    code = main.main(["--config=baseline", f"--workdir={tmp_path / 'typo'}", "--stage=explain"])
    assert code == 2
    assert "is not a working directory" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
