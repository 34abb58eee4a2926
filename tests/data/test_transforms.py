"""Geometry against arithmetic by hand, photometrics against the published formulas in numpy."""

import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import PIL.Image
import pytest

from mixaug_jax.data import transforms


def example(height, width, *, seed=0, slots=2):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (height, width, 3), np.uint8),
        "label": 4,
        "concepts": rng.integers(0, 500, (height, width, slots), np.uint16),
        "boxes": np.array([[0, 0, height, width], [1, 2, 3.5, 5]], np.float32),
        "box_labels": np.array([7, 9], np.int32),
    }


def ramp(height, width):
    """An example whose concepts hold each pixel's own row and column."""
    rows, cols = np.mgrid[:height, :width]
    pixels = np.stack([rows, cols, rows * 0], axis=-1).astype(np.uint8)
    return {"image": pixels, "label": 0, "concepts": pixels[..., :2]}


def test_flip():
    old = example(6, 8)
    new = transforms.flip(old)
    np.testing.assert_array_equal(new["image"], old["image"][:, ::-1])
    np.testing.assert_array_equal(new["concepts"], old["concepts"][:, ::-1])
    np.testing.assert_allclose(new["boxes"], [[0, 0, 6, 8], [1, 3, 3.5, 6]])
    assert new["label"] == 4
    np.testing.assert_array_equal(new["box_labels"], [7, 9])
    again = transforms.flip(new)
    for name in old:
        np.testing.assert_array_equal(again[name], old[name])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("edge", [False, True])
def test_pad_crop(seed, edge):
    old = example(9, 7)
    new = transforms.pad_crop(np.random.default_rng(seed), old, 3, edge=edge)
    row, col = np.random.default_rng(seed).integers(7, size=2)
    for name in ("image", "concepts"):
        around = ((3, 3), (3, 3), (0, 0))
        padded = np.pad(old[name], around, mode="edge" if edge else "constant")
        np.testing.assert_array_equal(new[name], padded[row : row + 9, col : col + 7])
    shift = np.array([3 - row, 3 - col] * 2)
    np.testing.assert_allclose(new["boxes"], np.clip(old["boxes"] + shift, 0, [9, 7, 9, 7]))


def test_pad_crop_reaches_every_offset():
    rng = np.random.default_rng(0)
    old = ramp(5, 5)
    corners = {
        tuple(np.argwhere((new["concepts"] == 2).all(-1))[0])
        for new in (transforms.pad_crop(rng, old, 2) for _ in range(400))
    }
    assert corners == set(itertools.product(range(5), repeat=2))


def test_a_box_that_vanishes_takes_its_label_along():
    old = example(10, 10)
    old["boxes"] = np.array([[0, 0, 2, 2], [4, 4, 10, 10], [0, 0, 5, 1]], np.float32)
    old["box_labels"] = np.array([1, 2, 3], np.int32)
    new = transforms._crop(old, 2, 1, 6, 6)
    np.testing.assert_allclose(new["boxes"], [[2, 3, 6, 6]])
    np.testing.assert_array_equal(new["box_labels"], [2])
    assert new["boxes"].dtype == np.float32
    none = transforms._crop(new, 0, 0, 1, 1)
    assert none["boxes"].shape == (0, 4)
    assert none["box_labels"].shape == (0,)
    assert transforms.flip(none)["boxes"].shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (33, 47), (16, 16), (8, 11)])
@pytest.mark.parametrize("resize", [1.0, 256 / 224, 2.0])
def test_evaluation_geometry(height, width, resize):
    """torchvision's Resize(int) and CenterCrop, by hand."""
    size = 16
    old = example(height, width)
    new = transforms.evaluation(old, size, resize)
    short = round(size * resize)
    rows, cols = (
        (short, int(short * width / height))
        if height <= width
        else (int(short * height / width), short)
    )
    picture = PIL.Image.fromarray(old["image"]).resize((cols, rows), PIL.Image.BILINEAR)
    top, left = round((rows - size) / 2.0), round((cols - size) / 2.0)
    expected = np.asarray(picture)[top : top + size, left : left + size]
    np.testing.assert_array_equal(new["image"], expected)
    assert new["concepts"].shape == (size, size, 2)
    for i, j in itertools.product(range(size), repeat=2):
        row = int(np.floor((top + i + 0.5) * height / rows))
        col = int(np.floor((left + j + 0.5) * width / cols))
        np.testing.assert_array_equal(new["concepts"][i, j], old["concepts"][row, col])
    box = np.array([1 * rows / height, 2 * cols / width, 3.5 * rows / height, 5 * cols / width])
    box = np.clip(box - [top, left, top, left], 0, size)
    np.testing.assert_allclose(new["boxes"][0], [0, 0, size, size], atol=1e-5)
    if box[2] > box[0] and box[3] > box[1]:
        np.testing.assert_allclose(new["boxes"][1], box, atol=1e-5)
    else:
        assert len(new["boxes"]) == 1


def test_evaluation_of_the_right_size_changes_nothing():
    old = example(16, 16)
    new = transforms.evaluation(old, 16)
    assert new is old


def test_evaluation_refuses_to_shrink():
    with pytest.raises(
        ValueError, match=r"data\.resize must be at least 1, the size of a crop; got 0\.5"
    ):
        transforms.evaluation(example(16, 16), 16, 0.5)


def test_concepts_keep_to_their_pixels_when_enlarged():
    new = transforms._resize(ramp(3, 5), 6, 10)
    expected = np.repeat(np.repeat(ramp(3, 5)["concepts"], 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(new["concepts"], expected)


def parts(height, width, number, **options):
    """The (row, col, height, width) of many random resized crops, read off the concepts."""
    rng = np.random.default_rng(0)
    scale = options.get("scale", (0.08, 1.0))
    ratio = options.get("ratio", (3 / 4, 4 / 3))
    return np.array(
        [transforms._random_part(rng, height, width, scale, ratio) for _ in range(number)]
    )


def test_random_resized_crop_statistics():
    row, col, height, width = parts(480, 640, 4000).T
    assert (row >= 0).all()
    assert (row + height <= 480).all()
    assert (col + width <= 640).all()
    share = height * width / (480 * 640)
    assert share.min() > 0.079
    assert share.max() > 0.9
    aspect = width / height
    assert aspect.min() > 0.74
    assert aspect.max() < 1.35
    small = share < 0.5  # these fit at every ratio, so they are accepted as drawn
    assert abs(share[small].mean() - 0.29) < 0.01
    assert abs(np.log(aspect[small]).mean()) < 0.02
    free = (col / np.maximum(640 - width, 1))[width < 600]
    assert abs(free.mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(10, 1000, (0, 493, 10, 13)), (1000, 10, (493, 0, 13, 10)), (1, 1, (0, 0, 1, 1))],
)
def test_no_part_fits(height, width, expected):
    part = parts(height, width, 5, scale=(1.0, 1.0))
    np.testing.assert_array_equal(part, [expected] * 5)


@pytest.mark.parametrize(("height", "width", "size"), [(37, 53, 16), (9, 8, 24), (1, 1, 4)])
def test_random_resized_crop(height, width, size):
    old = example(height, width)
    old["boxes"] = np.array([[0, 0, height, width]], np.float32)
    old["box_labels"] = np.array([3], np.int32)
    new = transforms.random_resized_crop(np.random.default_rng(5), old, size)
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    part = transforms._random_part(np.random.default_rng(5), height, width, scale, ratio)
    row, col, rows, cols = part
    window = np.s_[row : row + rows, col : col + cols]
    picture = PIL.Image.fromarray(old["image"][window]).resize((size, size), PIL.Image.BILINEAR)
    np.testing.assert_array_equal(new["image"], np.asarray(picture))
    nearest_row = ((np.arange(size) + 0.5) * rows / size).astype(int)
    nearest_col = ((np.arange(size) + 0.5) * cols / size).astype(int)
    expected = old["concepts"][window][nearest_row][:, nearest_col]
    np.testing.assert_array_equal(new["concepts"], expected)
    np.testing.assert_allclose(new["boxes"], [[0, 0, size, size]], atol=1e-5)


def test_gray_images_stay_gray():
    old = {"image": np.random.default_rng(0).integers(0, 256, (20, 30, 1), np.uint8)}
    assert transforms.evaluation(old, 16)["image"].shape == (16, 16, 1)


def data_config(**changes):
    section = {"size": 16, "crop": "none", "crop_scale": (0.5, 1.0), "pad": 2, "flip": False}
    return ml_collections.ConfigDict({"data": section | {"resize": 1.0} | changes})


def test_train_geometry_of_every_crop():
    rng = np.random.default_rng(0)
    old = example(16, 16)
    plain = transforms.train_geometry(data_config())(rng, old)
    np.testing.assert_array_equal(plain["image"], old["image"])
    for crop in ("resized", "pad", "shift"):
        f = transforms.train_geometry(data_config(crop=crop))
        images = [f(rng, old)["image"] for _ in range(8)]
        assert all(image.shape == (16, 16, 3) for image in images)
        assert len({image.tobytes() for image in images}) > 4
    f = transforms.train_geometry(data_config(flip=True))
    flipped = [not np.array_equal(f(rng, old)["image"], old["image"]) for _ in range(400)]
    assert 150 < sum(flipped) < 250
    with pytest.raises(
        ValueError, match=r"data\.crop must be one of resized, pad, shift, time, none; got 'center'"
    ):
        transforms.train_geometry(data_config(crop="center"))


def test_deterministic():
    f = transforms.train_geometry(data_config(crop="resized", flip=True))
    first, second = (f(np.random.default_rng(3), example(30, 20)) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


# Photometrics -------------------------------------------------------------------------------------

GRAY = np.array([0.299, 0.587, 0.114])


def brightness(image, a):
    return image + a * (0 - image)


def contrast(image, a):
    return image + a * ((image @ GRAY).mean() - image)


def saturation(image, a):
    return image + a * ((image @ GRAY)[..., None] - image)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_jitter_is_the_published_one_in_every_order(order):
    image = np.random.default_rng(0).random((5, 7, 3))
    key = jax.random.key(8)
    a = np.asarray(jax.random.uniform(key, (3,), minval=-0.4, maxval=0.4), np.float64)
    expected = image
    for step in order:
        expected = (brightness, contrast, saturation)[step](expected, a[step])
    actual = transforms.color_jitter(key, jnp.asarray(image, jnp.float32), strength=0.4)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_lighting_is_the_published_one():
    image = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    key = jax.random.key(1)
    alpha = 0.1 * np.asarray(jax.random.normal(key, (3,)), np.float64)
    vectors = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    shift = [
        sum(vectors[c][j] * (0.2175, 0.0188, 0.0045)[j] * alpha[j] for j in range(3))
        for c in range(3)
    ]
    actual = transforms.pca_lighting(key, jnp.asarray(image), strength=0.1)
    np.testing.assert_allclose(actual - image, np.broadcast_to(shift, image.shape), atol=1e-6)
    np.testing.assert_allclose(np.array(vectors).T @ vectors, np.eye(3), atol=1e-3)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def bytes_and_seeds(number, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (number, 6, 5, 3), np.uint8)
    return images, rng.integers(2**32, size=number, dtype=np.uint32)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_evaluation_normalizes_only(number):
    images, seeds = bytes_and_seeds(number)
    actual = transforms.device_transform(images, seeds, jitter=0, lighting=0, mean=MEAN, std=STD)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, (images / 255 - MEAN) / STD, atol=1e-6)


def test_device_transform_depends_on_the_own_seed_only():
    f = jax.jit(
        lambda images, seeds: transforms.device_transform(
            images, seeds, jitter=0.4, lighting=0.1, mean=MEAN, std=STD
        )
    )
    images, seeds = bytes_and_seeds(4)
    whole = np.asarray(f(images, seeds))
    halves = np.concatenate([f(images[:2], seeds[:2]), f(images[2:], seeds[2:])])
    np.testing.assert_array_equal(whole, halves)
    np.testing.assert_array_equal(whole[::-1], f(images[::-1], seeds[::-1]))
    other = np.asarray(f(images, seeds + np.uint32(1)))
    assert (np.abs(whole - other).max(axis=(1, 2, 3)) > 1e-3).all()


def test_device_transform_order_of_things():
    images, seeds = bytes_and_seeds(1)
    key_jitter, key_lighting = jax.random.split(jax.random.key(seeds[0]))
    image = jnp.asarray(images[0] / 255, jnp.float32)
    image = transforms.color_jitter(key_jitter, image, strength=0.4)
    image = transforms.pca_lighting(key_lighting, image, strength=0.1)
    expected = (image - np.array(MEAN)) / np.array(STD)
    actual = transforms.device_transform(
        images, seeds, jitter=0.4, lighting=0.1, mean=MEAN, std=STD
    )
    np.testing.assert_allclose(actual[0], expected, atol=1e-5)


def test_photometric_statistics():
    """Over many seeds the brightness factor is uniform in 0.6..1.4 and the lighting has mean 0."""
    gray = np.full((2000, 1, 1, 3), 100, np.uint8)  # contrast and saturation do nothing to gray
    seeds = np.arange(2000, dtype=np.uint32)
    off = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    jittered = transforms.device_transform(gray, seeds, jitter=0.4, lighting=0, **off)
    factor = np.asarray(jittered)[:, 0, 0, 0] * 255 / 100
    assert 0.6 <= factor.min() < 0.61
    assert 1.39 < factor.max() <= 1.4001
    assert abs(factor.mean() - 1) < 0.02
    assert abs(factor.std() - 0.8 / 12**0.5) < 0.01
    lit = transforms.device_transform(gray, seeds, jitter=0, lighting=0.1, **off)
    shift = np.asarray(lit)[:, 0, 0] - 100 / 255
    assert np.abs(shift.mean(axis=0)).max() < 0.001
    np.testing.assert_allclose(shift[:, 0].std(), 0.1 * 0.2175 * 0.5675, rtol=0.1)
