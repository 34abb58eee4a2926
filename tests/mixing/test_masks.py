"""fmix and smoothmix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.mixing.masks import binarize, fmix, fmix_frequencies, fmix_gray, smoothmix

SIZES = [(32, 32), (33, 57)]


@functools.cache
def compiled_gray(size, variant):
    return jax.jit(lambda noise: fmix_gray(noise, *size, variant=variant))


@functools.cache
def compiled_binarize(max_soft):
    return jax.jit(functools.partial(binarize, max_soft=max_soft))


def drawn(arrays, name):
    """The numbers of the masks of that size that the golden arrays have."""
    numbers = [k for k in range(3) if f"fmix_grey_{name}_{k}" in arrays]
    assert numbers
    return numbers


@pytest.mark.parametrize("size", SIZES)
def test_released_gray_images(golden, size):
    arrays = golden("mixing/mixing.npz")
    name = "{}x{}".format(*size)
    np.testing.assert_allclose(fmix_frequencies(*size), arrays[f"fmix_freq_{name}"], atol=1e-12)
    for k in drawn(arrays, name):
        gray = compiled_gray(size, "released")(arrays[f"fmix_param_{name}_{k}"][0])
        np.testing.assert_allclose(gray, arrays[f"fmix_grey_{name}_{k}"][0], atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("soft", [0.0, 0.3])
def test_golden_masks(golden, size, soft):
    arrays = golden("mixing/mixing.npz")
    kind = "fmix_soft03" if soft else "fmix_mask"
    name = "{}x{}".format(*size)
    for k in drawn(arrays, name):
        gray = arrays[f"fmix_grey_{name}_{k}"][0].astype(np.float32)
        assert len(np.unique(gray)) == gray.size, "equal pixels have no order to compare"
        for lam in ("0.01", "0.2", "0.4", "0.7", "0.9", "0.999"):
            mask = compiled_binarize(soft)(gray, np.float32(lam), True)
            wanted = arrays[f"{kind}_{name}_{k}_lam{lam}"][0]
            np.testing.assert_allclose(mask, wanted, atol=2e-6 if soft else 0)


@pytest.mark.parametrize("soft", [0.0, 0.2])
def test_exact_count_among_equal_pixels(soft):
    levels = np.random.default_rng(0).integers(0, 4, (9, 7)) / 3
    for gray in np.float32([levels, np.zeros((9, 7)), np.ones((9, 7))]):
        for lam in (0.0, 0.3, 0.5, 0.99, 1.0):
            for up, count in ((True, np.ceil), (False, np.floor)):
                mask = np.asarray(compiled_binarize(soft)(gray, np.float32(lam), up))
                np.testing.assert_allclose(mask.sum(), count(np.float32(lam) * 63), atol=1e-4)
                assert gray[mask == 1].min(initial=1) >= gray[mask == 0].max(initial=0)


def test_hard_mask_takes_the_first_of_equals():
    mask = binarize(jnp.zeros((3, 4)), jnp.float32(0.5), True)
    np.testing.assert_array_equal(np.ravel(mask), [1] * 6 + [0] * 6)


def spectra(variant, size, count=200):
    """Mean power of the gray images at each frequency, without the constant part."""
    shape = fmix_frequencies(*size).shape
    noise = jax.random.normal(jax.random.key(0), (count, *shape, 2))
    gray = jax.jit(jax.vmap(lambda n: fmix_gray(n, *size, variant=variant)))(noise)
    assert np.min(gray) == 0
    assert np.max(gray) == 1
    power = np.abs(np.fft.fft2(gray - np.mean(gray, (1, 2), keepdims=True))) ** 2
    return np.mean(power / power.sum((1, 2), keepdims=True), 0)


def test_isotropic_noise_is_isotropic():
    power = spectra("isotropic", (24, 24))
    across, along = power[0, 1] + power[0, -1], power[1, 0] + power[-1, 0]
    assert 0.8 < across / along < 1.25
    # 1 / f^3 in amplitude: 2^-6 in power from frequency 1 to 2.
    assert 2**-7 < (power[0, 2] + power[2, 0]) / (power[0, 1] + power[1, 0]) < 2**-5


def test_released_noise_has_two_horizontal_frequencies():
    power = spectra("released", (24, 24))
    assert power[:, [0, 1, -1]].sum() > 1 - 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 2), (16, 5), (5, 16)])
@pytest.mark.parametrize("variant", ["isotropic", "released"])
def test_gray_images_of_any_shape(size, variant):
    noise = jax.random.normal(jax.random.key(1), (*fmix_frequencies(*size).shape, 2))
    gray = np.asarray(fmix_gray(noise, *size, variant=variant))
    assert gray.shape == size
    assert np.isfinite(gray).all()
    assert gray.min() == 0
    assert gray.max() <= 1


def constants(size, height, width):
    """Image i is all i, so that pixels tell which image they came from."""
    images = jnp.broadcast_to(
        jnp.arange(size, dtype=jnp.float32)[:, None, None, None], (size, height, width, 2)
    )
    return images, jnp.eye(size)


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("given", [{}, {"max_soft": 0.2, "variant": "released"}])
def test_fmix_labels_follow_the_pixels(per, given):
    images, targets = constants(6, 15, 12)
    mixer = jax.jit(lambda key: fmix(key, images, targets, per=per, **given))
    out, mixed = mixer(jax.random.key(2))
    np.testing.assert_allclose(np.mean(out, (1, 2, 3)), mixed @ np.arange(6), atol=1e-4)
    whole = np.isclose(out, np.round(out), atol=1e-5)
    assert whole.all() == (not given)
    assert (len(np.unique(np.diag(mixed))) <= 2) == (per == "batch")


@pytest.mark.parametrize("per", ["batch", "example"])
def test_smoothmix(per):
    images, targets = constants(6, 16, 24)
    mixer = jax.jit(lambda key: smoothmix(key, images, targets, per=per))
    out, mixed = (np.asarray(x) for x in mixer(jax.random.key(0)))
    np.testing.assert_allclose(out.mean((1, 2, 3)), mixed @ np.arange(6), atol=1e-4)
    for i in range(6):
        others = mixed[i] * (np.arange(6) != i)
        if not others.any():  # its own partner
            continue
        j = np.argmax(others)
        # The image's own weight is 1 at the center and falls as a Gaussian of 4 to 8 pixels.
        weight = (out[i, ..., 0] - j) / (i - j)
        np.testing.assert_allclose(weight.max(), 1, atol=1e-6)
        row, col = np.unravel_index(weight.argmax(), weight.shape)
        squared = (np.arange(16)[:, None] - row) ** 2 + (np.arange(24) - col) ** 2
        near = (squared > 0) & (squared < 50)
        sigma = np.sqrt(-squared[near] / (2 * np.log(weight[near])))
        np.testing.assert_allclose(sigma, sigma[0], rtol=1e-3)
        assert 4 <= sigma[0] <= 8
