"""What annotations.json, concepts.json and parts.json of a folder say of its pictures, all of it checked at once.

Headers are read first (sizes need no decoding), then the pixels of the masks. What was found in a file is kept in the cache by
its size and its time of change, so that only new files cost anything. All faults of a kind become one sentence.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import posixpath

import numpy as np

from mixaug_jax.core import files, say, walk
from mixaug_jax.core.types import Config, UInt8, UInt16
from mixaug_jax.data.images import opened, stored_shape

VOID = 255  # in a mask: not labeled, unless concepts.json names it
_VERSION = 1  # of the kept facts
_CHANNELS = {"1": 1, "L": 1, "P": 1, "I": 1, "I;16": 1, "I;16B": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_LOSSY = ("JPEG", "WEBP")
_NONE = ("none", "none")
_MASKS = ("mask", "parts")  # keys of an entry that are paths of numbers by pixel


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The checked annotations of a folder.

    Attributes:
      notes: {picture: {"boxes": [[name, row0, col0, row1, col1], ...], "mask": path, "parts": path}}, any of the keys.
      box_names: the classes, then the other names of boxes; empty where there are no boxes.
      concept_names: (name, category) of the numbers in masks; empty where there are no masks.
      void: numbers that mean that a pixel is not labeled.
      slots: of a pixel in the masks.
      part_names: of the numbers in masks of parts, "none" first; empty where there are no such masks.
    """

    notes: dict[pathlib.Path, dict]
    box_names: tuple[str, ...] = ()
    concept_names: tuple[tuple[str, str], ...] = ()
    void: frozenset[int] = frozenset()
    slots: int = 0
    part_names: tuple[str, ...] = ()

    def of(self, path: pathlib.Path, shape: tuple[int, int]) -> dict:
        """boxes and box_labels, concepts, or neither: what the example of a picture of `shape` [rows, columns] has."""
        note, example = self.notes.get(path, {}), {}
        if "boxes" in note:
            corners = np.array([box[1:] for box in note["boxes"]], np.float32).reshape(-1, 4)
            labels = [self.box_names.index(box[0]) for box in note["boxes"]]
            example = {"boxes": np.clip(corners, 0, np.array([*shape, *shape], np.float32))}
            example["box_labels"] = np.array(labels, np.int32)
        if "mask" in note:
            example["concepts"] = self._labels(note["mask"], shape)
        if "parts" in note:
            example["parts"] = self._parts(note["parts"], shape)
        return example

    def _parts(self, path, shape):
        mask = read_mask(path)
        if mask.shape != (*shape, 1) or mask.max(initial=0) >= len(self.part_names):
            raise ValueError(f"parts {path} are not as they were when they were checked")
        return mask[..., 0].astype(np.uint8)

    def _labels(self, path, shape):
        mask = read_mask(path)
        if mask.shape != (*shape, self.slots):
            raise ValueError(f"mask {path} is {_shaped(mask.shape)} now; its picture is {shape}")
        named = {k for k, name in enumerate(self.concept_names) if name != _NONE} | {0}
        table = np.full(2**16, -1)
        table[list(named)] = list(named)
        table[list(self.void)] = 0
        labels = table[mask]
        if labels.min() < 0:
            stranger = int(mask[labels < 0][0])
            raise ValueError(f"mask {path} has the number {stranger}, which concepts.json lacks")
        return labels.astype(mask.dtype)


class _Faults:
    """What is wrong, by kind: one sentence a kind, with its number and one example."""

    def __init__(self):
        self._found = {}

    def add(self, kind: str, example: object) -> None:
        self._found.setdefault(kind, []).append(example)

    def refuse(self, path: pathlib.Path) -> None:
        """Raises ValueError if anything is wrong."""
        if self._found:
            said = (f"{kind}: {len(all_)}, such as {all_[0]}" for kind, all_ in self._found.items())
            raise ValueError(f"{path}: {'; '.join(said)}")


def open_annotations(config: Config, class_names: tuple[str, ...]) -> Annotations:
    """The annotations of the folder config.data.dir, for all splits, once everything in them is right.

    Args:
      config: the resolved config; reads data.{dir, outside, corrupt, threads}.
      class_names: of the pictures; a box that is named like a class has the class's number.

    Raises:
      ValueError: one sentence for all faults: files that are no JSON or of another form, pictures or masks that are missing,
        outside of the folder or damaged, boxes outside of their pictures, masks of another size or with numbers that
        concepts.json does not have.
    """
    root = pathlib.Path(config.data.dir).expanduser()
    path, faults = root / "annotations.json", _Faults()
    notes = _notes(root, _json(path), config.data.outside, faults)
    concept_names, void = _concepts(root / "concepts.json")
    faults.refuse(path)
    part_names = _part_names(root / "parts.json")
    masks = [note["mask"] for note in notes.values() if "mask" in note]
    if not part_names and any("parts" in note for note in notes.values()):
        raise ValueError(f"{path} has parts, but there is no parts.json")
    if masks and not concept_names:
        raise ValueError(f"{path} has masks, but there is no concepts.json")
    facts = _facts(root, notes, config.data.threads)
    known = {k for k, name in enumerate(concept_names) if name != _NONE} | {0} | void
    slots = next((facts[m]["shape"][2] for m in masks if "shape" in facts[m]), 0)
    for picture, note in notes.items():
        if "error" in facts[picture]:
            if config.data.corrupt != "skip":  # else it is left out, and what is said of it with it
                faults.add("pictures that cannot be read", facts[picture]["error"])
            continue
        _check_picture(picture, note, facts, root, faults)
        if "mask" in note:
            _check_mask(picture, note["mask"], facts, (slots, known, "concepts.json"), faults)
        if "parts" in note:
            numbers = set(range(len(part_names)))
            _check_mask(picture, note["parts"], facts, (1, numbers, "parts.json"), faults)
    faults.refuse(path)
    # A box that is named like a class has the class's number: regions of the image's class are found by it.
    named = {box[0] for note in notes.values() for box in note.get("boxes", ())}
    box_names = class_names + tuple(sorted(named - set(class_names))) if named else ()
    found = Annotations(notes, box_names, concept_names if masks else (), frozenset(void), slots)
    return dataclasses.replace(found, part_names=part_names)


def _part_names(path) -> tuple[str, ...]:
    """("none", names of the parts 1, 2, ...) from parts.json; () without one."""
    entries = _json(path)
    numbers = [int(k) if k.isascii() and k.isdigit() else 0 for k in entries]
    if sorted(numbers) != list(range(1, len(entries) + 1)) or len(entries) > VOID:
        raise ValueError(
            f'{path} must be {{"1": "head", "2": "tail", ...}}, without gaps, up to {VOID}'
        )
    if not all(isinstance(name, str) and name for name in entries.values()):
        raise ValueError(f"{path}: every part needs a name")
    return ("none", *(entries[str(k)] for k in sorted(numbers))) if entries else ()


def _json(path):
    """The object in a JSON file; empty where there is no such file."""

    def once(pairs: list) -> dict:
        held = dict(pairs)
        if len(held) < len(pairs):  # Python would keep the last one without a word
            keys = [key for key, _ in pairs]
            raise ValueError(f"it has {next(k for k in keys if keys.count(k) > 1)!r} twice")
        return held

    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, {{...}}")
    return content


def _notes(root, entries, outside, faults):
    """{picture: note} of entries whose form is right; the faults of the others."""
    notes, first = {}, {}
    for name, note in entries.items():
        normal = posixpath.normpath(name)
        if normal in first:
            faults.add("pictures under two names", f"{first[normal]} and {name}")
        elif normal.startswith(("/", "../")) or not (root / normal).is_file():
            faults.add(f"names of no picture in {root}", name)
        elif not isinstance(note, dict) or not note.keys() <= {"boxes", *_MASKS}:
            faults.add("entries that are no object with boxes, mask or parts", name)
        else:
            notes[root / normal] = _note(root, name, note, outside, faults)
        first.setdefault(normal, name)
    return notes


def _note(root, name, note, outside, faults):
    """An entry with its mask as a path, as far as its form is right."""
    boxes, checked = note.get("boxes", []), {}
    if not isinstance(boxes, list):
        boxes = [boxes]
    wrong = [box for box in boxes if not _is_box(box)]
    for box in wrong:
        faults.add(
            "boxes that are not [name, row0, col0, row1, col1] with numbers, row0 < row1 and col0 < col1",
            f"{box} of {name}",
        )
    if "boxes" in note:
        checked["boxes"] = [box for box in boxes if box not in wrong]
    for key in note.keys() & {*_MASKS}:
        mask = note[key]
        if not isinstance(mask, str) or not mask:
            faults.add("masks that are not the path of a PNG", f"that of {name}")
            continue
        # By its name alone, links unresolved: a folder may be made of links into another.
        place = pathlib.Path(os.path.normpath(root / mask))
        if not outside and pathlib.Path(os.path.normpath(root)) not in place.parents:
            faults.add("masks outside of the folder, which only data.outside=True allows", mask)
        elif not place.is_file():
            faults.add("masks that are missing", f"{mask} of {name}")
        checked[key] = place
    return checked


def _is_box(box):
    if not isinstance(box, list) or len(box) != 5 or not isinstance(box[0], str):
        return False
    corners = box[1:]
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in corners)
    finite = numbers and all(abs(x) < 2**31 and math.isfinite(x) for x in corners)
    return finite and box[1] < box[3] and box[2] < box[4]


def _concepts(path):
    """(concept_names, the numbers that mean void) from concepts.json."""
    entries, named, void = _json(path), {}, set()
    for number, entry in entries.items():
        name = entry[0] if isinstance(entry, list) and len(entry) == 2 else entry
        is_void = isinstance(name, str) and name.lower() == "void"
        right = number.isascii() and number.isdigit() and str(int(number[:6])) == number
        right = right and int(not is_void) <= int(number) < 2**16
        if not right or not (is_void or (isinstance(entry, list) and len(entry) == 2)):
            raise ValueError(
                f'{path}: {json.dumps({number: entry})} must be {{"number": ["name", "category"]}}'
                ' with a number of 1..65535, or {"number": "void"} for pixels that are not labeled'
            )
        if is_void:
            void.add(int(number))
        else:
            named[int(number)] = tuple(map(str, entry))
    if VOID not in named:
        void.add(VOID)
    # Numbers may have gaps; what no name stands for must not be in a mask.
    names = tuple(named.get(number, _NONE) for number in range(max(named, default=-1) + 1))
    return names, void


def _check_picture(picture, note, facts, root, faults):
    height, width = facts[picture]["shape"][:2]
    # A pixel of tolerance for tools that count ends inclusively or from 1.
    for box in note.get("boxes", ()):
        if min(box[1:]) < -1 or box[3] > height + 1 or box[4] > width + 1:
            where = f"{box} of {picture.relative_to(root)} with {height} rows and {width} columns"
            faults.add(
                "boxes outside of their pictures, in pixels by [row0, col0, row1, col1]", where
            )


def _check_mask(picture, mask, facts, wanted, faults):
    (slots, known, table), found, of = wanted, facts[mask], facts[picture]
    if "error" in found:
        faults.add("masks that cannot be read", found["error"])
        return
    if found["shape"][:2] != of["shape"][:2]:
        here, there = _shaped(found["shape"][:2]), _shaped(of["shape"][:2])
        faults.add("masks of another size than their picture's", f"{mask} ({here}, not {there})")
    if found["shape"][2] != slots:
        channels = f"{mask} ({found['shape'][2]}, not {slots})"
        faults.add("masks with another number of channels than the first", channels)
    strangers = sorted(set(found["numbers"]) - known)
    if strangers:
        faults.add(f"masks with a number that {table} lacks", f"{strangers[0]} in {mask}")


def _shaped(shape):
    return " x ".join(map(str, shape))


def _facts(root, notes, threads):
    """{file: {"shape": [rows, columns(, channels)], "numbers": [...] of a mask} or {"error": sentence}} of all files."""
    kept_at = _place(root)
    kept, facts, new = _kept(kept_at), {}, []
    wanted = {picture: False for picture in notes} | {
        note[key]: True for note in notes.values() for key in _MASKS if key in note
    }
    for file, is_mask in wanted.items():
        status = file.stat()
        stamp = [status.st_size, status.st_mtime_ns, is_mask]
        found = kept.get(os.path.abspath(file), {})
        if found.get("stamp") == stamp:
            facts[file] = found
        else:
            new.append((file, stamp))
    report = say.progress("checking annotations", len(new), "files")
    for number, (file, found) in enumerate(walk.read_ahead(_look, new, threads), 1):
        facts[file] = found
        report(number)
    if new:
        sound = {
            os.path.abspath(file): found for file, found in facts.items() if "error" not in found
        }
        try:
            files.write_json(kept_at, {"version": _VERSION, "files": sound})
        except OSError as error:  # then it is done again
            say.detail(f"{kept_at} cannot be written: {error.strerror}")
    return facts


def _look(file_and_stamp):
    file, stamp = file_and_stamp
    try:
        if not stamp[-1]:
            with opened(file, str(file)) as image:
                return file, {"stamp": stamp, "shape": list(stored_shape(image))}
        mask = read_mask(file)
        numbers = np.flatnonzero(np.bincount(mask.ravel())).tolist()
        return file, {"stamp": stamp, "shape": list(mask.shape), "numbers": numbers}
    except ValueError as error:
        return file, {"error": str(error)}


def _place(root):
    """The file that keeps what was found: in the cache, for nothing is written to a user's data."""
    cache = os.environ.get("MIXAUG_JAX_CACHE", "") or "~/.cache/mixaug_jax"
    name = hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
    return pathlib.Path(cache).expanduser().absolute() / "annotations" / f"{name}.json"


def _kept(path):
    """What was found before, as far as it has the right form."""
    try:
        content = json.loads(path.read_text())
        if content["version"] != _VERSION:
            return {}
        return {file: found for file, found in content["files"].items() if _is_fact(found)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_fact(found):
    stamp, shape = found.get("stamp", ()), found.get("shape", ())
    if len(stamp) != 3 or len(shape) != 2 + bool(stamp[-1]):
        return False
    numbers = found.get("numbers", ()) if stamp[-1] else (0,)
    return all(type(n) is int for n in (*shape, *numbers)) and bool(numbers)


def read_mask(path: pathlib.Path) -> UInt8[np.ndarray, "H W K"] | UInt16[np.ndarray, "H W K"]:
    """The numbers in a mask; a palette's indices, not its colors.

    Raises:
      ValueError: a file that cannot be read, a format that does not keep numbers, numbers beyond 65535.
    """
    with opened(path, f"mask {path}") as image:
        if image.format in _LOSSY or image.mode not in _CHANNELS:
            raise ValueError(
                f"it is {image.format} of mode {image.mode}; numbers are kept by PNG, gray or palette"
            )
        mask = np.array(image)
    if mask.dtype != np.uint8:  # one bit a pixel, or 16
        if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < 2**16:
            raise ValueError(f"mask {path} has a number beyond 65535")
        mask = mask.astype(np.uint8 if mask.dtype == bool else np.uint16)
    return mask.reshape(*mask.shape[:2], -1)
