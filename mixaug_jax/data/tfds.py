"""Any TFDS set that has been prepared in array_record, read without TensorFlow.

Preparing one of TFDS's own sets needs TensorFlow once; where a set is missing, the error says the
command. `config.data.dir` is TFDS's data_dir ("" = $TFDS_DATA_DIR or ~/tensorflow_datasets).
"""

import io
import os

import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import Config
from mixaug_jax.data.images import decode_rgb, skip_unreadable
from mixaug_jax.data.source import Source


def open_tfds(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the set that config.data.name names, in TFDS's way ("mnist:3.*.*", "name/config").

    Read are the features `image` and `label`, and as boxes either the sequence `objects` (`bbox`
    and perhaps `label`) or a single `bbox`; boxes without labels of their own have the image's.

    Args:
      split: a split, or a slice of one ("train[:95%]").
      config: the resolved config; reads data.{name, dir, corrupt}.
      annotations: whether the examples have boxes, where the set has.

    Raises:
      ValueError: an unknown or missing set, one in a format that needs TensorFlow, a wrong split, a
        set without images or labels; while reading, a split without labels and, with
        data.corrupt="error", a damaged image.
    """
    import tensorflow_datasets as tfds

    # Whatever the set's name: it is one of classes if it has an image and a label with names.
    builder = _prepared(config.data.name, config.data.dir)
    features = dict(builder.info.features.items())
    where = f"data.name={config.data.name}"
    label = features.get("label")
    if "image" not in features or not (isinstance(label, tfds.features.ClassLabel) and label.names):
        raise ValueError(
            f"{where} is no set for classification: it needs the features image and label (a"
            f" class), and has {', '.join(features)}"
        )
    boxes, box_names = _box_reader(features) if annotations else (None, ())
    # The image's bytes are left to our decoder; other pictures (masks) are not decoded at all.
    pictures = [name for name, f in features.items() if isinstance(f, tfds.features.Image)]
    skipped = {name: tfds.decode.SkipDecoding() for name in pictures}
    records = _records(builder, split, skipped, where)

    # Damage is met when a record is read, in the reader, in the parser or in the decoder.
    def read_image(index: int) -> tuple:
        name = f"{where}: image {index} of split {split}"
        try:
            record = records[index]
        except Exception as error:  # TFDS lets what the reader and the parser raise pass through
            raise ValueError(f"{name} cannot be read: {error}") from error
        return record, decode_rgb(io.BytesIO(record["image"]), name)

    read_image = skip_unreadable(read_image, len(records), config.data.corrupt)

    def read(index: int) -> dict:
        record, image = read_image(index)
        if record["label"] < 0:
            raise ValueError(f"{where}: split {split} has no labels; choose another split")
        example = {"image": image, "label": int(record["label"])}
        return example | boxes(record, image.shape) if boxes else example

    # ImageNet's records have one, most sets have none.
    def file_name(index: int) -> str:
        name = records[index].get("file_name", "")
        return name.decode() if isinstance(name, bytes) else name

    return Source(read, len(records), tuple(label.names), (), box_names, file_name)


def _prepared(name, data_dir):
    """The builder of files that exist in a format for random access; else how to get them."""
    import tensorflow_datasets as tfds

    # Files that are there are enough: the code of the set, which may need TensorFlow, is not run.
    root = os.path.expanduser(data_dir or tfds.core.constants.get_default_data_dir())
    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=root)
    except ValueError as error:  # TFDS's DatasetNotFoundError, and a name it cannot parse
        known = tfds.list_builders(with_community_datasets=False)
        if name.split("/")[0].split(":")[0] not in known:
            raise ValueError(
                f"data.name must be scenes, folder, a set that TFDS knows (cifar10, cifar100, imagenet2012, ...) or one of"
                f" your own that is prepared in {root}; got {name!r}{checks.nearest(name, known)}"
            ) from error
        raise ValueError(
            f"data.name={name} is not prepared in {root} (data.dir); do it once with:"
            f" {_command(name, root)}"
        ) from error
    # Only array_record gives an example by its number.
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" not in formats:
        elsewhere = os.path.join(root, "array_record")
        raise ValueError(
            f"data.name={name} is prepared in {root} as {', '.join(sorted(formats))}, which only"
            f" TensorFlow reads; prepare it as array_record beside it, from the same downloads, and"
            f" set data.dir={elsewhere}:"
            f" {_command(name, elsewhere, os.path.join(root, 'downloads'))}"
        )
    return builder


def _command(name, root, downloads=""):
    arguments = f"download_dir={downloads!r}" if downloads else ""
    return (
        "pip install 'mixaug_jax[prepare]' && python -c \"import tensorflow_datasets as tfds;"
        f" tfds.builder({name!r}, file_format='array_record', data_dir={root!r})"
        f'.download_and_prepare({arguments})"'
    )


def _records(builder, split, decoders, where):
    """The split's records, once their files are known to be there."""
    try:
        records = builder.as_data_source(split, decoders=decoders, file_format="array_record")
        files = builder.info.splits[split].filepaths
        len(records)  # raises where a slice ends before it starts
    except ValueError as error:
        splits = ", ".join(
            f"{name} ({info.num_examples})" for name, info in builder.info.splits.items()
        )
        raise ValueError(
            f"{where} has no split {split!r}: it has {splits}, and slices such as train[:95%]"
        ) from error
    missing = [file for file in files if not file.exists()]
    if missing:
        raise ValueError(
            f"{where} is incomplete: {missing[0]} is missing; delete that folder and prepare again"
        )
    return records


def _box_reader(features):
    """(`f(record, image shape) -> boxes and box_labels`, the box classes' names), or (None, ())."""
    import tensorflow_datasets as tfds

    # TFDS's Sequence of a dict keeps the dict's features in `.feature`.
    objects = dict(features["objects"].feature.items()) if "objects" in features else {}
    feature, own = objects.get("bbox", features.get("bbox")), objects.get("label")
    if feature is None:
        return None, ()
    if feature.bbox_format != tfds.features.BBoxFeature().bbox_format:
        raise ValueError("the set's bbox feature is not in the form (ymin, xmin, ymax, xmax), 0..1")
    has_own = "bbox" in objects and isinstance(own, tfds.features.ClassLabel)

    def read(record: dict, shape: tuple[int, ...]) -> dict:
        found = record["objects"]["bbox"] if "bbox" in objects else record["bbox"]
        height, width = shape[:2]
        boxes = np.asarray(found, np.float32).reshape(-1, 4)
        if has_own:
            labels = np.asarray(record["objects"]["label"], np.int32).reshape(-1)
        else:
            labels = np.full(len(boxes), record["label"], np.int32)
        sides = np.array([height, width, height, width], np.float32)
        return {"boxes": boxes * sides, "box_labels": labels}

    return read, tuple(own.names if has_own else features["label"].names)
