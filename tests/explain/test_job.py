"""What methods and scores are run with, and what of a user's choice cannot work."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import NAMES, evaluate, inputs, small_net, source, unreachable

import mixaug_jax
from mixaug_jax.attribution import Method
from mixaug_jax.explain import job
from mixaug_jax.scores import Score


@pytest.fixture(scope="module")
def net():
    return small_net()


def test_a_layer_is_for_the_methods_that_look_at_one(net):
    made = job.make_job(net, source(), ("gradcam", "iba", "gradient"), (), job.Options())
    assert not any("layer" in made.of_method(name) for name in made.methods)
    chosen = job.Options(layer="relu1", entries={"iba": {"layer": "relu4"}})
    made = job.make_job(net, source(), ("gradcam", "iba", "gradient"), (), chosen)
    assert made.of_method("gradcam")["layer"] == "relu1"
    assert made.of_method("iba")["layer"] == "relu4"
    assert "layer" not in made.of_method("gradient")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"methods": ("gradcamm",)},
            "methods must be one of .*; got 'gradcamm' .did you mean 'gradcam'",
        ),
        ({"scores": ("pointing",)}, "scores must be one of best_box_iou, .*; got 'pointing'"),
        (
            {"entries": {"gradient": {"steps": 3}}},
            "options.gradient must be one of output; got 'steps'",
        ),
        ({"entries": {"integrated": {}}}, "options must be one of .*; got 'integrated'"),
        ({"layer": "layer9"}, "layer must be one of relu1, relu3, relu4; got 'layer9'"),
        ({"layer": "fc"}, "layer must be one of"),
        ({"reduce": "max"}, "reduce must be one of auto, sum, .*; got 'max'"),
        ({"label": "false"}, "label must be one of true, predicted, mapped; got 'false'"),
        ({"label": "mapped"}, "networks of ImageNet's 1000 classes; this one has 5"),
        (
            {"region": "class_masks"},
            "region='class_masks', which this data set does not have; it has class_boxes",
        ),
        ({"region": "box"}, "region must be one of auto, .*; got 'box'"),
        (
            {"entries": {"deletion": {"window": 40}}, "scores": ("deletion",)},
            "window must not be longer than the image's side of 12 pixels; got 40",
        ),
        (
            {"entries": {"occlusion": {"window": 40}}, "methods": ("occlusion",)},
            "window must not be longer than the image's side of 12 pixels; got 40",
        ),
        ({"max_images": 5, "memory_gb": 1e-5}, "lower|take fewer images or raise memory_gb"),
        ({"max_images": -1}, "max_images must be an integer of at least 0"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"methods": "gradcam"}, r"methods must be several, as in \('gradcam',\); got 'gradcam'"),
        ({"scores": "deletion"}, r"scores must be several, as in \('deletion',\); got 'deletion'"),
        ({"entries": {"gradcam": 3}}, "options.gradcam must be {option: value}; got 3"),
        (
            {"methods": ("iba",), "reference_images": 1},
            "iba needs at least 2 reference images; got 1",
        ),
        (
            {"scores": ("road",), "entries": {"road": {"fractions": (0.0, 0.5)}}},
            "fractions must rise",
        ),
        # Values of options that only the entry itself knows, of whatever kind it is.
        (
            {"scores": ("road",), "entries": {"road": {"order": "up"}}},
            "order must be one of morf, lerf; got 'up'",
        ),
        (
            {"methods": ("gradcam",), "entries": {"gradcam": {"output": "abc"}}},
            "output must be one of logit, prob, loss; got 'abc'",
        ),
        (
            {"scores": ("best_box_iou",), "entries": {"best_box_iou": {"levels": 1}}},
            "levels must be an integer of at least 2; got 1",
        ),
        (
            {
                "scores": ("class_sensitivity",),
                "entries": {"class_sensitivity": {"measure": "cos"}},
            },
            "measure must be one of .*; got 'cos'",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_work_is_said_before_any_compile(net, monkeypatch, given, message):
    monkeypatch.setattr("mixaug_jax.explain.programs.Task.run", unreachable)
    monkeypatch.setattr("mixaug_jax.explain.examples._forward", unreachable)
    with pytest.raises(ValueError, match=message):
        evaluate(net, **given)


def bright(net, image, label, *, gain=1.0):
    return gain * image


def flat(net, image, label):
    return image.sum(-1)


def whole(heatmap):
    return heatmap


def unknown(heatmap, region):
    return 0.0


def center(net, image, label):
    """Called as a control is."""
    return image


def gradient(heatmap):
    """A score called as a method is."""
    return heatmap.sum()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"methods": (flat,)},
            r"flat gives an array \[12, 12\] for an image \[12, 12, 3\]; a method",
        ),
        ({"scores": (jnp.cumsum,)}, "no known form"),
        (
            {"scores": (whole,)},
            r"whole gives an array \[12, 12\]; a score must give one number, or a",
        ),
        ({"scores": (unknown,)}, r"the score unknown\(heatmap, region\) has no known form"),
        (
            {"scores": (Score(whole, "speed"),)},
            "the kind of the score whole must be one of alignment",
        ),
        ({"methods": (lambda net, image, label: image,)}, "has no name to be stored under"),
        ({"scores": (lambda heatmap: 0,)}, "has no name to be stored under"),
        ({"methods": (center,)}, "methods holds two entries called 'center'"),
        ({"scores": (gradient,)}, "two things of this run are called 'gradient'"),
        ({"methods": (bright, Method(flat)), "scores": ()}, "flat gives an array"),
        (
            {"methods": (bright,), "entries": {"bright": {"gian": 2}}},
            "options.bright must be one of gain; got 'gian' .did you mean 'gain'",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_own_entries_that_cannot_work_are_said_before_any_compile(net, monkeypatch, given, message):
    test_what_cannot_work_is_said_before_any_compile(net, monkeypatch, given, message)


@pytest.mark.usefixtures("unchecked")
def test_labels_and_images_that_cannot_be_explained(net):
    images, labels = inputs(net)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.4; got 5"):
        mixaug_jax.attribute(net, images, labels + 1, "gradient")
    with pytest.raises(ValueError, match="labels must be in"):
        mixaug_jax.attribute(net, images, labels - 1, "gradient")
    with pytest.raises(ValueError, match="labels must be integers"):
        mixaug_jax.attribute(net, images, labels[:3], "gradient")
    with pytest.raises(ValueError, match=r"preprocessed, floating point \[N,h,w,C\]; got uint8"):
        mixaug_jax.attribute(net, images.astype(np.uint8), labels, "gradient")
    for given, message in (
        ({"chunk": -1}, "chunk must be an integer of at least 0; got -1"),
        ({"memory_gb": -1}, "memory_gb must not be negative; got -1"),
        ({"indices": [1, 2]}, r"indices must be integers \[7\]; got int64 \[2\]"),
        ({"indices": np.arange(7.0)}, r"indices must be integers \[7\]; got float64 \[7\]"),
    ):
        with pytest.raises(ValueError, match=message):
            mixaug_jax.attribute(net, images, labels, "gradient", **given)
    with pytest.raises(ValueError, match="memory_gb must not be negative; got -1"):
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
