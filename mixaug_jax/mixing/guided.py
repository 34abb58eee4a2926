"""GuidedMixup: each pixel from the image of a pair in which it is the more salient one."""

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Count,
    Float,
    Images,
    Indices,
    Int,
    Net,
    RandomKey,
    Targets,
)
from mixaug_jax.mixing import draws, maps
from mixaug_jax.mixing.labels import MASK_LABELS, Pending, masked_targets
from mixaug_jax.mixing.pixels import mix

SALIENCY = ("spectral", "gradient")
PARTNERS = ("random", "greedy")


def smoothed(saliency: maps.Maps) -> maps.Maps:
    """Saliency [B,H,W] blurred by 7 pixels and divided by its sum; one that is 0 everywhere becomes uniform."""
    return maps.shares(maps.blurred(saliency.astype(jnp.float32)))


def own_weight(saliency: maps.Maps, partner: Indices) -> Float[Array, "B H W"]:
    """The weight of the images themselves at each pixel: their share of both images' maps; one half where both are 0."""
    own, other = saliency, saliency[partner]
    total = own + other
    return jnp.where(total > 0, own / jnp.where(total > 0, total, 1), 0.5)


def guided_mix(
    images: Images, saliency: maps.Maps, partner: Indices
) -> tuple[Images, Float[Array, " B"]]:
    """Images mixed pixel by pixel by the ratio of their maps.

    Args:
      images: [B,H,W,C].
      saliency: [B,H,W] >= 0, see `smoothed`.
      partner: int [B].

    Returns:
      (images, the mean weight of the images themselves [B]).
    """
    weight = own_weight(saliency, partner)
    return mix(images, images[partner], weight[..., None]), weight.mean((1, 2))


def distances(saliency: maps.Maps) -> Float[Array, "B B"]:
    """The Euclidean distance of each pair of maps."""
    flat = saliency.reshape(saliency.shape[0], -1)
    # Differences one row at a time: a product of maps would cancel in float32.
    return jax.lax.map(lambda one: jnp.sqrt(jnp.square(flat - one).sum(-1)), flat)


def far_partners(distance: Float[AnyArray, "B B"]) -> Int[Array, " B"]:
    """Each image's partner on one cycle through all, from the farthest pair on always to the farthest image that is left.

    Args:
      distance: [B,B], symmetric.
    """
    distance, count = jnp.asarray(distance), distance.shape[0]
    if count < 2:
        return jnp.zeros(count, jnp.int32)
    at = jnp.arange(count)
    # Of maps that are all alike the farthest pair is two images, too.
    first, second = jnp.divmod(jnp.where(jnp.eye(count, dtype=bool), -1, distance).argmax(), count)

    def follow(state: tuple, _: None):
        last, left, partner = state
        following = jnp.where(left, distance[last], -1).argmax()
        return (following, left & (at != following), partner.at[last].set(following)), None

    left = (at != first) & (at != second)
    partner = jnp.zeros(count, jnp.int32).at[first].set(second)
    start = (second, left, partner)
    (last, _, partner), _ = jax.lax.scan(follow, start, length=count - 2)
    return partner.at[last].set(first).astype(jnp.int32)


def guidedmixup(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    net: Net = (),
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    saliency: str = "spectral",
    partners: str = "random",
) -> tuple[Images, Targets | Pending]:
    """Each pixel weighted by how salient it is in either image; labels mixed by the mean weight.

    Kang & Kim, GuidedMixup, arXiv 2306.16612, section 3. "greedy" is the paper's pairing of images that are salient in
    different places; the published code for CIFAR asks for it by a name that it does not know and pairs at random.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      net: whose loss tells what is salient, where `saliency` is "gradient"; filled in by the train step.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch", one coin for the batch; or "example". Nothing else is drawn but partners.
      label: what becomes of the labels, see `mix_targets` and `masked_targets`; under "visible" a pixel of both images counts
        by their weights.
      saliency: "spectral", the spectral residual, without a network; or "gradient", of the loss.
      partners: "random", a permutation, as in the published runs; or "greedy", see `far_partners`.

    Returns:
      (images, targets), mixed in float32, in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, or no network where one is needed.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    checks.choice("saliency", saliency, SALIENCY)
    checks.choice("partners", partners, PARTNERS)
    permutation, (whether,) = draws.streams(key, shard, per, 1)
    if saliency == "spectral":
        found = maps.spectral_residual(images)
    else:
        found = maps.gradient(maps.needed("guidedmixup", net), images, targets)
    found = smoothed(found)
    partner = jax.random.permutation(permutation, images.shape[0])
    # Of the images on this device: partners are looked for where the images are.
    if partners == "greedy":
        partner = far_partners(distances(found))
    mixed, share = guided_mix(images, found, partner)
    on = jnp.broadcast_to(draws.coin(whether, prob, draws.shape(per, images)), share.shape)
    mixed = jnp.where(on[:, None, None, None], mixed, images)
    mask = jnp.where(on[:, None, None], own_weight(found, partner), 1)
    return mixed, masked_targets(targets, targets[partner], mask, jnp.where(on, share, 1), label)
