"""`attribute` and `evaluate`: many images by the pure functions, whatever the chunks and devices."""

import dataclasses
import functools

import attribution_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import (
    ALIGNMENT,
    CLASSES,
    IMAGES,
    SIDE,
    SMALL,
    direct,
    evaluate,
    inputs,
    small_net,
    source,
)

import mixaug_jax
from mixaug_jax import attribution
from mixaug_jax.attribution import METHODS, Method, heatmap, iba_statistics
from mixaug_jax.core import entries
from mixaug_jax.explain import evaluation
from mixaug_jax.scores import SCORES, Part, Score, auc

# What scores give beside themselves.
DERIVED = tuple(part for score in SCORES.values() for part in score.also)


@pytest.fixture(scope="module")
def net():
    return small_net()


@pytest.mark.parametrize(
    "method", ["gradient", "smoothgrad", "integrated_gradients", "random", "expected_gradients"]
)
def test_attribute_is_the_method_on_each_image(net, method):
    """Whatever the chunk and the devices; an image's noise depends on its number and nothing else."""
    images, labels = inputs(net)
    extra = {"baselines": images[:3]} if method == "expected_gradients" else {}
    given = SMALL.get(method, {}) | extra
    seeded = given | ({"key": 5} if "key" in entries.keywords(METHODS[method]) else {})
    first = mixaug_jax.attribute(net, images, labels, method, options=seeded, chunk=1)
    assert first.dtype == np.float32
    for chunk, devices in ((3, jax.devices()[:1]), (64, jax.devices()[:2])):
        again = mixaug_jax.attribute(
            net, images, labels, method, options=seeded, chunk=chunk, devices=devices
        )
        attribution_cases.close(again, first, 1e-6)
    some = mixaug_jax.attribute(
        net, images[4:], labels[4:], method, options=seeded, chunk=64, indices=[4, 5, 6]
    )
    attribution_cases.close(some, first[4:], 1e-6)
    if method in ("gradient", "integrated_gradients"):
        attribution_cases.close(direct(net, method, **given), first, 1e-5)
    else:
        key = jax.random.fold_in(jax.random.key(5), 6)
        one = METHODS[method](net, images[6], labels[6], key=key, **given)
        attribution_cases.close(one, first[6], 1e-5)
        other = mixaug_jax.attribute(net, images, labels, method, options=given | {"key": 6})
        assert np.abs(other - first).max() > 0


def test_scores_are_those_of_the_pure_functions(net):
    chosen = (
        *ALIGNMENT,
        "deletion",
        "road",
        "sensitivity_n",
        "infidelity",
        "completeness",
        "sparseness",
    )
    found = evaluate(net, scores=chosen, seed=3)
    gradient = found["gradient"]
    images, labels = inputs(net)
    raw = direct(net, "gradient")
    heat = np.asarray(heatmap(raw, "abs_sum"))
    attribution_cases.close(gradient.heat, heat, 1e-6)
    np.testing.assert_array_equal(gradient.labels, labels)
    np.testing.assert_array_equal(gradient.predicted, np.asarray(net.logits(images)).argmax(-1))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[3:9, 2:8] = True  # six columns are cut off on each side
    for name in ("energy_pointing_game", "mass_accuracy"):
        expected = [SCORES[name](h, mask) for h in heat]
        shown = [0, 1, 4, 5, 6]
        np.testing.assert_allclose(
            gradient.scores[name][shown], np.array(expected)[shown], rtol=1e-5
        )
    i, seeded = 5, {"key": 3}

    def pure(name, *heatmap, **given):
        f = functools.partial(SCORES[name], *heatmap, **SMALL.get(name, {}) | given)
        return np.asarray(jax.jit(f)(net, images[i], labels[i]))

    curve = pure("deletion", heat[i])
    np.testing.assert_allclose(gradient.curves["deletion"][i], curve, atol=1e-6)
    np.testing.assert_allclose(gradient.scores["deletion"][i], auc(curve), atol=1e-6)
    area = auc(pure("road", heat[i], **seeded), positions=(0, *SMALL["road"]["fractions"]))
    np.testing.assert_allclose(gradient.scores["road"][i], area, atol=1e-5)
    signed = pure("sensitivity_n", raw[i].sum(-1), **seeded)
    np.testing.assert_allclose(gradient.scores["sensitivity_n"][i], signed, atol=1e-4)
    sums, drops = gradient.pairs["sensitivity_n"][i]
    assert sums.shape == (2, 5)
    sizes = [np.corrcoef(s, d)[0, 1] for s, d in zip(sums, drops, strict=True)]
    np.testing.assert_allclose(signed, np.mean(sizes), atol=1e-4)
    error = pure("infidelity", raw[i], **seeded)
    np.testing.assert_allclose(gradient.scores["infidelity"][i], error, rtol=1e-4)
    gap = abs(pure("completeness", METHODS["gradient"]))
    np.testing.assert_allclose(gradient.scores["completeness"][i], gap, rtol=1e-4)
    np.testing.assert_allclose(
        gradient.scores["background_attribution"], 1 - gradient.scores["energy_pointing_game"]
    )


def test_left_out_and_controls(net):
    """Image 2 has no box; image 3's is cut away. Controls stand last, and are scored alike."""
    found = evaluate(net, methods=("random", "gradcam", "gradcam"))
    assert list(found) == ["gradcam", "random", "center", "sobel"]
    assert [r.kind for r in found.values()] == ["method", "control", "control", "control"]
    for one in found.values():
        for name in (*ALIGNMENT, "background_attribution"):
            assert np.flatnonzero(np.isnan(one.scores[name])).tolist() == [2, 3]
        assert one.heat.shape == (IMAGES, SIDE, SIDE)
        assert one.indices.tolist() == list(range(IMAGES))
    rows = {row.score: row for row in evaluation.summarize(found["center"])}
    assert (rows["pointing_game"].images, rows["pointing_game"].left_out) == (5, 2)
    assert rows["pointing_game"].mean == 1  # every box is near the center
    assert "deletion" not in rows


def test_scores_on_the_images_that_their_papers_keep(net):
    """Regions of 1/4, 1/3, 1/2, a little less, and all of the image; 1/3 is more than 33 %."""
    boxes = [(0, 0, 6, 6), (0, 0, 12, 4), (0, 0, 6, 12), (0, 0, 11, 6), (0, 0, 12, 12)]
    boxes = np.float32(boxes) + np.float32([0, 6, 0, 6])  # six columns are cut off on each side

    def read(i):
        found = {"boxes": boxes[i : i + 1], "box_labels": np.int32([i % CLASSES])}
        none = {"boxes": np.zeros((0, 4), np.float32), "box_labels": np.zeros(0, np.int32)}
        return source()[i] | (found if i < 5 else none)

    regions = dataclasses.replace(source(), read=read)
    found = evaluate(net, regions, scores=("box_ratio", "energy_pointing_game"))["center"]
    for score, kept in (("box_ratio", [0]), ("energy_pointing_game", [0, 1, 3])):
        small = found.scores[f"{score}_small"]
        assert np.flatnonzero(~np.isnan(small)).tolist() == kept
        np.testing.assert_array_equal(small[kept], found.scores[score][kept])
    rows = {row.score: row for row in evaluation.summarize(found)}
    assert [(rows[s].images, rows[s].left_out) for s in ("box_ratio", "box_ratio_small")] == [
        (5, 2),
        (1, 6),
    ]
    assert rows["energy_pointing_game_small"].left_out == 4
    large = dataclasses.replace(source(), read=lambda i: read(4) | {"label": 4})
    found = evaluate(net, large, scores=("box_ratio", "energy_pointing_game"))["center"]
    rows = {row.score for row in evaluation.summarize(found)}
    assert rows == {"box_ratio", "energy_pointing_game", "background_attribution"}


def test_chunks_and_devices_do_not_matter(net):
    given = {
        "methods": ("smoothgrad",),
        "scores": ("energy_pointing_game", "deletion"),
    }
    one = evaluate(net, **given)
    for memory_gb, devices in ((1e-4, jax.devices()[:1]), (0.0, jax.devices()[:3])):
        other = evaluate(net, **given, memory_gb=memory_gb or 0, devices=devices)
        for name, own in one.items():
            attribution_cases.close(other[name].heat, own.heat, 1e-6)
            for score, values in own.scores.items():
                np.testing.assert_allclose(other[name].scores[score], values, atol=1e-5)
            assert other[name].settings == own.settings


@pytest.mark.parametrize("method", sorted(n for n, m in METHODS.items() if not m.attention))
def test_every_method(net, method):
    found = evaluate(net, methods=(method,), scores=("energy_pointing_game",), max_images=2)[method]
    assert np.isfinite(found.heat).all()
    assert found.heat.shape == (2, SIDE, SIDE)
    assert found.settings["method"] == method
    assert (
        not set(entries.keywords(METHODS[method]))
        & {"noise", "stats"}
        & set(found.settings["options"])
    )


def test_every_score(net):
    """All at once, of the controls, which compile fast."""
    found = evaluate(net, methods=(), scores=tuple(SCORES), max_images=2)
    for one in found.values():
        assert set(one.scores) == set(SCORES) | set(DERIVED)
        assert all(values.shape == (2,) for values in one.scores.values())
        assert all(values.dtype == np.float64 for values in one.scores.values())
        curves = ("deletion", "insertion", "lerf", "morf", "pixel_flipping", "road")
        assert set(one.curves) == set(curves)
        assert one.curves["deletion"].shape == (2, 4)
        assert one.curves["road"].shape == (2, 3)
        assert (one.scores["completeness"] >= 0).all()
    rows = [row.score for row in evaluation.summarize(found["center"])]
    assert "degradation_score" in rows
    assert "pointing_game_class_mean" in rows


def test_iba_takes_its_statistics_from_the_reference(net):
    images, labels = inputs(net)
    others = source(20, seed=9)
    found = evaluate(
        net, methods=("iba",), reference=others, reference_images=10, max_images=3, layer="relu1"
    )["iba"]
    chosen = np.stack([net.preprocess(others[i]["image"]) for i in range(0, 20, 2)])
    stats = iba_statistics(net, [chosen], layer="relu1")
    key = jax.random.fold_in(jax.random.key(0), 2)
    number = found.indices[1]
    assert number == 2
    one = METHODS["iba"](
        net, images[2], labels[2], stats=stats, layer="relu1", key=key, **SMALL["iba"]
    )
    attribution_cases.close(found.heat[1], np.asarray(one)[..., 0], 1e-4)


def test_a_map_of_nan_never_hits(net):
    """A network that diverged."""
    variables = jax.tree.map(lambda x: x, net.variables)
    variables["params"]["fc"]["bias"] = np.full(CLASSES, np.nan, np.float32)
    broken = dataclasses.replace(net, variables=variables)
    found = evaluate(broken, scores=(*ALIGNMENT, "deletion"), max_images=1)
    gradient = found["gradient"]
    assert gradient.empty == 1
    assert found["center"].empty == 0
    for name in ALIGNMENT:
        assert gradient.scores[name].tolist() == [0]
    assert gradient.scores["background_attribution"].tolist() == [1]
    assert np.isnan(gradient.scores["deletion"]).all()
    row = next(r for r in evaluation.summarize(gradient) if r.score == "deletion")
    assert (row.images, row.left_out) == (0, 1)


def test_the_predicted_class(net):
    found = evaluate(net, label="predicted")["gradient"]
    np.testing.assert_array_equal(found.labels, found.predicted)
    own = found.predicted == np.arange(IMAGES) % CLASSES
    own[[2, 3]] = False
    np.testing.assert_array_equal(~np.isnan(found.scores["mass_accuracy"]), own)
    anything = evaluate(net, label="predicted", region="boxes")["gradient"]
    assert np.flatnonzero(np.isnan(anything.scores["mass_accuracy"])).tolist() == [2, 3]


def test_class_activation_maps_are_taken_where_there_are_four_nodes(net):
    """By `attribute` and `evaluate` alike, the last layer of 4 x 4 or more: relu3 has 6 x 6 and relu4 3 x 3."""
    images, labels = inputs(net)
    fine, coarse = (direct(net, "gradcam", layer=layer) for layer in ("relu3", "relu4"))
    assert np.abs(fine - coarse).max() > 0
    attribution_cases.close(mixaug_jax.attribute(net, images, labels, "gradcam"), fine, 1e-5)
    attribution_cases.close(evaluate(net, methods=("gradcam",))["gradcam"].heat, fine[..., 0], 1e-5)
    found = evaluate(net, methods=("gradcam",), layer="relu4")["gradcam"]
    attribution_cases.close(found.heat, coarse[..., 0], 1e-5)


def brightness(net, image, label, *, gain=1.0, key=0):
    """A method of this file's own: what is bright, and a little noise of the image's own."""
    return (
        gain * image.sum(-1, keepdims=True)
        + 0.1 * jax.random.normal(key, image.shape[:2])[..., None]
    )


def off_center(heatmap, *, power=1):
    """A score of this file's own, of a map alone."""
    TRACED.append("off_center")
    rows = np.abs(np.arange(SIDE) - (SIDE - 1) / 2)[:, None]
    return (jnp.abs(heatmap) * rows**power).sum()


def left_on(heatmap, net, image, label, *, steps=3):
    """A curve: the output with the left columns gone, more at each step."""
    TRACED.append("left_on")
    gone = jnp.arange(steps + 1)[:, None, None, None] * 2 > jnp.arange(SIDE)[:, None]
    return net.logits(jnp.where(gone, 0, image))[:, label]


def doubled(explain, net, image, label):
    return jnp.abs(explain(net, 2 * image, label)).sum()


def on_label(attribution, image, label):
    """Without the network, but with what is explained."""
    return (attribution * image).sum() + label


TRACED = []


@pytest.fixture
def own_names(monkeypatch):
    """The dicts as they are after this test."""
    for table in (METHODS, SCORES):
        for name in (brightness.__name__, off_center.__name__, left_on.__name__):
            monkeypatch.setitem(table, name, 0)
            del table[name]


def test_functions_of_ones_own(net, own_names):
    """Given as themselves, then by name once they are in the dicts; never traced again for the same settings."""
    given = {
        "entries": SMALL | {"brightness": {"gain": 2.0}, "off_center": {"power": 2}},
        "seed": 4,
    }
    scores = (off_center, left_on, doubled, on_label, "mass_accuracy")
    TRACED.clear()
    found = evaluate(net, methods=(brightness, "gradient"), scores=scores, **given)
    assert list(found) == ["brightness", "gradient", *attribution.control_names()]
    own = found["brightness"]
    images, labels = inputs(net)
    keys = [jax.random.fold_in(jax.random.key(4), k) for k in range(IMAGES)]
    raw = np.stack([
        brightness(0, x, 0, gain=2.0, key=key) for x, key in zip(images, keys, strict=True)
    ])  # fmt: skip
    attribution_cases.close(own.heat, raw[..., 0], 1e-6)
    expected = [off_center(h, power=2) for h in own.heat]
    np.testing.assert_allclose(own.scores["off_center"], expected, rtol=1e-5)
    curves = np.stack([left_on(0, net, x, k) for x, k in zip(images, labels, strict=True)])
    np.testing.assert_allclose(own.curves["left_on"], curves, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.scores["left_on"], auc(curves), rtol=1e-4, atol=1e-5)
    expected = (raw * images).sum((1, 2, 3)) + labels
    np.testing.assert_allclose(own.scores["on_label"], expected, rtol=1e-4)
    assert (own.scores["doubled"] > 0).all()
    facts = own.entries["scores"]
    kinds = {name: (facts[name]["kind"], facts[name]["better"]) for name in facts}
    assert kinds["off_center"] == ("complexity", 0)
    assert kinds["left_on"] == ("faithfulness", 0)
    assert kinds["doubled"] == ("stability", 0)
    assert kinds["mass_accuracy"] == ("alignment", 1)
    assert own.settings["options"] == {"gain": 2.0, "key": 4}
    assert own.settings["scores"]["off_center"] == {"power": 2, "key": 4}
    assert own.settings["code"]["brightness"] == own.settings["code"]["left_on"] != ""
    assert "gradient" not in found["gradient"].settings["code"]

    TRACED.clear()
    again = evaluate(net, methods=(brightness, "gradient"), scores=scores, **given)
    assert not TRACED, "compiled again"
    np.testing.assert_array_equal(again["brightness"].heat, own.heat)

    # The dicts were used already.
    with pytest.raises(ValueError, match=r"methods must be one of .*; got 'brightness'"):
        evaluate(net, methods=("brightness",))
    METHODS["brightness"], SCORES["off_center"] = brightness, off_center
    by_name = evaluate(net, methods=("brightness",), scores=("off_center",), **given)["brightness"]
    np.testing.assert_array_equal(by_name.heat, own.heat)
    np.testing.assert_array_equal(by_name.scores["off_center"], own.scores["off_center"])
    one = mixaug_jax.attribute(net, images, labels, "brightness", options={"gain": 2.0, "key": 4})
    attribution_cases.close(one, raw, 1e-6)
    same = mixaug_jax.attribute(net, images, labels, brightness, options={"gain": 2.0, "key": 4})
    np.testing.assert_array_equal(same, one)


def test_a_record_says_what_a_signature_cannot(net):
    """Whether values are contributions; what is measured and what becomes of it; parts of what an example shows."""

    def measured(heatmap, *, scale=3.0):
        return jnp.stack([heatmap.min(), heatmap.max(), scale * heatmap.max()])

    def reach(heatmap, *, scale=3.0):
        return scale * heatmap.max() - heatmap.min()

    def value(found, told):
        return found[:, 2] - found[:, 0] + 100 * (told["scale"] == 5)

    def where_shown(values, examples):
        return np.where(examples.masks.any((1, 2)), values, np.nan)

    part = Part(where_shown, -1, "reach of what is shown", view=False)
    score = Score(reach, better=1, measure=measured, value=value, also={"reach_shown": part})
    method = Method(brightness, signed=False, title="how bright")
    found = evaluate(net, methods=(method,), scores=(score,), entries={"reach": {"scale": 5.0}})
    one = found["brightness"]
    assert one.entries["title"] == "how bright"
    assert one.settings["reduce"] == "abs_sum"
    expected = 5 * one.heat.max((1, 2)) - one.heat.min((1, 2)) + 100
    np.testing.assert_allclose(one.scores["reach"], expected, rtol=1e-5)
    assert np.flatnonzero(np.isnan(one.scores["reach_shown"])).tolist() == [2, 3]
    facts = one.entries["scores"]
    assert (facts["reach"]["better"], facts["reach"]["view"]) == (1, True)
    assert (facts["reach_shown"]["better"], facts["reach_shown"]["view"]) == (-1, False)
