"""Learning the chain: a generator that sets it, a discriminator that tells its pictures from real ones, and a step of both.

RenderGAN (Sixt, Wild and Landgraf 2018, arXiv 1611.01331, section 3.4), after its code: both are updated at once, from the same
weights, and the discriminator sees real pictures and made ones in one batch, so that its norms share statistics. Where the code
draws other pictures for each of the two losses, here both are of the same ones.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import AnyArray, Array, Count, Features
from mixaug_jax.models.convolution import conv
from mixaug_jax.models.layers import conv_init
from mixaug_jax.papers.rendergan import chain, few

RATE, BETA, AVERAGE = 4e-4, 0.5, 0.995  # of the code; the paper has a rate of .0002
_DROPS, _DROP = (0.57, 0.71, 0.85), 0.25  # shares of the length, and the factor at each
_SLOPE = 0.2


class Discriminator(nn.Module):
    """One logit [B] of pictures [B,S,S], high where they seem real.

    Attributes:
      filters: of the first layer.
      axis_name: as in `few.Norm`.
    """

    filters: int
    axis_name: str = ""

    @nn.compact
    def __call__(self, x: Features):
        x = nn.leaky_relu(self._conv("conv0", x[..., None], self.filters, 5, 2), _SLOPE)
        depth = 3 if x.shape[1] > 16 else 2
        for k in range(1, depth + 1):
            for part, stride in (("a", 2), ("b", 1)):
                x = self._conv(f"conv{k}{part}", x, self.filters * 2**k, 3, stride)
                x = self._normed(f"norm{k}{part}", x)
        x = nn.Dense(512 if depth == 3 else 128, use_bias=False, name="dense")(
            x.reshape(len(x), -1)
        )
        return nn.Dense(1, name="logit")(self._normed("norm", x))[:, 0]

    def _conv(self, name, x, filters, size, stride):
        kernel = self.param(name, conv_init, (size, size, x.shape[-1], filters))
        return conv(x, kernel, stride, size // 2)

    def _normed(self, name, x):
        return nn.leaky_relu(few.Norm(self.axis_name, name=name)(x), _SLOPE)


@flax.struct.dataclass
class Adversaries:
    """What the training carries from step to step, the same on every device.

    Attributes:
      step: int32, finished steps.
      generator, discriminator: parameters.
      generator_state, discriminator_state: of their optimizers.
      average: of the generator's parameters over the steps, which makes the pictures for later stages.
    """

    step: Any
    generator: Any
    discriminator: Any
    generator_state: Any
    discriminator_state: Any
    average: Any


def optimizer(steps: Count) -> optax.GradientTransformation:
    """Adam, whose rate falls three times over `steps` steps."""
    drops = {round(share * steps): _DROP for share in _DROPS}
    return optax.adam(optax.piecewise_constant_schedule(RATE, drops), b1=BETA)


def _first(key, *, generator, discriminator, steps):
    size, adam = generator.size, optimizer(steps)
    keys = jax.random.split(key)
    latents = few.draw(jax.random.split(keys[0], 2), size)
    g = generator.clone(axis_name="").init(keys[0], latents, method="made")["params"]
    d = discriminator.clone(axis_name="").init(keys[1], jnp.zeros((2, size, size)))["params"]
    # Copied: a state whose average is the very weights could not be donated.
    return Adversaries(jnp.int32(0), g, d, adam.init(g), adam.init(d), jax.tree.map(jnp.copy, g))


def init(generator: nn.Module, discriminator: nn.Module, seed: Count, steps: Count) -> Adversaries:
    """The state before the first step, replicated; its weights follow from the seed."""
    given = {"generator": generator, "discriminator": discriminator, "steps": steps}
    return devices_lib.replicate(jax.jit(functools.partial(_first, **given))(jax.random.key(seed)))


def shapes(generator: nn.Module, discriminator: nn.Module, steps: Count) -> Adversaries:
    """Shapes and dtypes of the state; computes nothing."""
    given = {"generator": generator, "discriminator": discriminator, "steps": steps}
    return jax.eval_shape(functools.partial(_first, **given), jax.random.key(0))


def generate(
    generator: nn.Module, params: Any, keys: Any, kept: Any = None
) -> tuple[Any, Any, dict, dict]:
    """Pictures of a generator.

    Args:
      generator: as `few.Few` or `map_generator.Maps`.
      params: its parameters.
      keys: [B] random keys, one a picture.
      kept: [links] bool, the links that are not left out; None: all are kept.

    Returns:
      The labels, the rendered tags, the pictures [B,S,S] after each link by its name, and the penalties by what they are on.
    """
    latents = few.draw(keys, generator.size)
    return generator.apply({"params": params}, latents, kept, method="made")


def last(pictures: Mapping) -> AnyArray:
    """The pictures after the whole chain."""
    return pictures[tuple(chain.CHAIN)[-1]]


def keys_of(seed: Any, step: Any, count: Count, shard: Any) -> Array:
    """The keys [count] of a device's pictures in a step: each follows from its place in the batch of all devices."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(shard * count + jnp.arange(count))


def train_step(
    state: Adversaries, batch: Mapping, *, generator: nn.Module, discriminator: nn.Module, seed: Count, steps: Count
) -> tuple[Adversaries, dict]:  # fmt: skip
    """A step of both on one device's share of the batch, for `devices.pmap`.

    Args:
      state: replicated; its buffers may be donated.
      batch: image uint8 [B,S,S,1], real.
      generator, discriminator: modules, whose axis_name is that of the devices.
      seed: of the draws.
      steps: of the whole training.

    Returns:
      The new state, and float32 scalars: loss (the generator's, without penalties, and the discriminator's, together),
      generator_loss, discriminator_loss, penalty_<link>, and accuracy, the discriminator's.
    """
    real = chain.as_numbers(batch["image"])
    keys = keys_of(seed, state.step, len(real), jax.lax.axis_index(devices_lib.AXIS))

    def made(params: Any):
        _, _, pictures, penalties = generate(generator, params, keys)
        return last(pictures), penalties

    def judged(params: Any, fake: Any):
        return discriminator.apply({"params": params}, jnp.concatenate([real, fake]))

    (fake, penalties), back_to_generator = jax.vjp(made, state.generator)
    logits, back = jax.vjp(judged, state.discriminator, fake)
    of_real, of_fake = logits[: len(real)], logits[len(real) :]
    losses = {
        "discriminator_loss": (jax.nn.softplus(-of_real) + jax.nn.softplus(of_fake)).mean(),
        "generator_loss": jax.nn.softplus(-of_fake).mean(),
    }
    # The derivatives of the two losses with respect to the logits, and one way back for each.
    share = 1 / len(real)
    discriminator_grads, _ = back(
        jnp.concatenate([-share * jax.nn.sigmoid(-of_real), share * jax.nn.sigmoid(of_fake)])
    )
    _, of_pictures = back(
        jnp.concatenate([jnp.zeros_like(of_real), -share * jax.nn.sigmoid(-of_fake)])
    )
    ones = jax.tree.map(jnp.ones_like, penalties)
    (generator_grads,) = back_to_generator((of_pictures, ones))
    metrics = losses | {f"penalty_{name}": value for name, value in penalties.items()}
    metrics["loss"] = losses["discriminator_loss"] + losses["generator_loss"]
    metrics["accuracy"] = ((of_real > 0).mean() + (of_fake <= 0).mean()) / 2
    grads, metrics = jax.lax.pmean(
        ((generator_grads, discriminator_grads), metrics), devices_lib.AXIS
    )
    return _updated(state, grads, optimizer(steps)), metrics


def _updated(state, grads, adam):
    moves, generator_state = adam.update(grads[0], state.generator_state)
    generator = optax.apply_updates(state.generator, moves)
    moves, discriminator_state = adam.update(grads[1], state.discriminator_state)
    discriminator = optax.apply_updates(state.discriminator, moves)
    # A short memory at the start, so that the random weights are forgotten.
    step = state.step.astype(jnp.float32)
    rate = jnp.minimum(AVERAGE, (1 + step) / (10 + step))
    average = jax.tree.map(lambda a, v: rate * a + (1 - rate) * v, state.average, generator)
    return Adversaries(
        state.step + 1, generator, discriminator, generator_state, discriminator_state, average
    )
