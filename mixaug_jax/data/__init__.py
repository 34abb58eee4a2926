"""Data: source -> Grain `MapDataset` -> device, one road for every set.

    sources = data.open_splits(config)
    for batch in data.batches(sources["train"], config, train=True):
        ...  # {"image": uint8 [B,size,size,3], "label": int32 [B], "seed": uint32 [B]}

A new data set is one function `f(split, config, *, annotations=True) -> Source` and one line in
`SOURCES`. The heavy imports (jax, grain, tensorflow_datasets) are inside the functions: processes
that only render or read pictures import this package too.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mixaug_jax.data.source import Source


def batches(source: Source, config: Any, *, train: bool, start: int = 0) -> Iterator[dict]:
    """This process's share of every global batch, from batch number `start` on.

    Training: endless; every epoch is shuffled anew and holds every example once, and a set that is
    smaller than a batch is simply repeated. Batch k is a function of (config.seed, k) alone: not of
    `start`, of the number of threads, or, up to the order inside the batch, of the number of
    processes. So resuming is `start=step`, and costs nothing.

    Evaluation: every example once, in order, by the center crop; the last batch is short. All
    processes get the same number of batches, so the last one of a process may even be empty.

    Args:
      source: the examples.
      config: the resolved config; reads seed, eval.batch_size and data.{size, batch_size, crop,
        crop_scale, pad, flip, resize, threads, prefetch}. A batch's size counts all processes.
      train: random geometry and endless, or the evaluation's geometry and one pass.
      start: the number of the first batch.

    Yields:
      image uint8 [B,size,size,C], label int32 [B], seed uint32 [B]: what the random photometrics of
      each example are drawn from on the device (0 in evaluation, which draws nothing); of
      recordings also valid bool [B,size], which frames are not padding; of sets with several labels
      an image targets float32 [B,K] and, where some are not known, weights [B,K]; in training with
      mix.label="visible" parts uint8 [B,size,size], 1 + the class that a pixel tells of (0: none).

    Raises:
      ValueError: an empty source, a batch that the processes do not divide, an unknown crop.
    """
    import grain
    import jax

    # Sizes in the settings are those of all processes together, of which each reads its share.
    index, count = jax.process_index(), jax.process_count()
    key = "data.batch_size" if train else "eval.batch_size"
    if not len(source):
        raise ValueError("the data set has no examples: there is nothing to make batches of")
    size = config.data.batch_size if train else evaluation_batch(source, config)
    if size <= 0 or size % count:
        raise ValueError(
            f"{key} must be a positive multiple of the number of processes, {count}; got {size}"
        )
    # Random access all the way: example k of the endless row is a function of (seed, k), so resuming reads nothing again.
    dataset = grain.MapDataset.source(source).seed(config.seed)
    if train:
        known = parts_wanted(config) and source.class_parts
        classes = class_of_parts(source) if known else None
        dataset = dataset.shuffle().repeat().random_map(_training_example(config, classes))
    else:
        dataset = dataset.map(_evaluation_example(config))
    # Rows one after the other, as they lie on the devices: the global batch is the same for any number of processes.
    local = dataset.batch(size // count, drop_remainder=train)[index::count]
    iterator = _read_ahead(local[start:], config.data.threads, config.data.prefetch)
    if train:
        return iterator
    # Collectives need every process in every step, also those whose share ends one batch earlier.
    missing = -(-len(source) // size) - max(len(local), start)
    return _then_empty(iterator, missing, lambda: dataset[0])


def evaluation_batch(source: Source, config: Any) -> int:
    """Images of an evaluation step, over all devices: eval.batch_size, but no more than it takes to hold the whole source."""
    # As above: only batches need it.
    import jax

    whole = -(-len(source) // jax.device_count()) * jax.device_count()
    return min(config.eval.batch_size, whole)


def _read_ahead(dataset, threads, prefetch):
    """An iterator with at most max(prefetch, threads) batches in memory.

    Every thread makes a whole batch: for small images that is half as fast again as sharing one.
    Grain's own default prefetch is meant for single examples: it would hold hundreds of batches.
    """
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    return iter(dataset.to_iter_dataset(options))


def parts_wanted(config: Any) -> bool:
    """Whether training mixes labels by what is still seen of each class, so that batches have to tell where it is."""
    return config.get("mix", {}).get("label", "") == "visible"


def class_of_parts(source: Source) -> np.ndarray:
    """uint8 [parts]: for each part of a source 1 + the class that is told by it, 0 where it tells none."""
    classes = np.zeros(max(len(source.part_names), 1), np.uint8)
    classes[list(source.class_parts)] = np.arange(1, len(source.class_parts) + 1)
    return classes


def _training_example(config, classes):
    """`f(example, rng) -> example` for training: the random geometry, and a seed for the rest; `classes` of parts, or None."""
    # Settings need the names of the sources, and not what reads and draws images.
    from mixaug_jax.data import transforms

    geometry = transforms.train_geometry(config)

    def transform(example: dict, rng: np.random.Generator) -> dict:
        seen = _input(example)
        if classes is not None:
            seen["parts"] = classes[example["parts"]]
        view = geometry(rng, seen)
        return _row(view, example, rng.integers(2**32, dtype=np.uint32))

    return transform


def _evaluation_example(config):
    # As above.
    from mixaug_jax.data import transforms

    def transform(example: dict) -> dict:
        view = transforms.evaluation(_input(example), config.data.size, config.data.resize)
        return _row(view, example, 0)

    return transform


def _input(example):
    """Without the annotations: a batch is dense, and training has no use for them."""
    return {name: example[name] for name in ("image", "valid") if name in example}


def _row(view, example, seed):
    several = {n: np.float32(example[n]) for n in ("targets", "weights") if n in example}
    return view | several | {"label": np.int32(example["label"]), "seed": np.uint32(seed)}


def _then_empty(iterator, number, example):
    """The batches, then `number` empty ones that have the shapes of `example()`'s row."""
    yield from iterator
    for _ in range(number):
        yield {name: np.asarray(value)[None][:0] for name, value in example().items()}


def open_splits(config: Any) -> dict[str, Source | None]:
    """The run's sources as {"train", "validation", "test"}: all opened, so all checked, at once.

    Reads data.name and data.{train,validation,test}_split; "" means that there is none (None here).
    Annotations are left out, as training reads pictures and labels, but where it needs parts.

    Raises:
      ValueError: an unknown set, a missing split, splits whose classes differ, a batch larger than the training set.
    """
    # All of them, before anything is trained: a missing test split would be found hours later.
    opened = {}
    for name in ("train", "validation", "test"):
        split = config.data[f"{name}_split"]
        annotations = name == "train" and parts_wanted(config)
        opened[name] = open_source(split, config, annotations=annotations) if split else None
    if opened["train"] is None:
        raise ValueError("data.train_split is empty: name the split to train on")
    for name, source in opened.items():
        if source is not None and source.class_names != opened["train"].class_names:
            raise ValueError(
                f"data.{name}_split has {source.num_classes} classes that are not the"
                f" {opened['train'].num_classes} classes of data.train_split"
            )
    size, batch = len(opened["train"]), config.data.batch_size
    if (
        batch > size and opened["train"].make is None
    ):  # it would be filled by repetition, up to all memory
        raise ValueError(
            f"data.batch_size={batch} is larger than the training set of {size} examples; lower it"
        )
    return opened


def settled(config: Any) -> Any:
    """The config with data.test_split="auto" replaced by what it means: "test", or "" for a folder without test/.

    Returns:
      `config` itself where there is nothing to replace, else a copy.
    """
    if config.data.test_split != "auto":
        return config
    # As above.
    from mixaug_jax.data import layout, saved_sets

    config = config.copy_and_resolve_references()
    folder = config.data.name in ("folder", "speech") and not config.data.dir.endswith(".npz")
    there = not folder or layout.present(config.data.dir, "test")
    if config.data.name == "hf":
        there = saved_sets.present(config.data.dir, "test")
    config.data.test_split = "test" if there else ""
    return config


def open_source(split: str, config: Any, *, annotations: bool = True) -> Source:
    """The split of the set that config.data.name names: one of `SOURCES`, or any TFDS name."""
    split = "test" if split == "auto" else split
    return SOURCES.get(config.data.name, _tfds)(split, config, annotations=annotations)


def _scenes(split, config, *, annotations=True):
    """Rendered pictures of shapes before backgrounds, with boxes and label maps; nothing to download."""
    # Each kind of source brings packages that the others do not need.
    from mixaug_jax.data.scenes import dataset

    return dataset.scenes(split, config, annotations=annotations)


def _folder(split, config, *, annotations=True):
    """Photographs in a folder of your own, with boxes and label maps where it has them."""
    # As above.
    from mixaug_jax.data import folders

    return folders.open_folder(split, config, annotations=annotations)


def _speech(split, config, *, annotations=True):
    """Recordings in a folder of your own, as spectrograms."""
    # As above.
    from mixaug_jax.data.speech import recordings

    return recordings.open_speech(split, config, annotations=annotations)


def _markers(split, config, *, annotations=True):
    """Pictures of markers of 12 bits, rendered or of your own."""
    # As above.
    from mixaug_jax.data.markers import held_set

    return held_set.markers(split, config, annotations=annotations)


def _hf(split, config, *, annotations=True):
    """A set of Hugging Face's datasets that was saved to a folder."""
    # As above.
    from mixaug_jax.data import saved_sets

    return saved_sets.open_saved(split, config, annotations=annotations)


def _animals(split, config, *, annotations=True):
    """Rendered animals of eight blocks whose attributes are known and biased; nothing to download."""
    # As above.
    from mixaug_jax.data.animals import animal_set

    return animal_set.animals(split, config, annotations=annotations)


def _tfds(split, config, *, annotations=True):
    """A set of TensorFlow Datasets that is prepared as array_record."""
    # As above.
    from mixaug_jax.data import tfds

    return tfds.open_tfds(split, config, annotations=annotations)


# A name that is not here is looked for among the sets that TFDS knows.
SOURCES = {
    "scenes": _scenes,
    "folder": _folder,
    "speech": _speech,
    "markers": _markers,
    "hf": _hf,
    "animals": _animals,
    "cifar10": _tfds,
    "cifar100": _tfds,
    "imagenet2012": _tfds,
}
