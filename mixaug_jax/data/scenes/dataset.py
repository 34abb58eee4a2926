"""The embedded data set: rendered scenes with pixel-exact labels, nothing to download.

    source = scenes("train", config)
    source[0]  # image, label, boxes, box_labels, concepts

Ten classes that differ in shape alone, while colors, materials, background, light and clutter are
random, unless a shortcut is planted. The scenes are rendered once, by all cores, through a TFDS
builder into array_record files under a cache folder; `mixaug_jax.data.scenes.renderer` draws them.
"""

import dataclasses
import functools

import numpy as np
import tensorflow_datasets as tfds

from mixaug_jax.core import checks
from mixaug_jax.core.types import Config
from mixaug_jax.data import rendered
from mixaug_jax.data.scenes import renderer
from mixaug_jax.data.source import Source


class Scenes(rendered.Rendered):
    """The splits of one `renderer.Settings`."""

    VERSION = tfds.core.Version(f"{renderer.VERSION}.0.0")
    NOUN = "scenes"
    PIXEL_BYTES = 7
    DISK_BYTES = 3.2
    DESCRIBED = ("label.labels.txt",)

    def _info(self):
        side, features = self._settings.size, tfds.features
        # Sensor noise hardly compresses: as PNG the image would take three quarters of the space
        # and more time to read than all the rest together.
        image = features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes")
        concepts = features.Tensor(shape=(side, side, 4), dtype=np.uint8, encoding="zlib")
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=features.FeaturesDict(
                {
                    "image": image,
                    "label": features.ClassLabel(names=renderer.CLASSES),
                    "boxes": features.Tensor(shape=(None, 4), dtype=np.float32),
                    "box_labels": features.Tensor(shape=(None,), dtype=np.int32),
                    "concepts": concepts,
                }
            ),
        )


def scenes(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the scenes, rendered first where the cache does not have it.

    Training and validation carry the planted shortcuts and the test split does not, so that a
    model's reliance on them shows as lost test accuracy. Label noise is in training only, and only
    in `label`: boxes and concepts keep the truth, `box_labels[0]` is the true class.

    Args:
        split: "train", "validation" or "test".
        config: the resolved config; reads data.size (pixels, 32 to 224), data.dir (the cache
            folder; "" is $MIXAUG_JAX_CACHE or ~/.cache/mixaug_jax) and data.scenes.{seed, train,
            validation, test (numbers of scenes), background, color, position, label_noise
            (probabilities)}.
        annotations: whether the examples have boxes, box_labels and concepts; without them reading
            is faster.

    Returns:
        A `Source` of image uint8 [S,S,3], label int, boxes float32 [n,4] in pixels (the target's
        first), box_labels int32 [n] and concepts uint8 [S,S,4]: numbers in `renderer.CONCEPTS` of
        each pixel's (object, part, material, color), 0 = none.

    Raises:
        ValueError: an unknown split, a setting out of its range, a cache folder that cannot be
            written or that has no room.
    """
    checks.choice("the split of scenes", split, renderer.SPLITS)
    settings = _settings(config)
    folder = rendered.prepare(Scenes, settings, rendered.cache_root(config))
    skip = () if annotations else ("boxes", "box_labels", "concepts")
    records = rendered.records(Scenes, folder, split, skip)
    return Source(
        read=functools.partial(_read, records, annotations),
        size=len(records),
        class_names=renderer.CLASSES,
        concept_names=renderer.CONCEPTS if annotations else (),
        box_names=renderer.CLASSES if annotations else (),
    )


def _read(records, annotations, index):
    record = records[index]
    example = {"image": record["image"], "label": int(record["label"])}
    if annotations:
        example |= {name: record[name] for name in ("boxes", "box_labels", "concepts")}
    return example


def _settings(config):
    """The settings that make the pixels, each checked."""
    given = {"size": config.data.size}
    for field in dataclasses.fields(renderer.Settings)[1:]:
        given[field.name] = config.data.scenes[field.name]
    if not 32 <= given["size"] <= 224:
        raise ValueError(f"data.size must be 32 to 224 pixels for scenes; got {given['size']}")
    checks.not_negative("data.scenes.seed", given["seed"])
    for name in renderer.SPLITS:
        checks.count(f"data.scenes.{name}", given[name])
    for name in ("background", "color", "position", "label_noise"):
        checks.fraction(f"data.scenes.{name}", given[name])
    return renderer.Settings(**given)
