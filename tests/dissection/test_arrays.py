"""`dissect_arrays`: what `dissect` finds from the same activations, files, and what cannot work."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest

import mixaug_jax
from mixaug_jax import dissection
from mixaug_jax.dissection import Options
from mixaug_jax.draw import dissection_tables

OPTIONS = Options(q=0.05, iou=(0.01, 0.03), shuffles=3, seed=2)


@pytest.fixture(scope="module")
def arrays():
    """Activations [9,8,8,16] and label maps [9,16,16,2]."""
    source = planted.source(9)
    activations = np.stack([planted.noise(source[i]["image"]) for i in range(9)])
    return activations, np.stack([source[i]["concepts"] for i in range(9)])


@pytest.fixture(scope="module")
def found(arrays):
    return mixaug_jax.dissect_arrays(*arrays, planted.NAMES, OPTIONS)


def test_it_is_dissect_of_the_same_activations(found):
    options = dataclasses.replace(OPTIONS, random_baseline=False, size=16)
    net = planted.net(planted.noise, channels=16)  # whose first layer is its input
    right = dissection.dissect(net, planted.source(9), ("pixels",), options)["pixels"]
    for field in ("threshold", "counts", "null", "halves", "random", "indices"):
        np.testing.assert_array_equal(getattr(found, field), getattr(right, field), err_msg=field)
    for field in ("top_images", "top_activations", "top_maps"):
        np.testing.assert_array_equal(getattr(found, field), getattr(right, field), err_msg=field)
    for field in dataclasses.fields(right.tally):
        own, other = (getattr(one.tally, field.name) for one in (found, right))
        np.testing.assert_array_equal(own, other, err_msg=field.name)
    assert found.counts.any()
    assert found.null.any()
    assert found.names == right.names
    assert found.pixels == right.pixels == 9 * 16 * 16


def test_arrays_of_any_kind_and_any_devices(arrays, found, tmp_path):
    activations, labels = arrays
    np.save(tmp_path / "activations.npy", activations)
    stored = np.load(tmp_path / "activations.npy", mmap_mode="r")
    given = (jnp.asarray(activations), jnp.asarray(labels)), (stored, labels.astype(np.int64))
    for one, devices in zip(given, (1, 4), strict=True):
        other = dissection.dissect_arrays(
            *one, planted.NAMES, OPTIONS, devices=jax.local_devices()[:devices]
        )
        np.testing.assert_array_equal(other.halves, found.halves)
        np.testing.assert_array_equal(other.top_images, found.top_images)


def test_thresholds_that_are_given(arrays):
    labels = arrays[1]
    units = (labels[..., :1] == np.arange(1, 5)).astype(np.float32)
    result = dissection.dissect_arrays(units, labels, planted.NAMES, thresholds=[0.5] * 4)
    np.testing.assert_array_equal(result.threshold, np.full(4, 0.5, np.float32))
    assert result.top_labels(1)[0][:, 0].tolist() == [1, 2, 3, 4]
    assert result.unique()[0].tolist() == [2, 1, 1]
    other = dissection.dissect_arrays(units, labels, planted.NAMES, thresholds=[0.25] * 4)
    assert other.settings != result.settings


def test_label_maps_need_not_be_square(arrays):
    activations, labels = arrays
    labels = labels[:, ::2]
    result = dissection.dissect_arrays(activations, labels, planted.NAMES, OPTIONS, layer="block 4")
    header, rows = dissection_tables.unit_rows(result)
    area = [float(row[header.index("area")]) for row in rows]
    np.testing.assert_allclose(area, result.tally.unit / labels[..., 0].size, atol=1e-6)
    assert {row[0] for row in rows} == {"block 4"}


def test_saved_loaded_and_compared(arrays, found, tmp_path):
    dissection.save(found, tmp_path / "layer.npz")
    again = dissection.load(tmp_path / "layer.npz")
    assert again.settings == found.settings
    assert again.options == dataclasses.replace(OPTIONS, random_baseline=False)
    other = dissection.dissect_arrays(-arrays[0], arrays[1], planted.NAMES, OPTIONS)
    assert other.settings["activations"] != found.settings["activations"]
    compared = dissection.compare({"a": again, "b": other})
    np.testing.assert_array_equal(compared.difference[0, ..., :3], other.counts - found.counts)
    shifted = dissection.dissect_arrays(arrays[0], arrays[1][::-1], planted.NAMES, OPTIONS)
    with pytest.raises(ValueError, match="b and a were dissected with other images"):
        dissection.compare({"a": again, "b": shifted})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": planted.NAMES[1:]}, r"names must begin with \('none', 'none'\), number 0"),
        ({"names": ["none", "red"]}, r"names must be pairs \(name, category\)"),
        ({"names": planted.NAMES[:1]}, "the vocabulary is empty"),
        ({"names": planted.NAMES[:3]}, "holds label 4; with num_concepts=3"),
        ({"options": Options(size=8)}, "size and max_images must be 0 where arrays are given"),
        ({"options": Options(max_images=8)}, "slice the arrays instead"),
        ({"segmentation": np.zeros((8, 16, 16, 2), int)}, "8 label maps for the activations of 9"),
        ({"segmentation": np.zeros((9, 16, 16), int)}, r"segmentation must be \[N,H,W,K\]"),
        ({"thresholds": [0.5]}, r"thresholds have shape \(1,\), the activations 16 units"),
        ({"activations": np.full((9, 8, 8, 16), np.nan, np.float32)}, "image 0 hold NaN"),
        ({"activations": np.zeros((9, 64, 16), np.float32)}, r"activations must be \[N,h,w,U\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(arrays, change, message):
    given = {"activations": arrays[0], "segmentation": arrays[1], "names": planted.NAMES} | change
    with pytest.raises(ValueError, match=message):
        dissection.dissect_arrays(**given)
