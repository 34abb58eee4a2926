"""TFDS sets in array_record, made here by a tiny builder, read without TensorFlow."""

import io
import sys

import ml_collections
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from mixaug_jax import data

CLASSES = ["ant", "bee", "cat"]
PARTS = ["head", "tail"]


def picture(index):
    """A gray, an RGB or a CMYK image of odd size, as the bytes of a file."""
    mode = ["L", "RGB", "CMYK"][index % 3]
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(index).integers(0, 256, (11 + index, 7, *channels), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(file, "JPEG" if mode == "CMYK" else "PNG")
    return file.getvalue()


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Six pictures with two boxes for even ones and none for odd ones."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        f = tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            features=f.FeaturesDict(
                {
                    "image": f.Image(),
                    "label": f.ClassLabel(names=CLASSES),
                    "objects": f.Sequence(
                        {"bbox": f.BBoxFeature(), "label": f.ClassLabel(names=PARTS)}
                    ),
                    "mask": f.Image(shape=(None, None, 1)),
                    "note": f.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(6)), "test": self._generate_examples([1])}

    def _generate_examples(self, indices):
        for index in indices:
            boxes = [(0.0, 0.25, 0.5, 1.0), (0.5, 0.0, 1.0, 0.5)] if index % 2 == 0 else []
            objects = [
                {"bbox": tfds.features.BBox(*box), "label": number}
                for number, box in enumerate(boxes)
            ]
            image = b"no picture" if index == 5 else picture(index)
            example = {"image": image, "mask": picture(0), "label": index % 3}
            yield index, example | {"objects": objects, "note": str(index)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    Tiny(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def config(root, name="tiny", corrupt="skip"):
    return ml_collections.ConfigDict(
        {"seed": 0, "data": {"name": name, "dir": str(root), "corrupt": corrupt}}
    )


def test_examples(root):
    source = data.open_source("train", config(root))
    assert (len(source), source.class_names, source.box_names) == (6, tuple(CLASSES), tuple(PARTS))
    shapes = set()
    for index in range(6):
        example = source[index]
        height, width, channels = example["image"].shape
        assert (example["image"].dtype, width, channels) == (np.uint8, 7, 3)
        shapes.add(height)
        original = PIL.Image.open(io.BytesIO(picture(height - 11))).convert("RGB")
        np.testing.assert_array_equal(example["image"], np.asarray(original))
        assert example["label"] == (height - 11) % 3
        assert example["boxes"].dtype == np.float32
        assert example["box_labels"].dtype == np.int32
        if height % 2 == 0:
            assert example["boxes"].shape == (0, 4)
            assert example["box_labels"].shape == (0,)
        else:
            expected = [[0, 1.75, height / 2, 7], [height / 2, 0, height, 3.5]]
            np.testing.assert_allclose(example["boxes"], expected)
            np.testing.assert_array_equal(example["box_labels"], [0, 1])
    # Image 5 is damaged: its neighbor stands in for it.
    assert shapes == {11, 12, 13, 14, 15}


def test_without_annotations_and_slices(root):
    source = data.open_source("train[:50%]", config(root), annotations=False)
    assert len(source) == 3
    assert set(source[0]) == {"image", "label"}
    assert source.box_names == ()


def test_no_tensorflow(root):
    data.open_source("test", config(root))[0]
    assert "tensorflow" not in sys.modules


def test_damaged_image_is_named(root):
    source = data.open_source("train", config(root, corrupt="error"))
    errors = []
    for index in range(6):
        try:
            source[index]
        except ValueError as error:
            errors.append((index, str(error)))
    [(index, message)] = errors
    assert f"data.name=tiny: image {index} of split train cannot be read" in message


@pytest.mark.parametrize("split", ["val", "", "train[", "train[:200%]", "train[5:3]", "train[:0]"])
def test_wrong_split_lists_the_right_ones(root, split):
    with pytest.raises(ValueError, match=r"has no split '.*: it has train \(6\), test \(1\)"):
        data.open_source(split, config(root))


def test_missing_set_says_how_to_prepare_it(tmp_path):
    with pytest.raises(ValueError, match="not prepared in") as caught:
        data.SOURCES["cifar10"]("train", config(tmp_path, "cifar10"))
    assert (
        "python -c \"import tensorflow_datasets as tfds; tfds.builder('cifar10',"
        f" file_format='array_record', data_dir='{tmp_path}').download_and_prepare()\""
    ) in str(caught.value)
    assert "mixaug_jax[prepare]" in str(caught.value)


@pytest.mark.parametrize("name", ["cifr10", "", "no such set", "a/b/c/d"])
def test_unknown_set_lists_the_known(tmp_path, name):
    with pytest.raises(ValueError, match=r"data\.name must be scenes, folder.*cifar10.* got "):
        data.open_source("train", config(tmp_path, name))


def test_tfrecord_is_refused(root, tmp_path):
    Tiny(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    info = tmp_path / "tiny" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"as tfrecord, which only TensorFlow reads.*data\.dir="):
        data.open_source("train", config(tmp_path))


def test_damaged_files(tmp_path):
    Tiny(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    [train] = (tmp_path / "tiny" / "1.0.0").glob("tiny-train*")
    [test] = (tmp_path / "tiny" / "1.0.0").glob("tiny-test*")
    train.unlink()
    with pytest.raises(ValueError, match=f"incomplete: {train} is missing"):
        data.open_source("train[:50%]", config(tmp_path))
    test.write_bytes(test.read_bytes()[: test.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"image 0 of split test cannot be read"):
        data.open_source("test", config(tmp_path, corrupt="error"))[0]


class Unlabeled(tfds.core.GeneratorBasedBuilder):
    """A label for some, none for the rest, and a single box."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        f = tfds.features
        features = {
            "image": f.Image(),
            "label": f.ClassLabel(names=CLASSES),
            "bbox": f.BBoxFeature(),
        }
        return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(2), "test": self._generate_examples(-1)}

    def _generate_examples(self, label):
        box = tfds.features.BBox(0.0, 0.0, 1.0, 0.5)
        yield 0, {"image": picture(1), "label": label, "bbox": box}


class Regression(tfds.core.GeneratorBasedBuilder):
    """No label at all."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": picture(1)}


def test_single_box_has_the_images_label(tmp_path):
    Unlabeled(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = data.open_source("train", config(tmp_path, "unlabeled"))
    assert source.box_names == source.class_names
    np.testing.assert_allclose(source[0]["boxes"], [[0, 0, 12, 3.5]])
    np.testing.assert_array_equal(source[0]["box_labels"], [2])
    with pytest.raises(ValueError, match="split test has no labels"):
        data.open_source("test", config(tmp_path, "unlabeled"))[0]


def test_set_without_labels_is_refused(tmp_path):
    Regression(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(ValueError, match="needs the features image and label"):
        data.open_source("train", config(tmp_path, "regression"))
