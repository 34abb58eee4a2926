"""`attribute` and `evaluate`: many images by the pure functions, whatever the chunks and devices."""

import dataclasses
import functools

import attribution_cases
import jax
import numpy as np
import pytest

import mixaug_jax
from mixaug_jax.attribution import METHODS, heatmap, iba_statistics
from mixaug_jax.data.source import Source
from mixaug_jax.explain import evaluation, job, options
from mixaug_jax.scores import SCORES, auc

SIDE, CLASSES, IMAGES = 12, 5, 7
NAMES = tuple(f"class {k}" for k in range(CLASSES))
# Small enough for 12 x 12 pixels, and few.
SMALL = {
    "occlusion": {"window": 4, "stride": 4},
    "feature_ablation": {"window": 4},
    "rise": {"samples": 6, "cells": 3},
    "iba": {"steps": 2, "samples": 2},
    "integrated_gradients": {"steps": 4},
    "expected_gradients": {"samples": 3},
    "smoothgrad": {"samples": 3},
    "smoothgrad_squared": {"samples": 3},
    "vargrad": {"samples": 3},
    "deletion": {"window": 4},
    "insertion": {"window": 4},
    "morf": {"window": 4},
    "lerf": {"window": 4},
    "pixel_flipping": {"step": 48},
    "sensitivity_n": {"window": 4, "n": (1, 4), "samples": 5},
    "infidelity": {"window": 4, "samples": 5},
    "max_sensitivity": {"samples": 2},
    "road": {"fractions": (0.2, 0.6)},
}
ALIGNMENT = ("pointing_game", "energy_pointing_game", "mass_accuracy")
DERIVED = (*evaluation.SUBSETS, "background_attribution")


@pytest.fixture(scope="module")
def net():
    return attribution_cases.random_net(CLASSES, SIDE)[0]


def source(images=IMAGES, seed=0, **fields):
    """Noise with one box a picture, called as its class; image 2 has none, and image 3 one that the crop cuts away."""
    draw = np.random.default_rng(seed)
    # The outer columns are cut off.
    pixels = draw.integers(0, 256, (images, SIDE, 2 * SIDE, 3), np.uint8)
    boxes = np.tile(np.float32([[3, 8, 9, 14]]), (images, 1, 1))
    boxes[3::IMAGES] = [0, 0, 12, 5]

    def read(i):
        label = i % CLASSES
        found = {"boxes": boxes[i], "box_labels": np.int32([label])}
        if i % IMAGES == 2:
            found = {"boxes": np.zeros((0, 4), np.float32), "box_labels": np.zeros(0, np.int32)}
        return {"image": pixels[i], "label": label, **found}

    return Source(read, images, NAMES, **{"box_names": NAMES} | fields)


def evaluate(net, dataset=None, **given):
    wanted = {
        "methods": ("gradient",),
        "scores": ALIGNMENT,
        "options": SMALL,
        "devices": jax.devices()[:1],
    }
    dataset = source() if dataset is None else dataset
    return mixaug_jax.evaluate(net, dataset, **wanted | given)


def inputs(net):
    images = np.stack([net.preprocess(source()[i]["image"]) for i in range(IMAGES)])
    return images, np.arange(IMAGES) % CLASSES


def direct(net, method, **given):
    """The pure function on each image alone."""
    images, labels = inputs(net)
    f = jax.jit(functools.partial(METHODS[method], **given))
    return np.stack([f(net, x, k) for x, k in zip(images, labels, strict=True)])


@pytest.mark.parametrize(
    "method", ["gradient", "smoothgrad", "integrated_gradients", "random", "expected_gradients"]
)
def test_attribute_is_the_method_on_each_image(net, method):
    """Whatever the chunk and the devices; an image's noise depends on its number and nothing else."""
    images, labels = inputs(net)
    extra = {"baselines": images[:3]} if method == "expected_gradients" else {}
    given = SMALL.get(method, {}) | extra
    seeded = given | ({"key": 5} if "key" in options.keywords(method) else {})
    first = mixaug_jax.attribute(net, images, labels, method, options=seeded, chunk=1)
    assert first.dtype == np.float32
    for chunk, devices in ((3, jax.devices()[:1]), (64, jax.devices()[:2])):
        again = mixaug_jax.attribute(
            net, images, labels, method, options=seeded, chunk=chunk, devices=devices
        )
        attribution_cases.close(again, first, 1e-6)
    some = mixaug_jax.attribute(
        net, images[4:], labels[4:], method, options=seeded, chunk=64, numbers=[4, 5, 6]
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
    area = auc(pure("road", heat[i], **seeded), at=(0, *SMALL["road"]["fractions"]))
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
        assert one.images.tolist() == list(range(IMAGES))
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


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method(net, method):
    found = evaluate(net, methods=(method,), scores=("energy_pointing_game",), images=2)[method]
    assert np.isfinite(found.heat).all()
    assert found.heat.shape == (2, SIDE, SIDE)
    assert found.settings["method"] == method
    assert not set(options.keywords(method)) & {"noise", "stats"} & set(found.settings["options"])


def test_every_score(net):
    """All at once, of the controls, which compile fast."""
    found = evaluate(net, methods=(), scores=tuple(SCORES), images=2)
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
        net, methods=("iba",), reference=others, reference_images=10, images=3, layer="relu1"
    )["iba"]
    chosen = np.stack([net.preprocess(others[i]["image"]) for i in range(0, 20, 2)])
    stats = iba_statistics(net, [chosen], layer="relu1")
    key = jax.random.fold_in(jax.random.key(0), 2)
    number = found.images[1]
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
    found = evaluate(broken, scores=(*ALIGNMENT, "deletion"), images=1)
    gradient = found["gradient"]
    assert gradient.empty == 1
    assert found["center"].empty == 0
    for name in ALIGNMENT:
        assert gradient.scores[name].tolist() == [0]
    assert gradient.scores["background_attribution"].tolist() == [1]
    assert np.isnan(gradient.scores["deletion"]).all()
    row = next(r for r in evaluation.summarize(gradient) if r.score == "deletion")
    assert (row.images, row.left_out) == (0, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ("gradcamm",)}, "method 'gradcamm' is not known .did you mean 'gradcam'"),
        ({"scores": ("pointing",)}, "score 'pointing' is not known.*allowed: best_box_iou, "),
        (
            {"options": {"gradient": {"steps": 3}}},
            "options.gradient 'steps' is not known.*allowed: of",
        ),
        ({"options": {"integrated": {}}}, "options 'integrated' is not known"),
        ({"layer": "layer9"}, "layer must be one of relu1, relu3, relu4; got 'layer9'"),
        ({"layer": "fc"}, "layer must be one of"),
        ({"reduce": "max"}, "reduce 'max' is not known.*allowed: auto, sum"),
        ({"label": "false"}, "label 'false' is not known; allowed: true, predicted, mapped"),
        ({"label": "mapped"}, "networks of ImageNet's 1000 classes; this one has 5"),
        (
            {"region": "class_masks"},
            "region='class_masks', which this data set does not have; it has class_boxes",
        ),
        ({"region": "box"}, "region='box' is not known"),
        ({"scores": ("deletion",), "options": {"deletion": {"window": 40}}}, "window is 40 pixels"),
        (
            {"options": {"occlusion": {"window": 40}}, "methods": ("occlusion",)},
            "window is 40 pixels",
        ),
        ({"images": 5, "memory_gb": 1e-5}, "lower|take fewer images or raise memory_gb"),
        ({"images": -1}, "images must be an integer of at least 0"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"methods": "gradcam"}, r"methods must be several names, as in \('gradcam',\)"),
        ({"scores": "deletion"}, r"scores must be several names, as in \('deletion',\)"),
        ({"options": {"gradcam": 3}}, "options.gradcam must be {option: value}, got 3"),
        (
            {"methods": ("iba",), "reference_images": 1},
            "iba needs at least 2 reference images, got 1",
        ),
        (
            {"scores": ("road",), "options": {"road": {"fractions": (0.0, 0.5)}}},
            "fractions must rise",
        ),
    ],
)
def test_what_cannot_work_is_said_before_any_compile(net, monkeypatch, given, message):
    monkeypatch.setattr("mixaug_jax.evaluation.programs.Task.run", unreachable)
    monkeypatch.setattr("mixaug_jax.evaluation.examples._forward", unreachable)
    with pytest.raises(ValueError, match=message):
        evaluate(net, **given)


def unreachable(*arguments):
    raise AssertionError("computed something")


def test_labels_and_images_that_cannot_be_explained(net):
    images, labels = inputs(net)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.4, got 5"):
        mixaug_jax.attribute(net, images, labels + 1, "gradient")
    with pytest.raises(ValueError, match="labels must be in"):
        mixaug_jax.attribute(net, images, labels - 1, "gradient")
    with pytest.raises(ValueError, match="labels must be integers"):
        mixaug_jax.attribute(net, images, labels[:3], "gradient")
    with pytest.raises(ValueError, match=r"preprocessed, floating point \[N,h,w,C\], got uint8"):
        mixaug_jax.attribute(net, images.astype(np.uint8), labels, "gradient")
    for given, message in (
        ({"chunk": -1}, "chunk must be an integer of at least 0, got -1"),
        ({"memory_gb": -1}, "memory_gb must not be negative, got -1"),
        ({"numbers": [1, 2]}, r"numbers must be integers \[7\], got int64 \[2\]"),
        ({"numbers": np.arange(7.0)}, r"numbers must be integers \[7\], got float64 \[7\]"),
    ):
        with pytest.raises(ValueError, match=message):
            mixaug_jax.attribute(net, images, labels, "gradient", **given)
    with pytest.raises(ValueError, match="memory_gb must not be negative, got -1"):
        evaluate(net, memory_gb=-1)
    with pytest.raises(ValueError, match="there is nothing to explain"):
        evaluate(net, source(0, box_names=NAMES))
    fewer = dataclasses.replace(source(), class_names=NAMES[:3])
    with pytest.raises(ValueError, match="the network has 5 classes and the data set 3"):
        evaluate(net, fewer)
    wrong = dataclasses.replace(source(), read=lambda i: source()[i] | {"label": 7})
    with pytest.raises(
        ValueError, match="image 0 has the label 7; the network's classes go from 0 to 4"
    ):
        evaluate(net, wrong)
    bare = dataclasses.replace(source(), box_names=())
    with pytest.raises(ValueError, match="needs to know where things are"):
        evaluate(net, bare)
    assert evaluate(net, bare, scores=("sparseness",))["gradient"].scores["sparseness"].all()


def test_the_predicted_class(net):
    found = evaluate(net, label="predicted")["gradient"]
    np.testing.assert_array_equal(found.labels, found.predicted)
    own = found.predicted == np.arange(IMAGES) % CLASSES
    own[[2, 3]] = False
    np.testing.assert_array_equal(~np.isnan(found.scores["mass_accuracy"]), own)
    anything = evaluate(net, label="predicted", region="boxes")["gradient"]
    assert np.flatnonzero(np.isnan(anything.scores["mass_accuracy"])).tolist() == [2, 3]


def test_class_activation_maps_are_taken_where_there_are_four_nodes(net):
    layers = job.make_plan(
        net, source(), scores=(), options={}, layer="", reduce="auto", seed=0, images=0, memory_gb=0
    )
    assert layers.cam_layer == "relu3"  # 6 x 6; relu4 has 3 x 3
    assert layers.of_method("gradcam")["layer"] == "relu3"
    assert layers.of_method("iba")["layer"] == ""
    assert dataclasses.replace(layers, layer="relu1").of_method("iba")["layer"] == "relu1"
