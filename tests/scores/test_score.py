"""What is known of a score: its kind from its signature, facts that JSON can hold, and parts beside it."""

import json

import numpy as np
import pytest
import score_cases

from mixaug_jax.core import entries
from mixaug_jax.explain import job
from mixaug_jax.scores import SCORES, Part, Score
from mixaug_jax.scores.score import KINDS, as_score, facts, kind_of


def of_a_mask(heatmap, mask, *, wide=1):
    return (heatmap * mask).sum()


def of_channels(attribution, mask):
    return (attribution.sum(-1) * mask).sum()


def of_a_network(heatmap, net, image, label):
    return heatmap.sum()


def of_a_method(explain, net, image, label):
    return explain(net, image, label).sum()


def of_a_map(heatmap):
    return heatmap.max()


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (of_a_mask, "alignment"),
        (of_channels, "alignment"),
        (of_a_network, "faithfulness"),
        (of_a_method, "stability"),
        (of_a_map, "complexity"),
    ],
)
def test_the_arguments_tell_the_kind(function, kind):
    assert kind_of(as_score(function)) == kind
    said = facts(function.__name__, as_score(function), {})[function.__name__]
    assert (said["kind"], said["better"], said["headline"], said["hits"]) == (kind, 0, False, False)
    assert said["title"] == function.__name__.replace("_", " ")


def test_a_record_may_say_another_kind():
    assert kind_of(Score(of_a_map, "faithfulness")) == "faithfulness"
    with pytest.raises(
        ValueError, match=r"the kind of the score of_a_map must be one of align.*; got 'x'"
    ):
        kind_of(Score(of_a_map, "x"))


@pytest.mark.parametrize(
    "arguments", ["", "h", "image, heatmap", "heatmap, region", "explain, mask"]
)
def test_other_forms_are_refused(arguments):
    scope = {}
    exec(f"def odd({arguments}): return 0", scope)
    with pytest.raises(
        ValueError, match=rf"the score odd\({arguments}\) has no known form: its first"
    ):
        kind_of(Score(scope["odd"]))


def test_a_function_has_one_record():
    """What is compiled for it is found again by the record."""
    assert as_score(of_a_map) is as_score(of_a_map)
    assert as_score(of_a_map) is not as_score(of_a_mask)
    record = Score(of_a_map, better=1)
    assert as_score(record) is record


def told(name, **given):
    return entries.options(SCORES[name]) | given


@pytest.mark.parametrize("name", SCORES)
def test_facts_of_the_package_s_scores_are_json(name):
    score = SCORES[name]
    found = facts(name, score, told(name))
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [name, *score.also, *score.summaries]
    for said in found.values():
        assert said["kind"] == kind_of(score)
        assert said["kind"] in KINDS
        assert said["better"] in (-1, 1)
        assert isinstance(said["title"], str)
        assert said["title"]
        assert isinstance(said["headline"], bool)


def test_better_may_depend_on_the_options():
    """`road` removes the most relevant first, where a small area is good, or the least relevant."""
    assert facts("road", SCORES["road"], told("road"))["road"]["better"] == -1
    assert facts("road", SCORES["road"], told("road", order="lerf"))["road"]["better"] == 1
    own = Score(of_a_mask, better=lambda options: 1 if options["wide"] > 2 else -1)
    for wide, better in ((1, -1), (3, 1)):
        chosen = job.Options(entries={"of_a_mask": {"wide": wide}})
        made = job.Job({}, {"of_a_mask": own}, chosen)
        assert made.facts()["of_a_mask"]["better"] == better


def test_where_a_curve_s_points_lie():
    said = facts("road", SCORES["road"], told("road", fractions=(0.25, 0.5)))["road"]
    assert said["positions"] == [0, 0.25, 0.5]
    assert (said["output"], said["axis"]) == ("prob", "share of the pixels removed")
    assert facts("deletion", SCORES["deletion"], told("deletion"))["deletion"]["positions"] == []


def test_completeness_is_judged_by_its_magnitude():
    """Smaller is better of a miss without its sign, in which images would cancel."""
    score = SCORES["completeness"]
    assert facts("completeness", score, told("completeness"))["completeness"]["better"] == -1
    np.testing.assert_array_equal(score.value(np.array([-2.0, 0.5]), {}), [2, 0.5])


def test_parts_stand_beside_their_score_or_for_it():
    view, chief = Part(lambda v, e: v, -1, "a view"), Part(lambda v, e: 1 - v, 1, view=False)
    count = Part(lambda result: None, 1, headline=True)
    found = facts(
        "of_a_map", Score(of_a_map, also={"a": view, "b_c": chief}, summaries={"d": count}), {}
    )
    assert {name: said["view"] for name, said in found.items()} == {
        "of_a_map": True, "a": True, "b_c": False, "d": True,
    }  # fmt: skip
    assert [said["better"] for said in found.values()] == [0, -1, 1, 1]
    assert [said["title"] for said in found.values()] == ["of a map", "a view", "b c", "d"]
    assert [said["headline"] for said in found.values()] == [False, False, False, True]
    assert {said["kind"] for said in found.values()} == {"complexity"}
    assert not facts("of_a_map", Score(of_a_map, also={"a": view}), {})["of_a_map"]["view"]


def test_the_parts_of_the_package_s_scores():
    """Which values a study judges, and what stands for the attribution on the object."""
    found = score_cases.said(*job.Job({}, SCORES, job.Options()).facts())["scores"]
    assert [name for name, said in found.items() if said["headline"]] == [
        "deletion", "background_attribution", "pointing_game",
    ]  # fmt: skip
    assert [name for name, said in found.items() if said.get("hits")] == ["pointing_game"]
    views = {name for name, said in found.items() if said["view"]}
    assert "energy_pointing_game" in views
    assert not {"background_attribution", "degradation_score", "sensitivity_n_pooled"} & views
    assert {name for name in views if name.endswith("_class_mean")} == {
        "pointing_game_class_mean", "pointing_game_difficult_class_mean",
    }  # fmt: skip


def test_what_the_parts_of_alignment_count():
    class Examples:
        masks = np.zeros((4, 10, 10), bool)
        difficult = np.array([True, False, True, False])

    for k, share in enumerate((33, 34, 49, 50)):
        Examples.masks[k].flat[:share] = True
    values = np.array([0.1, 0.2, 0.3, 0.4])
    parts = {**SCORES["box_ratio"].also, **SCORES["energy_pointing_game"].also}
    parts |= SCORES["pointing_game"].also
    found = {name: part.f(values, Examples) for name, part in parts.items()}
    nan = np.nan
    for name, expected in {
        "box_ratio_small": [0.1, nan, nan, nan],
        "energy_pointing_game_small": [0.1, 0.2, 0.3, nan],
        "background_attribution": [0.9, 0.8, 0.7, 0.6],
        "pointing_game_difficult": [0.1, nan, 0.3, nan],
    }.items():
        np.testing.assert_allclose(found[name], expected, err_msg=name)
