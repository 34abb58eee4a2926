"""The occlusion experiment over a data set: sweeps, their outcome and comparison, files, and what is refused."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from occlusion_cases import linear, logits64, loss64, run, small

from mixaug_jax.data.source import Source
from mixaug_jax.models import Preprocess
from mixaug_jax.occlusion import outcomes, sweeping
from mixaug_jax.occlusion.grid import Grid
from mixaug_jax.occlusion.sweeping import Options


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
    rankings=("gradient_x_input", "smoothgrad"),
    selections=("top", "lowest", "random"),
    shares=(10, 60),
    values=("data_mean", "noise"),
    samples=2,
)


@pytest.fixture(scope="module")
def swept():
    return sweeping.sweep(
        seen_net(), source(), range(11), Options(WIDE, labels=("true", "predicted", 2))
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
    again = sweeping.sweep(
        seen_net(),
        source(),
        range(11),
        Options(WIDE, labels=("true", "predicted", 2), batch_size=batch_size),
        devices=jax.devices()[:devices],
    )
    np.testing.assert_allclose(again.loss, swept.loss, rtol=0, atol=2e-6)
    assert again.settings == swept.settings


def test_other_images_do_not_matter(swept):
    """But for the data's mean: of the images 3 and 7 alone, noise and random removals are the same."""
    some = sweeping.sweep(seen_net(), source(), (3, 7), Options(WIDE))
    noise = swept.index[..., 1]
    np.testing.assert_allclose(
        some.loss[some.job[0]][:, noise], swept.loss[swept.job[0, [3, 7]]][:, noise], atol=2e-6
    )
    other = sweeping.sweep(seen_net(), source(), (3, 7), Options(WIDE, seed=1))
    assert np.abs(other.loss - some.loss)[:, noise[:, 2]].max() > 0.01


def test_the_outcome_by_hand(swept):
    found = sweeping.outcome(swept, replicates=400)
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
    """A sweep whose accuracy changes by -1, 0 or 1 of each image and removal: [L,N,D]."""
    changes = np.asarray(changes)
    count, images, cells = changes.shape
    correct = np.concatenate([np.zeros((count, images, 1)), changes], -1) + (
        (changes < 0).any(-1, keepdims=True)
    )
    rows = correct.reshape(count * images, cells + 1)
    grid = dataclasses.replace(
        WIDE, rankings=("gradient",), selections=("top",), shares=range(cells), values=("zero",)
    )
    settings = {
        "grid": dataclasses.asdict(grid),
        "labels": [*labels],
        "seed": 0,
        "data": 0,
        "images": 0,
    }
    return sweeping.Sweep(
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
    found = sweeping.outcome(made(gain), flips=200)
    assert found.rises[0, 0, 0, :, 0].tolist() == [True] + 42 * [False]
    assert found.rising.tolist() == [1]
    assert found.falling.tolist() == [1]
    copies = found.by_chance[0] - found.by_chance[0] % 41
    assert set(copies.tolist()) <= {0, 41}
    assert 0 < found.by_chance.mean() / 43 < 0.08, "about 2.5 % of the removals"
    assert found.grid_p.tolist() == [1 / 201], "20 gained are 5 standard errors"
    assert np.isnan(found.leak_accuracy).all(), "there is no predicted label"
    none = sweeping.outcome(made(gain[..., 1:]), flips=200)
    assert none.grid_p[0] > 0.05, "1 gained is 1 standard error"
    assert sweeping.outcome(made(0 * gain), flips=2).grid_p.tolist() == [1]


def test_chance_counts_the_intervals_above_0():
    draw = np.random.default_rng(3)
    changes = draw.integers(-1, 2, size=(9, 400)) + draw.choice((0.0, 0.4), 400)
    for replicates in (1, 2, 40, 1000):
        draws = outcomes._draws(9, replicates, 0)
        low = outcomes._intervals(changes, draws)[:, 0]
        np.testing.assert_array_equal(outcomes._certain(changes, draws), low > 0)
        assert 0 < (low > 0).sum() < 400


def test_a_comparison_is_paired():
    """Where both networks gain on the same images, no draw of images tells them apart."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, (1, 50, 2))
    other = base.copy()
    other[0, :25, 1] = 1 - other[0, :25, 1]
    difference = (other - base)[0, :, 1]
    found = sweeping.compare({"a": made(base), "b": made(other), "c": made(base)})
    assert (found.names, found.images) == (("a", "b", "c"), 50)
    want = [[0, difference.mean()], [0, 0]]
    np.testing.assert_allclose(found.accuracy[:, 0, 0, 0, :, 0], want, atol=1e-12)
    interval = found.accuracy_interval[:, 0, 0, 0, :, 0]
    assert not interval[0, 0].any()
    assert not interval[1].any()
    width = np.diff(interval[0, 1])[0] / (difference.std() / math.sqrt(50))
    assert 3.4 < width < 4.4, "about 2 x 1.96 standard errors"
    np.testing.assert_allclose(found.loss, -found.accuracy, atol=1e-12)
    with pytest.raises(ValueError, match="two sweeps or more; got 1"):
        sweeping.compare({"a": made(base)})
    odd = made(base)
    odd.settings["images"] = 1
    with pytest.raises(ValueError, match="b and a have other images"):
        sweeping.compare({"a": made(base), "b": odd})


def test_an_image_that_is_not_finite_is_left_out(swept):
    loss = swept.loss.copy()
    loss[swept.job[1, 4], 3] = np.nan
    found = sweeping.outcome(dataclasses.replace(swept, loss=loss), replicates=20, flips=2)
    assert (found.images, found.left_out) == (10, 1)
    assert np.isfinite(found.loss_interval).all()
    with pytest.raises(ValueError, match="no image has finite numbers"):
        sweeping.outcome(dataclasses.replace(swept, loss=loss * np.nan))


def test_save_and_load(swept, tmp_path):
    sweeping.save(swept, tmp_path / "sweep.npz")
    again = sweeping.load(tmp_path / "sweep.npz")
    for field in dataclasses.fields(swept):
        np.testing.assert_equal(getattr(again, field.name), getattr(swept, field.name))
    assert again.grid == WIDE
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.npz"]
    (tmp_path / "other.npz").write_bytes(b"half a file")
    for name in ("other.npz", "none.npz"):
        with pytest.raises(ValueError, match=f"{name} is no result of a sweep"):
            sweeping.load(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rankings": ("grad",)}, "rankings must be one of gradient, abs_gradient.*got 'grad'"),
        ({"selections": ()}, "selections must be one or more different entries"),
        ({"values": ("zero", "zero")}, "values must be one or more different entries"),
        ({"shares": (5, 120)}, "shares must lie in 0..100 percent; got 120"),
        ({"shares": (-1,)}, "shares must lie in 0..100 percent; got -1"),
        ({"shares": (float("nan"),)}, "shares must lie in 0..100 percent; got nan"),
        ({"shares": 5}, "shares must be one or more different entries; got 5"),
        ({"shares": ("5",)}, "shares must lie in 0..100 percent; got '5'"),
        ({"shares": (True,)}, "shares must lie in 0..100 percent; got True"),
        ({"rankings": "gradient"}, "rankings must be one or more different entries"),
        ({"window": (0, 2)}, "window must be a positive integer or a pair of them"),
        ({"window": (2,)}, "window must be a positive integer or a pair of them"),
        ({"window": "2"}, "window must be a positive integer or a pair of them"),
        ({"channels": "mean"}, "channels must be one of sum, each"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_grids_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid(**changes)


def test_a_grid_of_lists_arrays_and_numpy_integers(swept):
    shares, integer = np.array([10, 60]), np.int64
    lists = {"rankings": list(WIDE.rankings), "selections": list(WIDE.selections)}
    grid = Grid(**lists, shares=shares, values=list(WIDE.values), samples=integer(2))
    assert grid == WIDE
    assert hash(grid) == hash(WIDE)
    assert Grid(window=8) == Grid(window=[integer(8), 8]) == Grid(window=(8, 8))
    options = Options(grid, labels=["true", "predicted", integer(2)], seed=integer(0))
    again = sweeping.sweep(seen_net(), source(), np.arange(11), options)
    assert again.settings == swept.settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1; got 0"),
        ({"batch_size": -1}, "batch_size must be an integer of at least 1; got -1"),
        ({"threads": 0}, "threads must be an integer of at least 1; got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0 and at most 4294967295; got -1"),
        ({"seed": 2**32}, "at most 4294967295; got 4294967296"),
        ({"precision": "most"}, "precision must be one of default, high, highest; got 'most'"),
        ({"labels": 3}, "labels must be a tuple, such as"),
        ({"labels": "true"}, "labels must be a tuple, such as"),
        ({"labels": ("wrong",)}, "labels must be 'true', 'predicted' or numbers of classes"),
        ({"labels": ()}, "labels must be"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"indices": ()}, "there are no images"),
        ({"indices": (99,)}, "indices must lie in 0..10; got 99"),
        ({"indices": (0, -1)}, "indices must lie in 0..10; got -1"),
        ({"indices": 3}, r"indices must be integers \[N\]; got int64 \[\]"),
        ({"indices": (0.5,)}, r"indices must be integers \[N\]; got float64 \[1\]"),
        ({"options": Options(labels=(4,))}, "label must be in 0..3; got 4"),
        ({"options": Options(Grid(window=(3, 7)))}, "must not be larger than the image's"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_sweeps_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        sweeping.sweep(seen_net(), source(), **({"indices": range(3)} | given))
