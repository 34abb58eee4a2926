"""Where the objects are: the masks that explanations should point at, from a data set's boxes, concepts and parts."""

import collections
import csv
import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixaug_jax.core import checks, say
from mixaug_jax.core.walk import spread
from mixaug_jax.data.source import Source
from mixaug_jax.models import imagenet

# "class_*": what is called as the explained class; "masks": every concept of the category object; "boxes": every box.
KINDS = ("class_masks", "class_boxes", "boxes", "masks")
PARTS = "parts:"  # before names of parts, of which CLASS is the one that tells the explained class
CLASS = "class"
_OBJECT = "object"
_PROBED = 50  # images that are looked at for what their boxes are called
_NAMES = 2000  # images whose files' names are compared with those of a CSV


@dataclasses.dataclass(frozen=True)
class Finder:
    """How the region of an example is found.

    Attributes:
      kind: one of `KINDS`, "parts:NAME,NAME", or "" where the data set tells no place of anything.
      labels: for the number of each box name (or concept, for masks; or part) the classes that it shows.
      objects: the numbers that count as objects, for how many classes an image shows.
    """

    kind: str
    labels: tuple[frozenset, ...] = ()
    objects: frozenset = frozenset()

    def __call__(self, example: dict, label: int) -> tuple[np.ndarray, int]:
        """The region of class `label`, bool [h,w], empty where there is none, and how many kinds of objects the image shows.

        Args:
          example: image [h,w,C], and where the data set has them boxes, box_labels, concepts and parts, as the network sees it.
        """
        size = example["image"].shape[:2]
        numbers = self.present(example)
        wanted = [n for n in numbers if self.kind in ("boxes", "masks") or label in self.labels[n]]
        if self.kind in ("boxes", "class_boxes") and "boxes" in example:
            chosen = np.isin(example["box_labels"], wanted)
            return boxes_mask(example["boxes"][chosen], size), len(numbers)
        if self.kind in ("masks", "class_masks") and "concepts" in example:
            return np.isin(example["concepts"], wanted).any(-1), len(numbers)
        if self.kind.startswith(PARTS) and "parts" in example:
            return np.isin(example["parts"], wanted), len(numbers)
        return np.zeros(size, bool), 0

    def present(self, example: dict) -> list[int]:
        """The numbers of the objects in an example, each once, rising."""
        key = "box_labels" if self.kind.endswith("boxes") else "concepts"
        key = "parts" if self.kind.startswith(PARTS) else key
        found = np.unique(example[key]).tolist() if self.kind and key in example else []
        return [n for n in found if n in self.objects]

    def candidates(self, example: dict) -> list[int]:
        """The classes that the objects in an example show, rising."""
        return sorted(set().union(*(self.labels[n] for n in self.present(example))))


def finder(dataset: Any, shows: dict[str, frozenset], kind: str = "auto") -> Finder:
    """How regions are found in a data set.

    Args:
      dataset: as `data.Source`.
      shows: {name of a box or concept: the classes that it shows}; see `own_classes` and `imagenet_classes`.
      kind: one of `KINDS`; "parts:NAME,NAME", parts of the data set, all of them legal, where "class" is the part that the
        explained class is told by; or "auto", that part where the data set has such, else the first of `KINDS` that it has.

    Raises:
      ValueError: an unknown kind, or one that the data set does not have.
    """
    if kind == "auto" and getattr(dataset, "class_parts", ()):
        kind = PARTS + CLASS
    if kind.startswith(PARTS):
        return _parts_finder(dataset, kind)
    checks.choice("region", kind, ("auto", *KINDS))
    concepts = tuple(getattr(dataset, "concept_names", ()))
    box_names = tuple(getattr(dataset, "box_names", ()))
    of_concepts = tuple(shows.get(name, frozenset()) for name, _ in concepts)
    of_boxes = tuple(shows.get(name, frozenset()) for name in box_names)
    objects = {n for n, (_, category) in enumerate(concepts) if category == _OBJECT}
    # A concept called as a class is an object, whatever its category says.
    objects |= {n for n, classes in enumerate(of_concepts) if classes}
    found = {
        "class_masks": Finder("class_masks", of_concepts, frozenset(objects)),
        "class_boxes": Finder("class_boxes", of_boxes, frozenset(range(len(box_names)))),
        "boxes": Finder("boxes", of_boxes, frozenset(range(len(box_names)))),
        "masks": Finder("masks", of_concepts, frozenset(objects)),
    }
    has = {"class_masks": any(of_concepts), "class_boxes": _called_as_class(dataset, of_boxes)}
    has |= {"boxes": bool(box_names), "masks": bool(objects)}
    # In the order of KINDS: the more a region says about the explained class, the earlier it comes.
    there = [k for k in KINDS if has[k]]
    if kind == "auto":
        return found[there[0]] if there else Finder("")
    if kind not in there:
        raise ValueError(
            f"region={kind!r}, which this data set does not have; it has {', '.join(there) or 'none'}"
            f" (boxes are named {', '.join(box_names[:3]) or 'nothing'}, concepts"
            f" {', '.join(name for name, _ in concepts[1:4]) or 'nothing'})"
        )
    return found[kind]


def _parts_finder(dataset, kind):
    """The finder of "parts:NAME,NAME"."""
    names, own = getattr(dataset, "part_names", ()), getattr(dataset, "class_parts", ())
    known = (*((CLASS,) if own else ()), *names[1:])
    if not known:
        raise ValueError(f"region={kind!r}, but this data set knows no parts")
    asked = [name.strip() for name in kind.removeprefix(PARTS).split(",")]
    labels = [frozenset()] * len(names)
    for name in asked:
        checks.choice("each part of region", name, known)
        if name == CLASS:
            for label, part in enumerate(own):
                labels[part] = labels[part] | {label}
        else:
            labels[names.index(name)] = frozenset(range(len(dataset.class_names)))
    # What no class is told by is background, whatever it is called.
    objects = frozenset(n for n, classes in enumerate(labels) if classes)
    return Finder(kind, tuple(labels), objects)


def _called_as_class(dataset, of_boxes) -> bool:
    """Whether boxes have classes' names: that these are among the names does not say that there are such boxes."""
    # Reading examples is slow, and settles something only where the names are of both kinds.
    if not any(of_boxes) or all(of_boxes):
        return any(of_boxes)
    for index in spread(len(dataset), _PROBED):
        labels = dataset[int(index)].get("box_labels", ())
        if any(of_boxes[label] for label in labels):
            return True
    return False


def own_classes(class_names: Sequence[str]) -> dict[str, frozenset]:
    """For a network of the data set's classes: a class's name shows that class."""
    return {name: frozenset([k]) for k, name in enumerate(class_names)}


def imagenet_classes(dataset: Any) -> dict[str, frozenset]:
    """For a network of ImageNet's 1000 classes: what the names of boxes and concepts show of them."""
    names = {name for name, _ in getattr(dataset, "concept_names", ())}
    names |= set(getattr(dataset, "box_names", ()))
    return {name: frozenset(imagenet.indices(name)) for name in names}


def boxes_mask(boxes: Any, size: Any) -> np.ndarray:
    """Boxes [n,4] (row0, col0, row1, col1) in pixels -> bool [h,w], the pixels whose centers lie in one of them."""
    row, col = (np.arange(side) + 0.5 for side in size)
    mask = np.zeros(size, bool)
    for row0, col0, row1, col1 in boxes:
        mask |= ((row >= row0) & (row < row1))[:, None] & ((col >= col0) & (col < col1))
    return mask


def add_boxes(source: Source, path: os.PathLike | str) -> Source:
    """A data set with boxes from a CSV, in the form in which ImageNet publishes them for its validation set.

    LOC_val_solution.csv of the ImageNet Object Localization Challenge: the columns ImageId, a file's name with or without its
    ending, and PredictionString, "n01440764 x0 y0 x1 y1" as often as there are boxes, in pixels of the stored image. An image
    may have several rows.

    Args:
      source: the data set; it must know the names of its files.
      path: the CSV.

    Returns:
      The source; its box names are its classes, then those that are none. An image that the CSV does not have is without boxes.

    Raises:
      ValueError: a file that cannot be read or has another form, boxes whose numbers are none or out of order, names that fit
        no image or several.
    """
    boxes = read_boxes(path)
    if not source.file_name(0):
        raise ValueError(
            f"the boxes {path} are for images by their files' names, which this data set does not have"
        )
    _check_names(path, boxes, source)
    named = {name for found in boxes.values() for name, *_ in found}
    names = source.class_names + tuple(sorted(named - set(source.class_names)))
    number = {name: k for k, name in enumerate(names)}

    def read(index: Any):
        example = source.read(index)
        found = _of_file(boxes, source.file_name(index))
        height, width = example["image"].shape[:2]
        # The CSV puts x before y; boxes here put rows before columns.
        corners = np.array([(y0, x0, y1, x1) for _, x0, y0, x1, y1 in found], np.float32)
        corners = np.clip(corners.reshape(-1, 4), 0, (height, width, height, width))
        labels = np.array([number[name] for name, *_ in found], np.int32)
        return example | {"boxes": corners.astype(np.float32), "box_labels": labels}

    return dataclasses.replace(source, read=read, box_names=names)


def _check_names(path, boxes, source):
    """Refuses a CSV for other images, or for one of several that are called alike."""
    # Some sets read an example to know its name, so of a large one not all are looked at.
    probed = spread(len(source), _NAMES)
    names = [source.file_name(int(index)) for index in probed]
    held = [pathlib.PurePath(name).stem for name in names if _of_file(boxes, name)]
    if not held:
        sentence = f"none of {len(names)} images is in the boxes {path}: images are called like {names[0]!r}, its rows like "
        sentence += f"{next(iter(boxes), '')!r}"
        if len(probed) == len(source):
            raise ValueError(sentence)
        say.warning(sentence)
    twice = next((name for name, number in collections.Counter(held).items() if number > 1), "")
    if twice:
        raise ValueError(
            f"the boxes {path} have {twice!r}, as which several images are called: they do not tell whose boxes these are"
        )


def _of_file(boxes, name):
    stem = pathlib.PurePath(name).stem
    return boxes.get(name, ()) + (boxes.get(stem, ()) if stem != name else ())


def read_boxes(path: os.PathLike | str) -> dict[str, tuple]:
    """{ImageId: ((name, x0, y0, x1, y1), ...)} of a CSV, see `add_boxes`."""
    boxes, wrong = {}, []
    try:
        # Spreadsheets begin a file with a mark, which would be a part of the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            found = _boxes_of(row["PredictionString"])
            boxes[row["ImageId"]] = boxes.get(row["ImageId"], ()) + found
            wrong += [(row["ImageId"], box) for box in found if not _in_order(*box[1:])]
    except OSError as error:
        raise ValueError(f"the boxes {path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, AttributeError, csv.Error) as error:
        raise ValueError(
            f"the boxes {path} must be a CSV with the columns ImageId and PredictionString, as "
            f"'n01440764 x0 y0 x1 y1' repeated (ImageNet's LOC_val_solution.csv): {error}"
        ) from error
    if wrong:
        image, box = wrong[0]
        raise ValueError(
            f"the boxes {path} must be finite numbers with x0 < x1 and y0 < y1: {len(wrong)} are not, such as "
            f"{' '.join(map(str, box))} of {image}"
        )
    return boxes


def _in_order(x0, y0, x1, y1):
    return all(map(math.isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1


def _boxes_of(text):
    words = text.split()
    if len(words) % 5:
        raise ValueError(f"{text!r} is not a name and four numbers, repeated")
    return tuple(
        (words[k], *(float(word) for word in words[k + 1 : k + 5])) for k in range(0, len(words), 5)
    )
