"""Panels from arrays: bins, concepts, maps; and the reader against what is planted in its panels."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats

from mixaug_jax.data.source import Source
from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.papers.relevance.panels import PANELS, concept_rows, logit_grid, seen
from mixaug_jax.papers.relevance.panels import simulated_reader as reading
from mixaug_jax.papers.relevance.panels.panel import Panel, Pictures, part, signed_percentiles, sure

SIDE = 16
NAMES = ("size", "tone", "turn")
READER = reading.Reader(NAMES, np.array([0.05, 0.05, 0.1], np.float32), ("turn",), shuffles=300)


def pictures(count=400, slope=(0.0, 3.0, 0.0), seed=0):
    """Gray squares whose tone is attribute 1; the logit is linear in the attributes."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    logits = values @ np.array(slope, np.float32) + 0.3 * rng.normal(size=count).astype(np.float32)
    tones = (127 + 100 * values[:, 1]).astype(np.uint8)
    images = np.broadcast_to(tones[:, None, None, None], (count, SIDE, SIDE, 3)).copy()
    return Pictures(images, logits.astype(np.float32), ("dark", "bright"), values)


@pytest.fixture(scope="module")
def net():
    model = MODELS["tiny"](2)
    variables = model.init(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3), np.float32), train=False)
    return Net(model, variables, Preprocess(SIDE, mean=(0.5,) * 3, std=(0.25,) * 3))


def test_grid_sorts_by_the_logit():
    shown = pictures()
    panel = logit_grid.grid(None, shown, jax.random.key(1), rows=12)
    centers = signed_percentiles(shown.logits, logit_grid.PERCENTS)
    assert centers[2] == 0
    assert centers[3] == -centers[1] == np.percentile(np.abs(shown.logits), 20).astype(np.float32)
    borders = (centers[1:] + centers[:-1]) / 2
    assert panel.images.shape == (12, 5, SIDE, SIDE, 3)
    for k in range(5):
        low = -np.inf if k == 0 else borders[k - 1]
        high = np.inf if k == 4 else borders[k]
        assert ((panel.logits[:, k] >= low) & (panel.logits[:, k] <= high)).all()
    assert len(np.unique(panel.logits)) == 60  # none twice
    assert panel.columns[2] == "undecided"
    assert panel.columns[4].startswith("bright, ")
    # Another key shows other images; few images make few rows.
    other = logit_grid.grid(None, shown, jax.random.key(2), rows=12)
    assert not np.array_equal(other.logits, panel.logits)
    whole = logit_grid.grid(None, shown, jax.random.key(1), rows=10**6)
    counts = np.bincount(np.searchsorted(borders, shown.logits), minlength=5)
    assert len(whole.logits) == counts.min()
    np.testing.assert_array_equal(whole.logits[:12], panel.logits)


def test_words_for_a_logit():
    assert sure(0.0, ("a", "b")) == "undecided"
    assert sure(np.log(3.0), ("a", "b")) == "b, 75 % sure"
    assert sure(-20.0, ("a", "b")) == "a, 99.9 % sure"


@pytest.mark.parametrize("reading_kind", ["columns", "rows"])
def test_reader_finds_what_is_planted_and_nothing_else(reading_kind):
    panel = logit_grid.grid(None, pictures(), jax.random.key(1), rows=20)
    values = np.asarray(panel.attributes)
    if reading_kind == "rows":  # one scene a row, of which the tone changes
        panel = dataclasses.replace(panel, reading="rows")
        values = np.repeat(values[:, :1], 5, 1)
        values[..., 1] += 0.2 * np.arange(5)
    found = reading.judge(panel, values, READER, seed=3)
    assert found.relevant.tolist() == [False, True, False]
    if reading_kind == "columns":
        rng = np.random.default_rng(3)
        blurred = values + rng.normal(size=values.shape) * READER.jnd
        columns = np.tile(np.arange(5), 20)
        for k in (0, 1):
            rho = stats.spearmanr(blurred[..., k].ravel(), columns).statistic
            assert found.evidence[k] == pytest.approx(abs(rho), abs=1e-6)
        angle = [
            abs(stats.spearmanr(f(blurred[..., 2]).ravel(), columns).statistic)
            for f in (np.sin, np.cos)
        ]
        assert found.evidence[2] == pytest.approx(max(angle), abs=1e-6)
    else:
        # From the first column (-1) to the last (1) the tone rises by .8, eight noticeable differences a unit.
        assert found.evidence[1] == pytest.approx(0.4 / 0.05, rel=0.1)


def test_reader_of_concepts_is_the_auc():
    rng = np.random.default_rng(0)
    signs = np.array([1, 1, -1, 1, -1, -1, 1, -1], np.float32)
    values = rng.uniform(-1, 1, (8, 10, 3)).astype(np.float32)
    values[..., 1] += 1.0 * signs[:, None]
    images = np.zeros((8, 10, 4, 4, 3), np.uint8)
    logits = np.zeros((8, 10), np.float32)
    panel = Panel("signs", images, logits, tuple("abcdefghij"), "", signs=signs)
    exact = dataclasses.replace(READER, jnd=np.full(3, 1e-6, np.float32))
    found = reading.judge(panel, values, exact, seed=0)
    for k in (0, 1):
        one, other = values[signs > 0][..., k].ravel(), values[signs < 0][..., k].ravel()
        auc = stats.mannwhitneyu(one, other).statistic / (len(one) * len(other))
        assert found.evidence[k] == pytest.approx(abs(auc - 0.5), abs=1e-6)
    assert found.relevant.tolist() == [False, True, False]
    # Where all concepts speak for one class, nothing can be told.
    alike = dataclasses.replace(panel, signs=np.ones(8, np.float32))
    assert not reading.judge(alike, values, exact, seed=0).relevant.any()


def test_a_panel_that_says_nothing_is_seldom_read_wrongly():
    """Verdicts on panels of noise are wrong as often as the quantile says."""
    shown = pictures(slope=(0.0, 0.0, 0.0))
    panel = logit_grid.grid(None, shown, jax.random.key(1), rows=1000)
    truth = np.array([False, False, False])
    found = reading.many(panel, np.asarray(panel.attributes), READER, truth=truth, rows=10, seed=0)
    wrong = found.relevant[:, :2].mean()  # of 100 verdicts
    assert wrong <= 0.15
    assert np.isnan(found.auc).all()
    assert reading.interval(found.accuracy)[0] == pytest.approx(1 - found.relevant.mean())


def test_many_panels_and_the_linear_reader():
    truth = np.array([False, True, False])
    panel = logit_grid.grid(None, pictures(), jax.random.key(1), rows=1000)
    found = reading.many(panel, np.asarray(panel.attributes), READER, truth=truth, rows=10, seed=0)
    again = reading.many(panel, np.asarray(panel.attributes), READER, truth=truth, rows=10, seed=0)
    np.testing.assert_array_equal(found.ratio, again.ratio)
    assert found.relevant.shape == (reading.REPEATS, 3)
    assert found.auc.mean() > 0.99
    assert found.accuracy.std() > 0  # other rows, other verdicts
    mean, low, high = reading.interval(found.accuracy)
    assert low <= mean <= high
    other = reading.many(
        logit_grid.grid(None, pictures(slope=(3.0, 0, 0)), jax.random.key(1), rows=1000),
        np.asarray(panel.attributes), READER,
        truth=np.array([True, False, False]), rows=10, seed=0,
    )  # fmt: skip
    chances = reading.linear_reader([found.ratio], [truth], found.ratio)
    assert ((chances > 0.5) == truth).mean() > 0.95
    assert other.relevant.shape == found.relevant.shape


def test_auc_of_the_evidence():
    truth = np.array([True, False, True, False])
    assert reading.evidence_auc(np.array([3.0, 1.0, 2.0, 0.0]), truth) == 1
    assert reading.evidence_auc(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert np.isnan(reading.evidence_auc(np.zeros(4), np.ones(4, bool)))


def test_what_a_reader_sees():
    panel = logit_grid.grid(None, pictures(), jax.random.key(1), rows=4)

    def tone(images):
        values = images.mean((1, 2, 3))[:, None] / 255
        return np.repeat(values, 3, 1)

    values = reading.read(panel, tone)
    assert values.shape == (4, 5, 3)
    np.testing.assert_allclose(values[2, 3, 0], panel.images[2, 3].mean() / 255, rtol=1e-6)
    with pytest.raises(ValueError, match=r"an evaluator must give \[N,A\] for N=20 images"):
        reading.read(panel, lambda images: tone(images)[:3])


def test_pca_is_that_of_numpy(net):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 6))
    hidden = rng.normal(size=(40, 2, 2, 3)) * np.array([5.0, 2.0, 1.0])
    activations = (hidden @ mixing).astype(np.float32)
    logits = hidden.mean((1, 2))[:, 0].astype(np.float32)
    found = concept_rows.find_concepts(activations, logits, jax.random.key(0), count=3)
    flat = activations.reshape(-1, 6).astype(np.float64)
    _, singular, rows = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.components @ rows[:3].T), np.eye(3), atol=1e-4)
    assert found.explained == pytest.approx(1, abs=1e-5)
    two = concept_rows.find_concepts(activations, logits, jax.random.key(0), count=2)
    assert two.explained == pytest.approx((singular[:2] ** 2).sum() / (singular**2).sum(), rel=1e-5)
    assert found.agreement == 1  # the logit is linear in the scores
    pooled = found.scores.mean((1, 2))
    assert (pooled.max(0) >= -pooled.min(0)).all()


def test_nmf_comes_near_what_was_factorized():
    rng = np.random.default_rng(0)
    scores, parts = rng.uniform(size=(30, 2, 2, 2)) ** 4, rng.uniform(size=(2, 5)) ** 4
    activations = (scores @ parts).astype(np.float32)
    logits = (scores[..., 0].mean((1, 2)) - scores[..., 1].mean((1, 2))).astype(np.float32)
    given = {"factorization": "nmf", "count": 2}
    found = concept_rows.find_concepts(activations, logits, jax.random.key(0), **given)
    assert found.scores.min() >= 0
    assert found.components.min() >= 0
    assert found.explained > 0.99
    assert sorted(np.sign(found.weights)) == [-1, 1]
    with pytest.raises(ValueError, match="without negative activations, as after a ReLU; use pca"):
        concept_rows.find_concepts(activations - 1, logits, jax.random.key(0), **given)


def test_concepts_of_a_network(net):
    shown = pictures(40)
    panel = PANELS["concepts"](net, shown, jax.random.key(0), count=3, rows=6, max_images=30)
    assert panel.images.shape == (3, 6, SIDE, SIDE, 3)
    assert (np.diff(np.abs(panel.signs)) <= 0).all()
    gray = (panel.images == concept_rows.GRAY).all(-1).mean((1, 2, 3))
    # Tied scores, as of even pictures, may leave more than a tenth.
    assert (gray <= 0.9 + 1e-6).all()
    assert gray.max() > 0.5
    assert all(row.startswith(("speaks for dark", "speaks for bright")) for row in panel.rows)


def test_attribution_shows_the_grid_with_maps(net):
    shown = pictures(60)
    given = {"rows": 2, "percents": (-50, 50)}
    panel = logit_grid.attribution(net, shown, jax.random.key(1), method="gradient", **given)
    plain = logit_grid.grid(net, shown, jax.random.key(1), **given)
    np.testing.assert_array_equal(panel.images, plain.images)
    assert panel.maps.shape == (2, 2, SIDE, SIDE)
    assert np.abs(panel.maps).max() > 0
    assert "red speaks for bright" in panel.caption


def test_logits_and_activations_of_many_images(net):
    shown = pictures(70)
    views = np.stack([net.preprocess(image) for image in shown.images])
    direct = np.asarray(net.logits(views))
    found = seen.logits(net, shown.images)
    np.testing.assert_allclose(found, direct[:, 1] - direct[:, 0], atol=1e-5)
    layer = net.layers[1]
    np.testing.assert_allclose(
        seen.activations(net, shown.images, layer),
        net.maps(layer, net.features(views, layer)), atol=1e-5,
    )  # fmt: skip

    def read(i):
        return {"image": shown.images[i], "label": 0, "attributes": shown.attributes[i]}

    source = Source(read, 70, ("dark", "bright"))
    again = seen.read_pictures(net, source, max_images=35)
    np.testing.assert_array_equal(again.images, shown.images[::2])
    np.testing.assert_array_equal(again.attributes, shown.attributes[::2])
    np.testing.assert_allclose(again.logits, found[::2], atol=1e-5)


def test_one_device_sees_what_four_see(net, monkeypatch):
    shown = pictures(50)
    layer = net.layers[1]
    four = seen.logits(net, shown.images), seen.activations(net, shown.images, layer)
    alone = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: alone)
    np.testing.assert_allclose(seen.logits(net, shown.images), four[0], atol=1e-5)
    np.testing.assert_allclose(seen.activations(net, shown.images, layer), four[1], atol=1e-5)


def test_parts_of_a_panel():
    panel = logit_grid.grid(None, pictures(), jax.random.key(1), rows=6)
    small = part(panel, [4, 0], [1, 3])
    np.testing.assert_array_equal(small.logits, panel.logits[[4, 0]][:, [1, 3]])
    assert small.columns == (panel.columns[1], panel.columns[3])
    assert part(panel, [1]).images.shape[:2] == (1, 5)


def test_what_cannot_work_is_said(net, unchecked):
    shown = pictures(20)
    alike = dataclasses.replace(shown, logits=np.full(20, 5.0, np.float32))
    with pytest.raises(ValueError, match="all 20 are in one; show more images"):
        logit_grid.grid(None, alike, jax.random.key(0))
    with pytest.raises(ValueError, match="finite logits that are not all 0"):
        logit_grid.grid(None, dataclasses.replace(shown, logits=np.zeros(20)), jax.random.key(0))
    with pytest.raises(ValueError, match=r"method must be one of .*did you mean 'gradcam'"):
        logit_grid.attribution(net, shown, jax.random.key(0), method="gradcamm")
    with pytest.raises(ValueError, match=r"factorization must be one of pca, nmf; got 'ica'"):
        concept_rows.concepts(net, shown, jax.random.key(0), factorization="ica")
    with pytest.raises(ValueError, match="this set has 3"):
        seen.read_pictures(net, Source(lambda i: {}, 1, ("a", "b", "c")))
    model = MODELS["tiny"](4)
    variables = model.init(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3)), train=False)
    other = Net(model, variables, net.preprocess)
    with pytest.raises(ValueError, match="networks of two classes; this one has 4"):
        seen.check_net(other, shown.images)
    with pytest.raises(ValueError, match="reading must be one of columns, rows, signs"):
        Panel("diagonal", np.zeros((1, 1, 4, 4, 3), np.uint8), np.zeros((1, 1)), ("a",), "")
    with pytest.raises(ValueError, match=r"jnd must have a value above 0 for each of 3 attributes"):
        reading.Reader(NAMES, np.zeros(3))
