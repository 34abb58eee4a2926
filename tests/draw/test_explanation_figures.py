"""Figures of explanations."""

import dataclasses

import explain_cases
import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from mixaug_jax.attribution import control_names
from mixaug_jax.draw import explanation_captions, explanation_figures
from mixaug_jax.explain import examples


@pytest.fixture(scope="module")
def net():
    return explain_cases.small_net()


@pytest.fixture(scope="module")
def found(net):
    """The gradient and the controls; a map of zeros, and one of NaN."""
    found = explain_cases.evaluate(net, scores=("pointing_game", "lerf"))
    heat = found["gradient"].heat.copy()
    heat[0], heat[1] = 0, np.nan
    return found | {"gradient": dataclasses.replace(found["gradient"], heat=heat)}


def test_overlays(net, found):
    """They are drawn of maps that say nothing; images without a region are left out where others have one."""
    dataset = dataclasses.replace(explain_cases.source(), file_name=lambda i: f"a/b/photo {i}.jpg")
    find = examples.finder(net, dataset, "true", "auto")
    shown = examples.load_examples(net, dataset, find)
    figure = explanation_figures.overlays(
        found, shown, dataset, net.preprocess, class_names=dataset.class_names
    )
    *panels, bar = figure.axes
    grid = np.reshape(panels, (5, 6))  # of seven images, two are without a region
    assert bar.get_xlabel().startswith("positive attribution")
    # What is explained, what the network says with which probability, and which image it is.
    logits = np.asarray(net.logits(shown.images))
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = np.flatnonzero(shown.masks.any((1, 2)))
    for row, panel in zip(rows, grid[:, 0], strict=True):
        said = panel.texts[0].get_text().split("\n")
        index = int(shown.indices[row])
        assert said == [
            f"explained: class {shown.labels[row]}",
            *f"predicted: class {share[row].argmax()}, {share[row].max():.0%}".rsplit(" ", 1),
            f"image {index}",
            f"photo {index}.jpg",
        ]
        assert shown.probabilities[row] == pytest.approx(share[row].max(), abs=1e-5)
    words = [text.get_text() for panel in grid[:, 1:].flat for text in panel.texts]
    assert words == ["all zeros", "NaN or\ninfinite"]
    unnamed = explanation_figures.overlays(found, shown, explain_cases.source(), net.preprocess)
    said = unnamed.axes[0].texts[0].get_text().split("\n")
    assert said[-1] == f"image {shown.indices[rows[0]]}"


def test_rows_are_level_and_titles_inside():
    """Beside the bar of colors, too, and where a title has two lines."""
    images, heats = np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 8, 8))
    hits = {"two_lines": np.ones(2), "one": np.ones(2)}
    figure = explanation_figures.sheet(
        images, np.zeros((2, 8, 8), bool), dict.fromkeys(hits, heats), hits, ("a", "b")
    )
    figure.draw_without_rendering()
    *panels, bar = figure.axes
    for row in np.reshape(panels, (2, 4)):
        assert len({round(panel.get_window_extent().y0, 3) for panel in row[1:]}) == 1
    for text in (*(panel.title for panel in panels), bar.xaxis.label):
        box = text.get_window_extent()
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


def test_colors_of_the_bar_are_those_of_the_maps():
    image = np.full((1, 3, 3), 128, np.uint8)
    heat = np.float32([[0, 0.5, 1]])
    figure = explanation_figures.sheet(
        [image], np.zeros((1, 1, 3), bool), {"one": heat[None]}, {"one": np.array([np.nan])}
    )
    assert len(figure.axes) == 3
    pixels = explanation_figures.blend(image, heat)
    bar = next(c for c in figure.axes[-1].collections if isinstance(c, QuadMesh))
    colors = 255 * bar.get_cmap()([0.0, 0.5 / 0.995, 1.0])[:, :3]
    np.testing.assert_allclose(pixels[0], colors, atol=3)


def test_captions_of_overlays_count_empty_maps():
    told = {
        "gradcam": {"empty": 16, "images": 50},
        "gradient": {"empty": 0, "images": 50},
        "old": {},
    }
    text = explanation_captions.overlays_caption(told)
    assert text.endswith("Maps that are zero everywhere or not finite: gradcam 16 of 50.")
    assert "zero everywhere" not in explanation_captions.overlays_caption({"gradient": {}})
    assert explanation_captions.overlays_alt(told).endswith("heat map by gradcam, gradient, old")


def test_captions_of_curves_have_the_number_of_images_and_the_ends(found):
    told = {
        name: one.entries | {"images": len(one.indices), "empty": 0} for name, one in found.items()
    }
    text = explanation_captions.faithfulness_caption(told)
    assert "over 7 images" in text
    assert "LeRF area" in text
    rows = [
        {"method": "gradient", "score": "lerf", "mean": 0.25},
        {"method": "my_own", "score": "lerf", "mean": 0.5},
        {"method": "random", "score": "lerf", "mean": float("nan")},
        {"method": "random", "score": "pointing_game", "mean": 0.9},
    ]
    alt = explanation_captions.faithfulness_alt(told, rows)
    assert alt == "line charts; LeRF area: areas from gradient 0.250 to my own 0.500"
    assert explanation_captions.faithfulness_alt({}, rows) == "line charts"


def test_curves(found):
    figure = explanation_figures.faithfulness(found)
    (panel,) = figure.axes
    assert panel.get_title() == "LeRF area: higher is better"
    assert panel.get_xlabel() == "share of the tiles removed, least relevant first"
    assert panel.get_ylabel() == "probability of the class"
    assert len(panel.lines) == 4
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    areas = [float(text.split()[-1]) for text in legend]
    assert areas == sorted(areas, reverse=True)
    colors = {line.get_label().split()[0]: line.get_color() for line in panel.lines}
    assert len({colors[control] for control in control_names()}) == 1
    assert colors["gradient"] not in {colors[control] for control in control_names()}
    bare = {k: dataclasses.replace(v, curves={}) for k, v in found.items()}
    assert not explanation_figures.faithfulness(bare).axes


@pytest.mark.parametrize(
    ("better", "said"), [(-1, ": lower is better"), (0, ""), (1, ": higher is better")]
)
def test_what_a_curve_is_stands_in_the_results(found, better, said):
    """Of a score that the package does not have; its points at unequal distances."""
    count = found["gradient"].curves["lerf"].shape[1]
    places = np.arange(count) ** 2 / 100
    facts = found["gradient"].entries["scores"]["lerf"] | {
        "better": better, "title": "my curve", "axis": "my axis", "output": "", "positions": [*places],
    }  # fmt: skip
    own = {
        name: dataclasses.replace(
            one,
            scores={"mine": one.scores["lerf"]},
            curves={"mine": one.curves["lerf"]},
            entries=one.entries | {"scores": {"mine": facts}},
        )
        for name, one in found.items()
    }
    (panel,) = explanation_figures.faithfulness(own, replicates=5).axes
    assert panel.get_title() == f"my curve{said}"
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("my axis", "output of the class")
    np.testing.assert_allclose(panel.lines[0].get_xdata(), places)
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    areas = [float(text.split()[-1]) for text in legend]
    assert areas == sorted(areas, reverse=better > 0)


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
    assert words == [[], [], ["nothing\npositive"], ["NaN or\ninfinite"], [], []]
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
