"""Where converted annotations go: pictures, masks, annotations.json and concepts.json of a folder."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable

import numpy as np
import PIL.Image

from mixaug_jax.core import files, say
from mixaug_jax.core.types import Integer
from mixaug_jax.data.annotations import VOID
from mixaug_jax.data.folders import SUFFIXES
from mixaug_jax.data.images import opened, stored_shape

VOID_NAME = ("void", "void")
_NONE = ("none", "none")


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a format says of one picture.

    Attributes:
      picture: its file.
      label: the class whose folder it belongs in; "" leaves it out.
      boxes: [name, row0, col0, row1, col1], ends exclusive.
      mask: [H,W,K] indices of `names`; None: no mask.
      names: (name, category) of the numbers in `mask`, entry 0 being none; `VOID_NAME` is not labeled.
    """

    picture: pathlib.Path
    label: str
    boxes: tuple = ()
    mask: Integer[np.ndarray, "H W K"] | None = None
    names: tuple[tuple[str, str], ...] = ()


def place(found: Iterable[Converted], root: pathlib.Path, split: str) -> None:
    """Adds pictures and what is known of them to a folder, beside what it holds already.

    A picture whose file's name is in the split already stays where it is; others go to `<split>/<label>/`, as a second name of
    the same file where the disk allows it, else as a copy. Concepts keep the numbers that concepts.json has.

    Args:
      found: the pictures.
      root: the folder.
      split: "train", "val" or "test".

    Raises:
      ValueError: files of the folder that cannot be read, pictures that are missing or called alike, or that go to two
        places, too many concepts for a mask of several slots.
    """
    notes, concepts = _read(root / "annotations.json"), _read(root / "concepts.json")
    known, there = _numbers(concepts), _pictures(root / split)
    left_out, count = 0, 0
    for one in found:
        # A picture without an object has no label, and so no place, unless it is there already.
        at = _place_of(one, there, root, split)
        if not at:
            left_out += 1
            continue
        name, count = at.relative_to(root).as_posix(), count + 1
        note = notes.setdefault(name, {})
        if one.boxes:
            note["boxes"] = [list(box) for box in one.boxes]
        if one.mask is not None:
            mask = pathlib.Path("masks", name).with_suffix(".png")
            _write_mask(root / mask, one, known)
            note["mask"] = mask.as_posix()
    # `known` has grown by the new masks' concepts; numbers that were there stay.
    for concept, number in known.items():
        if concept not in (_NONE, VOID_NAME):
            concepts[str(number)] = list(concept)
    if not count:
        raise ValueError(f"none of {left_out} pictures has a class or is in {root / split} already")
    files.write_json(root / "annotations.json", notes)
    if concepts:
        files.write_json(root / "concepts.json", concepts)
    text = f"; {left_out} without an object are left out" if left_out else ""
    say.result(f"{root}: {count} pictures of {split}, {len(concepts)} concepts{text}")


def pictures_in(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{name without its ending: file} of the pictures in a folder and below it.

    Raises:
      ValueError: no folder, no pictures, or two of one name.
    """
    found = {}
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of pictures")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise ValueError(f"{found[path.stem]} and {path} have one name; which is meant?")
            found[path.stem] = path
    if not found:
        raise ValueError(f"{folder} has no pictures ({', '.join(SUFFIXES)})")
    return found


def shape_of(picture: pathlib.Path) -> tuple[int, int]:
    """(rows, columns) of a picture, from its header.

    Raises:
      ValueError: a file that is no picture.
    """
    with opened(picture, str(picture)) as image:
        return stored_shape(image)


def largest(areas: dict[str, float]) -> str:
    """The name with the largest area, the first of equals; "" where there is none."""
    return max(areas, key=lambda name: areas[name], default="")


def _read(path):
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, {{...}}")
    return content


def _numbers(concepts):
    """{(name, category): number} of concepts.json."""
    known = {_NONE: 0, VOID_NAME: VOID}
    for number, concept in concepts.items():
        if not number.isdigit() or not isinstance(concept, list) or len(concept) != 2:
            raise ValueError(
                f"concepts.json: {number}: {concept} is no number with a name and a category"
            )
        known[tuple(map(str, concept))] = int(number)
        if int(number) == VOID:
            known[VOID_NAME] = 0
    return known


def _pictures(folder):
    """{file's name: places} of the pictures of a split."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.name, []).append(path)
    return found


def _place_of(one, there, root, split):
    """Where a picture is or belongs; "" where it has no class."""
    found = there.get(one.picture.name, [])
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {found[1]} have one name; which is meant?")
    if found or not one.label:
        return found[0] if found else ""
    # A name from a file must not lead out of the folder, or hide what it names.
    label = one.label.replace("/", "-").replace("\\", "-").lstrip(".") or "_"
    at = root / split / label / one.picture.name
    there[one.picture.name] = [at]
    _bring(one.picture, at)
    return at


def _bring(picture, at):
    if not picture.is_file():
        raise ValueError(f"there is no picture {picture}")
    at.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(picture, at)
    except OSError:
        files.write_bytes(at, picture.read_bytes())


def _write_mask(path, one, known):
    for name in one.names:
        if name not in known:
            known[name] = next(n for n in range(1, 2**16) if n != VOID and n not in known.values())
    table = np.array([known[name] for name in one.names])
    mask = table[one.mask]
    slots = mask.shape[-1]
    # One byte a pixel as long as it holds all numbers, those of earlier conversions among them.
    deep = max(known.values()) > VOID
    if deep and slots > 1:
        raise ValueError(
            f"{path} has {slots} numbers a pixel, which PNG keeps up to 255; there are {len(known) - 2} concepts"
        )
    pixels = mask.astype(np.uint16 if deep else np.uint8)
    pixels = pixels[..., 0] if slots == 1 else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as file:
        PIL.Image.fromarray(pixels).save(file, format="png")
