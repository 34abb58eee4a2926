"""Folders of ImageNet's classes beside a network of all of them: by number, by name, and what is neither."""

import numpy as np
import pytest

from mixaug_jax.core import say
from mixaug_jax.data.source import Source, numbered_as
from mixaug_jax.models import imagenet


def source(*names):
    image = np.zeros((4, 4, 3), np.uint8)
    return Source(lambda i: {"image": image, "label": i}, len(names), names)


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    monkeypatch.setitem(say._console, "said", set())


@pytest.mark.parametrize(
    ("names", "how"),
    [
        (("n01440764", "n01443537"), "WordNet numbers: n01440764 is tench, number 0"),
        (("tench", "goldfish"), "names: tench is n01440764, number 0"),
        (("Tinca_tinca", "Carassius auratus"), "names: Tinca_tinca is n01440764, number 0"),
        (("tench, Tinca tinca", "n01443537"), "names"),
    ],
)
def test_labels_are_those_of_the_network(names, how, capsys):
    found = numbered_as(source(*names), imagenet.CLASSES)
    assert [found[k]["label"] for k in range(2)] == [0, 1]
    assert found.class_names == imagenet.wnids()
    assert f"2 classes are classes of ImageNet by their {how}" in capsys.readouterr().out


def test_a_word_of_two_classes_names_none(capsys):
    """A crane is a bird and a machine."""
    given = source("crane", "goldfish")
    assert numbered_as(given, imagenet.CLASSES) is given
    assert "1 of 2 are not, such as crane" in capsys.readouterr().out
    assert numbered_as(given, 5) is given
    assert capsys.readouterr().out == ""


def test_all_of_them_in_another_order():
    given = source(*imagenet.wnids()[::-1])
    assert numbered_as(given, imagenet.CLASSES)[0]["label"] == 999
    plain = source(*imagenet.wnids())
    assert numbered_as(plain, imagenet.CLASSES) is plain
