"""What the study measures of a network on images: drawings, roots, convergence, other classes, other weights.

Each measurement is a frozen dataclass `f(net, row) -> {name: array}` of one image; `run` maps it over the images and devices.
What is explained is the class that the network predicts, so that any images will do.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import METHODS, relevance, rules
from mixaug_jax.core import checks, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Array, Attribution, Devices, Image, Label, Net
from mixaug_jax.explain import programs
from mixaug_jax.explain.examples import on_devices
from mixaug_jax.models.probability import class_logits
from mixaug_jax.papers.deep_taylor import convergence, drawing, linear_regions
from mixaug_jax.scores.agreement import ssim
from mixaug_jax.scores.stability import alike, randomized_maps

# How relevance goes back: by the network's own derivatives, those of another ReLU, or a rule in every layer with weights.
WAYS: dict[str, Callable | None] = {
    "gradient": None,
    "guided_backprop": None,
    "epsilon": rules.Epsilon(0.25),
    "gamma": rules.Gamma(0.25),
    "w_squared": rules.WSquared(),
    "z_plus": rules.ZPlus(),
    "z_plus_no_bias": rules.ZPlus(use_bias=False),
}
TARGETS = ("letter", "class")
SSIM_WINDOW = 5


def run(
    work: Callable, net: Net, rows: Mapping, images: int, title: str, devices: Devices = None
) -> dict[str, np.ndarray]:
    """Measures images on all devices of all processes.

    Args:
      work: f(net, row) -> {name: array}, hashable.
      net: the network.
      rows: {name: [n, ...]} of this process's share of the images.
      images: of all processes.
      title: what is said while it goes on.
      devices: default all.

    Returns:
      {name: [images, ...]}, the same in every process.
    """
    devices = walk.chosen(devices)
    task = programs.Task(_program(work, walk.own(devices)), devices, 0, {}, 1)
    found = task.run(on_devices(net, devices), rows, title, images)
    return walk.gather(found, images, devices)


@functools.lru_cache(maxsize=64)
def _program(work, devices):
    def every(net: Net, seed: Any, arrays: Any, rows: dict) -> dict:
        return jax.lax.map(lambda row: work(net, row), rows)

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    return devices_lib.pmap_inference(every, (whole, whole, whole, split), split, devices=devices)


def backward(net: Net, image: Image, way: str) -> Net:
    """The network whose gradients are what a way of explaining sends back.

    Raises:
      ValueError: another way, or a network that it cannot be had of.
    """
    checks.choice("way", way, WAYS)
    rule = WAYS[way]
    if rule is not None:
        return relevance.propagating(net, relevance.assigned(net, image, rule))
    return net.with_rules(act=rules.guided_act) if way == "guided_backprop" else net


def explanation(net: Net, image: Image, label: Label, way: str) -> Attribution:
    """A way's map of one class, [h,w,C]."""
    rule = WAYS[way]
    if rule is None:
        return METHODS[way](net, image, label)
    return relevance.propagate(net, image, label, relevance.assigned(net, image, rule))


def predicted(net: Net, image: Image) -> Array:
    """The class with the largest logit."""
    return class_logits(net.logits(image[None]))[0].argmax()


def other_class(net: Net, image: Image, label: Label, key: Array) -> Array:
    """A random one of the other classes."""
    classes = class_logits(net.logits(image[None])).shape[-1]
    return (label + jax.random.randint(key, (), 1, classes)) % classes


def refusal(net: Net, image: Image) -> str:
    """Why the study cannot be made of a network, in one sentence; "" where it can."""
    try:
        for way in WAYS:
            jax.eval_shape(functools.partial(backward, way=way), net, image)
        jax.eval_shape(lambda net, image: linear_regions.recorded(net, image)[0], net, image)
    except ValueError as error:
        return str(error)
    return ""


def layers_before_relus(net: Net, image: Image) -> tuple[str, ...]:
    """The layers after which another ReLU comes; computes nothing."""
    found = []
    for layer in net.layers[:-1]:
        seen = []

        def trace(image: Array, layer: str = layer, seen: list = seen) -> Array:
            h = net.features(image[None], layer)[0]
            logits, recorder = linear_regions.recorded(net, h, layer)
            seen.append(len(recorder.sums))
            return logits

        jax.eval_shape(trace, image)
        found += [layer] if seen[-1] else []
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Units:
    """`linear_regions.check_units` of one layer."""

    layer: str
    rules: tuple[str, ...]
    units: int = 200
    gamma: float = 1.0
    seed: int = 0

    def __call__(self, net: Net, row: dict) -> dict:
        image, key = row["image"], jax.random.fold_in(jax.random.key(self.seed), row["index"])
        roots = linear_regions.Roots(self.layer, self.rules, self.units, self.gamma)
        return linear_regions.check_units(net, image, predicted(net, image), key, roots)


@dataclasses.dataclass(frozen=True)
class Convergence:
    """|cosine| of random relevances that start at some layers, there and at every layer below: "cosine/START/LAYER" and
    "counts/START/LAYER" [pairs,positions]."""

    way: str
    starts: tuple[str, ...]
    draws: int = 5
    seed: int = 0

    def __call__(self, net: Net, row: dict) -> dict:
        image, key = row["image"], jax.random.fold_in(jax.random.key(self.seed), row["index"])
        ruled = backward(net, image, self.way)
        last = max(net.layers.index(start) for start in self.starts)
        way_down = net.layers[last::-1]
        outputs = net.capture(image[None], way_down)
        relevance, going, found = None, [], {}
        for k, layer in enumerate(way_down):
            if going:  # all that have started go down together, through one program
                relevance = self._down(ruled, outputs[layer], layer, way_down[k - 1], relevance)
            if layer in self.starts:
                draw = jax.random.normal(
                    jax.random.fold_in(key, k), (self.draws, *outputs[layer].shape[1:])
                )
                relevance = draw if relevance is None else jnp.concatenate([relevance, draw])
                going.append(layer)
            for start, part in zip(going, jnp.split(relevance, len(going)), strict=True):
                cosine, counts = convergence.similarities(part, single=False)
                flat = (len(cosine), -1)  # what has no positions has one
                found[f"cosine/{start}/{layer}"] = cosine.reshape(flat)
                found[f"counts/{start}/{layer}"] = counts.reshape(flat)
        return found

    def _down(self, net, h, lower, upper, relevance):
        down = jax.vjp(lambda h: net.between(h, lower, upper)[0], h)[1]
        below = jax.lax.map(lambda r: down(r)[0][0], relevance)
        # Each scaled, since sums over many paths leave float32; cosines have no scale.
        axes = tuple(range(1, below.ndim))
        return below / jnp.maximum(jnp.abs(below).max(axes, keepdims=True), 1e-30)


@dataclasses.dataclass(frozen=True)
class Classes:
    """Maps of two classes by every way, [ways,2,h,w], channels summed; their |cosine| and structural similarity [ways]."""

    ways: tuple[str, ...] = tuple(WAYS)
    seed: int = 0

    def __call__(self, net: Net, row: dict) -> dict:
        image, key = row["image"], jax.random.fold_in(jax.random.key(self.seed), row["index"])
        label = predicted(net, image)
        labels = jnp.stack([label, other_class(net, image, label, key)])
        # One label after the other: depthwise convolutions cannot be transposed for several at one image.
        maps = [
            jax.lax.map(lambda k, way=way: explanation(net, image, k, way).sum(-1), labels)
            for way in self.ways
        ]
        maps = jnp.stack(maps)
        return {"maps": maps, "labels": labels} | jax.vmap(_alike)(maps)


def _alike(pair):
    first, second = (m / jnp.maximum(jnp.abs(m).max(), 1e-30) for m in pair)
    product = jnp.linalg.norm(first) * jnp.linalg.norm(second)
    cosine = jnp.abs((first * second).sum()) / jnp.where(product > 0, product, 1)
    signs = [ssim(first, sign * second, window=SSIM_WINDOW) for sign in (1, -1)]
    return {"cosine": cosine, "ssim": jnp.maximum(*signs)}


@dataclasses.dataclass(frozen=True)
class Weights:
    """How alike a way's map stays as layers get random weights, from the logits down: spearman and ssim [layers]."""

    way: str
    seed: int = 0

    def __call__(self, net: Net, row: dict) -> dict:
        image = row["image"]
        explain = functools.partial(explanation, way=self.way)
        trained, again = randomized_maps(explain, net, image, predicted(net, image), key=self.seed)
        return {
            measure: jax.vmap(lambda m, measure=measure: alike(trained, m, measure))(again)
            for measure in ("spearman", "ssim")
        }


@dataclasses.dataclass(frozen=True)
class Draw:
    """A picture as an explanation: in closed form, and by mild slopes of the roots of a whole layer."""

    layer: str
    target: str = "letter"
    seed: int = 0

    def __call__(self, net: Net, row: dict) -> dict:
        image, key = row["image"], jax.random.fold_in(jax.random.key(self.seed), row["index"])
        label = predicted(net, image)
        parts = drawing.Parts(
            lambda x: net.features(x[None], self.layer)[0],
            lambda h: net.logits(h[None], layer=self.layer, value=h[None])[0, label],
        )
        if self.target == "letter":
            picture = jnp.asarray(drawing.letter(*image.shape[:2]))[..., None]
        else:
            other = other_class(net, image, label, key)
            picture = jnp.abs(METHODS["gradient"](net, image, other) * image).sum(-1, keepdims=True)
        picture = jnp.broadcast_to(picture, image.shape)
        root = linear_regions.nearby(net, image, label, key)
        drawn = drawing.draw(parts, image, root, picture)
        inside = linear_regions.same_function(net, parts.inner(image), self.layer)
        place = drawing.Place(image, root, inside)
        # One after the other: each trains a network of its own, over the whole layer.
        mild = jax.lax.map(
            lambda penalty: drawing.draw_mildly(parts, place, picture, key, penalty),
            jnp.array(drawing.PENALTIES),
        )
        return {
            "image": image,
            "distance": jnp.abs(image - root).max(),
            # Kept as evidence: without it the drawings would be explanations from somewhere else.
            "same": linear_regions.same_function(net, image)(root),
            **{name: getattr(drawn, name) for name in drawn._fields},
            **{f"mild/{name}": getattr(mild, name) for name in mild._fields},
        }
