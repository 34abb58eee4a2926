"""What a network says of each class: by softmax, by sigmoid, and with a single logit."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.special
from attribution_cases import random_net

from mixaug_jax.models import Net, build, probability
from mixaug_jax.models.net import count_classes, count_logits

LOGITS = np.float32([[0.5, -2.0, 90.0], [-1.0, 0.0, 3.0]])


@dataclasses.dataclass(frozen=True)
class Said:
    """All that is asked of a network here."""

    loss: str


def test_probabilities():
    softmax = probability.probabilities(Said("softmax"), LOGITS)
    np.testing.assert_allclose(softmax, scipy.special.softmax(LOGITS, -1), rtol=1e-6, atol=1e-30)
    sigmoid = probability.probabilities(Said("sigmoid"), LOGITS)
    np.testing.assert_allclose(sigmoid, scipy.special.expit(LOGITS), rtol=1e-6)
    np.testing.assert_array_equal(probability.predicted(LOGITS), [2, 2])
    # A network that does not say by what it was trained is one of softmax.
    np.testing.assert_array_equal(probability.probabilities(object(), LOGITS), softmax)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_one_logit_tells_two_classes_apart(loss):
    z = np.float32([[2.0], [-0.5], [0.0]])
    right = scipy.special.expit(np.concatenate([-z, z], 1))
    np.testing.assert_allclose(probability.probabilities(Said(loss), z), right, rtol=1e-6)
    np.testing.assert_array_equal(probability.predicted(z), [1, 0, 0])
    np.testing.assert_array_equal(probability.class_logits(z), np.concatenate([-z, z], 1))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_logarithms_do_not_overflow(loss):
    for logits in (np.float32([[-300.0, 300.0]]), np.float32([[300.0]])):
        found = np.asarray(probability.log_probabilities(Said(loss), logits))
        assert np.isfinite(found).all()
        assert found[0, 0] <= -300
        mild = logits / 100
        logarithm = np.log(probability.probabilities(Said(loss), mild))
        np.testing.assert_allclose(
            probability.log_probabilities(Said(loss), mild), logarithm, rtol=1e-5
        )


def test_how_many_logits():
    assert probability.logits_for("softmax", 2) == 2
    assert probability.logits_for("sigmoid", 2) == 1
    assert probability.logits_for("sigmoid", 2, multi_label=True) == 2
    assert probability.logits_for("sigmoid", 7) == 7
    net, images = random_net(1)
    assert count_logits(net, images.shape[1:]) == 1
    assert count_classes(net, images.shape[1:]) == 2
    assert count_classes(random_net(5)[0], images.shape[1:]) == 5


def test_a_net_knows_its_loss():
    net, images = random_net(3)
    assert net.loss == "softmax"
    other = dataclasses.replace(net, loss="sigmoid")
    # It is part of the program, not of the variables.
    assert jax.tree.structure(net) != jax.tree.structure(other)
    wrapped = Net.wrap(net.model, net.variables, net.preprocess, loss="sigmoid")
    f = jax.jit(lambda net, x: probability.probabilities(net, net.logits(x)))
    np.testing.assert_allclose(f(net, images).sum(-1), 1, rtol=1e-5)
    assert np.abs(np.asarray(f(wrapped, images)).sum(-1) - 1).min() > 0.01
    with pytest.raises(ValueError, match="loss must be one of softmax, sigmoid; got 'bce'"):
        dataclasses.replace(net, loss="bce")
    assert build.described(other)["name"] == "tiny"
