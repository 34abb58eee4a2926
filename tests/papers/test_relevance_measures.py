"""What attributes are to a network, by numbers alone: planted networks, what trees and integrals say, readers of low R2."""

import sys

import numpy as np
import pytest

from mixaug_jax.data.animals import animal_samplers
from mixaug_jax.data.animals.animal_pairs import CHANGES
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES
from mixaug_jax.data.animals.animal_samplers import SAMPLERS
from mixaug_jax.papers.relevance import (
    attribute_bound,
    attribute_relevance,
    evaluator,
    forward_passes,
    relevance_figures,
    relevance_keys,
    relevance_section,
)
from mixaug_jax.papers.relevance.attribute_relevance import CONTROL, Pairs, measure


def made(network, count=1500, sampler="study", mode="independent"):
    """Pairs of animals whose logit is a function of their attributes."""
    rng, draw = np.random.default_rng(0), SAMPLERS[sampler]
    before, _ = animal_samplers.draw_many(draw, rng, count)
    after = {
        name: animal_samplers.redraw(rng, before, names, draw, mode=mode)
        for name, names in CHANGES.items()
        if names
    }
    return Pairs(network(before), before, {n: network(v) for n, v in after.items()}, after)


def of(values, name):
    return values[:, ATTRIBUTES.index(name)]


WEIGHTS = {"arm_position": 8.0, "obj_color": 3.0, "spherical": -2.0}


def linear(values):
    return sum(w * (of(values, name) - 0.5) for name, w in WEIGHTS.items())


def test_a_linear_network_on_true_attributes_gets_its_weights_back():
    rows = {row.attribute: row for row in measure(made(linear))}
    assert [*rows] == [name for name in CHANGES if name != "original"]
    for name, row in rows.items():
        if name in WEIGHTS:
            assert row.slope == pytest.approx(WEIGHTS[name], rel=1e-6)
            assert row.r2 == pytest.approx(1, abs=1e-9)
            assert row.relevant
            assert row.flips > 0.03
        elif name == "colors_and_shape":  # three regressors, two of which count
            assert row.r2 == pytest.approx(1, abs=1e-9)
            assert np.isnan(row.slope)
        else:
            assert (row.change, row.flips, row.r2, row.relevant) == (0, 0, 0, False)
    assert rows["arm_position"].change > rows["obj_color"].change > rows["spherical"].change


def test_angles_count_by_sine_and_cosine():
    def turning(values):
        return np.sin(of(values, "yaw") + 0.7) + 0.1

    pairs = made(turning)
    (row,) = [row for row in measure(pairs) if row.attribute == "yaw"]
    assert row.r2 == pytest.approx(1, abs=1e-9)
    assert row.relevant
    # A network whose logit jumps where the angle does, changes by nothing real.
    ends = (np.where(np.arange(10) == 6, angle, 0)[None] for angle in (-np.pi, np.pi))
    moved = attribute_relevance.regressors("yaw", *ends)
    np.testing.assert_allclose(moved, 0, atol=1e-12)


def test_r2_is_that_of_least_squares_and_its_resamples_too():
    rng = np.random.default_rng(1)
    moved = rng.normal(size=(60, 2))
    delta = 0.8 * moved[:, 0] + rng.normal(size=60)

    def by_hand(rows):
        design = np.concatenate([moved[rows], np.ones((len(rows), 1))], 1)
        fitted = design @ np.linalg.lstsq(design, delta[rows], rcond=None)[0]
        return 1 - np.var(delta[rows] - fitted) / np.var(delta[rows])

    assert attribute_relevance.explained(moved, delta) == pytest.approx(by_hand(np.arange(60)))
    # An attribute whose R2 is not 1: the interval is that of least squares in the same resamples.
    pairs = made(lambda values: linear(values) + np.sin(37 * of(values, "roll")), 80)
    (row,) = [row for row in measure(pairs, replicates=100, seed=3) if row.attribute == "roll"]
    draws = np.random.default_rng(3).multinomial(80, np.full(80, 1 / 80), size=100)
    moved = attribute_relevance.regressors("roll", pairs.values, pairs.changed_values["roll"])
    moved, delta = np.tile(moved, (1, 2)), pairs.changed["roll"] - pairs.original
    want = [by_hand(np.repeat(np.arange(80), counts)) for counts in draws]
    np.testing.assert_allclose(
        [row.r2_low, row.r2_high], np.percentile(want, [2.5, 97.5]), rtol=1e-6
    )


def test_intervals_of_sizes_and_slopes_are_those_of_the_same_resamples():
    """By hand, of obj_color, in scenes drawn anew as the bootstrap draws them."""
    pairs = made(lambda values: linear(values) + np.sin(37 * of(values, "obj_color")), 300)
    rows = {row.attribute: row for row in measure(pairs, replicates=50, seed=3)}
    draws = np.random.default_rng(3).multinomial(300, np.full(300, 1 / 300), size=50)
    delta = pairs.changed["obj_color"] - pairs.original
    moved = of(pairs.changed_values["obj_color"] - pairs.values, "obj_color")
    near = np.flatnonzero(animal_samplers.ambiguous(of(pairs.values, "arm_position")))
    found = {"change": [], "shift": [], "slope": [], "near_r2": []}
    for scenes in (np.repeat(np.arange(300), counts) for counts in draws):
        found["change"].append(np.abs(delta[scenes]).mean() / pairs.original[scenes].std())
        found["shift"].append(delta[scenes].mean())
        found["slope"].append(np.polyfit(moved[scenes], delta[scenes], 1)[0])
        few = scenes[np.isin(scenes, near)]
        found["near_r2"].append(np.corrcoef(moved[few], delta[few])[0, 1] ** 2)
    for name, values in found.items():
        ends = [getattr(rows["obj_color"], f"{name}{end}") for end in ("_low", "_high")]
        np.testing.assert_allclose(ends, np.percentile(values, [2.5, 97.5]), rtol=1e-6)
        assert ends[0] < getattr(rows["obj_color"], name) < ends[1]
    together = rows["colors_and_shape"]  # of three regressors
    assert np.isnan([together.slope, together.slope_low, together.slope_high]).all()


def test_few_ambiguous_scenes_have_no_r2():
    """A line through two points explains everything; three regressors need three times as many scenes as one."""
    pairs = made(lambda values: np.random.default_rng(4).normal(size=len(values)), 400)
    arms = ATTRIBUTES.index("arm_position")
    for count, known in ((9, []), (10, ["obj_color"]), (30, ["obj_color", "colors_and_shape"])):
        values = pairs.values.copy()
        values[:, arms] = np.where(np.arange(400) < count, 0.5, 0.2)
        rows = {row.attribute: row for row in measure(pairs._replace(values=values))}
        for name in ("obj_color", "colors_and_shape"):
            row = rows[name]
            ends = row.near_r2_low, row.near_r2, row.near_r2_high
            assert np.isnan(ends).all() == (name not in known)
            if name in known:
                assert 0 <= ends[0] <= ends[1] < 0.9
                assert ends[1] <= ends[2] <= 1


def test_intervals_contain_their_estimates_and_the_control_has_no_p():
    def noisy(values):
        return linear(values) + np.random.default_rng(5).normal(size=len(values))

    for row in measure(made(noisy, 400), replicates=200) + measure(made(linear, 100)):
        assert row.flips_low <= row.flips <= row.flips_high
        assert row.beside_low <= row.beside <= row.beside_high
        assert row.r2_low <= row.r2 <= row.r2_high
        assert row.near_low <= row.near_flips <= row.near_high
        for name in ("change", "shift", "slope", "near_r2"):
            value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
            assert low <= value <= high or np.isnan([value, low, high]).all()
        assert np.isnan(row.p) == (row.attribute == CONTROL)
        assert row.beside == 0 if row.attribute == CONTROL else 0 < row.p <= 1


def test_relevance_needs_flips_and_a_logit_that_follows_the_value():
    def unsteady(values):  # flips often, in no way that the value explains
        return np.sin(400 * of(values, "position_x")) + 0.01 * of(values, "obj_color")

    def slight(values):  # follows obj_color to the letter, and hardly ever flips
        return of(values, "obj_color") + 30 * (of(values, "arm_position") > 0.5) - 15

    rows = {row.attribute: row for row in measure(made(unsteady))}
    assert rows["position_x"].beside_low > 0.3
    assert rows["position_x"].r2 < 0.1
    assert not rows["position_x"].relevant
    assert "position_x flips predictions, too" in relevance_section.verdict([*rows.values()], 0.02)
    rows = {row.attribute: row for row in measure(made(slight))}
    assert rows["obj_color"].r2 == pytest.approx(1)
    assert not rows["obj_color"].relevant
    assert rows["arm_position"].relevant
    assert "Relevant to the network: arm_position (" in relevance_section.verdict(
        [*rows.values()], 0.02
    )


def test_the_fewest_replicates_can_call_an_attribute_relevant():
    """The least p is 1 / (R + 1), and there are ten attributes beside the control."""
    pairs, fewest = made(linear, 300), relevance_keys.KEYS["relevance.replicates"].allowed.least
    for replicates, found in ((fewest, True), (fewest - 1, False)):
        rows = {row.attribute: row for row in measure(pairs, replicates=replicates)}
        assert rows["arm_position"].p == pytest.approx(10 / (replicates + 1))
        assert rows["arm_position"].relevant == found


def test_what_flips_by_chance_is_not_relevant():
    """A network of noise flips as often by the control as by anything else."""
    rng = np.random.default_rng(2)
    rows = measure(made(lambda values: rng.normal(size=len(values))))
    assert all(row.flips > 0.4 for row in rows)
    assert not any(row.relevant for row in rows)


def test_a_bias_pays_where_arms_are_ambiguous():
    def careful(values):  # asks the color only where the arms do not tell
        arms = of(values, "arm_position")
        near = animal_samplers.ambiguous(arms)
        return np.where(near, of(values, "obj_color") - 0.5, 10 * (arms - 0.5))

    (row,) = [row for row in measure(made(careful, 4000)) if row.attribute == "obj_color"]
    assert row.near_flips > 3 * row.flips
    assert row.near_r2 == pytest.approx(1)
    # None are ambiguous: nothing is said of them.
    pairs = made(careful, 300)
    far = pairs.values.copy()
    far[:, ATTRIBUTES.index("arm_position")] = 0.2
    row = measure(pairs._replace(values=far))[0]
    assert np.isnan([row.near_flips, row.near_low, row.near_high, row.near_r2]).all()
    assert np.isnan([row.near_r2_low, row.near_r2_high]).all()


def test_without_the_control_nothing_is_said():
    pairs = made(linear, 50)
    changed = {name: logits for name, logits in pairs.changed.items() if name != CONTROL}
    with pytest.raises(ValueError, match="bg_color must be among the changes"):
        measure(pairs._replace(changed=changed))


def test_the_integrals_are_those_of_the_study():
    found = attribute_bound.exact()
    assert found["arm_position"] == pytest.approx(0.9615, abs=1e-4)
    assert found["arm_position and obj_color"] == pytest.approx(0.9942, abs=1e-4)


def test_the_integrals_are_what_the_best_rule_gets():
    """Of animals as they are drawn: the class with the larger density, of arms alone and of arms and color."""
    values, label = animal_samplers.draw_many(SAMPLERS["study"], np.random.default_rng(0), 100_000)
    arms, color = of(values, "arm_position"), of(values, "obj_color")
    rule = np.where(np.abs(arms - 0.5) < 0.02, color > 0.5, arms > 0.5)
    found = attribute_bound.exact()
    assert ((arms > 0.5) == label).mean() == pytest.approx(found["arm_position"], abs=0.003)
    # Between the ranges that colors of one class keep to, the other class is as likely.
    assert (rule == label).mean() == pytest.approx(found["arm_position and obj_color"], abs=0.003)


def test_trees_on_attributes_come_near_the_integrals():
    pytest.importorskip("sklearn")
    pairs = made(linear, 400)
    bound, seen = attribute_bound.told_by_trees("study", "released", pairs)
    assert [*bound] == [*attribute_bound.GIVEN]
    alone, color, shape, everything = (accuracy for accuracy, _ in bound.values())
    assert alone == pytest.approx(0.9615, abs=0.012)
    assert color == pytest.approx(0.9942, abs=0.01)
    assert max(abs(shape - color), abs(everything - color)) < 0.006
    rows = {row.attribute: row for row in measure(seen)}
    assert rows["arm_position"].relevant
    assert rows["yaw"].flips < 0.02


def test_without_scikit_learn_trees_are_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError):
        attribute_bound.boosted(np.zeros((4, 1)), np.array([0, 1, 0, 1]))


def test_the_figure_shows_every_attribute_and_the_trees():
    rows = measure(made(linear, 200), replicates=100)
    figure = relevance_figures.attributes(rows, {"obj_color": rows[0]}, 0.02)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == [row.attribute for row in rows]
    crosses = [line for line in left.lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    assert crosses[0].get_xdata()[0] == 100 * rows[0].beside
    assert len([line for line in right.lines if line.get_marker() == "o"]) == len(rows)


def test_what_is_encoded_is_decoded():
    values, label = animal_samplers.draw_many(SAMPLERS["plain"], np.random.default_rng(0), 50, "intended")  # fmt: skip
    outputs = np.stack([evaluator.encoded(v, int(k)) for v, k in zip(values, label, strict=True)])
    assert outputs.shape == (50, evaluator.OUTPUTS)
    assert np.abs(outputs[:, 1:]).max() <= 1
    found, logit = evaluator.decoded(outputs)
    np.testing.assert_allclose(found, values, atol=1e-5)
    np.testing.assert_array_equal(logit, label)


def test_an_attribute_that_is_read_badly_is_left_out(monkeypatch):
    values, label = animal_samplers.draw_many(SAMPLERS["unbiased"], np.random.default_rng(0), 600)
    scenes = [{"attributes": v, "label": int(k)} for v, k in zip(values, label, strict=True)]
    read = np.stack([evaluator.encoded(v, 2 * int(k) - 1) for v, k in zip(values, label, strict=True)])  # fmt: skip
    rng = np.random.default_rng(1)
    column = 1 + [n for n in ATTRIBUTES if n != "yaw"].index("obj_color")
    read[:, column] = rng.uniform(-1, 1, 600)
    read[:, -2:] += rng.normal(0, 0.1, (600, 2))
    monkeypatch.setattr(forward_passes, "logits", lambda *args, **kwargs: read)
    found = evaluator.judged(None, scenes)
    assert found.kept == tuple(name for name in ATTRIBUTES if name != "obj_color")
    assert found.left_out.startswith("read too badly, and left out: obj_color (R2 -")
    assert found.accuracy == 1
    assert found.error["arm_position"] == pytest.approx(0, abs=1e-6)
    assert 0.03 < found.error["yaw"] < 0.2
    assert 0.95 < found.r2["yaw"] < 1
