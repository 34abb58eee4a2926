import jax
import numpy as np
import pytest
from dissection_problems import make_activations, upsampled

from mixaug_jax.dissection import quantile, resample, thresholds

RULES = ("linear", "hazen", "inverted_cdf")


def scale(activations):
    return np.maximum(np.abs(activations).max((0, 1, 2)), np.finfo(np.float32).tiny)


def without_subnormals(activations):
    return np.where(np.abs(activations) < np.finfo(np.float32).tiny, 0, activations)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("over", "padding", "name"),
    [
        ("raw", "edge", "T_raw"),
        ("raw", "zero", "T_raw"),
        ("upsampled", "edge", "T_up_acF"),
        ("upsampled", "zero", "T_up_hpz"),
    ],
)
def test_golden(golden, over, padding, name, rule):
    problem = golden("dissection/problem_p1_7x7_112x112.npz")
    answers = golden("dissection/answers_p1_7x7_112x112.npz")
    activations = problem["activations"].transpose(0, 2, 3, 1)
    found = quantile(
        activations, float(problem["q"]), over=over, size=(112, 112), padding=padding, rule=rule
    )
    right = answers[f"{name}_{rule.replace('inverted_cdf', 'invcdf')}"]
    assert found.dtype == np.float32
    assert np.all(np.abs(found - right) <= 1e-6 * scale(activations))


@pytest.mark.parametrize("padding", ["edge", "zero"])
@pytest.mark.parametrize(
    ("shape", "size", "q"),
    [
        ((5, 5, 7, 20), (33, 47), 0.005),
        ((3, 14, 14, 10), (56, 56), 0.04),
        ((6, 7, 7, 10), (7, 7), 0.1),
        ((4, 9, 8, 10), (5, 3), 0.5),
        ((1, 1, 1, 10), (4, 4), 0.3),
        ((40, 3, 3, 10), (9, 9), 0.001),
    ],
)
def test_against_numpy(shape, size, q, padding):
    activations = make_activations(*shape)
    normal = without_subnormals(activations).astype(np.float64)
    maps = {"raw": normal, "upsampled": upsampled(normal, size, padding)}
    for over, values in maps.items():
        for rule in RULES:
            found = quantile(activations, q, over=over, size=size, padding=padding, rule=rule)
            right = np.quantile(values.reshape(-1, shape[3]), 1 - q, axis=0, method=rule)
            assert np.all(np.abs(found - right) <= 1e-6 * scale(activations)), (over, rule)


def test_order_statistic_is_one_of_the_values():
    activations = make_activations(5, 4, 6, 10)
    found = quantile(activations, 0.03, over="raw", rule="inverted_cdf")
    values = without_subnormals(activations).reshape(-1, 10)
    right = np.quantile(values, 0.97, axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(found, right)
    assert np.all((values > found).mean(0) <= 0.03)


@pytest.mark.parametrize("padding", ["edge", "zero"])
def test_order_statistic_of_the_float32_maps(padding):
    activations = make_activations(5, 5, 4, 10, seed=2)
    grid = resample.Grid((5, 4), (33, 18), padding)
    maps = without_subnormals(jax.vmap(lambda a: resample.upsample(a, grid))(activations))
    found = quantile(activations, 0.02, size=(33, 18), padding=padding, rule="inverted_cdf")
    right = np.quantile(maps.reshape(-1, 10), 0.98, axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("q", [0.01, 0.6])
def test_batches_and_devices_do_not_matter(q):
    activations = make_activations(7, 4, 5, 10)
    found = [
        quantile(activations, q, size=(13, 11), batch_size=size, devices=jax.devices()[:devices])
        for size, devices in ((7, 1), (3, 1), (2, 2), (1, 4))
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_misses_of_the_pilot_are_found(monkeypatch):
    activations = make_activations(6, 4, 4, 10)
    right = quantile(activations, 0.05, size=(12, 12))
    for interval in ((2**31 - 2, 2**31 - 2), (-(2**31) + 9, -(2**31) + 9), (5, 2**24)):
        ends = tuple(np.full(10, end) for end in interval)
        monkeypatch.setattr(thresholds, "_pilot", lambda *_, ends=ends: ends)
        np.testing.assert_array_equal(quantile(activations, 0.05, size=(12, 12)), right)


def test_counts_go_to_the_host_before_they_overflow(monkeypatch):
    activations = make_activations(6, 4, 4, 10)
    right = quantile(activations, 0.05, size=(12, 12))
    monkeypatch.setattr(thresholds.walk, "LIMIT", 2 * 144)
    found = quantile(activations, 0.05, size=(12, 12), batch_size=1, devices=jax.devices()[:1])
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize(
    ("nodes", "size"), [((7, 7), (56, 56)), ((3, 5), (10, 7)), ((8, 9), (5, 9))]
)
def test_upsample_is_bilinear_with_half_pixel_centers(nodes, size):
    activations = np.random.default_rng(0).standard_normal((*nodes, 6)).astype(np.float32)
    edge = resample.upsample(activations, resample.Grid(nodes, size, "edge"))
    resized = jax.image.resize(activations, (*size, 6), "bilinear", antialias=False)
    np.testing.assert_allclose(edge, resized, atol=2e-6)
    zero = resample.upsample(activations, resample.Grid(nodes, size, "zero"))
    np.testing.assert_allclose(zero, upsampled(activations[None], size, "zero")[0], atol=1e-6)


def test_rounding_never_passes_the_corners():
    plateau = np.full((3, 3, 1), 0.1, np.float32)
    for padding in resample.PADDINGS:
        values = resample.upsample(plateau, resample.Grid((3, 3), (17, 23), padding))
        assert float(values.max()) == np.float32(0.1)


def test_smaller_tail_means_higher_threshold():
    activations = make_activations(4, 5, 5, 10)
    found = [quantile(activations, q, size=(15, 15)) for q in (0.4, 0.1, 0.01)]
    assert np.all(found[0] <= found[1])
    assert np.all(found[1] <= found[2])


def test_reads_a_memory_map_in_slices(tmp_path):
    activations = make_activations(6, 4, 4, 10)
    np.save(tmp_path / "layer.npy", activations)
    stored = np.load(tmp_path / "layer.npy", mmap_mode="r")
    right = quantile(activations, 0.05, size=(12, 12))
    np.testing.assert_array_equal(quantile(stored, 0.05, size=(12, 12)), right)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 0.0}, "above 0 and below 1"),
        ({"q": 1.0}, "above 0 and below 1"),
        ({"q": float("nan")}, "above 0 and below 1"),
        ({"over": "pooled"}, "upsampled, raw"),
        ({"rule": "higher"}, "linear, hazen, inverted_cdf"),
        ({"padding": "reflect"}, "edge, zero"),
        ({"size": None}, r"\(H, W\)"),
        ({"size": (0, 4)}, r"\(H, W\)"),
        ({"size": (6.7, 4)}, r"\(H, W\) of the label maps, integers, .* got \(6\.7, 4\)"),
        ({"size": 6}, r"\(H, W\)"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"activations": np.zeros((0, 4, 4, 2), np.float32)}, "at least one image"),
        ({"activations": np.zeros((4, 4, 2), np.float32)}, r"\[N,h,w,U\]"),
        ({"activations": np.full((2, 4, 4, 2), np.nan, np.float32)}, "image 0 hold NaN"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(options, message):
    arguments = {
        "activations": np.ones((2, 4, 4, 2), np.float32),
        "q": 0.1,
        "size": (8, 8),
    } | options
    with pytest.raises(ValueError, match=message):
        quantile(arguments.pop("activations"), arguments.pop("q"), **arguments)
