"""Small pictures of the images that move each unit most, kept beside a dissection so that pages are made of files alone."""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image

from mixaug_jax.core import walk
from mixaug_jax.core.files import load_if, load_npz, save_npz
from mixaug_jax.core.types import Bool, Count, Dataset, Int, Path, Preprocess, UInt8
from mixaug_jax.data import transforms
from mixaug_jax.dissection import resample
from mixaug_jax.dissection.concepts import LabelMaps
from mixaug_jax.dissection.result import Dissection

COLUMNS = 16  # pictures in a row of a sheet
SHEET = COLUMNS * COLUMNS  # pictures of a sheet at most, which every browser can decode
_LONGEST = 96  # side [pixels]
_QUALITY = 75  # of WebP
_AT_ONCE = 1024  # maps that are upsampled together


@dataclasses.dataclass(frozen=True)
class UnitPictures:
    """Pictures of one layer's units; I images, U units with k top images each, h x w the pictures' pixels.

    Attributes:
      sheets: WebP files, uint8 [bytes]: the images as the network saw them, COLUMNS in a row, SHEET in a file.
      images: int [I], the sheets' images in the data set, ascending.
      names: [I], of their files; "" where there are none.
      on: bool [U,k,h,w], where the unit is above its threshold on its top images.
      concept: bool [U,k,h,w], where the unit's best concept is on them.
      settings: those of the dissection that they show.
    """

    sheets: tuple[UInt8[np.ndarray, "..."], ...]
    images: Int[np.ndarray, " I"]
    names: tuple[str, ...]
    on: Bool[np.ndarray, "U k h w"]
    concept: Bool[np.ndarray, "U k h w"]
    settings: dict

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a picture."""
        return self.on.shape[2:]


def dead_units(result: Dissection) -> Bool[np.ndarray, " U"]:
    """Whether a unit is on nowhere, in no image that was looked at: bool [U]."""
    return result.tally.unit == 0


def make(
    results: Mapping[str, Dissection],
    dataset: Dataset,
    preprocess: Preprocess,
    labels: LabelMaps,
    *,
    threads: int = 4,
) -> dict[str, UnitPictures]:
    """The pictures of all units that are not dead, by layer.

    Args:
      results: dissections by layer, of the same images.
      dataset: whose images these are; each is read once for all units of all layers.
      preprocess: of the network, for the part of the images that it saw.
      labels: the label maps that the dissections were made with.
      threads: that read.
    """
    if not results:
        return {}
    # Units share many of their top images, so each is stored once and pointed to.
    wanted = {n: np.unique(r.top_images[~dead_units(r)]) for n, r in results.items()}
    chosen = np.unique(np.concatenate([*wanted.values()]))
    size = _size(dataset, preprocess, chosen)

    def read(index: Count) -> UInt8[np.ndarray, "h w 3"]:
        image = transforms.seen_part({"image": dataset[int(index)]["image"]}, preprocess)["image"]
        return _resized(image, size)

    # Read once for all layers; what differs between them is which units are on where.
    photos = dict(zip(chosen.tolist(), walk.read_ahead(read, chosen, threads), strict=True))
    name_of = getattr(dataset, "file_name", lambda index: "")
    pictures = {}
    for layer, result in results.items():
        shown = wanted[layer].tolist()
        starts = range(0, len(shown), SHEET)
        pictures[layer] = UnitPictures(
            sheets=tuple(_sheet([photos[i] for i in shown[s : s + SHEET]]) for s in starts),
            images=wanted[layer],
            names=tuple(str(name_of(index)) for index in shown),
            on=on_masks(result, size),
            concept=concept_masks(result, labels, size),
            settings=result.settings,
        )
    return pictures


def _size(dataset, preprocess, chosen) -> tuple[int, int]:
    """Rows and columns of the pictures: the shape of what the network sees, made small."""
    first = dataset[int(chosen[0]) if len(chosen) else 0]
    shape = transforms.seen_part({"image": first["image"]}, preprocess)["image"].shape[:2]
    share = min(1.0, _LONGEST / max(shape))
    return tuple(max(1, round(share * side)) for side in shape)


def _resized(image, size):
    picture = PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    if picture.size != size[::-1]:
        picture = picture.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(picture)


def on_masks(result: Dissection, size: tuple[int, int]) -> Bool[np.ndarray, "U k h w"]:
    """Where each unit is above its threshold on its top images, at `size` (rows, columns)."""
    units, top, *nodes = result.top_maps.shape
    grid = resample.Grid(tuple(nodes), size, result.options.padding)
    maps = np.moveaxis(result.top_maps.reshape(-1, *nodes), 0, -1)
    threshold = np.repeat(result.threshold, top)
    parts = []
    for start in range(0, units * top, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        above = np.asarray(resample.upsample(maps[..., part], grid)) > threshold[part]
        parts.append(np.moveaxis(above, -1, 0))
    return np.concatenate(parts).reshape(units, top, *size)


def concept_masks(
    result: Dissection, labels: LabelMaps, size: tuple[int, int]
) -> Bool[np.ndarray, "U k h w"]:
    """Where each unit's best concept is on its top images, at `size` (rows, columns); nowhere for dead units."""
    found = np.zeros((*result.top_images.shape, *size), bool)
    best, live = result.top_labels(1)[0][:, 0], ~dead_units(result)
    row = {int(index): number for number, index in enumerate(labels.indices)}
    rows, cols = (
        transforms.nearest(n, m) for n, m in zip(labels.maps.shape[1:3], size, strict=True)
    )
    # A label map is read once for all units that its image is among the top ones of.
    for image in np.unique(result.top_images[live]).tolist():
        label_map = np.asarray(labels.maps[row[image] : row[image] + 1])[0][rows[:, None], cols]
        units, places = np.nonzero((result.top_images == image) & live[:, None])
        for unit, place in zip(units, places, strict=True):
            found[unit, place] = (label_map == best[unit]).any(-1)
    return found


def _sheet(photos: Sequence[np.ndarray]) -> UInt8[np.ndarray, " bytes"]:
    """The photos beside and below each other, as a WebP file."""
    height, width = photos[0].shape[:2]
    canvas = np.zeros((-(-len(photos) // COLUMNS) * height, COLUMNS * width, 3), np.uint8)
    for number, photo in enumerate(photos):
        top, left = place(number, (height, width))
        canvas[top : top + height, left : left + width] = photo
    buffer = io.BytesIO()
    PIL.Image.fromarray(canvas).save(buffer, "WEBP", quality=_QUALITY, method=4)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def place(number: int, size: tuple[int, int]) -> tuple[int, int]:
    """The top row and the left column [pixels] of a picture in its sheet, by its number from the sheet's first."""
    row, column = divmod(number, COLUMNS)
    return row * size[0], column * size[1]


def save(pictures: UnitPictures, path: Path) -> None:
    """Writes a .npz that `load` reads; the file appears when it is whole."""
    arrays = {f"sheet_{k}": sheet for k, sheet in enumerate(pictures.sheets)}
    arrays |= {"images": pictures.images, "names": np.array(pictures.names, str)}
    arrays |= {"shape": np.array(pictures.on.shape)}
    # A bit a pixel, which compresses to little: masks are few smooth blobs.
    arrays |= {name: np.packbits(getattr(pictures, name)) for name in ("on", "concept")}
    save_npz(path, arrays, pictures.settings)


def load(path: Path) -> UnitPictures:
    """What `save` wrote.

    Raises:
      ValueError: no such file, or another kind of file.
    """
    return load_npz(path, _from_arrays, "pictures of units")


def load_for(results: Mapping[str, Dissection], folder: Path) -> dict[str, UnitPictures]:
    """What a run's `folder` of dissections has of pictures/<layer>.npz, as far as they are those of `results`."""
    root = pathlib.Path(folder) / "pictures"
    found = {n: load_if(load, root / f"{n}.npz", result.settings) for n, result in results.items()}
    return {layer: pictures for layer, pictures in found.items() if pictures is not None}


def _from_arrays(arrays, settings):
    shape = tuple(arrays["shape"].tolist())
    masks = {
        name: np.unpackbits(arrays[name], count=int(np.prod(shape))).astype(bool).reshape(shape)
        for name in ("on", "concept")
    }
    count = sum(name.startswith("sheet_") for name in arrays)
    return UnitPictures(
        sheets=tuple(arrays[f"sheet_{k}"] for k in range(count)),
        images=arrays["images"],
        names=tuple(arrays["names"].tolist()),
        settings=settings,
        **masks,
    )
