"""Small pictures of what moves the units: which images, where the unit is on, where its concept is."""

import collections
import dataclasses
import io

import numpy as np
import PIL.Image
import planted
import pytest

from mixaug_jax import dissection
from mixaug_jax.dissection import concepts
from mixaug_jax.draw import dissection_figures, unit_pictures

SMALL = dissection.Options(size=16, random_baseline=False, shuffles=0)
HIGH = 0.5


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return concepts.make_label_maps(planted.source(), planted.shares, tmp_path_factory.mktemp("l"))


@pytest.fixture(scope="module")
def results():
    """Layer pixels: two units that are their concepts and a dead one; layer mixed."""
    return dissection.dissect(
        planted.net(), planted.source(), ("pixels", "mixed"), SMALL,
        thresholds={"pixels": [HIGH, HIGH, 9]},
    )  # fmt: skip


def counted(source):
    """The source, and how often each of its images was read."""
    reads = collections.Counter()

    def read(index):
        reads[index] += 1
        return source.read(index)

    return dataclasses.replace(source, read=read, file_name=lambda i: f"a/{i}.png"), reads


def test_masks_are_those_of_the_counts_and_images_are_read_once(results, labels):
    source, reads = counted(planted.source())
    made = unit_pictures.make(results, source, planted.shares, labels)
    assert set(made) == set(results)
    # One more for the shape of the pictures.
    wanted = {int(i) for r in results.values() for i in r.top_images[r.tally.unit > 0].flat}
    assert set(reads) == wanted
    assert sum(reads.values()) <= len(wanted) + 1
    found, result = made["pixels"], results["pixels"]
    assert found.size == (16, 16)
    assert found.names == tuple(f"a/{i}.png" for i in found.images)
    for unit in (0, 1):
        for k, index in enumerate(result.top_images[unit]):
            image = planted.source()[int(index)]["image"]
            np.testing.assert_array_equal(found.on[unit, k], image[..., unit] == 255)
            # Each of these units is its concept, so that both masks are equal.
            np.testing.assert_array_equal(found.concept[unit, k], found.on[unit, k])


def test_a_dead_unit_has_no_pictures(results, labels):
    assert unit_pictures.dead_units(results["pixels"]).tolist() == [False, False, True]
    made = unit_pictures.make(
        {"pixels": results["pixels"]}, planted.source(), planted.shares, labels
    )["pixels"]
    assert set(made.images) == set(results["pixels"].top_images[:2].flat)
    assert not made.on[2].any()
    assert not made.concept[2].any()
    silent = dissection.dissect(
        planted.net(), planted.source(), ("pixels",), SMALL, thresholds={"pixels": [9, 9, 9]}
    )
    made = unit_pictures.make(silent, planted.source(), planted.shares, labels)["pixels"]
    assert made.sheets == ()
    assert unit_pictures.make({}, planted.source(), planted.shares, labels) == {}


def test_photos_lie_at_their_places(results, labels):
    made = unit_pictures.make(results, planted.source(), planted.shares, labels)["mixed"]
    with PIL.Image.open(io.BytesIO(made.sheets[0].tobytes())) as picture:
        sheet = np.asarray(picture.convert("RGB")).astype(int)
    for number, index in enumerate(made.images):
        top, left = unit_pictures.place(number, made.size)
        photo = sheet[top : top + 16, left : left + 16]
        image = planted.source()[int(index)]["image"].astype(int)
        others = [
            np.abs(photo - planted.source()[i]["image"]).mean() for i in range(12) if i != index
        ]
        assert np.abs(photo - image).mean() < min(others)
    assert unit_pictures.place(17, (8, 6)) == (8, 6)


def test_large_and_long_images_become_small_and_gray_ones_have_three_channels(labels, results):
    tall = planted.source(side=400)
    wide = dataclasses.replace(
        tall, read=lambda i: {"image": tall.read(i)["image"][::2, :, :1], "label": 0}
    )
    made = unit_pictures.make(results, wide, lambda image: image[..., :1] / 255, labels)["mixed"]
    assert made.size == (48, 96)
    with PIL.Image.open(io.BytesIO(made.sheets[0].tobytes())) as picture:
        assert picture.size == (16 * 96, 48)


def test_many_photos_take_several_sheets(results, labels, monkeypatch):
    monkeypatch.setattr(unit_pictures, "SHEET", 4)
    made = unit_pictures.make(results, planted.source(), planted.shares, labels)["mixed"]
    assert len(made.sheets) == -(-len(made.images) // 4)


def test_saved_and_loaded(results, labels, tmp_path):
    made = unit_pictures.make(results, planted.source(), planted.shares, labels)["mixed"]
    unit_pictures.save(made, tmp_path / "mixed.npz")
    again = unit_pictures.load(tmp_path / "mixed.npz")
    for field in dataclasses.fields(made):
        one, two = getattr(made, field.name), getattr(again, field.name)
        if field.name == "sheets":
            assert [s.tobytes() for s in one] == [s.tobytes() for s in two]
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
        else:
            assert one == two
    (tmp_path / "mixed.npz").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"mixed\.npz is no result of pictures of units"):
        unit_pictures.load(tmp_path / "mixed.npz")


def test_the_sheet_of_units_has_the_outline_of_their_concepts(results, labels):
    plain = dissection_figures.unit_sheet(results["pixels"], planted.source(), planted.shares)
    figure = dissection_figures.unit_sheet(
        results["pixels"], planted.source(), planted.shares, labels=labels
    )
    assert not any(panel.collections for panel in plain.axes)
    lines = [len(panel.collections) for panel in figure.axes]
    assert lines == [0, 2, 2, 2, 2, 2] * 2  # white on black
    index = int(results["pixels"].top_images[1, 0])
    seen = dissection_figures.where(labels, index, 2, (32, 32))
    image = planted.source()[index]["image"]
    np.testing.assert_array_equal(seen, (image[..., 1] == 255).repeat(2, 0).repeat(2, 1))
