"""Networks whose units decide what they are made to decide, images for them, and removals as a plain loop in NumPy."""

import dataclasses
from typing import ClassVar

import numpy as np

from mixaug_jax.data.source import Source
from mixaug_jax.dissection import unit_sets
from mixaug_jax.dissection.removal_result import Detected, Intervention
from mixaug_jax.models import Net
from mixaug_jax.models.layers import StagedModel


class Switches(StagedModel):
    """Layers: pixels (the input itself), mixed (a convolution of it), fc (of the mean of whichever comes before)."""

    layers: ClassVar = ("pixels", "mixed", "fc")

    direct: bool = False  # without the convolution
    classes: int = 3

    def run(self, layer, x, train):
        if layer == "pixels" or (layer == "mixed" and self.direct):
            return x
        if layer == "mixed":
            return self.relu("relu", self.conv("conv", x, 6, 3, 2, bias=True, train=train))
        return self.dense("fc", self.global_average("avgpool", x), self.classes)


def shares(image):
    """uint8 -> 0..1."""
    return image.astype(np.float32) / 255


def drawn(seed=21, classes=3):
    """A network with a convolution, its weights drawn, of which seed 21 knows most of the classes of `noise`."""
    model = Switches(classes=classes)
    draw = np.random.default_rng(seed)
    kernel = draw.normal(size=(3, 3, 3, 6)).astype(np.float32)
    dense = draw.normal(scale=3, size=(6, classes)).astype(np.float32)
    params = {
        "conv": {"kernel": kernel, "bias": draw.normal(size=6).astype(np.float32)},
        "fc": {"kernel": dense, "bias": draw.normal(size=classes).astype(np.float32)},
    }
    return Net(model, {"params": params}, shares)


def made(kernel, bias):
    """A network whose logits are a dense layer of its channels' means, given."""
    kernel, bias = np.asarray(kernel, np.float32), np.asarray(bias, np.float32)
    model = Switches(direct=True, classes=len(bias))
    return Net(model, {"params": {"fc": {"kernel": kernel, "bias": bias}}}, shares)


def noise(images=13, side=8, seed=0, classes=3):
    """Images of noise around a color of their class."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(images) % classes)
    color = draw.integers(60, 200, (classes, 1, 1, 3))
    pixels = color[labels] + draw.normal(0, 50, (images, side, side, 3))
    pixels = pixels.clip(0, 255).astype(np.uint8)

    def read(i):
        return {"image": pixels[i], "label": int(labels[i])}

    return Source(read, images, tuple(f"color {k}" for k in range(classes)))


def switched(images=12, side=8):
    """Class 1 are the images whose channel 0 is lit; channels 1 and 2 are lit in places that say nothing of the class.

    The concept of a pixel is 1 where channel 1 is lit.
    """
    draw = np.random.default_rng(5)
    labels = np.arange(images) % 2
    pixels = np.zeros((images, side, side, 3), np.uint8)
    pixels[..., 0] = 255 * labels[:, None, None]
    pixels[..., 1:] = 255 * (draw.random((images, side, side, 2)) < 0.3)

    def read(i):
        concepts = (pixels[i, ..., 1:2] > 0).astype(np.uint8)
        return {"image": pixels[i], "label": int(labels[i]), "concepts": concepts}

    names = (("none", "none"), ("spot", "part"))
    return Source(read, images, ("dark", "lit"), names)


def loop(net, source, layer, sets, value):
    """predicted [N,S] and loss [N,S], one image and one set at a time, in float64 from the weights alone."""
    params = net.variables["params"]
    predicted, loss = np.zeros((2, len(source), len(sets)))
    for n in range(len(source)):
        example = source[n]
        for s, units in enumerate(sets):
            x = example["image"].astype(np.float64) / 255
            if layer == "pixels":
                x = switch(x, units, value)
            if not net.model.direct:
                x = convolution(x, params["conv"])
            if layer == "mixed":
                x = switch(x, units, value)
            logits = x.mean((0, 1)) @ np.float64(params["fc"]["kernel"]) + params["fc"]["bias"]
            predicted[n, s] = logits.argmax()
            loss[n, s] = np.log(np.exp(logits).sum()) - logits[example["label"]]
    return predicted.astype(int), loss


def switch(x, units, value):
    x = x.copy()
    for u in np.flatnonzero(units):
        x[..., u] = value[u]
    return x


def convolution(x, params):
    """3x3, stride 2, zeros around, with bias and ReLU."""
    height, width, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    kernel = np.float64(params["kernel"])
    out = np.zeros(((height + 1) // 2, (width + 1) // 2, kernel.shape[-1]))
    for i, j in np.ndindex(out.shape[:2]):
        patch = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        out[i, j] = np.einsum("abc,abcd->d", patch, kernel) + params["bias"]
    return np.maximum(out, 0)


def intervention(images=40, kept=0.0, **changed):
    """Four units, two classes, two concepts: unit 0 decides class 0, unit 1 nothing; answers are made up from that.

    kept: the share of the images, the first ones, that stay right without unit 0. changed: fields.
    """
    labels = np.arange(images) % 2
    label, iou = np.array([1, 2, 2, 1]), np.array([0.5, 0.3, 0.01, 0.0])
    sets = unit_sets.join(
        [unit_sets.single(4), unit_sets.detectors(label, iou, 0.04), unit_sets.ranked(4, iou)]
    )
    # Right with all units; without unit 0 class 0 is taken for class 1.
    wrong = sets.units[:, 0] & (np.arange(images) >= kept * images)[:, None]
    predicted = np.where(wrong, 1, labels[:, None]).astype(np.int32)
    shown = np.array([[0, 1.0, 0.2], [0, 0.0, 0.9]])
    zeros = np.zeros(4)
    found = Intervention(
        layer="layer4", class_names=("a", "b"), sets=sets, indices=np.arange(images),
        labels=labels.astype(np.int32), predicted=predicted,
        loss=np.zeros(predicted.shape, np.float32), clean_predicted=labels.astype(np.int32),
        clean_loss=np.zeros(images, np.float32),
        mean=np.random.default_rng(0).random((images, 4), np.float32),
        importance=np.zeros((4, 2)), importance_loss=np.zeros((4, 2)),
        detected=Detected(("none", "x", "y"), label, iou, zeros, zeros, shown), settings={"value": "zero"},
    )  # fmt: skip
    return dataclasses.replace(found, **changed)
