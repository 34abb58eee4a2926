"""Vocabularies, label maps, colors, Broden's format."""

import csv
import dataclasses
import json

import numpy as np
import PIL.Image
import planted
import pytest

from mixaug_jax import data
from mixaug_jax.config import get_config
from mixaug_jax.core import walk
from mixaug_jax.data import transforms
from mixaug_jax.data.source import Source
from mixaug_jax.dissection import broden, colors, concepts
from mixaug_jax.models import Preprocess

NET = Preprocess(size=16, resize=0)


def changed(source, change):
    """The source with `change(example, index) -> example`."""
    return dataclasses.replace(source, read=lambda i: change(dict(source.read(i)), i))


def test_vocabulary():
    vocabulary = concepts.Vocabulary(
        (("none", "none"), ("cat", "object"), ("red", "color"), ("none", "none"), ("dog", "object"))
    )
    assert vocabulary.categories == ("object", "color")
    assert vocabulary.category.tolist() == [0, 0, 1, 0, 0]
    assert vocabulary.size == 3
    with pytest.raises(ValueError, match="vocabulary is empty"):
        concepts.Vocabulary((("none", "none"),))


def test_label_maps_are_the_examples_own_at_the_nearest_pixel(tmp_path):
    source = planted.source()
    maps = concepts.make_label_maps(source, NET, tmp_path, size=16).maps
    assert (maps.dtype, maps.shape) == (np.uint16, (12, 16, 16, 2))
    np.testing.assert_array_equal(maps, [source[i]["concepts"] for i in range(12)])
    small = concepts.make_label_maps(source, NET, tmp_path, size=4).maps
    np.testing.assert_array_equal(small, np.asarray(maps)[:, 2::4, 2::4])


def test_label_maps_follow_what_the_network_sees(tmp_path):
    draw = np.random.default_rng(0)
    image = draw.integers(0, 255, (20, 34, 3), np.uint8)
    labels = draw.integers(0, 5, (20, 34, 1)).astype(np.uint8)
    source = Source(lambda i: {"image": image, "concepts": labels}, 1, ("a",), planted.NAMES)
    maps = concepts.make_label_maps(source, NET, tmp_path, size=16).maps
    np.testing.assert_array_equal(maps[0], labels[2:18, 9:25])
    # The pixels that the network gets are the ones that the maps are of.
    seen = transforms.seen_part({"image": image}, NET)["image"]
    np.testing.assert_allclose(
        NET(image), (seen / 255 - NET.mean) / np.array(NET.std), rtol=1e-5, atol=1e-6
    )


def test_spread_and_default_size():
    assert walk.spread(10, 4).tolist() == [0, 2, 5, 7]
    assert walk.spread(3, 0).tolist() == walk.spread(3, 9).tolist() == [0, 1, 2]
    assert [concepts.default_size(s) for s in (32, 64, 96, 224)] == [32, 64, 96, 56]


def test_maps_are_made_once_for_each_setting(tmp_path):
    reads = []

    def count(example, i):
        reads.append(i)
        return example

    source = changed(planted.source(), count)
    first = concepts.make_label_maps(source, NET, tmp_path, size=16)
    made = len(reads)
    again = concepts.make_label_maps(source, NET, tmp_path, size=16)
    assert len(reads) - made == 8  # the examples of the checksum
    np.testing.assert_array_equal(first.maps, again.maps)
    assert first.settings == again.settings
    for other in (
        {"size": 8},
        {"size": 16, "max_images": 5},
        {"size": 16, "settings": {"colors": "off"}},
    ):
        before = len(reads)
        maps = concepts.make_label_maps(source, NET, tmp_path, **other)
        assert len(reads) - before > 8
        assert maps.settings != first.settings
    other = concepts.make_label_maps(planted.source(seed=1), NET, tmp_path, size=16)
    assert (np.asarray(other.maps) != first.maps).any()
    assert not list(tmp_path.glob("*.partial"))


def test_a_stale_or_half_made_folder_is_not_used(tmp_path):
    source = planted.source()
    first = concepts.make_label_maps(source, NET, tmp_path, size=16)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    stored = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(stored | {"size": 99}))
    (folder / "maps.uint16").write_bytes(bytes(12 * 16 * 16 * 2 * 2))
    partial = tmp_path / f"{folder.name}.partial"
    partial.mkdir()
    (partial / "maps.uint16").write_bytes(b"half")
    again = concepts.make_label_maps(source, NET, tmp_path, size=16)
    assert np.asarray(again.maps).any()
    np.testing.assert_array_equal(again.maps, [source[i]["concepts"] for i in range(12)])
    assert first.settings == again.settings
    assert not partial.exists()


def test_an_error_leaves_no_folder(tmp_path):
    def fail(example, i):
        if i == 7:
            raise ValueError("damaged")
        return example

    with pytest.raises(ValueError, match="damaged"):
        concepts.make_label_maps(changed(planted.source(), fail), NET, tmp_path, size=16)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_images_without_masks_are_left_out(tmp_path):
    def some(example, i):
        return example if i % 3 else {k: v for k, v in example.items() if k != "concepts"}

    source = changed(planted.source(), some)
    maps = concepts.make_label_maps(concepts.add_colors(source), NET, tmp_path, size=16)
    assert maps.indices.tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    assert maps.maps.shape == (8, 16, 16, 3)
    with pytest.raises(concepts.NoMasksError, match="none of the 1 images has a mask"):
        concepts.make_label_maps(source, NET, tmp_path, size=16, max_images=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-1], "image 3 is .15, 16.; its image is .16, 16."),
        (lambda c: c + np.uint8(1), "image 3 holds label 5; the vocabulary goes from 0 to 4"),
        (lambda c: c.astype(np.int8) - 1, "image 3 holds label -1"),
        (lambda c: c[..., :1], "image 3 has 1 slots a pixel; those before it have 2"),
        (lambda c: c / 2, "image 3 must be of integers; got float"),
    ],
)
def test_bad_label_maps(tmp_path, change, message):
    def damage(example, i):
        return example | ({"concepts": change(example["concepts"])} if i == 3 else {})

    with pytest.raises(ValueError, match=message):
        concepts.make_label_maps(changed(planted.source(), damage), NET, tmp_path, size=16)


def test_no_masks(tmp_path):
    bare = dataclasses.replace(planted.source(), concept_names=())
    with pytest.raises(concepts.NoMasksError, match="has no masks"):
        concepts.make_label_maps(bare, NET, tmp_path)


def test_annotate_adds_slots_after_the_sets_own():
    source = planted.source()

    def halves(image):
        found = np.zeros((*image.shape[:2], 2), int)
        found[:8, :, 0], found[8:, :, 1] = 1, 2
        return found

    names = (concepts.NONE, ("top", "place"), ("bottom", "place"))
    both = concepts.annotate(source, halves, names)
    assert both.concept_names == planted.NAMES + names[1:]
    example = both[0]["concepts"]
    np.testing.assert_array_equal(example[..., :2], source[0]["concepts"])
    assert example[0, 0, 2:].tolist() == [5, 0]
    assert example[15, 0, 2:].tolist() == [0, 6]
    plain = dataclasses.replace(
        source, read=lambda i: {"image": source.read(i)["image"]}, concept_names=()
    )
    alone = concepts.annotate(plain, halves, names)
    assert alone.concept_names == names
    assert alone[0]["concepts"].shape == (16, 16, 2)
    for wrong, message in (
        (lambda image: halves(image)[:4], r"is \(4, 16, 2\); its image is 16 x 16"),
        (lambda image: halves(image) + 1, "holds label 3; the vocabulary goes from 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            concepts.annotate(source, wrong, names)[0]


def test_lab_of_known_colors():
    """Reference values: CIELAB of the sRGB primaries (Lindbloom's calculator, D65, two decimals)."""
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], np.uint8)
    known = [(53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86), (100, 0, 0)]
    np.testing.assert_allclose(colors.lab(rgb), [*known, (0, 0, 0)], atol=0.02)


def test_each_focus_has_its_own_name():
    image = np.array([list(colors.FOCI.values())], np.uint8)
    assert colors.nearest_names(image)[0].tolist() == list(range(1, 12))
    assert tuple(name for name, _ in colors.CONCEPTS[1:]) == tuple(sorted(colors.FOCI))


def test_computed_colors_agree_with_the_scenes_own(tmp_path):
    config = get_config()
    config.data.dir = str(tmp_path)
    config.data.scenes.update(train=1, validation=60, test=1)
    source = data.open_source("validation", config)
    assert concepts.has_colors(source)
    names = [name for name, _ in source.concept_names]
    confusion = np.zeros((12, 12))
    for i in range(len(source)):
        example = source[i]
        own = np.array([colors.CONCEPTS.index((n, "color")) if c == "color" else 0
                        for n, c in source.concept_names])  # fmt: skip
        found = colors.nearest_names(example["image"])
        np.add.at(confusion, (own[example["concepts"][..., 3]], found), 1)
    assert len(names) == len(set(source.concept_names))
    share = np.diag(confusion)[1:] / confusion[1:].sum(1)
    assert share.min() > 0.85, dict(zip(colors.FOCI, share.round(2), strict=True))
    assert np.diag(confusion).sum() / confusion.sum() > 0.93


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
@pytest.mark.parametrize("scores", [False, True])
def test_color_tables_of_every_format(tmp_path, ending, scores):
    draw = np.random.default_rng(0)
    numbers = draw.integers(1, 12, 32**3)
    table = np.eye(11)[numbers - 1] if scores else numbers
    path = tmp_path / f"table{ending}"
    if ending == ".csv":
        np.savetxt(path, table, delimiter=",", fmt="%d")
    else:
        (np.save if ending == ".npy" else np.savez)(path, table)
    read = colors.open_table(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read.reshape(-1), numbers)
    pixel = np.array([[[8, 255, 17]]], np.uint8)
    assert colors.table_names(pixel, read)[0, 0] == numbers[1 * 1024 + 31 * 32 + 2]
    source = concepts.add_colors(planted.source(), str(path))
    assert source.concept_names[5:] == colors.CONCEPTS[1:]
    assert source[0]["concepts"][..., 2].min() >= 5


def test_bad_color_tables(tmp_path):
    with pytest.raises(ValueError, match=r"must be a \.npy, \.npz or \.csv file that exists"):
        colors.open_table(tmp_path / "none.npy")
    for array in (np.zeros(32**3, int), np.full(32**3, 12), np.ones(7), np.full(32**3, 1.5)):
        np.save(tmp_path / "table.npy", array)
        with pytest.raises(ValueError, match=r"must hold 32768 numbers 1\.\.11"):
            colors.open_table(tmp_path / "table.npy")
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        colors.open_table(tmp_path / "broken.npz")
    np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
    with pytest.raises(ValueError, match="holds 2 arrays"):
        colors.open_table(tmp_path / "two.npz")


@pytest.fixture
def broden_folder(tmp_path):
    """Two images: 300 needs the green channel; a whole-image label; two layers of one category."""
    images = tmp_path / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    maps = {"a_object": draw.integers(0, 3, (6, 8)), "a_more": np.full((6, 8), 300)}
    maps["b_object"] = np.full((4, 4), 2)
    for name, numbers in maps.items():
        rgb = np.stack([numbers % 256, numbers // 256, 0 * numbers], -1).astype(np.uint8)
        PIL.Image.fromarray(rgb).save(images / f"{name}.png")
    for name, size in (("a", (16, 12)), ("b", (8, 8))):
        pixels = draw.integers(0, 255, (size[1], size[0], 3), np.uint8)
        PIL.Image.fromarray(pixels).save(images / f"{name}.png")
    tables = {
        "index": [
            ["image", "split", "ih", "iw", "sh", "sw", "object", "scene"],
            ["a.png", "train", 12, 16, 6, 8, "a_object.png;a_more.png", "5"],
            ["b.png", "val", 8, 8, 4, 4, "b_object.png", ""],
        ],
        "label": [
            ["number", "name", "category", "frequency", "coverage", "syns"],
            [1, "cat", "object(3)", 3, 1.5, ""],
            [2, "dog", "scene(2);object(7)", 9, 1, "hound"],
            [5, "street-s", "scene(1)", 1, 1, ""],
            [300, "fur", "object(1)", 1, 1, ""],
        ],
        "category": [["name", "first", "last"], ["object", 1, 300], ["scene", 5, 5]],
    }
    for name, rows in tables.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return tmp_path, maps


def test_broden(broden_folder):
    folder, maps = broden_folder
    source = broden.open_broden(folder, 24)
    assert len(source) == 2
    assert len(source.concept_names) == 301
    assert source.concept_names[2] == ("dog", "object")
    assert source.concept_names[5] == ("street-s", "scene")
    assert source.concept_names[3] == concepts.NONE
    a, b = source[0], source[1]
    assert a["image"].shape == (24, 24, 3)
    np.testing.assert_array_equal(a["concepts"][..., 0], maps["a_object"].repeat(4, 0).repeat(3, 1))
    assert (a["concepts"][..., 1:] == [300, 5]).all()
    assert (b["concepts"] == [2, 0, 0]).all()
    assert len(broden.open_broden(folder, 24, split="val")) == 1


def test_bad_broden(broden_folder):
    folder, _ = broden_folder
    with pytest.raises(ValueError, match=r"category\.csv cannot be read: No such file"):
        broden.open_broden(folder / "nowhere", 8)
    with pytest.raises(ValueError, match="no image of split test"):
        broden.open_broden(folder, 8, split="test")
    text = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(text.replace("val,8,8,4,4", "val,8,8,5,4"))
    with pytest.raises(ValueError, match=r"b_object\.png is \(4, 4\), and index.csv says \(5, 4\)"):
        broden.open_broden(folder, 8)[1]
    (folder / "index.csv").write_text(text.replace("object", "thing", 1))
    with pytest.raises(ValueError, match=r"index\.csv has no column 'object'"):
        broden.open_broden(folder, 8)
    (folder / "index.csv").write_text(text)
    (folder / "images" / "b_object.png").unlink()
    with pytest.raises(ValueError, match=r"b_object\.png cannot be read"):
        broden.open_broden(folder, 8)[1]
    label = (folder / "label.csv").read_text()
    (folder / "label.csv").write_text(label.replace("object(3)", "smell(3)"))
    with pytest.raises(ValueError, match=r"one of the categories object, scene; got 'smell\(3\)'"):
        broden.open_broden(folder, 8)


def test_broden_with_byte_order_marks(broden_folder):
    folder, _ = broden_folder
    for name in ("index", "label", "category"):
        path = folder / f"{name}.csv"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(broden.open_broden(folder, 8)) == 2


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("b.png,val,8,8,4,4,b_object.png,", "b.png,val,8,8,4", "line 3: it has fewer fields than"),
        (
            "b.png,val,8,8,4,4,b_object.png,",
            "b.png,val,8,8,4,4,b_object.png,,x",
            "line 3: it has more",
        ),
        ("val,8,8,4,4", "val,8,8,,4", "line 3: sh must be a number of pixels; got ''"),
        ("val,8,8,4,4", "val,8,8,4,\u00b2", "line 3: sw must be a number of pixels; got '\u00b2'"),
        ("val,8,8,4,4", "val,8,8,4,0", "line 3: sw must be a number of pixels; got '0'"),
        ("a_more.png,5", "a_more.png,70000", "line 2: label.csv has no label 70000"),
        ("b_object.png", "../b_object.png", "line 3: '../b_object.png' is no file in images/"),
        ("b.png,val", ",val", "line 3: '' is no file in images/"),
    ],
)
def test_a_wrong_row_of_brodens_index(broden_folder, old, new, sentence):
    path = broden_folder[0] / "index.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared below
        broden.open_broden(broden_folder[0], 8)
    assert str(caught.value).startswith(f"{path}, {sentence}")


@pytest.mark.parametrize(
    ("old", "new"), [("300,fur", ",fur"), ("300,fur", "70000,fur"), ("300,fur", "0,fur")]
)
def test_a_wrong_label_of_broden(broden_folder, old, new):
    path = broden_folder[0] / "label.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(
        ValueError, match=r"label\.csv, line 5: label '\d*' must be a number of 1\.\.65535"
    ):
        broden.open_broden(broden_folder[0], 8)
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    with pytest.raises(ValueError, match=r"label\.csv cannot be read as CSV"):
        broden.open_broden(broden_folder[0], 8)


def test_a_color_table_with_a_byte_order_mark(tmp_path):
    numbers = np.arange(colors.BINS**3) % 11 + 1
    text = "\n".join(map(str, numbers))
    (tmp_path / "table.csv").write_text(text, encoding="utf-8-sig")
    np.testing.assert_array_equal(colors.open_table(tmp_path / "table.csv").ravel(), numbers)
