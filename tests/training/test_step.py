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


def test_adamw_is_pytorchs():
    """Two steps in NumPy: the decay is apart from the gradient, and biases, norms and positions have none."""
    config = toy.config(optimizer="adamw", weight_decay=0.1, schedule="constant", lr=0.01)
    config = config_lib.resolve(config, train_size=64, class_names=tuple("abcd"))
    draw = np.random.default_rng(0)
    shapes = {"fc": {"kernel": (3, 2), "bias": (2,)}, "pos_embed": {"value": (1, 2, 3)}}
    params = jax.tree.map(
        lambda shape: draw.normal(size=shape).astype(np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )  # fmt: skip
    optimizer = training.build_optimizer(config)
    state, found = optimizer.init(params), params
    expected, first, second = params, jax.tree.map(np.zeros_like, params), jax.tree.map(np.zeros_like, params)  # fmt: skip
    for step in (1, 2):
        grads = jax.tree.map(lambda p: draw.normal(size=p.shape).astype(np.float32), params)
        updates, state = optimizer.update(grads, state, found)
        found = jax.tree.map(jnp.add, found, updates)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, grads)
        decay = {"fc": {"kernel": 0.1, "bias": 0.0}, "pos_embed": {"value": 0.0}}
        expected = jax.tree.map(
            lambda p, m, v, d, step=step: p * (1 - 0.01 * d)
            - 0.01 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8),
            expected, first, second, decay,
        )  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_stochastic_depth_is_a_key():
    config = toy.config()
    config.model.name, config.model.drop_path = "vit_micro", 0.3
    config = config_lib.resolve(config, train_size=64, class_names=tuple("abcd"))
    assert build.build_model(config).drop_path_rate == 0.3
    config.model.name = config.resolved.model.name = "tiny"
    with pytest.raises(ValueError, match=r"model\.drop_path=0\.3 needs a field drop_path_rate"):
        build.build_model(config)
