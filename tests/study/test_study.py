"""What a study asks for, and what it makes of the results of its runs."""

import csv
import json

import numpy as np
import pytest
import studies
from scipy import stats

import mixaug_jax
from mixaug_jax import report
from mixaug_jax.study import crossing, gather, sentences, study_tables

ACCURACY = {"baseline": [0.90, 0.92, 0.91], "cutmix": [0.85, 0.872, 0.858]}


def full_study(folder, **options):
    """Lower accuracy, less pointing, and no effect on the number of concepts."""
    runs = studies.asked(folder, **options)
    for run in runs:
        cutmix = run.name == "cutmix"
        draw = np.random.default_rng(run.seed)
        pointing = draw.permutation([1, 1, 1, 0, 0, 0]) * (1 - 0.5 * cutmix)
        scores = {"gradcam": {"pointing_game": pointing, "energy_pointing_game": draw.random(6)}}
        unique = [5, 8, 6][run.seed] + cutmix * [1, -1, 0][run.seed]
        studies.write_run(run, accuracy=ACCURACY[run.name][run.seed], unique=unique, scores=scores)
    return runs


@pytest.fixture
def no_deletion(monkeypatch):
    """Deletion across models has tests of its own."""
    monkeypatch.setattr(crossing, "cross_deletion", refuse)


def refuse(*_):
    raise ValueError("no networks")


def test_numbers_intervals_and_sentences(tmp_path, no_deletion):
    full_study(tmp_path)
    study = gather(tmp_path)
    assert study.augmentations == ("baseline", "cutmix")
    assert study.comparisons == (("cutmix", "baseline"),)
    (i,) = study.find("accuracy")
    np.testing.assert_array_equal(study.values[:, :, i], [*ACCURACY.values()])
    found = stats.ttest_rel(ACCURACY["cutmix"], ACCURACY["baseline"])
    assert study.p[0, i] == pytest.approx(found.pvalue)
    assert study.p_holm[0, i] == study.p[0, i]  # alone in its family
    np.testing.assert_allclose(study.difference_interval[0, i], found.confidence_interval())
    np.testing.assert_array_equal(study.rank[:, i], [1, 2])
    assert (study.interval_of[0, i], study.difference_of[0, i]) == ("seeds", "seeds")
    assert (study.n[0, i], study.pairs[0, i]) == (3, 3)

    (unique,) = study.find("concepts", "unique", setting="unit", level=0.04, category="total")
    (above,) = study.find(
        "concepts", "unique_above_shuffled", setting="unit", level=0.04, category="total"
    )
    np.testing.assert_array_equal(study.values[:, :, unique], [[6, 9, 7], [7, 8, 7]])
    np.testing.assert_array_equal(study.values[:, :, above], study.values[:, :, unique] - 1)
    assert study.measures[above].headline
    assert not study.measures[unique].headline
    assert study.difference[0, above] == 0
    assert np.isnan(study.rank[:, above]).all()  # no difference is supported

    low, high = study.difference_interval[0, i]
    assert study.sentences["accuracy"] == (
        "Accuracy: Supported differences to baseline, at 5 % after Holm's correction over 1 comparison (3 seeds): "
        f"cutmix -0.05 in test accuracy (95 % interval {low:+.3g} to {high:+.3g}, worse)."
    )
    half = np.ptp(study.difference_interval[0, above]) / 2
    assert study.sentences["concepts"] == (
        "Concepts: No difference to baseline is supported at 5 % after Holm's correction over 1 comparison (3 seeds). "
        f"Differences up to about {half:.2g} in unique concepts above chance may be there unseen (half width of the "
        "95 % interval)."
    )
    assert study.sentences["faithfulness"] == "Faithfulness: Not measured, so the data say nothing."
    assert study.problems == tuple(
        f"seed {s}: no deletion across models: no networks" for s in range(3)
    )


def test_two_seeds_have_points_and_no_interval_and_no_test(tmp_path, no_deletion, capsys):
    full_study(tmp_path, seeds=[0, 1])
    study = gather(tmp_path)
    (i,) = study.find("accuracy")
    assert study.n[:, i].tolist() == [2, 2]
    assert study.difference[0, i] == pytest.approx(-0.049)
    for array in (study.interval, study.difference_interval, study.p, study.p_holm, study.rank):
        assert np.isnan(array).all()
    assert not {*study.interval_of.ravel(), *study.difference_of.ravel()} - {""}
    for axis in ("accuracy", "concepts", "alignment"):
        assert "Two seeds support no statement about augmentations" in study.sentences[axis]
    text = study_tables.summary(study)
    assert "rank" not in text
    assert text.count("no interval") == 2 * len(study.headlines)


def test_intervals_of_shares_stay_within_their_scale(tmp_path, no_deletion):
    for run in studies.asked(tmp_path):
        accuracy = [1.0, 0.5, 0.99][run.seed] if run.name == "cutmix" else [0.1, 0.9, 0.2][run.seed]
        scores = {"gradcam": {"pointing_game": 1 - accuracy, "energy_pointing_game": accuracy}}
        studies.write_run(run, accuracy=accuracy, scores=scores)
    study = gather(tmp_path)
    shares = [*study.find("accuracy"), *study.find("alignment")]
    assert len(shares) >= 3
    low, high = np.moveaxis(study.interval[:, shares], -1, 0)
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (low == 0).any()
    assert (high == 1).any()
    low, high = np.moveaxis(study.difference_interval[:, shares], -1, 0)
    assert (low >= -1).all()
    assert (high <= 1).all()
    assert ((low == -1) | (high == 1)).any()
    assert (low <= study.difference[:, shares]).all()
    assert (study.difference[:, shares] <= high).all()


def test_networks_at_chance_are_named_and_not_compared(tmp_path, no_deletion):
    for run in studies.asked(tmp_path, seeds=[0, 1, 2, 3]):
        lost = (run.name, run.seed) == ("cutmix", 2)
        noise = np.random.default_rng([run.seed, len(run.name)]).normal(0, 0.01)
        accuracy = 0.55 if lost else 0.9 + noise - 0.2 * (run.name == "cutmix")
        studies.write_run(run, accuracy=accuracy, images=100, unique=50 if lost else 5)
    study = gather(tmp_path)
    text = "cutmix seed 2 (test accuracy 55.0% of 100 images, chance 50.0%)"
    assert study.at_chance == {("cutmix", 2): text}
    said = sentences.at_chance(study)
    assert text in said
    assert said == study_tables.summary(study).splitlines()[0]
    (i,) = study.find("accuracy")
    assert study.n[1, i] == 4
    assert study.pairs[0, i] == 3
    assert "(3 seeds)" in study.sentences["accuracy"]
    # Its fifty concepts would make a difference.
    (above,) = study.find(
        "concepts", "unique_above_shuffled", setting="unit", level=0.04, category="total"
    )
    assert study.difference[0, above] == 0


def test_all_networks_at_chance_leave_nothing_to_compare(tmp_path, no_deletion):
    for run in studies.asked(tmp_path):
        studies.write_run(run, accuracy=0.5, images=40)
    study = gather(tmp_path)
    assert len(study.at_chance) == 6
    assert (
        "No augmentation can be compared to baseline: networks are at chance."
        in (study.sentences["accuracy"])
    )


def test_without_a_test_split_it_is_validation_accuracy(tmp_path, no_deletion):
    for run in studies.asked(tmp_path):
        studies.write_run(run, accuracy=0.9 + 0.01 * run.seed, images=50, split="validation")
    study = gather(tmp_path)
    (i,) = study.find("accuracy", "validation_accuracy")
    assert study.measures[i].headline
    assert not study.find("accuracy", "test_accuracy")
    assert "in validation accuracy" in study.sentences["accuracy"]


def test_controls_are_beaten_or_not_in_so_many_networks(tmp_path, no_deletion):
    for run in studies.asked(tmp_path):
        means = {"gradcam": 0.8, "gradient": 0.1 + 0.3 * run.seed, "random": 0.2, "center": 0.5}
        studies.write_run(run, scores={m: {"pointing_game": mean} for m, mean in means.items()})
    said = (
        "Networks in which a method's mean is better than both controls' (random and center), by pointing game: "
        "gradcam 6 of 6, gradient 2 of 6."
    )
    assert said in gather(tmp_path).sentences["alignment"]


def test_one_seed_supports_nothing_and_says_so(tmp_path, no_deletion):
    full_study(tmp_path, seeds=[0])
    study = gather(tmp_path)
    (accuracy,) = study.find("accuracy")
    (pointing,) = study.find("alignment", "pointing_game")
    assert study.interval_of[:, accuracy].tolist() == ["", ""]
    assert np.isnan(study.interval[:, accuracy]).all()
    assert study.interval_of[:, pointing].tolist() == ["images", "images"]
    assert study.difference_of[0, pointing] == "images"
    low, high = study.difference_interval[0, pointing]
    assert -0.5 <= low < study.difference[0, pointing] == -0.25 < high <= 0
    assert np.isnan(study.p).all()
    for axis in ("accuracy", "concepts", "alignment"):
        assert "supports no statement about augmentations" in study.sentences[axis]
    assert "These very networks" not in study.sentences["accuracy"]
    assert (
        "These very networks differ in pointing game (cutmix -0.25)" in study.sentences["alignment"]
    )


def test_a_paired_bootstrap_is_narrower_than_two(tmp_path, no_deletion):
    """The same images are drawn for both sides."""
    runs = studies.asked(tmp_path, seeds=[0])
    hits = np.random.default_rng(0).random(6)
    for run, shift in zip(runs, (0, 0.125), strict=True):
        studies.write_run(run, scores={"gradcam": {"pointing_game": hits + shift}})
    study = gather(tmp_path)
    (i,) = study.find("alignment", "pointing_game")
    np.testing.assert_allclose(study.difference_interval[0, i], 0.125)
    assert np.ptp(study.interval[0, i]) > 0.1


def test_what_is_missing_is_said_and_not_made_up(tmp_path, no_deletion):
    runs = {(run.name, run.seed): run for run in full_study(tmp_path)}
    (runs["cutmix", 0].workdir / "attribution" / "gradcam.npz").unlink()
    (runs["cutmix", 1].workdir / "dissection" / "layer4.npz").write_bytes(b"cut off")
    lines = (runs["cutmix", 2].workdir / "metrics.jsonl").read_text().splitlines()
    (runs["cutmix", 2].workdir / "metrics.jsonl").write_text(lines[0])
    for file in runs["baseline", 2].workdir.glob("config.json"):
        file.unlink()
    study = gather(tmp_path)
    text = "\n".join(study.problems)
    assert "cutmix seed 0: no attribution" in text
    assert "layer4.npz is no result of a dissection" in text
    assert "cutmix seed 2: the training has not ended (step 5 of 10)" in text
    assert "baseline seed 2: not started" in text
    assert np.isnan(study.values[1, 2]).all()
    (accuracy,), (pointing,) = study.find("accuracy"), study.find("alignment", "pointing_game")
    assert study.n[:, accuracy].tolist() == [2, 2]
    assert study.n[:, pointing].tolist() == [2, 1]
    assert study.pairs[0, pointing] == 1
    assert ("cutmix", 2) not in study.workdirs
    with pytest.raises(ValueError, match=r"no study\.json"):
        gather(tmp_path / "baseline")


def test_results_of_other_settings_are_left_out(tmp_path, no_deletion):
    runs = studies.asked(tmp_path, seeds=[0, 1])
    scores = {"gradcam": {"pointing_game": 1.0}}
    for run in runs:
        studies.write_run(run, scores=scores, examples=8 if run is runs[1] else 7)
    other = studies.concepts(9, q=0.02)
    studies.dissection.save(other, runs[3].workdir / "dissection" / "layer4.npz")
    file = runs[2].workdir / "config.json"
    file.write_text(file.read_text().replace('"lr": 0.05', '"lr": 0.2'))
    study = gather(tmp_path)
    text = "\n".join(study.problems)
    assert "cutmix seed 0: attribution/gradcam left out" in text
    assert "examples: 7 -> 8" in text
    assert "cutmix seed 1: dissection/layer4 left out" in text
    assert "baseline seed 1: left out: made with other settings" in text
    assert "train.lr: 0.05 -> 0.2" in text
    (pointing,) = study.find("alignment", "pointing_game")
    np.testing.assert_array_equal(study.values[:, :, pointing], [[1, np.nan], [np.nan, 1]])


def test_unmixed_labels_are_compared_with_mixed_ones(tmp_path, no_deletion):
    runs = studies.asked(tmp_path, methods=["cutmix", "baseline", "mixup"], unmixed_labels=True)
    for run in runs:
        twin = run.name.endswith("majority")
        noise = np.random.default_rng([len(run.name), run.seed]).normal(0, 1e-3)
        studies.write_run(run, accuracy=0.9 + 0.05 * twin + noise)
    study = gather(tmp_path)
    assert study.comparisons == (
        ("cutmix", "baseline"),
        ("mixup", "baseline"),
        ("cutmix-label_majority", "baseline"),
        ("mixup-label_majority", "baseline"),
        ("cutmix-label_majority", "cutmix"),
        ("mixup-label_majority", "mixup"),
    )
    (i,) = study.find("accuracy")
    np.testing.assert_allclose(study.difference[:, i], [0, 0, 0.05, 0.05, 0.05, 0.05], atol=5e-3)
    # Two families: p times 4 at most among the first, times 2 among the last.
    assert (study.p_holm[:4, i] <= np.minimum(1, 4 * study.p[:4, i] + 1e-12)).all()
    assert (study.p_holm[4:, i] <= 2 * study.p[4:, i] + 1e-12).all()
    assert "Unmixed labels: Supported differences to the same mixing" in study.sentences["accuracy"]


TABLES = ("values", "means", "differences", "cross_model_deletion")


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_have_a_row_a_number(tmp_path, no_deletion, monkeypatch, capsys):
    full_study(tmp_path)
    written = []
    monkeypatch.setattr(report, "write_study", lambda *given: written.append(given))
    study = mixaug_jax.run_study(workdir=tmp_path)
    assert written == [(study, tmp_path)]
    printed = capsys.readouterr().out
    assert study.sentences["accuracy"] in printed
    assert "seed 0: no deletion across models" in printed
    rows = {name: read_table(tmp_path / "tables" / f"{name}.csv") for name in TABLES}
    assert len(rows["values"]) == np.sum(~np.isnan(study.values))
    assert len(rows["means"]) == study.mean.size
    assert len(rows["differences"]) == study.difference.size
    assert rows["cross_model_deletion"] == []
    (row,) = [r for r in rows["differences"] if r["axis"] == "accuracy"]
    (i,) = study.find("accuracy")
    assert (row["augmentation"], row["minus"], row["n"], row["interval_of"]) == (
        "cutmix", "baseline", "3", "seeds",
    )  # fmt: skip
    for cell, value in zip(
        (row["difference"], row["low"], row["high"], row["p"]),
        (study.difference[0, i], *study.difference_interval[0, i], study.p[0, i]),
        strict=True,
    ):
        assert float(cell) == pytest.approx(value, rel=1e-5)
    assert {r["p_holm"] for r in rows["differences"] if r["headline"] == "0"} == {""}


def test_asked_is_what_the_study_says(tmp_path, no_deletion):
    full_study(tmp_path, seeds=[0])
    study = gather(tmp_path)
    assert study.asked == json.loads((tmp_path / "study.json").read_text())
    assert study.asked["commands"]["cutmix/0"].endswith("--stage=all")
    assert study.workdirs["cutmix", 0] == str(tmp_path / "cutmix" / "0")
