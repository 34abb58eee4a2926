"""Which of ImageNet's 1000 classes show an object of a given name, so that nets of ImageNet can be asked about other photos."""

import functools
import importlib.resources
import json


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
def _table() -> dict[str, dict[str, str]]:
    folder = importlib.resources.files("mixaug_jax.models")
    return json.loads(folder.joinpath("imagenet_coco.json").read_text())
