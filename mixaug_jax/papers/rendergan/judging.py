"""Checks of a trained generator: what each link is worth, whether labels are kept, and whether its pictures can be told apart.

gan/worth.csv     Shapley values of the links on the discriminator's logit
gan/kept.csv      bits that a decoder of another run reads right after each link (markers.reader)
gan/apart.csv     how often a fresh network tells real pictures from made ones
"""

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixaug_jax.core import stats
from mixaug_jax.core.types import AnyArray, Array, Count, Float, Net
from mixaug_jax.data.markers.tags import BITS
from mixaug_jax.models import probability
from mixaug_jax.papers.rendergan import adversary, chain

_STEPS, _BATCH, _RATE = 300, 64, 1e-3  # of the fresh network
_HELD = 4  # one of so many pictures is what it is judged on
_READ = 100  # pictures that a decoder reads at once
SUBSETS = np.array(list(itertools.product((False, True), repeat=len(chain.CHAIN))))


def shapley(values: Float[AnyArray, "subsets N"]) -> Float[np.ndarray, "players N"]:
    """The Shapley values of players, from what every subset of them is worth.

    Shapley, A value for n-person games, 1953: a player's mean gain over all orders in which players may come; exact.

    Args:
      values: [2^L,N], N games; subset i has player k where bit k of i is set, the first player's bit being the most
        significant, as in `SUBSETS`.

    Returns:
      float64 [L,N]; a column sums to what all are worth less what none is worth.
    """
    values = np.asarray(values, np.float64)
    players = int(math.log2(len(values)))
    found = np.zeros((players, values.shape[1]))
    for subset in range(len(values)):
        size = subset.bit_count()
        for k in range(players):
            bit = 1 << (players - 1 - k)
            if not subset & bit:
                weight = 1 / (players * math.comb(players - 1, size))
                found[k] += weight * (values[subset | bit] - values[subset])
    return found


def logits_of_subsets(
    generator: Any, discriminator: Any, params: Mapping, real: Any, seed: Count
) -> Float[Array, "subsets N"]:
    """The discriminator's logits of the same markers under every subset of links, [16,N].

    As in training, real pictures are in the same batch, whose statistics its norms use. A link that is left out leaves the
    pictures as they are; those that follow see that.

    Args:
      generator, discriminator: modules of one device.
      params: {"generator", "discriminator"}.
      real: pictures [N,S,S] in -1..1.
      seed: of the markers.
    """
    keys = jax.random.split(jax.random.key(seed), len(real))
    return _judged(generator, discriminator)(params, real, keys)


@functools.lru_cache(maxsize=2)
def _judged(generator, discriminator):
    def judged(params: Mapping, real: Any, keys: Any, kept: Any):
        _, _, pictures, _ = adversary.generate(generator, params["generator"], keys, kept)
        both = jnp.concatenate([real, adversary.last(pictures)])
        return discriminator.apply({"params": params["discriminator"]}, both)[len(real) :]

    def each(params: Any, real: Any, keys: Any):
        subsets = jnp.asarray(SUBSETS)
        return jax.lax.map(functools.partial(judged, params, real, keys), subsets)

    return jax.jit(each)


def worth(logits: Float[AnyArray, "subsets N"]) -> list[tuple]:
    """Rows (link, Shapley value, low, high) of `logits_of_subsets`, then what none and all give; intervals over pictures."""
    logits = np.asarray(logits)
    values = dict(zip(chain.CHAIN, shapley(logits), strict=True))
    values |= {"no link": logits[0], "all links": logits[-1]}
    return [(name, *stats.mean_interval(value)[:3]) for name, value in values.items()]


def told_apart(
    discriminator: Any, real: Float[AnyArray, "N S S"], made: Float[AnyArray, "N S S"], seed: Count
) -> np.ndarray:
    """Whether a fresh network, trained to tell made pictures from real ones, is right about those that it has not seen.

    Args:
      discriminator: the module, of one device; trained from new weights.
      real, made: as many of each; every fourth is held out.
      seed: of the weights and the batches.

    Returns:
      bool [2 n], of the held out ones, real ones first. One half right: they cannot be told apart.
    """
    held = np.arange(len(real)) % _HELD == 0
    learned, asked = ((real[part], made[part]) for part in (~held, held))
    logits = np.asarray(_fresh(discriminator)(learned, asked, jax.random.key(seed)))
    half = len(logits) // 2
    return np.concatenate([logits[:half] > 0, logits[half:] <= 0])


@functools.lru_cache(maxsize=2)
def _fresh(discriminator):
    adam = optax.adam(_RATE)

    def loss(params: Any, real: Any, made: Any):
        logits = discriminator.apply({"params": params}, jnp.concatenate([real, made]))
        # Logistic loss, real pictures being 1; equally many of both, so that half is chance.
        return (jax.nn.softplus(-logits[: len(real)]) + jax.nn.softplus(logits[len(real) :])).mean()

    def trained(learned: Any, asked: Any, key: Any):
        first, order = jax.random.split(key)
        params = discriminator.init(first, learned[0][:2])["params"]

        def step(carry: Any, key: Any):
            params, state = carry
            drawn = jax.random.randint(key, (2, _BATCH), 0, len(learned[0]))
            real, made = learned[0][drawn[0]], learned[1][drawn[1]]
            moves, state = adam.update(jax.grad(loss)(params, real, made), state)
            return (optax.apply_updates(params, moves), state), None

        keys = jax.random.split(order, _STEPS)
        (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), keys)
        return discriminator.apply({"params": params}, jnp.concatenate(asked))

    return jax.jit(trained)


def bits_right(
    net: Net, pictures: Float[AnyArray, "N S S"], bits: Float[AnyArray, "N K"]
) -> np.ndarray:
    """The share of the 12 bits that a decoder reads right, of each picture [N]."""
    images = np.asarray(chain.as_bytes(pictures))
    program = _reading()
    found = []
    for start in range(0, len(images), _READ):
        seen = np.stack([net.preprocess(image) for image in images[start : start + _READ]])
        padded = np.concatenate([seen, np.zeros((_READ - len(seen), *seen.shape[1:]), seen.dtype)])
        found.append(np.asarray(program(net, padded))[: len(seen)])
    said = np.concatenate(found)
    return ((said > 0.5) == (np.asarray(bits) > 0.5)).sum(1) / BITS


@functools.lru_cache(maxsize=1)
def _reading():
    return jax.jit(lambda net, images: probability.probabilities(net, net.logits(images)))


def kept(net: Net, tags: Any, pictures: Mapping, bits: Any) -> list[tuple]:
    """Rows (what, bits right, low, high) of the tags as rendered and after each link; intervals over pictures."""
    rows = []
    for name, x in {"as rendered": tags, **{n: pictures[n] for n in chain.CHAIN}}.items():
        right = bits_right(net, np.clip(x, -1, 1), bits)
        rows.append((name, *stats.mean_interval(right, (0, 1))[:3]))
    return rows
