"""Interventions as measures of a study: a family of their own, intervals, and their part of the page."""

import numpy as np
import pytest
import studies
import unit_switches

from mixaug_jax import study
from mixaug_jax.core import files, stats
from mixaug_jax.dissection import removal_result
from mixaug_jax.draw import intervention_tables
from mixaug_jax.report.study import study_interventions
from mixaug_jax.study import collect

NAMES = {"removal_area", "ranked_gap", "detector_harm", "single_drop"}


def made(folder, kept, seeds=(0, 1, 2)):
    """A study whose networks keep a share `kept(name, seed)` of the answers that hang on a unit."""
    for run in studies.asked(folder, seeds=seeds):
        studies.write_run(run)
        name, seed = run.workdir.parent.name, int(run.workdir.name)
        told = {"value": "zero", "weights": seed, "detected": seed}
        found = unit_switches.intervention(kept=kept(name, seed), settings=told)
        place = run.workdir / "interventions"
        removal_result.save(found, place / "layer4.npz")
        for table, make in intervention_tables.TABLES.items():
            files.write_csv(place / f"{table}.csv", *make(found))
    return study.gather(folder)


def more_robust(name, seed):
    return (
        (0.5 if name == "cutmix" else 0.1) + 0.05 * seed + 0.05 * (name == "cutmix") * (seed == 1)
    )


def test_headlines_are_a_family_of_their_own(tmp_path):
    found = made(tmp_path, more_robust)
    columns = found.find("interventions")
    assert {found.measures[m].name for m in columns} == NAMES
    judged = [m for m in columns if found.measures[m].headline]
    assert [found.measures[m].name for m in judged] == ["removal_area", "detector_harm"]
    # Each value is that of the file, and Holm's correction counts these two alone.
    (area, harm) = judged
    own = unit_switches.intervention(kept=more_robust("cutmix", 1))
    assert found.values[1, 1, area] == pytest.approx(removal_result.summary(own)["removal_area"][0])
    assert found.difference[0, area] > 0
    assert found.difference[0, harm] < 0
    np.testing.assert_allclose(found.p_holm[0, judged], stats.holm(found.p[0, judged]))
    said = found.sentences["interventions"]
    assert said.startswith("Interventions: Supported differences to baseline")
    assert "area under the accuracy while units go in random order" in said
    assert "better" in said
    # Apart from the comparisons: whether each augmentation's networks need their detectors at all.
    assert (
        "need the detectors of what they show more than equally many other units is supported"
        in said
    )
    assert "(2 tested), for baseline +0.167 (95 % interval +0.138 to +0.195) and cutmix" in said
    others = [m for m in found.headlines if m not in columns]
    without = studies.asked(tmp_path / "other")
    for run in without:
        studies.write_run(run)
    plain = study.gather(tmp_path / "other")
    np.testing.assert_array_equal(plain.p_holm[0, list(plain.headlines)], found.p_holm[0, others])
    assert "interventions" not in plain.sentences, "nobody asked"


def test_detectors_that_nobody_needs(tmp_path):
    """The answers of two seeds hang on a unit that detects, those of the third do not: no support."""
    found = made(tmp_path, lambda name, seed: float(seed < 2) * 0.999)
    said = found.sentences["interventions"]
    assert "is supported under no augmentation" in said


def test_one_seed_has_intervals_over_images(tmp_path):
    found = made(tmp_path, more_robust, seeds=(0,))
    (area,) = found.find("interventions", "removal_area")
    assert found.interval_of[0, area] == "images"
    low, high = found.interval[0, area]
    assert low < found.mean[0, area] < high
    assert found.difference_of[0, area] == "images"


def test_what_was_not_removed_has_no_measure(tmp_path):
    """And other settings are not compared; checksums of the network are no settings."""
    whole = unit_switches.intervention()
    kept = whole.sets.find("unit")
    only = unit_switches.intervention(
        sets=type(whole.sets)(*(v[kept] for v in vars(whole.sets).values())),
        predicted=whole.predicted[:, kept],
        loss=whole.loss[:, kept],
        settings={"value": "zero", "weights": 3, "detected": 4, "model": "x"},
    )
    removal_result.save(only, tmp_path / "layer4.npz")
    part = collect._interventions(tmp_path / "layer4.npz")
    assert [m.name for m in part.values] == ["single_drop"]
    assert part.settings == {"value": "zero"}


def test_its_part_of_the_page(tmp_path):
    found = made(tmp_path, more_robust)
    part = study_interventions.section(found, tmp_path)
    assert (tmp_path / "interventions.svg").exists()
    rows = files.read_csv(tmp_path / "interventions.csv")
    assert len(rows) == len(NAMES)
    assert "lines: mean over seeds" in part.lower()
    drawn = study_interventions.curves(found)["layer4"]
    assert {name: len(seeds) for name, seeds in drawn.items()} == {"baseline": 3, "cutmix": 3}
    shares, heights = drawn["cutmix"][0]
    assert shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    own = unit_switches.intervention(kept=more_robust("cutmix", 0))
    area = removal_result.area(own, "random order")[0]
    assert np.trapezoid(heights, shares) == pytest.approx(area, abs=1e-5)
    assert "no run has interventions" in study_interventions.section(study.gather(_bare(tmp_path)), tmp_path)  # fmt: skip


def _bare(folder):
    for run in studies.asked(folder / "bare"):
        studies.write_run(run)
    return folder / "bare"
