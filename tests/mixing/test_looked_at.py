"""attentivemix and snapmix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing import MIXERS, maps
from mixaug_jax.mixing.looked_at import fitted, keep_largest, one_class, snap


@pytest.fixture(scope="module")
def arrays(golden):
    g = dict(golden("mixers_net/mixers.npz"))
    g["x"] = (g["image_u8"] / np.float32(255) - g["mean"]) / g["std"]
    return g


@pytest.mark.parametrize("count", [3, 6])
def test_attentivemix_is_the_published_one(arrays, count):
    cells = arrays["features"].mean(-1)
    mixed, mask, share = jax.jit(keep_largest)(arrays["x"], cells, arrays["partner"], count)
    np.testing.assert_array_equal(mixed, arrays[f"attentive_{count}_image"])
    np.testing.assert_allclose(share, arrays[f"attentive_{count}_lam"], atol=1e-6)
    np.testing.assert_allclose(mask.mean((1, 2)), share, atol=1e-6)


def test_the_first_of_equal_cells_stay():
    images = jnp.stack([jnp.ones((4, 4, 1)), jnp.zeros((4, 4, 1))])
    mixed, _, _ = keep_largest(images, np.zeros((2, 2, 2), np.float32), np.array([1, 0]), 3)
    np.testing.assert_array_equal(mixed[0, ::2, ::2, 0], [[1, 1], [1, 0]])


def test_the_share_is_of_pixels_where_cells_are_of_unequal_size():
    images, cells = jnp.zeros((2, 5, 5, 1)), np.array([[[4, 3], [2, 1]]] * 2, np.float32)
    _, mask, share = keep_largest(images, cells, np.array([1, 0]), 1)
    kept = int(mask[0].sum())
    assert kept in (4, 9)  # 2 x 2 or 3 x 3 of 5 x 5 pixels
    np.testing.assert_allclose(share, [kept / 25] * 2, rtol=1e-6)


@pytest.mark.parametrize("per", ["batch", "example"])
def test_the_number_of_cells_by_lambda(per):
    x, net = tiny.images(), tiny.net(6)
    run = jax.jit(
        lambda net, key: MIXERS["attentivemix"](key, x, jnp.eye(6), net=net, per=per, count=0)
    )
    _, labels = run(net, jax.random.key(3))
    cells = 16 * np.diag(labels)
    mixed = ~np.isclose(cells, 16)  # others are their own partners
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-5)
    assert (np.rint(cells) >= 1).all()
    assert (len(np.unique(np.rint(cells[mixed]))) == 1) == (per == "batch")


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_snapmix_is_the_published_one(arrays, turn):
    boxes = (tuple(arrays[f"snap_{turn}_box_{name}"]) for name in ("into", "from"))
    partner, label = arrays["partner"], arrays["label"]
    image, own, other = jax.jit(snap)(arrays["x"], arrays["snap_map"], partner, *boxes)
    own, other = one_class(own, other, label == label[partner])
    np.testing.assert_allclose(image, arrays[f"snap_{turn}_image"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(own, arrays[f"snap_{turn}_lam_own"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(other, arrays[f"snap_{turn}_lam_partner"], rtol=0, atol=1e-5)


def test_boxes_are_resized_with_corners_aligned():
    images = tiny.images(2, side=9)
    out = np.asarray(fitted(images, (2, 1, 5, 8), (0, 0, 9, 4)))[:, :, :4]
    rows, cols = np.linspace(2, 4, 9), np.linspace(1, 7, 4)
    low = [np.minimum(at.astype(int), 7) for at in (rows, cols)]
    part = [(at - lo)[..., None] for at, lo in zip((rows, cols), low, strict=True)]
    x = (
        np.asarray(images)[:, low[0]] * (1 - part[0][..., None])
        + np.asarray(images)[:, low[0] + 1] * part[0][..., None]
    )
    x = x[:, :, low[1]] * (1 - part[1]) + x[:, :, low[1] + 1] * part[1]
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-5)


def test_an_empty_box_mixes_nothing():
    x = tiny.images(2)
    uniform = maps.shares(np.zeros((2, 16, 16), np.float32))
    for boxes in (((3, 3, 3, 9), (0, 0, 8, 8)), ((0, 0, 8, 8), (4, 5, 9, 5))):
        image, own, other = jax.jit(snap)(x, uniform, np.array([1, 0]), *boxes)
        np.testing.assert_array_equal(image, x)
        np.testing.assert_array_equal((own, other), [[1, 1], [0, 0]])
    # Without evidence labels follow the areas.
    _, own, other = snap(x, uniform, np.array([1, 0]), (0, 0, 8, 8), (0, 0, 4, 4))
    np.testing.assert_allclose((own[0], other[0]), (0.75, 1 / 16), rtol=1e-5)
    for unusable in (0 * uniform, uniform + np.nan, uniform + np.inf):
        weights = snap(x, unusable, np.array([1, 0]), (0, 0, 8, 8), (0, 0, 4, 4))[1:]
        np.testing.assert_allclose(weights, [[0.75] * 2, [1 / 16] * 2], rtol=1e-5)


def test_snapmix_weighs_by_evidence_and_twice_what_is_of_one_class():
    x, net = tiny.images(), tiny.net(2)
    targets = jnp.eye(2)[jnp.arange(6) % 2]
    published, normalized = jax.jit(
        lambda net, key: [
            MIXERS["snapmix"](key, x, targets, net=net, weights=weights, alpha=1.0)[1]
            for weights in ("published", "normalized")
        ]
    )(net, jax.random.key(5))
    np.testing.assert_allclose(normalized.sum(1), 1, rtol=1e-5)
    total = published.sum(1)
    np.testing.assert_allclose(published / total[:, None], normalized, rtol=1e-5)
    alike = np.isclose(np.asarray(normalized).max(1), 1)
    assert alike.any()
    assert not alike.all()
    assert not np.allclose(total, 1, atol=0.01)


def test_snapmix_needs_one_class():
    with pytest.raises(ValueError, match="snapmix needs images of one class each"):
        MIXERS["snapmix"](
            jax.random.key(0), tiny.images(), jnp.eye(6), net=tiny.net(6, loss="sigmoid")
        )
