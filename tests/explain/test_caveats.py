"""What is said beside the scores: completeness missed, and what the order of equal values does."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import SMALL, evaluate, inputs, small_net
from score_cases import run

import mixaug_jax
from mixaug_jax.attribution import METHODS
from mixaug_jax.attribution.target import outputs, replacement
from mixaug_jax.explain import caveats
from mixaug_jax.scores import auc
from mixaug_jax.scores.faithfulness import opposite_ties
from mixaug_jax.scores.maps import ranks
from mixaug_jax.scores.tiles import on_pixels, tile_means


@pytest.fixture(scope="module")
def net():
    return small_net()


@pytest.mark.parametrize(
    "told", [{"steps": 3}, {"steps": 200, "baseline": "blur", "output": "loss"}]
)
def test_the_share_that_is_missing(net, told):
    options = SMALL | {"integrated_gradients": told}
    methods = ("integrated_gradients", "gradient")
    found = evaluate(net, methods=methods, scores=("sparseness",), entries=options)
    said = found["integrated_gradients"].entries
    images, labels = inputs(net)
    maps = mixaug_jax.attribute(net, images, labels, "integrated_gradients", options=told)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def ends(net, image, label):
        start = replacement(image, told.get("baseline", "zero"))
        return outputs(net, jnp.stack([image, start]), label, told.get("output", "logit"))

    change = np.subtract(*np.float64(ends(net, images, labels)).T)
    missed = np.abs(maps.sum((1, 2, 3)) - change) / np.abs(change)
    assert said["missing"] == pytest.approx(np.median(missed), rel=1e-3, abs=1e-5)
    assert (said["missing"] < 0.01) == (told["steps"] == 200)
    assert "missing" not in found["gradient"].entries
    line = caveats.sentences({n: r.entries for n, r in found.items()}, "missing")
    assert line == (
        "share of the output's change that maps miss, median over images: "
        f"integrated gradients {100 * said['missing']:.1f} %"
    )


def test_complete_methods_say_so():
    assert [n for n, m in METHODS.items() if m.complete] == ["deeplift", "integrated_gradients"]
    assert caveats.sentences({"gradient": {"title": "gradient"}}, "missing") == ""
    nothing = {"a": {"title": "a", "missing": float("nan"), "ties": {}}}
    assert caveats.sentences(nothing, "missing") == caveats.sentences(nothing, "ties") == ""


@pytest.mark.parametrize("window", [1, 2, 5])
def test_opposite_ties(window):
    """What differs keeps its order, what is equal has the opposite one."""
    rng = np.random.default_rng(0)
    heat = on_pixels(rng.integers(0, 4, (9, 8)).astype(np.float32), 5, (44, 37))[:12, :11]
    opposite = opposite_ties(heat, window=window)
    before, after = (np.asarray(tile_means(h, window)) for h in (heat, opposite))
    first, second = (np.asarray(ranks(h)).ravel() for h in (before, after))
    flat = before.ravel()
    for value in np.unique(flat):
        same = np.flatnonzero(flat == value)
        assert sorted(first[same]) == sorted(second[same])
        np.testing.assert_array_equal(np.argsort(first[same]), np.argsort(-second[same]))
    assert len(np.unique(after)) == after.size
    distinct = rng.normal(size=(12, 11)).astype(np.float32)
    again = opposite_ties(distinct, window=window)
    np.testing.assert_array_equal(*(ranks(tile_means(h, window)) for h in (distinct, again)))
    nothing, empty = (np.full((12, 11), value, np.float32) for value in (np.nan, 0))
    np.testing.assert_array_equal(opposite_ties(nothing), opposite_ties(empty))


def test_the_spread_over_orders_of_ties(net):
    options = SMALL | {"deletion": {"window": 2}, "gradcam": {"resize": "nearest"}}
    methods = ("gradcam", "gradient")
    found = evaluate(net, methods=methods, scores=("deletion", "lerf"), entries=options)
    result = found["gradcam"]
    images, labels = inputs(net)
    other = np.stack([opposite_ties(heat, window=2) for heat in result.heat])
    areas = [
        auc(run("deletion", heat, net, images, labels, window=2)) for heat in (result.heat, other)
    ]
    moved = np.subtract(*map(np.float64, areas))
    assert result.entries["ties"] == {"deletion": pytest.approx(abs(np.mean(moved)), abs=1e-6)}
    assert result.entries["ties"]["deletion"] > 1e-5
    assert "ties" not in found["gradient"].entries
    line = caveats.sentences({n: r.entries for n, r in found.items()}, "ties")
    spread = f"{result.entries['ties']['deletion']:.4f}"
    assert line == (
        "Equal values of a map go in an arbitrary order; the opposite one moves the area by: "
        f"Grad-CAM {spread} (deletion)."
    )
    assert json.loads(json.dumps(result.entries)) == result.entries
