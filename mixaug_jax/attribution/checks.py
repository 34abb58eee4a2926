"""Checks of an attribution method's arguments.

They look only at Python values and at shapes, so they run while a method is traced and stop a wrong option before anything
is compiled.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np


def image(value):
    """`value` [h,w,C] as float32; ValueError for another rank, an empty image, or bytes that nobody preprocessed."""
    value = jnp.asarray(value)
    if value.ndim != 3 or 0 in value.shape:
        raise ValueError(f"image must be one image [h,w,C], got {list(value.shape)}; use jax.vmap.")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"image must be preprocessed floating point, got {value.dtype}.")
    return value.astype(jnp.float32)


def images(value):
    """`value` [N,h,w,C]; ValueError for another rank, nothing at all, or bytes that nobody preprocessed."""
    if np.ndim(value) != 4 or 0 in np.shape(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        got = f"{getattr(value, 'dtype', type(value).__name__)} {list(np.shape(value))}"
        raise ValueError(f"images must be preprocessed, floating point [N,h,w,C], got {got}.")
    return value


def label(value, classes):
    """Raises ValueError unless `value` is one integer and, where it is known while tracing, in 0..`classes` - 1."""
    if (
        isinstance(value, str)
        or jnp.ndim(value) != 0
        or not jnp.issubdtype(jnp.result_type(value), jnp.integer)
    ):
        raise ValueError(f"label must be one integer, got {value}.")
    try:
        known = operator.index(value)
    except jax.errors.TracerIntegerConversionError:
        return
    if not 0 <= known < classes:
        raise ValueError(f"label must be in 0..{classes - 1}, got {known}.")


def choice(name, value, allowed):
    """Raises ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def count(name, value, smallest=1):
    """`value` as int; ValueError unless it is an integer (no bool, which is a slip) of at least `smallest`."""
    if not _whole(value, smallest):
        raise ValueError(f"{name} must be an integer of at least {smallest}, got {value!r}.")
    return operator.index(value)


def _whole(value, smallest):
    try:
        return not isinstance(value, bool) and operator.index(value) >= smallest
    except TypeError:
        return False


def not_negative(name, value):
    """Raises ValueError unless `value` >= 0 (which NaN and text are not)."""
    if isinstance(value, str) or not value >= 0:
        raise ValueError(f"{name} must not be negative, got {value!r}.")


def array(name, value, shape):
    """`value` as float32 of `shape`, in which 0 stands for any length; ValueError for another shape."""
    value = jnp.asarray(value, jnp.float32)
    fits = value.ndim == len(shape) and all(
        w in (0, n) for n, w in zip(value.shape, shape, strict=True)
    )
    if not fits or 0 in value.shape:
        wanted = ", ".join(str(n) if n else "n" for n in shape)
        raise ValueError(f"{name} must have the shape [{wanted}], got {list(value.shape)}.")
    return value


def concrete(value):
    """`value` as a NumPy array, or None while it is traced and nobody knows it."""
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None


def given(value):
    """Whether an array was passed in place of the empty tuple that is the default."""
    return not (isinstance(value, tuple) and not value)


def pair(name, value):
    """One positive integer, or two for rows and columns, as a pair; ValueError for anything else."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(_whole(v, 1) for v in values):
        raise ValueError(f"{name} must be a positive integer or a pair of them, got {value!r}.")
    return tuple(operator.index(v) for v in values)
