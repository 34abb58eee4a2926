"""The held markers: the same pixels for the same settings, drawn as their labels say, and crops of real photographs."""

import dataclasses
import math

import ml_collections
import numpy as np
import PIL.Image
import pytest
from scene_cases import assert_equal

from mixaug_jax import data
from mixaug_jax.config import get_config
from mixaug_jax.data import farm
from mixaug_jax.data.markers import held_scene, held_set

FEW = held_scene.Settings(24, 0, math.pi / 4, 5, 7, 3, 4)


def config(folder, size=24, **changes):
    keys = dataclasses.asdict(FEW) | {"crops": ""} | changes
    del keys["size"], keys["content"]
    return ml_collections.ConfigDict(
        {"data": {"name": "markers", "size": size, "dir": str(folder), "markers": keys}}
    )


def test_any_number_of_processes_renders_the_same():
    settings = dataclasses.replace(FEW, unlabeled=40)
    alone, two = (list(farm.render_all(settings, processes=n)) for n in (0, 2))
    assert len(alone) == len(two) == 54
    for left, right in zip(alone, two, strict=True):
        assert_equal(left, right)
    assert_equal(alone[41], held_scene.render(settings, "labeled", 1))


def test_what_is_read_is_what_was_rendered(tmp_path):
    for split in held_scene.SPLITS:
        source = data.open_source(split, config(tmp_path))
        assert len(source) == getattr(FEW, split)
        assert source.multi_label
        for index in range(len(source)):
            found, made = source[index], held_scene.render(FEW, split, index)
            np.testing.assert_array_equal(found["image"], made["image"])
            np.testing.assert_array_equal(found["targets"], made["bits"])
            np.testing.assert_array_equal(found["parts"], made["parts"])
            assert (found["label"], found["zrot"]) == (index, made["zrot"])
            assert (found["weights"] == 1).all()
            maps = np.moveaxis(found["concepts"], -1, 0)
            names = [[source.concept_names[n] for n in np.unique(m)] for m in maps]
            assert {kind for _, kind in names[0]} <= {"none", "object"}
            assert [name for name, _ in names[1]] == [held_scene.PARTS[n] for n in np.unique(made["parts"])]  # fmt: skip
    bare = data.open_source("test", config(tmp_path))
    assert bare[1]["image"].shape == (24, 24, 1)
    bare = data.SOURCES["markers"]("test", config(tmp_path), annotations=False)
    assert bare[1].keys() == {"image", "label", "targets", "weights"}
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == ["", ".lock"]


def test_cells_are_as_light_as_their_bits_say():
    """In most pictures, of all that is seen of a picture's cells, a white one is lighter than a black one."""
    settings = dataclasses.replace(FEW, size=32, spin=math.pi)
    right = total = 0
    for index in range(40):
        made = held_scene.render(settings, "labeled", index)
        gray = made["image"][..., 0]
        level = [gray[made["parts"] == 4 + k] for k in range(12)]
        pairs = [(i, j) for i in range(12) for j in range(12) if made["bits"][i] > made["bits"][j]]
        pairs = [(i, j) for i, j in pairs if len(level[i]) > 3 and len(level[j]) > 3]
        right += sum(level[i].mean() > level[j].mean() for i, j in pairs)
        total += len(pairs)
    assert total > 500
    assert right / total > 0.85


def test_parts_lie_where_the_marker_is_turned_to():
    """The white half's middle is at zrot, clockwise from the right; cell 0 begins there."""
    settings = dataclasses.replace(FEW, size=48, spin=math.pi)
    off = []
    for index in range(30):
        made = held_scene.render(settings, "test", index)
        rows, cols = (np.nonzero(made["parts"] == part) for part in (2, 3))
        way = np.mean(rows, 1) - np.mean(cols, 1)  # from the black half to the white one
        off.append(np.angle(np.exp(1j * (math.atan2(*way) - made["zrot"]))))
        assert made["hidden"] >= -1e-2
        assert 0 <= made["light"] <= 1
    assert np.abs(off).mean() < 0.2
    assert {int(p) for p in np.unique(made["parts"])} >= set(range(1, 16))


def test_splits_and_seeds_differ(tmp_path):
    pictures = {
        (split, seed): held_scene.render(dataclasses.replace(FEW, seed=seed), split, 0)["image"].tobytes()
        for split in held_scene.SPLITS
        for seed in (0, 1)
    }  # fmt: skip
    assert len(set(pictures.values())) == len(pictures)


def test_photographs_lie_behind(tmp_path):
    """Two of them, one black and one white: the first is the test split's alone."""
    for name, gray in (("a.png", 0), ("b.png", 255)):
        PIL.Image.new("L", (60, 50), gray).save(tmp_path / name)
    given = config(tmp_path / "cache", photos=str(tmp_path))
    settings = held_set._settings(given)
    assert settings.content
    # No part of a picture of the other splits is black but by a body, and none of the test split white but by the marker.
    rng = np.random.default_rng(0)
    photos = {split: held_scene._photo(settings, split, rng) for split in held_scene.SPLITS}
    assert {split: float(photo.mean()) for split, photo in photos.items()} == {
        "unlabeled": 1, "labeled": 1, "validation": 1, "test": 0}  # fmt: skip
    PIL.Image.new("L", (60, 50), 128).save(tmp_path / "b.png")
    assert held_set._settings(given).content != settings.content
    with pytest.raises(ValueError, match=r"data\.markers\.photos must be a folder with 2 .* has 0"):
        held_set._settings(config(tmp_path, photos=str(tmp_path / "none")))


def test_photographs_of_any_size_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for k in range(2):
        PIL.Image.new("L", (3, 9), 255).save(tmp_path / f"{k}.png")
    settings = held_set._settings(config(tmp_path / "cache", photos="~"))
    assert settings.photos == str(tmp_path)
    # A part of less than a pixel is one.
    photo = held_scene._photo(settings, "test", np.random.default_rng(0))
    np.testing.assert_array_equal(photo, np.ones((96, 96)))


def test_a_photograph_that_cannot_be_read_is_named(tmp_path):
    """Before anything is rendered: the one at fault lies behind the last split's markers alone."""
    for name in ("a.png", "b.png"):
        noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / name)
    stored = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(stored[: len(stored) // 2])
    words = r"^data\.markers\.photos: .*a\.png cannot be read as a picture; repair or remove it$"
    with pytest.raises(ValueError, match=words):
        data.open_source("unlabeled", config(tmp_path / "cache", photos=str(tmp_path)))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("split", "changes", "words"),
    [
        ("train", {}, "the split of markers must be one of unlabeled, .*; got 'train'"),
        ("test", {"size": 15}, "data.size must be 16 to 128 pixels for markers; got 15"),
        ("test", {"labeled": 0}, "data.markers.labeled must be an integer of at least 1; got 0"),
        ("test", {"seed": -1}, "data.markers.seed must not be negative; got -1"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(tmp_path, split, changes, words):
    with pytest.raises(ValueError, match=words):
        data.open_source(split, config(tmp_path, **changes))


@pytest.fixture
def crops(tmp_path):
    (tmp_path / "unlabeled").mkdir()
    ramp = np.tile(np.arange(24, dtype=np.uint8) * 10, (24, 1))
    PIL.Image.fromarray(ramp).save(tmp_path / "unlabeled" / "u.png")
    PIL.Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    PIL.Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / "color.png")
    (tmp_path / "labels.csv").write_text(
        "file,bits,split\ndeep.png,01?000000001,test\ncolor.png,111111111111,labeled\n"
        "unlabeled/u.png,000000000000,validation\n"
    )
    return tmp_path


def test_real_crops(crops):
    given = config("", crops=str(crops))
    opened = {split: data.open_source(split, given) for split in held_scene.SPLITS}
    assert [len(source) for source in opened.values()] == [1, 1, 1, 1]
    for source in opened.values():  # of 16 bits, in color, gray: the same gray
        np.testing.assert_array_equal(source[0]["image"][0, :, 0], np.arange(24) * 10)
    example = opened["test"][0]
    np.testing.assert_array_equal(example["targets"], [0, 1, 0] + [0] * 8 + [1])
    np.testing.assert_array_equal(example["weights"], [1, 1, 0] + [1] * 9)
    assert opened["test"].file_name(0) == "deep.png"
    assert (opened["unlabeled"][0]["weights"] == 0).all()


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        ("file,bits\ndeep.png,01010101010\n", "test", r"line 2: bits must be 12 characters of 0, 1 and \?; got '01010101010'"),
        ("file,bits\ndeep.png,01010101010x\n", "test", r"line 2: bits must be 12 .*; got '01010101010x'"),
        ("name,bits\n", "test", "must begin with file,bits or file,bits,split"),
        ("file,bits,split\ndeep.png,010101010101,dev\n", "test", "line 2: split must be one of labeled"),
        ("file,bits,split\ngone.png,010101010101,test\n", "test", r"gone\.png cannot be read"),
        ("file,bits\n", "test", r"has no rows of test in labels\.csv"),
    ],
)  # fmt: skip
def test_labels_that_are_none(crops, change, split, words):
    (crops / "labels.csv").write_text(change)
    with pytest.raises(ValueError, match=words):
        data.open_source(split, config("", crops=str(crops)))


def test_crops_of_another_size_or_none(crops):
    with pytest.raises(ValueError, match=r"24 x 24 pixels, and data\.size is 32"):
        data.open_source("unlabeled", config("", size=32, crops=str(crops)))
    (crops / "unlabeled" / "u.png").unlink()
    with pytest.raises(ValueError, match=r"has no unlabeled/\*\.png"):
        data.open_source("unlabeled", config("", crops=str(crops)))


def test_a_file_name_decides_its_split(crops):
    names = [f"{k}.png" for k in range(60)]
    for name in names:
        PIL.Image.new("L", (24, 24)).save(crops / name)
    rows = "".join(f"{name},000000000000\n" for name in names)
    (crops / "labels.csv").write_text("file,bits\n" + rows)
    given = config("", crops=str(crops))
    found = {s: data.open_source(s, given) for s in held_scene.SPLITS[1:]}
    files = [source.file_name(i) for source in found.values() for i in range(len(source))]
    assert sorted(files) == sorted(names)
    assert len(found["labeled"]) > len(found["test"]) > 5


def test_a_decoder_is_trained_on_them(tmp_path):
    import mixaug_jax

    given = get_config("cutmix", "markers")
    given.data.dir = str(tmp_path / "cache")
    given.data.update(size=16, batch_size=16)
    given.data.markers.update(unlabeled=1, labeled=64, validation=8, test=16)
    given.train.update(steps=3, log_every=1)
    given.model.width = 0.25
    given.eval.batch_size = 8
    result = mixaug_jax.train(given, tmp_path / "run")
    assert 0.2 < result["test_accuracy"] < 0.8  # of bits, after three steps
    net = mixaug_jax.load(tmp_path / "run")
    assert net.layers == ("conv1", "layer1", "layer2", "layer3", "hidden", "fc")
