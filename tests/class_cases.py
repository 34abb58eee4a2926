"""Studies of single classes with a planted truth: what networks of several seeds answer."""

import numpy as np
import studies
from scipy import special


def correct(sizes, seeds, spread, *, mean=0.0, seed=0, arm=0):
    """Whether images are classified right, bool [2,S,N], without and with an augmentation, and their labels.

    Images have a difficulty of their own, the same for all networks, and each class varies by .25 in logits from one training
    to the next. The augmentation adds `mean` and, for each class, a normal number of that `spread` to the logits. Augmentations
    of other numbers `arm` are met by the same images and the same networks without one.
    """
    rng = np.random.default_rng(seed)
    classes = len(sizes)
    labels = np.repeat(np.arange(classes), sizes)
    difficulty = 1.2 + rng.normal(size=classes)[labels] * 0.5 + rng.normal(size=len(labels)) * 1.2
    noise, chance = rng.normal(0, 0.25, (2, seeds, classes)), rng.random((2, seeds, len(labels)))
    rng = np.random.default_rng((seed, arm))
    effect = rng.normal(mean, spread, classes) if spread else np.full(classes, mean)
    if arm:
        noise[1], chance[1] = rng.normal(0, 0.25, noise[1].shape), rng.random(chance[1].shape)
    logits = difficulty + noise[..., labels]
    logits[1] += effect[labels]
    right = chance < special.expit(logits)
    true = special.expit(difficulty + effect[labels]) - special.expit(difficulty)
    return right, labels, np.bincount(labels, true) / sizes


def effects(right, labels):
    """[S,K] differences of recall."""
    counts = np.bincount(labels)
    difference = right[1].astype(float) - right[0]
    return np.stack([np.bincount(labels, row) / counts for row in difference])


def predicted(right, labels, classes, seed=0):
    """Answers that are right where `right` [N] says so; else a neighboring class."""
    rng = np.random.default_rng(seed)
    return np.where(right, labels, (labels + rng.integers(1, 3, len(labels))) % classes)


def write_study(folder, *, classes=20, images=40, seeds=(0, 1, 2), spread=0.6, **asked):
    """A study's folder of runs with predictions; every augmentation but the first has effects of its own, in `spread`."""
    runs = studies.asked(folder, seeds=seeds, **asked)
    names = tuple(f"class{m}" for m in range(classes))
    augmentations = [*dict.fromkeys(run.name for run in runs)]
    cases = {
        name: correct([images] * classes, len(seeds), spread * bool(k), arm=k)
        for k, name in enumerate(augmentations)
    }
    base, labels, _ = cases[augmentations[0]]
    for run in runs:
        k, s = augmentations.index(run.name), seeds.index(run.seed)
        right = cases[run.name][0][1, s] if k else base[0, s]
        scores = {"gradcam": {"energy_pointing_game": np.linspace(0.2, 0.4 + 0.1 * k, 6)}}
        studies.write_run(run, accuracy=float(right.mean()), scores=scores)
        found = predicted(right, labels, classes, seed=s)
        studies.write_predictions(run, labels, found, classes=names)
    return runs
