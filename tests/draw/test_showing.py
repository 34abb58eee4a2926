"""Pictures for a notebook: what stands where in them, and two dissections side by side."""

import sys

import numpy as np
import pytest

import mixaug_jax
from mixaug_jax.core import frames
from mixaug_jax.draw import explanation_figures, showing
from mixaug_jax.models import Preprocess


def photos(sizes=((12, 9), (8, 8))):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_show_draws_every_map_over_its_image():
    images = photos()
    heats = {"left": [np.eye(*image.shape[:2]) for image in images], "flat": np.zeros((2, 3, 3))}
    figure = mixaug_jax.show(images, heats, titles=("one", "two"))
    panels = [panel for panel in figure.axes if panel.images]
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert titles == ["image", "left", "flat"]
    np.testing.assert_array_equal(panels[0].images[0].get_array(), images[0])
    shown = panels[1].images[0].get_array()
    np.testing.assert_array_equal(shown, explanation_figures.blend(images[0], np.eye(12, 9)))
    texts = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert texts == ["one", "all zeros", "two", "all zeros"]


def test_show_takes_one_image_and_attributions():
    image = photos()[0]
    raw = np.random.default_rng(1).normal(size=(12, 9, 3)).astype(np.float32)
    panels = [p for p in mixaug_jax.show(image, raw).axes if p.images]
    assert len(panels) == 2
    expected = explanation_figures.blend(image, raw.sum(-1))
    np.testing.assert_array_equal(panels[1].images[0].get_array(), expected)
    gray = mixaug_jax.show(image[..., 0], raw, reduce="abs_sum")
    assert sum(bool(panel.images) for panel in gray.axes) == 2


def test_show_cuts_photographs_as_the_network_sees_them():
    view = Preprocess(size=8, resize=10)
    (image,) = photos(((20, 30),))
    panels = [p for p in mixaug_jax.show([image], [np.ones((8, 8))], view=view).axes if p.images]
    seen = np.rint(255 * (view(image) * view.std + view.mean))
    np.testing.assert_array_equal(panels[0].images[0].get_array(), seen)


def test_overlay_enlarges_bilinearly():
    image, heat = photos(((8, 8),))[0], np.array([[0.0, 0], [0, 1]], np.float32)
    fine = showing._resized(heat, (8, 8))
    # The nodes are the centers of quarters: constant beyond them, straight between.
    np.testing.assert_allclose(fine[7, :2], 0)
    np.testing.assert_allclose(fine[7, 2:6], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(fine[6:, 6:], 1)
    shown = mixaug_jax.overlay(image, heat)
    np.testing.assert_array_equal(shown, explanation_figures.blend(image, fine))
    assert mixaug_jax.overlay(image, -heat).std(-1).max() < 12  # nothing but gray: inferno's black


@pytest.mark.parametrize(
    ("images", "heats", "sentence"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), np.ones((3, 8, 8)), "2 images and 3 maps of heat map"),
        (np.zeros((8, 8, 3)), np.ones((8, 8)), "images must be uint8"),
        (np.zeros((8, 8, 3), np.uint8), np.ones(8), r"must be \[h,w\] or \[h,w,C\]; got \[8\]"),
    ],
)
def test_what_does_not_fit_is_said(images, heats, sentence, unchecked):
    with pytest.raises(ValueError, match=sentence):
        mixaug_jax.show(images, heats)
    with pytest.raises(ValueError, match=r"'absum' \(did you mean 'abs_sum'"):
        mixaug_jax.show(np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 8, 8)), reduce="absum")
    with pytest.raises(ValueError, match="heat must be finite"):
        mixaug_jax.overlay(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), np.nan))


def dissections():
    """Of the same label maps, by units that detect two concepts and by units that detect none."""
    rng = np.random.default_rng(0)
    segmentation = rng.choice(3, (24, 8, 8, 1), p=(0.96, 0.02, 0.02))
    planted = np.stack([segmentation[..., 0] == c for c in (1, 2)], -1).astype(np.float32)
    names = (("none", "none"), ("wheel", "part"), ("red", "color"))
    noise = rng.random(planted.shape, np.float32)
    given = {"planted": planted + noise / 9, "noise": noise}
    return {n: mixaug_jax.dissect_arrays(a, segmentation, names) for n, a in given.items()}


def test_compare_has_a_table_and_figures():
    both = dissections()
    found = mixaug_jax.compare(both)
    planted, noise = (int(both[name].unique()[0].sum()) for name in both)
    lines = found.table().splitlines()
    assert lines[0].split() == ["unique", "concepts", "planted", "noise"]
    assert lines[1].split()[:5] == ["IoU", ">", "0.03", str(planted), f"{noise},"]
    assert lines[1].split()[5] == f"{noise - planted:+d}"
    assert [len(found.figure().axes), len(found.differences().axes)] == [3, 3]
    two = mixaug_jax.compare(both["planted"], both["noise"], names=("a", "b"))
    assert two.names == ("a", "b")
    np.testing.assert_array_equal(two.difference, found.difference)
    with pytest.raises(ValueError, match="compare takes two dissections and two names"):
        mixaug_jax.compare(both["planted"])


def test_compare_as_a_frame():
    pytest.importorskip("pandas", reason="the extra `test` brings it")
    found = mixaug_jax.compare(dissections())
    table = found.to_frame()
    assert len(table) == found.difference.size
    row = table[(table.per == "unit") & (table.counted == "unique") & (table.category == "total")]
    np.testing.assert_array_equal(row.difference, found.difference[0, 0, 1, :, -1])
    assert set(table.run) == {"noise"}


def test_a_dissection_as_a_frame():
    pytest.importorskip("pandas", reason="the extra `test` brings it")
    result = dissections()["planted"]
    table = result.to_frame()
    assert list(table.concept) == ["wheel", "red"]
    assert list(table.category) == ["part", "color"]
    np.testing.assert_array_equal(table.iou, result.iou().max(1))
    assert set(table.file) == {""}


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'mixaug_jax\[frames\]'"):
        frames.frame({"a": [1]})
