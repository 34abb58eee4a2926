"""A folder of pictures as a data set, with no preparation.

    DIR/train/<class>/**   DIR/val/<class>/** (or valid/, validation/)   DIR/test/<class>/**

The pictures are jpg, jpeg, jfif, png, bmp, webp, tif, tiff or gif (its first frame) of any size, in a class's folder or deeper
in it. train's folders are the classes, in sorted order. Where there is no folder for validation, a share of train is set aside
(`layout.class_files`). With a table DIR/labels.csv a picture may show several classes at once, see `multi_label`. Two more
files of DIR are optional:

annotations.json  {"train/cat/1.jpg": {"boxes": [["head", row0, col0, row1, col1], ...],
                                       "mask": "masks/1.png"}, ...}
    Paths are relative to DIR; boxes are in stored pixels, ends exclusive; either key may be left
    out, and pictures too.
concepts.json     {"1": ["cat", "object"], "2": ["grass", "material"], "9": "void", ...}
    (name, category) of the numbers in the masks; 0 is none. What is called void is not labeled, and so is 255 where it is not
    named. A mask is a PNG of the picture's size: gray or palette (the index is the number) up to 65535, or with several
    channels where a pixel has several concepts.
parts.json        {"1": "head", "2": "tail", ...}, without gaps
    the names of the numbers in masks of parts, as PASCAL-Part has them, which annotations.json names by the key "parts": a PNG
    of one channel, 0 where there is no part.

A camera's orientation tag is applied where the folder has no annotations; where it has, these are given in the stored pixels.
`python -m mixaug_jax.data.convert` makes both files from COCO's, Pascal VOC's or trimaps.
"""

import concurrent.futures
import pathlib

from mixaug_jax.core import say
from mixaug_jax.core.types import Config
from mixaug_jax.data import multi_label
from mixaug_jax.data.annotations import open_annotations
from mixaug_jax.data.images import decode_rgb, is_turned, skip_unreadable
from mixaug_jax.data.layout import class_files
from mixaug_jax.data.source import Source

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
# What a complete file ends with. These bytes cannot occur inside a JPEG's compressed data.
_LAST_BYTES = dict.fromkeys((".jpg", ".jpeg", ".jfif"), b"\xff\xd9") | {".png": b"IEND"}


def open_folder(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the folder config.data.dir.

    A file that is cut short, too large or no image is found here, before anything is trained on it: with
    data.corrupt="error" it is refused by name, with "skip" left out and logged. (Damage that only a
    full decoding shows is met when the image is read: an error, or its neighbor instead.) The annotations of all splits are
    checked here, too, also where only the pictures of train are asked for: a training takes longer than to look. The names of
    boxes are numbered as the classes, others after.

    Args:
      split: "train", "validation" (val/, valid/ or validation/) or "test".
      config: the resolved config; reads data.{dir, corrupt, threads, outside, validation_split, validation_share}
        and explain.boxes.
      annotations: whether the examples have the boxes and concepts that annotations.json gives
        them; an example that is not annotated there has no such key.

    Raises:
      ValueError: a folder that is missing, unreadable, or not laid out as above; a class that
        train/ does not have; a split without images; damaged images; annotations that do
        not fit.
    """
    # A file cut short in transfer is found now, by its last bytes, and not in the middle of an epoch.
    table = multi_label.open_labels(config) if multi_label.is_there(config) else None
    if table is None:
        files, class_names = class_files(config, split, SUFFIXES, "image")
    else:
        files, class_names = multi_label.files(config, split, SUFFIXES, table), table.class_names
    files, turned = _complete(files, config.data.corrupt, config.data.threads)
    root = pathlib.Path(config.data.dir).expanduser()
    # Boxes of a file count stored pixels, too.
    boxes_file = config.get("explain", {}).get("boxes", "")
    upright = not (root / "annotations.json").exists() and not boxes_file
    _say_turned(split, turned, upright)
    known = None
    if annotations or split == "train":
        known = open_annotations(config, class_names)

    def read_image(index: int) -> tuple:
        path = files[index][0]
        return files[index], decode_rgb(path, str(path), upright=upright)

    read_image = skip_unreadable(read_image, len(files), config.data.corrupt)

    def read(index: int) -> dict:
        (path, label), image = read_image(index)
        example = {"image": image} | ({"label": label} if table is None else table.of(path))
        return example | known.of(path, image.shape[:2]) if annotations else example

    def file_name(index: int) -> str:
        return files[index][0].name

    concepts, boxes = (known.concept_names, known.box_names) if annotations else ((), ())
    return Source(
        read,
        len(files),
        class_names,
        concepts,
        boxes,
        file_name,
        multi_label=table is not None,
        part_names=known.part_names if annotations else (),
    )


def _complete(files, corrupt, threads):
    """The files that are whole, and those of them that a camera has turned: the others raise together, or with corrupt="skip"
    are left out."""
    # Threads, as most of the time is spent waiting for a disk or a network.
    with concurrent.futures.ThreadPoolExecutor(max(1, threads)) as pool:
        looked = list(pool.map(_look, (path for path, _ in files)))
    damaged = [problem for problem, _ in looked if problem]
    if damaged and corrupt != "skip":
        raise ValueError(
            f"{damaged[0]} ({len(damaged)} damaged in all);"
            ' repair or remove it, or set data.corrupt="skip"'
        )
    for problem in damaged:
        say.warning(f"{problem}; it is left out")
    whole = [file for file, (problem, _) in zip(files, looked, strict=True) if not problem]
    if not whole:
        raise ValueError(f"none of the {len(files)} images in {files[0][0].parents[1]} can be read")
    return whole, [path for (path, _), (_, t) in zip(files, looked, strict=True) if t]


def _look(path):
    """(what is wrong with the file, "" for nothing, and whether a camera has turned it); only a file without a proper end is
    decoded."""
    # Formats without such a mark are decoded: slower, but there is no other way to know.
    mark = _LAST_BYTES.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 32))
            ended = mark and mark in file.read()
        turned = is_turned(path, str(path))
        if not ended:
            decode_rgb(path, str(path))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}", False
    except ValueError as error:
        return str(error), False
    return "", turned


def _say_turned(split, turned, upright):
    if turned:
        done = "are turned upright" if upright else "stay as stored, as annotations count pixels"
        say.once(
            f"{split}: {len(turned)} images have a camera's orientation tag and {done}, such as {turned[0]}"
        )
