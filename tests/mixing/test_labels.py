"""What becomes of the labels of mixed images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.mixing import LABELS, MIXERS, mix_targets
from mixaug_jax.mixing.labels import weigh_targets

OWN = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], np.float32)
PARTNER = np.array([[0, 1], [0, 1], [0, 1], [0, 1]], np.float32)
LAM = np.array([1, 0.75, 0.5, 0.25], np.float32)


@pytest.mark.parametrize(
    ("label", "own_share"),
    [
        ("mixed", [1, 0.75, 0.5, 0.25]),
        ("first", [1, 1, 1, 1]),
        ("pasted", [1, 0, 0, 0]),  # of an image into which nothing was mixed: its own
        ("majority", [1, 1, 1, 0]),  # at one half: its own
    ],
)
def test_labels(label, own_share):
    targets = mix_targets(jnp.asarray(OWN), jnp.asarray(PARTNER), LAM, label)
    np.testing.assert_array_equal(targets[:, 0], own_share)
    np.testing.assert_array_equal(np.sum(targets, -1), 1)


def test_lam_may_be_a_scalar():
    targets = mix_targets(jnp.asarray(OWN), jnp.asarray(PARTNER), 0.25, "mixed")
    np.testing.assert_array_equal(targets, np.tile([[0.25, 0.75]], (4, 1)))


def test_smoothed_and_half_precision_targets():
    smooth = jnp.asarray(0.9 * OWN + 0.05, jnp.bfloat16)
    for label in LABELS:
        targets = mix_targets(smooth, smooth[::-1], LAM, label)
        assert targets.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.sum(targets, -1, dtype=np.float32), 1, atol=1e-2)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "guidedmixup"])
def test_a_label_changes_the_label_only(name):
    """The same draws, the same images, whatever becomes of the labels."""
    images = jax.random.normal(jax.random.key(0), (8, 12, 12, 3))
    targets = jnp.eye(8)
    by_label = {
        label: jax.jit(
            lambda x, t, label=label: MIXERS[name](
                jax.random.key(3), x, t, per="example", label=label
            )
        )(images, targets)
        for label in LABELS
    }
    for out, _ in by_label.values():
        np.testing.assert_array_equal(out, by_label["mixed"][0])
    lam = np.diag(by_label["mixed"][1])
    np.testing.assert_array_equal(by_label["first"][1], targets)
    chosen = np.argmax(by_label["mixed"][1] - np.diag(lam), -1)
    own = np.arange(8)
    pasted, majority = (np.argmax(by_label[label][1], -1) for label in ("pasted", "majority"))
    np.testing.assert_array_equal(pasted, np.where(lam < 1, chosen, own))
    np.testing.assert_array_equal(majority, np.where(lam >= 0.5, own, chosen))


def test_two_weights_that_need_not_sum_to_1():
    own, other = (
        np.array([1, 0.9, 0.25, 0.75], np.float32),
        np.array([0, 0.6, 0.25, 1.5], np.float32),
    )
    published = weigh_targets(OWN, PARTNER, own, other, "mixed")
    np.testing.assert_array_equal(published, np.stack([own, other], 1))
    normalized = weigh_targets(OWN, PARTNER, own, other, "mixed", "normalized")
    np.testing.assert_allclose(normalized[:, 0], own / (own + other), rtol=1e-6)
    for label, first in (
        ("first", [1, 1, 1, 1]),
        ("pasted", [1, 0, 0, 0]),
        ("majority", [1, 1, 1, 0]),
    ):
        one = weigh_targets(OWN, PARTNER, own, other, label)
        np.testing.assert_array_equal(one, np.stack([first, 1 - np.array(first)], 1))
