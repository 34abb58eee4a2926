"""The scenes of a data set of animals: each a function of (settings, split, index) alone.

The same numbers give the same pixels in any order and in any number of processes, which import this file to render.
"""

from dataclasses import dataclass

import numpy as np

from mixaug_jax.data.animals import animal_drawing, animal_samplers
from mixaug_jax.data.animals.animal_pose import Animal
from mixaug_jax.data.animals.animal_samplers import SAMPLERS

VERSION = 2  # of pixels and labels: part of the cache folder's name
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Settings:
    """All that decides the pixels and labels.

    Attributes:
      size: side, pixels.
      seed: of all draws.
      sampler: of `SAMPLERS`.
      ranges: "released" or "intended".
      label_noise: share of the training labels that are replaced by a coin, so half of these are wrong.
      train, validation, test: numbers of scenes.
    """

    size: int
    seed: int
    sampler: str
    ranges: str
    label_noise: float
    train: int
    validation: int
    test: int


def animal(settings: Settings, split: str, index: int) -> Animal:
    """The animal of a scene, with its true label."""
    rng = np.random.default_rng((settings.seed, SPLITS.index(split), index))
    return animal_samplers.draw(SAMPLERS[settings.sampler], rng, settings.ranges)


def render(settings: Settings, split: str, index: int) -> dict:
    """One scene.

    Returns:
      `rendered`'s, and label int, which may be wrong in training.
    """
    one = animal(settings, split, index)
    # Of its own, so that no animal depends on how many labels are wrong. A last number of 0 would change nothing in NumPy.
    noise = np.random.default_rng((settings.seed, SPLITS.index(split), index, 1))
    wrong, coin = noise.random(), int(noise.integers(2))
    label = coin if split == "train" and wrong < settings.label_noise else one.label
    return drawn(one, settings.size, settings.sampler) | {"label": label}


def drawn(one: Animal, size: int, sampler: str) -> dict:
    """An animal as an example.

    Returns:
      image uint8 [S,S,3]; parts uint8 [S,S], blocks from 1; boxes float32 [1,4], of the whole animal, [0,4] where none of it is
      in the picture; box_labels int32, its true class; attributes float32 [10].
    """
    image, parts = animal_drawing.picture(one, size, SAMPLERS[sampler])
    rows, cols = np.flatnonzero(parts.any(1)), np.flatnonzero(parts.any(0))
    there = bool(len(rows))
    box = [rows[0], cols[0], rows[-1] + 1, cols[-1] + 1] if there else []
    return {
        "image": image,
        "label": one.label,
        "parts": parts,
        "boxes": np.array(box, np.float32).reshape(-1, 4),
        "box_labels": np.full(int(there), one.label, np.int32),
        "attributes": one.vector,
    }
