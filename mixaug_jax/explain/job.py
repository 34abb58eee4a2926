"""How methods are run and scored: what a user chose, and what follows from the network and the memory."""

import dataclasses
import json
import types
from collections.abc import Mapping

import jax
import numpy as np

from mixaug_jax.attribution import METHODS, rules
from mixaug_jax.attribution.target import map_layer, map_layers
from mixaug_jax.core import checks, walk
from mixaug_jax.core.files import checksum
from mixaug_jax.explain import memory
from mixaug_jax.explain import options as options_lib
from mixaug_jax.explain.options import CONTROLS, keywords
from mixaug_jax.scores import SCORES

NO_OPTIONS = types.MappingProxyType({})
_HIT = 15 / 224  # TorchRay's tolerance of the pointing game, as a share of the input's side
_NODES = 4  # along a side of the map that a class activation map is made of


@dataclasses.dataclass(frozen=True)
class Plan:
    """How methods are run and scored.

    Attributes:
      scores: names in SCORES.
      options: {method or score: {option: value}}; what is not there has the function's default. The pointing game's tolerance
        is TorchRay's 15 pixels in proportion to an input of 224, where it is not given or 0.
      layer: of the network, for all methods that look at one; "" leaves it to `cam_layer`, and to the bottleneck itself.
      cam_layer: for the class activation maps where `layer` is "".
      reduce: how channels become one map, one of `attribution.REDUCTIONS`, or "auto", see `options.reduction`.
      seed: of all draws. A method draws for every image anew, a score the same for all.
      at_once: evaluations of the network in memory at once, on each device; no result depends on it.
    """

    scores: tuple[str, ...]
    options: Mapping = dataclasses.field(default_factory=dict)
    layer: str = ""
    cam_layer: str = ""
    reduce: str = "auto"
    seed: int = 0
    at_once: int = memory.MOST

    def __post_init__(self):
        checks.choices("scores", self.scores, SCORES)
        options_lib.check_options(self.options)
        checks.choice("reduce", self.reduce, options_lib.REDUCES)

    def of_method(self, method: str) -> dict:
        """The options of a method."""
        given = {"key": self.seed, **self.options.get(method, {})}
        if "layer" in keywords(method) and not given.get("layer"):
            given["layer"] = self.layer or ("" if method == "iba" else self.cam_layer)
        return given

    def of_score(self, score: str, shape) -> dict:
        """The options of a score on images [h,w,C]."""
        given = {"key": self.seed, **self.options.get(score, {})}
        if score == "pointing_game" and not given.get("tolerance"):
            given["tolerance"] = max(1, round(_HIT * min(shape[:2])))
        return given


def make_plan(
    net, dataset, *, scores, options, layer, reduce, seed, max_images: int, memory_gb: float
) -> Plan:
    """The plan for a network on at most `max_images` images of a data set; see `Plan` and `memory.at_once`.

    Class activation maps are taken from the last layer whose map has 4 x 4 nodes or more: a ResNet's layer4 at 224 pixels, but
    layer3 at 64, where layer4 has 2 x 2 and points nowhere.

    Raises:
      ValueError: an unknown name, a layer that the network does not have or that gives no map, more images than fit.
    """
    if not len(dataset):
        raise ValueError("the data set has no images: there is nothing to explain")
    image = np.asarray(net.preprocess(dataset[0]["image"]))
    maps = map_layers(net, image)
    if layer:
        map_layer(net, image, layer, 1)  # says a wrong name
    fine = [name for name in maps if min(features_shape(net, image[None], name)[:2]) >= _NODES]
    held = _held_bytes(len(walk.spread(len(dataset), max_images)), image.shape)
    return Plan(
        scores=scores,
        options=options,
        layer=layer,
        cam_layer=(fine or maps or ("",))[-1],
        reduce=reduce,
        seed=seed,
        at_once=memory.at_once(net, image.shape, memory_gb, held),
    )


def features_shape(net, images, layer) -> tuple[int, ...]:
    """[h,w,K] of what a layer makes of images [B,h,w,C]; computes nothing."""
    return jax.eval_shape(lambda net, x: net.features(x, layer), net, images).shape[1:]


def _held_bytes(images, shape):
    """Of the images [h,w,C], their attributions, maps and masks."""
    height, width, channels = shape
    return images * height * width * (4 * (2 * channels + 1) + 1)


def with_controls(methods) -> tuple[str, ...]:
    """The methods, each once, then the controls.

    Raises:
      ValueError: an unknown method.
    """
    checks.choices("methods", methods, METHODS)
    return tuple(dict.fromkeys(m for m in methods if m not in CONTROLS)) + CONTROLS


def needs_reference(method: str) -> bool:
    """Whether a method looks at other images than the one it explains."""
    return bool({"baselines", "stats"} & keywords(method).keys())


def settings_of(net, examples, method: str, plan: Plan, reference=(), extra=NO_OPTIONS) -> dict:
    """All that decides a result, as JSON has it; arrays and weights by their checksums."""
    shape = examples.images.shape[1:]
    used = {"reference": checksum(reference)} if needs_reference(method) else {}
    settings = {
        "method": method,
        "options": {**options_lib.options(method), **plan.of_method(method)},
        "reduce": options_lib.reduction(method, plan.reduce),
        "scores": {s: {**options_lib.options(s), **plan.of_score(s, shape)} for s in plan.scores},
        "model": type(net.model).__name__,
        "weights": checksum(net.variables),
        "view": repr(net.preprocess),
        "examples": examples.checksum,
        "images": len(examples),
        "unlabeled": examples.unlabeled,
        "region": examples.region,
        "precision": jax.config.jax_default_matmul_precision or "default",
        **used,
        **extra,
    }
    return json.loads(json.dumps(settings, default=_as_json))


def _as_json(option):
    """A rule of relevance propagation as its text; an array, which would be long, as its checksum."""
    return repr(option) if isinstance(option, rules.Rule) else checksum(option)
