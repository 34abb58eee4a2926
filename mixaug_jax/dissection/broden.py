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
import posixpath
import re

import numpy as np
import PIL.Image

from mixaug_jax.core.types import Path
from mixaug_jax.data import transforms
from mixaug_jax.data.images import decode_rgb, opened
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
    categories = [row["name"] for _, row in _rows(root / "category.csv", ("name",))]
    names = _names(root / "label.csv", categories)
    needed = ("image", "split", "sh", "sw", *categories)
    rows = [(n, r) for n, r in _rows(root / "index.csv", needed) if split in ("", r["split"])]
    index = [_checked(f"{root / 'index.csv'}, line {n}", row, categories, names) for n, row in rows]
    if not index:
        raise ValueError(
            f"{root / 'index.csv'} lists no image" + f" of split {split}" * bool(split)
        )
    # All layers of an image, in the order of the categories; the fullest image says how many slots there are.
    layers = [_layers(row, categories) for row in index]
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
    """[(line, row as a dict)] of a CSV file with a header; every row has what is needed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}, so it is not in Broden's format")
    for line, row in rows:
        # A comma within a name moves all that follows by one column.
        short = [name for name in needed if row[name] is None]
        if short or None in row:
            raise ValueError(
                f"{path}, line {line}: it has {'fewer' if short else 'more'} fields than the header"
            )
    return rows


def _checked(where, row, categories, names):
    """A row of index.csv whose numbers are numbers and whose files lie in the folder."""
    for side in ("sh", "sw"):
        if not _is_number(row[side]) or not 0 < int(row[side]) < 2**16:
            raise ValueError(f"{where}: {side} must be a number of pixels; got {row[side]!r}")
    for layer in (row["image"], *_layers(row, categories)):
        if layer.isdigit() and layer is not row["image"]:
            if not _is_number(layer) or int(layer) >= len(names):
                raise ValueError(f"{where}: label.csv has no label {layer}")
        elif not layer or posixpath.normpath(layer).startswith(("/", "..")):
            raise ValueError(f"{where}: {layer!r} is no file in images/")
    return row


def _layers(row, categories):
    return [layer for name in categories for layer in row[name].split(";") if layer]


def _is_number(text):
    return text.isascii() and text.isdigit() and len(text) < 10


def _names(path, categories):
    """(name, category) of each number."""
    named = {0: NONE}
    for line, row in _rows(path, ("number", "name", "category")):
        uses = re.findall(r"([^;()]+)(?:\((\d+)\))?", row["category"])
        known = [(name, int(images or 0)) for name, images in uses if name in categories]
        if not _is_number(row["number"]) or not 0 < int(row["number"]) < 2**16 or not known:
            raise ValueError(
                f"{path}, line {line}: label {row['number']!r} must be a number of 1..65535 with one of the categories "
                f"{', '.join(categories)}; got {row['category']!r}"
            )
        named[int(row["number"])] = (row["name"], max(known, key=lambda use: use[1])[0])
    return tuple(named.get(number, NONE) for number in range(max(named) + 1))


def _label_map(path, size):
    """The numbers of a label map's PNG, [H,W]."""
    with opened(path, f"label map {path}") as image:
        pixels = np.asarray(image.convert("RGB"), np.uint16)
    if pixels.shape[:2] != size:
        raise ValueError(f"label map {path} is {pixels.shape[:2]}, and index.csv says {size}")
    return pixels[..., 0] + 256 * pixels[..., 1]
