"""A folder of pictures as a data set: layout, order, damage, annotations."""

import json
import os
import zipfile

import ml_collections
import numpy as np
import PIL.Image
import pytest

from mixaug_jax import data
from mixaug_jax.core import say
from mixaug_jax.data import transforms


def config(root, corrupt="error"):
    section = {"name": "folder", "dir": str(root), "corrupt": corrupt, "threads": 2}
    splits = {"train_split": "train", "validation_split": "validation", "test_split": ""}
    return ml_collections.ConfigDict({"seed": 0, "data": section | splits})


def picture(path, *, size=(9, 7), seed=0, mode="RGB"):
    """Saves a random picture and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image = PIL.Image.fromarray(pixels).convert(mode)
    image.save(path)
    return image


@pytest.fixture
def root(tmp_path):
    for split, names in {"train": ("dog", "cat", "ant"), "val": ("cat",)}.items():
        for name in names:
            for number in (2, 10, 1):
                picture(tmp_path / split / name / f"{number}.png", seed=number)
    return tmp_path


def annotate(root, notes, concepts=None):
    (root / "annotations.json").write_text(json.dumps(notes))
    if concepts is not None:
        (root / "concepts.json").write_text(json.dumps(concepts))


def test_order_labels_and_pixels(root):
    source = data.SOURCES["folder"]("train", config(root))
    assert source.class_names == ("ant", "cat", "dog")
    assert (source.concept_names, source.box_names) == ((), ())
    assert [source[i]["label"] for i in range(len(source))] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for index, number in enumerate((1, 10, 2) * 3):  # sorted as names
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)
        np.testing.assert_array_equal(source[index]["image"], pixels)
        assert set(source[index]) == {"image", "label"}


def test_validation_has_trains_classes(root):
    source = data.SOURCES["folder"]("validation", config(root))
    assert source.class_names == ("ant", "cat", "dog")
    assert [example["label"] for example in source] == [1, 1, 1]
    (root / "val").rename(root / "validation")
    assert len(data.SOURCES["folder"]("validation", config(root))) == 3


def test_open_splits(root):
    sources = data.open_splits(config(root))
    assert {name: source and len(source) for name, source in sources.items()} == {
        "train": 9,
        "validation": 3,
        "test": None,
    }


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "Bmp", "WEBP"])
def test_suffixes_in_any_case(root, suffix):
    picture(root / "train" / "cat" / f"0.{suffix}", size=(40, 30))
    source = data.open_source("train", config(root))
    assert len(source) == 10
    assert source[3]["image"].shape == (40, 30, 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(root, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    path = root / "train" / "ant" / f"0.{suffix}"
    if mode == "I;16":
        deep = np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000
        PIL.Image.fromarray(deep).save(path)
        expected = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    else:
        saved = picture(path, mode=mode)
        if mode == "CMYK":
            saved = PIL.Image.open(path)
        expected = np.asarray(saved.convert("RGB"))
    image = data.open_source("train", config(root))[0]["image"]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def test_palette_with_transparency(root):
    image = picture(root / "train" / "ant" / "0.png", mode="P")
    image.save(root / "train" / "ant" / "0.png", transparency=bytes(range(256)))
    pixels = data.open_source("train", config(root))[0]["image"]
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_other_files_are_ignored_and_counted(root, monkeypatch, capsys):
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"x")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "readme.txt").write_text("x")
    monkeypatch.setitem(say._console, "verbosity", say.EVERYTHING)
    assert len(data.open_source("train", config(root))) == 9
    assert "train: 9 images, other entries ignored: 1\n" in capsys.readouterr().out


def broken(root, change, error):
    change(root)
    with pytest.raises(ValueError, match=error) as caught:
        data.open_splits(config(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


LAYOUT = r".*data\.dir must hold train/<class>/<image>\.jpg"


def remove(path):
    for inner in sorted(path.rglob("*"), reverse=True):
        inner.rmdir() if inner.is_dir() else inner.unlink()
    path.rmdir()


def test_layout_errors(root):
    with pytest.raises(ValueError, match=r"data\.dir is empty" + LAYOUT):
        data.open_source("train", config(""))
    with pytest.raises(ValueError, match="nowhere is no folder" + LAYOUT):
        data.open_source("train", config(root / "nowhere"))
    with pytest.raises(ValueError, match="must be one of train, validation, test; got 'val'"):
        data.open_source("val", config(root))
    with pytest.raises(ValueError, match=r"no folder test" + LAYOUT + r'.*data\.test_split=""'):
        data.open_source("test", config(root))
    message = broken(root, lambda root: (root / "val" / "cow").mkdir(), "cow is a class that")
    assert str(root / "train") in message
    broken(root, lambda root: (root / "train" / "cow").mkdir(), "train/cow has no images")
    picture(root / "train" / "cow" / "1.png")
    broken(root, lambda root: remove(root / "val"), "no folder val or validation" + LAYOUT)
    (root / "val").mkdir()
    broken(root, lambda root: remove(root / "train" / "cow"), "val has no class folders")
    broken(root, lambda root: remove(root / "train"), "no folder train" + LAYOUT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder(root):
    (root / "train" / "cat").chmod(0)
    try:
        broken(root, lambda root: None, "train/cat cannot be read: Permission denied")
    finally:
        (root / "train" / "cat").chmod(0o700)


DAMAGES = {
    "cut.jpg": lambda whole: whole[: len(whole) // 2],
    "cut.png": lambda whole: whole[: len(whole) // 2],
    "cut.webp": lambda whole: whole[: len(whole) // 2],
    "empty.jpg": lambda whole: b"",
    "page.jpg": lambda whole: b"<html>not found</html>",
}


def damage(root, name):
    path = root / "train" / "cat" / name
    picture(path, size=(64, 64))
    path.write_bytes(DAMAGES[name](path.read_bytes()))
    return path


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_image_is_refused_by_name(root, name):
    path = damage(root, name)
    with pytest.raises(ValueError, match=r'damaged in all\);.*data\.corrupt="skip"') as caught:
        data.open_splits(config(root))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_image_is_left_out_by_name(root, name, capsys):
    path = damage(root, name)
    source = data.open_splits(config(root, corrupt="skip"))["train"]
    assert len(source) == 9
    said = capsys.readouterr().err
    assert said.startswith("warning: ")
    assert said.endswith("; it is left out\n")
    assert said.count("\n") == 1
    assert str(path) in said


def test_damage_that_only_decoding_shows(root, capsys):
    path = root / "train" / "cat" / "10.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])  # its end is in place
    source = data.open_source("train", config(root))
    with pytest.raises(ValueError, match=r"cat/10\.png cannot be read as an image"):
        source[4]
    source = data.open_source("train", config(root, corrupt="skip"))
    for _ in range(2):
        example = source[4]
    np.testing.assert_array_equal(example["image"], source[5]["image"])
    assert example["label"] == source[5]["label"]
    said = capsys.readouterr().err
    assert said.startswith("warning: ")
    assert said.count(str(path)) == 1


def test_nothing_readable(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 images in .*train can be read"):
        data.open_source("train", config(tmp_path, corrupt="skip"))
    picture(tmp_path / "train" / "cat" / "1.jpg")
    with pytest.raises(ValueError, match=r"data\.corrupt must be one of error, skip; got 'never'"):
        data.open_source("train", config(tmp_path, corrupt="never"))


def test_jpeg_with_a_trailer_is_whole(root):
    path = root / "train" / "cat" / "0.jpg"
    picture(path)
    path.write_bytes(path.read_bytes() + bytes(100))
    assert len(data.open_source("train", config(root))) == 10


def test_boxes(root):
    annotate(
        root,
        {
            "train/cat/1.png": {"boxes": [["cat", 1, 2, 4.5, 7], ["tail", 0, 0, 1, 1]]},
            "val/cat/1.png": {"boxes": []},
        },
    )
    source = data.open_source("train", config(root))
    assert source.box_names == ("ant", "cat", "dog", "tail")
    np.testing.assert_allclose(source[3]["boxes"], [[1, 2, 4.5, 7], [0, 0, 1, 1]])
    np.testing.assert_array_equal(source[3]["box_labels"], [1, 3])
    assert (source[3]["boxes"].dtype, source[3]["box_labels"].dtype) == (np.float32, np.int32)
    assert "boxes" not in source[4]
    assert data.open_source("validation", config(root))[0]["boxes"].shape == (0, 4)
    bare = data.open_source("train", config(root), annotations=False)
    assert set(bare[3]) == {"image", "label"}
    assert bare.box_names == ()


CONCEPTS = {"1": ["cat", "object"], "3": ["grass", "material"]}


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "RGB", "LA"])
def test_masks(root, mode):
    slots = {"RGB": 3, "LA": 2}.get(mode, 1)
    high = 1 if mode == "1" else 300 if mode == "I;16" else 3
    numbers = np.random.default_rng(0).integers(0, 2, (9, 7, slots)) * high
    if mode == "1":
        image = PIL.Image.fromarray(numbers[..., 0].astype(bool))
    elif mode == "I;16":
        image = PIL.Image.fromarray(numbers[..., 0].astype(np.uint16))
    elif mode == "P":
        image = PIL.Image.fromarray(numbers[..., 0].astype(np.uint8))
        image.putpalette(list(range(255, -1, -1)) * 3)
    else:
        image = PIL.Image.fromarray(numbers.astype(np.uint8).squeeze())
    image.save(root / "mask.png")
    annotate(root, {"train/cat/1.png": {"mask": "mask.png"}}, CONCEPTS | {"300": ["sky", "object"]})
    source = data.open_source("train", config(root))
    concepts = source[3]["concepts"]
    np.testing.assert_array_equal(concepts, numbers)
    assert concepts.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    assert len(source.concept_names) == 301
    assert source.concept_names[:4] == (
        ("none", "none"),
        ("cat", "object"),
        ("none", "none"),
        ("grass", "material"),
    )
    assert "concepts" not in source[4]


def save_mask(root, name, array):
    PIL.Image.fromarray(np.asarray(array, np.uint8)).save(root / name)


def test_masks_that_do_not_fit(root):
    save_mask(root, "small.png", np.zeros((7, 9)))
    save_mask(root, "stranger.png", np.full((9, 7), 2))
    save_mask(root, "deep.png", np.zeros((9, 7, 3)))
    (root / "broken.png").write_bytes(b"x")
    for name, error in {
        "small.png": r"mask .*small\.png is 7 x 9 .* image is 9 x 7",
        "stranger.png": r"stranger\.png has the number 2, which concepts\.json lacks",
        "deep.png": r"deep\.png is 9 x 7 with 3 channels.*first mask has 1",
        "broken.png": r"mask .*broken\.png cannot be read",
        "missing.png": r"mask .*missing\.png cannot be read",
    }.items():
        save_mask(root, "right.png", np.zeros((9, 7)))
        notes = {"train/ant/1.png": {"mask": "right.png"}, "train/cat/1.png": {"mask": name}}
        annotate(root, notes, CONCEPTS)
        source = data.open_source("train", config(root))
        assert source[0]["concepts"].shape == (9, 7, 1)
        with pytest.raises(ValueError, match=error):
            source[3]


@pytest.mark.parametrize(
    ("notes", "error"),
    [
        ({"train/cat/7.png": {"boxes": []}}, r"names train/cat/7\.png, which is not in"),
        ({"train/cat/1.png": {"box": []}}, "must be an object with boxes, mask or both"),
        ({"train/cat/1.png": {"boxes": [["cat", 5, 0, 1, 1]]}}, "row0 < row1"),
        ({"train/cat/1.png": {"boxes": [["cat", 0, 0, 1]]}}, "a box is"),
        ({"train/cat/1.png": {"boxes": [[1, 0, 0, 1, 1]]}}, "a box is"),
        ({"train/cat/1.png": {"mask": 3}}, "must be the path of a PNG"),
        ({"train/cat/1.png": {"mask": "m.png"}}, r"no concepts\.json"),
        ([], "one JSON object"),
    ],
)
def test_annotations_that_are_wrong(root, notes, error):
    annotate(root, notes)
    with pytest.raises(ValueError, match=error):
        data.open_source("train", config(root))


@pytest.mark.parametrize(
    "concepts", [{"0": ["a", "b"]}, {"x": ["a", "b"]}, {"1": "cat"}, {"70000": ["a", "b"]}]
)
def test_concepts_that_are_wrong(root, concepts):
    annotate(root, {}, concepts)
    with pytest.raises(ValueError, match=r"concepts\.json: .* must be"):
        data.open_source("train", config(root))


def test_broken_json(root):
    (root / "annotations.json").write_text("{")
    with pytest.raises(ValueError, match=r"annotations\.json cannot be read as JSON"):
        data.open_source("train", config(root))


def test_box_outside_the_image(root):
    annotate(root, {"train/cat/1.png": {"boxes": [["cat", 0, 0, 7, 9]]}})
    with pytest.raises(ValueError, match=r"9 rows and 7 columns, and a box outside"):
        data.open_source("train", config(root))[3]


def test_real_photos(photographs, tmp_path):
    """Pet photos with head boxes and trimaps: a head's box holds little of the ground."""
    archive = zipfile.ZipFile(photographs("pets600.zip"))
    labels = json.loads(archive.read("labels.json"))
    headed = [name for name, label in sorted(labels.items()) if "head_box" in label][::40]
    notes = {}
    for name in headed:
        path = tmp_path / "train" / labels[name]["class"] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read(f"images/{name}.jpg"))
        (tmp_path / f"{name}.png").write_bytes(archive.read(f"masks/{name}.png"))
        col0, row0, col1, row1 = labels[name]["head_box"]
        note = {"boxes": [["head", row0, col0, row1, col1]], "mask": f"{name}.png"}
        notes[path.relative_to(tmp_path).as_posix()] = note
    concepts = {"1": ["animal", "object"], "2": ["ground", "part"], "3": ["border", "part"]}
    annotate(tmp_path, notes, concepts)
    source = data.open_source("train", config(tmp_path))
    assert len(source) == len(headed) > 5
    for example in source:
        example = transforms.evaluation(example, 64, 256 / 224)
        for row0, col0, row1, col1 in example["boxes"].round().astype(int):
            head = example["concepts"][row0:row1, col0:col1]
            assert (head == 2).mean() < 0.5
        assert example["concepts"].shape == (64, 64, 1)
