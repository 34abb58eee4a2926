"""Deletion across the models of one seed, cached in the study's folder."""

import dataclasses
import json
import pathlib
import zlib

import numpy as np

from mixaug_jax import checkpoint, data, evaluation
from mixaug_jax import config as config_lib
from mixaug_jax.evaluation import result as results
from mixaug_jax.study.measures import BETTER, READINGS, Measure

IMAGES = 100  # at most so many
TILES = 16  # to a side; removed a row's number at a time
REPLICATES = 200  # of the bootstrap over images


@dataclasses.dataclass(frozen=True)
class CrossDeletion:
    """What `evaluation.cross_model_deletion` says of one seed; M models, S sources, N images.

    Attributes:
      models: augmentations, [M].
      sources: of the rankings: the models, "random" and "center", [S].
      area: D, float64 [M, S]: model m, pixels removed in the order of source s.
      relative: R, float64 [M, S]: D / D[m, random].
      own_vs_others: float64 [M], larger is better.
      fixed_evaluators: float64 [S], smaller is better, 1 is chance.
      gain_over_random: float64 [M], larger is better.
      per_image: float64 [M, S, N], whose means are D.
      images: int [N], indices in the split, all classified right by all models.
      method: the attribution method.
    """

    models: tuple[str, ...]
    sources: tuple[str, ...]
    area: np.ndarray
    relative: np.ndarray
    own_vs_others: np.ndarray
    fixed_evaluators: np.ndarray
    gain_over_random: np.ndarray
    per_image: np.ndarray
    images: np.ndarray
    method: str


def cross_deletion(workdirs: dict, method: str, cache) -> CrossDeletion:
    """Reads it from `cache`, or computes it and writes it there.

    Args:
      workdirs: {augmentation: working directory} of one seed, whose attributions are of the same images.
      method: whose heat maps rank the pixels, from `attribution/<method>.npz`.
      cache: path of a .npz; one that other networks or maps made is replaced.

    Returns:
      Of at most `IMAGES` images that all models classify right; tiles of a sixteenth of the side, set to the mean colour.

    Raises:
      ValueError: fewer than two models, no such image, or networks that see images of different preprocessing.
    """
    if len(workdirs) < 2:
        raise ValueError("fewer than two models")
    found = {
        name: results.load(pathlib.Path(workdir, "attribution", f"{method}.npz"))
        for name, workdir in workdirs.items()
    }
    first = next(iter(found.values()))
    source, labels = _labels(next(iter(workdirs.values())), first)
    right = np.all([(f.predicted == labels) & (f.labels == labels) for f in found.values()], 0)
    chosen = np.flatnonzero(right)[:IMAGES]
    if not len(chosen):
        raise ValueError("no image whose class all models find and all maps explain")
    settings = {
        "method": method,
        "tiles": TILES,
        "models": {n: [f.settings, zlib.crc32(f.heat[chosen])] for n, f in found.items()},
    }
    settings = json.loads(json.dumps(settings))
    per_image = _stored(cache, settings, len(found) + 2)
    if per_image is None:
        heats = {name: f.heat[chosen] for name, f in found.items()}
        per_image = _compute(workdirs, heats, source, first.images[chosen], labels[chosen])
        _save(cache, settings, per_image, first.images[chosen], found)
    models = tuple(found)
    return _read(models, per_image, first.images[chosen], method)


def _labels(workdir, first: results.Evaluation):
    """The split that was looked at, and its images' own labels."""
    config = config_lib.read(workdir)
    split = config.data[f"{first.settings['split']}_split"]
    source = data.open_source(split, config, annotations=False)
    return source, np.array([source[int(i)]["label"] for i in first.images])


def _compute(workdirs, heats, source, images, labels):
    nets = {name: checkpoint.load(workdir) for name, workdir in workdirs.items()}
    preprocess = next(iter(nets.values())).preprocess
    if any(net.preprocess != preprocess for net in nets.values()):
        raise ValueError("the models see images of different preprocessing")
    pixels = np.stack([preprocess(source[int(i)]["image"]) for i in images])
    window = max(1, -(-pixels.shape[1] // TILES))
    found = evaluation.cross_model_deletion(
        nets, heats, pixels, labels, window=window, chunk=TILES + 1
    )
    return found["per_image"]


def _save(cache, settings, per_image, images, found):
    cache = pathlib.Path(cache)
    cache.parent.mkdir(parents=True, exist_ok=True)
    whole = cache.with_suffix(".tmp")
    with whole.open("wb") as file:
        np.savez_compressed(
            file,
            per_image=per_image,
            images=images,
            models=np.array([*found]),
            sources=np.array([*found, *evaluation.comparison.CONTROLS]),
            settings=np.array(json.dumps(settings)),
            versions=np.array(json.dumps(checkpoint.versions())),
        )
    whole.replace(cache)


def _stored(cache, settings, sources):
    try:
        with open(cache, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            same = json.loads(str(file["settings"])) == settings
            return file["per_image"] if same and file["per_image"].shape[1] == sources else None
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _read(models, per_image, images, method) -> CrossDeletion:
    sources = (*models, *evaluation.comparison.CONTROLS)
    r = evaluation.readings(per_image.mean(-1), models, sources)
    return CrossDeletion(
        models, sources, r["D"], r["R"], *(r[name] for name in READINGS), per_image, images, method
    )


def measures(found: CrossDeletion) -> tuple[dict, dict]:
    """The readings of each model as {model: {measure: number}}, and with images drawn anew {model: {measure: [R]}}."""
    number = len(found.images)
    draws = np.random.default_rng(0).integers(number, size=(REPLICATES, number))
    again = [
        evaluation.readings(found.per_image[..., d].mean(-1), found.models, found.sources)
        for d in draws
    ]
    values = {name: {} for name in found.models}
    replicates = {name: {} for name in found.models}
    for reading in READINGS:
        measure = Measure("faithfulness", reading, found.method, better=BETTER[reading])
        for m, name in enumerate(found.models):
            values[name][measure] = float(getattr(found, reading)[m])
            replicates[name][measure] = np.array([r[reading][m] for r in again])
    return values, replicates
