"""What the label maps of a data set are, and where they come from.

A concept has a name, a category and a number; number 0 is "none". A label map gives each pixel up to
K numbers. Any `data.Source` whose examples hold `concepts` can be dissected:

* the scenes, and folders with masks, have their own;
* `broden.open_broden` reads a folder in Broden's format;
* `annotate(source, f, names)` adds what a function image -> label map finds, which is where a
  segmentation network plugs in; `add_colors` is that with the basic color names.

`make_label_maps` brings all maps of a data set to one size, once, and keeps them on disk.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mixaug_jax.core import files, processes, say, walk
from mixaug_jax.core.types import Count, Dataset, Devices, Int, Path, Preprocess, Sliced, UInt16
from mixaug_jax.core.types import LabelMaps as Maps
from mixaug_jax.data import transforms
from mixaug_jax.data.source import Source
from mixaug_jax.dissection import colors

VERSION = 1  # of the stored label maps
NONE = ("none", "none")
_FOLDER = "the folder of label maps ($MIXAUG_JAX_CACHE; for scenes data.dir)"
_FILES = ("settings.json", "images.npy", "maps.uint16")  # of a folder of label maps


class NoMasksError(ValueError):
    """There are no label maps to dissect with."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The concepts behind the numbers.

    Attributes:
      names: (name, category) of each number; entry 0 is ("none", "none"), and so is a number that
        is not in use.
    """

    names: tuple[tuple[str, str], ...]

    def __post_init__(self):
        if not any(category != "none" for _, category in self.names):
            raise ValueError("the vocabulary is empty: it needs a concept besides number 0, none")
        if len(self.names) > 2**16:
            raise ValueError(f"there are {len(self.names)} concepts; numbers go to 65535")

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories' names, in the order of their first concepts."""
        return tuple(dict.fromkeys(category for _, category in self.names if category != "none"))

    @property
    def size(self) -> int:
        """How many concepts there are, numbers that are not in use left out."""
        return sum(category != "none" for _, category in self.names)

    @property
    def category(self) -> Int[np.ndarray, " C"]:
        """[C] int, each number's index in `categories`; 0 for numbers that no pixel can have."""
        index = {name: number for number, name in enumerate(self.categories)}
        return np.array([index.get(category, 0) for _, category in self.names])


@dataclasses.dataclass(frozen=True)
class LabelMaps:
    """The label maps of the images of a data set that have one.

    Attributes:
      maps: [N,H,W,K] integers, a memory map as a rule; 0 = none.
      indices: [N] int, of the examples in the data set.
      vocabulary: the concepts behind the numbers.
      settings: what made them, as JSON has it.
    """

    maps: Maps | Sliced
    indices: Int[np.ndarray, " N"]
    vocabulary: Vocabulary
    settings: dict


def annotate(
    source: Source, label_map: Callable[[np.ndarray], np.ndarray], names: Sequence[tuple[str, str]]
) -> Source:
    """A data set whose examples have further concepts, found in their images.

    Args:
      source: the data set; an example without concepts in a set that has them stays without.
      label_map: uint8 image [H,W,3] -> integers [H,W] or [H,W,K] in 0..len(names)-1, 0 = none.
        It is called from several threads at once.
      names: (name, category) of the function's numbers, entry 0 being ("none", "none").

    Returns:
      A source whose numbers are its own first, then those of `names`.
    """
    own = source.concept_names or (NONE,)

    def read(index: int) -> dict:
        example = source[index]
        if source.concept_names and "concepts" not in example:
            return example
        found = np.asarray(label_map(example["image"]))
        height, width = example["image"].shape[:2]
        if found.shape[:2] != (height, width):
            raise ValueError(
                f"the label map of image {index} is {found.shape}; its image is {height} x {width}"
            )
        found = found.reshape(height, width, -1)
        _check_numbers(found, len(names), index)
        # 0 stays 0; the other numbers go behind those that the data set has.
        found = np.where(found > 0, found.astype(np.int32) + len(own) - 1, 0).astype(np.uint16)
        before = [example["concepts"]] if "concepts" in example else []
        return example | {"concepts": np.concatenate([*before, found], -1, dtype=np.uint16)}

    return dataclasses.replace(source, read=read, concept_names=own + tuple(names[1:]))


def add_colors(source: Source, table: str = "") -> Source:
    """The data set with the basic color name of each pixel, in a slot of its own; see `colors`.

    table: path of a table for `colors.open_table`; "" takes the nearest focus.
    """
    names = colors.nearest_names
    if table:
        names = functools.partial(colors.table_names, table=colors.open_table(table))
    return annotate(source, names, colors.CONCEPTS)


def has_colors(source: Source) -> bool:
    """Whether the data set has concepts of the category color."""
    return any(category == "color" for _, category in source.concept_names)


def default_size(side: int) -> int:
    """The side of label maps for images of `side` pixels: the same, or a quarter above 112."""
    return side if side <= 112 else side // 4


def make_label_maps(
    dataset: Dataset,
    preprocess: Preprocess,
    folder: Path,
    *,
    size: int = 0,
    max_images: int = 0,
    settings: dict | None = None,
    threads: int = 4,
    devices: Devices = None,
) -> LabelMaps:
    """The label maps of a data set at one size, as far as a network sees its images.

    In a job of several processes all call it with the same arguments. Each makes the maps of its share of the images, the first
    one puts them together, and all read the same files.

    They are made beside their place and renamed when complete, in a folder named after everything
    that made them (arguments, names of the concepts, and the bytes of eight examples), so maps of
    other settings are never taken for these.

    Args:
      dataset: examples with image and concepts, and `concept_names`; examples without concepts are
        left out.
      preprocess: the network's, see `transforms.seen_part`.
      folder: where the folders of label maps are; several processes must share it.
      size: side [pixels] of the maps, sampled at the nearest pixel; 0: see `default_size`.
      max_images: at most so many, spread evenly over the data set; 0: all.
      settings: what else made the data set, as JSON can hold it.
      threads: that read.
      devices: of the processes that make them; default all of all processes.

    Raises:
      ValueError: no concepts, numbers outside the vocabulary, maps and images that differ in size, a folder that a process does
        not see.
    """
    # Whatever changes a map is in its folder's name, and again in its settings.
    vocabulary = Vocabulary(_concept_names(dataset))
    chosen, devices = walk.spread(len(dataset), max_images), walk.chosen(devices)
    side = (
        getattr(preprocess, "size", 0)
        or transforms.seen_part(dataset[0], preprocess)["image"].shape[0]
    )
    size = size or default_size(side)
    settings = {
        "version": VERSION,
        "size": size,
        "images": len(chosen),
        "of": len(dataset),
        "view": repr(preprocess),
        "names": [list(name) for name in vocabulary.names],
        "examples": _fingerprint(dataset, chosen, devices),
        **json.loads(json.dumps(settings or {})),
    }
    if walk.together(devices):
        processes.compare("images and label maps", settings)
    text = json.dumps(settings, sort_keys=True)
    place = pathlib.Path(folder) / f"labels-{size}px-{zlib.crc32(text.encode()):08x}"
    making = _Making(dataset, preprocess, chosen, size, len(vocabulary.names), threads, devices)
    if not _known(place, settings, vocabulary, devices):
        lock = files.lock(place.with_name(f"{place.name}.lock"))
        with lock if walk.is_first(devices) else contextlib.nullcontext():
            # Looked for again under the lock: another job may have made them while this one waited.
            if not _known(place, settings, vocabulary, devices):
                _build(making, place, settings)
    found = _stored(place, settings, vocabulary)
    if found is None:
        raise ValueError(
            f"this process does not see the label maps in {place}; {_FOLDER} must be on a disk that all processes share"
        )
    return found


def _concept_names(dataset):
    names = tuple(getattr(dataset, "concept_names", ()))
    if not names:
        raise NoMasksError(
            "the data set has no masks: its examples need concepts and it needs concept_names; "
            "dissection.add_colors gives it the names of colors"
        )
    return names


def _fingerprint(dataset, chosen, devices) -> int:
    """A checksum of up to eight examples: a data set whose files were replaced is another one."""

    def example(number: int) -> list:
        read = dataset[int(chosen[number])]
        return [read.get(key, ()) for key in ("image", "concepts")]

    return walk.fingerprint(example, len(chosen), devices)


def _known(place, settings, vocabulary, devices) -> bool:
    """Whether the first process finds the label maps. The others do not look: their view of a shared disk may go on saying for
    a while that there is nothing."""
    there = walk.is_first(devices) and _stored(place, settings, vocabulary) is not None
    return bool(walk.told(np.array(there), devices))


def _stored(place, settings, vocabulary) -> LabelMaps | None:
    """The label maps in a folder, or None where they are not there, of other settings, or damaged."""
    path = place / "settings.json"
    if not path.is_file():
        return None
    if not all(files.is_intact(place / name, sealed=True) for name in _FILES):
        return None
    stored = files.read_json(path)
    shape = tuple(stored.pop("shape"))
    if stored != settings:
        return None
    maps = np.memmap(place / "maps.uint16", np.uint16, "r", shape=shape)
    return LabelMaps(maps, np.load(place / "images.npy"), vocabulary, settings)


@dataclasses.dataclass(frozen=True)
class _Making:
    """What label maps are made of: `chosen` are indices in the data set, `size` is the side [pixels] of the maps."""

    dataset: Dataset
    preprocess: Preprocess
    chosen: Int[np.ndarray, " N"]
    size: int
    concepts: int
    threads: int
    devices: tuple

    def label_map(self, index: Count) -> UInt16[np.ndarray, "h w K"] | None:
        """As far as the network sees the image, at the pixel whose center is nearest: labels cannot be averaged."""
        example = self.dataset[int(index)]
        if "concepts" not in example:
            return None
        if example["concepts"].shape[:2] != example["image"].shape[:2]:
            raise ValueError(
                f"the label map of image {index} is {example['concepts'].shape[:2]}; its image is "
                f"{example['image'].shape[:2]}"
            )
        _check_numbers(example["concepts"], self.concepts, index)
        seen = transforms.seen_part(example, self.preprocess)["concepts"]
        rows, columns = (transforms.nearest(n, self.size) for n in seen.shape[:2])
        return np.ascontiguousarray(seen[rows[:, None], columns], np.uint16)


def _build(making, place, settings):
    """Makes the folder `place`; of several processes the first one holds its lock."""
    partial = place.with_name(f"{place.name}.partial")
    first = walk.is_first(making.devices)
    if first:
        if place.exists():
            say.line(f"the label maps in {place} are damaged; they are made again")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold the lock
        partial.mkdir()
    if walk.together(making.devices):
        processes.check_shared(partial, _FOLDER)
    try:
        kept, shape = _write_maps(making, partial)
        if first:
            np.save(partial / "images.npy", kept)
            stored = settings | {"shape": [len(kept), *shape]}
            files.write_json(partial / "settings.json", stored)
            files.seal(partial, _FILES)
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
        walk.told(np.array(True), making.devices)  # the others go on when the files are there
    finally:
        if first:
            shutil.rmtree(partial, ignore_errors=True)


def _write_maps(making, folder):
    """Writes the maps one after the other; returns the indices that have one, and a map's shape."""
    devices, first = making.devices, walk.is_first(making.devices)
    mine = walk.share(len(making.chosen), devices)
    chosen = making.chosen[mine.start : mine.stop]
    path = folder / ("maps.uint16" if first else f"part-{jax.process_index():06}")
    # Written one after the other, for all together may be larger than memory.
    kept, shape = [], None
    report = walk.progress("label maps", len(making.chosen), devices)
    with files.create(path) as file:
        maps = walk.read_ahead(making.label_map, chosen, making.threads)
        for number, (index, one) in enumerate(zip(chosen, maps, strict=True), 1):
            report(number)
            if one is None:
                continue
            _check_slots(shape, one.shape, index)
            shape = one.shape
            kept.append(int(index))
            file.write(one)
    # What other processes found comes behind what the first one has, for its images do.
    found = np.array([[kept[0], *shape]] if kept else np.zeros((0, 4)), np.int64)
    kept, found = walk.join(np.array(kept, np.int64), devices), walk.join(found, devices)
    if not len(kept):
        raise NoMasksError(
            f"none of the {len(making.chosen)} images has a mask: there is nothing to dissect"
        )
    shape = tuple(found[0, 1:].tolist())
    for index, *other in found.tolist():
        _check_slots(shape, tuple(other), index)
    if first:
        files.extend(path, sorted(folder.glob("part-*")))
    return kept, shape


def _check_slots(before, shape, index):
    if before not in (None, shape):
        raise ValueError(
            f"the label map of image {index} has {shape[2]} slots a pixel; those before it have {before[2]}"
        )


def _check_numbers(numbers, count, index):
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"the label map of image {index} must be of integers; got {numbers.dtype}")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= count:
        raise ValueError(
            f"the label map of image {index} holds label {low if low < 0 else high}; the vocabulary "
            f"goes from 0 to {count - 1}"
        )
