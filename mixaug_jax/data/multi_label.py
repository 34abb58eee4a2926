"""Pictures that show several classes each, in a folder with a table.

    DIR/train/**   DIR/val/** (or valid/, validation/)   DIR/test/**
    DIR/labels.csv    file,cat,dog,...    a row a picture: its path relative to DIR, then 1 or 0 (or a share) of each class

An empty cell, or ?, is a class of which nobody knows whether the picture shows it: it counts neither in the loss nor in the
accuracy. Pictures without a row are left out, and said. Without val/ a share of train's pictures is set aside, as for folders
of classes.
"""

import csv
import dataclasses
import math
import pathlib

import numpy as np

from mixaug_jax.core import say
from mixaug_jax.core.types import Bool, Config, Float
from mixaug_jax.data import layout

TABLE = "labels.csv"


@dataclasses.dataclass(frozen=True)
class Labels:
    """What labels.csv says of N pictures and K classes.

    Attributes:
      class_names: [K].
      targets: float32 [N,K] in 0..1, 0 where that is not known.
      known: bool [N,K].
      row: {path: row of the two}.
    """

    class_names: tuple[str, ...]
    targets: Float[np.ndarray, "N K"]
    known: Bool[np.ndarray, "N K"]
    row: dict[pathlib.Path, int]

    def of(self, path: pathlib.Path) -> dict:
        """label, targets and, where some are not known, weights: what the example of a picture has. The class to explain is
        the first of those with the largest target."""
        row = self.row[path]
        found = {"label": int(self.targets[row].argmax()), "targets": self.targets[row]}
        # All examples of a batch have the same parts.
        return (
            found if self.known.all() else found | {"weights": self.known[row].astype(np.float32)}
        )


def is_there(config: Config) -> bool:
    """Whether the folder config.data.dir has a labels.csv."""
    root = pathlib.Path(config.data.dir).expanduser()
    return bool(config.data.dir) and (root / TABLE).is_file()


def open_labels(config: Config) -> Labels:
    """The table of the folder config.data.dir.

    Raises:
      ValueError: one sentence for each kind of fault: a table without classes or pictures, rows of another length, files that
        are not there or have two rows, values outside of 0..1.
    """
    root = pathlib.Path(config.data.dir).expanduser()
    path = root / TABLE
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # A spreadsheet's byte-order mark and its empty lines are no content.
            header, *rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from error
    names = tuple(name.strip() for name in header[1:])
    if len(names) < 2 or not all(names) or len(set(names)) < len(names) or not rows:
        raise ValueError(
            f"{path} must have a header file,CLASS,CLASS,... of two classes or more, each once, and rows; its header is "
            f"{','.join(header)}"
        )
    short = [row for row in rows if len(row) != len(header)]
    if short:
        raise ValueError(
            f"{path}: {len(short)} rows have other than {len(header)} cells, such as {','.join(short[0])}"
        )
    values = [[_share(cell) for cell in row[1:]] for row in rows]
    wrong = [r for r, row in zip(rows, values, strict=True) if any(v is None for v in row)]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong)} rows have a cell that is none of 0..1, empty or ?, such as {','.join(wrong[0])}"
        )
    paths = [root / row[0].strip() for row in rows]
    missing = [p for p in paths if not p.is_file()]
    if missing:
        raise ValueError(f"{path}: {len(missing)} files are not there, such as {missing[0]}")
    row = {p: k for k, p in enumerate(paths)}
    if len(row) < len(paths):
        twice = next(p for p in paths if paths.count(p) > 1)
        raise ValueError(f"{path} has two rows for {twice}")
    found = np.array(values, np.float32).reshape(len(rows), len(names))
    known = ~np.isnan(found)
    return Labels(names, np.where(known, found, 0).astype(np.float32), known, row)


def _share(cell) -> float | None:
    """0..1, NaN for what is not known, None for anything else."""
    if cell.strip() in ("", "?"):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def files(config: Config, split: str, suffixes: tuple[str, ...], labels: Labels) -> layout.Files:
    """The pictures of a split that have a row, [(path, row)] in the order of their names.

    Raises:
      ValueError: a folder that is missing, a split without pictures.
    """
    root = pathlib.Path(config.data.dir).expanduser()
    form = f"{root / TABLE} is for pictures in train/, and val/ and test/ likewise"
    share = layout.set_aside(config, split, root)
    folder = layout.split_folder(root, "train" if share else split, form)
    found = [p for p in layout.below(folder) if p.suffix.lower() in suffixes]
    paths = [path for path in found if path in labels.row]
    if len(paths) < len(found):
        lacking = next(path for path in found if path not in labels.row)
        say.once(
            f"{split}: {len(found) - len(paths)} images without a row in {TABLE} are left out, as {lacking}"
        )
    if share and paths:
        paths = layout.part(paths, share, split, folder)
    if not paths:
        raise ValueError(f"{folder} has no images that {TABLE} tells the classes of")
    return [(path, labels.row[path]) for path in paths]
