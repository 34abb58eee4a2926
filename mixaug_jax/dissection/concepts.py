"""What the label maps of a data set are, and where they come from.

A concept has a name, a category and a number; number 0 is "none". A label map gives each pixel up to
K numbers. Any `data.Source` whose examples hold `concepts` can be dissected:

* the scenes, and folders with masks, have their own;
* `broden.open_broden` reads a folder in Broden's format;
* `annotate(source, f, names)` adds what a function image -> label map finds, which is where a
  segmentation network plugs in; `add_colors` is that with the basic color names.

`make_label_maps` brings all maps of a data set to one size, once, and keeps them on disk.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from mixaug_jax.core import files, say, walk
from mixaug_jax.core.files import checksum
from mixaug_jax.core.types import Count, Dataset, Int, Path, Preprocess, Sliced
from mixaug_jax.core.types import LabelMaps as Maps
from mixaug_jax.data import transforms
from mixaug_jax.data.source import Source
from mixaug_jax.dissection import colors

VERSION = 1  # of the stored label maps
NONE = ("none", "none")
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
) -> LabelMaps:
    """The label maps of a data set at one size, as far as a network sees its images.

    They are made beside their place and renamed when complete, in a folder named after everything
    that made them (arguments, names of the concepts, and the bytes of eight examples), so maps of
    other settings are never taken for these.

    Args:
      dataset: examples with image and concepts, and `concept_names`; examples without concepts are
        left out.
      preprocess: the network's, see `transforms.seen_part`.
      folder: where the folders of label maps are.
      size: side [pixels] of the maps, sampled at the nearest pixel; 0: see `default_size`.
      max_images: at most so many, spread evenly over the data set; 0: all.
      settings: what else made the data set, as JSON can hold it.
      threads: that read.

    Raises:
      ValueError: no concepts, numbers outside the vocabulary, maps and images that differ in size.
    """
    # Whatever changes a map is in its folder's name, and again in its settings.
    vocabulary = Vocabulary(_concept_names(dataset))
    chosen = walk.spread(len(dataset), max_images)
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
        "examples": _fingerprint(dataset, chosen),
        **json.loads(json.dumps(settings or {})),
    }
    # Looked for again under the lock: another process may have made them while this one waited.
    text = json.dumps(settings, sort_keys=True)
    place = pathlib.Path(folder) / f"labels-{size}px-{zlib.crc32(text.encode()):08x}"
    found = _stored(place, settings, vocabulary)
    if found is None:
        with files.lock(place.with_name(f"{place.name}.lock")):
            if _stored(place, settings, vocabulary) is None:
                if place.exists():
                    say.line(f"the label maps in {place} are damaged; they are made again")
                _build(dataset, preprocess, chosen, place, settings, threads)
        found = _stored(place, settings, vocabulary)
    return found


def _concept_names(dataset):
    names = tuple(getattr(dataset, "concept_names", ()))
    if not names:
        raise NoMasksError(
            "the data set has no masks: its examples need concepts and it needs concept_names; "
            "dissection.add_colors gives it the names of colors"
        )
    return names


def _fingerprint(dataset, chosen) -> int:
    """A checksum of up to eight examples: a data set whose files were replaced is another one."""
    probed = (dataset[int(index)] for index in chosen[walk.spread(len(chosen), 8)])
    return checksum([[example.get(key, ()) for key in ("image", "concepts")] for example in probed])


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


def _build(dataset, preprocess, chosen, place, settings, threads):
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold the lock
    partial.mkdir()
    try:
        kept, shape = _write_maps(dataset, preprocess, chosen, partial, settings, threads)
        np.save(partial / "images.npy", np.array(kept))
        stored = settings | {"shape": [len(kept), *shape]}
        files.write_json(partial / "settings.json", stored)
        files.seal(partial, _FILES)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_maps(dataset, preprocess, chosen, folder, settings, threads):
    """Writes the maps one after the other; returns the indices that have one, and a map's shape."""

    # As far as the network sees the image, at the pixel whose center is nearest: labels cannot be averaged.
    def label_map(index: Count) -> np.ndarray | None:
        example = dataset[int(index)]
        if "concepts" not in example:
            return None
        if example["concepts"].shape[:2] != example["image"].shape[:2]:
            raise ValueError(
                f"the label map of image {index} is {example['concepts'].shape[:2]}; its image is "
                f"{example['image'].shape[:2]}"
            )
        _check_numbers(example["concepts"], len(settings["names"]), index)
        seen = transforms.seen_part(example, preprocess)["concepts"]
        rows, columns = (transforms.nearest(n, settings["size"]) for n in seen.shape[:2])
        return np.ascontiguousarray(seen[rows[:, None], columns], np.uint16)

    # Written one after the other, for all together may be larger than memory.
    kept, shape = [], None
    report = say.progress("label maps", len(chosen))
    with files.create(folder / "maps.uint16") as file:
        maps = walk.read_ahead(label_map, chosen, threads)
        for number, (index, one) in enumerate(zip(chosen, maps, strict=True), 1):
            report(number)
            if one is None:
                continue
            if shape not in (None, one.shape):
                raise ValueError(
                    f"the label map of image {index} has {one.shape[2]} slots a pixel; those before "
                    f"it have {shape[2]}"
                )
            shape = one.shape
            kept.append(int(index))
            file.write(one)
    if not kept:
        raise NoMasksError(
            f"none of the {len(chosen)} images has a mask: there is nothing to dissect"
        )
    return kept, shape


def _check_numbers(numbers, count, index):
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"the label map of image {index} must be of integers; got {numbers.dtype}")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= count:
        raise ValueError(
            f"the label map of image {index} holds label {low if low < 0 else high}; the vocabulary "
            f"goes from 0 to {count - 1}"
        )
