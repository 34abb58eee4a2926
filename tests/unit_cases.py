"""A layer of many units that looks like a dissected one, without a network; its pictures, and what these are of."""

import dataclasses

import numpy as np
import PIL.Image
import planted

from mixaug_jax.data.source import Source
from mixaug_jax.dissection import concepts, unit_sets
from mixaug_jax.dissection.activations import Largest
from mixaug_jax.dissection.counting import Tally
from mixaug_jax.dissection.formulas import Composed
from mixaug_jax.dissection.measuring import top_images
from mixaug_jax.dissection.removal_result import Detected, Intervention
from mixaug_jax.dissection.result import Dissection, Options
from mixaug_jax.draw import unit_pictures

SMALL = Options(random_baseline=False, shuffles=0)
FORMS = Composed(
    units=np.array([1, 2]),
    concepts=np.array([[2, 1, 0], [1, 3, 4]]),
    operators=np.array([[3, 0], [1, 2]]),
    iou=np.array([[0.2, 0.3125, 0.3125], [0.02, 0.03, 0.04]]),
    null=np.array([[[0.02, 0.04, 0.05], [0.01, 0.02, 0.03]]]),
)


def dissected(units, images=40, *, layer="layer4", names=planted.NAMES, side=16):
    """(Dissection, its label maps): smooth noise; unit 0 is dead, unit 1 the best of all."""
    draw = np.random.default_rng(units)
    maps = draw.standard_normal((images, 4, 4, units)).astype(np.float32)
    concept = np.bincount(draw.integers(1, len(names), 1000), minlength=len(names))
    area = draw.integers(50, 200, units)
    shared = draw.integers(1, 40, (units, len(names)))
    shared[:, 0], shared[1, 2], area[1] = 0, 150, 160
    area[0], shared[0] = 0, 0
    vocabulary = concepts.Vocabulary(tuple(names))
    groups = len(vocabulary.categories)
    tally = Tally(shared, area, np.repeat(area[:, None], groups, 1), concept, vocabulary.category)
    counts = np.zeros((2, 2, len(SMALL.iou), groups), int)
    indices = np.arange(images)
    shape = {"shape": [side, side]}
    result = Dissection(
        layer=layer, names=tuple(names), threshold=np.full(units, 1.5, np.float32), tally=tally,
        counts=counts, null=counts[None][:0], random=counts - 1, halves=counts[None][:0],
        indices=indices, settings={"options": dataclasses.asdict(SMALL), "labels": shape},
        **top_images(maps, Largest.none(units).with_images(maps.max((1, 2)), 0), indices),
    )  # fmt: skip
    coarse = draw.integers(0, len(names), (images, 4, 4, 1), np.uint8)
    label_maps = coarse.repeat(side // 4, 1).repeat(side // 4, 2)
    return result, concepts.LabelMaps(label_maps, indices, vocabulary, shape)


def removed(result, images=30):
    """What becomes of three classes without each unit of a dissection: without unit 1 the first is lost, without unit 2 a third
    of the second; nothing else changes."""
    units, labels = len(result.threshold), np.arange(images) % 3
    sets = unit_sets.single(units)
    predicted = np.repeat(labels[:, None], units, 1)
    predicted[labels == 0, 1] = 1
    predicted[np.flatnonzero(labels == 1)[::3], 2] = 2
    importance = np.zeros((units, 3))
    importance[1:3] = [[0.5, 0.25, 0], [0, 0.125, 0]]
    mean = np.ones((images, units), np.float32)
    mean[labels == 0, 1], mean[labels != 0, 1] = 3, 1
    return Intervention(
        layer=result.layer, class_names=("ant", "bee", "cow"), sets=sets, indices=np.arange(images),
        labels=labels.astype(np.int32), predicted=predicted.astype(np.int32),
        loss=np.zeros(predicted.shape, np.float32), clean_predicted=labels.astype(np.int32),
        clean_loss=np.zeros(images, np.float32), mean=mean, importance=importance,
        importance_loss=np.zeros((units, 3)),
        detected=Detected((), np.zeros(units, int), *np.zeros((3, units)), np.zeros((3, 0))),
        settings={"value": "zero"},
    )  # fmt: skip


def source(images=40, grain=12.0):
    """Photographs of 96 pixels, as far as noise can be one: smooth colors, with grain."""

    def read(index):
        place = np.random.default_rng(index)
        coarse = PIL.Image.fromarray(place.integers(0, 256, (6, 6, 3), np.uint8))
        smooth = np.asarray(coarse.resize((96, 96), PIL.Image.Resampling.BICUBIC), float)
        noisy = smooth + grain * place.standard_normal((96, 96, 3))
        return {"image": np.clip(noisy, 0, 255).astype(np.uint8), "label": 0}

    return Source(read, images, ("a", "b"))


def layer(units, images=40, **more):
    """(Dissection, UnitPictures); `more` as of `dissected`."""
    result, labels = dissected(units, images, **more)
    made = unit_pictures.make(
        {result.layer: result}, source(images), lambda image: image / 255, labels
    )
    return result, made[result.layer]
