import jax
import numpy as np
import pytest
from dissection_problems import make_activations, make_labels, upsampled

from mixaug_jax import dissection
from mixaug_jax.dissection import Counting, tables

CATEGORIES = np.array([9, 0, 0, 2, 1, 1, 0, 2, 2, 0])  # entry 0 is ignored


def count_by_hand(activations, thresholds, labels, padding="edge", weights=None):
    """Float64 counts, and for each unit how many pixels float32 may put on the other side."""
    maps = upsampled(activations, labels.shape[1:3], padding)
    scale = np.abs(activations).max((0, 1, 2))
    unsure = (np.abs(maps - thresholds) <= 4e-6 * scale).sum((0, 1, 2))
    on = (maps > thresholds).astype(np.int64)
    here = (labels[..., None] == np.arange(len(CATEGORIES))).any(3).astype(np.int64)
    here[..., 0] = 0
    member = CATEGORIES[:, None] == np.arange(3)
    holds = (here.any((1, 2)).astype(np.int64) @ member[:, :] > 0).astype(np.int64)
    weights = np.ones(len(on), np.int64) if weights is None else weights
    return {
        "intersection": np.einsum("n,nxyu,nxyc->uc", weights, on, here),
        "unit": np.einsum("n,nxyu->u", weights, on),
        "unit_by_category": np.einsum("n,nxyu,ng->ug", weights, on, holds),
        "concept": np.einsum("n,nxyc->c", weights, here),
    }, unsure


@pytest.fixture(scope="module")
def problem():
    activations = make_activations(6, 4, 5, 20, seed=3)
    labels = make_labels(6, 13, 11, 3, len(CATEGORIES), seed=4)
    thresholds = np.quantile(activations, 0.9, (0, 1, 2)).astype(np.float32)
    return activations, thresholds, labels, len(CATEGORIES)


@pytest.mark.parametrize("over", ["raw", "upsampled"])
@pytest.mark.parametrize(("padding", "mode"), [("edge", "acF"), ("zero", "hpz")])
def test_golden(golden, padding, mode, over):
    problem = golden("dissection/problem_p1_7x7_112x112.npz")
    answers = golden("dissection/answers_p1_7x7_112x112.npz")
    activations = problem["activations"].transpose(0, 2, 3, 1)
    labels = problem["segmentation"].transpose(0, 2, 3, 1)
    categories = problem["label_category"]
    kind = problem["kind_names"][problem["unit_kind"]]
    for rule in ("linear", "hazen", "invcdf"):
        name = f"raw_{rule}" if over == "raw" else f"up_{rule}"
        stored = answers[f"T_raw_{rule}" if over == "raw" else f"T_up_{mode}_{rule}"]
        counts = dissection.tally(
            activations, stored, labels, len(categories), categories=categories, padding=padding
        )
        right = {k: answers[f"x_{mode}_{name}_{k}"] for k in ("act", "inter", "amb", "best")}
        off = right["amb"]
        assert np.all(np.abs(counts.unit - right["act"]) <= off)
        assert np.all(np.abs(counts.intersection - right["inter"])[:, 1:] <= off[:, None])
        np.testing.assert_array_equal(counts.concept[1:], answers["gt"][1:])
        if rule == "linear" and over == "raw":
            by_category = answers[f"x_{mode}_{name}_catact"]
            assert np.all(np.abs(counts.unit_by_category - by_category) <= off[:, None])
        # As the program beside the answers judges: dead and constant units have no best label.
        judged = ~np.isin(kind, ["dead", "constant"])
        label, _ = dissection.best_labels(counts.iou())
        exact = right["inter"][:, 1:] / np.maximum(
            right["act"][:, None] + answers["gt"][1:] - right["inter"][:, 1:], 1
        )
        bound = 4e-6 + 4 * off / np.maximum(right["act"], 1)
        units = np.arange(len(label))
        assert np.all((exact[units, label - 1] >= exact.max(1) - bound)[judged])


@pytest.mark.parametrize("padding", ["edge", "zero"])
@pytest.mark.parametrize(
    ("shape", "size", "slots"),
    [((3, 5, 7, 20), (33, 47), 4), ((2, 7, 7, 10), (7, 7), 1), ((3, 9, 8, 10), (5, 3), 6)],
)
def test_against_numpy(shape, size, slots, padding):
    activations = make_activations(*shape)
    labels = make_labels(shape[0], *size, slots, len(CATEGORIES))
    thresholds = np.quantile(activations, 0.8, (0, 1, 2)).astype(np.float32)
    counts = dissection.tally(
        activations, thresholds, labels, len(CATEGORIES), categories=CATEGORIES, padding=padding
    )
    right, unsure = count_by_hand(activations, thresholds, labels, padding)
    # Plateaus: float64 may round a constant up, here a > T is false on it. Subnormals are 0.
    sure = ~np.isin(np.arange(shape[3]) % 10, (3, 5, 9))
    unsure = unsure[sure]
    for name, value in right.items():
        found = getattr(counts, name)
        assert found.dtype == np.int64
        if name == "concept":
            np.testing.assert_array_equal(found, value)
        else:
            off = np.abs(found - value)[sure]
            assert np.all(off.reshape(len(unsure), -1).max(1) <= unsure), name
    assert np.any(counts.intersection > 0)


def test_both_backends_batches_and_devices_give_the_same_integers(problem):
    *arguments, concepts = problem
    runs = [("bits", 6, 1), ("bits", 2, 4), ("dense", 6, 1), ("dense", 1, 2)]
    found = []
    for backend, size, devices in runs:
        chosen = {"batch_size": size, "devices": jax.devices()[:devices]}
        counting = Counting(concepts, CATEGORIES, backend=backend, **chosen)
        found.append(tables.count(*arguments, counting))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0][0], other[0])
        np.testing.assert_array_equal(found[0][1], other[1])


def test_thresholds_that_are_pixel_values(problem):
    # The hardest case for equality: T is the value of a pixel, so one rounding decides.
    activations, _, labels, concepts = problem
    thresholds = dissection.quantile(activations, 0.1, size=(13, 11), rule="inverted_cdf")
    bits, dense = (
        tables.count(activations, thresholds, labels, Counting(concepts, backend=backend))[0]
        for backend in ("bits", "dense")
    )
    np.testing.assert_array_equal(bits, dense)
    assert np.all(bits[0, 0] <= 0.1 * labels[..., 0].size)


def test_constant_and_dead_units_are_never_on(problem):
    activations, _, labels, concepts = problem
    for padding in ("edge", "zero"):
        thresholds = dissection.quantile(activations, 0.1, size=(13, 11), padding="edge")
        counts = dissection.tally(activations, thresholds, labels, concepts, padding=padding)
        kind = np.arange(20) % 10
        np.testing.assert_array_equal(counts.unit[(kind == 1) | (kind == 5)], 0)
        assert np.all(np.isfinite(counts.iou()))
        np.testing.assert_array_equal(counts.iou()[(kind == 1) | (kind == 5)], 0)


def test_a_label_in_two_slots_counts_once(problem):
    activations, thresholds, labels, concepts = problem
    once = dissection.tally(activations, thresholds, labels[..., :1], concepts)
    twice = dissection.tally(activations, thresholds, labels[..., [0, 0, 0]], concepts)
    np.testing.assert_array_equal(once.intersection, twice.intersection)
    np.testing.assert_array_equal(once.concept, twice.concept)


def test_planted_units_have_iou_one():
    labels = make_labels(5, 12, 12, 1, 6, seed=1)
    units = (labels == np.arange(1, 6)).astype(np.float32)
    counts = dissection.tally(units, np.full(5, 0.5), labels, 6)
    np.testing.assert_array_equal(counts.iou()[:, 1:], np.eye(5))
    np.testing.assert_array_equal(dissection.best_labels(counts.iou())[0], np.arange(1, 6))


def test_iou_by_hand():
    labels = np.zeros((2, 2, 2, 1), np.uint8)
    labels[0, 0, :, 0] = 1  # image 0: upper half
    labels[1, :, :, 0] = 2
    unit = np.zeros((2, 2, 2, 1), np.float32)
    unit[0, :, 0] = unit[1, 0, 0] = 1
    categories = [0, 0, 1]
    counts = dissection.tally(unit, [0.5], labels, 3, categories=categories)
    np.testing.assert_allclose(counts.iou(), [[0, 1 / 4, 1 / 6]])
    np.testing.assert_allclose(counts.iou(restricted=True), [[0, 1 / 3, 1 / 4]])
    np.testing.assert_array_equal(counts.unit_by_category, [[2, 1]])


def test_shuffled_pairings_are_tallies_of_shuffled_maps(problem):
    activations, thresholds, labels, concepts = problem
    orders = np.concatenate([np.arange(6)[None], dissection.derangements(6, 2)])
    counting = Counting(concepts, CATEGORIES)
    found = dissection.tally_orders(activations, thresholds, labels, orders, counting)
    assert len(found) == 3
    for order, counts in zip(orders, found, strict=True):
        right = dissection.tally(
            activations, thresholds, labels[order], concepts, categories=CATEGORIES
        )
        np.testing.assert_array_equal(counts.intersection, right.intersection)
        np.testing.assert_array_equal(counts.unit_by_category, right.unit_by_category)
        np.testing.assert_array_equal(counts.concept, right.concept)


def test_derangements():
    orders = dissection.derangements(7, 50, seed=1)
    np.testing.assert_array_equal(np.sort(orders, 1), np.tile(np.arange(7), (50, 1)))
    assert not np.any(orders == np.arange(7))
    assert len(np.unique(orders, axis=0)) > 40
    np.testing.assert_array_equal(orders, dissection.derangements(7, 50, seed=1))
    np.testing.assert_array_equal(dissection.derangements(2, 1), [[1, 0]])
    with pytest.raises(ValueError, match="2 or more"):
        dissection.derangements(1)


def test_noise_stays_within_the_shuffled_null():
    draw = np.random.default_rng(0)
    noise = draw.standard_normal((24, 4, 4, 40)).astype(np.float32)
    labels = make_labels(24, 16, 16, 1, 6, seed=2)
    thresholds = dissection.quantile(noise, 0.1, size=(16, 16))
    orders = np.concatenate([np.arange(24)[None], dissection.derangements(24, 5)])
    tallies = dissection.tally_orders(noise, thresholds, labels, orders, Counting(6))
    own, *null = (dissection.best_labels(counts.iou())[1].mean() for counts in tallies)
    assert min(null) - 0.01 < own < max(null) + 0.01


def test_slots_are_tables_of_groups(problem):
    activations, thresholds, labels, concepts = problem
    slots = np.array([[0, 1, 1, 0, 2, 2]])
    for backend in ("bits", "dense"):
        counting = Counting(concepts, CATEGORIES, backend=backend, batch_size=4)
        found = tables.count(activations, thresholds, labels, counting, slots=slots)
        for slot in range(3):
            chosen = slots[0] == slot
            right = tables.count(activations[chosen], thresholds, labels[chosen], counting)
            for one, other in zip(found, right, strict=True):
                np.testing.assert_array_equal(one[slot], other[0])


def test_best_labels_break_ties_downwards_and_leave_none_out():
    iou = np.array([[0.9, 0.2, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.3]])
    label, value = dissection.best_labels(iou)
    np.testing.assert_array_equal(label, [2, 1, 3])
    np.testing.assert_array_equal(value, [0.5, 0.0, 0.3])
    label, value = dissection.top_labels(iou, 2)
    np.testing.assert_array_equal(label, [[2, 3], [1, 2], [3, 1]])
    np.testing.assert_array_equal(value, [[0.5, 0.5], [0, 0], [0.3, 0.1]])
    assert dissection.top_labels(iou, 5)[0].shape == (3, 3)
    label, value = dissection.best_by_category(iou, [7, 0, 2, 0])
    np.testing.assert_array_equal(label, [[3, 0, 2], [1, 0, 2], [3, 0, 2]])
    np.testing.assert_array_equal(value, [[0.5, 0, 0.5], [0, 0, 0], [0.3, 0, 0]])


def test_count_detectors_in_both_conventions():
    categories = [0, 0, 0, 1, 1]
    iou = np.array(
        [
            [0, 0.10, 0.00, 0.05, 0.00],
            [0, 0.04, 0.00, 0.00, 0.00],  # not above 0.04
            [0, 0.30, 0.00, 0.30, 0.00],  # a tie: label 1
            [0, 0.00, 0.06, 0.00, 0.07],
            [0, 0.00, 0.00, 0.00, 0.00],
        ]
    )
    best = dissection.best_by_category(iou, categories)
    detectors, unique = dissection.count_detectors(*best, (0.04, 0.2))
    np.testing.assert_array_equal(detectors, [[2, 1], [1, 0]])
    np.testing.assert_array_equal(unique, [[1, 1], [1, 0]])
    detectors, unique = dissection.count_detectors(*best, (0.04, 0.2), per="category")
    np.testing.assert_array_equal(detectors, [[3, 3], [1, 1]])
    np.testing.assert_array_equal(unique, [[2, 2], [1, 1]])
    replicates = [np.stack([x, x]) for x in best]
    np.testing.assert_array_equal(
        dissection.count_detectors(*replicates, (0.04, 0.2), per="category")[1], [unique, unique]
    )
    nothing, _ = dissection.count_detectors(*best, (0.9,))
    np.testing.assert_array_equal(nothing, [[0, 0]])
    with pytest.raises(ValueError, match="per must be one of unit, category"):
        dissection.count_detectors(*best, per="label")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": np.ones((0, 3, 3, 2), np.float32)}, "at least one image"),
        ({"activations": np.full((2, 3, 3, 2), np.inf, np.float32)}, "NaN or infinity"),
        ({"thresholds": np.zeros(3)}, "2 units"),
        ({"thresholds": np.array([0, np.nan])}, "unit 1 is NaN"),
        ({"segmentation": np.zeros((3, 6, 6, 1), int)}, "3 label maps"),
        ({"segmentation": np.zeros((2, 6, 6), int)}, r"\[N,H,W,K\]"),
        ({"segmentation": np.zeros((2, 6, 6, 1))}, "must be of integers"),
        ({"segmentation": np.full((2, 6, 6, 1), 4)}, "image 0 holds label 4"),
        ({"segmentation": np.full((2, 6, 6, 1), -1)}, "image 0 holds label -1"),
        ({"num_concepts": 1}, "at least 2"),
        ({"categories": [0, 0, 1]}, "got 3"),
        ({"categories": [0, 0, -1, 2]}, "at least 0"),
        ({"categories": [0, 0, 0.5, 2]}, "one integer"),
        ({"padding": "same"}, "edge, zero"),
        ({"activations": [[1.0]]}, r"activations must be an array \[N,h,w,U\]"),
        ({"activations": np.ones((2, 3, 3, 2), complex)}, "must be real numbers; got complex128"),
        ({"thresholds": [None, 1]}, r"thresholds must be real numbers; got \[None, 1\]"),
        ({"segmentation": [[0]]}, r"segmentation must be an array \[N,H,W,K\]"),
        ({"num_concepts": 4.5}, "num_concepts must be an integer of at least 0; got 4.5"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1; got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(change, message):
    arguments = {
        "activations": np.ones((2, 3, 3, 2), np.float32),
        "thresholds": np.zeros(2),
        "segmentation": np.zeros((2, 6, 6, 1), int),
        "num_concepts": 4,
    }
    with pytest.raises(ValueError, match=message):
        dissection.tally(**(arguments | change))


def test_restricted_needs_categories(problem):
    activations, thresholds, labels, concepts = problem
    counts = dissection.tally(activations, thresholds, labels, concepts)
    assert counts.unit_by_category.shape == (20, 0)
    with pytest.raises(ValueError, match="needs categories"):
        counts.iou(restricted=True)


def test_counts_go_to_the_host_before_they_overflow(problem, monkeypatch):
    activations, thresholds, labels, concepts = problem
    right = dissection.tally(activations, thresholds, labels, concepts)
    monkeypatch.setattr(tables.walk, "LIMIT", 2 * 13 * 11)
    found = dissection.tally(
        *(activations, thresholds, labels, concepts), batch_size=1, devices=jax.devices()[:1]
    )
    np.testing.assert_array_equal(found.intersection, right.intersection)
    np.testing.assert_array_equal(found.unit, right.unit)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        (np.arange(2)[None], r"orders must be \[S,3\], .* got \[1, 2\]"),
        (np.zeros((0, 3), int), r"orders must be \[S,3\], .* got \[0, 3\]"),
        (np.arange(3)[None] - 1, r"each of orders must lie in 0\.\.2; got -1"),
        (np.arange(3)[None] + 0.5, "each of orders must be a row of integers"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_pairings_are_of_all_images(orders, message):
    given = np.ones((3, 2, 2, 1), np.float32), [0.5], np.ones((3, 4, 4, 1), int)
    for count in (dissection.tally_orders, dissection.tally_halves):
        with pytest.raises(ValueError, match=message):
            count(*given, orders, Counting(2))


@pytest.mark.usefixtures("unchecked")
def test_what_labels_cannot_be_read_from():
    iou = np.eye(3)
    for wrong, message in (
        (lambda: dissection.best_labels(iou[:, :1]), "a column for a concept besides number 0"),
        (lambda: dissection.top_labels(iou, -1), "count must be an integer of at least 1; got -1"),
        (lambda: dissection.best_by_category(iou, [0, 1]), "each of the 3 concept numbers; got 2"),
        (lambda: dissection.best_by_category(iou, [0, 0.7, 1]), "categories must be one integer"),
        (lambda: dissection.count_detectors(iou, iou, 0.04), "iou_thresholds must be a row"),
        (
            lambda: dissection.count_detectors(iou, iou[:2]),
            "labels and values must be of one shape",
        ),
        (lambda: dissection.derangements(4, -1), "count must be an integer of at least 0; got -1"),
        (lambda: Counting(3, backend="fast"), "backend must be one of '', dense, bits; got 'fast'"),
        (lambda: Counting(3, memory_mb=0), "memory_mb must be a number above 0; got 0"),
        (lambda: dissection.Asked(threshold="x"), "threshold must be a number"),
        (lambda: dissection.Removing(None), "value must be zero, mean or a number; got None"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
