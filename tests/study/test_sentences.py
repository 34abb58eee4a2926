"""What a study says in words, and what it leaves untested."""

import numpy as np
import pytest
import studies

from mixaug_jax.scores import Score
from mixaug_jax.study import comparing, crossing, gather, measures


@pytest.fixture(autouse=True)
def _no_deletion(monkeypatch):
    """Deletion across models has tests of its own."""

    def refuse(*_):
        raise ValueError("no networks")

    monkeypatch.setattr(crossing, "cross_deletion", refuse)


def test_one_seed_names_what_differs_beyond_the_images(tmp_path):
    for run in studies.asked(tmp_path, seeds=[0]):
        scores = {"gradcam": {"pointing_game": hit(run), "background_attribution": 0.5}}
        studies.write_run(run, scores=scores)
    assert gather(tmp_path).sentences["alignment"] == (
        "Alignment: One seed supports no statement about augmentations: how far two trainings of the same settings lie apart "
        "is not known. These very networks differ in pointing game (cutmix -1): the 95 % intervals over images leave out 0. "
        "Pointing at the object is what people expect, not proof of what the network uses."
    )


def test_the_same_difference_in_all_seeds_is_not_tested(tmp_path):
    for run in studies.asked(tmp_path, methods=["baseline", "cutmix", "mixup"]):
        worse = {"baseline": 0, "cutmix": 0.05, "mixup": 0.05 + 0.01 * run.seed}[run.name]
        scores = {"gradcam": {"pointing_game": 0.5}}
        studies.write_run(run, accuracy=0.9 + 0.02 * run.seed - worse, scores=scores)
    study = gather(tmp_path)
    (i,) = study.find("accuracy")
    assert study.difference[0, i] == pytest.approx(-0.05)
    assert np.isnan(study.difference_interval[0, i]).all()
    assert np.isfinite(study.difference_interval[1, i]).all()
    assert study.difference_of[:, i].tolist() == ["", "seeds"]
    text = study.sentences["accuracy"]
    assert "over 1 comparison (3 seeds)" in text
    assert text.endswith(
        "Not tested: cutmix in test accuracy, the difference is the same in all seeds: no spread to test by."
    )
    for axis in ("concepts", "alignment"):
        assert "Not tested: cutmix and mixup in" in study.sentences[axis]
        assert "over 0" not in study.sentences[axis]


def test_names_are_said_where_only_some_are_supported(tmp_path):
    for run in studies.asked(tmp_path, methods=["baseline", "cutmix", "mixup", "fmix"]):
        noise = np.random.default_rng([len(run.name), run.seed]).normal(0, 1e-3)
        scores = {
            "gradcam": {"pointing_game": 0.5 + 20 * noise, "background_attribution": 0.2 - noise}
        }
        better = 0.1 * (run.name == "cutmix")
        if run.name == "cutmix":
            scores["gradcam"]["pointing_game"] += 0.4
        studies.write_run(run, accuracy=0.8 + better + noise, scores=scores)
    study = gather(tmp_path)
    assert "Supported differences to baseline, at 5 % after" in study.sentences["accuracy"]
    said = "Not supported, which is not the same as no difference: "
    assert f"{said}mixup and fmix in test accuracy." in study.sentences["accuracy"]
    assert (
        f"{said}mixup and fmix in pointing game and any in attribution on the background."
        in (study.sentences["alignment"])
    )


def test_of_the_occlusion_what_the_least_important_parts_do_is_tested():
    names = ("rising_above_chance", "lowest_removed")
    rising, lowest = (
        measures.Measure("occlusion", name, setting="true label", better=0) for name in names
    )
    accuracy = measures.Measure("accuracy", "test_accuracy")
    assert comparing._headlines([rising, lowest, accuracy], "gradcam") == {accuracy, lowest}


def my_score(heatmap):
    return heatmap.sum()


def hit(run):
    return float(run.name == "baseline")


def spread(explain, net, image, label):
    return explain(net, image, label).std()


spread.__name__ = "judged"
judged = Score(spread, better=-1, title="what I judge by", headline=True)


def test_scores_that_a_user_added_are_measured(tmp_path):
    for run in studies.asked(tmp_path, seeds=[0]):
        scores = {"gradcam": {"pointing_game": 0.5, "my_score": 0.25, "judged": hit(run)}}
        studies.write_run(run, scores=scores, brought=(my_score, judged))
    found = gather(tmp_path)
    (i,) = found.find("complexity", "my_score")
    assert found.mean[:, i].tolist() == [0.25, 0.25]
    assert found.measures[i].better == 0
    assert i not in found.headlines
    (i,) = found.find("stability", "judged")
    assert (found.measures[i].better, found.measures[i].title) == (-1, "what I judge by")
    assert i in found.headlines
    assert found.difference[0, i] == -1
    # An axis is spoken of where something on it is judged.
    assert "complexity" not in found.sentences
    assert found.sentences["stability"].endswith(
        "These very networks differ in what I judge by (cutmix -1): the 95 % intervals over images leave out 0."
    )
