"""What an explanation by pictures is: rows and columns of images that mean something (Sixt et al. 2022, arXiv 2204.11642)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import Float, Given, Scalar, UInt8

PerImage = Float[np.ndarray, "N"]
READINGS = ("columns", "rows", "signs")


@dataclasses.dataclass(frozen=True)
class Panel:
    """An explanation by pictures.

    Attributes:
      reading: where its evidence is: "columns" (each holds images of its own, one bin of the logit), "rows" (each row is one
        scene, changed from column to column), or "signs" (each row is a concept that speaks for one of the classes).
      images: uint8 [R,C,S,S,3].
      logits: float32 [R,C], that of class 1 minus that of class 0.
      columns: what each column means.
      caption: what there is to see, for people who know nothing of networks.
      rows: what each row means; "" where nothing is to be said.
      signs: float32 [R], of a concept above 0 where it speaks for class 1; 0 elsewhere.
      maps: float32 [R,C,S,S], a heat map beside each image; () without.
      attributes: float32 [R,C,A], the true ones, NaN where nobody knows them; () without.
      note: how well the panel is what it should be, for those who made it and not for its readers.
    """

    reading: str
    images: UInt8[np.ndarray, "R C S S 3"]
    logits: Float[np.ndarray, "R C"]
    columns: tuple[str, ...]
    caption: str
    rows: tuple[str, ...] = ()
    signs: Given = ()
    maps: Given = ()
    attributes: Given = ()
    note: str = ""

    def __post_init__(self):
        checks.choice("reading", self.reading, READINGS)
        rows, columns = self.images.shape[:2]
        if not rows * columns or len(self.columns) != columns:
            raise ValueError(
                f"a panel must have a text for each column; got {rows} x {columns} images and {len(self.columns)} texts"
            )
        for name in ("maps", "attributes"):
            value = getattr(self, name)
            if len(value) and np.shape(value)[:2] != (rows, columns):
                raise ValueError(
                    f"{name} must have the panel's {rows} rows and {columns} columns; got {list(np.shape(value))}"
                )
        # Both are for panels whose rows have a meaning, and empty for the others.
        for name in ("rows", "signs"):
            if len(getattr(self, name)) not in (0, rows):
                raise ValueError(
                    f"{name} must have one value for each of the panel's {rows} rows; got {len(getattr(self, name))}"
                )


def part(panel: Panel, rows: Given, columns: Given = ()) -> Panel:
    """The same panel with some of its rows, and of its columns (): all, in the order given."""
    rows = np.asarray(rows, int)
    columns = np.asarray(columns if len(columns) else range(len(panel.columns)), int)
    cells = np.ix_(rows, columns)
    return dataclasses.replace(
        panel,
        images=panel.images[cells],
        logits=panel.logits[cells],
        columns=tuple(panel.columns[c] for c in columns),
        rows=tuple(panel.rows[r] for r in rows) if panel.rows else (),
        signs=np.asarray(panel.signs)[rows] if len(panel.signs) else (),
        maps=np.asarray(panel.maps)[cells] if len(panel.maps) else (),
        attributes=np.asarray(panel.attributes)[cells] if len(panel.attributes) else (),
    )


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images with what a network says of them: what panels are made of.

    Attributes:
      images: uint8 [N,S,S,3].
      logits: float32 [N], that of class 1 minus that of class 0.
      classes: the names of class 0 and class 1.
      attributes: float32 [N,A], the true ones; A is 0 where nobody knows them.
    """

    images: UInt8[np.ndarray, "N S S 3"]
    logits: PerImage
    classes: tuple[str, str]
    attributes: Float[np.ndarray, "N A"]

    def __len__(self) -> int:
        return len(self.images)


def signed_percentiles(logits: PerImage, percents: Sequence[float]) -> Float[np.ndarray, "..."]:
    """Percentiles of |logit| with signs: of -60 that of 60 %, negative; 0 stays 0.

    Raises:
      ValueError: logits that are not finite or all 0, which nothing can be told by.
    """
    size = np.abs(logits)
    if not np.isfinite(size).all() or not size.any():
        raise ValueError("a panel needs finite logits that are not all 0")
    found = [np.sign(p) * np.percentile(size, abs(p)) if p else 0.0 for p in percents]
    return np.asarray(found, np.float32)


def sure(value: Scalar, classes: tuple[str, str]) -> str:
    """A logit in words, for a column: which class the network says, and how sure it is."""
    if not value:
        return "undecided"
    share = 100 / (1 + np.exp(-abs(float(value))))
    text = f"{share:.0f}" if share < 99 else f"{min(share, 99.9):.1f}"
    return f"{classes[int(value > 0)]}, {text} % sure"
