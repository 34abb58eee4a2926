"""Scores of alignment and of complexity, against TorchRay, Quantus, IBA's code and plain loops."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from score_cases import HEATS, near

from mixaug_jax.scores import SCORES, alignment, is_difficult, pointing_accuracy
from mixaug_jax.scores.components import largest_component

ALIGNMENT = (
    "best_box_iou",
    "box_ratio",
    "effective_heat_ratio",
    "energy_pointing_game",
    "mass_accuracy",
    "pointing_game",
    "rank_accuracy",
)
COMPLEXITY = ("sparseness", "complexity", "effective_complexity")


def score(name, *arrays, **options):
    """The score of every row, jitted."""
    f = functools.partial(SCORES[name], **options)
    return np.asarray(jax.jit(jax.vmap(f))(*arrays))


@pytest.fixture(scope="module")
def metrics(golden):
    return dict(golden("attribution/metrics.npz"))


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("pointing_game", {"tolerance": 1}, "quantus_pointing"),
        ("energy_pointing_game", {}, "iba_bbox_energy_ratio"),
        ("energy_pointing_game", {}, "quantus_attr_localisation"),
        ("mass_accuracy", {}, "quantus_mass_accuracy"),
        ("box_ratio", {}, "iba_bbox_top_ratio"),
        ("rank_accuracy", {}, "quantus_rank_accuracy"),
    ],
)
def test_golden_alignment(metrics, name, options, reference):
    masks = np.tile(metrics["bbox_masks"] > 0, (3, 1, 1))
    ours = score(name, np.concatenate([metrics[f"heat_{h}"] for h in HEATS]), masks, **options)
    near(ours, np.concatenate([metrics[f"{reference}_{h}"] for h in HEATS]), 1e-6)


@pytest.mark.parametrize("tolerance", [1, 5, 15])
def test_golden_torchray(metrics, tolerance):
    masks = np.unpackbits(metrics["torchray_masks"], -1).astype(bool)
    col, row = metrics["torchray_point_uv_hw"].T[:2]
    heats = np.zeros(masks.shape, np.float32)
    heats[np.arange(len(masks)), row, col] = 1
    hits = score("pointing_game", heats, masks, tolerance=tolerance)
    near(hits, (metrics[f"torchray_hit_tol{tolerance}"] > 0).astype(np.float32), 0)
    if tolerance == 15:
        assert 0 < hits.mean() < 1


def test_golden_complexity(metrics):
    heats = np.concatenate([metrics[f"heat_{h}"] for h in HEATS])
    for name in ("sparseness", "complexity"):
        reference = np.concatenate([metrics[f"quantus_{name}_{h}"] for h in HEATS])
        near(score(name, heats), reference, 2e-6)
    for h in HEATS:
        heats = metrics[f"heat_{h}"]
        # Quantus's threshold is a tenth of the largest value of its whole batch of eight.
        largest = metrics.get(f"heat_{h}_max", heats.max())
        shares = 0.1 * largest / heats.max((1, 2))
        ours = [
            SCORES["effective_complexity"](x, eps=float(e))
            for x, e in zip(heats, shares, strict=True)
        ]
        near(np.asarray(ours), metrics[f"quantus_effective_complexity_{h}"], 0)


def problem(seed=0, size=(9, 13)):
    """A signed map, and a mask of two objects."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    mask[1:4, 2:6] = mask[6, 9:12] = True
    return rng.normal(size=size).astype(np.float32), mask


def test_by_hand():
    heat, mask = problem()
    top = np.argsort(-heat.ravel())[: mask.sum()]
    absolute = np.argsort(-abs(heat).ravel())[: mask.sum()]
    positive = np.maximum(heat, 0)
    expected = {
        "energy_pointing_game": positive[mask].sum() / positive.sum(),
        "mass_accuracy": abs(heat)[mask].sum() / abs(heat).sum(),
        "box_ratio": mask.ravel()[top].mean(),
        "rank_accuracy": mask.ravel()[absolute].mean(),
    }
    for name, value in expected.items():
        near(SCORES[name](heat, mask), np.float32(value), 1e-6)
    assert len({round(float(v), 5) for v in expected.values()}) == 4


@pytest.mark.parametrize(
    ("distance", "tolerance", "hit"),
    [
        (15, 15, 0),
        (14, 15, 1),
        (0, 1, 1),
        (1, 1, 0),
        (3, 3.5, 1),
        (30, 10**6, 1),
        (30, 10**12, 1),
        (30, float("inf"), 1),
    ],
)
def test_pointing_is_strict(distance, tolerance, hit):
    heat, mask = np.zeros((40, 40)), np.zeros((40, 40), bool)
    heat[5, 7] = 1
    mask[5, 7 + distance] = True
    assert SCORES["pointing_game"](heat, mask, tolerance=tolerance) == hit
    assert SCORES["pointing_game"](heat.T, mask.T, tolerance=tolerance) == hit


@pytest.mark.parametrize(
    ("size", "pixels"),
    [((224, 300), 15), ((448, 448), 30), ((64, 32), 2), ((60, 80), 4), ((9, 13), 1)],
)
def test_pointing_tolerates_15_pixels_of_224(size, pixels):
    heat, masks = np.zeros(size, np.float32), np.zeros((2, *size), bool)
    heat[3, 2] = 1
    masks[0, 3, 2 + pixels - 1] = masks[1, 3, 2 + pixels] = True
    hits = [float(SCORES["pointing_game"](heat, mask)) for mask in masks]
    assert hits == [1, 0]


def test_pointing_takes_the_first_maximum_and_the_diagonal_distance():
    mask = np.zeros((30, 30), bool)
    mask[13, 14] = True
    heat = np.zeros((30, 30))
    heat[10, 10] = heat[13, 14] = 1  # 3-4-5: the first maximum lies at 5 pixels
    assert SCORES["pointing_game"](heat, mask, tolerance=5) == 0
    assert SCORES["pointing_game"](heat, mask, tolerance=5.01) == 1


@pytest.mark.parametrize("name", ALIGNMENT)
def test_a_map_equal_to_the_mask_scores_1(name):
    mask = np.zeros((11, 8), bool)
    mask[2:7, 3:5] = True
    for m in (mask, np.ones((11, 8), bool), np.ones((1, 1), bool)):
        near(SCORES[name](m.astype(np.float32), m), np.float32(1), 1e-6)


@pytest.mark.parametrize("name", ALIGNMENT)
def test_maps_that_say_nothing_never_hit(name):
    heat, mask = problem()
    everywhere = np.ones_like(mask)
    broken = [np.zeros_like(heat), np.full_like(heat, np.nan)]
    for value in (np.nan, np.inf, -np.inf):
        broken.append(heat.copy())
        broken[-1][2, 3] = value
    arrays = [(h, m) for h in broken for m in (mask, everywhere)] + [(heat, np.zeros_like(mask))]
    assert (score(name, *(np.stack(x) for x in zip(*arrays, strict=True))) == 0).all()


def test_a_constant_map_points_nowhere():
    heat, mask = problem()
    mask[0, 0] = True  # where the first of equal values lies
    assert SCORES["pointing_game"](np.full_like(heat, 0.3), mask) == 0
    heat[2, 3] = 9
    assert SCORES["pointing_game"](heat, mask) == 1


@pytest.mark.parametrize("name", ALIGNMENT)
def test_scale_does_not_matter(name):
    heat, mask = problem()
    plain = SCORES[name](heat, mask)
    for scale in (1e-30, 1e30, 3e38 / np.abs(heat).max()):
        near(SCORES[name](heat * np.float32(scale), mask), plain, 1e-5)
    assert 0 <= plain <= 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ALIGNMENT)
def test_alignment_rejects(name):
    heat, mask = problem()
    with pytest.raises(ValueError, match=r"heatmap must have the size of the mask, \[9, 13\]"):
        SCORES[name](heat[:-1], mask)
    with pytest.raises(ValueError, match=r"heatmap must have the size of the mask"):
        SCORES[name](heat[..., None], mask)
    with pytest.raises(ValueError, match=r"mask must be bool \[H,W\]; got float32 \[9, 13\]"):
        SCORES[name](heat, mask.astype(np.float32))


@pytest.mark.parametrize("name", ["mass_accuracy", "best_box_iou", "box_ratio"])
def test_batches_agree_with_single_maps(name):
    pairs = [problem(seed) for seed in range(3)]
    heats, masks = (np.stack(x) for x in zip(*pairs, strict=True))
    near(score(name, heats, masks), np.asarray([SCORES[name](*p) for p in pairs]), 1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 17), (40, 33)])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.6, 1.0])
def test_components(size, share):
    on = np.random.default_rng(3).random(size) < share
    labels, count = ndimage.label(on, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    ours = np.asarray(jax.jit(largest_component)(on))
    assert ours.sum() == sizes.max()
    assert len(np.unique(labels[ours])) == min(count, 1)
    assert not (ours & ~on).any()


def test_components_of_a_comb():
    """Long corridors: the label has to travel through all of them."""
    comb = np.zeros((15, 16), bool)
    comb[:, ::4] = comb[0, ::4] = True
    comb[0, 0:5] = comb[-1, 4:9] = comb[0, 8:13] = True
    comb[7, 14] = True
    ours = np.asarray(largest_component(comb))
    assert ours.sum() == comb.sum() - 1
    assert not ours[7, 14]


def test_best_box_iou_by_hand():
    heat, mask = problem(5, (20, 24))
    heat = ndimage.gaussian_filter(heat, 2)
    top, left = np.argwhere(mask).min(0)
    bottom, right = np.argwhere(mask).max(0) + 1
    target = np.zeros_like(mask)
    target[top:bottom, left:right] = True
    best = 0
    for k in range(1, 20):
        labels, _ = ndimage.label(heat >= k / 20 * heat.max(), np.ones((3, 3)))
        region = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
        box = np.zeros_like(mask)
        rows, cols = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
        box[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] = True
        best = max(best, (box & target).sum() / (box | target).sum())
    near(SCORES["best_box_iou"](heat, mask), np.float32(best), 1e-6)
    assert 0 < best < 1


def test_effective_heat_ratio_by_hand():
    heat, mask = problem(1)
    scaled = np.maximum(heat, 0) / heat.max()
    warm = scaled[scaled >= 0.1]
    ratios = []
    for q in np.linspace(0, 1, 11):
        above = scaled >= max(min(np.quantile(warm, q), 0.99), 0.1)
        ratios.append(scaled[above & mask].sum() / above.sum())
    expected = np.trapezoid(ratios, dx=0.1)
    near(SCORES["effective_heat_ratio"](heat, mask), np.float32(expected), 1e-6)
    assert 0.05 < expected < 0.9


@pytest.mark.parametrize("plateau", [0.45, 0.6, 0.85, 0.9, 0.95])
def test_effective_heat_ratio_counts_the_pixels_at_a_threshold(plateau):
    heat = np.zeros((12, 13), np.float32)
    heat[3:9, 2:10] = np.float32(plateau) * np.float32(0.7)
    heat[5, 5] = 0.7
    mask = np.zeros((12, 13), bool)
    mask[2:6, 3:9] = True
    scaled = heat / heat.max()
    warm = scaled[scaled >= 0.1]
    ratios = []
    for threshold in np.minimum(np.quantile(warm, np.linspace(0, 1, 11), method="linear"), 0.99):
        above = scaled >= threshold - 1e-6  # what rounding puts below
        ratios.append((scaled * mask * above).sum() / above.sum())
    near(SCORES["effective_heat_ratio"](heat, mask), np.mean([ratios[:-1], ratios[1:]]), 1e-6)


def test_best_box_iou_counts_the_pixels_at_a_threshold():
    """13 of 20 is a threshold, which no rounding may lift above the 13."""
    heat = np.full((14, 14), 12, np.float32)
    mask = np.zeros((14, 14), bool)
    mask[4:10, 4:10] = True
    heat[mask] = 13
    heat[6, 6] = 20
    assert SCORES["best_box_iou"](heat, mask) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pointing_game", {"tolerance": -1}, "tolerance must not be negative"),
        ("pointing_game", {"tolerance": math.nan}, "tolerance must not be negative"),
        ("best_box_iou", {"levels": 1}, "levels must be an integer of at least 2"),
        ("effective_heat_ratio", {"base": 0.0}, "base must be above 0 and at most 1"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        SCORES[name](*problem(), **options)


def test_complexity_at_the_ends():
    n = 7 * 9
    one, flat = np.zeros((7, 9)), np.full((7, 9), -2.0)
    one[3, 4] = -5
    dead = [np.zeros((7, 9)), np.where(one == 0, np.nan, 1), np.where(one == 0, 1, np.inf)]
    expected = {
        "sparseness": (1 - 1 / n, 0),
        "complexity": (0, math.log(n)),
        "effective_complexity": (1, n),
    }
    assert set(expected) == set(COMPLEXITY)
    for name, (simplest, worst) in expected.items():
        near(SCORES[name](one), np.float32(simplest), 1e-6)
        for heat in (flat, *dead):
            near(SCORES[name](heat), np.float32(worst), 1e-5)
        near(SCORES[name](flat * np.float32(1e38)), np.float32(worst), 1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", COMPLEXITY)
def test_complexity_rejects(name):
    with pytest.raises(ValueError, match=r"heatmap must be \[H,W\]; got \[7\]"):
        SCORES[name](np.ones(7))


def test_bad_share_of_the_largest_value():
    with pytest.raises(ValueError, match=r"eps must be in 0\.\.1"):
        SCORES["effective_complexity"](np.ones((7, 9)), eps=-0.1)


def test_pointing_accuracy():
    hits = jnp.asarray([1, 0, 0, 1, 1.0])
    classes = [0, 0, 0, 3, 3]
    assert pointing_accuracy(hits, classes) == {"all": pytest.approx((1 / 3 + 1) / 2)}
    difficult = is_difficult([0.1, 0.24, 0.25, 0.2, 0.9], [2, 3, 5, 1, 2])
    assert difficult.tolist() == [True, True, False, False, False]
    both = pointing_accuracy(hits, classes, difficult=difficult)
    assert both == {"all": pytest.approx(2 / 3), "difficult": pytest.approx(1 / 2)}
    for other in ({"classes": classes[:4]}, {"classes": classes, "difficult": difficult[:4]}):
        with pytest.raises(ValueError, match=r"hits \[5\] and (classes|difficult) \[4\]"):
            pointing_accuracy(hits, **other)
    nothing = pointing_accuracy(hits, classes, difficult=np.zeros(5, bool))
    assert math.isnan(nothing["difficult"])


@pytest.mark.parametrize("count", [1, 2, 7, 10, 11, 60])
def test_deciles_are_numpys(count):
    heat = np.random.default_rng(count).permutation(60).astype(np.float32).reshape(6, 10)
    warm = heat >= 60 - count
    expected = np.percentile(heat[warm], np.arange(0, 101, 10))
    near(alignment._deciles(jnp.asarray(heat), jnp.asarray(warm)), expected, 1e-4)


def test_no_threshold_of_the_effective_heat_ratio_is_above_99_percent():
    """Where the largest value lies beside the object and one within 1 % of it on it, the last threshold has both."""
    heat, mask = np.full((2, 6), 0.5, np.float32), np.zeros((2, 6), bool)
    heat[0, 0], heat[0, 1], mask[0, 1] = 1, 0.995, True
    deciles = np.minimum(np.percentile(heat, np.arange(0, 101, 10)), 0.99)
    ratios = [(heat * mask * (heat >= t)).sum() / (heat >= t).sum() for t in deciles]
    assert ratios[-1] == pytest.approx(0.995 / 2)
    ours = SCORES["effective_heat_ratio"](heat, mask)
    assert float(ours) == pytest.approx(np.trapezoid(ratios, dx=0.1), abs=1e-5)
