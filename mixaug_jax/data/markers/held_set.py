"""The data set of markers: rendered pictures with every pixel's part known, or crops of real photographs.

    source = markers("test", config)
    source[0]  # image, label, targets, weights, zrot, concepts, parts

The rendered ones are made once, by all cores, into array_record files under a cache folder; `held_scene` draws them.
"""

import dataclasses
import functools
import os

import numpy as np
import tensorflow_datasets as tfds

from mixaug_jax.core import checks
from mixaug_jax.core.types import Config
from mixaug_jax.data import rendered
from mixaug_jax.data.markers import held_scene
from mixaug_jax.data.markers.crops import open_crops
from mixaug_jax.data.markers.tags import BITS
from mixaug_jax.data.source import Source

NAMES = tuple(f"bit {k}" for k in range(BITS))
CONCEPTS = (
    ("none", "none"),
    *((name, "object") for name in held_scene.OBJECTS[1:]),
    *((name, "part") for name in held_scene.PARTS[1:]),
)
CELLS = tuple(
    held_scene.PARTS.index(f"cell {k}") for k in range(BITS)
)  # the part that tells each bit
_FIRST_PART = len(held_scene.OBJECTS)  # the number of the first part among the concepts
_NUMBERS = ("zrot", "tilt", "hidden", "light")


class Markers(rendered.Rendered):
    """The splits of one `held_scene.Settings`."""

    VERSION = tfds.core.Version(f"{held_scene.VERSION}.0.0")
    NOUN = "markers"
    PIXEL_BYTES = 3
    DISK_BYTES = 1.3

    def _shard_iterators_per_split(self, dl_manager):
        # All of them first: the one at fault might be met by the last picture.
        held_scene.check_photos(self._settings)
        return super()._shard_iterators_per_split(dl_manager)

    def _info(self):
        side, features = self._settings.size, tfds.features

        def pixels(encoding: str, *shape: int):
            return features.Tensor(shape=(side, side, *shape), dtype=np.uint8, encoding=encoding)

        numbers = {name: features.Scalar(dtype=np.float32) for name in _NUMBERS}
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=features.FeaturesDict(
                {
                    "image": pixels("bytes", 1),
                    "parts": pixels("zlib"),
                    "objects": pixels("zlib"),
                    "bits": features.Tensor(shape=(BITS,), dtype=np.uint8),
                    **numbers,
                }
            ),
        )


def markers(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the markers, rendered first where the cache does not have it.

    Args:
      split: "unlabeled", "labeled", "validation" or "test". No photograph lies behind a marker of the test split that lies
        behind one of another.
      config: the resolved config; reads data.size (pixels, 16 to 128), data.dir (the cache folder; "" is $MIXAUG_JAX_CACHE or
        ~/.cache/mixaug_jax) and data.markers.{seed, spin, unlabeled, labeled, validation, test, photos, crops}.
      annotations: whether the examples have concepts, parts, and how they lie; without them reading is faster.

    Returns:
      A `Source` of image uint8 [S,S,1], targets float32 [12], the bits, weights float32 [12], 0 where a bit is not known, and
      label, the bit to explain, which goes through the twelve; of rendered ones also zrot and tilt (radians), hidden (the share
      of the marker that is not seen), light (its mean gray, 0..1), concepts uint8 [S,S,2], numbers in `CONCEPTS` of each
      pixel's object and part, and parts uint8 [S,S], numbers in `held_scene.PARTS`; 0 = none.

    Raises:
      ValueError: an unknown split, a setting out of its range, a folder that cannot be read, or no room for the files.
    """
    checks.choice("the split of markers", split, held_scene.SPLITS)
    if config.data.markers.crops:
        return open_crops(split, config, NAMES)
    settings = _settings(config)
    folder = rendered.prepare(Markers, settings, rendered.cache_root(config))
    # Maps that nobody asks for are not even decoded.
    skip = () if annotations else ("parts", "objects")
    records = rendered.records(Markers, folder, split, skip)
    return Source(
        read=functools.partial(_read, records, annotations),
        size=len(records),
        class_names=NAMES,
        concept_names=CONCEPTS if annotations else (),
        part_names=held_scene.PARTS if annotations else (),
        class_parts=CELLS if annotations else (),
        multi_label=True,
    )


def _read(records, annotations, index):
    record = records[index]
    example = {
        "image": record["image"],
        "label": index % BITS,
        "targets": record["bits"].astype(np.float32),
        "weights": np.ones(BITS, np.float32),
    }
    if annotations:
        parts = record["parts"]
        # Parts are numbered from 1, and stand behind the objects among the concepts.
        numbered = np.where(parts > 0, parts + (_FIRST_PART - 1), 0).astype(np.uint8)
        example |= {name: float(record[name]) for name in _NUMBERS}
        example |= {"parts": parts, "concepts": np.stack([record["objects"], numbered], -1)}
    return example


def _settings(config):
    """The settings that make the pixels, each checked."""
    if not 16 <= config.data.size <= 128:
        raise ValueError(f"data.size must be 16 to 128 pixels for markers; got {config.data.size}")
    given = {"size": config.data.size, "content": ""}
    for field in dataclasses.fields(held_scene.Settings)[1:-1]:
        given[field.name] = config.data.markers[field.name]
    checks.not_negative("data.markers.seed", given["seed"])
    for name in held_scene.SPLITS:
        checks.count(f"data.markers.{name}", given[name])
    if given["photos"]:
        # By text: the folder's name is part of the settings, by which rendered pictures are found again.
        given["photos"] = os.path.expanduser(given["photos"])
        there = len(held_scene.photo_files(given["photos"]))
        if there < held_scene.FEWEST_PHOTOS:
            raise ValueError(
                f"data.markers.photos must be a folder with {held_scene.FEWEST_PHOTOS} photographs or more (jpg, jpeg, png), "
                f"of which every fifth is for the test split alone; {given['photos']} has {there}"
            )
        # Pictures of other photographs are other pictures, though the folder's name be the same.
        given["content"] = held_scene.content_of(given["photos"])
    return held_scene.Settings(**given)
