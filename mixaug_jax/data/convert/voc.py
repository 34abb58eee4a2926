"""Pascal VOC: one XML a picture with boxes (counted from 1, ends inclusive), and label maps of the classes as palette PNGs, in
which 255 is void."""

import pathlib
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

import numpy as np

from mixaug_jax.data.annotations import VOID, read_mask
from mixaug_jax.data.convert.placing import VOID_NAME, Converted, largest, pictures_in, shape_of

# In the order of their numbers in the label maps of the VOC challenges, which is alphabetical.
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


def read_voc(
    boxes: pathlib.Path,
    pictures: pathlib.Path,
    masks: pathlib.Path | None = None,
    classes: Sequence[str] = CLASSES,
) -> Iterator[Converted]:
    """What XML files and label maps say of each picture; its class is that of the objects whose boxes cover most.

    Args:
      boxes: the folder Annotations, of XML files.
      pictures: the folder JPEGImages; pictures are found by the names of the XML files.
      masks: the folder SegmentationClass, where only some pictures may have a mask; None: no masks.
      classes: names of the numbers 1, 2, ... in the masks.

    Raises:
      ValueError: no files, pictures that are missing; while iterating, a file of another form, by its name.
    """
    files = sorted(boxes.glob("*.xml")) if boxes.is_dir() else []
    if not files:
        raise ValueError(f"{boxes} has no XML files of annotations")
    there = pictures_in(pictures)
    names = (("none", "none"), *((name, "object") for name in classes), VOID_NAME)
    for file in files:
        if file.stem not in there:
            raise ValueError(f"{file} is of a picture that is not in {pictures}")
        picture, found = there[file.stem], _objects(file)
        place = masks / f"{file.stem}.png" if masks else None
        mask = _mask(place, picture, len(classes)) if place and place.is_file() else None
        areas = {}
        for whole, (name, row0, col0, row1, col1) in found:
            # Parts of people are boxes too, inside of those of their wholes.
            if whole:
                areas[name] = areas.get(name, 0.0) + (row1 - row0) * (col1 - col0)
        corners = tuple(box for _, box in found)
        yield Converted(picture, largest(areas), corners, mask, names if mask is not None else ())


def _objects(file):
    """[(whether it is an object and no part of one, box)] of an XML file."""
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"{file} cannot be read as XML: {error}") from error
    found = []
    for thing in root.findall("object"):
        found += [
            (True, _box(file, thing)),
            *((False, _box(file, p)) for p in thing.findall("part")),
        ]
    return found


def _box(file, thing):
    name = (thing.findtext("name") or "").strip()
    texts = [thing.findtext(f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax")]
    try:
        row0, col0, row1, col1 = (float(text) for text in texts)
        right = name and -1e9 < row0 <= row1 < 1e9 and -1e9 < col0 <= col1 < 1e9
    except (TypeError, ValueError):
        right = False
    if not right:
        raise ValueError(
            f"{file}: object {name!r} must have a name and a bndbox with xmin <= xmax and ymin <= ymax; got {texts}"
        )
    return name, row0 - 1, col0 - 1, row1, col1


def _mask(path, picture, count):
    mask = read_mask(path).astype(np.int64)
    if mask.shape != (*shape_of(picture), 1):
        raise ValueError(
            f"mask {path} is {mask.shape}, its picture {shape_of(picture)}; it needs one number a pixel"
        )
    strangers = np.unique(mask[(mask > count) & (mask != VOID)])
    if strangers.size:
        raise ValueError(f"mask {path} has the number {strangers[0]}; there are {count} classes")
    return np.where(mask == VOID, count + 1, mask)
