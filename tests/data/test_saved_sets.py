"""A set of Hugging Face's datasets that was saved to disk: columns, boxes, splits, and what is refused."""

import numpy as np
import PIL.Image
import pytest
from own_folder import config

from mixaug_jax import data
from mixaug_jax.core import say
from mixaug_jax.data import saved_sets

datasets = pytest.importorskip("datasets", reason="the extra `test` brings it")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def pixels(seed, size=(9, 7)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def table(count, *, several=False, objects=True):
    label = datasets.ClassLabel(names=["cat", "dog", "ant"])
    columns = {"image": datasets.Image(), "label": datasets.List(label) if several else label}
    rows = {"image": [PIL.Image.fromarray(pixels(k)) for k in range(count)]}
    rows["label"] = [[k % 3, 2] if several else k % 3 for k in range(count)]
    if objects:
        box = {"bbox": datasets.List(datasets.Value("float32"), length=4)}
        columns["objects"] = datasets.List(box | {"category": datasets.ClassLabel(names=["head", "tail"])})  # fmt: skip
        rows["objects"] = [[{"bbox": [1, 2, 3, 4], "category": 1}] * (k % 2) for k in range(count)]
    return datasets.Dataset.from_dict(rows, features=datasets.Features(columns))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setitem(say._console, "said", set())
    datasets.disable_progress_bars()


def opened(folder, split, **change):
    return data.open_source(split, config(folder, **({"name": "hf"} | change)))


def test_pixels_labels_and_boxes(tmp_path):
    datasets.DatasetDict(train=table(4), val=table(2)).save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set", "train")
    assert source.class_names == ("cat", "dog", "ant")
    assert source.box_names == ("head", "tail")
    for k in range(4):
        np.testing.assert_array_equal(source[k]["image"], pixels(k))
        assert source[k]["label"] == k % 3
    # x, y, width, height there; rows before columns, and ends, here.
    np.testing.assert_array_equal(source[1]["boxes"], [[2, 1, 6, 4]])
    np.testing.assert_array_equal(source[1]["box_labels"], [1])
    assert source[0]["boxes"].shape == (0, 4)
    assert len(opened(tmp_path / "set", "validation")) == 2
    assert not saved_sets.present(str(tmp_path / "set"), "test")
    auto = config(tmp_path / "set", name="hf", test_split="auto")
    assert data.settled(auto).data.test_split == ""


def test_a_share_is_set_aside(tmp_path, capsys):
    table(10, objects=False).save_to_disk(tmp_path / "set")
    train, held = (
        opened(tmp_path / "set", s, validation_share=0.3) for s in ("train", "validation")
    )
    seen = {source[k]["image"].tobytes() for source in (train, held) for k in range(len(source))}
    assert (len(train), len(held), len(seen)) == (7, 3, 10)
    assert "30 % of train are set aside" in capsys.readouterr().out


def test_images_of_several_classes(tmp_path):
    datasets.DatasetDict(train=table(3, several=True, objects=False)).save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set", "train")
    assert source.multi_label
    np.testing.assert_array_equal(source[1]["targets"], [0, 1, 1])
    assert source[1]["label"] == 1


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a folder that save_to_disk wrote"):
        opened(tmp_path, "train")
    datasets.DatasetDict(train=table(2)).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match="the split must be one of train; got 'tset'"):
        opened(tmp_path / "set", "tset")
    plain = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    plain.save_to_disk(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"no set for classification: .* has text \(Value\)"):
        opened(tmp_path / "plain", "train")
