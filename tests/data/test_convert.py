"""Other formats to a folder's annotations and back: COCO, Pascal VOC, trimaps, and what is wrong in them."""

import itertools
import json
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import PIL.Image
import pytest
from own_folder import config, picture

from mixaug_jax import data
from mixaug_jax.core import say
from mixaug_jax.data.convert import __main__ as command


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setitem(say._console, "said", set())


def opened(root, split="train"):
    return data.open_source(split, config(root, validation_split=""))


def convert(*words):
    return command.main(list(map(str, words)))


def refused(capsys, *words):
    assert convert(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


# Of pycocotools 2.0: the text, and the pixels that it stands for.
TEXT = ";4500ML142?M"
PIXELS = np.zeros((9, 7), bool)
PIXELS[2:6, 1:5], PIXELS[3, 3], PIXELS[8, 6] = True, False, True


def runs(mask):
    """COCO's run lengths of a mask: of zeros first, down the columns."""
    flat = np.asarray(mask, bool).T.ravel()
    lengths = [len(list(group)) for _, group in itertools.groupby(flat)]
    return [0, *lengths] if flat[0] else lengths


def text_of(counts):
    """As `rleToString` of cocoapi's maskApi.c writes them."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 * more) + 48)
    return text


def coco(**change):
    """Two pictures: a dog before a wall and a crowd of dogs, a cat; a third without anything."""
    wall = np.zeros((9, 7), bool)
    wall[:4] = True
    notes = [
        {"id": 1, "image_id": 5, "category_id": 18, "bbox": [1, 2, 4, 4],
         "segmentation": {"counts": TEXT, "size": [9, 7]}},
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 7, 4],
         "segmentation": {"counts": runs(wall), "size": [9, 7]}},
        {"id": 3, "image_id": 5, "category_id": 18, "bbox": [0, 7, 2, 2], "iscrowd": 1,
         "segmentation": [[0, 7, 1, 7, 1, 9, 0, 9], [1, 8, 2, 8, 2, 9, 1, 9]]},
        {"id": 4, "image_id": 6, "category_id": 17, "bbox": [-1.5, 3.5, 4, 40]},
    ]  # fmt: skip
    sizes = {"height": 9, "width": 7}
    return {
        "images": [{"id": k, "file_name": f"{k:03}.png", **sizes} for k in (5, 6, 7)],
        "annotations": notes,
        "categories": [
            {"id": 18, "name": "dog", "supercategory": "animal"},
            {"id": 17, "name": "cat", "supercategory": "animal"},
            {"id": 3, "name": "wall", "supercategory": "building", "isthing": 0},
        ],
    } | change


@pytest.fixture
def place(tmp_path):
    """Pictures 005 to 007 in a folder of their own."""
    for k in (5, 6, 7):
        picture(tmp_path / "images" / f"{k:03}.png", seed=k)
    return tmp_path


def write(place, content):
    (place / "coco.json").write_text(json.dumps(content), encoding="utf-8-sig")
    return place / "coco.json", "--images", place / "images", "--to", place / "out"


def test_coco(place, capsys):
    assert convert("coco", *write(place, coco())) == 0
    assert (
        "2 pictures of train, 5 concepts; 1 without an object are left out"
        in capsys.readouterr().out
    )
    source = opened(place / "out")
    assert source.class_names == ("cat", "wall")  # by what covers most
    assert source.box_names == ("cat", "wall", "dog")
    assert source.concept_names[1:] == (
        ("dog", "object"), ("cat", "object"), ("wall", "stuff"),
        ("animal", "supercategory"), ("building", "supercategory"),
    )  # fmt: skip
    cat, dog = source
    np.testing.assert_array_equal(cat["boxes"], np.float32([[3.5, 0, 9, 2.5]]))
    assert "concepts" not in cat
    np.testing.assert_array_equal(dog["boxes"], np.float32([[2, 1, 6, 5], [0, 0, 4, 7]]))
    assert dog["box_labels"].tolist() == [2, 1]  # none of the crowd
    expected = np.where(np.arange(9)[:, None] < 4, 3, 0) * np.ones((1, 7), int)
    expected[PIXELS] = 1  # the smaller one lies above
    expected[7:, 0] = expected[8, 1] = 1
    np.testing.assert_array_equal(dog["concepts"][..., 0], expected)
    np.testing.assert_array_equal(dog["concepts"][..., 1], np.array([0, 4, 4, 5])[expected])
    np.testing.assert_array_equal(
        dog["image"], np.asarray(PIL.Image.open(place / "images/005.png"))
    )


def test_another_split_is_added_with_the_same_numbers(place, capsys):
    words = write(place, coco())
    assert convert("coco", *words) == 0
    other = coco()
    bird = {"id": 1, "name": "bird", "supercategory": "animal"}
    other["categories"] = [*other["categories"][::-1], bird]
    assert convert("coco", *write(place, other), "--split", "val") == 0
    first, second = (data.open_source(s, config(place / "out")) for s in ("train", "validation"))
    assert (
        second.concept_names
        == (*first.concept_names[:6], ("bird", "object"))[: len(second.concept_names)]
    )
    for i in range(2):
        for key in first[i]:
            np.testing.assert_array_equal(first[i][key], second[i][key])
    # A picture that the folder has stays in its class.
    (place / "out" / "train" / "wall").rename(place / "out" / "train" / "house")
    (place / "out" / "annotations.json").unlink()
    assert convert("coco", *words) == 0
    assert opened(place / "out").class_names == ("cat", "house")
    assert opened(place / "out")[1]["concepts"].any()


def test_many_categories_have_one_number_a_pixel(place):
    many = [{"id": 100 + k, "name": f"thing {k}", "supercategory": "many"} for k in range(300)]
    content = coco()
    content["categories"] = many + content["categories"]
    assert convert("coco", *write(place, content)) == 0
    concepts = opened(place / "out")[1]["concepts"]
    assert (concepts.dtype, concepts.shape) == (np.uint16, (9, 7, 1))
    names = opened(place / "out").concept_names
    assert names[int(concepts[0, 0, 0])] == ("wall", "stuff")
    assert names[255] == ("none", "none")


def test_a_name_does_not_lead_out_of_the_folder(place):
    content = coco()
    content["categories"][1]["name"] = "../../x"
    assert convert("coco", *write(place, content)) == 0
    assert (place / "out" / "train" / "-..-x" / "006.png").exists()


def changed(part, number, **change):
    content = coco()
    content[part][number] = content[part][number] | change
    return content


BAD_COCO = [
    ([], "images must be a list of objects"),
    (coco(annotations=3), "annotations must be a list of objects"),
    (coco(images=[{"id": 5}]), "one of its images has no file_name"),
    (changed("images", 0, file_name="9.png"), "has 9.png, which is not in"),
    (changed("images", 0, height="x"), "image 5: it has x rows and 7 columns, and"),
    (changed("images", 0, height=10**9), "image 5: it has 1000000000 rows and 7 columns, and"),
    (changed("images", 0, id=[5]), "images have the id [5], which must be a number or a text"),
    (changed("images", 0, id=6), "two of its images have the same id"),
    (changed("categories", 0, id=17), "two of its categories have the same id"),
    (changed("annotations", 0, image_id={}), "annotations have the id {}, which must be a number"),
    (changed("annotations", 0, image_id=9), "annotation 1 is of image 9, which is not there"),
    (changed("annotations", 0, category_id=9), "annotation 1 has the category 9"),
    (changed("annotations", 0, bbox=[1, 2, 0, 4]), "image 5: the box [1, 2, 0, 4] is empty or"),
    (changed("annotations", 0, bbox=[1, 2, float("nan"), 4]), "a box must be x, y, width, height"),
    (changed("annotations", 0, bbox=[70, 2, 4, 4]), "lies outside of 9 rows and 7 columns"),
    (changed("annotations", 0, segmentation=[[1, 2]]), "image 5: a polygon must be"),
    (changed("annotations", 0, segmentation={"counts": [3], "size": [9, 7]}), "run lengths must be"),
    (changed("annotations", 0, segmentation={"counts": TEXT, "size": [7, 9]}), "are of [7, 9], the image [9, 7]"),
    (changed("annotations", 0, segmentation=7), "must be polygons or run lengths; got 7"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD_COCO)))
@pytest.mark.usefixtures("unchecked")
def test_coco_that_is_wrong(place, capsys, number):
    content, sentence = BAD_COCO[number]
    assert sentence in refused(capsys, "coco", *write(place, content))


def test_files_that_are_missing(place, capsys):
    words = write(place, coco())
    (place / "coco.json").write_text("{")
    assert "coco.json cannot be read as JSON" in refused(capsys, "coco", *words)
    (place / "coco.json").unlink()
    assert "coco.json cannot be read as JSON: [Errno 2]" in refused(capsys, "coco", *words)
    words = write(place, coco())
    assert "nowhere is no folder of pictures" in refused(
        capsys, "coco", *words[:2], "nowhere", *words[3:]
    )
    picture(place / "images" / "more" / "005.jpg")
    assert "have one name; which is meant?" in refused(capsys, "coco", *words)
    (place / "images" / "more" / "005.jpg").unlink()
    (place / "out").mkdir()
    (place / "out" / "concepts.json").write_text('{"1": "void"}')
    assert "concepts.json: 1: void is no number" in refused(capsys, "coco", *words)


VOC = """<annotation><filename>{name}.png</filename><object><name>{label}</name><difficult>0</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>2</xmax><ymax>3</ymax></bndbox></part>
</object></annotation>"""


@pytest.fixture
def voc(place):
    """A cat over the whole of 005, a dog in 006; a mask of 005 with a border of void."""
    mask = np.zeros((9, 7), np.uint8)
    mask[2:5, 2:5], mask[3, 3] = 255, 8
    for folder in ("xml", "masks"):
        (place / folder).mkdir()
    image = PIL.Image.fromarray(mask)
    image.putpalette(list(range(256)) * 3)
    image.save(place / "masks" / "005.png")
    boxes = {"005": ("cat", 1, 1, 7, 9), "006": ("dog", 3, 2, 3, 5)}
    for name, (label, *box) in boxes.items():
        text = VOC.format(*box, name=name, label=label)
        (place / "xml" / f"{name}.xml").write_text(text)
    return place


def voc_words(place):
    return (
        place / "xml",
        "--images",
        place / "images",
        "--masks",
        place / "masks",
        "--to",
        place / "out",
    )


def test_voc(voc):
    assert convert("voc", *voc_words(voc)) == 0
    source = opened(voc / "out")
    assert source.class_names == ("cat", "dog")
    cat, dog = source
    np.testing.assert_array_equal(cat["boxes"], np.float32([[0, 0, 9, 7], [1, 1, 3, 2]]))
    np.testing.assert_array_equal(dog["boxes"], np.float32([[1, 2, 5, 3], [1, 1, 3, 2]]))
    assert [source.box_names[k] for k in dog["box_labels"]] == ["dog", "head"]
    number = source.concept_names.index(("cat", "object"))
    assert len(source.concept_names) == 21
    assert (np.argwhere(cat["concepts"][..., 0]) == [[3, 3]]).all()
    assert cat["concepts"][3, 3, 0] == number
    stored = np.asarray(PIL.Image.open(voc / "out" / "masks" / "train" / "cat" / "005.png"))
    assert (stored == 255).sum() == 8
    assert "concepts" not in dog


def test_voc_with_classes_of_ones_own(voc, capsys):
    (voc / "classes.txt").write_text("a\nb\nc\nd\ne\nf\ng\ntail\n", encoding="utf-8-sig")
    assert convert("voc", *voc_words(voc), "--classes", voc / "classes.txt") == 0
    assert opened(voc / "out").concept_names[8] == ("tail", "object")
    (voc / "classes.txt").write_text("a\nb\n")
    words = (*voc_words(voc), "--classes", voc / "classes.txt")
    assert "005.png has the number 8; there are 2 classes" in refused(capsys, "voc", *words)
    (voc / "classes.txt").write_text("a\na\n")
    assert "must have a class a line, each once" in refused(capsys, "voc", *words)


BAD_VOC = [
    ("<a", "006.xml cannot be read as XML"),
    (VOC.format(3, 2, 2, 5, name="006", label="dog"), "006.xml: object 'dog' must have"),
    (VOC.format("nan", 2, 3, 5, name="006", label="dog"), "xmin <= xmax and ymin <= ymax; got"),
    (VOC.format(3, 2, 3, 5, name="006", label=""), "object '' must have a name"),
    (
        VOC.replace("<xmin>{0}</xmin>", "").format(1, 2, 3, 5, name="6", label="dog"),
        "must have a name",
    ),
]


@pytest.mark.parametrize("number", range(len(BAD_VOC)))
def test_voc_that_is_wrong(voc, capsys, number):
    text, sentence = BAD_VOC[number]
    (voc / "xml" / "006.xml").write_text(text)
    assert sentence in refused(capsys, "voc", *voc_words(voc))


def test_voc_whose_files_do_not_fit(voc, capsys):
    words = voc_words(voc)
    PIL.Image.fromarray(np.zeros((7, 9), np.uint8)).save(voc / "masks" / "005.png")
    assert "it needs one number a pixel" in refused(capsys, "voc", *words)
    assert "is no folder of masks" in refused(capsys, "voc", *words[:4], "nowhere", *words[5:])
    (voc / "masks" / "005.png").unlink()
    (voc / "xml" / "999.xml").write_text(VOC)
    assert "999.xml is of a picture that is not in" in refused(capsys, "voc", *words)
    assert "has no XML files of annotations" in refused(capsys, "voc", voc / "out", *words[1:])


def trimap(path):
    numbers = np.full((9, 7), 2, np.uint8)
    numbers[1:6, 1:6], numbers[2:5, 2:5] = 3, 1
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(numbers).save(path)


def test_trimaps(tmp_path, capsys):
    for name in ("Sphynx_1", "great_pyrenees_12"):
        picture(tmp_path / "images" / f"{name}.png")
        trimap(tmp_path / "trimaps" / f"{name}.png")
    words = (tmp_path / "trimaps", "--images", tmp_path / "images", "--to", tmp_path / "out")
    assert convert("trimaps", *words, "--name", "pet") == 0
    source = opened(tmp_path / "out")
    assert source.class_names == ("Sphynx", "great_pyrenees")
    assert source.concept_names == (("none", "none"), ("pet", "object"))
    for example in source:
        assert (example["concepts"][2:5, 2:5] == 1).all()
        assert example["concepts"].sum() == 9
    trimap(tmp_path / "trimaps" / "other.png")
    assert "other.png is of a picture that is not in" in refused(capsys, "trimaps", *words)
    picture(tmp_path / "images" / "other.png")
    assert "the class of" in refused(capsys, "trimaps", *words)
    (tmp_path / "trimaps" / "other.png").unlink()
    PIL.Image.fromarray(np.zeros((9, 7), np.uint8)).save(tmp_path / "trimaps" / "Sphynx_1.png")
    assert "Sphynx_1.png has the number 0; a trimap has 1, 2 and 3" in refused(
        capsys, "trimaps", *words
    )
    assert "has no trimaps (.png)" in refused(capsys, "trimaps", tmp_path / "out", *words[1:])


def test_real_trimaps_and_the_command(photographs, tmp_path):
    """Pets as they are published, and boxes in COCO's form that are added to them."""
    archive = zipfile.ZipFile(photographs("pets600.zip"))
    labels = json.loads(archive.read("labels.json"))
    names = [name for name, label in sorted(labels.items()) if "head_box" in label][::60]
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (tmp_path / kind).mkdir()
        for name in names:
            content = archive.read(f"{kind}/{name}.{ending}")
            (tmp_path / kind / f"{name}.{ending}").write_bytes(content)
    run = [
        sys.executable,
        "-m",
        "mixaug_jax.data.convert",
        "trimaps",
        "masks",
        "--images",
        "images",
        "--to",
        "out",
    ]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"out: {len(names)} pictures of train, 1 concepts" in done.stdout
    images, boxes = [], []
    for k, name in enumerate(names):
        with PIL.Image.open(tmp_path / "images" / f"{name}.jpg") as image:
            images.append(
                {"id": k, "file_name": f"{name}.jpg", "height": image.height, "width": image.width}
            )
        x0, y0, x1, y1 = labels[name]["head_box"]
        boxes.append({"image_id": k, "category_id": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "head"}]}
    (tmp_path / "heads.json").write_text(json.dumps(content))
    words = (tmp_path / "heads.json", "--images", tmp_path / "images", "--to", tmp_path / "out")
    assert convert("coco", *words) == 0
    source = opened(tmp_path / "out")
    for i, example in enumerate(source):
        x0, y0, x1, y1 = labels[pathlib.Path(source.file_name(i)).stem]["head_box"]
        np.testing.assert_allclose(example["boxes"], [[y0, x0, y1, x1]], atol=1e-3)
        assert example["concepts"].mean() > 0.05
