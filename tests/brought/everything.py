"""A config file that brings a mixer, a network, a data set, a method and a score of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import config
from mixaug_jax.attribution import METHODS
from mixaug_jax.data import SOURCES
from mixaug_jax.data.source import Source
from mixaug_jax.mixing import MIXERS
from mixaug_jax.models import MODELS
from mixaug_jax.scores import SCORES, Score

COUNTS = {"train": 48, "validation": 24, "test": 24}


def averaged(key, images, targets, *, share=0.25):
    """A quarter of the next image of a random order."""
    partner = jax.random.permutation(key, len(images))
    mixed = (1 - share) * images + share * images[partner]
    return mixed, (1 - share) * targets + share * targets[partner]


class Small(nn.Module):
    """Two convolutions as Flax's documentation writes them."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv1")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(8, (3, 3), name="conv2")(x))
        return nn.Dense(self.num_classes, name="logits")(x.mean((1, 2)))


def halves(split, config, *, annotations=True):
    """Bright on the left or on the right, with the bright half as a concept."""
    first = sum(list(COUNTS.values())[: list(COUNTS).index(split)])
    side = config.data.size

    def read(index):
        rng = np.random.default_rng(first + index)
        left = np.broadcast_to(np.arange(side) < side // 2, (side, side))
        on = left if index % 2 == 0 else ~left
        image = rng.integers(0, 90, (side, side, 3)) + 140 * on[..., None]
        example = {"image": image.astype(np.uint8), "label": index % 2}
        return example | {"concepts": on[..., None].astype(np.uint8)} if annotations else example

    names = (("none", "none"), ("left", "object")) if annotations else ()
    return Source(read, COUNTS[split], ("left", "right"), concept_names=names)


def brightness(net, image, label):
    """Whatever is bright."""
    return image.sum(-1, keepdims=True)


def left_share(heatmap):
    """The share of the positive heat on the left."""
    heat = jnp.maximum(heatmap, 0)
    return heat[:, : heat.shape[1] // 2].sum() / jnp.maximum(heat.sum(), 1e-9)


MIXERS["averaged"] = averaged
MODELS["small"] = Small
SOURCES["halves"] = halves
METHODS["brightness"] = brightness
SCORES["left_share"] = Score(left_share, better=-1, title="share on the left")


def get_config():
    settings = config.get_config("averaged", "halves")
    settings.data.update(
        size=16, batch_size=16, crop="none", jitter=0.0, test_split="test", resize=1.0
    )
    settings.model.name = "small"
    settings.train.epochs = 2
    settings.eval.batch_size = 16
    settings.dissect.update(layers=("conv2",), shuffles=1, max_images=16)
    settings.explain.methods = ("gradient", "brightness")
    settings.explain.scores = ("mass_accuracy", "left_share", "deletion")
    settings.explain.max_images = 8
    settings.occlude.light = 0
    settings.intervene.update(max_images=8, sets=("units",))
    return settings
