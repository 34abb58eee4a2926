"""Scenes in their folder: rendered once by many processes, read as rendered, and nothing left half done."""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import ml_collections
import numpy as np
import pytest
from scene_cases import PLAIN, assert_equal

from mixaug_jax.core import say
from mixaug_jax.data import farm, rendered
from mixaug_jax.data.scenes import dataset, renderer, shapes

ROOT = pathlib.Path(__file__).parents[2]


def config(folder, size=32, **changes):
    """A config with the keys that the scenes read."""
    keys = dataclasses.asdict(PLAIN) | changes
    del keys["size"]
    data = {"size": size, "dir": str(folder), "scenes": keys}
    return ml_collections.ConfigDict({"data": data})


def script(folder, settings, before=""):
    """A program that renders into a folder and says where."""
    return (
        "import pathlib, time; from mixaug_jax.data import rendered; from mixaug_jax.data.scenes import dataset, renderer\n"
        f"{before}\n"
        f"folder = rendered.prepare(dataset.Scenes, renderer.{settings!r}, pathlib.Path({str(folder)!r}))\n"
        "print('ready', folder)"
    )


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_any_number_of_processes_renders_the_same():
    settings = replace(PLAIN, train=70, validation=1, test=33)
    alone, two = (list(farm.render_all(settings, processes=n)) for n in (0, 2))
    assert len(alone) == len(two) == 104
    for left, right in zip(alone, two, strict=True):
        assert_equal(left, right)
    assert_equal(alone[70], renderer.render(settings, "validation", 0))


def test_a_process_that_cannot_start_leaves_its_work_to_the_caller(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert len(list(farm.render_all(PLAIN, processes=2))) == 13


def test_progress_says_how_many_and_how_long(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(say, "_SECONDS", 0.0)
    rendered.prepare(dataset.Scenes, PLAIN, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        f"rendering: {done} of 13 scenes" for done in range(2, 13)
    ]
    assert all(re.search(r" scenes/s  ETA \d+:\d\d$", line) for line in lines)


def test_what_is_read_is_what_was_rendered(tmp_path):
    for split in renderer.SPLITS:
        source = dataset.scenes(split, config(tmp_path))
        assert len(source) == getattr(PLAIN, split)
        assert source.class_names == source.box_names == shapes.CLASSES
        assert source.concept_names == renderer.CONCEPTS
        for index in range(len(source)):
            assert_equal(source[index], renderer.render(PLAIN, split, index))
        with pytest.raises(IndexError):
            source[len(source)]
    assert isinstance(source[0]["label"], int)
    bare = dataset.scenes("test", config(tmp_path), annotations=False)
    assert bare[1].keys() == {"image", "label"}
    np.testing.assert_array_equal(bare[1]["image"], source[1]["image"])
    assert bare.concept_names == ()


def test_many_shards_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(rendered, "SHARD_BYTES", 7 * 32**2 * 4)
    source = dataset.scenes("train", config(tmp_path))
    assert len(list(tmp_path.glob("*/*train*"))) == 2
    for index in range(len(source)):
        assert_equal(source[index], renderer.render(PLAIN, "train", index))


def test_the_cache_knows_its_settings(tmp_path, monkeypatch):
    made = []
    build = rendered._build
    monkeypatch.setattr(rendered, "_build", lambda *args: made.append(args) or build(*args))
    dataset.scenes("train", config(tmp_path))
    dataset.scenes("test", config(tmp_path))
    assert len(made) == 1
    for changed in (config(tmp_path, label_noise=0.5), config(tmp_path, size=33)):
        dataset.scenes("test", changed)
    assert len(made) == 3
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path))
    dataset.scenes("test", config(""))
    assert len(made) == 3


@pytest.mark.parametrize(
    ("split", "changes", "words"),
    [
        ("dev", {}, "split of scenes must be one of train, validation, test; got 'dev'"),
        ("train", {"size": 31}, "data.size must be 32 to 224 pixels for scenes; got 31"),
        ("train", {"size": 225}, "32 to 224 .* got 225"),
        ("train", {"color": 1.1}, "data.scenes.color must be between 0 and 1; got 1.1"),
        ("train", {"label_noise": -0.1}, "label_noise must be between 0 and 1; got -0.1"),
        ("train", {"background": float("nan")}, "data.scenes.background must .* got nan"),
        ("train", {"test": 0}, "data.scenes.test must be an integer of at least 1; got 0"),
        ("train", {"seed": -1}, "data.scenes.seed must not be negative; got -1"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(tmp_path, split, changes, words):
    with pytest.raises(ValueError, match=words):
        dataset.scenes(split, config(tmp_path, **changes))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"cannot write the scenes to .*file"):
        dataset.scenes("train", config(file))


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"need \d+ MB and .* has \d+ MB free"):
        dataset.scenes("train", config(tmp_path, train=10**9))

    def full(builder):
        pathlib.Path(builder.data_dir).mkdir(parents=True)
        raise RuntimeError("write() failed: No space left on device; and much more")

    monkeypatch.setattr(dataset.Scenes, "download_and_prepare", full)
    with pytest.raises(ValueError, match=r"No space left on device; set data\.dir"):
        dataset.scenes("train", config(tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_render_leaves_no_half_set(tmp_path):
    stall = "rendered._reported = lambda scenes, report: (time.sleep(600) for scene in scenes)"
    process = start("-c", script(tmp_path, PLAIN, stall))
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*.partial/*/*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert {path.suffix for path in tmp_path.iterdir()} == {".partial", ".lock"}
    # The lock is free again, and what is left over neither hinders nor stays.
    assert_equal(dataset.scenes("train", config(tmp_path))[0], renderer.render(PLAIN, "train", 0))
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".lock"}


def test_two_processes_that_ask_at_once_render_once(tmp_path):
    slowly = (
        "build = rendered._build\n"
        "rendered._build = lambda *args: (print('building'), time.sleep(2), build(*args))"
    )
    processes = [start("-c", script(tmp_path, PLAIN, slowly)) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    said = "".join(output for output, _ in outputs)
    assert (said.count("building"), said.count("ready")) == (1, 2)


@pytest.mark.parametrize("way", ["stdin", "unguarded script"])
def test_rendering_in_many_processes_needs_no_importable_main(tmp_path, way):
    text = script(tmp_path / "cache", replace(PLAIN, train=200))
    if way == "stdin":
        process = start("-", stdin=subprocess.PIPE)
        output, errors = process.communicate(text, timeout=120)
    else:
        (tmp_path / "program.py").write_text(text)
        process = start(str(tmp_path / "program.py"))
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("ready") == 1
