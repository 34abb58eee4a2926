"""cutmix, saliencymix, resizemix, switch, and CutMix's box."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.mixing import MIXERS, cut_box
from mixaug_jax.mixing.boxes import kept_share, paste, peak, shrink_into, to_bytes
from mixaug_jax.mixing.saliency import fine_grained_saliency, misread_saliency

MEAN, STD = np.array([0.49, 0.48, 0.45]), np.array([0.25, 0.24, 0.26])


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (33, 57), (5, 7)])
def test_cut_box_is_the_published_one(golden, size):
    arrays = golden("mixing/mixing.npz")
    name = "{}x{}".format(*size)
    row, col, row0, col0, row1, col1 = np.moveaxis(arrays[f"cutmix_{name}"], -1, 0)
    lams = arrays["lams"][:, None]
    box = cut_box((row, col), lams, *size)
    np.testing.assert_array_equal(box, (row0, col0, row1, col1))
    np.testing.assert_allclose(kept_share(box, *size), arrays[f"cutmix_lamadj_{name}"], atol=1e-7)
    # One at a time, from Python's numbers.
    for at in ((3, 2), (10, 20)):
        one = cut_box((int(row[at]), int(col[at])), float(lams[at[0], 0]), *size)
        assert one == (row0[at], col0[at], row1[at], col1[at])
        assert all(isinstance(edge, np.integer) for edge in one)


def test_cut_box_of_saliency_peaks(golden):
    arrays = golden("mixing/saliency.npz")
    for kind in ("rgb", "bgr", "officialfloat"):
        center = np.moveaxis(arrays[f"argmax_{kind}_32"], -1, 0)[..., None]
        box = cut_box(center, arrays["lams"], 32, 32)
        np.testing.assert_array_equal(np.stack(box, -1), arrays[f"box_{kind}_32"])


def test_cut_box_under_jit():
    rows, cols = np.divmod(np.arange(35), 7)
    lam = np.linspace(0.02, 0.98, 25)[:, None]
    jitted = jax.jit(lambda r, c, lam: cut_box((r, c), lam, 5, 7))(rows, cols, lam)
    assert all(isinstance(edge, jax.Array) and edge.dtype == jnp.int32 for edge in jitted)
    # float32 lambdas, so that both start from the same number.
    expected = cut_box((rows, cols), np.float32(lam), 5, 7)
    np.testing.assert_array_equal(jitted, expected)
    row0, col0, row1, col1 = expected
    assert ((row0 >= 0) & (row0 <= row1) & (row1 <= 5)).all()
    assert ((col0 >= 0) & (col0 <= col1) & (col1 <= 7)).all()


def constants(size, height=12, width=18):
    """Image i is all i, so that pixels tell which image they came from."""
    images = jnp.broadcast_to(
        jnp.arange(size, dtype=jnp.float32)[:, None, None, None],
        (
            size,
            height,
            width,
            3,
        ),
    )
    return images, jnp.eye(size)


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("name", ["cutmix", "saliencymix", "resizemix"])
def test_labels_follow_the_pixels(name, per):
    images, targets = constants(8)
    out, mixed = jax.jit(lambda k: MIXERS[name](k, images, targets, per=per))(jax.random.key(2))
    out = np.asarray(out)
    for i in range(8):
        own = np.isclose(out[i, ..., 0], i)
        pasted = ~own
        # One box, of one other image, weighted by its area.
        assert pasted.sum() == pasted.any(1).sum() * pasted.any(0).sum()
        others = np.unique(np.round(out[i][pasted]))
        assert len(others) <= 1
        np.testing.assert_allclose(mixed[i, i], own.mean(), rtol=1e-6)
        if len(others):
            np.testing.assert_allclose(mixed[i, int(others[0])], pasted.mean(), rtol=1e-6)


@pytest.mark.parametrize("name", ["cutmix", "resizemix"])
def test_devices_share_the_box_and_not_the_permutation(name):
    images, targets = constants(8)
    mixer = jax.jit(lambda shard: MIXERS[name](jax.random.key(1), images, targets, shard=shard))
    results = [mixer(shard) for shard in range(3)]
    boxes, partners = [], []
    for out, mixed in results:
        changed = np.asarray(out[..., 0]) != np.arange(8)[:, None, None]
        boxes.append(changed.any(0))
        off = np.asarray(mixed) * (1 - np.eye(8))
        partners.append(off.argmax(1))
    np.testing.assert_array_equal(boxes[0], boxes[1])
    np.testing.assert_array_equal(boxes[0], boxes[2])
    assert len({p.tobytes() for p in partners}) == 3
    each = jax.jit(
        lambda shard: MIXERS[name](jax.random.key(1), images, targets, shard=shard, per="example")
    )
    assert not np.array_equal(np.diag(each(0)[1]), np.diag(each(1)[1]))


def photographs(rng, count, side=24):
    """Smooth uint8 images with one bright spot each."""
    grid = np.arange(side)
    spots = rng.uniform(4, side - 4, (count, 2, 1))
    bumps = np.exp(-0.1 * (grid - spots) ** 2)
    images = 60 + 150 * bumps[:, 0, :, None, None] * bumps[:, 1, None, :, None]
    return np.uint8(images + rng.uniform(0, 20, (count, side, side, 3)))


def test_saliencymix_cuts_around_the_partners_peak():
    raw = photographs(np.random.default_rng(0), 6)
    images = jnp.asarray((raw / 255 - MEAN) / STD, jnp.float32)
    np.testing.assert_array_equal(to_bytes(images, MEAN, STD), raw)
    mixer = jax.jit(
        lambda x: MIXERS["saliencymix"](
            jax.random.key(3), x, jnp.eye(6), mean=tuple(MEAN), std=tuple(STD)
        )
    )
    out, mixed = (np.asarray(x) for x in mixer(images))
    rows, cols = (np.asarray(x) for x in peak(jax.jit(fine_grained_saliency)(raw)))
    partner = np.argmax(mixed * (1 - np.eye(6)), 1)
    partner = np.where(np.diag(mixed) == 1, np.arange(6), partner)
    assert len(set(partner)) == 6
    # One lambda for the batch: an unclipped box tells the half side.
    changed = (out != np.asarray(images)).any(-1)
    half = max(c.any(1).sum() for c in changed) // 2
    for i, j in enumerate(partner):
        if i == j:
            continue
        box = np.zeros((24, 24), bool)
        box[max(rows[j] - half, 0) : rows[j] + half, max(cols[j] - half, 0) : cols[j] + half] = True
        np.testing.assert_array_equal(out[i], np.where(box[..., None], images[j], images[i]))
        np.testing.assert_allclose(mixed[i, j], box.mean(), rtol=1e-6)


def test_saliencymix_as_released_has_one_box_around_one_misread_peak():
    raw = photographs(np.random.default_rng(1), 6)
    images = jnp.asarray((raw / 255 - MEAN) / STD, jnp.float32)
    mixer = jax.jit(
        lambda x: MIXERS["saliencymix"](jax.random.key(3), x, jnp.eye(6), variant="released")
    )
    out, mixed = (np.asarray(x) for x in mixer(images))
    changed = (out != np.asarray(images)).any(-1)
    moved = changed.any((1, 2))
    assert moved.sum() > 1
    box = changed[moved][0]
    np.testing.assert_array_equal(changed[moved], np.broadcast_to(box, changed[moved].shape))
    first = np.argmax(mixed[0] * (np.arange(6) > 0)) if mixed[0, 0] < 1 else 0
    row, col = (int(x[0]) for x in peak(jax.jit(misread_saliency)(images[first])[None]))
    assert box[max(row - 1, 0), max(col - 1, 0)]
    np.testing.assert_allclose(np.diag(mixed)[moved], 1 - box.mean(), rtol=1e-6)


def test_saliency_of_one_channel_is_that_of_the_gray_picture():
    raw = photographs(np.random.default_rng(1), 6)[..., :1]
    images = jnp.asarray((raw / 255 - 0.3) / 0.2, jnp.float32)

    def mixed(x, **options):
        return MIXERS["saliencymix"](jax.random.key(3), x, jnp.eye(6), **options)

    gray = jax.jit(lambda x: mixed(x, mean=(0.3,), std=(0.2,)))(images)
    three = jax.jit(lambda x: mixed(x, mean=(0.3,) * 3, std=(0.2,) * 3))
    color = three(jnp.repeat(images, 3, axis=-1))
    np.testing.assert_array_equal(gray[0], color[0][..., :1])
    np.testing.assert_array_equal(gray[1], color[1])
    assert (gray[0] != images).any()
    with pytest.raises(ValueError, match="images must have 3 channels; got 1"):
        mixed(images, variant="released", mean=(0.3,), std=(0.2,))
    with pytest.raises(
        ValueError, match="mean and std must have a value for each channel, 1 in all"
    ):
        mixed(images)


def test_peak_is_the_first_largest_in_reading_order():
    maps = np.zeros((3, 4, 5), np.uint8)
    maps[1, 2, 3] = maps[1, 3, 0] = 200
    maps[2, 3, 4] = 1
    np.testing.assert_array_equal(peak(jnp.asarray(maps)), ([0, 2, 3], [0, 3, 4]))


def test_shrunk_images_are_resized_ones():
    images = jax.random.normal(jax.random.key(0), (2, 16, 12, 3))
    small = jax.image.resize(images, (2, 7, 5, 3), "linear", antialias=True)
    shrink = jax.jit(shrink_into)
    one = shrink(images, (3, 4, 10, 9))
    np.testing.assert_allclose(one[:, 3:10, 4:9], small, atol=1e-5)
    each = shrink(images, tuple(np.array([[3, 0], [4, 1], [10, 7], [9, 6]])))
    np.testing.assert_allclose(each[0], one[0], atol=1e-5)
    np.testing.assert_allclose(each[1, :7, 1:6], small[1], atol=1e-5)


def test_paste_copies_pixels():
    images = jax.random.normal(jax.random.key(0), (2, 5, 4, 1))
    out = np.array(paste(images, -images, (1, 0, 3, 2)))
    np.testing.assert_array_equal(out[:, 1:3, :2], -images[:, 1:3, :2])
    out[:, 1:3, :2] *= -1
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("per", ["batch", "example"])
def test_switch_is_mixup_or_cutmix(per):
    images, targets = constants(8)
    mixer = jax.jit(lambda k: MIXERS["switch"](k, images, targets, per=per, switch_prob=0.6))
    cuts = []
    for seed in range(6):
        out, mixed = (np.asarray(x) for x in mixer(jax.random.key(seed)))
        np.testing.assert_allclose(out.mean((1, 2, 3)), mixed @ np.arange(8), rtol=1e-4, atol=1e-5)
        whole = np.isclose(out, np.round(out), atol=1e-6).all((1, 2, 3))
        flat = np.ptp(out, (1, 2, 3)) < 1e-5
        assert (whole | flat).all()
        cuts.append(whole & ~flat)
    assert 0 < np.mean(cuts) < 1
    # Within a batch the choice differs only where each example has its own.
    mixed_up = [c for c in cuts if 1 < c.sum() < 6]
    assert (len(mixed_up) > 0) == (per == "example")


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize(("prob", "switch_prob"), [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
def test_what_switch_leaves_off_does_nothing(prob, switch_prob, per):
    """Pictures of one value each: mixup leaves them so, CutMix leaves both values as they are, and neither nothing."""
    levels = np.float32([1, 2, 4, 8])
    images, targets = (
        np.tile(levels[:, None, None, None], (1, 8, 8, 1)),
        np.eye(4, dtype=np.float32),
    )
    for seed in range(6):
        options = {"prob": prob, "switch_prob": switch_prob, "per": per}
        mixed, labels = MIXERS["switch"](jax.random.key(seed), images, targets, **options)
        np.testing.assert_allclose(np.mean(mixed, (1, 2, 3)), labels @ levels, rtol=1e-5)
        if not prob:
            np.testing.assert_array_equal(mixed, images)
        elif switch_prob:
            assert np.isin(mixed, levels).all()
        else:
            np.testing.assert_allclose(mixed, np.broadcast_to(mixed[:, :1, :1], mixed.shape))
