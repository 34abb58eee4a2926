"""Animals in their folder: read as rendered, in pairs that differ in one attribute, and in the settings of augmentations."""

import dataclasses
import pathlib

import ml_collections
import numpy as np
import pytest

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.config.opening import open_config
from mixaug_jax.data.animals import animal_pairs, animal_scenes, animal_set
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES

FEW = animal_scenes.Settings(32, 0, "study", "released", 0.5, 6, 3, 4)
CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "configs").glob("*.py"))


def config(folder, size=32, **changes):
    keys = dataclasses.asdict(FEW) | changes
    del keys["size"]
    return ml_collections.ConfigDict(
        {"data": {"name": "animals", "size": size, "dir": str(folder), "animals": keys}}
    )


def test_what_is_read_is_what_was_rendered(tmp_path):
    for split in animal_scenes.SPLITS:
        source = data.open_source(split, config(tmp_path))
        assert len(source) == getattr(FEW, split)
        assert source.class_names == ("peaky", "stretchy")
        for index in range(len(source)):
            found, made = source[index], animal_scenes.render(FEW, split, index)
            for name in ("image", "label", "parts", "boxes", "box_labels", "attributes"):
                np.testing.assert_array_equal(found[name], made[name])
            names = [source.concept_names[n] for n in np.unique(found["concepts"][..., 1])]
            assert [n for n, _ in names] == [source.part_names[n] for n in np.unique(made["parts"])]
            assert {kind for _, kind in names} == {"none", "part"}
            np.testing.assert_array_equal(found["concepts"][..., 0], made["parts"] > 0)
            (top, left, bottom, right), inside = found["boxes"][0].astype(int), made["parts"] > 0
            assert inside[top:bottom, left:right].sum() == inside.sum()
    bare = data.SOURCES["animals"]("test", config(tmp_path), annotations=False)
    assert bare[1].keys() == {"image", "label"}
    assert len(list(tmp_path.glob("animals-32px-6-seed0-*"))) == 2  # and its lock


def test_an_animal_outside_of_the_picture_has_no_box():
    gone = dataclasses.replace(animal_scenes.animal(FEW, "train", 0), position_x=30.0)
    made = animal_scenes.drawn(gone, 32, "study")
    assert made["boxes"].shape == (0, 4)
    assert not made["parts"].any()


@pytest.fixture(scope="module", params=("independent", "released"))
def pairs(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return request.param, folder, animal_set.pairs(config(folder), "test", request.param, 5)


def test_pairs_differ_in_what_was_drawn_again(pairs):
    _, folder, found = pairs
    assert [*found] == ["original", *ATTRIBUTES, "colors_and_shape"]
    test = data.open_source("test", config(folder))
    for index in range(5):
        original = found["original"][index]
        if index < 4:  # of the split's own number; the fifth is beyond it
            for name, value in test[index].items():
                np.testing.assert_array_equal(original[name], value)
        for name, changed in animal_pairs.CHANGES.items():
            other = found[name][index]
            moved = [ATTRIBUTES[k] for k in np.flatnonzero(original["attributes"] != other["attributes"])]  # fmt: skip
            assert set(moved) == set(changed)
            assert other["label"] == original["label"]
            same = np.array_equal(other["image"], original["image"])
            assert same == (name == "original")
            if name in ("bg_color", "obj_color"):
                np.testing.assert_array_equal(original["parts"], other["parts"])


def test_more_scenes_begin_with_the_same(pairs):
    mode, folder, few = pairs
    more = animal_set.pairs(config(folder), "test", mode, 7)
    for name, source in few.items():
        assert len(source) == 5
        assert len(more[name]) == 7
        np.testing.assert_array_equal(source[4]["image"], more[name][4]["image"])


@pytest.mark.parametrize(
    ("split", "changes", "words"),
    [
        ("dev", {}, "the split of animals must be one of train, validation, test; got 'dev'"),
        ("test", {"size": 31}, "data.size must be 32 to 224 pixels for animals; got 31"),
        ("test", {"train": 0}, "data.animals.train must be an integer of at least 1; got 0"),
        ("test", {"seed": -1}, "data.animals.seed must not be negative; got -1"),
        ("test", {"label_noise": 2}, "data.animals.label_noise must be between 0 and 1; got 2"),
        ("test", {"sampler": "medvar_colour"}, r"sampler must be one of plain, .*did you mean 'medvar_color'"),
        ("test", {"ranges": "wide"}, "data.animals.ranges must be one of released, intended; got 'wide'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_in_a_sentence(tmp_path, split, changes, words):
    with pytest.raises(ValueError, match=words):
        data.open_source(split, config(tmp_path, **changes))


def test_wrong_pairs_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="mode must be one of independent, released; got 'both'"):
        animal_set.pairs(config(tmp_path), "test", "both", 5)
    with pytest.raises(ValueError, match="count must be an integer of at least 1; got 0"):
        animal_set.pairs(config(tmp_path), "test", "released", 0)


def test_every_augmentation_takes_animals():
    from_a_paper = {"attribution_table", "taylor_study", "rendergan", "released", "relevance"}
    augmentations = [path for path in CONFIGS if path.stem not in from_a_paper]
    assert len(augmentations) > 10
    for path in augmentations:
        settings = open_config(f"{path}:animals")
        config_lib.check(settings)
        assert settings.data.animals.sampler == "study"
        assert not settings.data.flip
