"""How a study makes its runs: what is done is skipped, a failure ends one run only, a kill loses little."""

import concurrent.futures
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
import studies

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax.study import Stopped, gather, plan, runs
from mixaug_jax.study import __main__ as study_command

ROOT = pathlib.Path(__file__).parents[2]

# In place of Python: leaves a line in `ran` and a result, as `python -m mixaug_jax.main --workdir=DIR` would.
FAKE = """#!/bin/sh
for text; do case $text in --workdir=*) dir=${text#--workdir=};; esac; done
echo "$@" >> $dir/ran
mkdir -p $dir/dissection $dir/checkpoints/8 $dir/checkpoints/10
(printf 'PK\005\006'; head -c 18 /dev/zero) > $dir/dissection/layer4.npz  # a whole file without arrays
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`fake(more)` puts a script in the place of every run's Python."""

    def install(more=""):
        script = tmp_path / "python"
        script.write_text(FAKE + more)
        script.chmod(0o755)
        monkeypatch.setattr(runs.sys, "executable", str(script))

    install()
    return install


def planned(tmp_path, methods=("baseline", "cutmix", "mixup"), seeds=(0,), overrides=()):
    configs = {name: config_lib.get_config(name) for name in methods}
    return plan.make_plan(configs, seeds, tmp_path / "study", overrides)


def times(run):
    path = run.workdir / "ran"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_what_is_done_is_skipped(tmp_path, fake, capsys):
    made = planned(tmp_path)
    assert runs.run_missing(made[:2]) == []
    assert runs.run_missing(made) == []
    assert [times(run) for run in made] == [1, 1, 1]
    printed = capsys.readouterr().out
    assert "2 of 3 runs are finished already" in printed
    assert "[1 of 1] mixup seed 0: finished after" in printed
    stored = json.loads((made[0].workdir / "finished.json").read_text())
    assert stored["files"] == ["checkpoints/10", "dissection/layer4.npz"]
    assert (made[0].workdir / "ran").read_text().split()[2:] == list(made[0].flags)


def test_other_settings_or_a_lost_file_are_not_done(tmp_path, fake):
    made = planned(tmp_path)
    runs.run_missing(made)
    (made[0].workdir / "dissection" / "layer4.npz").unlink()
    (made[1].workdir / "finished.json").write_text("{")
    assert [runs.finished(run) for run in made] == [False, False, True]
    again = planned(tmp_path, overrides=["dissect.q=0.02"])
    assert not any(map(runs.finished, again))
    quicker = planned(tmp_path, overrides=["data.threads=1", "train.log_every=7"])
    assert runs.finished(quicker[2])


def test_a_failure_ends_one_run_only(tmp_path, fake, capsys):
    made = planned(tmp_path)
    fake('case $dir in */baseline/*) echo "error: planted"; exit 3;; */cutmix/*) kill -9 $$;; esac')
    failures = runs.run_missing(made)
    assert [times(run) for run in made] == [1, 1, 1]
    log = made[0].workdir / "log.txt"
    assert failures[0] == (
        f"baseline seed 0: failed with exit code 3 (error: planted; all of it is in {log})"
    )
    assert failures[1].startswith("cutmix seed 0: was killed by signal 9 (no output")
    assert len(failures) == 2
    assert runs.finished(made[2])
    plan.write_asked(made, tmp_path / "study", ())
    assert gather(tmp_path / "study").problems[0] == failures[0]
    fake()
    assert runs.run_missing(made) == []
    assert "planted" not in "".join(gather(tmp_path / "study").problems)
    assert [times(run) for run in made] == [2, 2, 1]


def test_a_folder_has_one_process_at_a_time(tmp_path, fake, capsys):
    (run,) = planned(tmp_path, methods=["baseline"])
    run.workdir.mkdir(parents=True)
    with (run.workdir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        study = threading.Thread(target=runs.run_missing, args=([run],))
        study.start()
        time.sleep(0.5)
        waiting = times(run) == 0
        fcntl.flock(lock, fcntl.LOCK_UN)
        study.join(60)
    assert waiting
    assert times(run) == 1
    assert "another process is at it" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_run(tmp_path, fake, number):
    made = planned(tmp_path)
    fake("trap 'touch $dir/saved; exit 143' TERM; touch $dir/up; while :; do sleep 0.05; done")

    def stop():
        while not (made[0].workdir / "up").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Stopped, match="baseline seed 0"):
        runs.run_missing(made)
    stopper.join()
    assert (made[0].workdir / "saved").exists()
    assert not (made[1].workdir / "ran").exists()
    assert signal.getsignal(number) is before


def test_runs_at_once(tmp_path, fake, monkeypatch):
    """The first two meet, which they could not one after the other; the third begins when one of them has ended."""
    monkeypatch.setattr(runs.sharing, "_cores", lambda: [str(min(os.sched_getaffinity(0)))] * 2)
    made = planned(tmp_path)
    meet = "while [ ! -e $dir/../../baseline/0/up -o ! -e $dir/../../cutmix/0/up ]; do sleep 0.05; done"
    fake(f"touch $dir/up; case $dir in */mixup/*) exit 4;; esac; {meet}")
    failures = runs.run_missing(made, jobs=2)
    assert [failure.partition(":")[0] for failure in failures] == ["mixup seed 0"]
    assert [runs.finished(run) for run in made] == [True, True, False]


def test_shares_that_begin_together_all_are_in_the_study(tmp_path):
    made = [planned(tmp_path, seeds=(seed,)) for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda part: plan.write_asked(part, tmp_path / "study", ()), made))
    asked = plan.read_asked(tmp_path / "study")
    assert asked["seeds"] == list(range(6))
    assert len(asked["commands"]) == 18


def test_the_last_call_says_what_is_missing(tmp_path, monkeypatch, capsys):
    """`--gather` ends well only where every run has something to show and none failed last."""
    monkeypatch.setattr("mixaug_jax.report.write_study", lambda *_: None)
    flags = ["--gather", f"--workdir={tmp_path}"]
    one, two = studies.asked(tmp_path, seeds=[0])
    scores = {"gradcam": {"sparseness": 0.5}}
    studies.write_run(one, scores=scores)
    assert study_command.main(flags) == 1
    assert "error: cutmix seed 0: not started" in capsys.readouterr().err
    studies.write_run(two, scores=scores)
    (two.workdir / "failed.txt").write_text("failed before its own command made all of it")
    assert study_command.main(flags) == 0
    assert "failed before" not in capsys.readouterr().out
    (two.workdir / "config.json").write_text("{")
    assert study_command.main(flags) == 1
    assert f"{two.workdir / 'config.json'} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--unmixed_labels", "--config.train.epochs=3"]])
def test_the_command_that_makes_a_study_again(tmp_path, capsys, more):
    where = f"--workdir={tmp_path}"
    configs = "--configs=configs/baseline.py:cifar10,configs/cutmix.py:cifar10"
    assert study_command.main([configs, "--seeds=0,2", where, "--list", *more]) == 0
    listed = capsys.readouterr().out
    again = plan.flags_of(plan.read_asked(tmp_path), tmp_path)
    assert {configs, "--seeds=0,2", where, *more} == set(again)
    assert study_command.main([*again, "--list"]) == 0
    assert capsys.readouterr().out == listed


def test_a_study_of_given_settings_is_made_again_from_its_own_files(tmp_path):
    configs = {name: config_lib.get_config(name) for name in ("baseline", "cutmix")}
    for name, named in (("study", configs), ("other", {"mine": "configs/cutmix.py"})):
        made = plan.make_plan(named, [0], tmp_path / name)
        plan.write_asked(made, tmp_path / name, ())
    flags = plan.flags_of(plan.read_asked(tmp_path / "study"), tmp_path / "study")
    files = [f"{tmp_path}/study/configs/{name}.py" for name in configs]
    assert flags[0] == f"--configs={','.join(files)}"
    assert plan.flags_of(plan.read_asked(tmp_path / "other"), tmp_path / "other") == []


def command(*flags, **options):
    return subprocess.run(
        [sys.executable, "-m", "mixaug_jax.study", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **options,
    )


def test_a_study_takes_no_device_from_its_runs(tmp_path):
    """A TPU belongs to one process: planning and waiting must not ask for devices."""
    flags = ["--configs=configs/cutmix.py", "--seeds=0", f"--workdir={tmp_path}", "--list"]
    listed = command(*flags, env=os.environ | {"JAX_PLATFORMS": "nothing"})
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.startswith("python -m mixaug_jax.main --config=configs/cutmix.py")
    wrong = command(*flags, "--config.train.lrr=1")
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "error: no config of this study has it: unknown key train.lrr (did you mean train.lr?)\n"
    )


SMALL = {
    "data.size": 32, "data.batch_size": 16, "data.threads": 1, "data.scenes.train": 64,
    "data.scenes.validation": 16, "data.scenes.test": 16, "train.epochs": 3, "eval.batch_size": 16,
    "model.name": "tiny", "dissect.max_images": 8, "dissect.layers": "('relu4',)", "dissect.shuffles": 0,
    "dissect.random_baseline": False, "explain.max_images": 8,
    "explain.methods": "('gradient',)", "explain.scores": "('pointing_game',)", "occlude.light": 0,
    "intervene.max_images": 8, "intervene.sets": "('units',)",
}  # fmt: skip


def test_killed_and_begun_again(tmp_path):
    """The real thing at its smallest: two runs of equal settings, one of them killed, end alike."""
    (tmp_path / "twin.py").write_text((ROOT / "configs" / "baseline.py").read_text())
    folder, scenes, cache = tmp_path / "study", tmp_path / "scenes", ROOT / ".pytest_cache/xla"
    settings = SMALL | {"data.dir": scenes, "compile_cache": cache}
    flags = [f"--configs=configs/baseline.py,{tmp_path}/twin.py", "--seeds=0"]
    flags += [f"--workdir={folder}", *(f"--config.{key}={v}" for key, v in settings.items())]
    whole, killed = (folder / name / "0" for name in ("baseline", "twin"))
    process = subprocess.Popen(
        [sys.executable, "-m", "mixaug_jax.study", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (killed / "checkpoints" / "4").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (whole / "finished.json").exists()
    assert not (killed / "finished.json").exists()

    again = command(*flags)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 2 runs are finished already" in again.stdout
    # Networks of so few steps are near chance, on one side or the other.
    said = next(line for line in again.stdout.splitlines() if line.startswith("Accuracy: "))
    assert "One seed supports no statement" in said or "at chance" in said
    assert (folder / "report" / "report.html").exists()
    study = gather(folder)
    there = ~np.isnan(study.values[0])
    assert there[:, study.headlines].any(0).sum() >= 3  # accuracy, concepts, pointing
    np.testing.assert_array_equal(study.values[0][there], study.values[1][there])
    ended = [mixaug_jax.load(run).variables for run in (whole, killed)]
    jax.tree.map(np.testing.assert_array_equal, *ended)
