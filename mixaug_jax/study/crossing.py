"""Deletion across the models of one seed, cached in the study's folder."""

import dataclasses
import json
import os
import pathlib
import zlib
from typing import Any

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax import data, scores
from mixaug_jax.core.files import load_if, load_npz, save_npz
from mixaug_jax.data.source import numbered_as
from mixaug_jax.explain import evaluation as results
from mixaug_jax.study.measures import BETTER, JUDGED, READINGS, Measure
from mixaug_jax.training import checkpoint

IMAGES = 100  # at most so many
FEWEST = 20  # of fewer nothing is said: the areas hang on single images
TILES = 16  # to a side; removed a row's number at a time
REPLICATES = 200  # of the bootstrap over images


@dataclasses.dataclass(frozen=True)
class CrossDeletion:
    """What `scores.cross_model_deletion` says of one seed; M models, S sources, N images.

    Attributes:
      models: augmentations, [M].
      sources: of the rankings: the models, "random" and "center", [S].
      area: D, float64 [M, S]: model m, pixels removed in the order of source s.
      relative: R, float64 [M, S]: D / D[m, random].
      own_vs_others: float64 [M], larger is better.
      fixed_evaluators: float64 [S], smaller is better, 1 is chance.
      gain_over_random: float64 [M], larger is better.
      per_image: float64 [M, S, N], whose means are D.
      indices: int [N], of images in the split, all classified right by all models.
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
    indices: np.ndarray
    method: str


def cross_deletion(workdirs: dict, method: str, cache: os.PathLike | str) -> CrossDeletion:
    """Reads it from `cache`, or computes it and writes it there.

    Args:
      workdirs: {augmentation: working directory} of one seed, whose attributions are of the same images.
      method: whose heat maps rank the pixels, from `attribution/<method>.npz`.
      cache: path of a .npz; one that other networks or maps made is replaced.

    Returns:
      Of at most `IMAGES` images that all models classify right; tiles of a sixteenth of the side, set to the mean color.

    Raises:
      ValueError: fewer than two models or than `FEWEST` such images, or networks that see images of different preprocessing.
    """
    if len(workdirs) < 2:
        raise ValueError("fewer than two models")
    found = {
        name: results.load(pathlib.Path(workdir, "attribution", f"{method}.npz"))
        for name, workdir in workdirs.items()
    }
    # The maps themselves are part of the settings: explanations made anew make a new table.
    models = {n: [f.settings, zlib.crc32(f.heat)] for n, f in found.items()}
    config = config_lib.read(next(iter(workdirs.values())))
    settings = {
        "method": method,
        "tiles": TILES,
        "images": IMAGES,
        "fewest": FEWEST,
        "models": models,
    }
    settings["precision"] = config.precision
    stored = load_if(_load, cache, json.loads(json.dumps(settings)))
    if stored is None:
        stored = _Stored(settings, **_compute(config, workdirs, found))
        pathlib.Path(cache).parent.mkdir(parents=True, exist_ok=True)
        names = {"models": np.array([*found]), "sources": np.array(_sources(found))}
        arrays = {"per_image": stored.per_image, "indices": stored.indices}
        save_npz(cache, arrays | names, settings)
    return _read(tuple(found), stored.per_image, stored.indices, method)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """What is kept: of the data set and the networks only this is needed to make the report again."""

    settings: dict
    per_image: np.ndarray
    indices: np.ndarray


def _load(path) -> _Stored:
    def make(arrays: Any, settings: Any):
        return _Stored(settings, arrays["per_image"], arrays["indices"])

    return load_npz(path, make, "deletion across models")


def _compute(config, workdirs, found) -> dict:
    """Images and areas of those that all models classify right."""
    first = next(iter(found.values()))
    split = config.data[f"{first.settings['split']}_split"]
    source = data.open_source(split, config, annotations=False)
    source = numbered_as(source, len(config.resolved.class_names))
    labels = np.array([source[int(i)]["label"] for i in first.indices])
    # A map of another class than the true one ranks pixels for another question.
    right = np.all([(f.predicted == labels) & (f.labels == labels) for f in found.values()], 0)
    chosen = np.flatnonzero(right)[:IMAGES]
    if len(chosen) < FEWEST:
        raise ValueError(
            f"it needs {FEWEST} images whose class all models find and all maps explain, and there are {len(chosen)}"
        )
    heats = {name: f.heat[chosen] for name, f in found.items()}
    indices = first.indices[chosen]
    nets = {name: checkpoint.load(workdir) for name, workdir in workdirs.items()}
    per_image = _delete(nets, heats, source, indices, labels[chosen], config.precision)
    return {"indices": indices, "per_image": per_image}


def _delete(nets, heats, source, images, labels, precision):
    preprocess = next(iter(nets.values())).preprocess
    if any(net.preprocess != preprocess for net in nets.values()):
        raise ValueError("the models see images of different preprocessing")
    pixels = np.stack([preprocess(source[int(i)]["image"]) for i in images])
    window = max(1, -(-pixels.shape[1] // TILES))
    removal = scores.Removal(window, chunk=TILES + 1)
    found = scores.cross_model_deletion(nets, heats, pixels, labels, removal, precision=precision)
    return found["per_image"]


def _sources(models) -> tuple[str, ...]:
    return (*models, *scores.comparison.CONTROLS)


def _read(models, per_image, images, method) -> CrossDeletion:
    sources = _sources(models)
    r = scores.readings(per_image.mean(-1), models, sources)
    return CrossDeletion(
        models, sources, r["D"], r["R"], *(r[name] for name in READINGS), per_image, images, method
    )


def measured(found: CrossDeletion) -> tuple[dict, dict]:
    """The readings of each model as {model: {measure: number}}, and in bootstrap resamples {model: {measure: [R]}}."""
    number = len(found.indices)
    draws = np.random.default_rng(0).integers(number, size=(REPLICATES, number))
    # Readings are no means over images, so every draw has to compute them anew.
    again = [
        scores.readings(found.per_image[..., d].mean(-1), found.models, found.sources)
        for d in draws
    ]
    values = {name: {} for name in found.models}
    replicates = {name: {} for name in found.models}
    for reading in READINGS:
        headline, better = reading in JUDGED, BETTER[reading]
        measure = Measure("faithfulness", reading, found.method, better=better, headline=headline)
        for m, name in enumerate(found.models):
            values[name][measure] = float(getattr(found, reading)[m])
            replicates[name][measure] = np.array([r[reading][m] for r in again])
    return values, replicates
