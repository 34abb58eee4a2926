"""What the tests of scores share: golden arrays on the golden network, and a network that is linear."""

from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np

from mixaug_jax.explain import job
from mixaug_jax.models import Net, Preprocess
from mixaug_jax.scores import SCORES
from mixaug_jax.scores.score import as_score

HEATS = ("grad", "random", "gradcam")


class Linear(nn.Module):
    """Logits that are linear in the image, and take a sum of features to be exactly their sum."""

    layers: ClassVar = ("fc",)
    classes: int

    @nn.compact
    def __call__(self, x, train=False, start="", stop=""):
        return nn.Dense(self.classes, name="fc")(x.reshape(len(x), -1))


def linear_net(shape=(6, 7, 3), classes=4, seed=0):
    """A linear network with random weights, an image, and each class's exact contributions [classes,h,w,C] (baseline 0)."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(image.size, classes)).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    variables = {"params": {"fc": {"kernel": kernel, "bias": bias}}}
    net = Net(Linear(classes), variables, Preprocess(shape[0]))
    return net, image, kernel.T.reshape(classes, *shape) * image


def said(*names, kind="method", title="gradient", brought=()):
    """What results say of a method and of scores and their parts by name; `brought`: scores of a test's own."""
    scores = SCORES | {entry.__name__: as_score(entry) for entry in brought}
    facts = job.Job({}, scores, job.Options()).facts()
    return {"kind": kind, "title": title, "scores": {name: facts[name] for name in names}}


def run(name, heats, net, images, labels, each=None, **options):
    """The score of every image, jitted with the net as an argument; `each` holds arrays with a row for each image."""
    each = each or {}

    def one(heat, net, image, label, each):
        return SCORES[name](heat, net, image, label, **each, **options)

    f = jax.jit(jax.vmap(one, (0, None, 0, 0, 0)))
    return np.asarray(f(heats, net, images, labels, each))


def near(actual, expected, tolerance):
    """Within `tolerance`, absolutely, everywhere, and of the same shape."""
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
