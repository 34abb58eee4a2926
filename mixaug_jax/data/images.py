"""Image files to pixels, and what to do with a file that is damaged."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from mixaug_jax.core import checks, say
from mixaug_jax.core.types import Path, Photo

MAX_PIXELS = 89_478_485  # of one image, a quarter of a GiB as RGB: Pillow's own measure of what is no photograph
_ORIENTATION, _TIFF_COLUMNS, _TIFF_ROWS = 274, 256, 257  # numbers of tags
_BACK = {  # from the upright image to the stored one, by the tag
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


@contextlib.contextmanager
def opened(file: Path | io.BufferedIOBase, name: str) -> Iterator[PIL.Image.Image]:
    """An image file whose header is read and whose pixels are not, yet; of several frames the first.

    Args:
      file: a path, or a binary file object.
      name: what to call the image in the error.

    Raises:
      ValueError: the file cannot be read or is no image (also while the block decodes it), or it has more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # said below
            image = PIL.Image.open(file)
        with image:
            check_pixels(name, *image.size)
            yield image
    except PIL.Image.DecompressionBombError:
        raise ValueError(f"{name} has more than the {MAX_PIXELS} pixels that are allowed") from None
    except _TooLargeError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


class _TooLargeError(ValueError):
    pass


def check_pixels(name: str, width: int, height: int) -> None:
    """Raises ValueError for an image of more than `MAX_PIXELS`, which a small file can claim to have."""
    if width * height > MAX_PIXELS:
        raise _TooLargeError(
            f"{name} has {height} x {width} pixels, more than the {MAX_PIXELS} that are allowed"
        )


def decode_rgb(file: Path | io.BufferedIOBase, name: str, *, upright: bool = False) -> Photo:
    """The pixels of an image file as uint8 [H,W,3], by Pillow alone, so equal on every machine.

    Gray, palette, CMYK and 16-bit images become RGB (16 bits keep their upper eight); transparency
    is dropped; of several frames the first is taken.

    Args:
      file: a path, or a binary file object.
      name: what to call the image in the error.
      upright: turn the image as a camera's orientation tag says; else the stored pixels, which boxes and masks are given in.

    Raises:
      ValueError: the file cannot be read, is no image, is cut short, has more than `MAX_PIXELS`, or holds floating point.
    """
    with opened(file, name) as image:
        if image.mode == "F":
            raise ValueError("it holds floating point numbers, whose range is not known; use bytes")
        tag = _orientation(image)
        image.load()
        done = tag != 1 and _orientation(image) == 1  # Pillow turns a TIFF by itself
        if tag != 1 and upright != done:
            image = PIL.ImageOps.exif_transpose(image) if upright else image.transpose(_BACK[tag])
        if image.mode.startswith("I"):  # Pillow's own conversion clips instead of scaling
            deep = np.asarray(image).astype(np.int64)
            if deep.min() < 0 or deep.max() >= 2**16:
                raise ValueError("it holds integers that 16 bits cannot")
            return np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=-1)
        if "transparency" in image.info:  # else Pillow warns of what the next line drops
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))


def is_turned(file: Path, name: str) -> bool:
    """Whether a camera's orientation tag says that the stored pixels are not upright; reads the header alone."""
    with opened(file, name) as image:
        return _orientation(image) != 1


def stored_shape(image: PIL.Image.Image) -> tuple[int, int]:
    """(rows, columns) of the stored pixels; of a TIFF Pillow says those of the upright image."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(_TIFF_ROWS, image.height)), int(tags.get(_TIFF_COLUMNS, image.width))


def _orientation(image):
    """1, upright, to 8; what is damaged says nothing of the pixels."""
    # Pillow would decode a whole PNG to look for a tag behind its pixels.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        tag = image.getexif().get(_ORIENTATION)
        return tag if tag in range(2, 9) else 1
    return 1


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
                # An epoch reads each of them again; once is enough to be told.
                if candidate % size not in known:
                    known.add(candidate % size)
                    say.warning(f"{error}; the next example takes its place")
        raise ValueError(f"none of the {size} images can be read")

    return substitute
