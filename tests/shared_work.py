"""Everything that is computed of single images, which the processes of a job share: what a test compares between jobs."""

import dataclasses
import pathlib
import time

import explain_cases
import jax
import numpy as np
import occlusion_cases
import toy

import mixaug_jax
from mixaug_jax.data.source import Source
from mixaug_jax.explain import examples
from mixaug_jax.explain.regions import Finder
from mixaug_jax.models import Preprocess
from mixaug_jax.occlusion import sweeping
from mixaug_jax.stages import imported_accuracy
from mixaug_jax.training import predictions

METHODS = ("integrated_gradients", "gradcam", "iba")
SCORES = ("pointing_game", "deletion", "sensitivity_n")
IMAGES = 11  # which no number of processes divides


def counted(source, read):
    """A data set that notes which images are read."""

    def noted(index):
        read.append(int(index))
        return source.read(index)

    return dataclasses.replace(source, read=noted)


class Mapped(Finder):
    """Of the first images none shows anything that a class of the network is, so that shares move."""

    def candidates(self, example):
        return [] if example["image"][0, 0, 0] < LEFT_OUT else [3, 1]


LEFT_OUT = 6


def numbered():
    """Images that are their number everywhere."""
    pixels = np.arange(IMAGES, dtype=np.uint8)[:, None, None, None] * np.ones((12, 12, 3), np.uint8)
    return Source(lambda i: {"image": pixels[i], "label": 0}, IMAGES, explain_cases.NAMES)


def explanations(net):
    """{method: its fields}, and what of the images this process has read and holds."""
    reads = []
    data, others = counted(explain_cases.source(IMAGES), reads), explain_cases.source(20, seed=9)
    given = {"methods": METHODS, "scores": SCORES, "devices": None, "reference": others}
    found = explain_cases.evaluate(net, data, **given, reference_images=10)
    reading = examples.Reading(label="mapped", batch_size=2, threads=1)
    mapped = examples.load_examples(net, numbered(), Mapped("boxes"), reading)
    held = {"reads": sorted({*reads}), "images": mapped.images}
    mapped = dataclasses.asdict(mapped) | {"checksum": mapped.checksum}
    del mapped["images"]
    return {name: dataclasses.asdict(result) for name, result in found.items()}, mapped, held


def occlusion():
    """A sweep's fields."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (IMAGES, 6, 6, 1)).astype(np.uint8)
    net, _, labels = occlusion_cases.linear((6, 6, 1), images=IMAGES)
    net = dataclasses.replace(net, preprocess=Preprocess(6, mean=(0.5,), std=(0.25,)))
    data = Source(lambda i: {"image": pixels[i], "label": int(labels[i])}, IMAGES, tuple("abcd"))
    grid = occlusion_cases.small(
        rankings=("gradient_x_input", "smoothgrad"), values=("data_mean", "noise"), samples=2
    )
    options = sweeping.Options(grid, labels=("true", "predicted", 2), batch_size=8)
    return dataclasses.asdict(sweeping.sweep(net, data, range(IMAGES), options))


def everything(folder):
    """What this process gets of all images, which is to be the same in every process of every job; and what it did for that."""
    began = time.process_time()
    net = explain_cases.small_net()
    net = dataclasses.replace(net, variables=jax.device_get(net.variables))
    results, mapped, held = explanations(net)
    swept = occlusion()
    images, labels = explain_cases.inputs(net)
    maps = mixaug_jax.attribute(net, images, labels, "gradient")
    right = imported_accuracy.hits(net, numbered(), 2)
    # In its last step some processes have no rows.
    config = toy.config()
    config.eval.batch_size, data = 4, explain_cases.source(IMAGES)
    said = dataclasses.asdict(predictions.keep(pathlib.Path(folder), net, data, config, "test"))
    every = {"explain": results, "mapped": mapped, "swept": swept, "maps": maps, "right": right}
    return every | {"predictions": said}, held | {"seconds": time.process_time() - began}
