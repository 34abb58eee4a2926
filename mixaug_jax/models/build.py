"""A network from a run's resolved settings."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax import models
from mixaug_jax.core import devices as devices_lib


def build_model(config) -> nn.Module:
    """The linen module of a resolved config."""
    r, m = config.resolved, config.model
    model = models.MODELS[r.model.name](len(r.class_names), width=r.model.width, stem=r.model.stem)
    axis = devices_lib.AXIS if m.sync_bn else ""
    return model.clone(dtype=jnp.dtype(m.dtype), axis_name=axis, remat=m.remat)


def variable_shapes(model: nn.Module, config) -> Any:
    """Shapes and dtypes of the variables; computes nothing."""
    view = config.resolved.preprocess
    image = jnp.zeros((1, view.size, view.size, len(view.mean)))
    return jax.eval_shape(model.init, jax.random.key(0), image)


def build_preprocess(config) -> models.Preprocess:
    """How this run's network sees a photograph."""
    return models.Preprocess(**config.resolved.preprocess)
