"""What the tests of methods and scores on many images share: a small network, noise with boxes, quick settings."""

import functools

import attribution_cases
import jax
import numpy as np

import mixaug_jax
from mixaug_jax.attribution import METHODS
from mixaug_jax.data.source import Source
from mixaug_jax.explain import job

SIDE, CLASSES, IMAGES = 12, 5, 7
NAMES = tuple(f"class {k}" for k in range(CLASSES))
# Small enough for 12 x 12 pixels, and few.
SMALL = {
    "blur_ig": {"steps": 3},
    "guided_ig": {"steps": 3},
    "idgi": {"steps": 3},
    "split_ig": {"steps": 4},
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


def small_net():
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


OF_THE_CALL = ("methods", "scores", "reference", "devices")  # the others belong to the options


def evaluate(net, dataset=None, **given):
    wanted = {"methods": ("gradient",), "scores": ALIGNMENT, "devices": jax.devices()[:1]}
    wanted |= {name: value for name, value in given.items() if name in OF_THE_CALL}
    chosen = {name: value for name, value in given.items() if name not in OF_THE_CALL}
    dataset = source() if dataset is None else dataset
    options = job.Options(**{"entries": SMALL} | chosen)
    return mixaug_jax.evaluate(net, dataset, **wanted, options=options)


def inputs(net):
    images = np.stack([net.preprocess(source()[i]["image"]) for i in range(IMAGES)])
    return images, np.arange(IMAGES) % CLASSES


def direct(net, method, **given):
    """The pure function on each image alone."""
    images, labels = inputs(net)
    f = jax.jit(functools.partial(METHODS[method], **given))
    return np.stack([f(net, x, k) for x, k in zip(images, labels, strict=True)])


def unreachable(*arguments):
    raise AssertionError("computed something")
