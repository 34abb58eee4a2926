"""Folders of files by class: DIR/train/<class>/*, DIR/val/<class>/* (or validation/), DIR/test/<class>/*."""

import pathlib

from mixaug_jax.core import checks, say

_FOLDERS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
Files = list[tuple[pathlib.Path, int]]


def class_files(
    directory: str, split: str, suffixes: tuple[str, ...], noun: str
) -> tuple[Files, tuple[str, ...]]:
    """The files of a split and the names of the classes, which are train's folders, sorted.

    Args:
      directory: config.data.dir.
      split: "train", "validation" (val/ or validation/) or "test".
      suffixes: of the files that count, in small letters; others are ignored, as are hidden ones.
      noun: what a file is, for the errors: "image".

    Returns:
      [(path, label)] in the order of the classes and of the names in each, and the classes' names.

    Raises:
      ValueError: a folder that is missing, unreadable, or not laid out as above; a class that
        train/ does not have; a class or split without files.
    """
    layout = f"data.dir must hold train/<class>/<{noun}>{suffixes[0]}, and val/ and test/ likewise"
    if not directory:
        raise ValueError(f"data.dir is empty: {layout}")
    root = pathlib.Path(directory).expanduser()
    train = _split_folder(root, "train", layout)
    # Labels are those of train/ for every split: a class that a split lacks must not shift the others.
    class_names = tuple(path.name for path in _classes(train, layout))
    files, ignored = [], 0
    for folder in _classes(_split_folder(root, split, layout), layout):
        if folder.name not in class_names:
            raise ValueError(f"{folder} is a class that {train} does not have")
        entries = _entries(folder)
        paths = [path for path in entries if path.suffix.lower() in suffixes]
        # An empty class is a mistake in the folder's layout more often than it is meant.
        if not paths:
            raise ValueError(f"{folder} has no {noun}s ({', '.join(suffixes)}): {layout}")
        files += [(path, class_names.index(folder.name)) for path in paths]
        ignored += len(entries) - len(paths)
    say.detail(f"{root}, {split}: {len(files)} {noun}s, other entries ignored: {ignored}")
    return files, class_names


def _split_folder(root, split, layout):
    checks.choice("the split of a folder", split, _FOLDERS)
    if not root.is_dir():
        raise ValueError(f"data.dir={root} is no folder: {layout}")
    found = [root / name for name in _FOLDERS[split] if (root / name).is_dir()]
    if not found:
        raise ValueError(
            f"data.dir={root} has no folder {' or '.join(_FOLDERS[split])}: {layout}"
            + (f'; or set data.{split}_split=""' if split != "train" else "")
        )
    return found[0]


def _entries(folder):
    """What is in the folder, sorted by name, hidden entries left out."""
    # Sorted, because the order in which a file system lists them is nobody's.
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}") from error


def _classes(folder, layout):
    found = [path for path in _entries(folder) if path.is_dir()]
    if not found:
        raise ValueError(f"{folder} has no class folders: {layout}")
    return found
