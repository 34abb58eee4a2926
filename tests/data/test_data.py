"""Batches: a function of (seed, step), for any number of threads and processes."""

import itertools
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest

from mixaug_jax import data
from mixaug_jax.data.source import Source


def config(*, seed=0, eval_batch_size=4, **changes):
    section = {
        "name": "scenes", "dir": "", "size": 8, "batch_size": 4, "crop": "resized",
        "crop_scale": (0.08, 1.0), "pad": 1, "flip": True, "resize": 1.0, "threads": 4,
        "prefetch": 2, "corrupt": "error", "train_split": "train", "validation_split": "",
        "test_split": "",
    }  # fmt: skip
    sections = {"data": section | changes, "eval": {"batch_size": eval_batch_size}}
    return ml_collections.ConfigDict({"seed": seed} | sections)


def source(size, classes=100):
    """Images of odd sizes whose label is their index."""

    def read(index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (9 + index % 3, 12, 3), np.uint8)
        boxes = np.zeros((index % 2, 4), np.float32)  # ragged, so it must not reach a batch
        return {"image": image, "label": index, "boxes": boxes, "box_labels": np.zeros(index % 2)}

    return Source(read, size, tuple(map(str, range(classes))))


def take(iterator, number):
    return list(itertools.islice(iterator, number))


def train(size=10, number=8, start=0, **changes):
    return take(data.batches(source(size), config(**changes), train=True, start=start), number)


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert set(one) == set(other) == {"image", "label", "seed"}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


def test_shapes_and_types():
    [batch] = train(number=1)
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 8, 8, 3), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((4,), np.int32)
    assert (batch["seed"].shape, batch["seed"].dtype) == ((4,), np.uint32)


@pytest.mark.parametrize("threads", [0, 1, 8])
def test_the_same_for_any_number_of_threads(threads):
    assert_equal(train(threads=threads, prefetch=1), train(threads=4))


@pytest.mark.parametrize("start", [1, 5])
def test_resumed_equals_unbroken(start):
    assert_equal(train(start=start, number=8 - start), train()[start:])


def test_start_far_away_is_immediate():
    reads = []

    def read(index):
        reads.append(index)
        return source(10)[index]

    counted = Source(read, 10, ("a",))
    next(data.batches(counted, config(threads=1, prefetch=1), train=True, start=10**9))
    assert len(reads) < 20


def test_epochs_hold_every_example_once_and_differ():
    labels = np.concatenate([batch["label"] for batch in train(number=15)])  # 60 = 6 epochs of 10
    epochs = labels.reshape(6, 10)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(epoch) for epoch in epochs}) > 4


def test_examples_get_other_crops_and_seeds_each_epoch():
    batches = train(size=1, batch_size=2, number=20)
    seeds = np.concatenate([batch["seed"] for batch in batches])
    assert len(set(seeds.tolist())) == 40
    assert seeds.max() > 2**31  # all 32 bits are used
    assert len({image.tobytes() for batch in batches for image in batch["image"]}) > 30


def test_other_seed_other_order():
    first, second = train(seed=0), train(seed=1)
    labels = [np.concatenate([b["label"] for b in batches]) for batches in (first, second)]
    assert (labels[0] != labels[1]).any()


def test_smaller_set_than_a_batch():
    [first, second] = train(size=3, batch_size=7, number=2)
    labels = np.concatenate([first["label"], second["label"]])[:12].reshape(4, 3)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(3), (4, 1)))


def as_process(monkeypatch, index, count):
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(jax, "process_count", lambda: count)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("start", [0, 3])
def test_processes_share_the_batch(monkeypatch, count, start):
    alone = train(number=6, start=start)
    shares = []
    for index in range(count):
        as_process(monkeypatch, index, count)
        shares.append(train(number=6, start=start))
    for step, whole in enumerate(alone):
        for name, values in whole.items():
            parts = [share[step][name] for share in shares]
            assert all(len(part) == 4 // count for part in parts)
            np.testing.assert_array_equal(np.concatenate(parts), values)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 9])
def test_evaluation_sees_every_example_in_order(size):
    found = list(data.batches(source(size), config(), train=False))
    assert len(found) == -(-size // 4)
    labels = np.concatenate([batch["label"] for batch in found])
    np.testing.assert_array_equal(labels, np.arange(size))
    assert [len(batch["image"]) for batch in found[:-1]] == [4] * (len(found) - 1)
    assert not any(batch["seed"].any() for batch in found)
    rest = list(data.batches(source(size), config(), train=False, start=1))
    assert_equal(rest, found[1:])


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 9])
def test_evaluation_in_processes(monkeypatch, size):
    seen, lengths = [], []
    for index in range(2):
        as_process(monkeypatch, index, 2)
        found = list(data.batches(source(size), config(), train=False))
        assert all(batch["image"].shape[1:] == (8, 8, 3) for batch in found)
        assert all(batch["label"].dtype == np.int32 for batch in found)
        assert all(len(batch["label"]) == len(batch["image"]) <= 2 for batch in found)
        seen += [label for batch in found for label in batch["label"].tolist()]
        lengths.append(len(found))
    assert sorted(seen) == list(range(size))
    assert lengths == [-(-size // 4)] * 2


def test_evaluation_takes_the_central_crop():
    square = Source(
        lambda index: {"image": np.full((8, 8, 3), index, np.uint8), "label": 0}, 2, ("a",)
    )
    [batch] = data.batches(square, config(), train=False)
    np.testing.assert_array_equal(batch["image"], np.repeat([0, 1], 192).reshape(2, 8, 8, 3))


def test_errors_come_at_the_call(monkeypatch):
    with pytest.raises(ValueError, match="no examples"):
        data.batches(source(0), config(), train=True)
    with pytest.raises(ValueError, match="no examples"):
        data.batches(source(0), config(), train=False)
    with pytest.raises(ValueError, match=r"data\.crop must be one of .* got 'x'"):
        data.batches(source(3), config(crop="x"), train=True)
    as_process(monkeypatch, 0, 3)
    with pytest.raises(
        ValueError, match=r"data\.batch_size must be .* number of processes, 3; got 4"
    ):
        data.batches(source(3), config(), train=True)
    with pytest.raises(
        ValueError, match=r"eval\.batch_size must be .* number of processes, 3; got 4"
    ):
        data.batches(source(3), config(), train=False)


def test_an_error_while_reading_ends_the_iteration():
    def read(index):
        raise ValueError("train/cat/1.jpg cannot be read as an image")

    with pytest.raises(ValueError, match=r"cat/1\.jpg cannot be read"):
        next(data.batches(Source(read, 3, ("a",)), config(), train=True))


def test_memory_is_bounded():
    reads = []

    def read(index):
        reads.append(index)
        return source(10)[index]

    iterator = data.batches(Source(read, 10, ("a",)), config(threads=2, prefetch=3), train=True)
    for _ in range(20):
        next(iterator)
    assert len(reads) <= (20 + 3 + 2) * 4


def test_source_is_a_sequence():
    three = source(3)
    assert len(three) == 3
    assert three.num_classes == 100
    assert [example["label"] for example in three] == [0, 1, 2]
    assert three[np.int64(2)]["label"] == 2
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"example {index}"):
            three[index]
    with pytest.raises(TypeError):
        three[0.5]


def test_open_splits(monkeypatch):
    asked = []

    def fake(split, config, *, annotations=True):
        asked.append((split, annotations))
        return source(3, classes=2 if split == "odd" else 4)

    monkeypatch.setitem(data.SOURCES, "scenes", fake)
    whole = {"train_split": "train[:9]", "test_split": "test", "batch_size": 3}
    opened = data.open_splits(config(**whole))
    assert {name: bool(found) for name, found in opened.items()} == {
        "train": True,
        "validation": False,
        "test": True,
    }
    assert asked == [("train[:9]", False), ("test", False)]
    with pytest.raises(ValueError, match=r"data\.test_split has 2 classes that are not the 4"):
        data.open_splits(config(test_split="odd"))
    with pytest.raises(ValueError, match=r"data\.train_split is empty"):
        data.open_splits(config(train_split="", test_split="test"))
    with pytest.raises(
        ValueError, match=r"data\.batch_size=4 is larger than the training set of 3"
    ):
        data.open_splits(config(**whole | {"batch_size": 4}))


def test_import_is_light():
    heavy = "{'jax', 'grain', 'tensorflow_datasets'}"
    code = f"import sys, mixaug_jax.data; print({heavy} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "set()"
