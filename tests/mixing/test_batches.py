"""Mixers outside of this package's training step: integer labels, keys by the step, compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import random_net

from mixaug_jax.mixing import MIXERS, batch_mixer
from mixaug_jax.mixing.labels import PENDING

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 16, 16, 3)).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0])
TARGETS = np.eye(4, dtype=np.float32)[LABELS]


@pytest.mark.parametrize("name", ["cutmix", "cutout", "mixup", "saliencymix"])
def test_as_the_mixer_itself(name):
    mix = batch_mixer(MIXERS[name], num_classes=4, seed=5)
    key = jax.random.fold_in(jax.random.key(5), 7)
    expected = MIXERS[name](key, IMAGES, TARGETS)
    for given in (LABELS, LABELS.astype(np.uint8), TARGETS):
        images, targets = mix(7, IMAGES, given)
        np.testing.assert_allclose(images, expected[0], atol=1e-6)
        np.testing.assert_allclose(targets, expected[1], atol=1e-6)


def test_compiled_once_for_all_steps():
    seen = []

    def noted(key, images, targets, *, shard=0, size=1.0):
        seen.append(size)
        return images + size * jax.random.uniform(key), targets

    mix = batch_mixer(noted, num_classes=4, options={"size": 2.0})
    first, second, again = (np.asarray(mix(step, IMAGES, LABELS)[0]) for step in (0, 2**32 - 1, 0))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert seen == [2.0]


def test_a_network_that_it_looks_at():
    net, _ = random_net()
    images = RNG.normal(size=(4, 16, 16, 3)).astype(np.float32)
    own = np.eye(net.logits(images).shape[1], dtype=np.float32)[:4]
    options = {"net": net, "label": "first"}
    mix = batch_mixer(MIXERS["attentivemix"], num_classes=own.shape[1], options=options)
    key = jax.random.fold_in(jax.random.key(0), 1)
    expected = MIXERS["attentivemix"](key, jnp.asarray(images), own, net=net, label="first")
    np.testing.assert_allclose(mix(1, images, np.arange(4))[0], expected[0], atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, 3, 1, 1, 2, 4]), r"labels must lie in 0\.\.3; got 0\.\.4"),
        (np.array([0, 3, 1, 1, 2, -1]), r"labels must lie in 0\.\.3; got -1\.\.3"),
        (LABELS.astype(np.float32), r"labels must be integers \[B\] or targets \[B,4\]; got float32"),
        (TARGETS[:, :3], r"labels must be integers \[B\] or targets \[B,4\]; got float32 \[6, 3\]"),
        (LABELS[:5], r"targets must be \[B,K\] with B = 6"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_labels_that_do_not_fit(labels, words):
    with pytest.raises(ValueError, match=words):
        batch_mixer(MIXERS["mixup"], num_classes=4)(0, IMAGES, labels)


def test_what_cannot_be():
    with pytest.raises(
        ValueError, match=r"option of mixup must be one of .*alpha.*\(did you mean 'alpha'"
    ):
        batch_mixer(MIXERS["mixup"], num_classes=4, options={"alhpa": 1.0})
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 2"):
        batch_mixer(MIXERS["mixup"], num_classes=1)
    with pytest.raises(ValueError, match="step must be an integer of"):
        batch_mixer(MIXERS["mixup"], num_classes=4)(-1, IMAGES, LABELS)
    for label in PENDING:
        left_open = batch_mixer(MIXERS["cutmix"], num_classes=4, options={"label": label})
        with pytest.raises(ValueError, match=f"label='{label}' needs the training step of this"):
            left_open(0, IMAGES, LABELS)
