"""Class activation maps, against captum and pytorch-grad-cam."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, golden_net, random_net
from score_cases import linear_net

from mixaug_jax.attribution import METHODS, cam

PEERS = {
    "gradcam": "GradCAM",
    "gradcam_plus_plus": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
}


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("attribution/attr.npz"))


@pytest.fixture(scope="module")
def metrics(golden):
    return golden("attribution/metrics.npz")


@pytest.fixture(scope="module")
def net(golden):
    return golden_net(golden("attribution/tinynet_weights.npz"))


def scaled(maps):
    """Each map from 0 to 1, as pytorch-grad-cam returns them."""
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return ((maps - low) / (high - low))[..., 0]


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("gradcam_relu_up_bilinear", "gradcam", {}),
        ("gradcam_relu_up_nearest", "gradcam", {"resize": "nearest"}),
        ("guided_gradcam", "guided_gradcam", {"resize": "nearest"}),
    ],
)
def test_golden(net, arrays, name, method, options):
    close(
        explain(METHODS[method], net, arrays["x"], arrays["target"], **options), arrays[name], 1e-6
    )


@pytest.mark.parametrize(("name", "relu"), [("gradcam_raw", False), ("gradcam_relu", True)])
def test_golden_of_the_layers_size(net, arrays, name, relu):
    options = {"relu": relu, "resize": "nearest", "layer": "relu4"}
    ours = explain(METHODS["gradcam"], net, arrays["x"], arrays["target"], **options)
    close(ours[:, ::4, ::4], arrays[name], 1e-6)


def test_golden_gradient_times_activation(net, arrays):
    options = {"relu": False, "resize": "nearest", "layer": "relu4"}
    ours = explain(METHODS["hirescam"], net, arrays["x"], arrays["target"], **options)
    close(ours[:, ::4, ::4, 0], arrays["layer_gradxact_relu4"].sum(-1), 1e-6)


@pytest.mark.parametrize("name", PEERS)
def test_golden_grad_cam_package(net, arrays, metrics, name):
    ours = explain(METHODS[name], net, arrays["x"], arrays["target"])
    close(scaled(ours), metrics[f"pgc_{PEERS[name]}"], 1e-5)


def test_golden_scorecam(net, arrays, metrics):
    """With the package's masks, whose corners are aligned."""
    activations = np.asarray(net.features(arrays["x"], "relu4"))
    place = np.arange(32) * 7 / 31
    node = np.minimum(place.astype(int), 6)
    line = np.zeros((32, 8))
    line[np.arange(32), node] = 1 - place + node
    line[np.arange(32), node + 1] = place - node
    masks = np.einsum("ij,njlk,ml->nkim", line, activations, line)
    masks -= masks.min((2, 3), keepdims=True)
    masks /= masks.max((2, 3), keepdims=True) + 1e-8
    ours = explain(METHODS["scorecam"], net, arrays["x"], arrays["target"], {"masks": masks})
    close(scaled(ours), metrics["pgc_ScoreCAM"], 1e-5)


def test_scorecam_is_a_softmax_over_masked_images():
    net, images = random_net()
    features = np.asarray(jax.jit(lambda net, x: net.features(x, "relu3"))(net, images))
    masks = np.asarray(jax.image.resize(features, (2, 12, 12, features.shape[-1]), "bilinear"))
    span = masks.max((1, 2)) - masks.min((1, 2))
    masks = (masks - masks.min((1, 2), keepdims=True)) / np.where(span > 0, span, 1)[:, None, None]
    seen = jnp.moveaxis(masks, -1, 1)[..., None] * images[:, None]
    logits = np.asarray(jax.jit(lambda net, x: net.logits(x))(net, seen.reshape(-1, 12, 12, 3)))
    weights = jax.nn.softmax(logits.reshape(2, -1, 5)[np.arange(2), :, [1, 3]])
    expected = np.einsum("nhwk,nk->nhw", features, weights)[..., None]
    options = {"layer": "relu3", "chunk": 3}
    ours = explain(METHODS["scorecam"], net, images, np.asarray([1, 3]), **options)
    close(ours, jax.image.resize(expected, (2, 12, 12, 1), "bilinear"))


def test_hirescam_is_gradcam_before_a_global_average():
    net, images = random_net(side=13)
    last = {"layer": "relu4"}
    maps = [
        explain(METHODS[name], net, images, np.arange(2), **last)
        for name in ("gradcam", "hirescam")
    ]
    assert maps[0].shape == (2, 13, 13, 1)
    close(*maps)


@pytest.mark.parametrize("name", PEERS)
def test_maps_of_a_dead_layer(name):
    dead, rising = np.zeros((3, 4, 2), np.float32), np.ones((3, 4, 2), np.float32)
    combine = getattr(cam, f"{name}_map")
    np.testing.assert_array_equal(combine(dead, rising), 0)
    np.testing.assert_array_equal(combine(rising, dead), 0)


@pytest.mark.parametrize("name", PEERS)
def test_maps_by_hand(name):
    rng = np.random.default_rng(0)
    a, g = rng.uniform(0, 1, (3, 4, 2)), rng.normal(size=(3, 4, 2))
    alpha = g**2 / (2 * g**2 + a.sum((0, 1)) * g**3)
    expected = {
        "gradcam": a @ g.mean((0, 1)),
        "gradcam_plus_plus": a @ (alpha * g.clip(0)).sum((0, 1)),
        "hirescam": (a * g).sum(-1),
        "xgradcam": a @ ((a * g).sum((0, 1)) / a.sum((0, 1))),
        "layercam": (a * g.clip(0)).sum(-1),
    }
    close(getattr(cam, f"{name}_map")(jnp.float32(a), jnp.float32(g)), expected[name], 1e-5)


@pytest.mark.parametrize("name", ["gradcam", "iba", "scorecam", "guided_gradcam"])
@pytest.mark.parametrize("layer", ["", "fc"])
def test_a_network_without_maps(name, layer):
    net, image, _ = linear_net()
    with pytest.raises(
        ValueError, match=r"no layer of the network gives a map \[h,w,K\]; it has fc"
    ):
        METHODS[name](net, image, 0, layer=layer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "layer4"}, "layer must be one of relu1, relu3, relu4; got 'layer4'"),
        ({"layer": "fc"}, "layer must be one of relu1, relu3, relu4; got 'fc'"),
        ({"resize": "cubic"}, "resize must be one of bilinear, nearest"),
        ({"masks": np.zeros((3, 12, 12))}, r"masks must have the shape \[4, 12, 12\]"),
    ],
)
def test_bad_options(options, message):
    net, images = random_net()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda net, x: METHODS["scorecam"](net, x, 0, **options), net, images[0])
