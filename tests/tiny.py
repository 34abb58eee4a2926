"""A small network with drawn weights, for what looks at one."""

import functools

import jax
import jax.numpy as jnp

from mixaug_jax.models import MODELS, Net, Preprocess


@functools.cache
def net(classes, *, loss="softmax", seed=0):
    """`tiny` for images of any size; its running statistics are those of a batch of noise, so that nothing is dead."""
    model = MODELS["tiny"](classes)
    x = jax.random.normal(jax.random.key(seed), (8, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(seed + 1), x)
    return Net(model, variables, Preprocess(16, mean=(0.5,) * 3, std=(0.25,) * 3), loss)


def images(count=6, side=16, channels=3, seed=5):
    """Smooth noise, normalized."""
    coarse = jax.random.normal(jax.random.key(seed), (count, 5, 5, channels))
    return jax.image.resize(coarse, (count, side, side, channels), "cubic").astype(jnp.float32)
