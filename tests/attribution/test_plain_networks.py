"""Networks without convolutions, with one dense layer, without ReLUs, without maps: a map, or one sentence."""

from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
import pytest
from attribution_cases import close
from explain_cases import SMALL

from mixaug_jax.attribution import METHODS, iba_statistics, rules
from mixaug_jax.core import checks
from mixaug_jax.models import Net, Preprocess
from mixaug_jax.models.layers import StagedModel

IMAGE = np.random.default_rng(0).normal(size=(12, 12, 3)).astype(np.float32)
NO_MAPS = {"gradcam", "gradcam_plus_plus", "guided_gradcam", "hirescam", "iba", "layercam"}
NO_MAPS |= {"scorecam", "xgradcam"}
NO_WEIGHTS = {"lrp", "excitation_backprop"}
ATTENTION = {name for name, method in METHODS.items() if method.attention}


class Mean(StagedModel):
    """Each channel's mean, without a weight."""

    layers: ClassVar = ("mean",)

    @nn.nowrap
    def run(self, layer, x, train):
        return self.global_average("avg", x)


class OneDense(StagedModel):
    """Linear in the pixels."""

    layers: ClassVar = ("fc",)

    @nn.nowrap
    def run(self, layer, x, train):
        return self.dense("fc", x.reshape(len(x), -1), 3)


class NoRelu(StagedModel):
    """Linear too, by a convolution."""

    layers: ClassVar = ("conv", "fc")

    @nn.nowrap
    def run(self, layer, x, train):
        if layer == "conv":
            return self.conv("conv", x, 4, 3)
        return self.dense("fc", self.global_average("avg", x), 3)


def network(kind):
    model = kind()
    return Net(model, dict(model.init(jax.random.key(0), IMAGE[None])), Preprocess(12))


@pytest.mark.parametrize("name", [n for n in METHODS if n != "iba_readout"])  # see test_readout.py
@pytest.mark.parametrize(
    ("kind", "cannot"), [(Mean, NO_MAPS | NO_WEIGHTS), (OneDense, NO_MAPS), (NoRelu, set())]
)
def test_every_method(kind, cannot, name):
    net, options = network(kind), dict(SMALL.get(name, {}))
    if name == "expected_gradients":
        options["baselines"] = IMAGE[None]
    if name == "iba" and not cannot:
        options["stats"] = iba_statistics(net, [np.stack([IMAGE, -IMAGE])])
    if name in cannot | ATTENTION:
        said = r"no layer of the network|Mean has no|has no attention to read"
        with pytest.raises(checks.UnsupportedError, match=said):
            jax.eval_shape(lambda net: METHODS[name](net, IMAGE, 1, **options), net)
    else:
        found = jax.eval_shape(lambda net: METHODS[name](net, IMAGE, 1, **options), net)
        assert found.shape in ((12, 12, 3), (12, 12, 1))


def test_what_cannot_carry_relevance_is_named():
    for name in NO_WEIGHTS:
        with pytest.raises(checks.UnsupportedError, match="Mean has no convolution and no dense"):
            METHODS[name](network(Mean), IMAGE, 1)


@pytest.mark.parametrize("name", ["input_x_gradient", "integrated_gradients", "deeplift", "lrp"])
def test_contributions_to_one_dense_layer(name):
    net = network(OneDense)
    options = {"rule": "epsilon"} if name == "lrp" else {}
    kernel = np.asarray(net.variables["params"]["fc"]["kernel"])[:, 1].reshape(IMAGE.shape)
    found = jax.jit(lambda net: METHODS[name](net, IMAGE, 1, **options))(net)
    close(found, IMAGE * kernel, 1e-5)


def test_the_box_of_a_dense_layer_over_pixels():
    """Bounds of channels, each at its pixels; z^B in closed form."""
    net = network(OneDense)
    w = np.asarray(net.variables["params"]["fc"]["kernel"], np.float64)[:, 1].reshape(IMAGE.shape)
    low, high = np.array([-4.0, -5, -6]), np.array([4.0, 3, 7])
    z = IMAGE * w - low * w.clip(0) - high * w.clip(None, 0)
    bias = float(net.variables["params"]["fc"]["bias"][1])
    expected = z / z.sum() * ((IMAGE * w).sum() + bias)
    bounds = tuple(low), tuple(high)
    found = METHODS["lrp"](net, IMAGE, 1, rule="z_box", bounds=bounds)
    close(found, expected, 1e-4)
    pairs = (("conv", rules.Epsilon()), ("fc", rules.ZBox(*bounds)))
    with pytest.raises(ValueError, match="bounds of 3 channels, and its layer has 4 inputs"):
        METHODS["lrp"](network(NoRelu), IMAGE, 1, rule=pairs)


def test_scorecam_masks_go_from_0_to_1():
    """Of activations of both signs: in NumPy, at the layer's own size."""
    net, image = network(NoRelu), IMAGE / 10  # so that spans lie below 1
    a = np.asarray(net.features(image[None], "conv"))[0]
    masks = (a - a.min((0, 1))) / (a.max((0, 1)) - a.min((0, 1)))
    logits = np.asarray(net.logits(np.moveaxis(masks, -1, 0)[..., None] * image))[:, 1]
    weights = np.exp(logits - logits.max())
    expected = (a * weights / weights.sum()).sum(-1, keepdims=True).clip(0)
    close(METHODS["scorecam"](net, image, 1, layer="conv"), expected, 1e-5)
