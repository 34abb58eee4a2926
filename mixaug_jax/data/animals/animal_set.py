"""The data set of animals: rendered scenes whose every attribute is known, and pairs of them for interventions.

    source = animals("train", config)
    source[0]  # image, label, boxes, box_labels, concepts, parts, attributes

The scenes are rendered once, by all cores, through a TFDS builder into array_record files under a cache folder.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mixaug_jax.core import checks
from mixaug_jax.core.types import Config, Count
from mixaug_jax.data import rendered
from mixaug_jax.data.animals import animal_pairs, animal_samplers, animal_scenes
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, BLOCKS, CLASSES
from mixaug_jax.data.source import Source

PARTS = ("none", *BLOCKS)
CONCEPTS = (("none", "none"), ("animal", "object"), *((name, "part") for name in BLOCKS))
_FIRST_PART = 2  # the number of the first block among the concepts
_ANNOTATIONS = ("boxes", "box_labels", "parts", "attributes")


class Animals(rendered.Rendered):
    """The splits of one `animal_scenes.Settings`, or the pairs of one `animal_pairs.Settings`."""

    VERSION = tfds.core.Version(f"{animal_scenes.VERSION}.0.0")
    NOUN = "animals"
    PIXEL_BYTES = 4
    DISK_BYTES = 3.1
    DESCRIBED = ("label.labels.txt",)

    def _info(self):
        side, features = self._settings.size, tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=features.FeaturesDict(
                {
                    "image": features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes"),
                    "label": features.ClassLabel(names=CLASSES),
                    "boxes": features.Tensor(shape=(None, 4), dtype=np.float32),
                    "box_labels": features.Tensor(shape=(None,), dtype=np.int32),
                    "parts": features.Tensor(shape=(side, side), dtype=np.uint8, encoding="zlib"),
                    "attributes": features.Tensor(shape=(len(ATTRIBUTES),), dtype=np.float32),
                }
            ),
        )  # fmt: skip


def animals(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the animals, rendered first where the cache does not have it.

    Published training replaces a label by a coin at every visit; here each scene's label is replaced once, for all visits.

    Args:
      split: "train", "validation" or "test".
      config: the resolved config; reads data.size (pixels, 32 to 224), data.dir (the cache folder; "" is $MIXAUG_JAX_CACHE or
        ~/.cache/mixaug_jax) and data.animals.{seed, sampler, ranges, label_noise, train, validation, test}.
      annotations: whether the examples have more than image and label; without it reading is faster.

    Returns:
      A `Source` of image uint8 [S,S,3], label int, 0 peaky or 1 stretchy, boxes float32 [1,4] in pixels, of the whole animal
      ([0,4] where it is outside), box_labels int32, the true class, concepts uint8 [S,S,2], numbers in `CONCEPTS` of each
      pixel's object and part, parts uint8 [S,S], numbers in `PARTS`, and attributes float32 [10], in the order of `ATTRIBUTES`.

    Raises:
      ValueError: an unknown split or sampler, a setting out of its range, a cache that cannot be written or has no room.
    """
    checks.choice("the split of animals", split, animal_scenes.SPLITS)
    return _opened(_settings(config), config, split, annotations)


def pairs(config: Config, split: str, mode: str, count: Count) -> dict[str, Source]:
    """Scenes of a split, and the same with attributes drawn again, rendered first where the cache does not have them.

    Args:
      config: as for `animals`.
      split: "train", "validation" or "test".
      mode: "independent" or "released", see `animal_samplers.intervene`.
      count: how many scenes, the first ones of the split, whatever its own number.

    Returns:
      {"original": Source, attribute: Source, ..., "colors_and_shape": Source}, each of `count` examples as of `animals`.

    Raises:
      ValueError: as `animals`, an unknown mode.
    """
    checks.choice("the split of animals", split, animal_scenes.SPLITS)
    checks.choice("mode", mode, animal_samplers.MODES)
    s = _settings(config)
    each = checks.count("count", count)
    settings = animal_pairs.Settings(s.size, s.seed, s.sampler, s.ranges, split, mode, each)
    whole = _opened(settings, config, "pairs", annotations=True)

    def part(first: int) -> Source:
        return dataclasses.replace(whole, read=lambda i: whole[first + i], size=each)

    return {name: part(k * each) for k, name in enumerate(animal_pairs.CHANGES)}


def _opened(settings: Any, config, split, annotations) -> Source:
    folder = rendered.prepare(Animals, settings, rendered.cache_root(config))
    records = rendered.records(Animals, folder, split, () if annotations else _ANNOTATIONS)
    return Source(
        read=functools.partial(_read, records, annotations),
        size=len(records),
        class_names=CLASSES,
        concept_names=CONCEPTS if annotations else (),
        box_names=CLASSES if annotations else (),
        part_names=PARTS if annotations else (),
    )


def _read(records, annotations, index):
    record = records[index]
    example = {"image": record["image"], "label": int(record["label"])}
    if annotations:
        parts = record["parts"]
        numbered = np.where(parts > 0, parts + (_FIRST_PART - 1), 0).astype(np.uint8)
        example |= {name: record[name] for name in _ANNOTATIONS}
        example |= {"concepts": np.stack([(parts > 0).astype(np.uint8), numbered], -1)}
    return example


def _settings(config) -> animal_scenes.Settings:
    """The settings that make the pixels, each checked."""
    given, own = {"size": config.data.size}, config.data.animals
    for field in dataclasses.fields(animal_scenes.Settings)[1:]:
        given[field.name] = own[field.name]
    if not 32 <= given["size"] <= 224:
        raise ValueError(f"data.size must be 32 to 224 pixels for animals; got {given['size']}")
    checks.not_negative("data.animals.seed", given["seed"])
    checks.choice("data.animals.sampler", given["sampler"], animal_samplers.SAMPLERS)
    checks.choice("data.animals.ranges", given["ranges"], animal_samplers.RANGES)
    checks.fraction("data.animals.label_noise", given["label_noise"])
    for name in animal_scenes.SPLITS:
        checks.count(f"data.animals.{name}", given[name])
    return animal_scenes.Settings(**given)
