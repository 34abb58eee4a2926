"""What holds for every attribution method; the controls; and heat maps."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, random_net

from mixaug_jax.attribution import METHODS, REDUCTIONS, heatmap
from mixaug_jax.explain import memory

# What each method cannot do without, or what keeps it small.
SMALL = {
    "blur_ig": {"steps": 2},
    "expected_gradients": {"baselines": np.ones((2, 12, 12, 3)), "samples": 2},
    "guided_ig": {"steps": 2},
    "iba": {
        "stats": (np.zeros((6, 6, 4)), np.ones((6, 6, 4)), np.ones((6, 6, 4))),
        "samples": 1,
        "steps": 2,
    },
    "idgi": {"steps": 2},
    "integrated_gradients": {"steps": 2},
    "lrp": {"rule": "z_box"},
    "occlusion": {"window": 6},
    "rise": {"samples": 2},
    "smoothgrad": {"samples": 2},
    "smoothgrad_squared": {"samples": 2},
    "split_ig": {"steps": 2},
    "vargrad": {"samples": 2},
}
CONTROLS = ("random", "center", "sobel")
# What needs a network of its own that is trained for it, and looks at no label, is tested in test_readout.py.
# So is what looks at attention, in test_attention.py.
ALONE = [n for n, method in METHODS.items() if n != "iba_readout" and not method.attention]
NETWORK = [name for name in ALONE if name not in CONTROLS]


@pytest.mark.parametrize("name", ALONE)
def test_shape_and_type(name):
    net, images = random_net()
    f = jax.vmap(
        lambda net, x, label: METHODS[name](net, x, label, **SMALL.get(name, {})), (None, 0, 0)
    )
    ours = jax.eval_shape(f, net, images, jnp.arange(2))
    assert ours.shape in ((2, 12, 12, 1), (2, 12, 12, 3))
    assert ours.dtype == jnp.float32


@pytest.mark.parametrize("name", NETWORK)
@pytest.mark.parametrize("label", [5, -1, np.int64(7)])
def test_label_out_of_range(name, label):
    net, images = random_net()
    with pytest.raises(ValueError, match=r"label must be in 0\.\.4; got"):
        jax.eval_shape(
            lambda net, x: METHODS[name](net, x, label, **SMALL.get(name, {})), net, images[0]
        )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("label", [1.0, np.arange(2), True])
def test_label_of_another_kind(label):
    net, images = random_net()
    with pytest.raises(ValueError, match="label must be one integer"):
        jax.eval_shape(lambda net, x: METHODS["gradient"](net, x, label), net, images[0])


def test_traced_label_out_of_range_counts_as_0():
    net, images = random_net()
    np.testing.assert_array_equal(explain(METHODS["gradient"], net, images, np.asarray([5, -1])), 0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 12, 12, 3), np.float32), r"one image \[h,w,C\]; got \[2, 12, 12, 3\]"),
        (np.zeros((12, 12, 3), np.uint8), "preprocessed floating point; got uint8"),
        (np.zeros((0, 12, 3), np.float32), r"one image \[h,w,C\]; got \[0, 12, 3\]"),
    ],
)
def test_wrong_images(name, image, message):
    net, _ = random_net()
    with pytest.raises(ValueError, match=message):
        METHODS[name](net, image, 0, **SMALL.get(name, {}))


def test_another_checkpoint_does_not_compile_again():
    net, images = random_net()
    traced = []

    @jax.jit
    def run(net, image, label):
        traced.append(label)
        return METHODS["guided_gradcam"](net, image, label)

    ours = [run(jax.tree.map(lambda leaf, k=k: leaf * k, net), images[0], k) for k in (1, 2)]
    assert len(traced) == 1
    assert np.abs(ours[1] - ours[0]).max() > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [("scorecam", {"layer": "relu3"}), ("smoothgrad_squared", {"samples": 7, "key": 5})],
)
def test_chunks_agree(name, options):
    """The other methods' chunks are tested where the methods are."""
    net, images = random_net()
    whole = explain(METHODS[name], net, images, np.arange(2), chunk=0, **options)
    for chunk in (1, 3):
        ours = explain(METHODS[name], net, images, np.arange(2), chunk=chunk, **options)
        close(ours, whole, 1e-6)


def reserved(name, net, image, **options):
    """Bytes that the compiled method needs besides its arguments and its result; nothing runs."""

    def f(net, image):
        method = functools.partial(METHODS[name], **SMALL.get(name, {}) | options)
        return (method if image.ndim == 3 else jax.vmap(method, (None, 0, None)))(net, image, 0)

    return jax.jit(f).lower(net, image).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("expected_gradients", "samples"),
        ("iba", "samples"),
        ("integrated_gradients", "steps"),
        ("rise", "samples"),
        ("smoothgrad", "samples"),
        ("vargrad", "samples"),
    ],
)
def test_memory_depends_on_the_chunk_only(name, option):
    net, images = random_net()

    def needed(number, chunk):
        return reserved(name, net, images[0], chunk=chunk, **{option: number})

    assert needed(512, 4) < 1.2 * needed(16, 4)
    assert needed(64, 0) > 4 * needed(64, 4)


@pytest.mark.parametrize(
    "name", ["integrated_gradients", "vargrad", "occlusion", "scorecam", "deeplift", "lrp"]
)
def test_an_evaluation_needs_no_more_than_its_bound(name):
    """The layer divides its memory by this bound: into chunks, or images where a method has none."""
    net, images = random_net(side=16, width=2.0)
    bound = memory.evaluation_bytes(net, images.shape[1:])
    numbers = {"integrated_gradients": {"steps": 32}, "vargrad": {"samples": 32}}
    options = numbers.get(name, {"window": 2, "stride": 2} if name == "occlusion" else {})
    if "chunk" in inspect.signature(METHODS[name]).parameters:
        small, large = (reserved(name, net, images[0], chunk=c, **options) for c in (4, 8))
    else:
        small, large = (reserved(name, net, jnp.tile(images, (n, 1, 1, 1))) for n in (2, 4))
    assert 0 < large - small < 4 * bound


def test_memory_decides_how_much_is_done_at_once():
    net, side = random_net(5, 12)[0], 12
    each = memory.evaluation_bytes(net, (side, side, 3))
    pixels = side * side * 4
    assert 3 * pixels * 4 < each < 60 * pixels * 4  # a dozen maps of 4 channels at the image's size
    assert memory.at_once(net, (side, side, 3), 0) == memory.MOST
    assert memory.at_once(net, (side, side, 3), 4 * 5.5 * each / 2**30) == 5
    assert memory.at_once(net, (side, side, 3), 4 * 5.5 * each / 2**30, 2 * each) == 3
    assert memory.at_once(net, (side, side, 3), 1e-9) == 1


@pytest.mark.parametrize(
    "name", ["gradient", "gradcam", "scorecam", "occlusion", "rise", "lrp", "deeplift", "iba"]
)
def test_nan_is_not_hidden(name):
    """One bad pixel, far from most of the image, that makes the logits NaN."""
    net, images = random_net()
    broken = images.at[0, 11, 11, 0].set(jnp.nan)
    ours = explain(METHODS[name], net, broken, np.arange(2), **SMALL.get(name, {}))
    assert np.isnan(ours[0]).all()
    assert np.isfinite(ours[1]).all()


@pytest.mark.parametrize(
    "name", ["gradcam_plus_plus", "xgradcam", "scorecam", "lrp", "excitation_backprop", "deeplift"]
)
def test_a_dead_network_gives_zeros(name):
    """No division of 0 by 0."""
    net, images = random_net()
    dead = jax.tree.map(jnp.zeros_like, net)
    np.testing.assert_array_equal(explain(METHODS[name], dead, images, np.arange(2)), 0)


def test_half_precision_bodies_give_float32():
    net, images = random_net()
    half = type(net)(net.model.clone(dtype=jnp.bfloat16), net.variables, net.preprocess)
    for name in ("lrp", "deeplift"):
        full = explain(METHODS[name], net, images, np.arange(2))
        ours = explain(METHODS[name], half, images, np.arange(2))
        assert ours.dtype == np.float32
        correlation = np.corrcoef(ours.ravel(), full.ravel())[0, 1]
        assert correlation > 0.98, name


def test_random_has_no_ties():
    net, images = random_net()
    keys = jax.random.split(jax.random.key(0), 2)
    ours = explain(METHODS["random"], net, images, np.arange(2), {"key": keys})
    for one in ours:
        np.testing.assert_allclose(np.sort(one.ravel()), np.linspace(-1, 1, 144), atol=1e-6)
    assert (ours[0] != ours[1]).mean() > 0.9


@pytest.mark.parametrize("size", [(5, 9), (4, 4), (1, 1), (1, 2)])
def test_center(size):
    ours = np.asarray(METHODS["center"](None, np.zeros((*size, 3), np.float32), 0))[..., 0]
    row, col = (np.arange(n) - (n - 1) / 2 for n in size)
    distance = np.sqrt(row[:, None] ** 2 + col**2)
    expected = 1 - distance / distance.max() if distance.max() else np.ones(size)
    close(ours, expected, 1e-6)


def test_sobel_of_a_ramp():
    image = np.zeros((6, 7, 3), np.float32)
    image += (3 * np.arange(6)[:, None] + 4 * np.arange(7))[..., None]
    ours = np.asarray(METHODS["sobel"](None, image, 0))
    assert ours.shape == (6, 7, 1)
    np.testing.assert_allclose(ours[1:-1, 1:-1], 8 * 5, rtol=1e-6)
    # At a border, where pixels are repeated, one of the slopes is halved.
    np.testing.assert_allclose(ours[0, 1:-1], 8 * np.hypot(1.5, 4), rtol=1e-6)


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("sum", [0.5, -1.0, 0.0]),
        ("abs_sum", [4.5, 3.0, 0.0]),
        ("abs_max", [2.5, 2.0, 0.0]),
        ("positive", [0.5, 0.0, 0.0]),
    ],
)
def test_heatmap(reduce, expected):
    a = jnp.asarray([[[2.5, -2.0], [1.0, -2.0], [0.0, 0.0]]])
    np.testing.assert_allclose(heatmap(a, reduce), [expected])
    np.testing.assert_allclose(
        heatmap(jnp.stack([a, 2 * a]), reduce)[1], [2 * np.asarray(expected)]
    )
    assert np.isnan(heatmap(a.at[0, 0, 0].set(jnp.nan), reduce)[0, 0])


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_heatmap_keeps_the_nan_of_a_large_map(reduce):
    """XLA has other kernels for large arrays, and its maximum there leaves NaN out."""
    a = np.ones((224, 224, 3), np.float32)
    a[5, 7, 1] = np.nan
    found = jax.jit(functools.partial(heatmap, reduce=reduce))(a)
    assert np.argwhere(np.isnan(found)).tolist() == [[5, 7]]


def test_unknown_reduction():
    with pytest.raises(ValueError, match="reduce must be one of sum, abs_sum, abs_max, positive"):
        heatmap(jnp.zeros((2, 2, 3)), "mean")


@pytest.mark.usefixtures("unchecked")
def test_a_heat_map_needs_channels():
    with pytest.raises(ValueError, match=r"attributions must be \[...,h,w,C\]; got \[4, 5\]"):
        heatmap(np.ones((4, 5)))
    assert heatmap([[[1.0, 2.0]]]).tolist() == [[3.0]]
