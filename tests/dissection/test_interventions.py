"""Removal and insertion of units: against a plain loop, planted truths, any chunk and any devices."""

import jax
import numpy as np
import pytest
import unit_switches as switches

from mixaug_jax import dissection
from mixaug_jax.dissection import affine_tails, inserting, intervening, interventions
from mixaug_jax.dissection import removal_rates as rates
from mixaug_jax.dissection.inserting import insert
from mixaug_jax.dissection.interventions import Removing, remove
from mixaug_jax.models import Net, Preprocess

UNITS = {"pixels": 3, "mixed": 6}


def some_sets(units, seed=0):
    """Each unit, none, all, and ten at random: more than go in one call."""
    draw = np.random.default_rng(seed)
    random = draw.random((10, units)) < 0.5
    return np.concatenate(
        [np.eye(units), np.zeros((1, units)), np.ones((1, units)), random]
    ).astype(bool)


def means_of(net, source, layer):
    """Over images and places, in float64."""
    found = []
    for n in range(len(source)):
        x = source[n]["image"] / 255
        found.append(
            switches.convolution(x, net.variables["params"]["conv"]) if layer == "mixed" else x
        )
    return np.mean(found, (0, 1, 2))


@pytest.mark.parametrize("value", ["zero", "mean", 0.7])
@pytest.mark.parametrize("layer", UNITS)
def test_it_equals_a_plain_loop(layer, value):
    """Every unit, every class, every set; by running the rest (pixels) and by adding parts (mixed)."""
    net, source = switches.drawn(), switches.noise(13)
    sets = some_sets(UNITS[layer])
    found = remove(net, source, range(13), layer, sets, Removing(value, batch_size=2))
    put = {"zero": np.zeros(6), "mean": means_of(net, source, layer)}.get(value, np.full(6, 0.7))
    predicted, loss = switches.loop(net, source, layer, sets, put)
    assert len(np.unique(predicted)) == 3
    np.testing.assert_array_equal(found.predicted, predicted)
    np.testing.assert_allclose(found.loss, loss, atol=1e-6, rtol=1e-6)
    again = remove(net, source, range(3), layer, sets[:2].tolist(), Removing(value), means=put)
    np.testing.assert_array_equal(again.predicted, predicted[:3, :2])
    # The set without any unit, the clean columns, and rates by class.
    np.testing.assert_array_equal(found.predicted[:, UNITS[layer]], found.clean_predicted)
    np.testing.assert_allclose(found.clean_loss, loss[:, UNITS[layer]], atol=1e-6)
    np.testing.assert_allclose(
        found.mean.mean(0, np.float64), means_of(net, source, layer), atol=1e-6
    )
    labels = np.array([source[n]["label"] for n in range(13)])
    by_class = rates.class_loss(labels, found.loss, 3)
    accuracy = rates.class_accuracy(labels, found.predicted, 3)
    for k in range(3):
        np.testing.assert_allclose(by_class[:, k], loss[labels == k].mean(0), atol=1e-6)
        hit, other = (predicted == k)[labels == k].mean(0), (predicted == k)[labels != k].mean(0)
        np.testing.assert_allclose(accuracy[:, k], (hit + 1 - other) / 2, atol=1e-12)
    balanced = rates.balanced_accuracy(labels, found.predicted)[0]
    by_hand = [(predicted == k)[labels == k].mean(0) for k in range(3)]
    np.testing.assert_allclose(balanced, np.mean(by_hand, 0), atol=1e-12)


@pytest.mark.parametrize("layer", UNITS)
@pytest.mark.parametrize("batch_size", [1, 5, 50])
@pytest.mark.parametrize("count", [1, 4])
def test_any_chunk_and_any_devices(layer, batch_size, count, monkeypatch):
    net, source, sets = switches.drawn(), switches.noise(11, side=9), some_sets(UNITS[layer])
    first = remove(net, source, range(11), layer, sets, devices=jax.devices()[:1])
    monkeypatch.setattr(interventions, "_SETS", 7)
    options = Removing(batch_size=batch_size)
    found = remove(net, source, range(11), layer, sets, options, devices=jax.devices()[:count])
    for name in ("predicted", "clean_predicted", "labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(first, name))
    for name in ("loss", "clean_loss", "mean"):
        np.testing.assert_allclose(getattr(found, name), getattr(first, name), atol=1e-6)


JOB = """
import unit_switches as switches, numpy as np
from test_interventions import UNITS, some_sets
from mixaug_jax.dissection.interventions import Removing, remove
for layer in UNITS:
    sets, options = some_sets(UNITS[layer]), Removing("mean", batch_size=2)
    found = remove(switches.drawn(), switches.noise(5), range(5), layer, sets, options)
    np.savez(FOLDER + f"/{layer}{me}.npz", predicted=found.predicted, loss=found.loss, mean=found.mean)
devices.barrier("saved")
os._exit(0)  # on a busy machine one may else look for the other that has left
"""


def test_two_processes(tmp_path):
    """Each reads its share, 2 and 3 images; both get the rows of all."""
    from core import test_processes

    body = f"import sys; sys.path.insert(0, {str(__file__).rpartition('/')[0]!r})\n"
    codes, said = test_processes.run(tmp_path, body + JOB.replace("FOLDER", repr(str(tmp_path))))
    assert codes == [0, 0], said
    net, source = switches.drawn(), switches.noise(5)
    for layer, units in UNITS.items():
        first, second = (dict(np.load(tmp_path / f"{layer}{k}.npz")) for k in (0, 1))
        alone = remove(net, source, range(5), layer, some_sets(units), Removing("mean"))
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
            np.testing.assert_allclose(first[name], getattr(alone, name), atol=1e-6)


def test_a_unit_that_alone_decides_a_class_has_all_of_its_accuracy():
    """Channel 1 is what a concept marks, with an IoU of 1, and nothing reads it."""
    net, source = switches.made([[0, 10], [0, 0], [0, 0]], [1, 0]), switches.switched()
    found = remove(net, source, range(12), "mixed", np.eye(3, dtype=bool))
    drop, rise = intervening.importance(found, 2)
    # From 1 to chance, which is 1/2 for one class against the others.
    np.testing.assert_array_equal(drop, [[0.5, 0.5], [0, 0], [0, 0]])
    assert rise[0] == pytest.approx([0, np.log(1 + np.e) - np.log(1 + np.exp(-9))], abs=1e-6)
    np.testing.assert_allclose(rise[1:], 0, atol=1e-6)
    examples = [source[n] for n in range(12)]
    detected = dissection.dissect_arrays(
        np.stack([switches.shares(e["image"]) for e in examples]),
        np.stack([e["concepts"] for e in examples]),
        source.concept_names,
        dissection.Options(shuffles=0),
        thresholds=[0.5] * 3,
    )
    assert detected.iou()[1, 1] == 1
    # Forced on, the unit flips the class of a dark image; forced off, that of a lit one.
    dark, lit = (switches.shares(examples[n]["image"]) for n in (0, 1))
    for image, value, flipped in ((dark, 1.0, 1), (lit, 0.0, 0)):
        change = insert(net, image, "mixed", [0, 1], (0, 0, 8, 8), value)
        before = np.asarray(net.logits(image[None]))[0]
        assert before.argmax() == 1 - flipped
        assert (before + change[0]).argmax() == flipped
        assert (change[1] == 0).all()


def test_an_insertion_reaches_its_box_alone():
    """A quarter of the places gives a quarter of the effect; of a coarser map, the nodes whose centers lie in the box."""
    net = switches.made([[0, 8], [0, 0], [0, 0]], [1, 0])
    image = np.zeros((8, 8, 3), np.float32)
    change = insert(net, image, "pixels", [0], (0, 4, 4, 8), 1.0)
    np.testing.assert_allclose(change, [[0, 2]], atol=1e-6)
    nodes = inserting._nodes((0, 2, 4, 8), (8, 8), (4, 4))
    np.testing.assert_array_equal(nodes, np.outer([1, 1, 0, 0], [0, 1, 1, 1]) > 0)
    with pytest.raises(ValueError, match=r"box \(0, 0, 1, 1\) reaches no node: the map has 4 x 4"):
        inserting._nodes((0, 0, 1, 1), (8, 8), (4, 4))
    for box in ((0, 0, 9, 8), (4, 0, 4, 8), (-1, 0, 4, 8)):
        with pytest.raises(ValueError, match=r"box must be .* within 8 x 8 pixels"):
            insert(net, image, "pixels", [0], box, 1.0)
    # Ends between pixels are as good as others.
    nodes = inserting._nodes(np.array([0.6, 0, 2, 8]), (8, 8), (8, 8))
    np.testing.assert_array_equal(nodes.any(1), np.arange(8) == 1)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_inserted_is_said():
    net, image = switches.made([[0, 8], [0, 0], [0, 0]], [1, 0]), np.zeros((8, 8, 3), np.float32)
    box = (0, 0, 8, 8)
    with pytest.raises(ValueError, match=r"units must lie in 0\.\.2; got 3"):
        insert(net, image, "pixels", [3], box, 1.0)
    with pytest.raises(ValueError, match=r"units must be a row of integers; got \[1\.7\]"):
        insert(net, image, "pixels", [1.7], box, 1.0)
    with pytest.raises(ValueError, match="image must be preprocessed floating point; got uint8"):
        insert(net, image.astype(np.uint8), "pixels", [0], box, 1.0)
    with pytest.raises(ValueError, match=r"image must be one image \[h,w,C\]; got \[1, 8, 8, 3\]"):
        insert(net, image[None], "pixels", [0], box, 1.0)
    with pytest.raises(ValueError, match="value must be a number; got nan"):
        insert(net, image, "pixels", [0], box, np.nan)
    with pytest.raises(ValueError, match=r"box must be \(row0, col0, row1, col1\) within"):
        insert(net, image, "pixels", [0], (0, 0, 8), 1.0)


def test_parts_are_added_where_the_rest_is_a_mean_and_a_dense_layer_and_nowhere_else():
    import flax.linen as nn

    net, x = switches.drawn(), np.zeros((1, 8, 8, 3), np.float32)

    def weights(net, layer):
        found = affine_tails.dense_rest(net, layer, x, np.asarray(net.features(x, layer)))
        return found and found[0]

    kernel, bias = (net.variables["params"]["fc"][name] for name in ("kernel", "bias"))
    np.testing.assert_allclose(weights(net, "mixed"), kernel, rtol=1e-5)
    _, offset = affine_tails.dense_rest(net, "mixed", x, np.zeros((1, 4, 4, 6), np.float32))
    np.testing.assert_array_equal(offset, bias)
    assert weights(net, "pixels") is None  # a convolution and a ReLU follow

    class Flat(nn.Module):
        flat: bool = True
        act: str = ""

        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), name="conv")(x)
            x = nn.relu(x) if self.act == "before" else x
            x = x.reshape(len(x), -1) if self.flat else x.mean((1, 2))
            return nn.Dense(3, name="fc")(x**2 if self.act == "square" else x)

    def wrapped(**fields):
        module = Flat(**fields)
        variables = module.init(jax.random.key(0), x)
        return Net.wrap(module, variables, Preprocess(8, mean=(0,) * 3, std=(1,) * 3))

    assert weights(wrapped(flat=True), "conv") is None  # places have weights of their own
    assert weights(wrapped(flat=False, act="before"), "conv") is None
    assert weights(wrapped(flat=False, act="square"), "conv") is None
    linear = wrapped(flat=False)
    np.testing.assert_allclose(
        weights(linear, "conv"), linear.variables["params"]["fc"]["kernel"], rtol=1e-5
    )


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_work_is_said_before_anything_is_compiled():
    net, source, one = switches.drawn(), switches.noise(4), np.eye(6, dtype=bool)
    with pytest.raises(ValueError, match="layer must be one of pixels, mixed; got 'fc'"):
        remove(net, source, range(4), "fc", one)
    with pytest.raises(ValueError, match=r"sets have shape \[6, 6\]; layer 'pixels' has 3 units"):
        remove(net, source, range(4), "pixels", one)
    for wrong in (one.astype(int), (2 * one).tolist(), [[True] * 6, [True]]):
        with pytest.raises(
            ValueError, match=r"sets must be booleans \[S,6\], for each set and unit"
        ):
            remove(net, source, range(4), "mixed", wrong)
    with pytest.raises(ValueError, match="there are no images"):
        remove(net, source, [], "mixed", one)
    with pytest.raises(ValueError, match=r"indices must lie in 0\.\.3; got 4"):
        remove(net, source, [4], "mixed", one)
    with pytest.raises(ValueError, match=r"indices must be a row of integers; got \[0\.7, 1\.9\]"):
        remove(net, source, [0.7, 1.9], "mixed", one)
    for means in (np.zeros(3), np.full(6, np.nan)):
        with pytest.raises(ValueError, match="means must be 6 finite numbers, one a unit"):
            remove(net, source, [0], "mixed", one, Removing("mean"), means=means)
    with pytest.raises(ValueError, match="value must be one of zero, mean; got 'median'"):
        Removing("median")
    two = switches.drawn(classes=2)
    with pytest.raises(ValueError, match=r"label must be in 0\.\.1; got 2"):
        remove(two, source, range(4), "mixed", one)
    broken = switches.made([[np.nan, 0], [0, 0], [0, 0]], [0, 0])
    with pytest.raises(ValueError, match="what the network gives of image 1 holds NaN"):
        remove(broken, switches.noise(4, classes=2), [1, 2], "pixels", np.eye(3, dtype=bool))
