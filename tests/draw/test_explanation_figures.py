"""Figures of explanations."""

import numpy as np

from mixaug_jax.draw import explanation_figures


def test_gallery():
    """A panel each, in their order; a map that is negative everywhere says so and hides nothing of the others."""
    image = np.full((8, 6, 3), 200, np.uint8)
    mask = np.zeros((8, 6), bool)
    mask[2:5, 1:4] = True
    bright = np.zeros((8, 6), np.float32)
    bright[2, 1] = 1
    maps = {"one": bright, "all_negative": bright - 2, "not_finite": bright + np.nan, "two": bright}
    figure = explanation_figures.gallery(image, maps, mask, columns=3)
    axes = figure.axes
    assert len(axes) == 6
    titles = ["image", "one", "all\nnegative", "not\nfinite", "two", ""]
    assert [panel.get_title() for panel in axes] == titles
    words = [[text.get_text() for text in panel.texts] for panel in axes]
    assert words == [[], [], ["nothing"], ["nothing"], [], []]
    shown = [panel.images[0].get_array() if panel.images else None for panel in axes]
    np.testing.assert_array_equal(shown[0], image)
    np.testing.assert_array_equal(shown[1], explanation_figures.blend(image, bright))
    np.testing.assert_array_equal(shown[2], image // 3)
    assert shown[5] is None
    assert [len(panel.collections) > 0 for panel in axes] == [True, True, False, False, True, False]


def test_gallery_of_a_gray_image_without_a_region():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    figure = explanation_figures.gallery(image, {"one": np.ones((4, 4))}, np.zeros((4, 4), bool))
    first = figure.axes[0]
    np.testing.assert_array_equal(first.images[0].get_array(), image.repeat(3, -1))
    assert not first.collections
