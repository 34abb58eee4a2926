"""Sentences, tables and figures of a run's page, each by itself."""

import csv
import math
import types

import matplotlib
import numpy as np
import pytest
import reports
import score_cases
import toy
from matplotlib.figure import Figure

from mixaug_jax import data
from mixaug_jax.draw import style
from mixaug_jax.report import writing
from mixaug_jax.report.run import answers, run_occlusion
from mixaug_jax.scores import Score


@pytest.fixture(autouse=True)
def _noise(monkeypatch):
    source = toy.source(48, classes=6)
    monkeypatch.setattr(data, "open_source", lambda split, config, annotations=True: source)


def spread(heatmap):
    return heatmap.std()


def shallow(heatmap):
    return heatmap.min()


def row(method, kind, score, mean):
    return {
        "method": method,
        "kind": kind,
        "score": score,
        "mean": mean,
        "low": 0.0,
        "high": 1.0,
        "images": 30,
    }


KINDS = {"integrated_gradients": "method", "gradient": "method", "gradcam": "method"}
KINDS |= {"random": "control", "center": "control", "sobel": "control"}


@pytest.mark.parametrize(
    ("score", "title", "better"),
    [
        ("pointing_game", "Pointing game", 1),
        ("deletion", "Area under the deletion curve", -1),
        ("spread", "What I judge by", 1),
    ],
)
def test_the_headline_says_of_every_method_whether_it_beats_both_controls(score, title, better):
    own = Score(spread, better=1, title="what I judge by", headline=True)
    draw = np.random.default_rng(0)
    means = {"integrated_gradients": 0.9, "gradient": 0.6, "gradcam": 0.71, "random": 0.3}
    means |= {"center": 0.7, "sobel": 0.95}
    each, rows, entries = {}, [], {}
    for method, mean in means.items():
        noise = draw.normal(0, 0.1, 30)
        mean = mean if better > 0 else 1 - mean
        each[method] = {score: mean + noise - noise.mean()}
        rows.append(row(method, KINDS[method], score, mean))
        entries[method] = score_cases.said(score, title=f"the {method}", brought=(own,))
    (text,) = answers.explanations(rows, entries, each)
    shown = {method: f"the {method} {r['mean']:.3f}" for method, r in zip(means, rows, strict=True)}
    side = {1: "larger", -1: "smaller"}[better]
    assert text == (
        f"{title} (means over 30 images; {side} is better): {shown['integrated_gradients']} beats both controls; "
        f"{shown['gradcam']} is ahead of both, but the difference is not supported; a control matches or beats "
        f"{shown['gradient']} (controls: {shown['random']} and {shown['center']})."
    )
    # The order of the methods decides nothing but that of the words.
    (turned,) = answers.explanations(rows[2::-1] + rows[3:], entries, each)
    assert sorted(turned) == sorted(text)
    # Without the scores of single images nothing is supported.
    (text,) = answers.explanations(rows, entries, {})
    assert "no method is shown to beat both controls" in text
    assert answers.explanations([], entries, each) == []
    missing = row("gradient", "method", score, math.nan)
    assert answers.explanations([missing], entries, each) == []


def test_scores_without_a_better_side_have_no_winner():
    plain = Score(shallow, better=0, headline=True)
    entries = dict.fromkeys(("gradient", "center"), score_cases.said("shallow", brought=(plain,)))
    rows = [row("gradient", "method", "shallow", 0.5), row("center", "control", "shallow", 0.5)]
    assert answers.explanations(rows, entries, {}) == [
        "Shallow (means over 30 images): gradient 0.500; controls: gradient 0.500."
    ]
    # What no study judges has no sentence, nor has a part of a score.
    for quiet in ("sparseness", "background_attribution"):
        entries = {"gradient": score_cases.said(quiet)}
        assert answers.explanations([row("gradient", "method", quiet, 0.5)], entries, {}) == []
    assert answers.explanations([row("gradient", "method", "deletion", 0.5)], {}, {}) == []


def test_chance_is_said_first(tmp_path):
    run = reports.write_run(tmp_path / "run", accuracy=0.25, scores=())
    page = reports.Page(writing.write_report(run))
    said = "At chance: this network classifies 25.0% of 48 test images right (95 % interval 14.9% to 38.8%), which does not"
    assert said in page.text
    assert page.text.index(said) < page.text.index("trained with mixup")
    assert page.raw.count('<p class="banner">') == 1
    run = reports.write_run(tmp_path / "good", scores=())
    assert "At chance" not in reports.Page(writing.write_report(run)).text


def test_the_accuracy_of_a_validation_split_is_called_so(tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    path = run / "metrics.jsonl"
    ended = path.read_text().splitlines()[:-2]
    ended.append('{"step": 8, "validation_accuracy": 0.75, "validation_images": 21}')
    path.write_text("\n".join(ended) + "\n")
    text = reports.Page(writing.write_report(run)).text
    assert "classifies 75.0% of 21 validation images right" in text
    assert "test images" not in text


def test_rises_by_chance_stand_beside_those_that_were_found():
    row = {"label": "true", "removal": 1, "rises": 1, "images": 8}
    complete = row | {"removal": 0}
    text = answers.rises([complete, row, row, row | {"removal": 2, "rises": 0}], {"true": 3.44})
    assert "1 of 2 (by chance 3.4) ranked by the loss of the true label." in text
    assert text.endswith(answers.CHANCE)


def test_a_class_is_called_by_its_name():
    complete = {"label": 1, "removal": 0, "rises": 0, "images": 8}
    text = answers.rises([complete, complete | {"removal": 1}], {"1": 0.5}, ("cat", "dog"))
    assert "0 of 1 (by chance 0.5) ranked by the loss of class dog." in text
    assert answers.whose("predicted", ()) == "the predicted label"
    assert answers.whose(7, ("cat",)) == "class 7"


def test_by_chance_is_that_of_the_sweep():
    assert run_occlusion._by_chance(None, None) == {}
    swept = types.SimpleNamespace(labels=("true", "predicted"))
    found = types.SimpleNamespace(by_chance=np.array([[1, 2], [0, 1]]))
    assert run_occlusion._by_chance(swept, found) == {"true": 1.5, "predicted": 0.5}


def test_scores_that_say_the_same_are_folded(tmp_path):
    extra = [("gradcam", "method", name, 0.5, 0.4, 0.6) for name in
             ("pointing_game_class_mean", "pointing_game_difficult", "energy_pointing_game")]  # fmt: skip
    run = reports.write_run(tmp_path / "run", scores=(*reports.SCORES, *extra))
    writing.write_report(run)
    header = {}
    for name in ("scores", "scores_all"):
        with (run / "report" / f"{name}.csv").open(newline="") as file:
            header[name] = [h for h in next(csv.reader(file)) if not h.endswith((" low", " high"))]
    assert header["scores"] == ["method", "kind", "pointing game", "deletion"]
    assert header["scores_all"][4:] == [name.replace("_", " ") for _, _, name, *_ in extra]


def test_dollars_are_text(tmp_path):
    figure = Figure()
    with matplotlib.rc_context(style.STYLE):
        figure.subplots().set_title(r"US$ and A$, x_$\bad$")
    style.save_figure(figure, tmp_path / "dollars")
    assert r"US$ and A$, x_$\bad$" in (tmp_path / "dollars.svg").read_text()
