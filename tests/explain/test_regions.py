"""Where explanations should point: masks from a data set's boxes and concepts."""

import numpy as np
import pytest

from mixaug_jax.data.source import Source
from mixaug_jax.explain import regions


def example(**fields):
    return {"image": np.zeros((4, 6, 3), np.uint8), **fields}


def annotated(**fields):
    return Source(lambda i: example(), 1, ("cat", "dog"), **fields)


CONCEPTS = (("none", "none"), ("dog", "object"), ("tree", "object"), ("grass", "material"))


def test_masks_of_the_class():
    concepts = np.zeros((4, 6, 2), np.uint8)
    concepts[1:3, 2:4, 0] = 1
    concepts[0, :, 1] = 2
    concepts[3, :, 0] = 3
    find = regions.finder(
        annotated(concept_names=CONCEPTS), regions.own_classes(("cat", "dog")), "auto"
    )
    assert find.kind == "class_masks"
    mask, classes = find(example(concepts=concepts), 1)
    np.testing.assert_array_equal(mask, concepts[..., 0] == 1)
    assert classes == 2  # a dog and a tree
    mask, classes = find(example(concepts=concepts), 0)
    assert (mask.any(), classes) == (False, 2)
    assert find(example(), 1)[0].shape == (4, 6)
    everything = regions.finder(annotated(concept_names=CONCEPTS), {}, "masks")
    mask, _ = everything(example(concepts=concepts), 0)
    np.testing.assert_array_equal(mask, (concepts == 1).any(-1) | (concepts == 2).any(-1))


def test_boxes_of_the_class_and_all_of_them():
    boxes = np.float32([[0, 0, 2, 3], [1.4, 2.6, 3.6, 9.0], [0, 0, 0.3, 0.3]])
    given = example(boxes=boxes, box_labels=np.int32([1, 0, 1]))
    source = annotated(box_names=("cat", "dog"))
    find = regions.finder(source, regions.own_classes(("cat", "dog")))
    assert find.kind == "class_boxes"
    mask, classes = find(given, 1)
    expected = np.zeros((4, 6), bool)
    expected[0:2, 0:3] = True  # the last box holds no pixel's center
    np.testing.assert_array_equal(mask, expected)
    assert classes == 2
    union, _ = regions.finder(source, {}, "boxes")(given, 1)
    expected[1:4, 3:6] = True
    np.testing.assert_array_equal(union, expected)
    head = annotated(box_names=("cat", "dog", "head"), concept_names=CONCEPTS[:1] + CONCEPTS[2:])
    assert regions.finder(head, {}).kind == "boxes"
    assert regions.finder(annotated(), {}).kind == ""
    with pytest.raises(
        ValueError, match=r"region='class_boxes'.*it has boxes, masks .boxes are named cat"
    ):
        regions.finder(head, {}, "class_boxes")


def test_names_of_coco_on_a_net_of_imagenet():
    boxes = np.float32([[0, 0, 2, 2], [2, 2, 4, 4]])
    given = example(boxes=boxes, box_labels=np.int32([0, 1]))
    source = Source(lambda i: given, 1, ("photo",), box_names=("person", "dog", "cat"))
    shows = regions.imagenet_classes(source)
    assert shows["person"] == frozenset()
    assert 207 in shows["dog"]  # golden retriever
    assert 281 in shows["cat"]  # tabby
    find = regions.finder(source, shows)
    assert find.kind == "class_boxes"
    assert set(find.candidates(given)) == shows["dog"]
    mask, classes = find(given, 207)
    assert (mask.sum(), classes) == (4, 2)
    assert mask[2:4, 2:4].all()


def test_boxes_of_imagenets_validation_set(tmp_path):
    path = tmp_path / "LOC_val_solution.csv"
    path.write_text(
        "ImageId,PredictionString\nval_1,dog 1 0 3 2 cat 4 2 99 4 \nval_2,wolf 0 0 1 1\n"
    )
    names = ("val_1.JPEG", "val_2.JPEG", "val_3.JPEG")
    source = Source(lambda i: example(label=1), 3, ("cat", "dog"), file_name=lambda i: names[i])
    with_boxes = regions.add_boxes(source, path)
    assert with_boxes.box_names == ("cat", "dog", "wolf")
    first = with_boxes[0]
    np.testing.assert_array_equal(first["boxes"], np.float32([[0, 1, 2, 3], [2, 4, 4, 6]]))
    assert first["box_labels"].tolist() == [1, 0]
    assert with_boxes[1]["box_labels"].tolist() == [2]
    assert with_boxes[2]["boxes"].shape == (0, 4)
    find = regions.finder(with_boxes, regions.own_classes(("cat", "dog")))
    assert find(first, 1)[0].sum() == 4
    with pytest.raises(
        ValueError, match="by their files' names, which this data set does not have"
    ):
        regions.add_boxes(annotated(), path)
    for text in (
        "file,box\na,b\n",
        "ImageId,PredictionString\na,dog 1 2 3\n",
        "ImageId,PredictionString\na\n",
    ):
        path.write_text(text)
        with pytest.raises(
            ValueError, match="must be a CSV with the columns ImageId and PredictionString"
        ):
            regions.add_boxes(source, path)


def boxed(tmp_path, text, names=("val_1.JPEG", "val_2.JPEG")):
    (tmp_path / "boxes.csv").write_bytes(text)
    source = Source(
        lambda i: example(label=1), len(names), ("cat", "dog"), file_name=names.__getitem__
    )
    return regions.add_boxes(source, tmp_path / "boxes.csv")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_boxes_by_whole_names_in_several_rows_and_behind_a_byte_order_mark(tmp_path, mark):
    rows = (
        b"ImageId,PredictionString\nval_1.JPEG,dog 1 0 3 2\nval_2,dog 0 0 1 1\nval_1,cat 4 2 6 4\n"
    )
    source = boxed(tmp_path, mark + rows + b"val_1.JPEG,dog 0 0 1 1\n")
    first = source[0]
    np.testing.assert_array_equal(
        first["boxes"], np.float32([[0, 1, 2, 3], [0, 0, 1, 1], [2, 4, 4, 6]])
    )
    assert first["box_labels"].tolist() == [1, 1, 0]
    assert len(source[1]["boxes"]) == 1


@pytest.mark.parametrize("box", ["nan 0 3 2", "1 0 inf 2", "3 0 1 2", "1 2 3 2", "1 0 1 2"])
def test_boxes_that_are_none(tmp_path, box):
    rows = f"ImageId,PredictionString\nval_1,dog 1 0 3 2 dog {box}\nval_2,cat {box}\n"
    with pytest.raises(
        ValueError, match=r"x0 < x1 and y0 < y1: 2 are not, such as dog .* of val_1$"
    ):
        boxed(tmp_path, rows.encode())


def test_boxes_of_other_images_and_of_images_that_are_called_alike(tmp_path, monkeypatch, capsys):
    rows = b"ImageId,PredictionString\nval_7,dog 1 0 3 2\n"
    sentence = "none of 2 images is in the boxes .*called like 'val_1.JPEG', its rows like 'val_7'"
    with pytest.raises(ValueError, match=sentence):
        boxed(tmp_path, rows)
    with pytest.raises(ValueError, match="have 'val_7', as which several images are called"):
        boxed(tmp_path, rows, ("val_7.JPEG", "val_7.png"))
    with pytest.raises(ValueError, match="must be a CSV with the columns"):
        boxed(tmp_path, b"\xff\xfe" + rows)
    monkeypatch.setattr(regions, "_NAMES", 1)
    boxed(tmp_path, rows, ("val_1.JPEG", "val_7.JPEG"))
    assert "none of 1 images is in the boxes" in capsys.readouterr().err


PART_NAMES = ("none", "rim", "white half", "cell 0", "cell 1")


def test_parts():
    """The part that tells the explained class, and others that count for every class."""
    parts = np.uint8([[0, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 0], [0] * 6, [0] * 6])
    source = annotated(part_names=PART_NAMES, class_parts=(3, 4), concept_names=CONCEPTS)
    given = example(parts=parts)
    cases = {
        "auto": ([3], [4]),
        "parts:class": ([3], [4]),
        "parts:class,white half": ([3, 2], [4, 2]),
        "parts:rim, cell 1": ([1, 4], [1, 4]),
    }
    for kind, wanted in cases.items():
        find = regions.finder(source, {}, kind)
        for label, numbers in enumerate(wanted):
            mask, _ = find(given, label)
            np.testing.assert_array_equal(mask, np.isin(parts, numbers))
        # What a result notes finds the same again.
        assert regions.finder(source, {}, find.kind) == find
    assert regions.finder(source, {})(given, 0)[1] == 2  # two cells are seen
    hidden = np.where(parts == 3, 0, parts)
    mask, kinds = regions.finder(source, {}, "parts:class")(example(parts=hidden), 0)
    assert (mask.any(), kinds) == (False, 1)


@pytest.mark.parametrize(
    ("known", "kind", "words"),
    [
        ({}, "parts:class", "region='parts:class', but this data set knows no parts"),
        ({"part_names": PART_NAMES}, "parts:class", "each part of region must be one of rim, white half, .*; got 'class'"),
        ({"part_names": PART_NAMES, "class_parts": (3, 4)}, "parts:white hall", "one of class, .*mean 'white half'"),
        ({"part_names": PART_NAMES, "class_parts": (3, 4)}, "parts:none", "each part of region must be one of class, rim"),
    ],
)  # fmt: skip
def test_parts_that_are_none(known, kind, words):
    with pytest.raises(ValueError, match=words):
        regions.finder(annotated(**known), {}, kind)
