"""The grid of the occlusion experiment: its names, and which of its cells are the same removal.

A cell is a score, a selection by it, a share, and a value that takes the place of what is removed.
Many cells coincide: the top of -g x is the bottom of g x, a random removal knows no score. `plan`
finds these from their names alone, so that each removal is evaluated once and reported under all
its names.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence

import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import Config, Count, Int, Scalar, Shaped

RANKINGS = (
    "gradient",
    "abs_gradient",
    "gradient_x_input",
    "abs_gradient_x_input",
    "minus_gradient_x_input",
    "gradient_x_difference",
    "integrated_gradients",
    "smoothgrad",
)
SELECTIONS = ("top", "bottom", "lowest", "positive", "negative", "random")
SHARES = (1, 5, 10, 20, 30, 50, 70, 90)
VALUES = ("zero", "data_mean", "sample_mean", "minimum", "maximum", "noise", "blur")
CHANNELS = ("sum", "each")

_OPPOSITE = {"top": "bottom", "bottom": "top", "positive": "negative", "negative": "positive"}
_BY_VALUE = ("gradient_x_difference", "integrated_gradients")
_CLEAN = ("", "", "")


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is removed, and what comes in its place.

    g is the gradient of the cross-entropy with respect to the preprocessed image x, r the value in
    its place. A unit is a window of pixels (of time-frequency cells, where the image is a
    spectrogram) from the upper left, cut at the lower and right border; its score is the sum over
    its elements.

    Attributes:
      rankings: "gradient" g, "abs_gradient" |g|, "gradient_x_input" g x, "abs_gradient_x_input"
        |g x|, "minus_gradient_x_input" -g x, "gradient_x_difference" g (x - r),
        "integrated_gradients" of the loss from r to x, "smoothgrad" of the loss.
      selections: "top" and "bottom", the units of largest and of smallest score; "lowest", of
        smallest magnitude; "positive" and "negative", those of "top" with a score above 0 and of
        "bottom" with one below; "random", whatever the score.
      shares: of all units that are selected, in percent, 0 to 100; the nearest whole number of
        units is taken. "positive" and "negative" remove fewer where the signs run out.
      values: "zero", 0 in the normalized image, the color that the normalization takes for the
        mean, as everywhere in this package; "data_mean", the mean of each channel over the images
        of the sweep; and of each image and channel "sample_mean", "minimum", "maximum" (black and
        white, or silence, as far as the image has them), "noise", uniform between these two, and
        "blur", see `replacement.rise_blur`.
      window: rows and columns of a unit, or one number for both; (1, 1): single pixels.
      channels: "sum": a unit has all channels, which are removed together; "each": one channel.
      steps: gradients of integrated_gradients.
      samples: noisy copies of smoothgrad.
      sigma: of their noise, as a share of the image's range.

    Raises:
      ValueError: an unknown name, an empty list, a share that is no number in 0..100, a window without
        pixels.
    """

    rankings: Sequence[str] = (
        "gradient",
        "abs_gradient",
        "gradient_x_input",
        "gradient_x_difference",
    )
    selections: Sequence[str] = ("top", "lowest", "random")
    shares: Sequence[Scalar] | Shaped[np.ndarray, " _"] = (1, 5, 20, 50, 90)
    values: Sequence[str] = ("zero", "minimum", "blur")
    window: Count | Sequence[Count] = (1, 1)
    channels: str = "sum"
    steps: Count = 50
    samples: Count = 50
    sigma: float = 0.15

    def __post_init__(self):
        # Lists and arrays become tuples: a grid is hashed, as programs are kept for it.
        known = {"rankings": RANKINGS, "selections": SELECTIONS, "values": VALUES}
        for key in ("rankings", "selections", "shares", "values"):
            given = getattr(self, key)
            listed = np.ndim(given) == 1
            entries = tuple(_share(e) if key == "shares" else e for e in given) if listed else ()
            for entry in entries if key in known else ():
                checks.choice(key, entry, known[key])
            if not entries or len(set(entries)) < len(entries):
                raise ValueError(f"{key} must be one or more different entries; got {given!r}")
            object.__setattr__(self, key, entries)
        object.__setattr__(self, "window", checks.pair("window", self.window))
        checks.choice("channels", self.channels, CHANNELS)
        for key in ("steps", "samples"):
            object.__setattr__(self, key, checks.count(key, getattr(self, key)))
        checks.not_negative("sigma", self.sigma)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """How many rankings, selections, shares and values there are."""
        return len(self.rankings), len(self.selections), len(self.shares), len(self.values)

    def units(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Rows, columns and channels of the units of an image of `shape` [h,w,C].

        Raises:
          ValueError: a window that is larger than the image.
        """
        if self.window[0] > shape[0] or self.window[1] > shape[1]:
            raise ValueError(
                f"window must not be larger than the image's {tuple(shape[:2])}; got {self.window}"
            )
        tiles = (math.ceil(side / length) for side, length in zip(shape, self.window, strict=False))
        return *tiles, shape[2] if self.channels == "each" else 1


def _share(value):
    """A share in percent as int or float, which JSON and a cache of programs know."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 100:
        raise ValueError(f"shares must lie in 0..100 percent; got {value!r}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


FULL = Grid(rankings=RANKINGS, selections=SELECTIONS, shares=SHARES, values=VALUES)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The removals of a grid that differ, for images of one shape.

    Attributes:
      maps: (score, value, magnitude) of every map of scores that is sorted; value is "" where the
        score does not depend on it, and magnitude says that its absolute value is taken.
      cuts: int32 [P,3], (map, flipped, count): the `count` largest, or where flipped smallest,
        units of a map.
      cells: int32 [D,3], (cut, signed, value): the units of a cut, where signed only those above
        0 (below 0 where flipped), replaced by the value of that number. Cell 0 removes nothing.
      index: int32 [rankings,selections,shares,values], the cell of every name.
    """

    maps: tuple[tuple[str, str, bool], ...]
    cuts: Int[np.ndarray, "P 3"]
    cells: Int[np.ndarray, "D 3"]
    index: Int[np.ndarray, "rankings selections shares values"]


def plan(grid: Grid, shape: tuple[int, int, int]) -> Plan:
    """The removals that a grid asks for on images of `shape` [h,w,C]."""
    # A unit of one element: its score's magnitude is the score of the magnitude, and more cells coincide.
    units = grid.units(shape)
    count_all = math.prod(units)
    single = grid.window == (1, 1) and (grid.channels == "each" or shape[2] == 1)
    # Each dict numbers what it has not met before; number 0 of the cells removes nothing.
    maps, cuts, cells = {}, {}, {(0, False, 0): 0}
    cuts[(0, False, 0)] = 0
    index = np.zeros(grid.shape, np.int32)
    for place in np.ndindex(*grid.shape):
        score, selection, share, value = (
            names[k]
            for names, k in zip(
                (grid.rankings, grid.selections, grid.shares, grid.values), place, strict=True
            )
        )
        # Half a unit counts as one, where Python's own rounding would go to the even number.
        count = math.floor(share * count_all / 100 + 0.5)
        name = _same(score, selection, value, single, count, count_all)
        if name == _CLEAN:
            continue
        score, depends, selection = name
        # "lowest" sorts a map of magnitudes, the others one with signs.
        row = maps.setdefault((score, depends, selection == "lowest"), len(maps))
        flipped = selection in ("bottom", "negative", "lowest")
        cut = cuts.setdefault((row, flipped, count), len(cuts))
        cell = (cut, selection in ("positive", "negative"), grid.values.index(value))
        index[place] = cells.setdefault(cell, len(cells))
    return Plan(
        tuple(maps) or (("random", "", False),),
        np.array(list(cuts), np.int32),
        np.array(list(cells), np.int32),
        index,
    )


def _same(score, selection, value, single, count, count_all):
    """(score, value it depends on, selection) that a cell is computed by; equal where cells are.

    single: units are single elements, for which the score of |g| is the magnitude of that of g.
    """
    if count == 0 or (score.startswith("abs_") and selection == "negative"):
        return _CLEAN
    # All units at once, and units at random, need no score.
    if selection == "random" or (count == count_all and selection in ("top", "bottom", "lowest")):
        return "random", "", "top"
    # The top of -g x is the bottom of g x.
    if score == "minus_gradient_x_input":
        score, selection = "gradient_x_input", _OPPOSITE.get(selection, selection)
    # x - r is x where r is 0.
    if score == "gradient_x_difference" and value == "zero":
        score = "gradient_x_input"
    if selection == "lowest":
        if single and score in ("gradient", "gradient_x_input"):
            score = f"abs_{score}"
        if score.startswith("abs_"):
            selection = "bottom"
    return score, value if score in _BY_VALUE else "", selection


def from_config(a: Config) -> Grid:
    """The grid of the section `config.occlude`.

    Raises:
      ValueError: as `Grid`, for occlude.grid, too.
    """
    checks.choice("grid", a.grid, ("default", "full"))
    given = {k: tuple(a[k]) for k in ("rankings", "selections", "shares", "values") if a[k]}
    unit = {"window": tuple(a.window), "channels": a.channels}
    size = {"steps": a.steps, "samples": a.samples}
    return dataclasses.replace(FULL if a.grid == "full" else Grid(), **given, **unit, **size)
