"""A folder in the format of Broden, the data set of Network Dissection (Bau et al., CVPR 2017).

    index.csv     image,split,ih,iw,sh,sw,<category>,<category>,...
    label.csv     number,name,category,...      category as "color(289)" or "material(36);object(3)"
    category.csv  name,...
    images/       the images and label maps that index.csv names

A cell of index.csv under a category is empty, or has layers with ";" between them, dominant first:
a label's number, for the whole image, or the name of a PNG with number = red + 256 * green.
"""

import csv
import pathlib
import re

import numpy as np
import PIL.Image

from mixaug_jax.core.types import Path
from mixaug_jax.data import transforms
from mixaug_jax.data.images import decode_rgb
from mixaug_jax.data.source import Source
from mixaug_jax.dissection.concepts import NONE


def open_broden(folder: Path, side: int, *, split: str = "") -> Source:
    """The images and label maps of a folder in Broden's format.

    Images are stretched to a square (as Broden's own are, nothing is cut), by an antialiased
    bilinear filter, label maps by the nearest pixel. A label that is used in several categories
    belongs, here, to the one that most of its images have it in (the first of equals): label.csv
    counts them. A label has slots of as many layers as the fullest image has.

    Args:
      folder: that has index.csv.
      side: of the images, pixels.
      split: images of this split of index.csv only; "" takes all.

    Raises:
      ValueError: a file that is missing or of another format; when an image is read, a missing
        label map, or one with another size than index.csv says.
    """
    # The three tables are read at once, images and label maps when they are asked for.
    root = pathlib.Path(folder).expanduser()
    categories = [row["name"] for row in _rows(root / "category.csv", ("name",))]
    names = _names(root / "label.csv", categories)
    needed = ("image", "split", "sh", "sw", *categories)
    index = [row for row in _rows(root / "index.csv", needed) if split in ("", row["split"])]
    if not index:
        raise ValueError(
            f"{root / 'index.csv'} lists no image" + f" of split {split}" * bool(split)
        )
    # All layers of an image, in the order of the categories; the fullest image says how many slots there are.
    layers = [[c for k in categories for c in (row[k] or "").split(";") if c] for row in index]
    slots = max(1, *map(len, layers))

    def read(i: int) -> dict:
        row = index[i]
        image = PIL.Image.fromarray(decode_rgb(root / "images" / row["image"], row["image"]))
        if image.size != (side, side):
            image = image.resize((side, side), PIL.Image.Resampling.BILINEAR)
        # Label maps may be smaller than their image: the nearest pixel of each goes to the square.
        size = int(row["sh"]), int(row["sw"])
        near_row, near_column = (transforms.nearest(n, side) for n in size)
        concepts = np.zeros((side, side, slots), np.uint16)
        for slot, layer in enumerate(layers[i]):
            if layer.isdigit():  # of the whole image, as a scene's
                concepts[..., slot] = int(layer)
            else:
                label_map = _label_map(root / "images" / layer, size)
                concepts[..., slot] = label_map[near_row[:, None], near_column]
        return {"image": np.asarray(image), "label": 0, "concepts": concepts}

    return Source(read, len(index), ("image",), names)


def _rows(path, needed):
    """The rows of a CSV file with a header as dicts."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}, so it is not in Broden's format")
    return rows


def _names(path, categories):
    """(name, category) of each number."""
    named = {0: NONE}
    for row in _rows(path, ("number", "name", "category")):
        uses = re.findall(r"([^;()]+)(?:\((\d+)\))?", row["category"])
        known = [(name, int(images or 0)) for name, images in uses if name in categories]
        if not row["number"].isdigit() or not known:
            raise ValueError(
                f"{path}: label {row['number']!r} must have one of the categories {', '.join(categories)}; got "
                f"{row['category']!r}"
            )
        named[int(row["number"])] = (row["name"], max(known, key=lambda use: use[1])[0])
    return tuple(named.get(number, NONE) for number in range(max(named) + 1))


def _label_map(path, size):
    """The numbers of a label map's PNG, [H,W]."""
    try:
        with PIL.Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.uint16)
    except OSError as error:
        raise ValueError(f"label map {path} cannot be read: {error}") from error
    if pixels.shape[:2] != size:
        raise ValueError(f"label map {path} is {pixels.shape[:2]}, and index.csv says {size}")
    return pixels[..., 0] + 256 * pixels[..., 1]
