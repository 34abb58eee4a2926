"""Curves over the checkpoints of a run."""

import json

import pytest
import reports

from mixaug_jax.core import files
from mixaug_jax.draw import training_figures
from mixaug_jax.report import writing
from mixaug_jax.report.run import over_steps


def attribution(folder, mean):
    facts = {"pointing_game": {"headline": True, "title": "pointing game"}, "sparseness": {}}
    told = {"gradient": {"title": "gradient", "scores": facts}}
    rows = [("gradient", "pointing_game", mean), ("gradient", "sparseness", 0.1)]
    files.write_csv(folder / "scores.csv", ("method", "score", "mean"), rows)
    files.write_text(folder / "entries.json", json.dumps(told))


def test_scores_of_the_first_sentences_by_step(tmp_path):
    for step, mean in ((8, 0.5), (100, "")):
        attribution(tmp_path / "attribution" / str(step), mean)
    found = over_steps._scores(tmp_path / "attribution")
    assert found == {
        "pointing game": {"gradient": {8: 0.5, 100: pytest.approx(float("nan"), nan_ok=True)}}
    }


def test_concepts_at_the_middle_threshold_by_step(tmp_path):
    header = ("layer", "per", "iou_threshold", "category", "unique")
    for step in (4, 8):
        rows = [
            (layer, "unit", level, category, 100 * step + 10 * k + len(category))
            for layer in ("layer3", "layer4")
            for k, level in enumerate((0.03, 0.04, 0.05))
            for category in ("part", "total")
        ]
        rows.append(("layer3", "category", 0.04, "total", -1))
        files.write_csv(tmp_path / "dissection" / str(step) / "counts.csv", header, rows)
    found = over_steps._concepts(tmp_path / "dissection")
    lines = {"layer3": {4: 415, 8: 815}, "layer4": {4: 415, 8: 815}}
    assert found == {"unique concepts, IoU > 0.04": lines}
    panel = training_figures.over_steps(found).axes[0]
    assert list(panel.get_lines()[0].get_xdata()) == [4, 8]
    assert list(panel.get_lines()[0].get_ydata()) == [415, 815]


def test_the_page_has_curves_where_two_checkpoints_were_looked_at(tmp_path):
    run = reports.write_run(tmp_path / "run", scores=())
    attribution(run / "attribution" / "4", 0.5)
    assert over_steps.section(run, tmp_path, 0.0) == ""
    attribution(run / "attribution" / "8", 0.6)
    (run / "report").mkdir()
    text = over_steps.section(run, run / "report", 0.0)
    assert "Results of 2 checkpoints, steps 4 to 8" in text
    assert (run / "report" / "over_steps.pdf").exists()
    assert (
        "Over training"
        not in reports.Page(writing.write_report(reports.write_run(tmp_path / "one"))).text
    )
