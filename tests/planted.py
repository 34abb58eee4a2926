"""A network whose units are what the preprocessing makes of an image, and images for it."""

import zlib
from typing import ClassVar

import jax
import numpy as np

from mixaug_jax.data.source import Source
from mixaug_jax.models import Net
from mixaug_jax.models.layers import StagedModel

NAMES = (
    ("none", "none"),
    ("cat", "object"),
    ("dog", "object"),
    ("paw", "part"),
    ("fur", "material"),
)


class Planted(StagedModel):
    """Stages: pixels (the input itself), mixed (a convolution of it), fc."""

    layers: ClassVar = ("pixels", "mixed", "fc")

    def run(self, layer, x, train):
        if layer == "pixels":
            return x
        if layer == "mixed":
            return self.relu("relu", self.conv("conv", x, 6, 3, 2, bias=True, train=train))
        return self.dense("fc", self.global_average("avgpool", x), 3)


def shares(image):
    """uint8 -> 0..1, the whole image."""
    return image.astype(np.float32) / 255


def noise(image):
    """16 units of smooth noise [8, 8, 16] that only a checksum of the image decides."""
    draw = np.random.default_rng(zlib.crc32(image))
    coarse = draw.standard_normal((3, 3, 16), dtype=np.float32)
    return np.asarray(jax.image.resize(coarse, (8, 8, 16), "bilinear"))


def net(preprocess=shares, seed=0, channels=3):
    model = Planted()
    variables = model.init(jax.random.key(seed), np.zeros((1, 8, 8, channels), np.float32))
    return Net(model, variables, preprocess)


def source(images=12, side=16, seed=0, names=NAMES):
    """Images whose channels are the masks of concepts 1, 2 and 3; concept 4 is everywhere else.

    Label maps have two slots; the second one repeats the first in half of the pixels.
    """
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 5, (images, 4, 4))
    labels = coarse.repeat(side // 4, 1).repeat(side // 4, 2).astype(np.uint8)
    again = np.where(draw.random(labels.shape) < 0.5, labels, 0).astype(np.uint8)
    pixels = (255 * (labels[..., None] == np.arange(1, 4))).astype(np.uint8)

    def read(i):
        concepts = np.stack([labels[i], again[i]], -1)
        return {"image": pixels[i], "label": 0, "concepts": concepts}

    return Source(read, images, ("a", "b"), names)
