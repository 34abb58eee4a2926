"""Mixers of the last map before the head: alignmix, batchmixup."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Bool,
    Count,
    Features,
    Float,
    Indices,
    Numbers,
    RandomKey,
    Targets,
)
from mixaug_jax.mixing import draws
from mixaug_jax.mixing.labels import LABELS, mix_targets
from mixaug_jax.mixing.pixels import mix

PLACES = ("input", "last")
_EXACT = jax.lax.Precision.HIGHEST


def _check_layers(layers):
    checks.choices("layers", layers, PLACES)
    # Labels are mixed at each draw: a place that is never reached would leave images unmixed beneath them.
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(
            f"layers must be one or both of {checks.listed(PLACES)}, each once; got {tuple(layers)}"
        )


def sinkhorn_plan(
    features: Float[AnyArray, "B h w C"],
    partners: Float[AnyArray, "B h w C"],
    *,
    epsilon: float = 0.1,
    iterations: int = 100,
    tolerance: float = 0.1,
) -> Float[Array, "B N N"]:
    """The entropic transport plan between the nodes of two maps, times their number N = h * w, so that its rows sum to 1.

    Cuturi, Sinkhorn Distances, arXiv 1306.0895, in logarithms, as in AlignMixup's published code (arXiv 2103.15375): squared
    distances of features, and it stops once the mean over the batch of the change of the row potentials, summed over nodes, is
    below `tolerance`, so that a plan depends on its batch.

    Args:
      features, partners: [B,h,w,C].
      epsilon: weight of the entropy.
      iterations: rounds at most.
      tolerance: see above; 0 makes all rounds.
    """
    a, b = (x.astype(jnp.float32).reshape(len(x), -1, x.shape[-1]) for x in (features, partners))
    cost = jnp.square(a).sum(-1)[:, :, None] + jnp.square(b).sum(-1)[:, None]
    # |a - b|^2 by one product of matrices; rounding can leave a small negative number.
    cost -= 2 * jnp.einsum("bnc,bmc->bnm", a, b, precision=_EXACT)
    cost = jnp.maximum(cost, 0)
    # The small number is the published code's.
    mass = jnp.log(1 / a.shape[1] + 1e-8)

    def rest(u: Array, v: Array):
        return (-cost + u[:, :, None] + v[:, None]) / epsilon

    def going(state: tuple):
        turn, _, _, change = state
        return (turn < iterations) & (change >= tolerance)

    def again(state: tuple):
        turn, u, v, _ = state
        # Columns see the new row potentials already, as in the published code.
        new = epsilon * (mass - jax.nn.logsumexp(rest(u, v), 2)) + u
        v = epsilon * (mass - jax.nn.logsumexp(rest(new, v), 1)) + v
        return turn + 1, new, v, jnp.abs(new - u).sum(-1).mean()

    zero = jnp.zeros(a.shape[:2], jnp.float32)
    _, u, v, _ = jax.lax.while_loop(going, again, (jnp.int32(0), zero, zero, jnp.float32(jnp.inf)))
    return a.shape[1] * jnp.exp(rest(u, v))


def align_mix(
    features: Float[AnyArray, "B h w C"],
    plan: Float[AnyArray, "B N N"],
    partner: Indices,
    lam: Numbers,
    onto_own: bool | Bool[AnyArray, "..."],
) -> Float[Array, "B h w C"]:
    """Maps mixed after one of them was aligned with the other: lam A + (1 - lam) P A', or lam P^T A + (1 - lam) A'.

    Args:
      features: [B,h,w,C].
      plan: [B,N,N], see `sinkhorn_plan`; a constant.
      partner: int [B].
      lam: a scalar or [B], the weight of the image's own features.
      onto_own: whether the partner is aligned with the image, or the image with its partner; () or [B].
    """
    own = features.astype(jnp.float32).reshape(len(features), -1, features.shape[-1])
    other = own[partner]
    lam, onto_own = (jnp.reshape(jnp.asarray(x), (-1, 1, 1)) for x in (lam, onto_own))
    # Both ways are computed: which one is taken may differ from example to example.
    moved = jnp.einsum("bnm,bmc->bnc", plan, other, precision=_EXACT)
    back = jnp.einsum("bnm,bnc->bmc", plan, own, precision=_EXACT)
    mixed = jnp.where(onto_own, lam * own + (1 - lam) * moved, lam * back + (1 - lam) * other)
    return mixed.reshape(features.shape).astype(features.dtype)


def alignmix(
    key: RandomKey,
    images: Features,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 2.0,
    iterations: int = 100,
    layers: Sequence[str] = ("input", "last"),
    active: bool | Bool[AnyArray, ""] = True,
    deepest: bool = True,
) -> tuple[Features, Targets]:
    """Mixup of the input, or of the last map after its nodes were aligned by optimal transport.

    Venkataramanan et al., AlignMixup, arXiv 2103.15375, section 3, as in the published code for CIFAR: a coin for the layer,
    and one for whose places count. (The decoder of the paper's third view is not in that code.) Here the model calls this at
    both places with the same key, `active` at the one that was drawn, as in `manifold_mixup`.

    Args:
      key: the step's key, equal on all devices; the draws are the same at both places.
      images: features, [B,h,w,C] at the last map, [B,...] elsewhere.
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one lambda and one coin for the batch; or "example".
      label: what becomes of the labels, see `mix_targets`.
      alpha: lambda ~ Beta(alpha, alpha), 2 as published for CIFAR.
      iterations: rounds of `sinkhorn_plan` at most.
      layers: the places of which one is drawn for each batch, by whoever calls this: "input", "last", the last layer that gives
        a map, or both.
      active: bool, may be traced: whether this place was drawn.
      deepest: whether this is the last map, whose nodes are aligned, or the input.

    Returns:
      (features, targets), mixed in float32, in the types given.

    Raises:
      checks.UnsupportedError: tokens, as a vision transformer's last layer gives.
      ValueError: an option out of range, or arrays that do not fit.
    """
    if deepest and images.ndim != 4:
        what = "tokens" if images.ndim == 3 else "features"
        raise checks.UnsupportedError(
            f"alignmix aligns the nodes of maps [B,h,w,C], and the last layer gives {what} {list(images.shape)}; use a "
            "convolutional network, or mix.layers=('input',)"
        )
    checks.batch(images, targets, spatial=False)
    draws.check(prob, per)
    checks.choice("label", label, LABELS)
    checks.positive("alpha", alpha)
    checks.count("iterations", iterations)
    _check_layers(layers)
    permutation, (amount, whether, whose) = draws.streams(key, shard, per, 3)
    shape = draws.shape(per, images)
    lam = draws.lam(amount, alpha, shape)
    on = draws.coin(whether, prob, shape) & active
    lam = jnp.where(on, lam, 1)
    partner = jax.random.permutation(permutation, images.shape[0])
    labels = mix_targets(targets, targets[partner], lam, label)
    if not deepest:
        return mix(images, images[partner], lam), labels
    # Nothing is differentiated through the plan, as published.
    known = jax.lax.stop_gradient(images)
    plan = jax.lax.stop_gradient(sinkhorn_plan(known, known[partner], iterations=iterations))
    mixed = align_mix(images, plan, partner, lam, draws.coin(whose, 0.5, shape))
    return jnp.where(jnp.reshape(on, (-1, 1, 1, 1)), mixed, images), labels


def batchmixup(
    key: RandomKey,
    images: Features,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    temperature: float = 1.0,
    layers: Sequence[str] = ("last",),
    active: bool | Bool[AnyArray, ""] = True,
) -> tuple[Features, Targets]:
    """Each example a random mean of the whole batch, of its last maps and of its labels.

    Yin et al., Batchmixup: Improving training by interpolating hidden states of the entire mini-batch, Findings of ACL 2021,
    doi 10.18653/v1/2021.findings-acl.434: the weights of a mean are a softmax of uniform draws. Published for pooled features
    and batches of 5, of which 400 means are made; here as many as there are examples, and of the maps before the pooling, which
    is the same where a mean over space follows. With 32 examples or more a softmax of draws in 0..1 is nearly the mean of the
    batch: a lower `temperature` makes the weights differ.

    Args:
      key: the step's key, equal on all devices.
      images: features, [B,...].
      targets: [B,K] rows summing to 1.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch", one coin for the batch; or "example". Weights are an example's own.
      temperature: what the draws are divided by, 1 as published.
      layers: as in `alignmix`.
      active: bool, may be traced: whether this place was drawn.

    Returns:
      (features, targets), mixed in float32, in the types given.

    Raises:
      ValueError: an option out of range, or arrays that do not fit.
    """
    checks.batch(images, targets, spatial=False)
    draws.check(prob, per)
    checks.positive("temperature", temperature)
    _check_layers(layers)
    permutation, (whether,) = draws.streams(key, shard, per, 1)
    count = images.shape[0]
    weights = jax.nn.softmax(jax.random.uniform(permutation, (count, count)) / temperature)
    on = draws.coin(whether, prob, draws.shape(per, images)) & active
    on = jnp.broadcast_to(on, (count,))
    weights = jnp.where(on[:, None], weights, jnp.eye(count))

    def means(x: Features):
        flat = x.astype(jnp.float32).reshape(count, -1)
        mixed = jnp.matmul(weights, flat, precision=_EXACT).reshape(x.shape)
        # Not left to the identity: a product with it rounds.
        return jnp.where(on.reshape(-1, *[1] * (x.ndim - 1)), mixed, x).astype(x.dtype)

    return means(images), means(targets)
