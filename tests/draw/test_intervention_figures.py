"""Tables, figure and words of a layer's interventions."""

import dataclasses

import numpy as np
import pytest
import unit_switches

from mixaug_jax.dissection import removal_result, unit_sets
from mixaug_jax.draw import intervention_figures, intervention_tables


def of_kinds(found, *kinds):
    """The same with sets of these kinds alone."""
    kept = np.flatnonzero(np.isin(found.sets.kind, kinds))
    sets = unit_sets.UnitSets(*(values[kept] for values in vars(found.sets).values()))
    return unit_switches.intervention(
        sets=sets, predicted=found.predicted[:, kept], loss=found.loss[:, kept]
    )


def test_a_class_that_no_image_shows_has_empty_cells():
    """And no warning; importance names it all the same, as training images show it."""
    importance = np.array([[0.5, 0, 0], [0, 0, 0.1], [0, 0.2, 0], [0, 0, 0]])
    found = unit_switches.intervention(
        class_names=("a", "b", "c"), importance=importance, importance_loss=np.zeros((4, 3))
    )
    for make in intervention_tables.TABLES.values():
        header, rows = make(found)
        assert all(len(row) == len(header) for row in rows)
    header, rows = intervention_tables.unit_rows(found)
    units = [dict(zip(header, row, strict=True)) for row in rows]
    assert [unit["class"] for unit in units] == ["a", "c", "b", "a"]
    assert [unit["heldout_drop"] for unit in units] == ["0.5", "", "0", "0"]
    assert units[1]["heldout_low"] == ""
    assert [unit["concept"] for unit in units] == ["x", "y", "y", ""], "an IoU of 0 is none"


def test_concepts_and_orders():
    found = unit_switches.intervention()
    header, rows = intervention_tables.concept_rows(found)
    first = dict(zip(header, rows[0], strict=True))
    assert (first["concept"], first["detectors"], first["classes"]) == ("x", 1, "a")
    assert (float(first["drop"]), float(first["others_drop"])) == (0.5, 0)
    assert float(first["low"]) <= float(first["difference"]) <= float(first["high"])
    header, rows = intervention_tables.order_rows(found)
    high = [float(row[4]) for row in rows if row[1] == unit_sets.HIGH]
    assert high == [1, 0.5, 0.5, 0.5, 0.5]


def test_the_figure_has_a_panel_for_each_kind_of_sets():
    whole = unit_switches.intervention()
    for found, titles in (
        (whole, ["All units, one after the other", "Detectors of a concept"]),
        (of_kinds(whole, unit_sets.SINGLE), ["Single units, training images"]),
        (of_kinds(whole, unit_sets.DETECTORS, unit_sets.OTHERS), ["Detectors of a concept"]),
    ):
        figure = intervention_figures.curves(found)
        assert [panel.get_title(loc="left") for panel in figure.axes] == titles
    panel = intervention_figures.curves(whole).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
    np.testing.assert_allclose(lines[unit_sets.HIGH], [100, 50, 50, 50, 50])
    assert lines[unit_sets.LOW].tolist() == [100, 100, 100, 100, 50]


def test_what_no_image_shows_leaves_the_rest():
    """Class c has no image of its own: means are of the others."""
    drop = np.array([[0.5, 0, 0.2], [0, 0.4, 0], [0, 0, 0], [0, 0, 0]])
    sets = unit_sets.important(drop, np.zeros((4, 3)))
    whole = unit_switches.intervention(class_names=("a", "b", "c"), sets=sets)
    # Without unit 0 all is taken for b: both are told no better than by chance.
    predicted = np.where(sets.units[:, 0], 1, whole.labels[:, None]).astype(np.int32)
    found = dataclasses.replace(
        whole, predicted=predicted, loss=np.zeros(predicted.shape, np.float32)
    )
    panel = intervention_figures.curves(found).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
    # It goes first for a, second for b.
    np.testing.assert_allclose(lines[unit_sets.MOST], [100, 75, 50])
    assert "without the 2 most important units of a class its accuracy is 50 % on average" in (
        intervention_figures.alt(found)
    )
    assert "nan" not in intervention_figures.alt(found)


def test_concepts_that_only_absent_classes_show_are_left_out():
    """Concept y is shown by class c, which no image is of; of one class alone nothing is known."""
    found = unit_switches.intervention()
    detected = dataclasses.replace(
        found.detected, shown=np.array([[0, 1, 0.2], [0, 0, 0.1], [0, 0, 0.9]])
    )
    three = {"class_names": ("a", "b", "c"), "detected": detected}
    known = removal_result.harms(unit_switches.intervention(**three))
    assert [*known] == [1]
    summed = removal_result.summary(unit_switches.intervention(**three))
    assert summed["detector_harm"] == pytest.approx(0.5)
    alone = unit_switches.intervention(labels=np.zeros(40, np.int32))
    assert removal_result.harms(alone) == {}
    assert np.isnan(removal_result.summary(alone)["detector_harm"]).all()
    assert "nan" not in intervention_tables.summary(alone)
    assert intervention_tables.concept_rows(alone)[1] == []


def test_selectivity_needs_two_classes():
    means = np.array([[3.0, 1], [1, 1], [np.nan, np.nan]])
    chosen, index = removal_result.selectivity(means)
    assert chosen.tolist() == [0, 0]
    np.testing.assert_allclose(index, [0.5, 0])
    chosen, index = removal_result.selectivity(means[[2, 0]])
    assert chosen.tolist() == [1, 1]
    assert np.isnan(index).all()
    with pytest.raises(ValueError, match="no class has images"):
        removal_result.selectivity(means[2:])


def test_what_is_said():
    found = unit_switches.intervention()
    text = intervention_tables.summary(found)
    assert text.startswith("layer4: 4 units, 40 images, balanced accuracy 100.0 % with all units")
    assert "without one unit: on average -12.50 points, at worst -50.0 (unit 0)" in text
    harm = removal_result.summary(found)["detector_harm"][0]
    assert harm > 0
    assert "without a concept's detectors its classes lose 25.0 points" in text
    assert "In the place of activations stands 0." in intervention_figures.caption(found)
    area = removal_result.area(found, unit_sets.HIGH)[0]
    assert f"high IoU first: {area:.2f}" in intervention_figures.alt(found)
    assert area == pytest.approx(0.5625)
