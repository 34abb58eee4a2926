"""Which units are removed together, and the numbers that sum their removal up."""

import dataclasses

import numpy as np
import pytest
import unit_switches

from mixaug_jax.dissection import intervening, removal_result, unit_sets
from mixaug_jax.dissection import removal_rates as rates


def test_important_units_by_drop_and_of_equal_drops_by_loss():
    drop = np.array([[0.1, 0], [0.3, 0], [0.1, 0], [0, 0], [0.2, 0]])
    loss = np.array([[0.0, 1], [0, 2], [0.5, 3], [0, 4], [0, 5]])
    found = unit_sets.important(drop, loss)
    assert found.sizes.tolist() == [1, 2, 4] * 4
    most, least = found.find(unit_sets.MOST, 0), found.find(unit_sets.LEAST, 0)
    # Unit 2 before unit 0, which drops as much and costs less loss.
    orders = [np.flatnonzero(found.units[place]).tolist() for place in (*most, *least)]
    assert orders == [[1], [1, 4], [0, 1, 2, 4], [3], [0, 3], [0, 2, 3, 4]]
    assert np.flatnonzero(found.units[found.find(unit_sets.MOST, 1)[1]]).tolist() == [3, 4]
    missing = np.where([True, False], np.nan, drop)
    assert len(unit_sets.important(missing, loss)) == 6, "a class without images has none"


def test_detectors_beside_equally_many_others():
    label = np.array([1, 1, 2, 2, 3, 1, 3, 2, 4, 4])
    iou = np.array([0.5, 0.1, 0.3, 0.01, 0.2, 0.2, 0.3, 0.4, 0.01, 0.0])
    found = unit_sets.detectors(label, iou, 0.04, seed=3)
    assert found.subject[found.kind == unit_sets.DETECTORS].tolist() == [1, 2, 3]
    for concept, own in ((1, [0, 1, 5]), (2, [2, 7]), (3, [4, 6])):
        (place,) = found.find(unit_sets.DETECTORS, concept)
        assert np.flatnonzero(found.units[place]).tolist() == own
        others = found.units[found.find(unit_sets.OTHERS, concept)]
        assert others.sum(1).tolist() == [len(own)] * unit_sets.CONTROLS
        assert not others[:, own].any()
        assert len(np.unique(others, axis=0)) > 1
    again = unit_sets.detectors(label, iou, 0.04, seed=3)
    assert np.array_equal(again.units, found.units)
    assert not np.array_equal(unit_sets.detectors(label, iou, 0.04, seed=4).units, found.units)
    assert len(unit_sets.detectors(label, iou, 0.6)) == 0
    # More than half of the units leave no equally many others.
    assert len(unit_sets.detectors(np.ones(10, int), iou, 0.04)) == 0


@pytest.mark.parametrize("units", [1, 2, 8, 13])
def test_orders_end_with_all_units(units):
    iou = np.linspace(0, 1, units)
    found = unit_sets.ranked(units, iou, seed=1)
    (last,) = found.find(unit_sets.ALL)
    assert found.units[last].all()
    for kind, first in ((unit_sets.HIGH, units - 1), (unit_sets.LOW, 0)):
        sets = found.units[found.find(kind)]
        assert all(row[first] for row in sets)
        assert (sets[1:] >= sets[:-1]).all(), "cumulative"
    if units == 8:
        assert found.sizes[found.find(unit_sets.HIGH)].tolist() == list(range(1, 8))
        assert len({tuple(row) for row in found.units[found.kind == unit_sets.RANDOM]}) > 30
    assert len(unit_sets.ranked(units).find(unit_sets.HIGH)) == 0


def test_what_sums_a_layer_up():
    found = unit_switches.intervention()
    # The detector of x decides class a, which shows x: its accuracy falls to chance; that of y does nothing to class b.
    known = removal_result.harms(found)
    assert known.keys() == {1, 2}
    assert known[1][0] == pytest.approx(0.5)
    assert known[1][1] == 0
    assert known[2][0] == 0
    others = found.sets.units[found.sets.find(unit_sets.OTHERS, 2)][:, 0].mean()
    assert 0 < others < 1
    assert known[2][1] == pytest.approx(0.5 * others)
    summed = removal_result.summary(found)
    assert summed["detector_harm"] == pytest.approx((0.5 - 0.5 * others) / 2)
    assert summed["single_drop"] == pytest.approx(0.5 / 4)
    # The unit of the highest IoU goes first: from 1 at once to 1/2, over shares 0, 1/4, ..., 1.
    assert removal_result.area(found, unit_sets.HIGH) == pytest.approx(0.75 / 4 + 0.5 * 3 / 4)
    assert removal_result.area(found, unit_sets.LOW) == pytest.approx(3 / 4 + 0.75 / 4)
    assert summed["ranked_gap"][0] > 0
    draws = rates.draws(40)
    for name, values in removal_result.summary(found, draws).items():
        assert values.shape == (len(draws),)
        low, high = np.nanpercentile(values, (2.5, 97.5))
        assert low <= summed[name][0] <= high
    # What a weighted draw is: the same with images repeated.
    often = draws[0]
    kept = np.repeat(np.arange(40), often)
    again = dataclasses.replace(
        found, labels=found.labels[kept], predicted=found.predicted[kept], clean_predicted=found.clean_predicted[kept]
    )  # fmt: skip
    for name, values in removal_result.summary(again).items():
        assert values == pytest.approx(removal_result.summary(found, often[None])[name])


def test_selectivity():
    means = np.array([[2.0, 1, 0, 3, -1], [1, 1, 0, 0, 1], [0, 1, 0, 0, 1], [np.nan] * 5])
    chosen, index = removal_result.selectivity(means)
    assert chosen[[0, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(index, [(2 - 0.5) / 2.5, 0, 0, 1, np.nan])


def test_a_file_gives_back_what_was_saved(tmp_path):
    found = unit_switches.intervention()
    removal_result.save(found, tmp_path / "layer4.npz")
    back = removal_result.load(tmp_path / "layer4.npz")
    for name in ("predicted", "loss", "importance", "mean", "labels"):
        assert np.array_equal(getattr(back, name), getattr(found, name))
    assert (back.layer, back.class_names, back.settings) == (
        "layer4",
        ("a", "b"),
        {"value": "zero"},
    )
    assert back.detected.names == found.detected.names
    assert back.sets.kind.tolist() == found.sets.kind.tolist()
    assert removal_result.summary(back) == removal_result.summary(found)
    with pytest.raises(ValueError, match="is no result of an intervention"):
        removal_result.load(tmp_path / "none.npz")


def test_without_a_dissection_there_is_no_detector():
    nothing = intervening.nothing_detected(3, 2)
    assert nothing.names == ()
    assert nothing.shown.shape == (2, 0)
