"""Labels of mixed images."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Array, Bool, Count, Float, Integer, Numbers, Targets
from mixaug_jax.mixing import maps

LABELS = ("mixed", "first", "pasted", "majority")
WEIGHTS = ("published", "normalized")
# Of mixers by a mask, and for the training step to settle: each class by what is still seen of it; both images by how much
# the network looks at them.
VISIBLE, ATTENTION = "visible", "attention"
PENDING = (VISIBLE, ATTENTION)
MASK_LABELS = (*LABELS, *PENDING)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pending:
    """Targets of mixed images that no single lambda makes, left to whoever knows more of the images than their pixels.

    Attributes:
      own: [B,K], of the images themselves.
      partner: [B,K], of the images mixed into them.
      mask: float32 [B,H,W] in 0..1, the weight of the image itself at each pixel of the mixed one.
    """

    own: Any
    partner: Any
    mask: Any


def mix_targets(targets: Targets, partner_targets: Targets, lam: Numbers, label: str) -> Targets:
    """The targets of images mixed with the weight `lam` of their own content.

    Args:
      targets: [B,K] rows summing to 1, of the images themselves.
      partner_targets: [B,K], of the images mixed into them.
      lam: [B] or a scalar in 0..1, the share of the image's own content; 1 means not mixed.
      label: "mixed", lam * own + (1 - lam) * partner, as published by every label-mixing method
        (mixup, arXiv 1710.09412, section 2; CutMix, arXiv 1905.04899, eq. 1); or one label for the
        same mixed image: "first", the image's own; "pasted", the partner's, except where nothing
        was mixed in; "majority", the one with the larger share, at one half the image's own. The
        three separate the effect of mixed inputs from that of mixed labels.

    Returns:
      [B,K] in the type of `targets`, computed in float32.
    """
    own = targets.astype(jnp.float32)
    partner = partner_targets.astype(jnp.float32)
    lam = jnp.broadcast_to(jnp.asarray(lam, jnp.float32), targets.shape[:1])[:, None]
    # Functions, so that only the one that is asked for is computed.
    mixed = {
        "mixed": lambda: lam * own + (1 - lam) * partner,
        "first": lambda: own,
        "pasted": lambda: jnp.where(lam < 1, partner, own),
        "majority": lambda: jnp.where(lam >= 0.5, own, partner),
    }[label]()
    return mixed.astype(targets.dtype)


def masked_targets(
    targets: Targets,
    partner_targets: Targets,
    mask: Float[AnyArray, "... H W"] | Bool[AnyArray, "... H W"],
    lam: Numbers,
    label: str,
) -> Targets | Pending:
    """The targets of images that are mixed by a mask.

    Args:
      targets, partner_targets: [B,K], see `mix_targets`.
      mask: weight of the images themselves at each pixel, [H,W] of a whole batch or [B,H,W].
      lam: the mean of `mask`, a scalar or [B].
      label: see `mix_targets`; or "visible" or "attention", which leave the targets pending.
    """
    if label not in PENDING:
        return mix_targets(targets, partner_targets, lam, label)
    shape = (len(targets), *mask.shape[-2:])
    return Pending(targets, partner_targets, jnp.broadcast_to(mask.astype(jnp.float32), shape))


def kept_shares(
    mask: Float[AnyArray, "B H W"], parts: Integer[AnyArray, "B H W"], classes: Count
) -> Float[Array, "B K"]:
    """How much of what each class is told by a mask keeps.

    Args:
      mask: weights in 0..1.
      parts: of the images before they were mixed, 1 + the class that a pixel tells of, 0 where it tells of none.
      classes: K.

    Returns:
      float32 [B,K] in 0..1, the mean of the mask over a class's pixels; over the whole image where a class has none, so that
      what is hidden already counts as what is mixed anywhere.
    """
    own = parts[..., None] == jnp.arange(1, int(classes) + 1)
    count = own.sum((1, 2))
    kept = jnp.where(own, mask[..., None], 0).sum((1, 2)) / jnp.maximum(count, 1)
    return jnp.where(count > 0, kept, mask.mean((1, 2))[:, None])


def attended_share(
    mask: Float[AnyArray, "B H W"], attention: Float[AnyArray, "B n m"]
) -> Float[Array, "B 1"]:
    """The weight of an image's own label by the area that is shown of it and by how much a network looks at that, half each.

    Chen et al., TransMix: Attend to Mix for Vision Transformers, arXiv 2111.09833, section 3.2, in the form of its published
    code, which takes the mean with the area. A mask of one value everywhere, as mixup's, has that value for its share.

    Args:
      mask: the weight of the image itself at each pixel, in 0..1.
      attention: of the class token to each patch, >= 0 of any sum. A patch counts as its first pixel does, as published.

    Returns:
      float32 [B,1]. Attention that is 0 everywhere, or not finite, counts all patches alike.
    """
    row, col = (
        jnp.arange(n) * side // n
        for n, side in zip(attention.shape[1:], mask.shape[1:], strict=True)
    )
    seen = (maps.shares(attention) * mask[:, row[:, None], col]).sum((1, 2))
    return (mask.mean((1, 2)) + seen)[:, None] / 2


def settle(pending: Pending, kept: Float[AnyArray, "B classes"]) -> Targets:
    """Pending targets mixed class by class.

    Args:
      pending: what a mixer left open.
      kept: [B,K] (or [B,1], the same for all classes) in 0..1, the weight of the image's own target.

    Returns:
      [B,K] in the type of the targets, computed in float32.
    """
    own, partner = pending.own.astype(jnp.float32), pending.partner.astype(jnp.float32)
    return (kept * own + (1 - kept) * partner).astype(pending.own.dtype)


def weigh_targets(
    targets: Targets,
    partner_targets: Targets,
    own: Numbers,
    other: Numbers,
    label: str,
    weights: str = "published",
) -> Targets:
    """The targets of images whose own label and whose partner's have weights that need not sum to 1.

    Args:
      targets: [B,K] rows summing to 1, of the images themselves.
      partner_targets: [B,K], of the images mixed into them.
      own, other: [B] >= 0, the weights of the two; (1, 0) means not mixed.
      label: "mixed", own * targets + other * partner_targets; or one label with the weight 1, as in `mix_targets`.
      weights: of "mixed": "published", as they are, so that the sum of a row weighs the example's loss; or "normalized".

    Returns:
      [B,K] in the type of `targets`, computed in float32.
    """
    total = own + other
    share = jnp.where(total > 0, own / jnp.where(total > 0, total, 1), 1)
    # "majority" and "pasted" compare, for which a share is as good as two weights.
    mixed = mix_targets(targets, partner_targets, share, label)
    if label != "mixed" or weights == "normalized":
        return mixed
    own, other = (jnp.asarray(w, jnp.float32)[:, None] for w in (own, other))
    mixed = own * targets.astype(jnp.float32) + other * partner_targets.astype(jnp.float32)
    return mixed.astype(targets.dtype)
