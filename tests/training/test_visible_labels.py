"""Training under mix.label="visible": where a step knows what is still seen of each class, and where it cannot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mixaug_jax import data, training
from mixaug_jax.config import get_config, resolve
from mixaug_jax.data.source import Source
from mixaug_jax.mixing import MIXERS
from mixaug_jax.training import step as steps

BITS, SIDE, COUNT = 12, 16, 8


def config(method="cutmix", **train):
    given = toy.config(method, loss="sigmoid", steps=2, **train)
    given.data.update(mean=(0.4,), std=(0.3,), crop="pad", pad=2, flip=True)
    if method == "cutmix":
        given.mix.update(label="visible", per="example", prob=1.0)
    return given


def several(size=24, seed=0, parts=True):
    """Pictures whose gray value says which part a pixel belongs to: 20 times its number, which is 2 + that of a class."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, BITS + 2, (size, SIDE, SIDE)).astype(np.uint8)
    bits = rng.integers(0, 2, (size, BITS)).astype(np.float32)

    def read(i):
        found = {"image": maps[i][..., None] * 18, "label": i % BITS, "targets": bits[i]}
        return found | ({"parts": maps[i]} if parts else {})

    names = ("none", "rim", *(f"cell {k}" for k in range(BITS)))
    known = {"part_names": names, "class_parts": tuple(range(2, BITS + 2))} if parts else {}
    return Source(read, size, tuple(f"bit {k}" for k in range(BITS)), multi_label=True, **known)


@pytest.mark.parametrize("unknown", [False, True])
def test_each_bit_by_its_own_cell(unknown):
    """What the loss is given, against a loop over pictures and bits; weights of unknown bits go the way of the targets."""
    rng = np.random.default_rng(1)
    given = resolve(config(), train_size=COUNT, class_names=[f"bit {k}" for k in range(BITS)], multi_label=True)  # fmt: skip
    images = rng.normal(size=(COUNT, SIDE, SIDE, 1)).astype(np.float32)
    targets = rng.integers(0, 2, (COUNT, BITS)).astype(np.float32)
    weights = np.float32(rng.random((COUNT, BITS)) > 0.3 if unknown else np.ones((COUNT, BITS)))
    parts = rng.integers(0, BITS + 1, (COUNT, SIDE, SIDE)).astype(np.uint8)
    mixed = jax.jit(functools.partial(steps._mixed_known, config=given, shard=0))
    key = jax.random.key(2)
    out, left_open, _ = mixed(key, images, targets, weights)
    found, left = steps._settled_known(left_open, weights, {"parts": parts}, given)
    pixels, pending = MIXERS["cutmix"](key, images, jnp.eye(COUNT), per="example", label="visible")
    np.testing.assert_allclose(out, pixels, atol=1e-6)
    partner = np.argmax(pending.partner, -1)
    for i in range(COUNT):
        for k in range(BITS):
            kept = np.asarray(pending.mask)[i][parts[i] == k + 1].mean()
            weight = kept * weights[i, k] + (1 - kept) * weights[partner[i], k]
            target = kept * weights[i, k] * targets[i, k]
            target += (1 - kept) * weights[partner[i], k] * targets[partner[i], k]
            assert left[i, k] == pytest.approx(weight, abs=1e-5)
            assert found[i, k] * left[i, k] == pytest.approx(target, abs=1e-5)


@pytest.mark.parametrize("method", ["cutmix", "baseline"])
def test_parts_go_where_the_pixels_go(method):
    """Batches tell the class of each pixel, cropped and mirrored as the picture is; only where they are asked for."""
    batch = next(data.batches(several(), config(method), train=True))
    assert ("parts" in batch) == (method == "cutmix")
    if method == "cutmix":
        part = batch["image"][..., 0] // 18
        np.testing.assert_array_equal(batch["parts"], np.maximum(part.astype(int) - 1, 0))
        assert len(np.unique(batch["parts"])) == BITS + 1
    # A source that knows none, the unlabeled one of a generator say, is read as ever.
    assert "parts" not in next(data.batches(several(parts=False), config(method), train=True))


def make(key, count, arrays):
    parts = jax.random.randint(key, (count, SIDE, SIDE), 0, BITS + 1).astype(jnp.uint8)
    found = {"image": parts[..., None] * 20, "label": jnp.zeros(count, jnp.int32)}
    return found | {"targets": jnp.ones((count, BITS))} | ({"parts": parts} if arrays else {})


@pytest.mark.parametrize(("made", "accumulate"), [(False, 2), (True, 1)])
def test_a_training(made, accumulate, tmp_path, monkeypatch):
    parts = {"train": several(), "validation": several(8, 1), "test": several(9, 2)}
    monkeypatch.setattr(data, "open_splits", lambda config: parts)
    given = {"make": make, "arrays": (np.float32(1),)} if made else {}
    result = training.train(config(accumulate=accumulate), tmp_path / "run", **given)
    assert 0 <= result["test_accuracy"] <= 1


@pytest.mark.parametrize("made", [False, True])
def test_data_without_parts_are_refused(made, tmp_path, monkeypatch):
    """Before anything is compiled or written."""
    parts = {name: several(24, k, parts=False) for k, name in enumerate(("train", "validation", "test"))}  # fmt: skip
    monkeypatch.setattr(data, "open_splits", lambda config: parts)
    monkeypatch.setattr(steps, "init_state", None)
    sentence = r"mix\.label='visible' needs pictures whose pixels tell which class they show, which data\.name='scenes' does"
    with pytest.raises(ValueError, match=sentence):
        training.train(config(), tmp_path / "run", **({"make": make} if made else {}))
    assert not (tmp_path / "run").exists()


def test_markers_know_their_cells(tmp_path):
    """The held ones, read as the training reads them: annotations for this label alone."""
    given = get_config("cutmix", "markers")
    given.data.dir = str(tmp_path)
    given.data.update(size=16, batch_size=4)
    given.data.markers.update(unlabeled=1, labeled=4, validation=1, test=1)
    assert not data.open_splits(given)["train"].class_parts
    given.mix.label = "visible"
    opened = data.open_splits(given)
    source = opened["train"]
    assert [source.part_names[k] for k in source.class_parts] == [f"cell {k}" for k in range(12)]
    assert not opened["validation"].class_parts
    batch = next(data.batches(source, given, train=True))
    assert batch["parts"].shape == (4, 16, 16)
    assert 6 < len(np.unique(batch["parts"])) <= 13
