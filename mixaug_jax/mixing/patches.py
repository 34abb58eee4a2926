"""Mixers that exchange the patches of a grid, as vision transformers see images: maskmix, tokenmix."""

import math

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Bool,
    Count,
    Float,
    Images,
    Indices,
    Net,
    RandomKey,
    Targets,
)
from mixaug_jax.mixing import draws, maps
from mixaug_jax.mixing.labels import (
    MASK_LABELS,
    PENDING,
    WEIGHTS,
    Pending,
    masked_targets,
    weigh_targets,
)
from mixaug_jax.mixing.pixels import box_mask, mix_with_partners, repeated

PATTERNS = ("blocks", "random")
SCORES = ("class", "attention", "area")
_TRIES = 10  # for a block that fits, as published
# Blocks that are drawn: of 2000 masks of 14 x 14 tokens none took more than 36, and the mean is 14.
_CANDIDATES = 64
_ASPECT = 1 / 0.3  # the largest, of a block


def maskmix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 1.0,
    cells: int = 4,
) -> tuple[Images, Targets | Pending]:
    """Random cells of a coarse grid come from another image; labels mixed by area.

    Zhao et al., MixPro: Data Augmentation with MaskMix and Progressive Attention Labeling for Vision Transformer,
    arXiv 2304.12043, its MaskMix as in the published code: ceil(lambda * cells^2) cells of the image stay, lambda ~
    Beta(alpha, alpha). Its labels, which trust attention the more the better the network already tells the mixed image, are not
    in here; label="attention" trusts it by half.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one lambda and one coin for the batch; or "example". Which cells stay is each image's own.
      label: what becomes of the labels, see `mix_targets` and `masked_targets`.
      alpha: 1 as published.
      cells: on a side, 4 of 56 pixels each as published; several of a network's patches make a cell.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, or arrays that do not fit.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.positive("alpha", alpha)
    checks.count("cells", cells, 2)
    checks.large_enough(images, cells, "cells")
    permutation, (amount, whether, _) = draws.streams(key, shard, per, 3)
    which = draws.streams(key, shard, "example", 3)[1][2]
    shape, total = draws.shape(per, images), cells**2
    count = jnp.ceil(draws.lam(amount, alpha, shape) * total)
    count = jnp.where(draws.coin(whether, prob, shape), count, total)
    order = jnp.argsort(jax.random.uniform(which, (len(images), total)), axis=1)
    kept = (order < jnp.reshape(count, (-1, 1))).reshape(-1, cells, cells)
    mask = repeated(kept, images.shape[1:3])
    lam = mask.mean((1, 2), dtype=jnp.float32)
    return mix_with_partners(permutation, images, targets, mask[..., None], lam, label)


def add_blocks(
    drawn: Float[AnyArray, "candidates 4"], wanted: Count, tokens: Count
) -> Bool[Array, "tokens tokens"]:
    """A union of rectangles of tokens x tokens, TokenMix's mask.

    Liu et al., TokenMix, arXiv 2207.08409, as in the published code (after BEiT's): rectangles of an area between 1 and what is
    still wanted, none of a whole side, that bring something new and not too much; after ten in a row that do not it is left at
    that.

    Args:
      drawn: uniform in 0..1, for each candidate its area, aspect, row and column.
      wanted: tokens in the union.
      tokens: on a side.

    Returns:
      bool, True in the union.
    """

    def add(state: tuple, one: Array):
        mask, left, failed = state
        area = 1 + one[0] * (left - 1)
        aspect = jnp.exp((2 * one[1] - 1) * math.log(_ASPECT))
        # Halves are rounded to even numbers, as Python does.
        tall, wide = jnp.rint(jnp.sqrt(area * aspect)), jnp.rint(jnp.sqrt(area / aspect))
        row, col = jnp.floor(one[2] * (tokens - tall + 1)), jnp.floor(one[3] * (tokens - wide + 1))
        box = tuple(edge.astype(jnp.int32) for edge in (row, col, row + tall, col + wide))
        new = box_mask(box, tokens, tokens) & ~mask
        count = new.sum()
        fits = (tall < tokens) & (wide < tokens) & (count > 0) & (count <= left) & (failed < _TRIES)
        state = (
            mask | (new & fits),
            left - jnp.where(fits, count, 0),
            jnp.where(fits, 0, failed + 1),
        )
        return state, None

    start = jnp.zeros((tokens, tokens), bool), jnp.int32(wanted), jnp.int32(0)
    return jax.lax.scan(add, start, jnp.asarray(drawn, jnp.float32))[0][0]


def token_weights(
    scores: Float[AnyArray, "B side side"],
    pasted: Bool[AnyArray, "... side side"],
    partner: Indices,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """The share of the image's own scores that is left, and of its partner's that came.

    Args:
      scores: >= 0 of any sum, of the image's own label at each token.
      pasted: [n,n] or [B,n,n], the tokens that come from the partner.
      partner: int [B].
    """
    shares = maps.shares(scores)
    lost, came = (jnp.where(pasted, s, 0).sum((1, 2)) for s in (shares, shares[partner]))
    return 1 - lost, came


def tokenmix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    net: Net = (),
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    tokens: int = 14,
    pasted: float = 4 / 7,
    pattern: str = "blocks",
    scores: str = "class",
    weights: str = "published",
    layer: str = "",
) -> tuple[Images, Targets | Pending]:
    """Several rectangles of tokens come from another image; labels by the scores that the tokens have at a network.

    Liu et al., TokenMix: Rethinking Image Mixing for Data Augmentation in Vision Transformers, arXiv 2207.08409, section 3, as
    in the published code, which alternates it with mixup by a coin. There a large convolutional teacher has scored all images
    beforehand; here `net` is asked at each step: the probability of the image's own class where its head is applied to each
    node. The two weights, of what is left of the image's scores and of what came of its partner's, need not sum to 1.
    (OpenMixup, arXiv 2209.04851, gives each image's attention to the other's tokens.)

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      net: whose scores count; filled in by the train step.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one mask and one coin for the batch; or "example".
      label: what becomes of the labels, see `weigh_targets` and `masked_targets`.
      tokens: on a side of the grid, 14 of 16 pixels each as published; best as many as the network has.
      pasted: the share of them that is wanted of the partner, 112 of 196 as published, to a whole token.
      pattern: "blocks" as published, see `add_blocks`, of at most 64 candidates; or "random", single tokens.
      scores: "class", of a network whose head takes maps of any size; "attention", of a vision transformer's class token; or
        "area", of no network.
      weights: "published", or "normalized", divided by their sum.
      layer: whose nodes have scores of the class; "" is the last with 4 x 4 nodes.

    Returns:
      (images, targets), in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, no network, or one without such scores.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.count("tokens", tokens, 2)
    checks.large_enough(images, tokens, "tokens")
    checks.fraction("pasted", pasted)
    for name, value, known in (("pattern", pattern, PATTERNS), ("scores", scores, SCORES)):
        checks.choice(name, value, known)
    checks.choice("weights", weights, WEIGHTS)
    permutation, (which, whether) = draws.streams(key, shard, per, 2)
    shape = draws.shape(per, images)
    taken = _taken(which, shape, pattern, round(pasted * tokens**2), tokens)
    # Where the coin says no, no token is taken, and image and label stay as they are.
    taken &= draws.coin(whether, prob, shape)[..., None, None]
    partner = jax.random.permutation(permutation, len(images))
    mask = repeated(~taken, images.shape[1:3])
    mixed = jnp.where(mask[..., None], images, images[partner])
    # The share of the area asks no network.
    if label in PENDING or scores == "area":
        lam = mask.mean((-2, -1), dtype=jnp.float32)
        return mixed, masked_targets(targets, targets[partner], mask, lam, label)
    found = _scores(net, images, targets, scores, layer)
    found = jax.image.resize(found, (len(images), tokens, tokens), "linear")
    own, other = token_weights(found, taken, partner)
    return mixed, weigh_targets(targets, targets[partner], own, other, label, weights)


def _taken(key, shape, pattern, wanted, tokens):
    """The tokens [*shape,n,n] that come from the partner."""
    if pattern == "random":
        order = jnp.argsort(jax.random.uniform(key, (*shape, tokens**2)), axis=-1)
        return (order < wanted).reshape(*shape, tokens, tokens)
    drawn = jax.random.uniform(key, (*shape, _CANDIDATES, 4))
    if not shape:
        return add_blocks(drawn, wanted, tokens)
    return jax.vmap(lambda one: add_blocks(one, wanted, tokens))(drawn)


def _scores(net, images, targets, scores, layer):
    """Scores [B,n,n] of each image's own label."""
    net = maps.needed("tokenmix", net)
    if scores == "attention":
        return maps.attention(net, images)
    if getattr(getattr(net, "model", None), "has_attention", False):
        raise ValueError(
            "scores='class' asks the head at each patch, and a vision transformer's sees the class token alone; use "
            "scores='attention' or 'area', or a convolutional network in mix.net"
        )
    if getattr(net, "loss", "softmax") != "softmax":
        raise ValueError("scores='class' needs images of one class each: train.loss='softmax'")
    return maps.probability(net, images, targets, layer)
