"""Objects, materials and parts of every pixel, found by the Unified Perceptual Parsing network: concepts for photos that nobody
has annotated (Won et al. 2023, section 4; Bau et al., PNAS 2020).

label_map = open_segmenter("SEGMENTER", "~/.cache/mixaug_jax")
annotated = annotate(source, label_map, NAMES)

The network is costly (180 GFLOP an image of 256 x 256), so what it found in an image is kept in a file of its own, named after
the image's pixels: a run that was killed goes on where it was, and all networks that see the same images share one pass.
"""

import dataclasses
import functools
import hashlib
import pathlib
import threading
from collections.abc import Callable

import jax
import numpy as np
import PIL.Image

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, say
from mixaug_jax.core.types import Path, Photo, Preprocess, Tree, UInt16
from mixaug_jax.data import transforms
from mixaug_jax.data.source import Source
from mixaug_jax.dissection.concepts import NONE
from mixaug_jax.models import upernet

PUBLISHED = (
    "its authors (CSAILVision/unifiedparsing on GitHub) published encoder_epoch_40.pth and decoder_epoch_40.pth, folder "
    "upp-resnet50-upernet, at sceneparsing.csail.mit.edu/model/unified_perceptual_parsing"
)
SIZES = (256,)  # of the network's input in the code for dissection, davidbau/dissect on GitHub
_VERSION = 1  # of the files with what was found


def _names() -> tuple[tuple[str, str], ...]:
    found = upernet.labels()
    groups = (("object", found.objects), ("material", found.materials), ("part", found.parts))
    return (NONE, *((name, category) for category, names in groups for name in names[1:]))


# (name, category) of the numbers in a label map. A part that is called like an object (a car's "door") has a number of its own;
# parts of the same name are one concept, whatever object they belong to. Scenes are left out: they are no part of an image.
NAMES = _names()


def find_files(place: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The files of the encoder and of the decoder.

    Args:
      place: a folder with one file whose name begins with "encoder" and one with "decoder"; or the two files, with a comma
        between them.

    Raises:
      ValueError: a file is missing (it says where the authors published it), or there are several.
    """
    if "," in place:
        found = [pathlib.Path(name.strip()).expanduser() for name in place.split(",")]
        if len(found) != 2:
            raise ValueError(
                f"dissect.segmenter must be a folder, or ENCODER,DECODER; got {place!r}"
            )
    else:
        folder = pathlib.Path(place).expanduser()
        if not folder.is_dir():
            raise ValueError(f"dissect.segmenter={place} is no folder; {PUBLISHED}")
        found = [_only(folder, part) for part in ("encoder", "decoder")]
    for file in found:
        if not file.is_file():
            raise ValueError(f"dissect.segmenter: there is no {file}; {PUBLISHED}")
    return found[0], found[1]


def _only(folder, part):
    files = sorted(file for file in folder.glob(f"{part}*") if file.is_file())
    if len(files) > 1:
        raise ValueError(
            f"dissect.segmenter={folder} has {len(files)} files called {part}*; name the two to use, as ENCODER,DECODER"
        )
    return files[0] if files else folder / f"{part}_epoch_40.pth"


def checksum(place: str) -> str:
    """What tells the segmenter's weights from others: of the bytes of its files."""
    digest = hashlib.sha256()
    for file in find_files(place):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def open_segmenter(
    place: str,
    folder: Path,
    *,
    sizes: tuple[int, ...] = SIZES,
    side: int = 256,
    precision: str = "highest",
) -> Callable[[np.ndarray], np.ndarray]:
    """A function for `annotate`, whose results are kept on disk.

    Whatever the images' shapes, the network is compiled once for each size: an image that is not `side` x `side` is stretched
    to that, and its label map back, as the code for dissection does with photos (davidbau/dissect). `view` gives images that
    need no stretching.

    Args:
      place: the weights, see `find_files`. They are read when the first image is not on disk yet.
      folder: where the folders of results are.
      sizes: of the network's input, over which probabilities are averaged; pixels, 32 or more.
      side: of the images that the network is given, pixels.
      precision: of the network's matrix products, see `devices.precision`.

    Returns:
      uint8 image [H,W,3] -> uint16 [H,W,3], numbers in `NAMES` of the pixel's object, material and part. Threads may share it.

    Raises:
      ValueError: missing files, an unknown precision; when the first image is segmented, files that are refused or do not fit.
    """
    devices_lib.precision(precision)  # says an unknown one
    files = find_files(place)
    key = f"{_VERSION}-{checksum(place)}-{'-'.join(map(str, sizes))}-{side}px-{precision}"
    kept = pathlib.Path(folder).expanduser() / f"segmented-{key}"
    one_at_a_time = threading.Lock()  # the network needs much memory

    @functools.cache
    def variables() -> Tree:
        say.line(f"segmenter: reading {files[0]} and {files[1]}; the first image takes longest")
        return jax.device_put(upernet.import_upernet(*files))

    # Files are named after the pixels: whatever data set or run an image is in, it is segmented once.
    def label_map(image: Photo) -> UInt16[np.ndarray, "H W 3"]:
        square = _stretch(image, side)
        name = hashlib.sha256(np.ascontiguousarray(square)).hexdigest()[:32]
        path = kept / name[:2] / f"{name}.npz"
        found = _stored(path, side)
        if found is None:  # two threads with equal images may both come here, and write equal files
            with one_at_a_time, devices_lib.precision(precision):  # a thread has its own
                found = _numbers(upernet.segment(variables(), square, sizes))
            _store(path, found)
        rows, columns = (transforms.nearest(side, n) for n in image.shape[:2])
        return found[rows[:, None], columns]

    return label_map


def view(source: Source, preprocess: Preprocess) -> Source:
    """The images of a data set as a network sees them, without the concepts that they may have.

    preprocess: the network's, see `transforms.seen_part`.
    """

    def read(index: int) -> dict:
        example = source[index]
        return transforms.seen_part({key: example[key] for key in ("image", "label")}, preprocess)

    return dataclasses.replace(source, read=read, concept_names=(), box_names=())


def _stretch(image, side):
    if image.shape[:2] == (side, side):
        return image
    resized = PIL.Image.fromarray(image).resize((side, side), PIL.Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _numbers(maps) -> np.ndarray:
    """The label maps of `upernet.segment` as numbers in `NAMES`, uint16 [H,W,3]."""
    found = upernet.labels()
    materials = len(found.objects) - 1  # that many numbers come before those of materials
    parts = materials + len(found.materials) - 1
    shifts = (("object", 0), ("material", materials), ("part", parts))
    return np.stack([np.where(maps[k] > 0, maps[k] + s, 0) for k, s in shifts], -1).astype("uint16")


def _stored(path, side) -> np.ndarray | None:
    """What was found in an image, or None where that is not known or the file is damaged."""
    try:
        found = files.load_npz(path, lambda arrays, _: arrays["numbers"], "the segmenter")
    except ValueError:
        return None
    right = found.dtype == np.uint16 and found.shape == (side, side, 3)
    return found if right and found.max() < len(NAMES) else None


def _store(path, numbers):
    """Writes the file; it appears when it is whole."""
    files.save_npz(path, {"numbers": numbers}, {})
