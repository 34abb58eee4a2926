"""Image files to pixels, and what to do with a file that is damaged."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image

from mixaug_jax.core import checks, say
from mixaug_jax.core.types import Path, Photo


def decode_rgb(file: Path | io.BufferedIOBase, name: str) -> Photo:
    """The pixels of an image file as uint8 [H,W,3], by Pillow alone, so equal on every machine.

    Gray, palette, CMYK and 16-bit images become RGB (16 bits keep their upper eight); transparency
    is dropped. The orientation tag of a camera is not applied: boxes and masks are given in the
    stored pixels.

    Args:
      file: a path, or a binary file object.
      name: what to call the image in the error.

    Raises:
      ValueError: the file cannot be read, is no image, or is cut short.
    """
    try:
        with PIL.Image.open(file) as image:
            if image.mode.startswith("I"):  # Pillow's own conversion clips instead of scaling
                gray = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
                return np.repeat(gray[..., None], 3, axis=-1)
            if "transparency" in image.info:  # else Pillow warns of what the next line drops
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def skip_unreadable(read: Callable[[int], Any], size: int, corrupt: str) -> Callable[[int], Any]:
    """`read`, which raises ValueError for a damaged image, with config.data.corrupt obeyed.

    Args:
      read: a function of the index.
      size: how many indices there are.
      corrupt: "error" leaves the error to end the run; "skip" gives the next readable example
        instead, the same one every time, and logs each damaged image once.

    Raises:
      ValueError: another value of `corrupt`; later, with "skip", where nothing is readable.
    """
    checks.choice("data.corrupt", corrupt, ("error", "skip"))
    if corrupt == "error":
        return read
    known = set()

    def substitute(index: int) -> Any:
        for candidate in range(index, index + size):
            try:
                return read(candidate % size)
            except ValueError as error:
                if candidate % size not in known:
                    known.add(candidate % size)
                    say.warning(f"{error}; the next example takes its place")
        raise ValueError(f"none of the {size} images can be read")

    return substitute
