"""The occlusion experiment: removals against a closed form, and what may not change them."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_cases import Linear

from mixaug_jax.data.source import Source
from mixaug_jax.evaluation import anomaly
from mixaug_jax.evaluation.anomaly_grid import FULL, SCORES, SELECTIONS, VALUES, Grid, plan
from mixaug_jax.evaluation.anomaly_removal import evaluate, rank
from mixaug_jax.evaluation.replacement import rise_blur
from mixaug_jax.models import Net, Preprocess

SHARES = (0, 10, 33, 90, 100)
UNITS = {
    "pixels": {},
    "elements": {"channels": "each"},
    "tiles": {"window": (2, 2)},
    "time-frequency cells": {"window": (3, 2), "channels": "each"},
}
MEAN = np.array([0.3, -0.2], np.float32)


def linear(shape=(7, 6, 2), images=2, classes=4, seed=0):
    """A linear network, images and their labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(images, *shape)).astype(np.float32)
    kernel = rng.normal(size=(x[0].size, classes)).astype(np.float32) / math.sqrt(x[0].size)
    bias = rng.normal(size=classes).astype(np.float32)
    net = Net(
        Linear(classes), {"params": {"fc": {"kernel": kernel, "bias": bias}}}, Preprocess(shape[0])
    )
    return net, x, rng.integers(classes, size=images)


def keys_of(images):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(jnp.arange(images))


@functools.partial(jax.jit, static_argnames="grid")
def remove(net, x, labels, by, keys, mean, grid):
    cells = plan(grid, x.shape[1:]).cells
    return evaluate(net, rank(net, x, labels, by, keys, mean, grid=grid), cells, grid=grid)


def run(net, x, labels, grid, ranked_by=None, mean=MEAN, keys=None):
    """(loss, correct, first_order) by the names of the grid, [B, scores, selections, shares, values]."""
    by = labels if ranked_by is None else ranked_by
    keys = keys_of(len(x)) if keys is None else keys
    found = remove(net, x, labels, by, keys, mean, grid)
    index = plan(grid, x.shape[1:]).index
    return [np.asarray(a)[:, index] for a in found]


# --- the oracle: float64, one cell after the other ------------------------------------------------


def logits64(net, x):
    fc = net.variables["params"]["fc"]
    return x.reshape(-1) @ np.float64(fc["kernel"]) + np.float64(fc["bias"])


def loss64(net, x, label):
    z = logits64(net, x)
    return np.log(np.exp(z - z.max()).sum()) + z.max() - z[label]


def gradient64(net, x, label):
    z = logits64(net, x)
    p = np.exp(z - z.max())
    p = p / p.sum() - np.eye(len(z))[label]
    return (np.float64(net.variables["params"]["fc"]["kernel"]) @ p).reshape(x.shape)


def value64(name, x, key):
    """What takes the place of x [h, w, C]."""
    low, high = x.min((0, 1)), x.max((0, 1))
    return np.broadcast_to(
        {
            "zero": 0.0,
            "data_mean": MEAN,
            "sample_mean": x.mean((0, 1)),
            "minimum": low,
            "maximum": high,
            "noise": low
            + (high - low) * np.asarray(jax.random.uniform(jax.random.fold_in(key, 0), x.shape)),
            "blur": np.asarray(rise_blur(jnp.asarray(x, jnp.float32))),
        }[name],
        x.shape,
    )


def score64(name, net, x, label, r, key, grid):
    """The score of every element."""
    g = gradient64(net, x, label)
    if name == "integrated_gradients":
        way = (np.arange(100) + 0.5) / 100
        return (x - r) * np.mean([gradient64(net, r + a * (x - r), label) for a in way], 0)
    if name == "smoothgrad":
        key = jax.random.fold_in(key, 2)
        noise = [
            jax.random.normal(jax.random.fold_in(key, i), x.shape) for i in range(grid.samples)
        ]
        spread = grid.sigma * (x.max() - x.min())
        return np.mean([gradient64(net, x + spread * np.asarray(n), label) for n in noise], 0)
    product = {
        "gradient": g,
        "abs_gradient": np.abs(g),
        "gradient_x_input": g * x,
        "abs_gradient_x_input": np.abs(g * x),
        "minus_gradient_x_input": -g * x,
        "gradient_x_difference": g * (x - r),
    }
    return product[name]


def units64(shape, grid):
    """The number of the unit of every element, int [h, w, C]."""
    row, col, channel = np.indices(shape)
    channel = channel if grid.channels == "each" else 0 * channel
    rows, cols, channels = grid.units(shape)
    unit = (row // grid.window[0] * cols + col // grid.window[1]) * channels + channel
    return unit, rows * cols * channels


def chosen64(scores, selection, share, key, shape):
    """bool [units]; no two scores are equal."""
    count = math.floor(share * len(scores) / 100 + 0.5)
    if selection == "random":
        scores = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), shape)).ravel()
    sign = -1 if selection in ("bottom", "negative", "lowest") else 1
    ranked = sign * (np.abs(scores) if selection == "lowest" else scores)
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-ranked)[:count]] = True
    return chosen & (ranked > 0) if selection in ("positive", "negative") else chosen


def expected(net, x, label, by, key, grid):
    """Of every cell of the grid: loss, first order, and how far the label's logit leads."""
    x = np.float64(x)
    unit, count = units64(x.shape, grid)
    found = np.zeros((3, *grid.shape))
    g = gradient64(net, x, label)
    for v, value in enumerate(grid.values):
        r = value64(value, x, key)
        for s, name in enumerate(grid.scores):
            elements = score64(name, net, x, by, r, key, grid)
            scores = np.bincount(unit.ravel(), elements.ravel(), count)
            for (q, selection), (k, share) in itertools.product(
                enumerate(grid.selections), enumerate(grid.shares)
            ):
                gone = chosen64(scores, selection, share, key, grid.units(x.shape))[unit]
                after = np.where(gone, r, x)
                z = logits64(net, after)
                lead = z[label] - np.delete(z, label).max()
                first_order = -(g * (x - r))[gone].sum()
                found[:, s, q, k, v] = loss64(net, after, label), first_order, lead
    return found


@pytest.mark.parametrize("units", UNITS)
def test_linear_network_in_closed_form(units):
    """Every score, selection, share and value, at windows that do not divide the image."""
    net, x, labels = linear()
    by = (labels + 1) % 4
    grid = dataclasses.replace(FULL, shares=SHARES, steps=20, samples=3, **UNITS[units])
    loss, correct, first_order = run(net, x, labels, grid, by)
    assert loss.shape == (2, len(SCORES), len(SELECTIONS), len(SHARES), len(VALUES))
    for i, key in enumerate(keys_of(2)):
        want = expected(net, x[i], labels[i], by[i], key, grid)
        np.testing.assert_allclose(loss[i], want[0], rtol=0, atol=2e-6)
        np.testing.assert_allclose(first_order[i], want[1], rtol=0, atol=4e-6)
        sure = np.abs(want[2]) > 1e-5
        np.testing.assert_array_equal(correct[i][sure], want[2][sure] > 0)


def test_first_order_is_exact_where_the_loss_is_linear():
    """Two classes, the wrong one far ahead: the loss is the difference of the logits."""
    net, x, labels = linear(classes=2)
    labels = np.zeros_like(labels)
    net.variables["params"]["fc"]["bias"][:] = 0, 64
    grid = dataclasses.replace(FULL, shares=(5, 50), steps=2, samples=1)
    loss, _, first_order = run(net, x, labels, grid)
    clean = np.array([loss64(net, np.float64(image), 0) for image in x])
    change = loss - clean.reshape(-1, 1, 1, 1, 1)
    np.testing.assert_allclose(change, first_order, rtol=0, atol=3e-5)
    assert np.abs(change).max() > 1


# --- coinciding removals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "selection", "value"),
    [
        ("minus_gradient_x_input", "negative", "noise"),
        ("gradient_x_difference", "bottom", "zero"),
        ("gradient", "lowest", "blur"),
        ("smoothgrad", "random", "maximum"),
    ],
)
def test_what_coincides_is_the_same_when_it_is_computed_alone(score, selection, value):
    """A grid of one cell has nothing to share."""
    net, x, labels = linear()
    grid = dataclasses.replace(FULL, shares=(0, 33, 100), steps=3, samples=2, channels="each")
    one = dataclasses.replace(
        grid, scores=(score,), selections=(selection,), shares=(33,), values=(value,)
    )
    cell = (SCORES.index(score), SELECTIONS.index(selection), 1, VALUES.index(value))
    for all_, alone in zip(run(net, x, labels, grid), run(net, x, labels, one), strict=True):
        np.testing.assert_allclose(alone[:, 0, 0, 0, 0], all_[:, *cell], rtol=0, atol=1e-6)


def test_the_plan_merges_what_it_should_and_nothing_else():
    """Names of one cell give the same removal by the oracle; different cells differ for some image."""
    net, x, labels = linear(images=1)
    for units in UNITS.values():
        grid = dataclasses.replace(FULL, shares=(0, 30, 100), steps=3, samples=2, **units)
        key = keys_of(1)[0]
        loss = expected(net, x[0], labels[0], labels[0], key, grid)[0]
        index = plan(grid, x.shape[1:]).index
        by_cell = [np.unique(loss[index == cell].round(12)) for cell in np.unique(index)]
        assert all(len(values) == 1 for values in by_cell)
        assert index.max() + 1 == len(by_cell), "no removal without a name"


def test_the_default_grid():
    grid = Grid()
    assert grid.shape == (4, 3, 5, 3)
    made = plan(grid, (64, 64, 3))
    # 4 tops and 4 lowests at 5 shares and 3 values and a random one, less g (x - 0) = g x, and the image.
    assert len(made.cells) == 9 * 15 - 2 * 5 + 1
    assert FULL.shape == (8, 6, 8, 7)


# --- properties -----------------------------------------------------------------------------------


def small(**changes):
    """A cheap grid."""
    given = {"scores": ("gradient",), "selections": ("top",), "shares": (30,), "values": ("zero",)}
    return Grid(**(given | changes))


def test_share_0_changes_nothing_and_share_100_leaves_nothing():
    net, x, labels = linear()
    grid = small(scores=SCORES, selections=SELECTIONS, shares=(0, 100), steps=2, samples=1)
    made = plan(grid, x.shape[1:])
    assert (made.index[:, :, 0] == 0).all()
    loss, _, first_order = run(net, x, labels, grid)
    assert (first_order[:, :, :, 0] == 0).all()
    for i in range(len(x)):
        empty = loss64(net, np.zeros(x[i].shape), labels[i])
        for selection in ("top", "bottom", "lowest", "random"):
            q = SELECTIONS.index(selection)
            np.testing.assert_allclose(loss[i, :, q, 1], empty, rtol=0, atol=2e-6)


def test_positive_and_negative_remove_only_such_elements():
    """With more than enough asked for, all elements of that sign go, and no other."""
    net, x, labels = linear()
    grid = small(scores=("gradient_x_input",), selections=("positive", "negative"), shares=(100,))
    _, _, first_order = run(net, x, labels, dataclasses.replace(grid, channels="each"))
    for i in range(len(x)):
        effect = gradient64(net, np.float64(x[i]), labels[i]) * x[i]
        wanted = -effect[effect > 0].sum(), -effect[effect < 0].sum()
        np.testing.assert_allclose(first_order[i, 0, :, 0, 0], wanted, rtol=0, atol=2e-6)


def test_equal_scores_are_taken_in_a_fixed_order():
    """All gradients are equal: exactly 10 of 40 units go, scattered, the same for every selection."""
    net, x, labels = linear((8, 5, 1))
    net.variables["params"]["fc"]["kernel"][:] = np.arange(4, dtype=np.float32) / 8
    grid = small(selections=("top", "bottom", "lowest", "positive", "negative"), shares=(25,))
    _, _, first_order = run(net, x, labels, grid, mean=MEAN[:1])
    place = np.random.RandomState(0).permutation(40).reshape(8, 5, 1)
    for i in range(len(x)):
        g = gradient64(net, np.float64(x[i]), labels[i])
        want = -(g * x[i])[place < 10].sum()
        signed = [want * (g.flat[0] > 0), want * (g.flat[0] < 0)]
        np.testing.assert_allclose(
            first_order[i, 0, :, 0, 0], [want, want, want, *signed], rtol=0, atol=1e-6
        )


def test_one_class():
    """The loss is 0 whatever is removed, and every image is right."""
    net, x, labels = linear(classes=1)
    loss, correct, first_order = run(net, x, labels, small(selections=SELECTIONS))
    assert not loss.any()
    assert correct.all()
    assert not first_order.any()


def test_an_image_that_is_not_finite_harms_no_other():
    net, x, labels = linear(images=3)
    grid = small(scores=SCORES, selections=SELECTIONS, values=VALUES, steps=2, samples=2)
    want = run(net, x, labels, grid)
    x[1, 2, 3, 0] = np.nan
    got = run(net, x, labels, grid)
    assert np.isnan(got[0][1, 0]).any()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])


# --- over a data set ------------------------------------------------------------------------------


def source(images=11, side=6, seed=1):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (images, side, side, 1)).astype(np.uint8)
    labels = rng.integers(4, size=images)

    def read(i):
        return {"image": pixels[i], "label": int(labels[i])}

    return Source(read, images, ("a", "b", "c", "d"))


def seen_net(seed=0):
    """A linear network with a preprocessing."""
    net, _, _ = linear((6, 6, 1), seed=seed)
    return dataclasses.replace(net, preprocess=Preprocess(6, mean=(0.5,), std=(0.25,)))


WIDE = small(
    scores=("gradient_x_input", "smoothgrad"),
    selections=("top", "lowest", "random"),
    shares=(10, 60),
    values=("data_mean", "noise"),
    samples=2,
)


@pytest.fixture(scope="module")
def swept():
    return anomaly.sweep(
        seen_net(), source(), range(11), grid=WIDE, labels=("true", "predicted", 2)
    )


def test_a_sweep_is_its_images_by_themselves(swept):
    """The data's mean is that of all images; what is random is drawn from an image's index."""
    data, net = source(), seen_net()
    x = np.stack([net.preprocess(data[i]["image"]) for i in range(11)])
    labels = np.array([data[i]["label"] for i in range(11)])
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(11))
    predicted = np.argmax([logits64(net, np.float64(image)) for image in x], -1)
    np.testing.assert_array_equal(swept.predicted, predicted)
    np.testing.assert_array_equal(swept.truth, labels)
    for k, by in enumerate((labels, predicted, np.full(11, 2))):
        want = run(net, x, labels, WIDE, by, x.mean((0, 1, 2)), keys)
        job = swept.job[k]
        np.testing.assert_allclose(swept.loss[job][:, swept.index], want[0], rtol=0, atol=2e-6)
        np.testing.assert_array_equal(swept.correct[job][:, swept.index], want[1])
        np.testing.assert_allclose(
            swept.first_order[job][:, swept.index], want[2], rtol=0, atol=2e-6
        )
    right = predicted == labels
    assert right.any()
    assert not right.all()
    np.testing.assert_array_equal(swept.job[0] == swept.job[1], right)
    assert len(swept.loss) == len({*zip([*range(11)] * 3, [*labels, *predicted, *[2] * 11])})  # noqa: B905


@pytest.mark.parametrize(("batch_size", "devices"), [(3, 1), (100, 1), (5, 3)])
def test_batches_and_devices_do_not_matter(swept, batch_size, devices):
    again = anomaly.sweep(
        seen_net(),
        source(),
        range(11),
        grid=WIDE,
        labels=("true", "predicted", 2),
        batch_size=batch_size,
        devices=jax.devices()[:devices],
    )
    np.testing.assert_allclose(again.loss, swept.loss, rtol=0, atol=2e-6)
    assert again.settings == swept.settings


def test_other_images_do_not_matter(swept):
    """But for the data's mean: of the images 3 and 7 alone, noise and random removals are the same."""
    some = anomaly.sweep(seen_net(), source(), (3, 7), grid=WIDE)
    noise = swept.index[..., 1]
    np.testing.assert_allclose(
        some.loss[some.job[0]][:, noise], swept.loss[swept.job[0, [3, 7]]][:, noise], atol=2e-6
    )
    other = anomaly.sweep(seen_net(), source(), (3, 7), grid=WIDE, seed=1)
    assert np.abs(other.loss - some.loss)[:, noise[:, 2]].max() > 0.01


def test_the_outcome_by_hand(swept):
    found = anomaly.outcome(swept, replicates=400)
    data, net = source(), seen_net()
    index = swept.index[0, 0, 1, 1]
    change = swept.correct[swept.job][..., index].astype(float) - swept.correct[swept.job][..., 0]
    np.testing.assert_allclose(found.accuracy[:, 0, 0, 1, 1], change.mean(1))
    loss = swept.loss[swept.job].astype(float)
    want = loss[..., index] - loss[..., 0]
    np.testing.assert_allclose(found.loss[:, 0, 0, 1, 1], want.mean(1), atol=1e-12)
    np.testing.assert_allclose(found.leak_loss[0, 0, 1, 1], (want[0] - want[1]).mean(), atol=1e-12)
    spread = want[0].std() / math.sqrt(11)
    low, high = found.loss_interval[0, 0, 0, 1, 1]
    assert low < want[0].mean() < high
    assert 3 < (high - low) / spread < 4.8, "about 2 x 1.96 standard errors"
    clean = [
        loss64(net, np.float64(net.preprocess(data[i]["image"])), data[i]["label"])
        for i in range(11)
    ]
    assert found.clean_loss == pytest.approx(np.mean(clean), abs=1e-6)
    assert (found.removals, found.images, found.left_out) == (swept.loss.shape[1] - 1, 11, 0)
    assert (found.leak_accuracy[:, 2] == 0).all(), "random removals know no label"
    assert (found.rises == (found.accuracy_interval[..., 0] > 0)).all()


def made(changes, labels=("true", "predicted")):
    """A sweep whose accuracy changes by -1, 0 or 1 of each image and removal: [L, N, D]."""
    changes = np.asarray(changes)
    count, images, cells = changes.shape
    correct = np.concatenate([np.zeros((count, images, 1)), changes], -1) + (
        (changes < 0).any(-1, keepdims=True)
    )
    rows = correct.reshape(count * images, cells + 1)
    grid = dataclasses.replace(
        WIDE, scores=("gradient",), selections=("top",), shares=range(cells), values=("zero",)
    )
    settings = {
        "grid": dataclasses.asdict(grid),
        "labels": [*labels],
        "seed": 0,
        "data": 0,
        "images": 0,
    }
    return anomaly.Sweep(
        labels[:count], np.float32(1 - rows), rows > 0, np.float32(0 * rows),
        np.arange(count * images).reshape(count, images), 1 + np.arange(cells).reshape(1, 1, -1, 1),
        np.arange(images), np.zeros(images, int), np.zeros(images, int), settings,
    )  # fmt: skip


def test_what_rises_and_what_rises_by_chance():
    """20 of 100 images gained is an anomaly, 1 gained and none lost, or as many lost, is not; and of 40
    copies of a removal, by chance all rise together or none does."""
    gain = np.zeros((1, 100, 43), int)
    gain[0, :20, 0] = 1
    gain[0, 50, 1] = 1
    gain[0, :10, 2:] = 1
    gain[0, 10:20, 2:] = -1
    found = anomaly.outcome(made(gain), flips=200)
    assert found.rises[0, 0, 0, :, 0].tolist() == [True] + 42 * [False]
    assert found.rising.tolist() == [1]
    assert found.falling.tolist() == [1]
    copies = found.by_chance[0] - found.by_chance[0] % 41
    assert set(copies.tolist()) <= {0, 41}
    assert 0 < found.by_chance.mean() / 43 < 0.08, "about 2.5 % of the removals"
    assert found.grid_p.tolist() == [1 / 201], "20 gained are 5 standard errors"
    assert np.isnan(found.leak_accuracy).all(), "there is no predicted label"
    none = anomaly.outcome(made(gain[..., 1:]), flips=200)
    assert none.grid_p[0] > 0.05, "1 gained is 1 standard error"
    assert anomaly.outcome(made(0 * gain), flips=2).grid_p.tolist() == [1]


def test_a_comparison_is_paired():
    """Where both networks gain on the same images, no draw of images tells them apart."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, (1, 50, 2))
    other = base.copy()
    other[0, :25, 1] = 1 - other[0, :25, 1]
    difference = (other - base)[0, :, 1]
    found = anomaly.compare({"a": made(base), "b": made(other), "c": made(base)})
    assert (found.names, found.images) == (("a", "b", "c"), 50)
    want = [[0, difference.mean()], [0, 0]]
    np.testing.assert_allclose(found.accuracy[:, 0, 0, 0, :, 0], want, atol=1e-12)
    interval = found.accuracy_interval[:, 0, 0, 0, :, 0]
    assert not interval[0, 0].any()
    assert not interval[1].any()
    width = np.diff(interval[0, 1])[0] / (difference.std() / math.sqrt(50))
    assert 3.4 < width < 4.4, "about 2 x 1.96 standard errors"
    np.testing.assert_allclose(found.loss, -found.accuracy, atol=1e-12)
    with pytest.raises(ValueError, match="two sweeps or more, not 1"):
        anomaly.compare({"a": made(base)})
    odd = made(base)
    odd.settings["images"] = 1
    with pytest.raises(ValueError, match="b and a have other images"):
        anomaly.compare({"a": made(base), "b": odd})


def test_an_image_that_is_not_finite_is_left_out(swept):
    loss = swept.loss.copy()
    loss[swept.job[1, 4], 3] = np.nan
    found = anomaly.outcome(dataclasses.replace(swept, loss=loss), replicates=20, flips=2)
    assert (found.images, found.left_out) == (10, 1)
    assert np.isfinite(found.loss_interval).all()
    with pytest.raises(ValueError, match="no image has finite numbers"):
        anomaly.outcome(dataclasses.replace(swept, loss=loss * np.nan))


def test_save_and_load(swept, tmp_path):
    anomaly.save(swept, tmp_path / "sweep.npz")
    again = anomaly.load(tmp_path / "sweep.npz")
    for field in dataclasses.fields(swept):
        np.testing.assert_equal(getattr(again, field.name), getattr(swept, field.name))
    assert again.grid == WIDE
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.npz"]
    (tmp_path / "other.npz").write_bytes(b"half a file")
    for name in ("other.npz", "none.npz"):
        with pytest.raises(ValueError, match=f"{name} is no result of a sweep"):
            anomaly.load(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": ("grad",)}, "scores must be one of gradient, abs_gradient.*got 'grad'"),
        ({"selections": ()}, "selections must be one or more different entries"),
        ({"values": ("zero", "zero")}, "values must be one or more different entries"),
        ({"shares": (5, 120)}, "shares must lie in 0..100 percent, not 120"),
        ({"shares": (-1,)}, "shares must lie in 0..100 percent, not -1"),
        ({"shares": (float("nan"),)}, "shares must lie in 0..100 percent, not nan"),
        ({"window": (0, 2)}, "window must be an integer of at least 1"),
        ({"window": (2,)}, "window must be rows and columns"),
        ({"channels": "mean"}, "channels must be one of sum, each"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
    ],
)
def test_grids_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ()}, "there are no images"),
        ({"labels": ("wrong",)}, "labels must be 'true', 'predicted' or numbers of classes"),
        ({"labels": ()}, "labels must be"),
        ({"labels": (4,)}, "label must be in 0..3, got 4"),
        ({"grid": Grid(window=(3, 7))}, "larger than the image's"),
    ],
)
def test_sweeps_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        anomaly.sweep(seen_net(), source(), **({"images": range(3)} | options))
