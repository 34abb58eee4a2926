"""What a training minimizes and what it counts as right, for images of one class or of several."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from mixaug_jax.core.types import AnyArray, Config, Dataset, Float, Logits, Targets


def check_loss(config: Config, source: Dataset) -> None:
    """Raises ValueError where a data set's labels are none that train.loss can learn."""
    if source.multi_label and config.train.loss != "sigmoid":
        raise ValueError(
            f"train.loss must be 'sigmoid' for {config.data.name}, whose images may show several classes at once; "
            f"got {config.train.loss!r}"
        )


def example_losses(
    logits: Logits, targets: Targets, weights: Targets, loss: str = "softmax"
) -> Float[AnyArray, " B"]:
    """What each example adds to the mean loss, [B].

    Args:
      logits: [B,K].
      targets: [B,K] in 0..1; rows sum to 1 under "softmax".
      weights: [B,K] in 0..1, 0 where a class's target is not known; "softmax" does not look at them.
      loss: "softmax", the cross-entropy; or "sigmoid", the binary cross-entropy of each class, of which an example's is the
        mean over its known classes (0 where none is known), as PyTorch's BCEWithLogitsLoss where all are known.
    """
    if loss == "softmax":
        return optax.softmax_cross_entropy(logits, targets)
    each = optax.sigmoid_binary_cross_entropy(logits, targets)
    return _known_mean(each, weights)


def _known_mean(values, weights):
    total = weights.sum(-1)
    return (values * weights).sum(-1) / jnp.where(total > 0, total, 1)


def targets_of(batch: Mapping, config: Config) -> tuple[Targets, Targets]:
    """The targets of the network's logits, [B,K] in 0..1, and their weights, [B,K]."""
    if "targets" in batch:
        return batch["targets"], batch.get("weights", jnp.ones_like(batch["targets"]))
    logits = config.resolved.get("logits", len(config.resolved.class_names))
    label = batch["label"]
    # One logit's class is 1: its target is the label itself.
    targets = label[:, None] * 1.0 if logits == 1 else jax.nn.one_hot(label, logits)
    return targets, jnp.ones_like(targets)


def smoothed(targets: Targets, train: Config) -> Targets:
    """Targets [B,K] with train.label_smoothing: shared between all classes, or under "sigmoid" by each with its absence."""
    if train.loss == "sigmoid":
        return targets + train.label_smoothing * (0.5 - targets)
    return optax.smooth_labels(targets, train.label_smoothing)


def right(
    logits: Logits, targets: Targets, weights: Targets, *, several: bool = False
) -> Float[AnyArray, " B"]:
    """The share of right answers of each example, [B] in 0..1, whose mean is the accuracy.

    Args:
      logits, targets, weights: [B,K] as in `example_losses`.
      several: whether an example may have several classes. Then it counts how many of the known ones have a probability on
        their target's side of one half; else whether the predicted class is that with the largest (mixed) target.
    """
    if several:
        return _known_mean((logits > 0) == (targets > 0.5), weights)
    if logits.shape[-1] == 1:
        return ((logits > 0) == (targets > 0.5))[:, 0].astype(jnp.float32)
    return (logits.argmax(-1) == targets.argmax(-1)).astype(jnp.float32)
