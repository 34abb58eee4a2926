"""The embedded data set: rendered scenes with pixel-exact labels, nothing to download.

    source = scenes("train", config)
    source[0]  # image, label, boxes, box_labels, concepts

Ten classes that differ in shape alone, while colors, materials, background, light and clutter are
random, unless a shortcut is planted. The scenes are rendered once, by all cores, through a TFDS
builder into array_record files under a cache folder; `mixaug_jax.data.scenes.renderer` draws them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil

import numpy as np
import tensorflow_datasets as tfds

from mixaug_jax.core import checks, files, say
from mixaug_jax.core.types import Config
from mixaug_jax.data.scenes import farm, renderer
from mixaug_jax.data.source import Source

# TFDS holds a shard's raw examples, 7 bytes a pixel, in memory until it is written.
SHARD_BYTES = 64 << 20
_DESCRIBED = (
    "dataset_info.json",
    "features.json",
    "label.labels.txt",
)  # what TFDS writes of records


class Scenes(tfds.core.ShardBasedBuilder):
    """Renders the splits of one `renderer.Settings`, example i of a split being its scene i.

    TFDS's generator-based builders sort examples through buckets, which past 1 GB are files that
    only TensorFlow opens; this one writes shard after shard.
    """

    VERSION = tfds.core.Version(f"{renderer.VERSION}.0.0")

    def __init__(self, settings: renderer.Settings, *, data_dir: str) -> None:
        self._settings = settings
        self._report = say.progress("rendering", _count(settings), "scenes")
        super().__init__(data_dir=data_dir, file_format="array_record")

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

    def _shard_iterators_per_split(self, dl_manager):
        counts = {split: getattr(self._settings, split) for split in renderer.SPLITS}
        stream = _reported(farm.render_all(self._settings), self._report)
        # Shards are written in order, each to its end, so that all can draw from one stream.
        longest = SHARD_BYTES // (7 * self._settings.size**2)
        return {
            split: [
                functools.partial(_take, stream, range(first, min(first + longest, count)))
                for first in range(0, count, longest)
            ]
            for split, count in counts.items()
        }


def _count(settings):
    return sum(getattr(settings, split) for split in renderer.SPLITS)


def _reported(scenes, report):
    for done, scene in enumerate(scenes, 1):
        yield scene
        report(done)


def _take(stream, indices):
    return zip(indices, stream, strict=False)


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
    folder = prepare(settings, _cache_root(config))
    skip = ("boxes", "box_labels", "concepts")
    decoders = {} if annotations else dict.fromkeys(skip, tfds.decode.SkipDecoding())
    try:
        records = tfds.builder_from_directory(folder).as_data_source(split, decoders=decoders)
    except Exception as error:  # whatever damage makes TFDS and the reader raise
        raise _damaged(folder, error) from error
    return Source(
        read=functools.partial(_read, records, annotations, folder),
        size=len(records),
        class_names=renderer.CLASSES,
        concept_names=renderer.CONCEPTS if annotations else (),
        box_names=renderer.CLASSES if annotations else (),
    )


def _damaged(folder, error) -> files.DamagedError:
    why = f"{type(error).__name__}: {error}".partition("\n")[0][:150]
    return files.DamagedError(
        f"the scenes in {folder} are damaged ({why}); remove that folder, and they are rendered again"
    )


def _read(records, annotations, folder, index):
    try:
        record = records[index]
    except Exception as error:  # the reader compares checksums; it and the decoder raise many kinds
        raise _damaged(folder, error) from error
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


def _cache_root(config):
    given = config.data.dir or os.environ.get("MIXAUG_JAX_CACHE", "")
    return pathlib.Path(given or "~/.cache/mixaug_jax").expanduser().absolute()


def prepare(settings: renderer.Settings, root: pathlib.Path) -> pathlib.Path:
    """The folder of the finished files of these settings; renders them where they are missing.

    They are made in a folder of another name under a lock, which the system frees even when its
    holder is killed, and renamed when complete: no half-made set is read, and none is made twice.
    """
    text = json.dumps(dataclasses.asdict(settings) | {"version": renderer.VERSION}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = root / f"scenes-{settings.size}px-{settings.train}-seed{settings.seed}-{digest}"
    if _is_whole(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_room(settings, root)
        waiting = "waiting for another process to render the scenes"
        with files.lock(folder.with_name(folder.name + ".lock"), waiting):
            if not _is_whole(folder):
                _build(settings, folder)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError on a full disk
        raise ValueError(
            f"cannot write the scenes to {root}: {str(error).split(';')[0]}; set data.dir or"
            " MIXAUG_JAX_CACHE to a folder that can be written and has room"
        ) from error
    return folder


def _is_whole(folder) -> bool:
    """Whether the scenes are there, and what describes them is as it was written; records have checksums of their own."""
    if not folder.is_dir():
        return False
    if all(files.is_intact(folder / name) for name in _DESCRIBED):
        return True
    say.line(f"the scenes in {folder} are damaged; they are rendered again")
    return False


def _check_room(settings, root):
    """Refuses before the work what the disk cannot hold: raw images, and some labels."""
    count = _count(settings)
    needed = count * (3.2 * settings.size**2 + 2000) / 1e6
    free = shutil.disk_usage(root).free / 1e6
    if needed > free:
        raise ValueError(
            f"{count} scenes of {settings.size} pixels need {needed:.0f} MB and {root} has"
            f" {free:.0f} MB free; set data.dir or MIXAUG_JAX_CACHE to another folder"
        )


def _build(settings, folder):
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold the lock
    try:
        builder = Scenes(settings, data_dir=str(partial))
        # TFDS announces a download there.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
        files.seal(pathlib.Path(builder.data_dir), _DESCRIBED)
        shutil.rmtree(folder, ignore_errors=True)  # one that was damaged
        os.replace(builder.data_dir, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
