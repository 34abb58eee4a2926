"""The loop: what a run writes, and that it ends the same however often it was cut short."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import toy

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import data, training
from mixaug_jax.config import get_config
from mixaug_jax.data import transforms
from mixaug_jax.models import build
from mixaug_jax.training import checkpoint, disk, metric_log


@pytest.fixture(autouse=True)
def noise(monkeypatch):
    """Every run here reads the colored noise."""
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())


def stored(path):
    """All arrays of a checkpoint, as the disk has them."""
    with ocp.StandardCheckpointer() as reader:
        return [
            np.asarray(x)
            for i in ("variables", "train")
            for x in jax.tree.leaves(reader.restore(pathlib.Path(path) / i))
        ]


def assert_same_bits(a, b):
    a, b = stored(a), stored(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_train_learns_logs_and_saves(tmp_path, capsys):
    result = mixaug_jax.train(toy.config(epochs=6), tmp_path)
    assert result["step"] == 24
    assert result["test_accuracy"] > 0.6  # chance is 0.25
    lines = metric_log.read(tmp_path)
    assert [line["step"] for line in lines if "train_loss" in line] == list(range(1, 25))
    assert [line["step"] for line in lines if "validation_accuracy" in line] == [
        4,
        8,
        12,
        16,
        20,
        24,
    ]
    assert lines[-1]["test_accuracy"] == result["test_accuracy"]
    assert lines[-1]["test_accuracy"] * 37 == pytest.approx(round(lines[-1]["test_accuracy"] * 37))
    assert pathlib.Path(result["checkpoint"]).is_dir()
    assert json.loads((tmp_path / "config.json").read_text())["resolved"]["steps"] == 24
    assert "jax" in json.loads((tmp_path / "versions.json").read_text())
    net = mixaug_jax.load(tmp_path)
    source = toy.splits()["test"]
    images = np.stack([net.preprocess(source[i]["image"]) for i in range(37)])
    answers = np.asarray(net.logits(images)).argmax(-1)
    right = np.mean(answers == [source[i]["label"] for i in range(37)])
    assert right == pytest.approx(result["test_accuracy"])
    said = capsys.readouterr().out
    assert "test accuracy" in said.splitlines()[-2]
    assert "checkpoint" in said.splitlines()[-1]
    # A finished run is not trained again.
    assert mixaug_jax.train(toy.config(epochs=6), tmp_path) == result
    assert "compiling" not in capsys.readouterr().out


@pytest.mark.parametrize("method", ["cutmix", "manifold_mixup"])
def test_resumed_run_ends_with_the_same_bits(method, tmp_path):
    options = {"ema": 0.9, "accumulate": 2, "schedule": "constant"}
    whole = mixaug_jax.train(toy.config(method, steps=8, **options), tmp_path / "whole")
    mixaug_jax.train(toy.config(method, steps=4, **options), tmp_path / "parts")
    parts = mixaug_jax.train(toy.config(method, steps=8, **options), tmp_path / "parts")
    assert parts["step"] == 8
    assert_same_bits(whole["checkpoint"], parts["checkpoint"])
    numbers = [
        line["train_loss"] for line in metric_log.read(tmp_path / "whole") if "train_loss" in line
    ]
    again = [
        line["train_loss"] for line in metric_log.read(tmp_path / "parts") if "train_loss" in line
    ]
    assert numbers == again


CHILD = """
import sys; sys.path.insert(0, {tests!r})
import conftest, toy, mixaug_jax
from mixaug_jax import data
data.open_splits = lambda config: toy.splits()
config = toy.config("cutmix", steps={steps}, checkpoint_every=2.0)
try:
    mixaug_jax.train(config, {workdir!r})
except mixaug_jax.training.Interrupted as error:
    print("interrupted:", error); sys.exit(143)
"""


def child(workdir, steps):
    code = CHILD.format(
        tests=str(pathlib.Path(__file__).parents[1]), workdir=str(workdir), steps=steps
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_for_step(workdir, process, step):
    while not any(line["step"] >= step for line in metric_log.read(workdir)):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)


def test_sigkill_then_the_same_command_gives_the_same_bits(tmp_path):
    killed = child(tmp_path / "killed", 60)
    wait_for_step(tmp_path / "killed", killed, 9)
    killed.kill()
    killed.communicate()
    assert max(line["step"] for line in metric_log.read(tmp_path / "killed")) < 60
    config = toy.config("cutmix", steps=60, checkpoint_every=2.0)
    again = mixaug_jax.train(config, tmp_path / "killed")
    whole = mixaug_jax.train(config, tmp_path / "whole")
    assert_same_bits(again["checkpoint"], whole["checkpoint"])


def test_sigterm_saves_and_says_so(tmp_path):
    process = child(tmp_path, 10_000)
    wait_for_step(tmp_path, process, 3)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    (step,) = checkpoint.steps(tmp_path, "latest")
    assert f"stopped by a signal at step {step}" in said


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    config = toy.config(steps=12, lr=0.05, schedule="constant")
    mixaug_jax.train(toy.config(steps=4, lr=0.05, schedule="constant"), tmp_path)
    bad = toy.splits()
    monkeypatch.setattr(data, "open_splits", lambda config: bad)
    step = training.step.loss_fn

    def exploding(params, *args, **options):
        loss, aux = step(params, *args, **options)
        return loss * np.inf, aux

    monkeypatch.setattr(training.step, "loss_fn", exploding)
    with pytest.raises(FloatingPointError, match="at step 5"):
        mixaug_jax.train(config, tmp_path)
    assert checkpoint.steps(tmp_path, "latest") == [4]


def test_four_devices_go_on_from_one_and_back(tmp_path):
    code = CHILD.format(
        tests=str(pathlib.Path(__file__).parents[1]), workdir=str(tmp_path), steps=4
    )
    one = code.replace(
        "import conftest", "import jax; jax.config.update('jax_num_cpu_devices', 1)\nimport os"
    )
    subprocess.run([sys.executable, "-c", one], check=True, stdout=subprocess.DEVNULL)
    assert checkpoint.steps(tmp_path) == [4]
    config = toy.config("cutmix", steps=8, checkpoint_every=2.0)
    assert jax.device_count() == 4
    assert mixaug_jax.train(config, tmp_path)["step"] == 8
    subprocess.run(
        [sys.executable, "-c", one.replace("steps=4", "steps=12")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert checkpoint.steps(tmp_path) == [12]


PROCESS = """
import json, sys; sys.path.insert(0, {tests!r})
import jax, conftest; jax.config.update("jax_num_cpu_devices", 2)
import toy, mixaug_jax
from mixaug_jax import data
from mixaug_jax.core import processes
processes.join()
data.open_splits = lambda config: toy.splits()
config = toy.config("cutmix", steps=4)
print(json.dumps(mixaug_jax.train(config, {workdir!r})))
"""


def test_two_processes_train_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = PROCESS.format(
        tests=str(pathlib.Path(__file__).parents[1]), workdir=str(tmp_path / "two")
    )
    cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **cluster, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    results = [json.loads(text.splitlines()[-1]) for text in said]
    assert results[0] == results[1]
    assert "step 4/4" in said[0]
    assert "step 4/4" not in said[1]  # only process 0 tells
    # The same devices in one process see the same images, mix them alike, and so come to the same network.
    config = toy.config("cutmix", steps=4)
    mixaug_jax.train(config, tmp_path / "one")
    one, two = (
        [x["train_loss"] for x in metric_log.read(tmp_path / d) if "train_loss" in x]
        for d in ("one", "two")
    )
    np.testing.assert_allclose(one, two, rtol=1e-6)
    # One process goes on with what two have saved.
    config.train.steps = 6
    assert mixaug_jax.train(config, tmp_path / "two")["step"] == 6


def test_another_config_is_refused_and_says_what_differs(tmp_path):
    mixaug_jax.train(toy.config(steps=2), tmp_path)
    with pytest.raises(ValueError, match=r"train.lr: 0.05 -> 0.5"):
        mixaug_jax.train(toy.config(steps=2, lr=0.5), tmp_path)
    # How often it logs, and how long it runs, may change, but no step is taken back.
    assert mixaug_jax.train(toy.config(steps=3, log_every=7), tmp_path)["step"] == 3
    with pytest.raises(ValueError, match="is at step 3 already"):
        mixaug_jax.train(toy.config(steps=2), tmp_path)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, capsys):
    config = toy.config(steps=8, schedule="constant")
    first = mixaug_jax.train(config, tmp_path / "a")
    mixaug_jax.train(config, tmp_path / "b")
    for file in pathlib.Path(first["checkpoint"], "variables").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = mixaug_jax.train(toy.config(steps=8, schedule="constant"), tmp_path / "a")
    assert "warning: checkpoint 8 is damaged" in capsys.readouterr().err
    assert (tmp_path / "a" / "damaged" / "8").is_dir()
    assert_same_bits(again["checkpoint"], tmp_path / "b" / "checkpoints" / "8")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    mixaug_jax.train(toy.config(steps=2), tmp_path)
    config = toy.config(steps=2)
    config.model.width = 2.0
    stored_config = config_lib.resolve(config, train_size=64, class_names=["a"] * 4)
    checkpoint.write_settings(tmp_path, stored_config)
    with pytest.raises(ValueError, match="holds another model"):
        mixaug_jax.train(config, tmp_path)


def test_a_full_disk_is_said_before_anything_is_compiled(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="two checkpoints need"):
        mixaug_jax.train(toy.config(steps=2), tmp_path)


def test_a_disk_that_fills_up_is_said_in_one_sentence(tmp_path, monkeypatch):
    write = checkpoint.write_checkpoint

    def fills_up(manager, step, **items):
        if step == 8:  # as the storage library says it
            raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")
        write(manager, step, **items)

    monkeypatch.setattr(checkpoint, "write_checkpoint", fills_up)
    with pytest.raises(OSError, match="the disk is full"):
        mixaug_jax.train(toy.config(steps=12), tmp_path)
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == [4]
    with pytest.raises(ValueError, match="another reason"), disk.full_disk(tmp_path):
        raise ValueError("another reason")


def test_checkpoints_are_chosen_by_name(tmp_path):
    mixaug_jax.train(toy.config(epochs=3, keep_every=1.0), tmp_path)
    assert checkpoint.steps(tmp_path, "all") == [4, 8, 12]
    assert checkpoint.steps(tmp_path, "latest") == [12]
    assert checkpoint.steps(tmp_path, 8) == checkpoint.steps(tmp_path, "8") == [8]
    scores = {
        line["step"]: line["validation_accuracy"]
        for line in metric_log.read(tmp_path)
        if "validation_accuracy" in line
    }
    (best,) = checkpoint.steps(tmp_path, "best")
    assert scores[best] == max(scores.values())
    with pytest.raises(ValueError, match="allowed: latest, best, all, 4, 8, 12"):
        checkpoint.steps(tmp_path, "first")
    with pytest.raises(ValueError, match="run --stage=train first"):
        checkpoint.steps(tmp_path / "nowhere")


def test_evaluation_sees_every_example_once(tmp_path):
    result = mixaug_jax.train(toy.config(steps=1), tmp_path)
    assert (result["test_accuracy"] * 37) == pytest.approx(
        round(result["test_accuracy"] * 37), abs=1e-4
    )


def test_without_a_test_split_the_validation_is_the_result_and_is_measured_once(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits() | {"test": None})
    config = toy.config(steps=3, log_every=1)
    result = mixaug_jax.train(config, tmp_path)
    said = capsys.readouterr().out
    assert said.count("validation") == 2  # how many images there are, and the result
    assert "test accuracy" not in said
    lines = metric_log.read(tmp_path)
    (line,) = [line for line in lines if "validation_accuracy" in line]
    assert not any(name.startswith("test_") for name in {*line, *result})
    assert line["validation_accuracy"] == result["validation_accuracy"]
    assert metric_log.finished(lines, 3) == line
    assert metric_log.judged(line) == "validation"
    assert mixaug_jax.train(config, tmp_path) == result
    assert metric_log.read(tmp_path) == lines


def test_profile_and_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    mixaug_jax.train(toy.config(steps=5, profile_steps=2), tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    (events,) = tmp_path.glob("events.*")
    assert b"train_loss" in events.read_bytes()


def test_a_loaded_network_sees_what_the_evaluation_saw():
    config = get_config("baseline", "folder")
    config = config_lib.resolve(config, train_size=10, class_names=("a", "b"))
    preprocess = build.build_preprocess(config)
    rng = np.random.default_rng(0)
    for height, width in ((100, 133), (133, 100), (96, 96), (57, 211)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        d = config.data
        seen = transforms.evaluation({"image": image}, d.size, d.resize)["image"]
        seen = transforms.device_transform(
            seen[None], np.zeros(1, np.uint32), jitter=0.0, lighting=0.0, mean=d.mean, std=d.std
        )
        np.testing.assert_allclose(preprocess(image), seen[0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": {"batch_size": 6}}, "does not divide over 4 devices"),
        ({"eval": {"batch_size": 2}}, "eval.batch_size=2 does not divide over 4 devices"),
        ({"mix": {"name": "cutmx"}}, "did you mean 'cutmix'"),
        ({"model": {"name": "resnet19"}}, "model.name must be one of .*'resnet19'"),
        ({"train": {"lr": float("nan")}}, "train.lr must be a number at least 0"),
        ({"train": {"accumulate": 3}}, "train.accumulate=3 does not divide"),
        ({"train": {"steps": 0, "epochs": 0}}, "are both 0"),
        ({"train": {"schedule": "steps"}}, "did you mean 'step'"),
        ({"data": {"validation_split": "", "test_split": ""}}, "are both empty"),
        ({"data": {"size": 1}, "mix": {"name": "cutmix"}}, "too small for a cut"),
        ({"data": {"batch_size": 4}, "mix": {"name": "cutmix"}}, "at least 2 on each, so 8"),
    ],
)
def test_bad_settings_end_in_one_sentence_before_any_compile(change, sentence, tmp_path):
    config = toy.config()
    config.update(change)
    with pytest.raises(ValueError, match=sentence):
        mixaug_jax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
