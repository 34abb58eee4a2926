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


def test_controls_that_do_as_well_are_said():
    def row(method, kind, score, mean):
        return {
            "method": method,
            "kind": kind,
            "score": score,
            "mean": mean,
            "low": 0.0,
            "high": 1.0,
            "images": 8,
        }

    own = Score(spread, better=1, title="what I judge by", headline=True)
    plain = Score(shallow, better=0, headline=True)
    verdict = "A control that knows nothing of the network matches or beats it."
    for score, title, worse, better in (
        ("pointing_game", "Pointing game", 0.1, 0.5),
        ("deletion", "Area under the deletion curve", 0.9, 0.5),
        ("spread", "What I judge by", 0.4, 0.6),
    ):
        entries = {
            method: score_cases.said(score, title=f"the {method}", brought=(own, plain))
            for method in ("gradient", "gradcam", "random", "center")
        }

        def output(*rows, entries=entries):
            return answers.explanations(list(rows), entries)

        alone = (row("gradient", "method", score, 0.5), row("gradcam", "method", score, 0.0))
        (text,) = output(*alone, row("random", "control", score, worse))
        assert text.endswith(f" better); the random {worse:.3f}.")
        (text,) = output(*alone, row("center", "control", score, better))
        assert text.endswith(f"; the center {better:.3f}. {verdict}")
        (text,) = output(*alone)
        assert text.startswith(f"{title} of the gradient: 0.500 (0.000 to 1.000 over 8 images")
        assert output() == []
        assert output(row("gradient", "method", score, math.nan)) == []
    # A score without a better side knows no winner.
    entries = dict.fromkeys(("gradient", "center"), score_cases.said("shallow", brought=(plain,)))
    rows = [row("gradient", "method", "shallow", 0.5), row("center", "control", "shallow", 0.5)]
    assert answers.explanations(rows, entries) == [
        "Shallow of gradient: 0.500 (0.000 to 1.000 over 8 images); gradient 0.500."
    ]
    # What no study judges has no sentence, nor has a part of a score.
    for quiet in ("sparseness", "background_attribution"):
        entries = {"gradient": score_cases.said(quiet)}
        assert answers.explanations([row("gradient", "method", quiet, 0.5)], entries) == []
    assert answers.explanations([row("gradient", "method", "deletion", 0.5)], {}) == []


def test_rises_by_chance_stand_beside_those_that_were_found():
    row = {"label": "true", "removal": 1, "rises": 1, "images": 8}
    complete = row | {"removal": 0}
    text = answers.rises([complete, row, row, row | {"removal": 2, "rises": 0}], {"true": 3.44})
    assert "1 of 2 (by chance 3.4) ranked by the loss of the true label." in text
    assert text.endswith(answers.CHANCE)


def test_by_chance_is_that_of_the_sweep(tmp_path, monkeypatch):
    assert run_occlusion._by_chance(tmp_path) == {}
    swept = types.SimpleNamespace(labels=("true", "predicted"))
    found = types.SimpleNamespace(by_chance=np.array([[1, 2], [0, 1]]))
    monkeypatch.setattr(run_occlusion.outcomes, "load", lambda path: swept)
    monkeypatch.setattr(run_occlusion.outcomes, "outcome", lambda given: found)
    assert run_occlusion._by_chance(tmp_path) == {"true": 1.5, "predicted": 0.5}


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
