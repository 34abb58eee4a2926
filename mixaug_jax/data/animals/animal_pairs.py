"""Scenes, and the same scenes with one attribute drawn again: interventions on what a network sees.

The processes that render import this file.
"""

from dataclasses import dataclass

import numpy as np

from mixaug_jax.data.animals import animal_samplers, animal_scenes
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, Animal
from mixaug_jax.data.animals.animal_samplers import SAMPLERS

VERSION = animal_scenes.VERSION
SPLITS = ("pairs",)
ORIGINAL, TOGETHER = "original", "colors_and_shape"
# What is drawn again, by name; those of the published list.
CHANGES = {
    ORIGINAL: (),
    **{name: (name,) for name in ATTRIBUTES},
    TOGETHER: ("spherical", "obj_color", "bg_color"),
}


@dataclass(frozen=True)
class Settings:
    """All that decides the pixels.

    Attributes:
      size: side, pixels.
      seed: of all draws.
      sampler, ranges: of the scenes.
      split: whose scenes.
      mode: of `animal_samplers.MODES`.
      each: how many scenes.
    """

    size: int
    seed: int
    sampler: str
    ranges: str
    split: str
    mode: str
    each: int

    @property
    def pairs(self) -> int:
        """How many pictures: of every scene one for each of `CHANGES`."""
        return self.each * len(CHANGES)


def changed(settings: Settings, index: int) -> Animal:
    """The animal of picture `index`: `each` of the first of `CHANGES` come first."""
    number, scene = divmod(index, settings.each)
    plain = animal_scenes.Settings(
        settings.size, settings.seed, settings.sampler, settings.ranges, 0.0, 0, 0, 0
    )
    one, names = animal_scenes.animal(plain, settings.split, scene), [*CHANGES.values()][number]
    split = animal_scenes.SPLITS.index(settings.split)
    rng = np.random.default_rng((settings.seed, split, scene, number))
    sampler = SAMPLERS[settings.sampler]
    return animal_samplers.intervene(
        rng, one, names, sampler, ranges=settings.ranges, mode=settings.mode
    )


def render(settings: Settings, split: str, index: int) -> dict:
    """One picture, as `animal_scenes.drawn` gives it."""
    return animal_scenes.drawn(changed(settings, index), settings.size, settings.sampler)
