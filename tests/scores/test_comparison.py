"""Deletion across models and IBA's degradation score, against plain loops and models whose answer is known."""

import math

import jax
import numpy as np
import pytest
from attribution_cases import random_net
from score_cases import linear_net, near

from mixaug_jax.scores import (
    SCORES,
    Removal,
    auc,
    cross_model_deletion,
    degradation_score,
    readings,
)

SHARED = ("per_image", "D", "R", "own_vs_others", "fixed_evaluators", "gain_over_random")


def problem():
    """Two networks, three images, and a map of each network for each image."""
    rng = np.random.default_rng(0)
    nets = {"mixup": random_net(seed=0)[0], "cutmix": random_net(seed=1)[0]}
    images = rng.normal(size=(3, 12, 12, 3)).astype(np.float32)
    maps = {name: rng.normal(size=(3, 12, 12)).astype(np.float32) for name in nets}
    return nets, maps, images, np.asarray([0, 4, 2])


def test_matrix_by_hand():
    nets, maps, images, labels = problem()
    maps = {**maps, "random": np.random.default_rng(1).normal(size=(3, 12, 12)).astype(np.float32)}
    result = cross_model_deletion(nets, maps, images, labels, Removal(3, output="prob", chunk=5))
    assert result["models"] == ("mixup", "cutmix")
    assert result["sources"] == ("mixup", "cutmix", "random", "center")
    assert result["per_image"].shape == (2, 4, 3)
    deletion = jax.jit(lambda h, net, x, k: auc(SCORES["deletion"](h, net, x, k, window=3)))
    for m, net in enumerate(nets.values()):
        for s, name in enumerate(("mixup", "cutmix", "random")):
            rows = zip(maps[name], images, labels, strict=True)
            expected = [deletion(h, net, x, k) for h, x, k in rows]
            near(result["per_image"][m, s], np.asarray(expected, np.float64), 1e-6)
    np.testing.assert_allclose(result["D"], result["per_image"].mean(-1))
    assert all(np.isfinite(result[key]).all() for key in SHARED)


def test_readings_by_hand():
    d = np.asarray([[0.2, 0.3, 0.4, 0.5], [0.6, 0.3, 0.6, 0.3]])
    r = readings(d, ("a", "b"), ("a", "b", "random", "center"))
    near(r["R"], np.asarray([[0.5, 0.75, 1, 1.25], [1, 0.5, 1, 0.5]]), 1e-12)
    near(r["own_vs_others"], np.asarray([0.25, 0.5]), 1e-12)
    near(r["fixed_evaluators"], np.asarray([0.75, 0.625, 1, 0.875]), 1e-12)
    near(r["gain_over_random"], np.asarray([0.5, 0.5]), 1e-12)
    shuffled = readings(d[:, [2, 1, 3, 0]], ("a", "b"), ("random", "b", "center", "a"))
    for key in ("own_vs_others", "gain_over_random"):
        near(shuffled[key], r[key], 0)


def test_robustness_to_occlusion_cancels():
    """A model whose output keeps a share of itself under any deletion reads the same as one that loses it all."""
    d = np.asarray([[0.2, 0.3, 0.4], [0.3, 0.2, 0.4]])
    robust = d * np.asarray([[1], [2]])
    names = ("a", "b"), ("a", "b", "random")
    for key in ("R", "own_vs_others", "fixed_evaluators", "gain_over_random"):
        near(readings(robust, *names)[key], readings(d, *names)[key], 1e-12)


def test_ends_of_the_readings():
    zero = readings(np.zeros((1, 2)), ("a",), ("a", "random"))
    assert (zero["R"] == 1).all()
    assert zero["gain_over_random"] == 0
    assert math.isnan(zero["own_vs_others"][0])
    lost = readings(np.asarray([[0.1, 0.0]]), ("a",), ("a", "random"))
    assert lost["R"].tolist() == [[math.inf, 1]]
    assert lost["gain_over_random"].tolist() == [-math.inf]


def test_readings_of_models_that_random_removal_leaves_nothing():
    """Infinite R on both sides is no NaN: the difference of the areas has a sign."""
    d = np.asarray([[0.1, 0.2, 0.3, 0], [0.2, 0.3, 0.1, 0], [0.2, 0.2, 0.2, 0], [0.1, 0.1, 0, 0.5]])
    models = ("a", "b", "c")
    r = readings(d[:3], models, (*models, "random"))
    assert np.isinf(r["R"][:, :3]).all()
    assert r["own_vs_others"].tolist() == [math.inf, -math.inf, 0]
    assert r["gain_over_random"].tolist() == [-math.inf] * 3
    assert r["fixed_evaluators"].tolist() == [math.inf] * 3 + [1]
    mixed = readings(d[[0, 3, 3]], models, (*models, "random"))
    near(mixed["own_vs_others"][1:], np.asarray([-0.1, 0.2]), 1e-12)
    assert readings(np.zeros((2, 3)), ("a", "b"), ("a", "b", "random"))["own_vs_others"].any() == 0


def test_true_attributions_win_in_every_reading():
    """Linear models with their exact contributions: each is most faithful to itself, and better than chance."""
    parts = [linear_net((8, 8, 1), seed=s) for s in (0, 1)]
    images = np.stack([image for _, image, _ in parts])
    nets = {"a": parts[0][0], "b": parts[1][0]}
    kernels = [n.variables["params"]["fc"]["kernel"][:, 2].reshape(8, 8) for n in nets.values()]
    maps = {name: k * images[..., 0] for name, k in zip(nets, kernels, strict=True)}
    labels = np.asarray([2, 2])
    result = cross_model_deletion(nets, maps, images, labels, Removal(chunk=3))
    assert (result["own_vs_others"] > 0).all()
    assert (result["gain_over_random"] > 0).all()
    assert (np.diag(result["D"]) < result["D"][:, 2]).all()
    again = cross_model_deletion(nets, maps, images, labels, Removal(chunk=0))
    for key in SHARED:
        near(again[key], result[key], 1e-6)
    other = cross_model_deletion(nets, maps, images, labels, key=1)
    assert (other["D"][:, 2] != result["D"][:, 2]).all()
    near(other["D"][:, [0, 1, 3]], result["D"][:, [0, 1, 3]], 1e-6)


def test_a_given_replacement():
    nets, maps, images, labels = problem()
    given = cross_model_deletion(nets, maps, images, labels, Removal(4, baseline=np.zeros(3)))
    named = cross_model_deletion(nets, maps, images, labels, Removal(4, baseline="zero"))
    for key in SHARED:
        near(given[key], named[key], 1e-6)


def test_maps_as_lists_and_a_map_of_nan():
    nets, maps, images, labels = problem()
    arrays = cross_model_deletion(nets, maps, images, labels, Removal(4))
    lists = {name: m.tolist() for name, m in maps.items()}
    near(cross_model_deletion(nets, lists, images, labels, Removal(4))["D"], arrays["D"], 0)
    dead, nan = maps["mixup"] * 0, maps["mixup"].copy()
    nan[:, 3, 3] = np.nan
    found = cross_model_deletion(
        nets, maps | {"dead": dead, "nan": nan}, images, labels, Removal(4)
    )
    assert found["sources"][2:4] == ("dead", "nan")
    near(found["D"][:, 3], found["D"][:, 2], 0)


@pytest.mark.usefixtures("unchecked")
def test_cross_model_deletion_rejects():
    nets, maps, images, labels = problem()
    cases = [
        (({}, maps, images, labels), "nets is empty"),
        ((nets, maps, images[0], labels), r"images must be \[N,h,w,C\]"),
        ((nets, maps, images[:0], labels[:0]), r"images must be \[N,h,w,C\]"),
        ((nets, {"mixup": maps["mixup"]}, images, labels), "maps has no source cutmix"),
        (
            (nets | {"center": nets["mixup"]}, maps | {"center": maps["mixup"]}, images, labels),
            "center",
        ),
        (
            (nets, maps | {"edges": maps["mixup"][:, 1:]}, images, labels),
            r"maps\['edges'\] must have",
        ),
        ((nets, maps, images, labels[:2]), "labels must be 3 integers"),
        ((nets, maps, images, labels.astype(float)), "labels must be 3 integers"),
        ((nets, maps, images, labels + 1), r"label must be in 0\.\.4; got 5"),
        ((nets, maps, images.astype(np.uint8), labels), "images must be preprocessed, floating"),
    ]
    for args, message in cases:
        with pytest.raises(ValueError, match=message):
            cross_model_deletion(*args)


def test_degradation_score():
    morf = np.asarray([[0.9, 0.3, 0.1], [0.7, 0.2, 0.1]])
    lerf = np.asarray([[0.9, 0.8, 0.1], [0.7, 0.9, 0.1]])
    expected = ((0.85 - 0.25) / 2) / (0.8 - 0.1)
    assert degradation_score(morf, lerf) == pytest.approx(expected)
    assert degradation_score(lerf, morf) == pytest.approx(-expected)
    assert degradation_score(morf, lerf, top=0.9) == pytest.approx(expected * 0.7 / 0.8)
    assert degradation_score(morf, morf) == 0
    assert degradation_score(morf[:, ::-1], lerf[:, ::-1]) == 0, "removal raises the probability"
    # The best that can be: nothing is lost before the last tile, everything with the first.
    steps = 1000
    best, worst = np.ones((1, steps + 1)), np.zeros((1, steps + 1))
    best[:, -1], worst[:, 0] = 0, 1
    assert degradation_score(worst, best) == pytest.approx(1, abs=2 / steps)
    for bad in ((morf, lerf[:1]), (morf[0], lerf[0]), (morf[:0], lerf[:0])):
        with pytest.raises(ValueError, match=r"morf and lerf must be curves \[N,T\+1\]"):
            degradation_score(*bad)
