"""Whether an imported network is what it was taken for: its accuracy on the run's labeled images."""

from typing import Any

import jax
import numpy as np

from mixaug_jax import data
from mixaug_jax.core import say, stats, walk
from mixaug_jax.core.types import Config, Net
from mixaug_jax.data.source import numbered_as
from mixaug_jax.models.probability import predicted

IMAGES, ROWS = 300, 50  # images that are looked at, and those of one forward pass


def say_accuracy(net: Net, config: Config) -> None:
    """Says how many of the run's images a network gets right, and warns where that is no better than chance.

    Nothing is said to be wrong where the data cannot tell: no such data, or other classes than the network's.

    Args:
      net: imported.
      config: resolved; reads `data`. The validation split, or the test split where there is no other.
    """
    split = config.data.validation_split or config.data.test_split or config.data.train_split
    classes = len(config.resolved.class_names)
    try:
        source = numbered_as(data.open_source(split, config, annotations=False), classes)
        if source.num_classes != classes:
            say.line(
                f"accuracy not measured: the data have {source.num_classes} classes, the network has {classes}"
            )
            return
        right = hits(net, source, config.data.threads)
    except ValueError as error:  # the stages that need these data refuse them in their turn
        say.line(f"accuracy not measured: {error}")
        return
    low, high = stats.wilson(right.mean(), len(right))
    said = (
        f"accuracy {right.mean():.1%} of {len(right)} images of the {split} split ({low:.1%} to {high:.1%}); chance is "
        f"{1 / classes:.1%}"
    )
    say.line(said)
    if classes > 1 and low <= 1 / classes:
        say.warning(
            "the imported network is no better than chance here: its classes are in another order, or what was assumed of it "
            "(assume, view) is wrong"
        )


def hits(net: Net, source: Any, threads: int) -> np.ndarray:
    """Whether the largest logit is the label's, bool [n], of at most IMAGES images, spread evenly.

    Args:
      net: the network.
      source: as `data.Source`.
      threads: that read.
    """

    def read(index: Any):
        example = source[int(index)]
        return net.preprocess(example["image"]), example["label"]

    chosen = walk.spread(len(source), IMAGES)
    images, labels = zip(*walk.read_ahead(read, chosen, threads), strict=True)
    # Padded to one shape, so that one program serves.
    rows = min(ROWS, len(chosen))
    found = []
    for start in range(0, len(chosen), rows):
        part = walk.pad_rows(np.stack(images[start : start + rows]), rows)
        found.append(np.asarray(_predicted(net, part)))
    return np.concatenate(found)[: len(chosen)] == np.asarray(labels)


@jax.jit
def _predicted(net, images):
    return predicted(net.logits(images))
