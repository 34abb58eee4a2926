"""The saliency map equals OpenCV's, byte for byte."""

import functools

import jax
import numpy as np
import pytest

from mixaug_jax.mixing import fine_grained_saliency, saliency
from mixaug_jax.mixing.boxes import peak
from mixaug_jax.mixing.saliency import misread_saliency


@functools.cache
def compiled(order):
    return jax.jit(functools.partial(fine_grained_saliency, order=order))


@pytest.fixture(scope="module")
def opencv():
    """OpenCV's map of one uint8 or float32 image, times 255."""
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV's own saliency (extra bench)")
    if not hasattr(cv2, "saliency"):
        pytest.skip("OpenCV's saliency module comes with opencv-contrib-python only")
    detector = cv2.saliency.StaticSaliencyFineGrained_create()
    return lambda image: (detector.computeSaliency(np.ascontiguousarray(image))[1] * 255).astype(
        np.uint8
    )


def images(rng, kind, height, width):
    """uint8 [H,W,3]: noise, or smooth and bright or dark enough to use the whole range."""
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "noise":
        return noise
    if kind == "extreme":
        return np.where(noise > 127, 255, 0).astype(np.uint8)
    rows, cols = np.mgrid[:height, :width]
    waves = [np.sin((a * rows + b * cols) / 9 + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    base = 240 if kind == "bright" else 120
    return np.clip(base + 60 * np.stack(waves, -1) + noise // 16, 0, 255).astype(np.uint8)


def test_golden_maps(golden):
    arrays = golden("mixing/saliency.npz")
    raw = arrays["rgb_32"]
    np.testing.assert_array_equal(compiled("bgr")(raw), arrays["map_rgb_32"])
    np.testing.assert_array_equal(compiled("rgb")(raw), arrays["map_bgr_32"])
    found = peak(compiled("rgb")(raw))
    np.testing.assert_array_equal(np.stack(found, -1), arrays["argmax_bgr_32"])


@pytest.mark.parametrize(
    "name", ["constant128", "black", "one_white_pixel", "half", "nonsquare", "tiny5x7"]
)
def test_golden_edge_cases(golden, name):
    arrays = golden("mixing/saliency.npz")
    result = compiled("bgr")(arrays[f"edge_in_{name}"][None])[0]
    np.testing.assert_array_equal(result, arrays[f"edge_map_{name}"])


def test_golden_misread_maps(golden):
    arrays = golden("mixing/saliency.npz")
    mean = np.float32(np.array([125.3, 123.0, 113.9]) / 255)
    std = np.float32(np.array([63.0, 62.1, 66.7]) / 255)
    floats = (arrays["rgb_32"] / np.float32(255) - mean) / std
    maps = jax.jit(jax.vmap(misread_saliency))(floats)
    np.testing.assert_array_equal(maps, arrays["map_officialfloat_32"])


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 9), (6, 1), (2, 2), (3, 5), (23, 40), (64, 30), (57, 57), (113, 20)]
)
def test_equals_opencv(opencv, size):
    rng = np.random.default_rng(size[0] * 100 + size[1])
    kinds = ("noise", "extreme", "bright", "plain")
    batch = np.stack([images(rng, kind, *size) for kind in kinds])
    np.testing.assert_array_equal(compiled("bgr")(batch), [opencv(x) for x in batch])
    np.testing.assert_array_equal(compiled("rgb")(batch), [opencv(x[..., ::-1]) for x in batch])


def test_equals_opencv_where_its_sums_round(opencv):
    """Two corners of the integral image add up to more than 2^24, the limit of float32."""
    rng = np.random.default_rng(0)
    batch = np.stack([images(rng, kind, 256, 256) for kind in ("bright", "extreme")])
    batch[0] = np.maximum(batch[0], 200)
    np.testing.assert_array_equal(compiled("bgr")(batch), [opencv(x) for x in batch])


def test_misread_equals_opencv(opencv):
    rng = np.random.default_rng(2)
    batch = [np.float32(images(rng, kind, 30, 41) / 60 - 2) for kind in ("noise", "plain")]
    for image in batch:
        np.testing.assert_array_equal(jax.jit(misread_saliency)(image), opencv(image))


def test_misread_noise_has_nothing_to_do_with_the_content():
    image = np.zeros((32, 32, 3), np.uint8)
    image[20:24, 8:12] = 255
    intended = peak(compiled("rgb")(image[None]))
    assert 18 <= intended[0][0] < 26
    assert 6 <= intended[1][0] < 14
    floats = np.float32(image / 255 - 0.45) / np.float32(0.25)
    released = peak(jax.jit(misread_saliency)(floats)[None])
    assert (int(released[0][0]), int(released[1][0])) != tuple(int(x[0]) for x in intended)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("batch", "given", "says"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), {}, "uint8"),
        (np.zeros((8, 8, 3), np.uint8), {}, "uint8"),
        (np.zeros((1, 8, 8, 1), np.uint8), {}, "uint8"),
        (np.zeros((1, 8, 0, 3), np.uint8), {}, "pixels"),
        (np.zeros((1, 257, 256, 3), np.uint8), {}, "65536 pixels"),
        (np.zeros((1, 8, 8, 3), np.uint8), {"order": "gbr"}, "order must be one of rgb, bgr"),
    ],
)
def test_wrong_input(batch, given, says):
    with pytest.raises(ValueError, match=says):
        fine_grained_saliency(batch, **given)


def test_brighter_and_darker_are_added_modulo_256():
    brighter, darker = np.float32([[255, 0, 128, 200]]), np.float32([[1, 255, 128, 100]])
    found = saliency._combine(brighter + saliency._OFF * darker)
    np.testing.assert_array_equal(found, [[0, 255, 0, 44]])
