"""What a step says of itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mixaug_jax import config as config_lib
from mixaug_jax import data, training
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.models import build

WEIGHTS = {"first": "conv1", "last": "conv4", "logits": "fc"}


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "accumulated"])
def step(request):
    """f(state) -> (state, metrics) on four devices, and the first state."""
    config = toy.config(accumulate=request.param)
    config.data.size, config.model.width = 32, 8.0
    source = toy.source(side=32)
    config = config_lib.resolve(config, train_size=64, class_names=source.class_names)
    model, optimizer = build.build_model(config), training.build_optimizer(config)
    state = jax.device_get(training.init_state(model, optimizer, config))
    batch = next(iter(data.batches(source, config, train=True)))
    run = functools.partial(training.train_step, model=model, optimizer=optimizer, config=config)
    specs = devices_lib.REPLICATED, devices_lib.SHARDED
    mapped = devices_lib.pmap(run, specs, devices_lib.REPLICATED)
    batch = devices_lib.shard_batch(batch)
    return lambda state: mapped(devices_lib.replicate(state), batch), state


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", WEIGHTS)
def test_one_weight_that_is_not_finite_is_in_the_loss(step, where, bad):
    """Also where the compiler's kernels take the last ReLU of NaN for 0, which makes of it a loss like any other."""
    run, state = step
    variables = jax.tree.map(np.array, state.variables)
    variables["params"][WEIGHTS[where]]["kernel"].flat[1] = bad
    _, metrics = run(state.replace(variables=variables))
    assert np.isnan(metrics["loss"])


def test_a_loss_is_that_of_the_network(step):
    run, state = step
    after, metrics = run(state)
    assert 0.1 < metrics["loss"] < 10
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after.variables))
