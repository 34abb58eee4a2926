"""Crops of real photographs of markers, in a folder.

    DIR/unlabeled/*.png
    DIR/labels.csv    file,bits[,split]    paths relative to DIR; 12 characters of 0, 1 and ?

A bit that is ? counts neither in the loss nor in a score. Without the column `split` (labeled, validation, test) a file's name
decides: six of ten are labeled, two for validation, two for the test.
"""

import functools
import pathlib
import re
import zlib

import numpy as np
import PIL.Image

from mixaug_jax.core import checks, files
from mixaug_jax.core.types import Config
from mixaug_jax.data.source import Source

_SHARES = ("labeled",) * 6 + ("validation",) * 2 + ("test",) * 2


def open_crops(split: str, config: Config, names: tuple[str, ...]) -> Source:
    """A split of the folder config.data.markers.crops, as `held_set.markers`; pictures of 16 bits or in color are read as gray.

    Args:
      split: "unlabeled", "labeled", "validation" or "test".
      config: reads data.size and data.markers.crops.
      names: of the bits.

    Raises:
      ValueError: no such folder, a split without pictures, a row of labels.csv that is none, a picture of another size.
    """
    folder = pathlib.Path(config.data.markers.crops).expanduser()
    rows = _unlabeled(folder) if split == "unlabeled" else _labeled(folder, split)
    if not rows:
        where = "unlabeled/*.png" if split == "unlabeled" else f"rows of {split} in labels.csv"
        raise ValueError(f"data.markers.crops={folder} has no {where}")
    for path, _ in rows:
        _check(path, config.data.size)
    return Source(
        read=functools.partial(_read, rows),
        size=len(rows),
        class_names=names,
        file_name=lambda index: rows[index][0].name,
        multi_label=True,
    )


def _unlabeled(folder):
    return [(path, "?" * 12) for path in sorted((folder / "unlabeled").glob("*.png"))]


def _labeled(folder, split):
    path = folder / "labels.csv"
    if not path.is_file():
        raise ValueError(f"data.markers.crops={folder} has no labels.csv")
    lines = [line.split(",") for line in files.read_text(path).splitlines() if line.strip()]
    header = [cell.strip() for cell in lines[0]] if lines else []
    if header not in (["file", "bits"], ["file", "bits", "split"]):
        raise ValueError(f"{path} must begin with file,bits or file,bits,split")
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        row = dict(zip(header, map(str.strip, cells), strict=False))
        bits = row.get("bits", "")
        if not re.fullmatch("[01?]{12}", bits):
            raise ValueError(
                f"{path}, line {number}: bits must be 12 characters of 0, 1 and ?; got {bits!r}"
            )
        name = row["file"]
        # By the file's name, so that a picture stays in its split when others are added.
        own = row.get("split") or _SHARES[zlib.crc32(name.encode()) % len(_SHARES)]
        checks.choice(f"{path}, line {number}: split", own, ("labeled", "validation", "test"))
        if own == split:
            rows.append((folder / name, bits))
    return rows


def _check(path, size):
    try:
        with PIL.Image.open(path) as picture:
            found = picture.size
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a picture") from error
    if found != (size, size):
        raise ValueError(f"{path} is {found[0]} x {found[1]} pixels, and data.size is {size}")


def _read(rows, index):
    path, bits = rows[index]
    with PIL.Image.open(path) as picture:
        deep = picture.mode.startswith("I")  # 16 bits, of which Pillow would clip the upper ones
        image = np.asarray(picture) // 256 if deep else np.asarray(picture.convert("L"))
    return {
        "image": image.astype(np.uint8)[..., None],
        "label": index % len(bits),
        "targets": np.float32([character == "1" for character in bits]),
        "weights": np.float32([character != "?" for character in bits]),
    }
