"""Folders of files by class: DIR/train/<class>/**, DIR/val/<class>/** (or valid/, validation/), DIR/test/<class>/**."""

import hashlib
import pathlib
from collections.abc import Iterator

from mixaug_jax.core import checks, say
from mixaug_jax.core.types import Config

_FOLDERS = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
Files = list[tuple[pathlib.Path, int]]


def present(directory: str, split: str) -> bool:
    """Whether DIR has a folder for the split "train", "validation" or "test"."""
    root = pathlib.Path(directory).expanduser()
    return bool(directory) and any((root / name).is_dir() for name in _FOLDERS[split])


def class_files(
    config: Config, split: str, suffixes: tuple[str, ...], noun: str
) -> tuple[Files, tuple[str, ...]]:
    """The files of a split and the names of the classes, which are train's folders that hold files, sorted.

    Train is the split that data.train_split names: a folder without train/ can be looked at, though not trained on, with
    data.train_split=validation.

    Files count in folders within a class, too. What is left out (other files, files outside of every class, empty classes) is
    said once, with its number and one example; hidden files and folders are passed over.

    Where DIR has no folder for validation, the share data.validation_share of each class of train/ is set aside for it: those
    files whose names have the smallest checksums, so that it does not depend on a seed, and hardly on files that come later.

    Args:
      config: the resolved config; reads data.{dir, train_split, validation_split, validation_share}.
      split: "train", "validation" (val/, valid/ or validation/) or "test".
      suffixes: of the files that count, in small letters.
      noun: what a file is, for the errors: "image".

    Returns:
      [(path, label)] in the order of the classes and of the names in each, and the classes' names.

    Raises:
      ValueError: a folder that is missing, unreadable, or not laid out as above; a class that
        train/ does not have; a split without files.
    """
    directory, kinds = config.data.dir, ", ".join(suffixes)
    layout = f"data.dir must hold train/<class>/<{noun}>{suffixes[0]}, and val/ and test/ likewise"
    if not directory:
        raise ValueError(f"data.dir is empty: {layout}")
    root = pathlib.Path(directory).expanduser()
    train = split_folder(root, config.data.train_split, layout)
    # Labels are those of train/ for every split: a class that a split lacks must not shift the others.
    holding = [folder for folder in _classes(train, layout) if _first(folder, suffixes)]
    names = tuple(folder.name for folder in holding)
    share = set_aside(config, split, root)
    folder = train if share else split_folder(root, split, layout)
    files, others, empty = [], [p for p in _entries(folder) if not p.is_dir()], []
    for inner in _classes(folder, layout):
        found = list(below(inner))
        paths = [path for path in found if path.suffix.lower() in suffixes]
        others += [path for path in found if path.suffix.lower() not in suffixes]
        if not paths:
            empty.append(inner)
        elif inner.name not in names:
            raise ValueError(f"{inner} is a class that {train} does not have")
        else:
            paths = part(paths, share, split, inner) if share else paths
            files += [(path, names.index(inner.name)) for path in paths]
    if not files:
        raise ValueError(f"{folder} has no {noun}s ({kinds}) in its class folders: {layout}")
    _say_left_out(split, noun, kinds, others, empty)
    return files, names


def set_aside(config: Config, split: str, root: pathlib.Path) -> float:
    """The share of train/ that is the validation split, where there is no folder for it; else 0."""
    share = config.data.validation_share if config.data.validation_split else 0
    if not share or split == "test" or present(str(root), "validation"):
        return 0
    say.once(
        f"{root} has no folder val, valid or validation, so {100 * share:g} % of each class of train are set aside for"
        " validation (data.validation_share)"
    )
    return share


def part(
    paths: list[pathlib.Path], share: float, split: str, folder: pathlib.Path
) -> list[pathlib.Path]:
    """The validation share of the files in a folder, a class's for one, or the rest, in their own order."""
    # At least one for each side where there are two: a class that nobody validates, or trains, is of no use.
    count = min(max(1, round(share * len(paths))), len(paths) - 1)

    def order(path: pathlib.Path) -> bytes:
        return hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest()

    aside = set(sorted(paths, key=order)[:count])
    return [path for path in paths if (path in aside) == (split == "validation")]


def _say_left_out(split, noun, kinds, others, empty):
    if others:
        say.once(
            f"{split}: {len(others)} files are left out, as {others[0]}: {noun}s are {kinds} in a class's folder"
        )
    if empty:
        say.once(
            f"{split}: {len(empty)} class folders without {noun}s are left out, as {empty[0]}"
            + " (they are no classes)" * (split == "train")
        )


def split_folder(root: pathlib.Path, split: str, layout: str) -> pathlib.Path:
    """The folder of a split; ValueError, with what `layout` says, where it is not there, or there are two."""
    checks.choice("the split of a folder", split, _FOLDERS)
    if not root.is_dir():
        raise ValueError(f"data.dir={root} is no folder: {layout}")
    found = [root / name for name in _FOLDERS[split] if (root / name).is_dir()]
    if len(found) > 1:
        raise ValueError(f"{root} has {found[0].name} and {found[1].name}: keep one of them")
    if not found:
        # A training set cannot be done without; the others can be made or left out.
        advice = {
            "train": "; or, where nothing is trained, set data.train_split=validation",
            "validation": '; or set data.validation_share=0.1, or data.validation_split=""',
            "test": '; or set data.test_split=""',
        }[split]
        raise ValueError(
            f"data.dir={root} has no folder {' or '.join(_FOLDERS[split])}: {layout}{advice}"
        )
    return found[0]


def _entries(folder):
    """What is in the folder, sorted by name, hidden entries left out."""
    # Sorted, because the order in which a file system lists them is nobody's.
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}") from error


def below(folder: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> Iterator[pathlib.Path]:
    """The files in a folder and in those within it, links followed but for circles."""
    above = (*above, folder.resolve())
    for path in _entries(folder):
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from below(path, above)


def _first(folder, suffixes):
    return next((p for p in below(folder) if p.suffix.lower() in suffixes), None)


def _classes(folder, layout):
    found = [path for path in _entries(folder) if path.is_dir()]
    if not found:
        raise ValueError(f"{folder} has no class folders: {layout}")
    return found
