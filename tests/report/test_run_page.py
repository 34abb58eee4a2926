"""Sentences, tables and figures of a run's page, each by itself."""

import csv
import math
import types

import matplotlib
import numpy as np
import pytest
import reports
import toy
from matplotlib.figure import Figure

from mixaug_jax import data
from mixaug_jax.draw import style
from mixaug_jax.report import writing
from mixaug_jax.report.run import answers, run_page


@pytest.fixture(autouse=True)
def _noise(monkeypatch):
    source = toy.source(48, classes=6)
    monkeypatch.setattr(data, "open_source", lambda split, config, annotations=True: source)


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

    verdict = "What knows nothing of the network does as well or better."
    for score, output, worse, better in (
        ("pointing_game", answers.pointing, 0.1, 0.5),
        ("deletion", answers.deletion, 0.9, 0.5),
    ):
        alone = [row("gradient", "method", score, 0.5), row("gradcam", "method", score, 0.0)]
        assert verdict not in output([*alone, row("random", "control", score, worse)])
        assert output([*alone, row("center", "control", score, better)]).endswith(verdict)
        assert "gradient" in output(alone)
        assert output([]) == ""
        assert output([row("gradient", "method", score, math.nan)]) == ""


def test_rises_by_chance_stand_beside_those_that_were_found():
    row = {"label": "true", "removal": 1, "rises": 1, "images": 8}
    complete = row | {"removal": 0}
    text = answers.rises([complete, row, row, row | {"removal": 2, "rises": 0}], {"true": 3.44})
    assert "1 of 2 (by chance 3.4) ranked by the loss of the true label." in text
    assert text.endswith(answers.CHANCE)


def test_by_chance_is_that_of_the_sweep(tmp_path, monkeypatch):
    assert run_page._by_chance(tmp_path) == {}
    swept = types.SimpleNamespace(labels=("true", "predicted"))
    found = types.SimpleNamespace(by_chance=np.array([[1, 2], [0, 1]]))
    monkeypatch.setattr(run_page.anomaly_result, "load", lambda path: swept)
    monkeypatch.setattr(run_page.anomaly_result, "outcome", lambda given: found)
    assert run_page._by_chance(tmp_path) == {"true": 1.5, "predicted": 0.5}


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
