"""Scenes on disk that are damaged: rendered again, or named with the folder to remove."""

import pathlib

import numpy as np
import pytest
from scene_cases import PLAIN, assert_equal
from test_scenes_on_disk import config

from mixaug_jax.core import files
from mixaug_jax.data import rendered
from mixaug_jax.data.scenes import dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(root):
    return rendered.prepare(dataset.Scenes, PLAIN, root)


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "flipped": lambda content: content[:30] + bytes([content[30] ^ 1]) + content[31:],
    "list": lambda content: b"[]",
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("features.json", "flipped"), ("dataset_info.json", "cut"), ("label.labels.txt", "empty")],
)
def test_what_describes_them_is_made_again(name, kind, root, folder, capsys):
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(DAMAGE[kind](before))
    source = dataset.scenes("test", config(root))
    assert "are damaged; they are rendered again" in capsys.readouterr().out
    assert (folder / name).read_bytes() == before
    assert len(source) == PLAIN.test


def read_all(root):
    source = dataset.scenes("test", config(root))
    return [source[index] for index in range(len(source))]


@pytest.mark.parametrize("kind", DAMAGE)
def test_records_are_named_with_the_folder_to_remove(kind, root, folder):
    (path,) = folder.glob("*test.array_record*")
    before, good = path.read_bytes(), dataset.scenes("test", config(root))[0]
    content = bytearray(before)
    used = np.flatnonzero(np.frombuffer(before, np.uint8))  # a file is padded with zeros
    content[used[len(used) // 2]] ^= 4
    path.write_bytes(content if kind == "flipped" else DAMAGE[kind](before))
    said = rf"the scenes in {pathlib.Path(folder)} are damaged \(.*\); remove that folder, and they"
    with pytest.raises(files.DamagedError, match=said):
        read_all(root)
    path.write_bytes(before)
    assert_equal(dataset.scenes("test", config(root))[0], good)
