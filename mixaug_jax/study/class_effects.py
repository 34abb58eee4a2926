"""What an augmentation does to single classes: gains and losses of recall, and how much of them is noise.

Lee et al. 2023 (arXiv 2307.09136) count the classes that mixing harms. Such counts look the same where nothing happened, so
each stands here beside what shuffled classes give, and the question comes first whether the effect differs between classes at
all."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.core.types import Path
from mixaug_jax.study import class_answers, class_links, class_statistics, confusions, sweeps
from mixaug_jax.study.class_answers import Answers
from mixaug_jax.study.class_results import ClassEffect, ClassStudy, Strengths
from mixaug_jax.study.results import Study


def compare(study: Study, folder: Path) -> ClassStudy | None:
    """The class effects of a study; None where no run has predictions.

    Networks at chance are left out, as in the study.
    """
    # A network at chance says nothing of classes; its section would look like a finding.
    workdirs = {run: where for run, where in study.workdirs.items() if run not in study.at_chance}
    answers, problems = class_answers.read(workdirs, folder)
    if answers is None:
        return None
    numbers = {
        run: class_links.numbers_by_class(study, workdirs[run], answers.classes)
        for run in answers.predicted
    }
    effects = []
    for name, reference in study.comparisons:
        seeds = [s for s in study.seeds if {(name, s), (reference, s)} <= answers.predicted.keys()]
        if seeds:
            effects.append(_effect(answers, (name, reference), seeds, numbers))
    # The comparisons are tested together, so each p has to know of the others.
    effects = _corrected(effects)
    return ClassStudy(
        answers, tuple(effects), _between(effects), _strengths(study, answers), tuple(problems)
    )


def right(answers: Answers, runs: Sequence, forgiving: bool = False) -> np.ndarray:
    """[S,N], whether each image is classified right; forgiving: as a class that it shows."""
    predicted = np.stack([answers.predicted[run] for run in runs])
    if forgiving:
        return answers.shown[np.arange(predicted.shape[1]), predicted]
    return predicted == answers.labels


def _effect(answers, pair, seeds, numbers) -> ClassEffect:
    runs, references = ([(name, s) for s in seeds] for name in pair)
    count, labels = len(answers.classes), answers.labels
    kept = np.flatnonzero(answers.sizes)

    def means(values):
        return class_statistics.class_means(values.astype(np.float64), labels, count)[:, kept]

    one, other = right(answers, runs), right(answers, references)
    difference = one.astype(np.float64) - other
    effects = means(difference)
    every = class_statistics.mean_effects(effects)
    if len(seeds) == 1:
        every[:, 1:] = class_statistics.image_intervals(difference[0], labels, count)[kept]
    over = {1: "images", 2: ""}.get(len(seeds), "seeds")
    overall = stats.mean_interval(effects.mean(1), (-1.0, 1.0))[:3]
    found = class_links.links(
        effects,
        [_kept(numbers[r], kept) for r in runs],
        [_kept(numbers[r], kept) for r in references],
    )
    effect = ClassEffect(
        *pair,
        tuple(seeds),
        kept,
        np.stack([means(side).mean(0) for side in (other, one)]),
        effects,
        every,
        over,
        overall,
        class_statistics.published(effects.mean(0)[None]),
        _forgiven(answers, runs, references, effects, means),
        tuple(found),
    )
    if len(seeds) < stats.FEWEST_SEEDS:
        return effect
    # Single confusions are tested over seeds, however few classes there are.
    changed = tuple(confusions.changed(answers, runs, references))
    effect = dataclasses.replace(effect, confused=changed)
    # What follows separates noise from differences between classes, of which there must be enough.
    enough = len(kept) >= class_statistics.FEWEST_CLASSES
    return _without_noise(effect, answers, difference) if enough else effect


def _without_noise(effect, answers, difference) -> ClassEffect:
    """An effect with what is told apart from noise; `difference` [S,N] is that of each image."""
    effects, sizes = effect.effects, answers.sizes
    null, band = class_statistics.null_means(effects)
    of_classes = class_statistics.dependence(effects)
    return dataclasses.replace(
        effect,
        null=null,
        band=band,
        found=of_classes,
        population=class_statistics.tau_squared_of_halves(
            difference, answers.labels, len(answers.classes)
        ),
        shrunken=class_statistics.shrink(effects, sizes[effect.classes], of_classes),
        by_tests=class_statistics.worse_by_tests(effects),
        agreement=class_statistics.agreement(effects, effects),
    )


def _kept(numbers, kept):
    return {what: values[kept] for what, values in numbers.items()}


def _forgiven(answers, runs, references, effects, means) -> float:
    """1 - (loss that is left) / (loss), over the classes that lose."""
    losing = effects.mean(0) < 0
    if not len(answers.shown) or not losing.any():
        return np.nan
    one, other = (right(answers, side, forgiving=True) for side in (runs, references))
    left = means(one.astype(np.float64) - other).mean(0)[losing].sum()
    return float(1 - left / effects.mean(0)[losing].sum())


def _corrected(effects):
    """With p after Holm's correction: one family for the question whether classes differ, one for all links."""
    p = stats.holm([e.found.p if e.found else np.nan for e in effects])
    linked = stats.holm([link.p for e in effects for link in e.links])
    places = iter(linked)
    done = []
    for effect, corrected in zip(effects, p, strict=True):
        links = tuple(dataclasses.replace(link, p_holm=next(places)) for link in effect.links)
        named = None
        if effect.shrunken:
            # Where no difference between classes is supported, none is told from the others.
            supported = corrected < stats.ALPHA
            named = class_statistics.named(effect.shrunken.worse) & supported
        done.append(dataclasses.replace(effect, p_holm=float(corrected), links=links, named=named))
    return done


def _between(effects) -> np.ndarray:
    """Where two comparisons share fewer than two seeds or have other classes, NaN."""
    found = np.full((len(effects), len(effects)), np.nan)
    for a, b in np.ndindex(found.shape):
        one, other = effects[a], effects[b]
        shared = [s for s in one.seeds if s in other.seeds]
        if one.found and other.found:
            rows = [[e.seeds.index(s) for s in shared] for e in (one, other)]
            found[a, b] = class_statistics.agreement(one.effects[rows[0]], other.effects[rows[1]])
    return found


def _strengths(study, answers) -> tuple[Strengths, ...]:
    swept = study.asked.get("swept", {})
    keys = dict.fromkeys(key for values in swept.values() for key in values)
    found = []
    for key in (k for k in keys if k.startswith("mix.")):
        for line, points in sweeps.lines(swept, key).items():
            try:
                values = {float(value): name for value, name in points.items()}
            except ValueError:
                continue  # words have no order
            found += _strength(study, answers, (key, line), dict(sorted(values.items())))
    p = stats.holm([one.found.p if one.found else np.nan for one in found])
    return tuple(
        dataclasses.replace(one, p_holm=float(q), opposite=one.opposite & (q < stats.ALPHA))
        for one, q in zip(found, p, strict=True)
    )


def _strength(study, answers, place, values) -> list[Strengths]:
    seeds = [
        s for s in study.seeds if all((name, s) in answers.predicted for name in values.values())
    ]
    if len(values) < 2 or not seeds:
        return []
    kept = np.flatnonzero(answers.sizes)
    recall = np.stack(
        [
            class_statistics.class_means(
                right(answers, [(name, s) for s in seeds]).astype(np.float64),
                answers.labels,
                len(answers.classes),
            )[:, kept]
            for name in values.values()
        ]
    )
    # Least squares for each class and seed: its slope over the values of the key.
    x = np.array([*values]) - np.mean([*values])
    slopes = np.tensordot(x, recall, 1) / np.square(x).sum()
    found, opposite = None, np.zeros(len(kept), bool)
    if len(seeds) >= stats.FEWEST_SEEDS and len(kept) >= class_statistics.FEWEST_CLASSES:
        found = class_statistics.dependence(slopes)
        worse = class_statistics.shrink(slopes, answers.sizes[kept], found).worse
        # Classes that go against the mean; the others only follow it.
        opposite = class_statistics.named(worse if slopes.mean() > 0 else 1 - worse)
    names = tuple(values.values())
    return [Strengths(*place, tuple(values), names, recall, slopes, found, opposite)]
