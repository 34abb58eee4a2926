"""Results that are kept in files: made once, made again for other settings and after damage."""

import dataclasses

import numpy as np
import pytest

from mixaug_jax.core import files, stored


@dataclasses.dataclass
class Kept:
    arrays: dict
    settings: dict


def load(path):
    return files.load_npz(path, Kept, "a result")


def save(result, path):
    files.save_npz(path, result.arrays, result.settings)


@pytest.fixture
def ask(tmp_path):
    """ask(settings) -> the array that was found or made, and whether it is new."""
    made = []

    def of(settings):
        def make():
            made.append(settings)
            return Kept({"a": np.array([len(made)])}, settings)

        path = tmp_path / "kept.npz"
        found, new = stored.keep(path, settings, load=load, make=make, save=save)
        return int(found.arrays["a"][0]), new

    return of


def test_made_once_for_the_same_settings(ask):
    assert [ask({"seed": 0}), ask({"seed": 0})] == [(1, True), (1, False)]
    assert [ask({"seed": 1}), ask({"seed": 0})] == [(2, True), (3, True)]


def test_made_again_after_damage(ask, tmp_path, capsys):
    ask({"seed": 0})
    path = tmp_path / "kept.npz"
    path.write_bytes(path.read_bytes()[:-40])
    assert ask({"seed": 0}) == (2, True)
    assert "it is made again" in capsys.readouterr().out
    assert ask({"seed": 0}) == (2, False)
