"""Results of evaluations: means over images and their intervals, storing, settings."""

import dataclasses

import numpy as np
import pytest
import score_cases

from mixaug_jax.attribution import METHODS, rules
from mixaug_jax.explain import evaluation, job
from mixaug_jax.explain.examples import Examples
from mixaug_jax.scores import Part, Score


def made_up(values, labels=(), pairs=(), **curves):
    values = np.asarray(values, np.float64)
    number = len(values)
    empty = np.zeros((number, 2, 2), np.float32)
    labels = np.asarray(labels or [0] * number)
    curves = {name: np.float32(curve) for name, curve in curves.items()}
    settings = {"method": "gradient", "unlabeled": 3}
    scores = {"pointing_game": values} | {name: curve.mean(1) for name, curve in curves.items()}
    indices, pairs = np.arange(number), dict(pairs)
    scores |= dict.fromkeys(pairs, np.zeros(number))
    parts = ("pointing_game_difficult", *scores)
    return evaluation.Evaluation(
        empty,
        indices,
        labels,
        labels,
        scores,
        curves,
        pairs,
        entries=score_cases.said(*parts),
        settings=settings,
    )


def test_means_and_intervals():
    draw = np.random.default_rng(0)
    values = draw.normal(2, 1, 400)
    values[:100] = np.nan
    row, by_class = evaluation.summarize(made_up(values, [0] * 390 + [1] * 10), replicates=400)
    kept = values[100:]
    assert row.score == "pointing_game"
    assert row.mean == pytest.approx(kept.mean())
    assert (row.images, row.left_out) == (300, 103)
    error = kept.std() / np.sqrt(300)
    assert row.low == pytest.approx(row.mean - 1.96 * error, abs=0.3 * error)
    assert row.high == pytest.approx(row.mean + 1.96 * error, abs=0.3 * error)
    assert by_class.score == "pointing_game_class_mean"
    assert by_class.mean == pytest.approx((values[100:390].mean() + values[390:].mean()) / 2)
    (nothing,) = evaluation.summarize(made_up([np.nan, np.nan]))
    assert nothing.images == 0
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    no_intervals, _ = evaluation.summarize(made_up([1.0, 0.0]), replicates=0)
    assert no_intervals.mean == 0.5
    assert np.isnan([no_intervals.low, no_intervals.high]).all()


def test_degradation_is_that_of_the_mean_curves():
    morf, lerf = [[1, 0.2, 0.0], [0.8, 0.4, 0.2]], [[1, 0.9, 0.0], [0.8, 0.7, 0.2]]
    rows = {r.score: r for r in evaluation.summarize(made_up([1, 1], morf=morf, lerf=lerf))}
    assert rows["degradation_score"].mean == pytest.approx((0.8 - 0.3) / 2 / (0.9 - 0.1))


def test_a_curve_of_nan_is_left_out_of_degradation():
    whole = {"morf": [[1, 0.2, 0.0]], "lerf": [[1, 0.9, 0.0]]}
    expected = {r.score: r for r in evaluation.summarize(made_up([1], **whole))}[
        "degradation_score"
    ]
    for broken in whole:
        curves = {name: [*curve, [0.5, np.nan if name == broken else 0.5, 0.5]]
                  for name, curve in whole.items()}  # fmt: skip
        row = {r.score: r for r in evaluation.summarize(made_up([1, 1], **curves))}[
            "degradation_score"
        ]
        assert row.mean == expected.mean
        assert (row.images, row.left_out) == (1, 4)


def test_sensitivity_n_is_pooled_over_images(tmp_path):
    draw = np.random.default_rng(1)
    pairs = draw.normal(size=(5, 2, 3, 40)).astype(np.float32)
    pairs[:, 1] += pairs[:, 0] * np.arange(1, 6)[:, None, None]
    made = made_up(np.ones(5), pairs={"sensitivity_n": pairs})
    evaluation.save(made, tmp_path / "gradient.npz")
    made = evaluation.load(tmp_path / "gradient.npz")
    row = {r.score: r for r in evaluation.summarize(made)}["sensitivity_n_pooled"]
    of_size = [np.corrcoef(pairs[:, 0, k].ravel(), pairs[:, 1, k].ravel())[0, 1] for k in range(3)]
    assert row.mean == pytest.approx(np.mean(of_size), abs=1e-6)
    assert row.low < row.mean < row.high
    assert "sensitivity_n_pooled" not in {r.score for r in evaluation.summarize(made_up([1.0]))}


def test_a_table_of_methods_and_controls():
    """On the console other views of a score are left out; without scores there is a line all the same."""
    control = score_cases.said("pointing_game", "deletion", kind="control", title="random")
    random = made_up([0.0, 0.5, 1.0, 0.0], deletion=[[0.5, 0.25]] * 4)
    settings = random.settings | {"method": "random"}
    results = {
        "random": dataclasses.replace(random, entries=control, settings=settings),
        "gradient": made_up([1.0, 0.0, 1.0, np.nan], deletion=[[1.0, 0.0]] * 4),
    }
    rows = evaluation.table(results)
    scores = ["pointing_game", "pointing_game_class_mean", "deletion"]
    expected = [["gradient", "method", score] for score in scores]
    assert [row[:3] for row in rows] == expected + [["random", "control", s] for s in scores]
    assert all(len(row) == len(evaluation.HEADER) for row in rows)
    for one in results.values():
        one.scores["pointing_game_difficult"] = np.ones(4)
    control["scores"] |= score_cases.said("pointing_game_difficult")["scores"]
    head, names, *lines = evaluation.summary(results).splitlines()
    assert "means over 4 images" in head
    assert names.split() == ["pointing_game", "deletion"]
    assert [line.split() for line in lines] == [
        ["random", "0.375", "0.375"],
        ["gradient", "0.667", "0.500"],
    ]
    bare = {name: dataclasses.replace(one, scores={}) for name, one in results.items()}
    assert len(evaluation.summary(bare).splitlines()) == 1
    assert evaluation.table(bare) == []


def test_an_empty_difficult_subset_has_no_row():
    values = made_up([1.0, 0.0])
    values.scores["pointing_game_difficult"] = np.full(2, np.nan)
    assert [row.score for row in evaluation.summarize(values)] == [
        "pointing_game",
        "pointing_game_class_mean",
    ]
    values.scores["pointing_game_difficult"] = np.array([np.nan, 0.0])
    rows = {row.score: row for row in evaluation.summarize(values)}
    assert (rows["pointing_game_difficult"].mean, rows["pointing_game_difficult"].images) == (0, 1)


def test_hits_are_those_of_the_score_that_says_so():
    def right_half(heatmap):
        return heatmap[:, 1:].sum()

    own = Score(right_half, hits=True)
    found = made_up([1.0, np.nan, 0.0])
    np.testing.assert_array_equal(found.hits, found.scores["pointing_game"])
    said = score_cases.said("right_half", "deletion", brought=[own])
    values = {"right_half": np.array([0.0, 1.0, np.nan]), "deletion": np.ones(3)}
    np.testing.assert_array_equal(
        dataclasses.replace(found, scores=values, entries=said).hits, values["right_half"]
    )
    said = score_cases.said("deletion", brought=[own])
    assert np.isnan(dataclasses.replace(found, scores=values, entries=said).hits).all()


def test_summaries_are_those_of_the_records_that_are_given():
    """One number of many images, of a score that the package does not have, with its interval over images."""

    def mass(heatmap):
        return heatmap.sum()

    def largest(result):
        values = result.scores["mass"]
        return values > 0, lambda places: values[places].max()

    own = Score(
        mass, summaries={"mass_largest": Part(largest, 1), "mass_none": Part(lambda _: None)}
    )
    values = np.array([0.0, 2.0, 7.0, 3.0])
    said = score_cases.said("mass", brought=[own])
    found = dataclasses.replace(made_up([1.0] * 4), scores={"mass": values}, entries=said)
    plain, of_many = evaluation.summarize(found, scores={"mass": own})
    assert (plain.score, plain.mean, plain.images) == ("mass", 3, 4)
    assert (of_many.score, of_many.mean, of_many.images) == ("mass_largest", 7, 3)
    assert 2 <= of_many.low <= of_many.high == 7
    assert of_many.left_out == 1 + 3
    assert [row.score for row in evaluation.summarize(found)] == ["mass"]
    nothing = dataclasses.replace(found, scores={"mass": np.zeros(4)})
    assert [row.score for row in evaluation.summarize(nothing, scores={"mass": own})] == ["mass"]


def test_stored_and_loaded(tmp_path):
    one = made_up([1.0, np.nan, 0.0], [2, 0, 1], deletion=[[1, 0.5], [0.7, 0.1], [0.9, 0.2]])
    evaluation.save(one, tmp_path / "gradient.npz")
    again = evaluation.load(tmp_path / "gradient.npz")
    assert again.settings == one.settings
    assert again.entries == one.entries
    assert again.method == "gradient"
    for name in ("heat", "indices", "labels", "predicted"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
    for name in ("scores", "curves"):
        assert getattr(again, name).keys() == getattr(one, name).keys()
        for key, values in getattr(one, name).items():
            np.testing.assert_array_equal(getattr(again, name)[key], values)
    (tmp_path / "half.npz").write_bytes((tmp_path / "gradient.npz").read_bytes()[:300])
    for path in ("half.npz", "none.npz"):
        with pytest.raises(ValueError, match=f"{path} is no result of an evaluation"):
            evaluation.load(tmp_path / path)


def test_settings_tell_rules_apart_by_their_text_and_arrays_by_their_checksum():
    """What a later process compares with, so nothing that changes from one to the next, such as an address."""
    net, image, _ = score_cases.linear_net()
    one = np.zeros(1, np.int32)
    mask = np.ones((1, 6, 7), bool)
    examples = Examples(image[None], one, one, one, mask, one, "boxes", 0, one, one)

    def settings(option, value):
        chosen = job.Options(entries={"lrp": {option: value}})
        made = job.Job({"lrp": METHODS["lrp"]}, {}, chosen)
        return job.settings_of(net, examples, "lrp", made)["options"][option]

    assert settings("rule", rules.Gamma(0.5)) == "Gamma(gamma=0.5, use_bias=True)"
    assert settings("rule", (("fc", rules.Epsilon(0.1)),)) == [
        ["fc", "Epsilon(epsilon=0.1, use_bias=True)"]
    ]
    assert settings("bounds", np.arange(2)) == settings("bounds", np.arange(2))
    assert settings("bounds", np.arange(2)) != settings("bounds", np.arange(1, 3))
