"""Losses and accuracies against NumPy: softmax, sigmoid, soft and unknown targets."""

import jax
import numpy as np
import pytest
import scipy.special
import toy

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.data.source import Source
from mixaug_jax.training import losses, step

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
TARGETS = RNG.uniform(size=(6, 4)).astype(np.float32)


def cross_entropy(logits, targets):
    """Of each class by itself, float64."""
    p = scipy.special.expit(np.float64(logits))
    return -targets * np.log(p) - (1 - targets) * np.log(1 - p)


def test_losses():
    ones = np.ones_like(TARGETS)
    found = losses.example_losses(LOGITS, TARGETS, ones, "sigmoid")
    np.testing.assert_allclose(found, cross_entropy(LOGITS, TARGETS).mean(1), rtol=1e-5)
    weights = np.float32(RNG.uniform(size=(6, 4)) < 0.6)
    weights[0] = 0  # nothing is known of this one
    found = losses.example_losses(LOGITS, TARGETS, weights, "sigmoid")
    right = [
        cross_entropy(z[w > 0], t[w > 0]).mean() if w.any() else 0
        for z, t, w in zip(LOGITS, TARGETS, weights, strict=True)
    ]
    np.testing.assert_allclose(found, right, rtol=1e-5)
    rows = TARGETS / TARGETS.sum(1, keepdims=True)
    found = losses.example_losses(LOGITS, rows, ones)
    right = -(rows * np.log(scipy.special.softmax(LOGITS, -1))).sum(1)
    np.testing.assert_allclose(found, right, rtol=1e-5)


def test_what_is_right():
    logits = np.float32([[2, -1, -1], [-1, 3, 4], [-1, -1, -2]])
    ones = np.ones_like(logits)
    label = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    np.testing.assert_array_equal(losses.right(logits, label, ones), [1, 0, 0])
    several = np.float32([[1, 0, 1], [0, 1, 1], [0, 0, 0.4]])
    found = losses.right(logits, several, ones, several=True)
    np.testing.assert_allclose(found, [2 / 3, 1, 1], rtol=1e-6)
    known = np.float32([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    found = losses.right(logits, several, known, several=True)
    np.testing.assert_allclose(found, [1, 1, 0], rtol=1e-6)
    one = losses.right(np.float32([[2], [-1], [1]]), np.float32([[1], [0], [0.2]]), ones[:, :1])
    np.testing.assert_array_equal(one, [1, 1, 0])


def settings(classes=4, method="baseline", *, multi_label=False, **train):
    config = toy.config(method, **{"loss": "sigmoid"} | train)
    names = tuple(map(str, range(classes)))
    return config_lib.resolve(config, train_size=64, class_names=names, multi_label=multi_label)


def test_targets():
    batch = {"label": np.int32([1, 0, 1])}
    targets, weights = losses.targets_of(batch, settings(2))
    np.testing.assert_array_equal(targets, [[1], [0], [1]])
    np.testing.assert_array_equal(weights, 1)
    np.testing.assert_array_equal(losses.targets_of(batch, settings(3))[0], np.eye(3)[[1, 0, 1]])
    smooth = losses.smoothed(np.float32(targets), settings(2, label_smoothing=0.2).train)
    np.testing.assert_allclose(smooth, [[0.9], [0.1], [0.9]], rtol=1e-6)
    smooth = losses.smoothed(np.eye(4, dtype=np.float32), settings(4, loss="softmax", label_smoothing=0.2).train)  # fmt: skip
    np.testing.assert_allclose(smooth, 0.8 * np.eye(4) + 0.05, rtol=1e-6)


def test_unknown_classes_are_mixed_as_far_as_they_are_known(monkeypatch):
    """Mixed half and half: where one partner is unknown, the other's target; where none is known, weight 0."""

    def halves(key, images, targets, *, config, shard):
        return images, (targets + targets[::-1]) / 2, None

    monkeypatch.setattr(step, "mixed", halves)
    targets = np.float32([[1, 1, 0.5, 1], [0, 0, 0.5, 1]])
    weights = np.float32([[1, 0, 1, 0], [1, 1, 1, 0]])
    images = np.zeros((2, 4, 4, 3), np.float32)
    _, both, _ = step._mixed_known(0, images, targets, weights, config=settings(), shard=0)
    mixed, known = step._settled_known(both, weights, {}, settings())
    np.testing.assert_allclose(known, [[1, 0.5, 1, 0]] * 2)
    np.testing.assert_allclose(mixed, [[0.5, 0, 0.5, 0]] * 2)


def several(size=64, seed=0, labels=3):
    """Pictures whose channels are bright or dark, each by itself; the last class is not known of every third."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (size, labels))
    images = rng.normal(60 + 120 * bits[:, None, None], 20, (size, 16, 16, 3)).clip(0, 255)

    def read(i):
        known = np.ones(labels, np.float32)
        known[-1] = i % 3 > 0
        targets = np.where(known, bits[i], 1 - bits[i])  # wrong where it must not be looked at
        example = {"image": np.uint8(images[i]), "label": int(bits[i].argmax())}
        return example | {"targets": targets, "weights": known}

    names = tuple(f"channel {k}" for k in range(labels))
    return Source(read, size, names, multi_label=True)


@pytest.mark.parametrize("method", ["baseline", "mixup"])
def test_several_labels_are_learned(tmp_path, monkeypatch, method):
    from mixaug_jax import load, train
    from mixaug_jax.models.probability import probabilities

    parts = {"train": several(), "validation": several(21, 1), "test": several(33, 2)}
    monkeypatch.setattr(data, "open_splits", lambda config: parts)
    config = toy.config(method, epochs=10, loss="sigmoid", lr=0.2)
    result = train(config, tmp_path / "run")
    net = load(tmp_path / "run")
    assert net.loss == "sigmoid"
    test = [parts["test"][i] for i in range(33)]
    images = np.stack([net.preprocess(example["image"]) for example in test])
    p = np.asarray(jax.jit(lambda net, x: probabilities(net, net.logits(x)))(net, images))
    assert p.shape == (33, 3)
    known = np.stack([example["weights"] for example in test])
    right = (p > 0.5) == (np.stack([example["targets"] for example in test]) > 0.5)
    share = ((right * known).sum(1) / known.sum(1)).mean()
    assert result["test_accuracy"] == pytest.approx(share, abs=1e-6)
    assert share > 0.9  # by chance one half
    # Where nothing was learned of the wrong targets, they are contradicted.
    assert right[known == 0].mean() < 0.2


def test_several_labels_need_the_sigmoid(tmp_path, monkeypatch):
    from mixaug_jax import train

    parts = {"train": several(), "validation": several(21, 1), "test": None}
    monkeypatch.setattr(data, "open_splits", lambda config: parts)
    with pytest.raises(
        ValueError, match=r"train\.loss must be 'sigmoid' for scenes, whose images may"
    ):
        train(toy.config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
