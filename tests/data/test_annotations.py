"""Annotations of a folder: what they give, and that everything wrong in them is said at once."""

import json
import os
import zipfile

import numpy as np
import PIL.Image
import pytest
from own_folder import annotate, config, picture, save_mask, write_pictures

from mixaug_jax import data, main, training
from mixaug_jax.config import get_config
from mixaug_jax.core import files, say
from mixaug_jax.data import annotations, transforms


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(folder))
    monkeypatch.setitem(say._console, "said", set())
    return folder


@pytest.fixture
def root(tmp_path):
    write_pictures(tmp_path)
    return tmp_path


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


def refused(root, *sentences, **change):
    """Opening train for a training alone says all of them at once, in one line."""
    with pytest.raises(ValueError, match=sentences[0]) as caught:
        data.open_source("train", config(root, **change), annotations=False)
    for sentence in sentences:
        assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


NOTES = {"train/ant/1.png": {"mask": "right.png"}, "train/cat/1.png": {"mask": "b.png"}}
MASKS = {
    "small": (np.zeros((7, 9)), "masks of another size than their picture's: 1, such as"),
    "stranger": (
        np.full((9, 7), 2),
        "masks with a number that concepts.json lacks: 1, such as 2 in",
    ),
    "deep": (
        np.zeros((9, 7, 3)),
        "masks with another number of channels than the first: 1, such as",
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_that_do_not_fit(root, kind):
    save_mask(root, "right.png", np.zeros((9, 7)))
    save_mask(root, "b.png", MASKS[kind][0])
    annotate(root, NOTES, CONCEPTS)
    refused(root, MASKS[kind][1], f"{root}/b.png")


def test_masks_that_cannot_be_read(root):
    save_mask(root, "right.png", np.zeros((9, 7)))
    annotate(root, NOTES, CONCEPTS)
    refused(root, "masks that are missing: 1, such as b.png of train/cat/1.png")
    (root / "b.png").write_bytes(b"x")
    refused(root, "masks that cannot be read: 1, such as mask ", "b.png cannot be read")
    picture(root / "b.jpg", mode="L")
    annotate(root, {"train/cat/1.png": {"mask": "b.jpg"}})
    refused(root, "b.jpg cannot be read as an image: it is JPEG of mode L; numbers are kept by PNG")
    PIL.Image.fromarray(np.full((9, 7), 70000, np.int32)).save(root / "b.tif")
    annotate(root, {"train/cat/1.png": {"mask": "b.tif"}})
    refused(root, "b.tif has a number beyond 65535")


def test_all_faults_are_said_at_once_with_their_numbers(root):
    save_mask(root, "big.png", np.zeros((99, 7)))
    save_mask(root, "odd.png", np.full((9, 7), 77))
    notes = {f"train/{name}/1.png": {"boxes": [["cat", 0, 0, 7, 9]]} for name in ("ant", "dog")}
    notes["train/cat/1.png"] = {
        "boxes": [["cat", 0, 0, 1, 1], ["cat", -5, 0, 1, 1]],
        "mask": "big.png",
    }
    notes["train/cat/2.png"] = notes["train/cat/10.png"] = {"mask": "odd.png"}
    annotate(root, notes, CONCEPTS)
    refused(
        root,
        "boxes outside of their pictures",
        "[row0, col0, row1, col1]: 3, such as ['cat', 0, 0, 7, 9] of train/ant/1.png with 9 rows and 7 columns; ",
        "masks of another size than their picture's: 1, such as ",
        "masks with a number that concepts.json lacks: 2, such as 77 in ",
    )


WRONG = [
    ({"train/cat/7.png": {"boxes": []}}, "names of no picture in", "1, such as train/cat/7.png"),
    ({"../x.png": {}}, "names of no picture in", "such as ../x.png"),
    ({"train/cat/1.png": {}, "train/./cat/1.png": {}}, "pictures under two names: 1, such as train/cat/1.png and"),
    ({"train/cat/1.png": {"box": []}}, "entries that are no object with boxes, mask or parts: 1"),
    ({"train/cat/1.png": {"boxes": [["cat", 5, 0, 1, 1]]}}, "boxes that are not [name, row0,", "row0 < row1"),
    ({"train/cat/1.png": {"boxes": [["cat", 0, 0, 1]]}}, "boxes that are not [name,"),
    ({"train/cat/1.png": {"boxes": [[1, 0, 0, 1, 1]]}}, "boxes that are not [name,"),
    ({"train/cat/1.png": {"boxes": [["cat", 0, 0, float("nan"), 1]]}}, "boxes that are not [name,"),
    ({"train/cat/1.png": {"boxes": [["cat", 0, 0, float("inf"), 1]]}}, "boxes that are not [name,"),
    ({"train/cat/1.png": {"boxes": [["cat", 0, 0, 10**400, 1]]}}, "boxes that are not [name,"),
    ({"train/cat/1.png": {"boxes": [["cat", False, 0, True, 1]]}}, "boxes that are not [name,"),
    ({"train/cat/1.png": {"boxes": None}}, "boxes that are not [name,", "None of train/cat/1.png"),
    ({"train/cat/1.png": {"mask": 3}}, "masks that are not the path of a PNG: 1"),
    ([], "one JSON object"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_annotations_that_are_wrong(root, number):
    notes, *sentences = WRONG[number]
    annotate(root, notes)
    with pytest.raises(ValueError, match=r"annotations\.json") as caught:
        data.open_source("train", config(root))
    for sentence in sentences:
        assert sentence in str(caught.value)


def test_masks_without_names(root):
    save_mask(root, "m.png", np.zeros((9, 7)))
    annotate(root, {"train/cat/1.png": {"mask": "m.png"}})
    refused(root, "annotations.json has masks, but there is no concepts.json")


def test_the_same_name_twice_in_json(root):
    (root / "annotations.json").write_text('{"train/cat/1.png": {}, "train/cat/1.png": {}}')
    refused(root, "annotations.json cannot be read as JSON: it has 'train/cat/1.png' twice")


def test_masks_outside_of_the_folder(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("masks")
    save_mask(elsewhere, "m.png", np.ones((9, 7)))
    for name in (str(elsewhere / "m.png"), os.path.relpath(elsewhere / "m.png", root)):
        annotate(root, {"train/cat/1.png": {"mask": name}}, CONCEPTS)
        refused(
            root,
            "masks outside of the folder, which only data.outside=True allows: 1, such as " + name,
        )
        source = data.open_source("train", config(root, outside=True))
        assert (source[3]["concepts"] == 1).all()
    annotate(root, {"train/cat/1.png": {"mask": "sub/../m.png"}}, CONCEPTS)
    save_mask(root, "m.png", np.ones((9, 7)))
    assert data.open_source("train", config(root))[3]["concepts"].all()


def test_what_is_not_labeled(root):
    """255, and the number that concepts.json calls void, unless 255 has a name."""
    mask = np.zeros((9, 7), np.uint8)
    mask[0], mask[1], mask[2] = 255, 7, 1
    save_mask(root, "m.png", mask)
    void = {"1": ["cat", "object"], "7": "void"}
    for concepts in (void, void | {"7": ["Void", "any"]}, void | {"0": "void"}):
        annotate(root, {"train/cat/1.png": {"mask": "m.png"}}, concepts)
        source = data.open_source("train", config(root))
        np.testing.assert_array_equal(source[3]["concepts"][..., 0], mask * (mask == 1))
        assert source.concept_names == (("none", "none"), ("cat", "object"))
    annotate(root, {"train/cat/1.png": {"mask": "m.png"}}, void | {"255": ["sky", "object"]})
    source = data.open_source("train", config(root))
    np.testing.assert_array_equal(source[3]["concepts"][..., 0], mask * (mask != 7))
    assert source.concept_names[255] == ("sky", "object")
    annotate(root, {"train/cat/1.png": {"mask": "m.png"}}, {"1": ["cat", "object"]})
    refused(root, "masks with a number that concepts.json lacks: 1, such as 7 in")


def test_pixels_are_read_once(root, cache, monkeypatch):
    for name in ("m.png", "n.png"):
        save_mask(root, name, np.ones((9, 7)))
    notes = {
        "train/cat/1.png": {"mask": "m.png"},
        "train/cat/2.png": {"mask": "n.png", "boxes": []},
    }
    annotate(root, notes, CONCEPTS)
    looked = []
    look = annotations._look
    monkeypatch.setattr(
        annotations, "_look", lambda given: looked.append(given[0].name) or look(given)
    )
    for _ in range(2):
        data.open_source("train", config(root))
    assert sorted(looked) == ["1.png", "2.png", "m.png", "n.png"]
    save_mask(root, "n.png", np.eye(9, 7) * 3)  # another size or time: looked at again
    os.utime(root / "n.png", ns=(1, 1))
    data.open_source("train", config(root))
    assert looked[4:] == ["n.png"]
    # What is kept may be damaged, or not be kept at all.
    (kept,) = (cache / "annotations").iterdir()
    for content in ("{", "[]", '{"version": 1, "files": []}', '{"version": 1, "files": {"a": {}}}'):
        kept.write_text(content)
        data.open_source("train", config(root))
    content = json.loads(kept.read_text())
    for found in content["files"].values():
        found["shape"], found["numbers"] = ["x"] * len(found["shape"]), [None]
    kept.write_text(json.dumps(content))
    data.open_source("train", config(root))

    def full(path, value):
        raise OSError(28, "No space left on device")

    kept.unlink()
    monkeypatch.setattr(files, "write_json", full)
    assert len(data.open_source("train", config(root))) == 9


def test_a_damaged_picture_takes_its_annotations_with_it(root):
    path = root / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:20])
    annotate(root, {"train/cat/1.png": {"boxes": [["cat", 0, 0, 1, 1]]}})
    with pytest.raises(ValueError, match=r"1\.png cannot be read as an image"):
        data.open_source("train", config(root))
    assert len(data.open_source("train", config(root, corrupt="skip"))) == 8


def test_a_mask_that_changes_later(root):
    save_mask(root, "m.png", np.ones((9, 7)))
    annotate(root, {"train/cat/1.png": {"mask": "m.png"}}, CONCEPTS)
    source = data.open_source("train", config(root))
    save_mask(root, "m.png", np.full((9, 7), 2))
    with pytest.raises(ValueError, match=r"m\.png has the number 2, which concepts\.json lacks"):
        source[3]
    save_mask(root, "m.png", np.ones((7, 9)))
    with pytest.raises(ValueError, match=r"m\.png is 7 x 9 x 1 now"):
        source[3]


def test_annotations_of_another_split_are_checked_too(root):
    annotate(root, {"val/cat/1.png": {"boxes": [["cat", 0, 0, 99, 9]]}})
    refused(root, "boxes outside of their pictures")


def test_faults_are_said_before_the_first_step(root, tmp_path, capsys):
    """By a training alone, by all stages, and by --check."""
    annotate(root, {"val/cat/1.png": {"boxes": [["cat", 0, 0, 99, 9]]}})
    settings = get_config("baseline", "folder")
    settings.data.update(dir=str(root), batch_size=4, size=16)
    with pytest.raises(ValueError, match="boxes outside of their pictures"):
        training.train(settings, tmp_path / "run")
    words = ["--config=baseline:folder", f"--config.data.dir={root}", "--config.data.batch_size=4"]
    for more in ([], ["--stage=train"], ["--check"]):
        assert main.main([*words, f"--workdir={tmp_path / 'run'}", *more]) == 2
        said = capsys.readouterr().err
        assert "error: " in said
        assert (
            "boxes outside of their pictures, in pixels by [row0, col0, row1, col1]: 1, such as"
            in said
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "concepts",
    [{"0": ["a", "b"]}, {"x": ["a", "b"]}, {"1": "cat"}, {"70000": ["a", "b"]}, {"01": ["a", "b"]},
     {"1": None}, {"70000": "void"}, {"9" * 5000: ["a", "b"]}],
)  # fmt: skip
def test_concepts_that_are_wrong(root, concepts):
    annotate(root, {}, concepts)
    with pytest.raises(ValueError, match=r"concepts\.json: .* must be"):
        data.open_source("train", config(root))


def test_broken_json(root):
    for text in ("{", "[" * 100_000):
        (root / "annotations.json").write_text(text)
        refused(root, "annotations.json cannot be read as JSON")


def test_byte_order_marks(root):
    save_mask(root, "m.png", np.ones((9, 7)))
    for name, value in (
        ("annotations", {"train/cat/1.png": {"mask": "m.png"}}),
        ("concepts", CONCEPTS),
    ):
        (root / f"{name}.json").write_text(json.dumps(value), encoding="utf-8-sig")
    assert data.open_source("train", config(root))[3]["concepts"].all()


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


def test_masks_of_parts(root):
    """As PASCAL-Part has them: numbers by pixel that parts.json names, checked as masks are."""
    (root / "masks").mkdir(exist_ok=True)
    parts = np.zeros((9, 7), np.uint8)
    parts[2:5, 3:6], parts[7, 0] = 1, 2
    save_mask(root, "masks/parts.png", parts)
    annotate(root, {"train/cat/1.png": {"parts": "masks/parts.png"}})
    refused(root, "annotations.json has parts, but there is no parts.json")
    (root / "parts.json").write_text('{"1": "head", "2": "tail"}')
    source = data.open_source("train", config(root))
    assert source.part_names == ("none", "head", "tail")
    assert source.concept_names == ()
    found = [source[k] for k in range(len(source)) if "parts" in source[k]]
    (example,) = found
    np.testing.assert_array_equal(example["parts"], parts)
    assert data.open_source("train", config(root), annotations=False).part_names == ()
    (root / "parts.json").write_text('{"1": "head"}')
    refused(root, "masks with a number that parts.json lacks: 1, such as 2 in")
    (root / "parts.json").write_text('{"1": "head", "3": "tail"}')
    refused(root, "without gaps")
    save_mask(root, "masks/parts.png", parts[:5])
    (root / "parts.json").write_text('{"1": "head", "2": "tail"}')
    refused(root, "masks of another size than their picture's")
