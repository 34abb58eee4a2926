"""Mixers of hidden features: manifold_mixup."""

import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Bool, Count, Features, RandomKey, Targets
from mixaug_jax.mixing import draws
from mixaug_jax.mixing.labels import LABELS
from mixaug_jax.mixing.pixels import mix_with_partners


def manifold_mixup(
    key: RandomKey,
    images: Features,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 2.0,
    active: bool | Bool[AnyArray, ""] = True,
) -> tuple[Features, Targets]:
    """Mixup of the hidden features of one layer.

    Verma et al., Manifold Mixup, arXiv 1806.05236, section 2: a layer is drawn for
    each batch, its features and the labels are mixed as in mixup. Here the model calls this at
    every candidate layer with the same key, `active` at the one that was drawn, so that one
    compiled step serves all of them.

    Args:
      key: the step's key, equal on all devices; the draws are the same at every layer.
      images: features of the layer, [B,...] floating point of any rank (the images themselves at
        the first candidate).
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one lambda and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets`.
      alpha: lambda ~ Beta(alpha, alpha), 2 as published for CIFAR; 0.2 is used for ImageNet.
      active: bool, may be traced: whether this layer was drawn. Where it was not, lambda is 1 and
        features and targets come back as they are.

    Returns:
      (features, targets), mixed in float32, in the types given.

    Raises:
      ValueError: an option out of range, or arrays that do not fit.
    """
    checks.batch(images, targets, spatial=False)
    draws.check(prob, per)
    checks.choice("label", label, LABELS)
    checks.positive("alpha", alpha)
    permutation, (amount, whether) = draws.streams(key, shard, per, 2)
    shape = draws.shape(per, images)
    # The same draws at every layer, and lambda 1 at those that were not chosen: one program serves all.
    lam = draws.lam(amount, alpha, shape)
    lam = jnp.where(draws.coin(whether, prob, shape) & active, lam, 1)
    return mix_with_partners(permutation, images, targets, lam, lam, label)
