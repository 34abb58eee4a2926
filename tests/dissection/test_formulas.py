"""Logical forms of units: planted truths, against a plain search, chance, and the same on any devices."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from mixaug_jax import dissection
from mixaug_jax.dissection import Counting, Options, counting, formula_counts, formulas, result
from mixaug_jax.dissection.formula_counts import AND, AND_NOT, OR

NAMES = (("none", "none"), *((letter, "letters") for letter in "ABCDE"))
OPTIONS = Options(shuffles=5, formulas=64)


def label_maps(images=24, side=8, seed=0):
    """[N,side,side,3], three labels of five at most in each pixel, in blocks of 2x2."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, len(NAMES), (images, side // 2, side // 2, 3))
    return blocks.repeat(2, 1).repeat(2, 2).astype(np.uint8)


def holds(maps):
    """{letter: bool [N,H,W]}."""
    return {name: (maps == number).any(-1) for number, (name, _) in enumerate(NAMES) if number}


def dissected(units, maps, options=OPTIONS, **more):
    """Units [N,H,W,U] bool that are on where they are True."""
    thresholds = np.full(units.shape[-1], 0.5, np.float32)
    return dissection.dissect_arrays(
        units.astype(np.float32), maps, NAMES, options, thresholds=thresholds, **more
    )


@pytest.fixture(scope="module")
def some():
    """Label maps, and units that are forms of their concepts."""
    maps = label_maps()
    here = holds(maps)
    units = np.stack(
        [
            here["A"] & ~here["B"],
            here["A"] & here["C"],
            here["E"],
            here["A"] | here["B"] | here["C"],
            (here["D"] | here["E"]) & ~here["A"],
        ],
        -1,
    )
    return maps, units


def test_units_that_are_forms_get_these_forms(some):
    maps, units = some
    found = dissected(units, maps).formulas
    texts = dict(zip(found.units.tolist(), found.texts(NAMES), strict=True))
    assert texts[0] == "A AND NOT B"
    assert texts[1] in ("A AND C", "C AND A")
    assert texts[2] == "E"  # of equals the shortest
    assert sorted(texts[3].split(" OR ")) == ["A", "B", "C"]
    assert texts[4] in ("(D OR E) AND NOT A", "(E OR D) AND NOT A")
    np.testing.assert_array_equal(found.iou[:, 2], 1)
    assert found.above_chance.all()
    # A longer form fits at least as well, and by chance too: which is what the shuffles are for.
    assert (np.diff(found.iou) >= 0).all()
    assert (np.diff(found.null) > 0).any()
    assert found.chance[2] > found.chance[0]


def test_shuffled_label_maps_give_none_above_chance(some):
    maps, units = some
    (order,) = counting.derangements(len(maps), 1, seed=7)
    found = dissected(units, maps[order]).formulas
    assert found.null.shape == (5, 5, 3)
    assert not found.above_chance.any()
    assert (found.iou[:, 2] > 0).all(), "units so rare that nothing is tested"


def test_it_equals_a_search_over_masks(some):
    """The same beam, of masks as they are; and no form of three concepts at all is better here."""
    maps, _ = some
    draw = np.random.default_rng(3)
    units = draw.random((*maps.shape[:3], 4)) < 0.2
    units |= holds(maps)["A"][..., None] & (draw.random(units.shape) < 0.7)
    found = dissected(units, maps)
    masks = list(holds(maps).values())
    joined = {AND: np.logical_and, OR: np.logical_or, AND_NOT: lambda a, b: a & ~b}
    best = np.zeros((4, 3))
    for length in (1, 2, 3):
        for letters in itertools.permutations(range(5), length):
            for operators in itertools.product(joined, repeat=length - 1):
                mask = masks[letters[0]]
                for letter, operator in zip(letters[1:], operators, strict=True):
                    mask = joined[operator](mask, masks[letter])
                either = (units | mask[..., None]).sum((0, 1, 2))
                iou = (units & mask[..., None]).sum((0, 1, 2)) / np.maximum(either, 1)
                best[:, length - 1 :] = np.maximum(best[:, length - 1 :], iou[:, None])
    np.testing.assert_array_equal(found.formulas.iou, best[found.formulas.units])
    # The first column is that of the labels, sharpest first.
    labels = found.iou().max(1)
    np.testing.assert_array_equal(found.formulas.iou[:, 0], np.sort(labels)[::-1])


@pytest.mark.parametrize(
    ("devices", "batch_size", "memory"), [(1, 16, 1024), (4, 2, 1024), (2, 1, 0.02)]
)
def test_the_same_on_any_devices_and_in_blocks(some, devices, batch_size, memory, monkeypatch):
    maps, units = some
    units = np.concatenate([units, np.zeros_like(units[..., :1])], -1)  # and one that is never on
    first = dissected(units, maps).formulas
    whole = formulas.search

    def smaller(*arguments, most):
        *others, counted = arguments
        assert isinstance(counted, Counting)
        changed = dataclasses.replace(counted, batch_size=batch_size, memory_mb=memory)
        return whole(*others, changed, most=most)

    monkeypatch.setattr(formulas, "search", smaller)
    found = dissected(units, maps, devices=jax.devices()[:devices]).formulas
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(first, field.name))
    assert found.texts(NAMES)[-1] == "none"


def test_counts_against_masks(some):
    maps, units = some
    orders = np.stack([np.arange(len(maps)), *counting.derangements(len(maps), 1, 2)])
    concepts = np.array([[[[1, 2], [3, 0]], [[5, 1], [0, 0]]]] * 2)
    operators = np.array([[[[AND_NOT], [0]], [[OR], [0]]]] * 2)
    asked = formula_counts.Formulas(np.array([[0, 4], [3, 1]]), concepts, operators)
    found = formula_counts.count(
        units.astype(np.float32), [0.5] * 5, maps, orders, asked, Counting(6, batch_size=5)
    )
    for s, order in enumerate(orders):
        here = holds(maps[order])
        masks = [here["A"] & ~here["B"], here["C"], here["E"] | here["A"], np.zeros_like(here["A"])]
        for place, mask in enumerate(masks):
            n, b = divmod(place, 2)
            on = units[..., asked.units[s, n]]
            for number, letter in enumerate("ABCDE", 1):
                both = mask & here[letter]
                np.testing.assert_array_equal(
                    found[s, n, b, :, number], [both.sum(), (both & on).sum()]
                )


def test_only_what_is_asked_for_and_kept_with_a_dissection(some, tmp_path):
    maps, units = some
    two = dissected(units, maps, Options(shuffles=0, formulas=2))
    assert two.formulas.units.tolist() == [2, 0]  # E is 1, A AND NOT B the sharpest of the others
    assert np.isnan(two.formulas.chance).all()
    assert not two.formulas.above_chance.any()
    dissection.save(two, tmp_path / "layer.npz")
    again = dissection.load(tmp_path / "layer.npz")
    assert again.formulas.texts(again.names) == two.formulas.texts(NAMES)
    np.testing.assert_array_equal(again.formulas.iou, two.formulas.iou)
    none = dissected(units, maps, Options(shuffles=0))
    assert len(none.formulas.units) == 0
    # A file of before, without.
    with np.load(tmp_path / "layer.npz") as file:
        np.savez(tmp_path / "old.npz", **{k: v for k, v in file.items() if "formula" not in k})
    assert len(result.load(tmp_path / "old.npz").formulas.units) == 0
    profile = two.profile(0)
    assert profile[0][0] == "A"
    assert [value for *_, value in profile] == sorted(two.iou()[0][two.iou()[0] > 0], reverse=True)


@pytest.mark.usefixtures("unchecked")
def test_a_search_needs_tallies_of_what_it_searches():
    activations, maps = np.ones((2, 2, 2, 3), np.float32), np.ones((2, 4, 4, 1), int)
    own, asked = np.arange(2)[None], Counting(2)
    tally = counting.Tally(*(np.zeros(n, int) for n in ((3, 2), 3, (3, 0), 2, 0)))

    def search(tallies=(tally,), units=3, **more):
        known = formulas.Tallied(tallies, own)
        return formulas.search(activations[..., :units], [0.5] * units, maps, known, asked, **more)

    for given, message in (
        ({"tallies": ()}, "there are 0 tallies for 1 orders"),
        ({"units": 2}, r"tallies must be of \[2, 2\] units and concepts; got \[3, 2\]"),
        ({"most": 0}, "most must be an integer of at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            search(**given)
