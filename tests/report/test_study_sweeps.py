"""Curves over what a sweep sets."""

import numpy as np
import pytest
import reports
import studies

from mixaug_jax import config as config_lib
from mixaug_jax.report import writing
from mixaug_jax.report.study import study_numbers, study_sweeps
from mixaug_jax.study import gather, plan


def written(folder, sweep, methods=("baseline", "cutmix", "mixup")):
    configs = {name: config_lib.get_config(name) for name in methods}
    runs = plan.make_plan(configs, (0, 1, 2), folder, sweep=sweep)
    plan.write_asked(runs, folder, ())
    for run in runs:
        studies.write_run(
            run, accuracy=0.8 + 0.01 * run.seed + 0.05 * run.config.mix.get("alpha", 0)
        )
    return gather(folder)


def test_lines_are_configs_and_points_are_values(tmp_path):
    study = written(tmp_path, ["mix.alpha=0.1,2.0"])
    found = study_sweeps.lines(study.asked["swept"], "mix.alpha")
    assert found == {
        "cutmix": {"0.1": "cutmix-alpha0.1", "2.0": "cutmix-alpha2.0"},
        "mixup": {"0.1": "mixup-alpha0.1", "2.0": "mixup-alpha2.0"},
    }
    m = next(m for m in study.headlines if study.measures[m].axis == "accuracy")
    panel = study_sweeps.figure(study, "mix.alpha", [m]).axes[0]
    assert panel.get_xscale() == "log"
    drawn = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
    np.testing.assert_allclose(drawn["cutmix"], [0.815, 0.91])
    np.testing.assert_allclose(drawn["baseline"], 0.81)


@pytest.mark.parametrize(("seeds", "said"), [(1, "One seed."), (2, "Means over 2 seeds.")])
def test_a_caption_counts_seeds(seeds, said):
    assert study_numbers.means_over(seeds) == said


def test_a_swept_baseline_is_what_others_are_compared_with(tmp_path):
    """Whatever the order of the configs; of its values the first."""
    study = written(tmp_path, ["train.lr=0.1,0.05"], ("cutmix", "baseline"))
    assert study.augmentations[:2] == ("baseline-lr0.1", "baseline-lr0.05")
    assert {reference for _, reference in study.comparisons} == {"baseline-lr0.1"}


def test_other_keys_are_lines_of_their_own():
    swept = {
        "a-x1-y3": {"of": "a", "x": "1", "y": "3"},
        "a-x2-y3": {"of": "a", "x": "2", "y": "3"},
        "a-x1-y4": {"of": "a", "x": "1", "y": "4"},
    }
    found = study_sweeps.lines(swept, "x")
    assert found == {"a, y=3": {"1": "a-x1-y3", "2": "a-x2-y3"}, "a, y=4": {"1": "a-x1-y4"}}


@pytest.mark.parametrize(
    ("values", "scale", "places"),
    [
        (["0.1", "1", "10"], "log", [0.1, 1, 10]),
        (["1", "2"], "linear", [1, 2]),
        (["0", "10"], "linear", [0, 10]),
        (["mixed", "majority"], "linear", [0, 1]),
    ],
)
def test_axes(values, scale, places):
    found, ticks, kind = study_sweeps._axis(values)
    assert kind == scale
    assert [found[value] for value in values] == places
    assert list(ticks.values()) == values


def test_the_page_has_them_only_where_something_is_swept(tmp_path):
    written(tmp_path / "swept", ["mix.alpha=0.2,1.0"])
    found = reports.Page(writing.write_report(tmp_path / "swept"))
    assert "Over mix.alpha" in found.text
    assert "baseline, cutmix, mixup, over mix.alpha: 3 seeds" in found.text
    assert (tmp_path / "swept" / "report" / "sweep_mix_alpha.svg").exists()
    written(tmp_path / "plain", [])
    assert "Over mix.alpha" not in reports.Page(writing.write_report(tmp_path / "plain")).text
