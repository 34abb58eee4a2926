"""Figures of the occlusion experiment: their scales, their counts and what is said of them."""

import dataclasses

import numpy as np
import pytest

from mixaug_jax.draw import occlusion_figures, occlusion_tables
from mixaug_jax.occlusion import grid as grid_lib
from mixaug_jax.occlusion import outcomes

IMAGES = 12


def swept(**given):
    """A sweep of made-up numbers, of a grid some of whose cells are the same removal; the last share does harm."""
    grid = grid_lib.Grid(
        rankings=("gradient", "abs_gradient"), selections=("top", "random"), shares=(0, 5, 90),
        values=("zero", "blur"), **given,
    )  # fmt: skip
    index = grid_lib.plan(grid, (16, 16, 3)).index
    draw, removals = np.random.default_rng(0), int(index.max()) + 1
    correct = draw.random((IMAGES, removals)) < 0.9
    correct[:, 0] = True
    correct[:, np.unique(index[:, :, -1])] = draw.random((IMAGES, 1)) < 0.1
    loss = draw.random((IMAGES, removals)).astype(np.float32)
    settings = {"grid": dataclasses.asdict(grid)}
    numbers = np.arange(IMAGES)
    return outcomes.Sweep(
        labels=("true", "7"), loss=loss, correct=correct, first_order=loss, job=np.stack([numbers] * 2),
        index=index, indices=numbers, truth=numbers, predicted=numbers, settings=settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made():
    one = swept()
    return one, outcomes.outcome(one, replicates=50, flips=10)


def test_the_colors_reach_as_far_as_the_data_and_are_symmetric(made):
    one, found = made
    lowest = 100 * found.accuracy.min()
    assert lowest < -50
    figure = occlusion_figures.rises(one, found)
    for panel in figure.axes[:2]:
        norm = panel.images[0].norm
        assert norm.vmax == -norm.vmin == pytest.approx(np.abs(100 * found.accuracy).max())
        # No cell is clipped: as many colors as values.
        cells = np.asarray(panel.images[0].get_array())
        shades = panel.images[0].to_rgba(cells).reshape(-1, 4)
        assert len(np.unique(shades, axis=0)) >= len(np.unique(cells.round(3))) - 1
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "change of accuracy [points], logarithmic beyond ±1"
    labels = [text.get_text() for text in bar.get_yticklabels()]
    assert labels[0] == f"{lowest:+.3g}"
    assert labels[len(labels) // 2] == "0"


def test_ends_of_the_bar_are_said():
    assert occlusion_figures._ticks(90.0) == [-90, -10, -1, 0, 1, 10, 90]
    assert occlusion_figures._ticks(2.0) == [-2, -1, 0, 1, 2]
    assert occlusion_figures._ticks(12.345) == [-12.3, -1, 0, 1, 12.3]


def test_counts_are_over_different_removals_and_the_grid_is_said(made):
    one, found = made
    assert one.index.size == 24
    different = len(np.unique(one.index)) - 1  # number 0 removes nothing
    assert found.removals == different < 24
    rises = np.zeros_like(found.rises)
    rises[0][one.index == one.index[0, 1, 1, 0]] = True  # random: the same for both rankings
    changed = dataclasses.replace(found, rises=rises, rising=np.array([1, 0]))
    text = occlusion_tables.counted(one, changed, 0)
    assert text == f"1 of {different} different removals (2 of 24 cells)"
    why = occlusion_tables.same(one, found)
    assert f"24 cells and {different} different removals" in why
    assert "8 remove nothing" in why
    assert why in occlusion_tables.summary(one, found)
    alone = dataclasses.replace(one, index=np.arange(1, 25).reshape(one.index.shape))
    whole = dataclasses.replace(found, removals=24)
    assert occlusion_tables.same(alone, whole) == "All 24 cells of the grid are different removals."


@pytest.mark.parametrize(
    ("given", "name"),
    [({}, "pixels"), ({"window": 2}, "windows of 2 x 2"),
     ({"channels": "each"}, "pixels in single channels")],
)  # fmt: skip
def test_what_is_removed_has_its_right_name(given, name):
    one = swept(**given)
    found = outcomes.outcome(one, replicates=20, flips=2)
    figure = occlusion_figures.curves(one, found, "gradient")
    assert figure.axes[-1].get_xlabel() == f"share of the {name} removed [%], not to scale"
    assert "unit" not in occlusion_figures.curves_caption(one, found, "gradient")
    assert name in occlusion_figures.rises_caption(one, found)


def test_marks_are_seen_on_any_ground(made):
    """Black on white, and not smaller than the letters beside them."""
    one, found = made
    rises, interval = np.ones_like(found.rises), np.full_like(found.loss_interval, -1.0)
    figure = occlusion_figures.rises(
        one, dataclasses.replace(found, rises=rises, loss_interval=interval)
    )
    dots, *rings = figure.axes[0].collections
    for marks in (dots, *rings):
        assert len(marks.get_offsets()) == 24
        assert np.sqrt(marks.get_sizes()[0]) >= 5  # points
    assert (dots.get_facecolor()[0, 0], dots.get_edgecolor()[0, 0]) == (0, 1)
    assert [ring.get_edgecolor()[0, 0] > 0.9 for ring in rings] == [True, False]


def test_captions_and_alternatives_have_the_numbers(made):
    one, found = made
    assert f"parts of {IMAGES} images" in occlusion_figures.rises_caption(one, found)
    alt = occlusion_figures.rises_alt(one, found)
    assert "ranked by the loss of class 7" in alt
    assert f"{100 * found.accuracy.min():+.1f}" in alt
    caption = occlusion_figures.curves_caption(one, found, "abs_gradient")
    assert "Pixels in the order of abs gradient" in caption
    last = 100 * found.accuracy[0, 1, :, -1]
    assert f"{last.min():+.1f} to {last.max():+.1f}" in occlusion_figures.curves_alt(
        one, found, "abs_gradient"
    )
