"""Labels of mixed images."""

import jax.numpy as jnp

from mixaug_jax.core.types import Numbers, Targets

LABELS = ("mixed", "first", "pasted", "majority")
WEIGHTS = ("published", "normalized")


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
