"""What a data set is to the rest of the package: a random-access sequence of examples."""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, SupportsIndex

from mixaug_jax.core import say


def _nameless(index: int) -> str:
    return ""


@dataclasses.dataclass(frozen=True)
class Source:
    """A split of a data set: `len(source)`, `source[i]`, and the names behind its numbers.

    An example is a dict of
      image: uint8 [H,W,3], RGB, or [H,W,1]; sides may differ from example to example;
      label: int, an index of `class_names`;
      boxes: float32 [n,4] (row0, col0, row1, col1) in pixels, ends exclusive, and
      box_labels: int32 [n], indices of `box_names`: where the set has boxes;
      concepts: uint8 or uint16 [H,W,K], indices of `concept_names`, 0 = none: where the set
        has segmentations; K is how many concepts a pixel may have at once;
      parts: uint8 [H,W], indices of `part_names`, 0 = none: where the set knows parts;
      targets: float32 [K] in 0..1, of each class whether the image shows it, and
      weights: float32 [K], 0 where that is not known: of a set with `multi_label`, whose `label` is
        then the class to explain;
      valid: bool [W], the columns of a spectrogram that are not padding: where these are recordings.

    Attributes:
      read: the function from an index in 0..size-1 to the example; it is called from several
        threads at once, and gives the same example every time.
      size: how many examples there are.
      class_names: the classes' names, in the labels' order.
      concept_names: (name, category) of every concept; entry 0 is ("none", "none"). Empty where
        the set has no segmentations.
      box_names: the names of the boxes' classes; empty where there are no boxes.
      file_name: the function from an index to the name of the image's file, "" where it has none.
      make: f(key, count, arrays) -> batch, a pure function that makes training data inside the jitted step: of `count` examples
        image uint8 [count,H,W,C] and label int32 [count], or what else an example has. None: training reads examples.
      arrays: a pytree of arrays that `make` is given, the same on every device.
      multi_label: whether an image may show several classes at once, and examples have `targets` (and maybe `weights`).
      part_names: the names of `parts`, entry 0 is "none"; empty where there are none.
      class_parts: the part that each class is told by, an index of `part_names`; empty where classes have no such part.
    """

    read: Callable[[int], dict]
    size: int
    class_names: tuple[str, ...]
    concept_names: tuple[tuple[str, str], ...] = ()
    box_names: tuple[str, ...] = ()
    file_name: Callable[[int], str] = _nameless
    make: Callable[[Any, int, Any], dict] | None = None
    arrays: Any = ()
    multi_label: bool = False
    part_names: tuple[str, ...] = ()
    class_parts: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: SupportsIndex) -> dict:
        """The example at `index`; IndexError outside 0..len-1 (no counting from the end)."""
        index = operator.index(index)
        if not 0 <= index < self.size:
            raise IndexError(f"example {index} of a split with {self.size} examples")
        return self.read(index)


def numbered_as(source: Any, classes: int) -> Any:
    """A part of ImageNet with labels as a network of all its 1000 classes has them; any other set as it is.

    Args:
      source: a `Source`; one of no more classes, all called by their WordNet numbers ("n01440764") or their English names, is
        renumbered, which is said.
      classes: how many the network has.
    """
    # Processes that only read pictures import this file, and do not wait for networks.
    from mixaug_jax.models import imagenet

    names = tuple(getattr(source, "class_names", ()))
    if classes != imagenet.CLASSES or not 0 < len(names) <= classes:
        return source
    numbers, how = imagenet.found(names)
    if not numbers:
        if len(names) < classes:
            say.once(f"the data's classes are not all classes of ImageNet: {how}")
        return source
    if numbers == tuple(range(classes)):
        return source
    # The name that the reader has not given.
    other = imagenet.names() if names[0] in imagenet.wnids() else imagenet.wnids()
    first = f"{names[0]} is {other[numbers[0]]}, number {numbers[0]}"
    say.once(f"the data's {len(names)} classes are classes of ImageNet by their {how}: {first}")

    def read(index: int) -> dict:
        example = source.read(index)
        return example | {"label": numbers[example["label"]]}

    return dataclasses.replace(source, read=read, class_names=imagenet.wnids())
