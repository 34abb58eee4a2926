"""What a study says of single classes, from folders of runs."""

import dataclasses

import class_cases
import numpy as np
import pytest
import studies

from mixaug_jax import data, study
from mixaug_jax.data.source import Source
from mixaug_jax.study import (
    class_answers,
    class_effects,
    class_sentences,
    class_statistics,
    confusions,
    plan,
)
from mixaug_jax.study.class_answers import Answers
from mixaug_jax.study.superclasses import superclass

NAMES = tuple(f"class{m}" for m in range(12))


@pytest.fixture(scope="module", autouse=True)
def _quick():
    def gone(*_, **__):
        raise OSError("the data is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_statistics, "DRAWS", 200)
        patch.setattr(data, "open_source", gone)
        yield


def gathered(folder):
    """The class effects alone, without the rest of a study."""
    return study.gather(folder).classes


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Baseline and two strengths of cutmix, four seeds, twelve classes; one run's predictions are of other images."""
    folder = tmp_path_factory.mktemp("classes")
    asked = {"methods": ("baseline", "cutmix"), "sweep": ["mix.alpha=0.5,1.0"]}
    runs = class_cases.write_study(folder, classes=12, images=50, seeds=(0, 1, 2, 3), **asked)
    other = next(r for r in runs if (r.name, r.seed) == ("cutmix-alpha1.0", 3))
    studies.write_predictions(other, np.arange(12), np.arange(12))
    return gathered(folder)


def test_effects_are_those_of_the_files(found):
    assert found.answers.classes == NAMES
    assert [(e.name, e.reference) for e in found.effects] == [
        ("cutmix-alpha0.5", "baseline"),
        ("cutmix-alpha1.0", "baseline"),
    ]
    one, other = found.effects
    right, labels, _ = class_cases.correct([50] * 12, 4, 0.6, arm=1)
    np.testing.assert_allclose(one.effects, class_cases.effects(right, labels))
    np.testing.assert_allclose(one.means[:, 0], one.effects.mean(0))
    np.testing.assert_allclose(one.recall[1] - one.recall[0], one.effects.mean(0))
    assert one.overall[0] == pytest.approx(one.effects.mean())
    assert one.observed.worse[0] == (one.effects.mean(0) < 0).sum()
    assert one.found.tau_squared == pytest.approx(class_statistics.tau_squared(one.effects))
    assert one.differs
    assert one.p_holm >= one.found.p
    assert one.seeds == (0, 1, 2, 3)
    # The other images of one run are left out, and said.
    assert other.seeds == (0, 1, 2)
    assert found.problems == (
        "cutmix-alpha1.0 seed 3: predictions left out: they are of other images than those of the first run",
    )
    assert one.agreement > 0.5
    assert found.between.shape == (2, 2)
    assert found.between[0, 0] == pytest.approx(one.agreement)
    # Six images are explained: too few classes for a link.
    assert one.links == ()


def test_strengths_are_slopes_over_a_swept_key(found):
    (one,) = found.strengths
    assert (one.key, one.line, one.values) == ("mix.alpha", "cutmix", (0.5, 1.0))
    slopes = (one.recall[1] - one.recall[0]) / 0.5
    np.testing.assert_allclose(one.slopes, slopes)
    assert one.recall.shape == (2, 3, 12)  # three seeds have both
    assert one.found.tau_squared == pytest.approx(class_statistics.tau_squared(slopes))


def test_sentences_say_what_is_found(found):
    text = class_sentences.of_study(found)
    assert text[0].startswith(
        "Over 4 seeds the effect of cutmix-alpha0.5 differs between classes (tau "
    )
    assert "after Holm's correction over 2 comparisons" in text[0]
    named = [NAMES[m] for m in found.effects[0].classes[found.effects[0].named]]
    assert f"{len(named)} classes can be named as worse: {named[0]}" in text[0]
    assert "of 12 classes look worse; if all had the mean effect" in text[0]
    assert text[-1].startswith("With 12 classes the intervals of tau are wide")


def test_no_difference_names_no_class(tmp_path):
    class_cases.write_study(tmp_path, classes=12, spread=0.0)
    found = gathered(tmp_path)
    (effect,) = found.effects
    assert not effect.named.any()
    (text, _) = class_sentences.of_study(found)
    assert "it is not supported that the effect of cutmix differs between classes (tau " in text
    assert "no single class can be named at this number of seeds" in text


@pytest.mark.parametrize(("classes", "seeds", "needed"), [
    (9, (0, 1, 2), "10 classes (there are 9)"),
    (12, (0, 1), "3 seeds (there are 2)"),
    (12, (0,), "3 seeds (there is 1)"),
])  # fmt: skip
def test_what_cannot_be_said_is_left_out(tmp_path, classes, seeds, needed):
    class_cases.write_study(tmp_path, classes=classes, seeds=seeds)
    found = gathered(tmp_path)
    (effect,) = found.effects
    assert effect.found is effect.shrunken is effect.null is None
    assert effect.interval_of == {1: "images", 2: "", 3: "seeds"}[len(seeds)]
    assert np.isfinite(effect.means[:, 1:]).all() == (len(seeds) != 2)
    text = class_sentences.of_study(found)
    assert len(text) == 2
    assert text[1].startswith("Left out: how much the effect differs between classes (tau)")
    assert text[1].endswith(f"They need {needed}.")


def test_runs_without_predictions_have_no_classes(tmp_path):
    for run in studies.asked(tmp_path, seeds=(0,)):
        studies.write_run(run)
    assert gathered(tmp_path) is None


def answers(labels, predicted, shown=(), classes=NAMES):
    """Of runs ("a", s) and ("b", s): `predicted` [2,S,N]."""
    by_run = {
        (name, s): row
        for name, side in zip("ab", predicted, strict=True)
        for s, row in enumerate(side)
    }
    shown = np.zeros((0, len(classes)), bool) if not len(shown) else shown
    return Answers(tuple(classes), np.asarray(labels), by_run, shown)


def swapped(shares=(0.05, 0.35), seeds=4, classes=12, images=60):
    """Class 3 is taken for class 7 by these shares of its images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), images)
    predicted = np.broadcast_to(labels, (2, seeds, len(labels))).copy()
    for side, share in enumerate(shares):
        for s in range(seeds):
            chosen = rng.choice(images, int(images * share) + s * (side + 1) % 3, replace=False)
            predicted[side, s, 3 * images + chosen] = 7
    return labels, predicted


def test_a_planted_confusion_is_found():
    labels, predicted = swapped()
    found = confusions.changed(
        answers(labels, predicted), [("b", s) for s in range(4)], [("a", s) for s in range(4)]
    )
    (one,) = found
    assert (one.true, one.taken, one.kind) == (3, 7, "")
    assert one.rates == pytest.approx((3.75 / 60, 21.75 / 60))
    assert one.interval[0] <= one.rates[1] - one.rates[0] <= one.interval[1]
    assert max(map(abs, one.interval)) <= 1
    labels, predicted = swapped((0.0, 0.02))  # too few errors
    same = confusions.changed(
        answers(labels, predicted), [("b", s) for s in range(4)], [("a", s) for s in range(4)]
    )
    assert same == []


def test_the_interval_of_a_confusion_lies_within_the_scale():
    """Rates of almost 1 that spread over three seeds, so that t would reach beyond."""
    labels = np.repeat([0, 1], 40)
    predicted = np.broadcast_to(labels, (2, 3, 80)).copy()
    for s, count in enumerate((40, 39, 30)):
        predicted[1, s, :count] = 1
    (one,) = confusions.changed(
        answers(labels, predicted, classes=("a", "b")),
        [("b", s) for s in range(3)],
        [("a", s) for s in range(3)],
    )
    assert one.interval[1] == 1
    assert one.interval[0] < one.rates[1] - one.rates[0] < 1


def test_confusions_need_seeds_and_not_classes():
    labels, predicted = swapped(seeds=3)
    few = (labels == 3) | (labels == 7)  # two classes
    given = answers((labels[few] == 7).astype(int), predicted[..., few] // 7, classes=("a", "b"))
    numbers = {run: {} for run in given.predicted}
    effect = class_effects._effect(given, ("b", "a"), [0, 1, 2], numbers)
    assert effect.found is None
    assert [(one.true, one.taken) for one in effect.confused] == [(0, 1)]


def test_kinds_of_confusions():
    labels = np.repeat(np.arange(12), 60)
    shown = np.eye(12, dtype=bool)[labels]
    given = lambda shown, pair=(3, 7): confusions.kind(NAMES, shown, labels, pair)  # noqa: E731
    assert given(shown) == "unrelated"
    both = shown.copy()
    both[180:186, 7] = True  # a tenth of class 3 shows class 7
    assert given(both) == "ambiguous"
    together = shown.copy()
    together[180:185, 7] = together[0:30, 3] = together[0:30, 7] = True
    assert given(together) == "co-occurring"
    assert given(np.zeros((0, 12), bool)) == ""


def test_families_are_those_of_cifar100_alone():
    from mixaug_jax.study.superclasses import _families

    classes = tuple(_families())
    assert len(classes) == 100
    assert len({*_families().values()}) == 20
    assert superclass(classes, "ray") == superclass(classes, "shark") == "fish"
    assert superclass(("house", "rocket"), "house") == ""
    pair = classes.index("ray"), classes.index("shark")
    none = np.zeros((0, 100), bool)
    assert confusions.kind(classes, none, np.zeros(0, int), pair) == "fine-grained"
    assert confusions.kind(classes, none, np.zeros(0, int), (0, pair[0])) == "unrelated"


def test_losses_are_forgiven_where_the_image_shows_the_answer(tmp_path):
    """Half of the confused images of class 3 show class 7 as well."""
    labels, predicted = swapped((0.0, 0.5))
    runs = studies.asked(tmp_path, ("baseline", "cutmix"), (0, 1, 2))
    targets = np.eye(12)[labels]
    targets[180:210, 7] = 1
    for run in runs:
        studies.write_run(run)
        side = predicted[int(run.name != "baseline"), run.seed]
        studies.write_predictions(run, labels, side, classes=NAMES, targets=targets)
    (effect,) = gathered(tmp_path).effects
    confused = predicted[:, :3, 180:240] == 7
    both, alone = (
        int(part[1].sum()) - int(part[0].sum()) for part in (confused[..., :30], confused[..., 30:])
    )
    assert effect.forgiven == pytest.approx(both / (both + alone))


def test_what_images_show_is_read_from_boxes_once(tmp_path, monkeypatch):
    read = []

    def example(index):
        read.append(index)
        return {
            "image": np.zeros((4, 4, 3), np.uint8),
            "label": index % 12,
            "box_labels": np.array([5]),
        }

    source = Source(example, 600, NAMES, box_names=NAMES)
    monkeypatch.setattr(data, "open_source", lambda split, config: source)
    (run,) = studies.asked(tmp_path, ("baseline",), (0,))
    studies.write_run(run)
    labels = np.arange(600) % 12
    studies.write_predictions(run, labels, labels, classes=NAMES)
    workdirs = {("baseline", 0): str(run.workdir)}
    found, _ = class_answers.read(workdirs, tmp_path)
    assert found.shown.shape == (600, 12)
    assert found.shown[:, 5].all()
    np.testing.assert_array_equal(found.shown[:, 0], labels == 0)
    assert sorted(read) == list(range(600))
    monkeypatch.setattr(data, "open_source", None)  # not asked again
    again, _ = class_answers.read(workdirs, tmp_path)
    np.testing.assert_array_equal(again.shown, found.shown)


def test_a_class_without_images_is_left_out():
    labels, predicted = swapped()
    given = answers(labels, predicted, classes=(*NAMES, "empty"))
    effect = class_effects._effect(
        given, ("b", "a"), [0, 1, 2], {run: {} for run in given.predicted}
    )
    np.testing.assert_array_equal(effect.classes, np.arange(12))
    assert np.isfinite(effect.effects).all()
    assert effect.found is not None


def test_links_are_correlations_over_classes():
    labels, predicted = swapped()
    given = answers(labels, predicted)
    rng = np.random.default_rng(0)
    predicted[1] = np.where(rng.random(predicted[1].shape) < 0.02 * labels, 0, labels)
    given = answers(labels, predicted)
    recall = {run: np.bincount(labels, row == labels) / 60 for run, row in given.predicted.items()}
    numbers = {run: {"follows": 2 * r, "empty": r * np.nan} for run, r in recall.items()}
    effect = class_effects._effect(given, ("b", "a"), [0, 1, 2], numbers)
    (link,) = effect.links  # "empty" has too few classes
    assert (link.what, link.classes) == ("follows", 12)
    assert link.rho == pytest.approx(1)
    assert link.p < 0.01
    (corrected,) = class_effects._corrected([effect])
    assert corrected.links == (dataclasses.replace(link, p_holm=link.p),)


def test_cache_is_no_name_of_an_augmentation(tmp_path):
    with pytest.raises(ValueError, match="cannot be called"):
        study.make_plan({plan.SHOWN: "configs/cutmix.py"}, [0], tmp_path)
