"""A folder of pictures as a data set, with no preparation.

    DIR/train/<class>/*   DIR/val/<class>/* (or validation/)   DIR/test/<class>/*

The pictures are jpg, jpeg, png, bmp or webp of any size. train's folders are the classes, in sorted
order. Two files of DIR are optional:

annotations.json  {"train/cat/1.jpg": {"boxes": [["head", row0, col0, row1, col1], ...],
                                       "mask": "masks/1.png"}, ...}
    Paths are relative to DIR; boxes are in stored pixels, ends exclusive; either key may be left
    out, and pictures too.
concepts.json     {"1": ["cat", "object"], "2": ["grass", "material"], ...}
    (name, category) of the numbers in the masks; 0 is none. A mask is a PNG of the picture's size:
    gray or palette (the index is the number) up to 65535, or with several channels where a pixel
    has several concepts.
"""

import concurrent.futures
import json
import pathlib

import numpy as np
import PIL.Image

from mixaug_jax.core import say
from mixaug_jax.core.types import Config
from mixaug_jax.data.images import decode_rgb, skip_unreadable
from mixaug_jax.data.layout import class_files
from mixaug_jax.data.source import Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# What a complete file ends with. These bytes cannot occur inside a JPEG's compressed data.
_LAST_BYTES = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


def open_folder(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the folder config.data.dir.

    A file that is cut short or no image is found here, before anything is trained on it: with
    data.corrupt="error" it is refused by name, with "skip" left out and logged. (Damage that only a
    full decoding shows is met when the image is read: an error, or its neighbor instead.) Camera
    orientation tags are not applied. The names of boxes are numbered as the classes, others after.

    Args:
      split: "train", "validation" (val/ or validation/) or "test".
      config: the resolved config; reads data.{dir, corrupt, threads}.
      annotations: whether the examples have the boxes and concepts that annotations.json gives
        them; an example that is not annotated there has no such key.

    Raises:
      ValueError: a folder that is missing, unreadable, or not laid out as above; a class that
        train/ does not have; a class or split without images; damaged images; annotations that do
        not fit.
    """
    # A file cut short in transfer is found now, by its last bytes, and not in the middle of an epoch.
    files, class_names = class_files(config.data.dir, split, SUFFIXES, "image")
    files = _complete(files, config.data.corrupt, config.data.threads)
    if annotations:
        root = pathlib.Path(config.data.dir).expanduser()
        annotate, concept_names, box_names = _annotations(root, class_names)
    else:
        annotate, concept_names, box_names = None, (), ()

    def read_image(index: int) -> tuple:
        return files[index], decode_rgb(files[index][0], str(files[index][0]))

    read_image = skip_unreadable(read_image, len(files), config.data.corrupt)

    def read(index: int) -> dict:
        (path, label), image = read_image(index)
        example = {"image": image, "label": label}
        return example | annotate(path, image.shape[:2]) if annotate else example

    def file_name(index: int) -> str:
        return files[index][0].name

    return Source(read, len(files), class_names, concept_names, box_names, file_name)


def _complete(files, corrupt, threads):
    """The files that are whole: the others raise together, or with corrupt="skip" are left out."""
    # Threads, as most of the time is spent waiting for a disk or a network.
    with concurrent.futures.ThreadPoolExecutor(max(1, threads)) as pool:
        problems = list(pool.map(_problem, (path for path, _ in files)))
    damaged = [problem for problem in problems if problem]
    if damaged and corrupt != "skip":
        raise ValueError(
            f"{damaged[0]} ({len(damaged)} damaged in all);"
            ' repair or remove it, or set data.corrupt="skip"'
        )
    for problem in damaged:
        say.warning(f"{problem}; it is left out")
    whole = [file for file, problem in zip(files, problems, strict=True) if not problem]
    if not whole:
        raise ValueError(f"none of the {len(files)} images in {files[0][0].parents[1]} can be read")
    return whole


def _problem(path):
    """What is wrong with the file, "" for nothing; only a file without a proper end is decoded."""
    # Formats without such a mark are decoded: slower, but there is no other way to know.
    mark = _LAST_BYTES.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 32))
            if mark and mark in file.read():
                return ""
        decode_rgb(path, str(path))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    return ""


def _annotations(root, class_names):
    """(`f(path, (height, width)) -> dict`, concept_names, box_names) from DIR's two JSON files."""
    notes = {}
    for name, note in _json(root / "annotations.json").items():
        if not (root / name).is_file():
            raise ValueError(f"{root / 'annotations.json'} names {name}, which is not in {root}")
        notes[root / name] = _checked(note, name, root / "annotations.json")
    # Slots and names are the same for all images, so the first mask says how many slots there are.
    concept_names, known = _concepts(root / "concepts.json")
    masks = [note["mask"] for note in notes.values() if "mask" in note]
    if masks and not concept_names:
        raise ValueError(f"{root / 'annotations.json'} has masks, but there is no concepts.json")
    slots = _mask(root / masks[0]).shape[-1] if masks else 0
    named = {box[0] for note in notes.values() for box in note.get("boxes", ())}
    # A box that is named like a class has the class's number: regions of the image's class are found by it.
    box_names = class_names + tuple(sorted(named - set(class_names))) if named else ()

    def annotate(path: pathlib.Path, shape: tuple[int, int]) -> dict:
        note, example = notes.get(path, {}), {}
        if "boxes" in note:
            example = _boxes(note["boxes"], box_names, shape, path)
        if "mask" in note:
            example["concepts"] = _segmentation(root / note["mask"], shape, slots, known)
        return example

    return annotate, concept_names if masks else (), box_names


def _json(path):
    """The object in a JSON file; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, {{...}}")
    return content


def _checked(note, name, path):
    """A picture's entry in annotations.json, once its form is right."""
    if not isinstance(note, dict) or not set(note) <= {"boxes", "mask"}:
        raise ValueError(f"{path}: the entry of {name} must be an object with boxes, mask or both")
    for box in note.get("boxes", ()):
        right = isinstance(box, list) and len(box) == 5 and isinstance(box[0], str)
        right = right and all(isinstance(number, int | float) for number in box[1:])
        if not (right and box[1] < box[3] and box[2] < box[4]):
            raise ValueError(
                f"{path}: {name} has the box {box}; a box is [name, row0, col0, row1, col1] with"
                " row0 < row1 and col0 < col1"
            )
    if not isinstance(note.get("mask", ""), str):
        raise ValueError(f"{path}: the mask of {name} must be the path of a PNG")
    return note


def _concepts(path):
    """(concept_names, bool array of the numbers that may be in a mask) from concepts.json."""
    entries = _json(path)
    if not entries:
        return (), None
    for number, entry in entries.items():
        right = number.isascii() and number.isdigit() and 0 < int(number) < 2**16
        if not right or not isinstance(entry, list) or len(entry) != 2:
            raise ValueError(
                f'{path}: {json.dumps({number: entry})} must be {{"number": ["name", "category"]}}'
                " with a number of 1..65535"
            )
    # Numbers may have gaps; what no name stands for must not be in a mask.
    named = {int(number): tuple(map(str, entry)) for number, entry in entries.items()}
    none = ("none", "none")
    numbers = range(max(named) + 1)
    known = np.array([number == 0 or number in named for number in numbers])
    return tuple(named.get(number, none) for number in numbers), known


def _boxes(boxes, box_names, shape, path):
    # A pixel of tolerance for tools that count ends inclusively or from 1.
    corners = np.array([box[1:] for box in boxes], np.float32).reshape(-1, 4)
    sides = np.array([*shape, *shape], np.float32)
    if (corners < -1).any() or (corners > sides + 1).any():
        raise ValueError(
            f"{path} has {shape[0]} rows and {shape[1]} columns, and a box outside of them in"
            " annotations.json: boxes are [name, row0, col0, row1, col1] in pixels"
        )
    labels = np.array([box_names.index(box[0]) for box in boxes], np.int32)
    return {"boxes": np.clip(corners, 0, sides), "box_labels": labels}


def _segmentation(path, shape, slots, known):
    mask = _mask(path)
    if mask.shape != (*shape, slots):
        raise ValueError(
            f"mask {path} is {mask.shape[0]} x {mask.shape[1]} with {mask.shape[2]} channels; its"
            f" image is {shape[0]} x {shape[1]}, and the first mask has {slots} channels"
        )
    strangers = set(np.unique(mask).tolist()) - set(np.flatnonzero(known).tolist())
    if strangers:
        raise ValueError(f"mask {path} has the number {min(strangers)}, which concepts.json lacks")
    return mask


def _mask(path):
    """The numbers in a mask as uint8 or uint16 [H,W,K]; a palette's indices, not its colors."""
    try:
        with PIL.Image.open(path) as image:
            mask = np.array(image)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"mask {path} cannot be read: {error}") from error
    if mask.dtype != np.uint8:  # one bit a pixel, or 16
        mask = mask.astype(np.uint8 if mask.dtype == bool else np.uint16)
    return mask.reshape(*mask.shape[:2], -1)
