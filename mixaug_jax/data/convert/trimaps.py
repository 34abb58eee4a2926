"""Trimaps, as the Oxford-IIIT Pets have them: a PNG a picture, 1 for the animal, 2 for what is behind it, 3 for its border."""

import pathlib
from collections.abc import Iterator

import numpy as np

from mixaug_jax.data.annotations import read_mask
from mixaug_jax.data.convert.placing import VOID_NAME, Converted, pictures_in, shape_of

_OBJECT, _BEHIND, _BORDER = 1, 2, 3


def read_trimaps(
    trimaps: pathlib.Path, pictures: pathlib.Path, name: str = "animal"
) -> Iterator[Converted]:
    """The object in each picture as a mask, its border as not labeled.

    Args:
      trimaps: the folder of PNGs.
      pictures: the folder of pictures of the same names. A picture's class is the folder within that one that it lies in, or
        else its name up to the last "_": Abyssinian of Abyssinian_12.jpg.
      name: of the object.

    Raises:
      ValueError: no files, pictures that are missing, a class that cannot be told; while iterating, a file that is no trimap.
    """
    files = sorted(p for p in trimaps.glob("*.png") if p.name[0] != ".") if trimaps.is_dir() else []
    if not files:
        raise ValueError(f"{trimaps} has no trimaps (.png)")
    there = pictures_in(pictures)
    for file in files:
        if file.stem not in there:
            raise ValueError(f"{file} is of a picture that is not in {pictures}")
        picture = there[file.stem]
        label = picture.parent.name if picture.parent != pictures else file.stem.rpartition("_")[0]
        if not label:
            raise ValueError(
                f"the class of {picture} is neither a folder nor a part of its name before '_'"
            )
        mask = read_mask(file).astype(np.int64)
        if mask.shape != (*shape_of(picture), 1):
            raise ValueError(f"trimap {file} is {mask.shape}, its picture {shape_of(picture)}")
        strangers = np.setdiff1d(mask, (_OBJECT, _BEHIND, _BORDER))
        if strangers.size:
            raise ValueError(
                f"trimap {file} has the number {strangers[0]}; a trimap has 1, 2 and 3"
            )
        # Border pixels are partly the object's: they are neither.
        numbers = np.select([mask == _OBJECT, mask == _BORDER], [1, 2], 0)
        yield Converted(
            picture, label, (), numbers, (("none", "none"), (name, "object"), VOID_NAME)
        )
