"""A data set of Hugging Face's `datasets` (extra `hub`) that was saved to disk: config.data.dir is what `save_to_disk` wrote.

    load_dataset("cifar10").save_to_disk("CIFAR")          # once, where there is a network
    mixaug --config=cutmix:hf --config.data.dir=CIFAR

Read are the first column of images, `label` (a class, or a list of classes for pictures that show several) and, as boxes,
`objects`: a list of {bbox, category or label}, bbox as [x, y, width, height] in pixels, as COCO and the hub have it. A dict of
such lists is read, too.
"""

import hashlib
import io
import pathlib
from typing import Any

import numpy as np

from mixaug_jax.core import checks, say
from mixaug_jax.core.types import Config
from mixaug_jax.data.images import decode_rgb, skip_unreadable
from mixaug_jax.data.source import Source

_NAMES = {"validation": ("validation", "val", "valid", "dev")}  # of the splits
_CLASS = ("category", "label", "class")  # of a box


def present(directory: str, split: str) -> bool:
    """Whether the set in a folder has a split, under any of its names; False where no such set is."""
    root = pathlib.Path(directory).expanduser()
    return bool(directory) and any((root / n).is_dir() for n in _NAMES.get(split, (split,)))


def open_saved(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the set in the folder config.data.dir.

    Where it has no validation split, the share data.validation_share of train is set aside, by the places of the examples.

    Args:
      split: as the set calls it; "validation" is also val, valid or dev.
      config: the resolved config; reads data.{dir, corrupt, validation_split, validation_share}.
      annotations: whether the examples have boxes, where the set has.

    Raises:
      ValueError: no package `datasets`, no such folder or split, columns of another form; while reading, with
        data.corrupt="error", a damaged image, or an example without a label.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "data.name=hf needs the package datasets: pip install 'mixaug_jax[hub]'"
        ) from error
    where, form = f"data.dir={config.data.dir}", "data.dir must be a folder that save_to_disk wrote"
    try:
        found = datasets.load_from_disk(str(pathlib.Path(config.data.dir).expanduser()))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{form}; {config.data.dir!r} is none: {error}") from error
    splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    table, places = _split(splits, split, config, where)
    image, label = _columns(table.features, where)
    names = tuple(getattr(table.features[label], "feature", table.features[label]).names)
    several = not isinstance(table.features[label], datasets.ClassLabel)
    # The image's bytes are left to our decoder.
    table = table.cast_column(image, datasets.Image(decode=False))
    boxes, box_names = _box_reader(table.features) if annotations else (None, ())

    def read_image(index: int) -> tuple:
        row, name = table[int(places[index])], f"{where}: image {index} of split {split}"
        file = row[image]["bytes"]
        return row, decode_rgb(io.BytesIO(file) if file else row[image]["path"], name)

    read_image = skip_unreadable(read_image, len(places), config.data.corrupt)

    def read(index: int) -> dict:
        row, pixels = read_image(index)
        if row[label] is None or row[label] == -1:
            raise ValueError(f"{where}: image {index} of split {split} has no label")
        given = _several(row[label], len(names)) if several else {"label": int(row[label])}
        return {"image": pixels} | given | (boxes(row) if boxes else {})

    def file_name(index: int) -> str:
        return pathlib.PurePath(table[int(places[index])][image]["path"] or "").name

    return Source(read, len(places), names, (), box_names, file_name, multi_label=several)


def _several(labels, classes) -> dict:
    """label (the first) and targets of an image that shows several classes."""
    targets = np.zeros(classes, np.float32)
    targets[labels] = 1
    return {"label": int(targets.argmax()), "targets": targets}


def _split(splits, split, config, where) -> tuple[Any, np.ndarray]:
    """The table that a split is in, and the places of its examples there."""
    name = next((n for n in _NAMES.get(split, (split,)) if n in splits), "")
    own = any(n in splits for n in _NAMES["validation"])
    share = 0 if own or not config.data.validation_split else config.data.validation_share
    if share and "train" in splits and split in ("train", "validation"):
        say.once(
            f"{where} has no validation split, so {100 * share:g} % of train are set aside (data.validation_share)"
        )
        size = len(splits["train"])
        # The same examples on every machine and for any version of NumPy.
        order = sorted(range(size), key=lambda k: hashlib.sha256(str(k).encode()).digest())
        count = min(max(1, round(share * size)), size - 1)
        chosen = order[:count] if split == "validation" else order[count:]
        return splits["train"], np.sort(chosen)
    if not name:
        checks.choice(f"{where}: the split", split, splits)
    return splits[name], np.arange(len(splits[name]))


def _columns(features, where) -> tuple[str, str]:
    """The columns of the image and of its class or classes."""
    import datasets

    images = [name for name, f in features.items() if isinstance(f, datasets.Image)]
    classes = [
        name
        for name, f in features.items()
        if isinstance(getattr(f, "feature", f), datasets.ClassLabel)
    ]
    chosen = "label" if "label" in classes else (classes[0] if len(classes) == 1 else "")
    if not images or not chosen:
        raise ValueError(
            f"{where} is no set for classification: it needs a column of images and one called label with the names of "
            f"classes (ClassLabel), and has {', '.join(f'{n} ({type(f).__name__})' for n, f in features.items())}"
        )
    return images[0], chosen


def _box_reader(features):
    """(`f(row) -> boxes and box_labels`, the box classes' names), or (None, ())."""
    objects = features.get("objects")
    inner = getattr(objects, "feature", objects)  # of a list of dicts, or a dict of lists
    if not isinstance(inner, dict) or "bbox" not in inner:
        return None, ()
    name = next((n for n in _CLASS if n in inner), "")
    known = getattr(inner.get(name), "feature", inner.get(name))
    names = tuple(getattr(known, "names", None) or ("object",))

    def read(row: dict) -> dict:
        held = row["objects"]
        lists = held if isinstance(held, dict) else {k: [one[k] for one in held] for k in inner}
        corner = np.array(lists["bbox"], np.float32).reshape(-1, 4)
        x, y, width, height = corner.T
        boxes = np.stack([y, x, y + height, x + width], 1)
        labels = lists[name] if len(names) > 1 or name else [0] * len(boxes)
        return {"boxes": boxes, "box_labels": np.array(labels, np.int32)}

    return read, names
