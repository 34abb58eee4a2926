"""Pictures that are rendered once, by all cores, into array_record files under a cache folder, and then read."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from mixaug_jax.core import files, say
from mixaug_jax.core.types import Config
from mixaug_jax.data import farm

# TFDS holds a shard's raw examples in memory until it is written.
SHARD_BYTES = 64 << 20
_DESCRIBED = ("dataset_info.json", "features.json")  # what TFDS writes of records


class Rendered(tfds.core.ShardBasedBuilder):
    """Renders the splits of one renderer's `Settings`, example i of a split being its picture i.

    TFDS's generator-based builders sort examples through buckets, which past 1 GB are files that
    only TensorFlow opens; this one writes shard after shard.

    Attributes:
      NOUN: what the pictures are called, "scenes"; the folder's name begins with it.
      PIXEL_BYTES: of a pixel and its labels, in memory.
      DISK_BYTES: the same, on the disk.
      DESCRIBED: files beside the records, besides those of every set.
    """

    NOUN: ClassVar[str]
    PIXEL_BYTES: ClassVar[float]
    DISK_BYTES: ClassVar[float]
    DESCRIBED: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any, *, data_dir: str) -> None:
        self._settings = settings
        self._report = say.progress("rendering", _total(settings), self.NOUN)
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _shard_iterators_per_split(self, dl_manager):
        stream = _reported(farm.render_all(self._settings), self._report)
        # Shards are written in order, each to its end, so that all can draw from one stream.
        longest = max(1, int(SHARD_BYTES // (self.PIXEL_BYTES * self._settings.size**2)))
        return {
            split: [
                functools.partial(_take, stream, range(first, min(first + longest, count)))
                for first in range(0, count, longest)
            ]
            for split, count in _counts(self._settings).items()
        }


def _counts(settings):
    return {split: getattr(settings, split) for split in farm.renderer_of(settings).SPLITS}


def _total(settings):
    return sum(_counts(settings).values())


def _reported(pictures, report):
    for done, picture in enumerate(pictures, 1):
        yield picture
        report(done)


def _take(stream, indices):
    return zip(indices, stream, strict=False)


def cache_root(config: Config) -> pathlib.Path:
    """The folder of all rendered sets: data.dir, or else $MIXAUG_JAX_CACHE, or ~/.cache/mixaug_jax."""
    given = config.data.dir or os.environ.get("MIXAUG_JAX_CACHE", "")
    return pathlib.Path(given or "~/.cache/mixaug_jax").expanduser().absolute()


def prepare(builder: type[Rendered], settings: Any, root: pathlib.Path) -> pathlib.Path:
    """The folder of the finished files of these settings; renders them where they are missing.

    They are made in a folder of another name under a lock, which the system frees even when its
    holder is killed, and renamed when complete: no half-made set is read, and none is made twice.

    Args:
      builder: writes them.
      settings: of its renderer, with `size` and `seed`.
      root: the cache.

    Raises:
      ValueError: a cache folder that cannot be written or that has no room.
    """
    version = farm.renderer_of(settings).VERSION
    text = json.dumps(dataclasses.asdict(settings) | {"version": version}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    first = next(iter(_counts(settings).values()))
    name = f"{builder.NOUN}-{settings.size}px-{first}-seed{settings.seed}-{digest}"
    folder = root / name
    if _is_whole(builder, folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_room(builder, settings, root)
        waiting = f"waiting for another process to render the {builder.NOUN}"
        with files.lock(folder.with_name(folder.name + ".lock"), waiting):
            if not _is_whole(builder, folder):
                _build(builder, settings, folder)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError on a full disk
        raise ValueError(
            f"cannot write the {builder.NOUN} to {root}: {str(error).split(';')[0]}; set data.dir or"
            " MIXAUG_JAX_CACHE to a folder that can be written and has room"
        ) from error
    return folder


def records(builder: type[Rendered], folder: pathlib.Path, split: str, skip: tuple = ()) -> Any:
    """The examples of a split in a folder, `r[i]` a dict without the features `skip`.

    Raises:
      DamagedError: files that are not as they were written; reading an example may raise it, too.
    """
    decoders = dict.fromkeys(skip, tfds.decode.SkipDecoding())
    try:
        found = tfds.builder_from_directory(folder).as_data_source(split, decoders=decoders)
    except Exception as error:  # whatever damage makes TFDS and the reader raise
        raise _damaged(builder, folder, error) from error
    return _Records(found, builder, folder)


@dataclasses.dataclass(frozen=True)
class _Records:
    found: Any
    builder: type[Rendered]
    folder: pathlib.Path

    def __len__(self):
        return len(self.found)

    def __getitem__(self, index):
        try:
            return self.found[index]
        except (
            Exception
        ) as error:  # the reader compares checksums; it and the decoder raise many kinds
            raise _damaged(self.builder, self.folder, error) from error


def _damaged(builder, folder, error) -> files.DamagedError:
    why = f"{type(error).__name__}: {error}".partition("\n")[0][:150]
    return files.DamagedError(
        f"the {builder.NOUN} in {folder} are damaged ({why}); remove that folder, and they are rendered again"
    )


def _described(builder):
    return (*_DESCRIBED, *builder.DESCRIBED)


def _is_whole(builder, folder) -> bool:
    """Whether the files are there, and what describes them is as it was written; records have checksums of their own."""
    if not folder.is_dir():
        return False
    if all(files.is_intact(folder / name) for name in _described(builder)):
        return True
    say.line(f"the {builder.NOUN} in {folder} are damaged; they are rendered again")
    return False


def _check_room(builder, settings, root):
    """Refuses before the work what the disk cannot hold: raw images, and some labels."""
    count = _total(settings)
    needed = count * (builder.DISK_BYTES * settings.size**2 + 2000) / 1e6
    free = shutil.disk_usage(root).free / 1e6
    if needed > free:
        raise ValueError(
            f"{count} {builder.NOUN} of {settings.size} pixels need {needed:.0f} MB and {root} has"
            f" {free:.0f} MB free; set data.dir or MIXAUG_JAX_CACHE to another folder"
        )


def _build(builder, settings, folder):
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold the lock
    try:
        made = builder(settings, data_dir=str(partial))
        # TFDS announces a download there.
        with contextlib.redirect_stdout(io.StringIO()):
            made.download_and_prepare()
        files.seal(pathlib.Path(made.data_dir), _described(builder))
        shutil.rmtree(folder, ignore_errors=True)  # one that was damaged
        os.replace(made.data_dir, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
