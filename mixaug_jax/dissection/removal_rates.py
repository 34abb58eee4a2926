"""What removals do to accuracy and loss, class by class: numbers of single images made into rates, with draws of the images.

The accuracy of a class is that of telling it from all others, on balance: the mean of the share of its images that are taken
for it and the share of the other images that are not (Bau et al., PNAS 2020); without any knowledge it is 1/2. The balanced
accuracy of the network is the mean over classes of the share of their images that are recognized.
"""

import numpy as np

from mixaug_jax.core.types import AnyArray, Count, Float, Int, Num

REPLICATES = 200  # of the bootstrap over images


def draws(images: Count, replicates: Count = REPLICATES, seed: Count = 0) -> Int[np.ndarray, "R N"]:
    """How often each image is in each bootstrap resample; equal for equal numbers of images, so that resamples of two networks
    are pairs."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(images, np.full(images, 1 / images), size=replicates)


def _share(taken, chosen, weights) -> np.ndarray:
    """The share [R,S] of the chosen images that are taken for a class; NaN where none is chosen."""
    there = weights[:, chosen].sum(1)[:, None]
    hits = weights[:, chosen] @ taken[chosen]
    return np.divide(hits, there, out=np.full(hits.shape, np.nan), where=there > 0)


def _weights(weights, images) -> np.ndarray:
    return np.ones((1, images)) if weights is None else np.asarray(weights, np.float64)


def one_class(
    labels: Int[np.ndarray, " N"],
    predicted: Int[np.ndarray, "N S"],
    number: Count,
    weights: Num[AnyArray, "R N"] | None = None,
) -> Float[np.ndarray, "R S"]:
    """The accuracy of telling a class from all others, on balance.

    Args:
      labels: the true classes.
      predicted: the predicted ones, without each set of units.
      number: of the class.
      weights: how often each image counts, R times over; by default once, R = 1.

    Returns:
      [R,S]; NaN where there are no images of the class, or none of others.
    """
    taken, own = (predicted == number).astype(np.float64), labels == number
    weights = _weights(weights, len(labels))
    return (_share(taken, own, weights) + 1 - _share(taken, ~own, weights)) / 2


def class_accuracy(
    labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, "N S"], classes: Count
) -> Float[np.ndarray, "S K"]:
    """`one_class` of every class 0..K-1, each image once."""
    return np.stack([one_class(labels, predicted, k)[0] for k in range(classes)], -1)


def balanced_accuracy(
    labels: Int[np.ndarray, " N"],
    predicted: Int[np.ndarray, "N S"],
    weights: Num[AnyArray, "R N"] | None = None,
) -> Float[np.ndarray, "R S"]:
    """The mean over classes of the share of their images that are recognized; arguments as those of `one_class`."""
    weights = _weights(weights, len(labels))
    total, count = np.zeros((2, len(weights), predicted.shape[1]))
    for k in np.unique(labels):
        share = _share((predicted == k).astype(np.float64), labels == k, weights)
        # A draw may leave out all images of a class.
        total += np.nan_to_num(share)
        count += ~np.isnan(share)
    return total / count


def class_loss(
    labels: Int[np.ndarray, " N"], loss: Float[np.ndarray, "N S"], classes: Count
) -> Float[np.ndarray, "S K"]:
    """The mean loss over the images of each class; NaN where there is none."""
    found = np.full((loss.shape[1], classes), np.nan)
    for k in np.unique(labels):
        found[:, k] = loss[labels == k].mean(0, np.float64)
    return found


def mean_there(values: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """The mean over the last axis of what is there (not NaN); NaN where nothing is."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0).sum(-1), there.sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
