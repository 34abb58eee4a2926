"""Checks of a mixer's arguments.

They look only at Python numbers and at shapes, so they run while a step is traced and stop a wrong
option before anything is compiled.
"""

import jax.numpy as jnp


def batch(images, targets, *, spatial=True):
    """Raises ValueError unless `images` [B,H,W,C] (or, not `spatial`, [B,...]) fit `targets` [B,K].

    `spatial=False` is for hidden features, whose rank depends on the stage.
    """
    wanted = "[B,H,W,C]" if spatial else "[B,...]"
    if (images.ndim != 4) if spatial else (images.ndim < 2):
        raise ValueError(f"images must have the shape {wanted}, got {list(images.shape)}.")
    if 0 in images.shape:
        raise ValueError(f"images must not be empty, got the shape {list(images.shape)}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be normalised floating point, got {images.dtype}.")
    if targets.ndim != 2 or targets.shape[0] != images.shape[0]:
        raise ValueError(
            f"targets must be [B,K] with B = {images.shape[0]} as images have, "
            f"got {list(targets.shape)}."
        )
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ValueError(f"targets must be floating point rows that sum to 1, got {targets.dtype}.")


def choice(name, value, allowed):
    """Raises ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def draws(prob, per):
    """Raises ValueError unless `prob` is in 0..1 and `per` is "batch" or "example"."""
    fraction("prob", prob)
    choice("per", per, ("batch", "example"))


def fraction(name, value):
    """Raises ValueError unless 0 <= `value` <= 1 (which NaN is not)."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}.")


def positive(name, value):
    """Raises ValueError unless `value` > 0 (which NaN is not)."""
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, got {value}.")


def interval(name, value, low, high):
    """Raises ValueError unless `value` is a pair with `low` <= first <= second <= `high`."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(
            f"{name} must be a pair (smallest, largest) between {low} and {high}, got {value}."
        )


def large_enough(images, smallest, what):
    """Raises ValueError where a side of `images` [B,H,W,C] is shorter than `smallest` pixels."""
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise ValueError(
            f"images of {height} x {width} pixels are too small for {what}, "
            f"which needs sides of at least {smallest}."
        )


def normalised(images, mean, std, channels):
    """Raises ValueError unless `images` have one of `channels` and `mean`, `std` > 0 fit."""
    count = images.shape[3]
    if count not in channels:
        allowed = " or ".join(f"{n}" for n in channels)
        raise ValueError(f"images must have {allowed} channels, got {count}.")
    if len(mean) != count or len(std) != count or not all(value > 0 for value in std):
        raise ValueError(
            f"mean and std must be {count} numbers each, std above 0, got {mean} and {std}."
        )
