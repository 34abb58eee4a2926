"""A folder of pictures as a data set: layout, order, damage."""

import os
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest
from own_folder import annotate, config, picture, write_pictures

from mixaug_jax import data
from mixaug_jax.config import get_config
from mixaug_jax.core import say
from mixaug_jax.data import images
from mixaug_jax.study import make_plan


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """What was found in files is kept here, and what was said is forgotten."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(folder))
    monkeypatch.setitem(say._console, "said", set())
    return folder


@pytest.fixture
def root(tmp_path):
    write_pictures(tmp_path)
    return tmp_path


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


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "Bmp", "WEBP", "tif", "TIFF"])
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


def test_what_is_left_out_is_counted_and_said_once(root, capsys):
    for name in ("Thumbs.db", "deeper/readme.txt", ".hidden.png", ".cache/1.png"):
        (root / "train" / "cat" / name).parent.mkdir(exist_ok=True)
        (root / "train" / "cat" / name).write_bytes(b"x")
    picture(root / "train" / "loose.png")
    (root / "train" / "none").mkdir()
    for _ in range(2):
        source = data.open_source("train", config(root))
        assert (len(source), source.class_names) == (9, ("ant", "cat", "dog"))
    said = capsys.readouterr().out
    assert f"train: 3 files are left out, as {root}/train/loose.png: images are .jpg, " in said
    assert f"train: 1 class folders without images are left out, as {root}/train/none (" in said
    assert said.count("left out") == 2


def test_pictures_in_folders_within_a_class(root):
    picture(root / "train" / "cat" / "more" / "deep" / "0.png", seed=5)
    (root / "train" / "cat" / "more" / "back").symlink_to(root / "train" / "cat")  # no endless walk
    (root / "elsewhere").mkdir()
    picture(root / "elsewhere" / "9.png", seed=6)
    (root / "train" / "dog" / "linked").symlink_to(root / "elsewhere")
    source = data.open_source("train", config(root))
    assert [source[i]["label"] for i in range(11)] == [0] * 3 + [1] * 4 + [2] * 4
    names = [source.file_name(i) for i in range(11)]
    assert names[3:] == ["1.png", "10.png", "2.png", "0.png", "1.png", "10.png", "2.png", "9.png"]


def test_the_first_frame_of_a_gif_and_a_jpeg_under_its_other_name(root):
    frames = [PIL.Image.fromarray(np.full((9, 7, 3), level, np.uint8)) for level in (40, 200)]
    frames[0].save(root / "train" / "ant" / "0.gif", save_all=True, append_images=frames[1:])
    picture(root / "train" / "ant" / "0.jfif", format="jpeg")
    source = data.open_source("train", config(root))
    assert len(source) == 11
    np.testing.assert_array_equal(source[0]["image"], np.full((9, 7, 3), 40))
    whole = (root / "train" / "ant" / "0.jfif").read_bytes()
    (root / "train" / "ant" / "0.jfif").write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"0\.jfif cannot be read as an image"):
        data.open_source("train", config(root))


@pytest.mark.parametrize("array", [np.ones((9, 7), np.float32), np.full((9, 7), 70000, np.int32)])
def test_pixels_of_an_unknown_range_are_refused(root, array):
    PIL.Image.fromarray(array).save(root / "train" / "ant" / "0.tif")
    with pytest.raises(ValueError, match=r"0\.tif cannot be read as an image: it holds"):
        data.open_source("train", config(root))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_names_of_the_validation_folder(root, name):
    (root / "val").rename(root / name)
    assert len(data.open_source("validation", config(root))) == 3
    (root / "validate").mkdir()  # which is none of them
    if name != "val":
        (root / "val").mkdir()
        with pytest.raises(ValueError, match=f"has val and {name}: keep one of them"):
            data.open_source("validation", config(root))


def test_a_share_of_train_where_there_is_no_validation_folder(root, capsys):
    remove(root / "val")
    for k in range(3, 10):
        picture(root / "train" / "dog" / f"{k}.png", seed=k)
    shared = config(root, validation_share=0.3)
    opened = data.open_splits(shared)
    names = {s: sorted((e["label"], opened[s].file_name(i)) for i, e in enumerate(opened[s]))
             for s in ("train", "validation")}  # fmt: skip
    labels = [label for label, _ in names["validation"]]
    assert labels == [0, 1, 2, 2, 2]  # of 3, 3 and 10
    assert not set(names["train"]) & set(names["validation"])
    assert len(names["train"]) == 16 - 5
    assert capsys.readouterr().out.count("30 % of each class of train are set aside") == 1
    # A file that comes later moves at most one other, whatever its name.
    picture(root / "train" / "dog" / "0.png")
    after = data.open_source("validation", shared)
    now = {(e["label"], after.file_name(i)) for i, e in enumerate(after)}
    assert len(set(names["validation"]) - now) <= 1
    none = config(root, validation_share=0.3, validation_split="", test_split="")
    assert len(data.open_source("train", none)) == 17
    with pytest.raises(
        ValueError, match=r"no folder val or valid or .*data\.validation_share=0\.1"
    ):
        data.open_source("validation", config(root))
    (root / "val" / "cat").mkdir(parents=True)
    picture(root / "val" / "cat" / "1.png")
    assert len(data.open_source("train", shared)) == 17


def test_a_test_folder_is_used_where_it_is_there(root):
    settings = get_config("baseline", "folder")
    settings.data.dir = str(root)
    assert settings.data.test_split == "auto"
    assert data.settled(settings).data.test_split == ""
    picture(root / "test" / "cat" / "1.png")
    assert data.settled(settings).data.test_split == "test"
    assert settings.data.test_split == "auto"
    assert len(data.open_source("auto", settings)) == 1
    # A study asks for what its runs will find.
    (run,) = make_plan([settings], [0], root / "study")
    assert run.config.data.test_split == "test"
    settings.data.test_split = ""
    assert data.settled(settings) is settings


def test_a_batch_larger_than_the_data_is_refused_and_an_evaluation_takes_no_more_than_it_needs(
    root,
):
    huge = config(root, batch_size=2**20)
    with pytest.raises(
        ValueError, match=r"data\.batch_size=1048576 is larger than the training set of 9"
    ):
        data.open_splits(huge)
    huge.eval = {"batch_size": 2**20}
    source = data.open_source("train", huge)
    assert 9 <= data.evaluation_batch(source, huge) < 9 + 8
    huge.eval.batch_size = 4
    assert data.evaluation_batch(source, huge) == 4


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_cameras_orientation(root, tag, suffix, capsys):
    path = root / "train" / "ant" / f"1.{suffix}"
    (root / "train" / "ant" / "1.png").unlink()
    exif = PIL.Image.Exif()
    exif[0x0112] = tag
    saved = np.asarray(picture(path, seed=1, exif=exif))

    turned = {1: saved, 2: saved[:, ::-1], 3: saved[::-1, ::-1], 4: saved[::-1]}
    turned |= {5: saved.swapaxes(0, 1), 6: np.rot90(saved, -1), 8: np.rot90(saved)}
    turned[7] = saved[::-1, ::-1].swapaxes(0, 1)
    np.testing.assert_array_equal(data.open_source("train", config(root))[0]["image"], turned[tag])
    said = capsys.readouterr().out
    assert ("train: 1 images have a camera's orientation tag and are turned upright" in said) == (
        tag > 1
    )
    annotate(root, {f"train/ant/1.{suffix}": {"boxes": [["cat", 0, 0, 9, 7]]}})
    np.testing.assert_array_equal(data.open_source("train", config(root))[0]["image"], saved)
    assert ("tag and stay as stored" in capsys.readouterr().out) == (tag > 1)
    (root / "annotations.json").unlink()
    boxed = config(root)
    boxed.explain = {"boxes": "boxes.csv"}
    np.testing.assert_array_equal(data.open_source("train", boxed)[0]["image"], saved)


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(root):
    """13000 x 13000 black pixels in 20 kB: by their header alone, for nothing follows it here."""
    header = struct.pack(">IIBBBBB", 13000, 13000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    content += struct.pack(">I", zlib.crc32(chunk)) + end
    path = root / "train" / "ant" / "0.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ValueError, match=r"0\.png has 13000 x 13000 pixels, more than the 89478485"
        ):
            data.open_source("train", config(root))
        assert len(data.open_source("train", config(root, corrupt="skip"))) == 9
        path.write_bytes(
            content.replace(header, struct.pack(">IIBBBBB", 2**20, 2**20, 8, 0, 0, 0, 0))
        )
        with pytest.raises(ValueError, match=r"more than the 89478485 pixels|cannot be read"):
            images.decode_rgb(path, "bomb")


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
    cow = root / "val" / "cow" / "1.png"
    message = broken(root, lambda root: picture(cow), "cow is a class that")
    assert str(root / "train") in message
    cow.unlink()
    (root / "train" / "cow").mkdir()
    broken(root, lambda root: remove(root / "val"), "no folder val or valid or validation" + LAYOUT)
    (root / "val").mkdir()
    broken(root, lambda root: remove(root / "train" / "cow"), "val has no class folders")
    broken(root, lambda root: (root / "val" / "cat").mkdir(), "val has no images .*in its class")
    broken(root, lambda root: remove(root / "train"), "no folder train" + LAYOUT)


def test_a_folder_to_look_at_has_no_train(tmp_path):
    """Its classes are those of the split that stands in the place of train."""
    write_pictures(tmp_path)
    remove(tmp_path / "train")
    settings = config(tmp_path, train_split="validation")
    source = data.open_source("validation", settings)
    assert (source.class_names, len(source), source[0]["label"]) == (("cat",), 3, 0)
    with pytest.raises(
        ValueError, match=r"where nothing is trained, set data\.train_split=validation"
    ):
        data.open_source("validation", config(tmp_path))


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
