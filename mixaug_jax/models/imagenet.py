"""ImageNet's 1000 classes: their WordNet numbers and names, and which of them show an object of a given name, so that nets of
ImageNet can be asked about other photos."""

import functools
import importlib.resources
import importlib.util
import json
import pathlib
from collections.abc import Sequence

CLASSES = 1000


def indices(name: str) -> tuple[int, ...]:
    """The classes of ImageNet-1k (ILSVRC 2012, in the order of their WordNet numbers) that are kinds of `name`.

    The table, `imagenet_coco.json`, is this package's own: it has COCO's 80 names of boxes, and beside each index the class's
    name. A class stands under a name where every object of the class is one that COCO's annotators would box under it
    (breeds of dogs under "dog", monitors under "tv"). People have none, since ImageNet's three classes of them (ball player,
    groom, scuba diver) are told by what they wear; and "kite" is not the bird of class 21.

    Args:
      name: as in COCO, "hot dog".

    Returns:
      Indices 0..999 in rising order; () for a name without a counterpart, or not in the table.
    """
    return tuple(map(int, _table().get(name, ())))


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet numbers of the classes of ImageNet-1k, "n01440764" first: how the folders of its images are called.

    They are those of tensorflow-datasets' label file; the logits of networks for ImageNet have this order.
    """
    # The file is read, and the package around it not imported, which would take seconds.
    package = pathlib.Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    return tuple((package / "datasets/imagenet2012/labels.txt").read_text().split())


@functools.cache
def names() -> tuple[str, ...]:
    """The English names of the 1000 classes in the order of `wnids`, from tensorflow-datasets: "tench", "goldfish", ...

    Of several words for a class the first; two classes that share it have all their words.
    """
    from tensorflow_datasets.datasets.siscore import labels

    first = [words.split(",")[0] for words in labels.IMAGENET_LABELS_LIST]
    return tuple(
        word if first.count(word) == 1 else words
        for word, words in zip(first, labels.IMAGENET_LABELS_LIST, strict=True)
    )


def readable(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names as people read them: English names where all of them are WordNet numbers of ImageNet, else themselves."""
    numbers = numbers_of(class_names)
    return tuple(names()[number] for number in numbers) if numbers else tuple(class_names)


def numbers_of(class_names: Sequence[str]) -> tuple[int, ...]:
    """Where classes stand among ImageNet's 1000, by their WordNet numbers; () where one is no such number."""
    place = {wnid: number for number, wnid in enumerate(wnids())}
    found = tuple(place.get(name, -1) for name in class_names)
    return () if -1 in found else found


def found(class_names: Sequence[str]) -> tuple[tuple[int, ...], str]:
    """Where classes stand among ImageNet's 1000, by their WordNet numbers or their English names, and by which of them.

    Case and underscores do not matter in a name, and any of a class's words will do ("tench", "Tinca_tinca"), if no other class
    has it.

    Returns:
      The numbers and "WordNet numbers" or "names"; () and a sentence's end where not all are ImageNet's: how many are not, and
      one of them.
    """
    if numbers := numbers_of(class_names):
        return numbers, "WordNet numbers"
    known = {**_by_name(), **{wnid: number for number, wnid in enumerate(wnids())}}
    places = tuple(known.get(_folded(name), -1) for name in class_names)
    lacking = [name for name, place in zip(class_names, places, strict=True) if place < 0]
    if not lacking:
        return places, "names"
    return (), f"{len(lacking)} of {len(places)} are not, such as {lacking[0]}"


def _folded(name) -> str:
    return " ".join(name.replace("_", " ").lower().split())


@functools.cache
def _by_name() -> dict[str, int]:
    """The number of each word of ImageNet's label list that is of one class alone."""
    from tensorflow_datasets.datasets.siscore import labels

    owners: dict[str, set[int]] = {}
    for number, words in enumerate(labels.IMAGENET_LABELS_LIST):
        for word in (words, *words.split(",")):
            owners.setdefault(_folded(word), set()).add(number)
    return {word: numbers.pop() for word, numbers in owners.items() if len(numbers) == 1}


@functools.cache
def _table() -> dict[str, dict[str, str]]:
    folder = importlib.resources.files("mixaug_jax.models")
    return json.loads(folder.joinpath("imagenet_coco.json").read_text())
