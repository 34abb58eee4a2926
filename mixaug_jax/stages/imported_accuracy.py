"""Whether an imported network is what it was taken for: its accuracy on the run's labeled images."""

import contextlib
import itertools
from typing import Any

import numpy as np

from mixaug_jax import data
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import say, stats, walk
from mixaug_jax.core.types import Config, Net
from mixaug_jax.data.source import numbered_as
from mixaug_jax.explain.examples import on_devices, predictor

IMAGES, ROWS = 300, 50  # images that are looked at, and those of one forward pass
_UNREAD = -1


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

    Each process of a job looks at its share of them, and all get the same.

    Args:
      net: the network.
      source: as `data.Source`.
      threads: that read.

    Raises:
      ValueError: an image that cannot be read; in all processes.
    """

    def read(index: Any):
        example = source[int(index)]
        return net.preprocess(example["image"]), example["label"]

    chosen, devices = walk.spread(len(source), IMAGES), walk.chosen(None)
    own, net = walk.own(devices), on_devices(net, devices)
    share = walk.share(len(chosen), devices)
    ready = walk.read_ahead(read, chosen[share.start : share.stop], threads)
    found = np.full(len(share), _UNREAD, np.int8)
    # The caller goes on after such an error, so the other processes must not be left waiting: all raise it below.
    with contextlib.suppress(ValueError):
        for start, stop, rows in walk.spans(len(chosen), -(-ROWS // len(devices)), devices):
            batch = list(itertools.islice(ready, stop - start))
            if not batch:  # other processes have one image more
                break
            images, labels = zip(*batch, strict=True)
            # Padded to one shape, so that one program serves.
            images = devices_lib.shard_batch(walk.pad_rows(np.stack(images), rows), own)
            found[start:stop] = np.asarray(predictor(own)(net, images))[: len(batch)] == labels
    found = walk.gather(found, len(chosen), devices)
    unread = chosen[found == _UNREAD]
    for index in unread:
        read(index)  # raises what its own process met
    if len(unread):
        raise ValueError(f"{len(unread)} images could not be read, such as number {unread[0]}")
    return found == 1
