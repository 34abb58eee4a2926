"""Checks of arguments, with one wording.

They look only at Python values and at shapes, so they run while a function is traced and stop a wrong argument before anything
is compiled. A sentence says what is wrong, what is allowed and what was given, and has no full stop: it may become a part of
another.
"""

import difflib
import math
import operator
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class UnsupportedError(ValueError):
    """Something is asked of a network that this kind of network cannot do, however it is asked."""


def choice(name: str, value: Any, allowed: Iterable) -> None:
    """Raises ValueError, with all that is allowed and the nearest, unless `value` is one of `allowed`."""
    allowed = list(allowed)
    if not isinstance(value, Hashable) or value not in allowed:  # an array is not hashable
        near = nearest(value, allowed)
        raise ValueError(f"{name} must be one of {listed(allowed)}; got {shown(value)}{near}")


def shown(value: Any) -> str:
    """A wrong value as an error repeats it: its `repr` in at most 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a number of {value.bit_length()} bits"
    return text if len(text) <= 60 else f"{text[:45]}...{text[-12:]}"


def listed(names: Iterable) -> str:
    """Names in a row, "a, b"; an empty one is seen as ''."""
    return ", ".join(str(name) or "''" for name in names)


def nearest(value: Any, allowed: Iterable) -> str:
    """The nearest of `allowed` to end a sentence with, as " (did you mean 'a'?)"; "" where nothing is near."""
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def choices(name: str, values: Sequence, allowed: Iterable) -> None:
    """`choice` for each of `values`; ValueError, too, for one text where several are expected."""
    if isinstance(values, str):
        raise ValueError(f"{name} must be several names, as in ({values!r},); got {values!r}")
    allowed = list(allowed)
    for value in values:
        choice(name, value, allowed)


def count(name: str, value: Any, smallest: int = 1, largest: int | float = math.inf) -> int:
    """`value` as int; ValueError unless it is an integer (no bool, which is a slip) in `smallest`..`largest`."""
    if not _whole(value, smallest, largest):
        wanted = bounds(smallest, largest)
        raise ValueError(f"{name} must be an integer of {wanted}; got {shown(value)}")
    return operator.index(value)


def indices(name: str, value: Any, length: int) -> np.ndarray:
    """`value` as int64 [n]; ValueError unless it is a row of integers in 0..`length` - 1."""
    found = np.asarray(value)
    # NumPy takes nothing at all for floats; it cuts off the fractions of what are floats.
    whole = np.issubdtype(found.dtype, np.integer) or found.size == 0
    if found.ndim != 1 or not whole:
        raise ValueError(f"{name} must be a row of integers; got {shown(value)}")
    wrong = found[(found < 0) | (found >= length)]
    if wrong.size:
        raise ValueError(f"{name} must lie in 0..{length - 1}; got {wrong[0]}")
    return found.astype(np.int64)


def _whole(value, smallest, largest=math.inf):
    try:
        return not isinstance(value, bool) and smallest <= operator.index(value) <= largest
    except TypeError:
        return False


def bounds(
    least: int | float, most: int | float, *, above: bool = False, below: bool = False
) -> str:
    """A range in words, "above 0 and at most 1"; an end that is infinite is left out, one with `above` or `below` excluded."""
    low = [] if math.isinf(least) else [f"{'above' if above else 'at least'} {_digits(least)}"]
    high = [] if math.isinf(most) else [f"{'below' if below else 'at most'} {_digits(most)}"]
    return " and ".join(low + high)


def _digits(value):
    return str(int(value)) if value == int(value) else f"{value:g}"


def pair(name: str, value: Any) -> tuple[int, int]:
    """One positive integer, or two for rows and columns, as a pair; ValueError for anything else."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(_whole(v, 1) for v in values):
        raise ValueError(f"{name} must be a positive integer or a pair of them; got {value!r}")
    return operator.index(values[0]), operator.index(values[1])


def number(
    name: str,
    value: Any,
    least: int | float = -math.inf,
    most: int | float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> None:
    """Raises ValueError unless `value` is a finite number in `least`..`most`; with `above` or `below` that end is left out."""
    fits = _finite(value) and least <= value <= most
    if fits and not (above and value == least) and not (below and value == most):
        return
    wanted = bounds(least, most, above=above, below=below)
    wanted = f" {wanted}" if wanted else ""
    raise ValueError(f"{name} must be a number{wanted}; got {shown(value)}")


def _finite(value):
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    # An int is finite, and may be too large for a float.
    return number and (isinstance(value, int) or math.isfinite(value))


def not_negative(name: str, value: Any) -> None:
    """Raises ValueError unless `value` >= 0 (which NaN and text are not)."""
    if isinstance(value, str) or not value >= 0:
        raise ValueError(f"{name} must not be negative; got {value!r}")


def positive(name: str, value: Any) -> None:
    """Raises ValueError unless `value` > 0 (which NaN and text are not)."""
    if isinstance(value, str) or not value > 0:
        raise ValueError(f"{name} must be greater than 0; got {value!r}")


def fraction(name: str, value: Any) -> None:
    """Raises ValueError unless 0 <= `value` <= 1 (which NaN and text are not)."""
    if isinstance(value, str) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1; got {value!r}")


def interval(name: str, value: Any, low: float, high: float) -> None:
    """Raises ValueError unless `value` is a pair of finite numbers with `low` <= first <= second <= `high`."""
    pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_finite, value))
    if not pair or not low <= value[0] <= value[1] <= high:
        wanted = f"of at least {low}" if math.isinf(high) else f"between {low} and {high}"
        raise ValueError(f"{name} must be a pair (smallest, largest) {wanted}; got {shown(value)}")


def image(value: Any) -> jax.Array:
    """`value` [h,w,C] as float32; ValueError for another rank, an empty image, or bytes that nobody preprocessed."""
    value = jnp.asarray(value)
    if value.ndim != 3 or 0 in value.shape:
        raise ValueError(f"image must be one image [h,w,C]; got {list(value.shape)}, use jax.vmap")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"image must be preprocessed floating point; got {value.dtype}")
    return value.astype(jnp.float32)


def images(value: Any) -> Any:
    """`value` [N,h,w,C]; ValueError for another rank, nothing at all, or bytes that nobody preprocessed."""
    if np.ndim(value) != 4 or 0 in np.shape(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        got = f"{getattr(value, 'dtype', type(value).__name__)} {list(np.shape(value))}"
        raise ValueError(f"images must be preprocessed, floating point [N,h,w,C]; got {got}")
    return value


def batch(images: Any, targets: Any, *, spatial: bool = True, partners: bool = True) -> None:
    """Raises ValueError unless `images` [B,H,W,C] (or, not `spatial`, [B,...]) fit `targets` [B,K].

    `spatial=False` is for hidden features, whose rank depends on the layer; `partners=False` for what changes each image alone.
    """
    wanted = "[B,H,W,C]" if spatial else "[B,...]"
    if (images.ndim != 4) if spatial else (images.ndim < 2):
        raise ValueError(f"images must have the shape {wanted}; got {list(images.shape)}")
    if 0 in images.shape:
        raise ValueError(f"images must not be empty; got the shape {list(images.shape)}")
    # PyTorch's order would be mixed without an error, rows of pixels for channels.
    if spatial and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        raise ValueError(
            f"images must have their channels last, [B,H,W,C]; {list(images.shape)} looks like [B,C,H,W]"
        )
    if partners and len(images) < 2:
        raise ValueError("images must be 2 at least, for each to have a partner; got 1")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be normalized floating point; got {images.dtype}")
    if targets.ndim != 2 or targets.shape[0] != images.shape[0]:
        raise ValueError(
            f"targets must be [B,K] with B = {images.shape[0]} as images have; got "
            f"{list(targets.shape)}"
        )
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ValueError(f"targets must be floating point rows that sum to 1; got {targets.dtype}")


def large_enough(images: Any, smallest: int, what: str) -> None:
    """Raises ValueError where a side of `images` [B,H,W,C] is shorter than `smallest` pixels."""
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise ValueError(
            f"images of {height} x {width} pixels are too small for {what}, which needs sides of at least {smallest}"
        )


def normalized(
    images: Any, mean: Sequence[float], std: Sequence[float], channels: Sequence[int]
) -> None:
    """Raises ValueError unless `images` have one of `channels` and `mean`, `std` > 0 fit."""
    found = images.shape[3]
    if found not in channels:
        raise ValueError(
            f"images must have {' or '.join(map(str, channels))} channels; got {found}"
        )
    if len(mean) != found or len(std) != found or not all(value > 0 for value in std):
        raise ValueError(
            f"mean and std must have a value for each channel, {found} in all, std above 0; got {mean} and {std}"
        )


def label(value: Any, classes: int) -> None:
    """Raises ValueError unless `value` is one integer and, where it is known while tracing, in 0..`classes` - 1."""
    if (
        isinstance(value, str)
        or jnp.ndim(value) != 0
        or not jnp.issubdtype(jnp.result_type(value), jnp.integer)
    ):
        raise ValueError(f"label must be one integer; got {value}")
    # Under jit the number is not known: what is out of range is dealt with where it is looked up.
    try:
        known = operator.index(value)
    except jax.errors.TracerIntegerConversionError:
        return
    if not 0 <= known < classes:
        raise ValueError(f"label must be in 0..{classes - 1}; got {known}")


def array(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array:
    """`value` as float32 of `shape`, in which 0 stands for any length; ValueError for another shape."""
    value = jnp.asarray(value, jnp.float32)
    fits = value.ndim == len(shape) and all(
        w in (0, n) for n, w in zip(value.shape, shape, strict=True)
    )
    if not fits or 0 in value.shape:
        wanted = ", ".join(str(n) if n else "n" for n in shape)
        raise ValueError(f"{name} must have the shape [{wanted}]; got {list(value.shape)}")
    return value


def concrete(value: Any) -> np.ndarray | None:
    """`value` as a NumPy array, or None while it is traced and nobody knows it."""
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None


def given(value: Any) -> bool:
    """Whether an array was passed in place of the empty tuple that is the default."""
    return not (isinstance(value, tuple) and not value)
