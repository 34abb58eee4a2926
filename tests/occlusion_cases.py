"""What the tests of the occlusion experiment share: linear networks, removals by themselves, float64 twins."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from score_cases import Linear

from mixaug_jax.models import Net, Preprocess
from mixaug_jax.occlusion.grid import Grid, plan
from mixaug_jax.occlusion.removal import Batch, evaluate, rank

MEAN = np.array([0.3, -0.2], np.float32)


def linear(shape=(7, 6, 2), images=2, classes=4, seed=0):
    """A linear network, images and their labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(images, *shape)).astype(np.float32)
    kernel = rng.normal(size=(x[0].size, classes)).astype(np.float32) / math.sqrt(x[0].size)
    bias = rng.normal(size=classes).astype(np.float32)
    net = Net(
        Linear(classes), {"params": {"fc": {"kernel": kernel, "bias": bias}}}, Preprocess(shape[0])
    )
    return net, x, rng.integers(classes, size=images)


def keys_of(images):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(jnp.arange(images))


@functools.partial(jax.jit, static_argnames="grid")
def remove(net, x, labels, by, keys, mean, grid):
    cells = plan(grid, x.shape[1:]).cells
    ranking = rank(net, Batch(x, labels, by, keys), mean, grid=grid)
    return evaluate(net, ranking, cells, grid=grid)


def run(net, x, labels, grid, ranked_by=None, mean=MEAN, keys=None):
    """(loss, correct, first_order) by the names of the grid, [B, rankings, selections, shares, values]."""
    by = labels if ranked_by is None else ranked_by
    keys = keys_of(len(x)) if keys is None else keys
    found = remove(net, x, labels, by, keys, mean, grid)
    index = plan(grid, x.shape[1:]).index
    return [np.asarray(a)[:, index] for a in found]


# --- the oracle: float64, one cell after the other ------------------------------------------------


def logits64(net, x):
    fc = net.variables["params"]["fc"]
    return x.reshape(-1) @ np.float64(fc["kernel"]) + np.float64(fc["bias"])


def loss64(net, x, label):
    z = logits64(net, x)
    return np.log(np.exp(z - z.max()).sum()) + z.max() - z[label]


# --- properties -----------------------------------------------------------------------------------


def small(**changes):
    """A cheap grid."""
    given = {
        "rankings": ("gradient",),
        "selections": ("top",),
        "shares": (30,),
        "values": ("zero",),
    }
    return Grid(**(given | changes))
