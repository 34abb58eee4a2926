"""Reduced networks of every family: the logits and gradients that torchvision and timm gave, and files there and back."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe
from test_weights import close, same

from mixaug_jax.attribution import METHODS
from mixaug_jax.models import Assume, pickles, weight_files, weights

GIVEN = np.load(pathlib.Path(__file__).parents[1] / "data/torch_families.npz")
SIDES = {}
for key in GIVEN:
    name, _, rest = key.partition(" x ")
    SIDES.setdefault(name, []).extend([int(rest.split()[0])] if rest.endswith("largest") else [])
LABEL, PLACES = 1, 48
ASSUMED = {"timm vit": Assume(heads=3), "timm vit distilled": Assume(heads=3), "torchvision vit": Assume(heads=3)}  # fmt: skip


def state_of(name):
    """A network's tensors under the names of its maker."""
    shapes = json.loads(str(GIVEN[name]))
    return {key: recipe.weight(key, tuple(shape)) for key, shape in shapes.items()}


def images(side):
    x = recipe.image(side, side)
    return np.concatenate([x, x[:, ::-1]])


def imported(folder, name):
    file = folder / "net.npz"
    np.savez(file, **state_of(name))
    return weights.import_weights(file, assume=ASSUMED.get(name, Assume()))


@functools.partial(jax.jit, static_argnums=2)
def explained(net, x, layer):
    """Logits, the gradient of one of them, and Grad-CAM of the first image."""

    def logit(x):
        logits = net.logits(x)
        return logits[:, LABEL].sum(), logits

    (_, logits), slope = jax.value_and_grad(logit, has_aux=True)(x)
    return logits, slope, METHODS["gradcam"](net, x[0], LABEL, layer=layer)


@pytest.mark.parametrize("name", SIDES)
def test_logits_gradients_and_files(tmp_path, name):
    net = imported(tmp_path, name)
    for i, side in enumerate(SIDES[name]):
        x = images(side)
        if i == 0:
            logits, slope, cam = explained(net, x, "")
            wanted, largest = GIVEN[f"{name} x {side} slopes"], GIVEN[f"{name} x {side} largest"]
            places = np.random.RandomState(side).randint(0, x.size, PLACES)
            found = np.asarray(slope).ravel()
            np.testing.assert_allclose(found[places], wanted, rtol=0, atol=1e-4 * largest)
            np.testing.assert_allclose(np.abs(found).max(), largest, rtol=1e-4)
            assert cam.shape == (side, side, 1)
            assert np.isfinite(cam).all()
        else:
            logits = jax.jit(type(net).logits)(net, x)
        close(logits, GIVEN[f"{name} x {side} logits"])
    file = tmp_path / "net.safetensors"
    weights.export_weights(net, file)
    same(weights.import_weights(file), net)
