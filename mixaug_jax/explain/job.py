"""How methods are run and scored: what a user chose, and what follows from the network and the memory."""

import dataclasses
import json
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from mixaug_jax import attribution
from mixaug_jax.attribution import rules
from mixaug_jax.attribution.target import map_layer
from mixaug_jax.core import checks, entries, walk
from mixaug_jax.core.devices import PRECISIONS
from mixaug_jax.core.files import checksum
from mixaug_jax.explain import memory
from mixaug_jax.explain import options as options_lib
from mixaug_jax.explain.examples import Reading
from mixaug_jax.scores import SCORES
from mixaug_jax.scores.score import Score, as_score, facts, kind_of

NO_OPTIONS: Mapping = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Options:
    """How methods are run and scored.

    Attributes:
      entries: {method or score: {option: value}}; what is not there has the function's default.
      max_images: at most so many, spread evenly over the data set; 0: all.
      label, region: what is explained and where it is, see `examples.load_examples` and `regions.finder`.
      layer: of the network, for all methods that look at one; "" leaves it to the method.
      reduce: how channels become one map, one of `attribution.REDUCTIONS`; "auto": as suits the method.
      seed: of all draws. A method draws for every image anew, a score the same for all.
      reference_images: at most so many of the other images that some methods look at.
      precision: of the networks' matrix products, see `devices.precision`.
      memory_gb: a bound in GiB, see `memory.at_once`; no result depends on it.
      threads: that read images.
    """

    entries: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    max_images: int = 0
    label: str = "true"
    region: str = "auto"
    layer: str = ""
    reduce: str = "auto"
    seed: int = 0
    reference_images: int = 100
    precision: str = "highest"
    memory_gb: float = 2.0
    threads: int = 4

    def __post_init__(self):
        checks.choice("reduce", self.reduce, options_lib.REDUCES)
        checks.choice("precision", self.precision, PRECISIONS)
        for name in ("max_images", "seed", "reference_images"):
            checks.count(name, getattr(self, name), 0)


@dataclasses.dataclass(frozen=True)
class Job:
    """Methods and scores, and how they are run on the images of one data set.

    Attributes:
      methods: {name: method}, the controls last.
      scores: {name: record}.
      options: what the user chose.
      at_once: evaluations of the network in memory at once, on each device.
      extra: what else belongs to the settings of its results.
    """

    methods: Mapping[str, Callable]
    scores: Mapping[str, Score]
    options: Options
    at_once: int = memory.MOST
    extra: Mapping = dataclasses.field(default_factory=dict)

    @property
    def reading(self) -> Reading:
        """Which images are read, and how."""
        o = self.options
        return Reading(o.max_images, o.label, self.at_once, o.threads)

    def of_method(self, name: str) -> dict[str, Any]:
        """The options that a method is called with."""
        keywords = entries.keywords(self.methods[name])
        given = {"key": self.options.seed, **self.options.entries.get(name, {})}
        if "layer" in keywords and self.options.layer and not given.get("layer"):
            given["layer"] = self.options.layer
        return given

    def of_score(self, name: str) -> dict[str, Any]:
        """The options that a score is called with."""
        return {"key": self.options.seed, **self.options.entries.get(name, {})}

    def told(self, name: str) -> dict[str, Any]:
        """All options of a score, its defaults and those that were given."""
        return {**entries.options(self.scores[name]), **self.of_score(name)}

    def facts(self) -> dict[str, dict]:
        """What pages and studies need to know of the scores, as JSON has it; see `scores.score.facts`."""
        found: dict[str, dict] = {}
        for name, score in self.scores.items():
            found |= facts(name, score, self.told(name))
        return found


def make_job(
    net: Any, dataset: Any, methods: Iterable, scores: Iterable, options: Options = Options()
) -> Job:  # fmt: skip
    """The job for a network on the images of a data set.

    Args:
      net: the network, its variables may be shapes.
      dataset: as `data.Source`.
      methods, scores: names, or functions and records that a user brings; the controls are added.
      options: what the user chose.

    Raises:
      ValueError: an unknown name, a layer that the network does not have or that gives no map, more images than fit.
    """
    if not len(dataset):
        raise ValueError("the data set has no images: there is nothing to explain")
    methods = with_controls(methods)
    scores = {n: as_score(s) for n, s in entries.chosen("scores", scores, SCORES).items()}
    for score in scores.values():
        kind_of(score)  # says an unknown form
    _check_names(methods, scores)
    options_lib.check_options(options.entries, {**methods, **scores})
    image = np.asarray(net.preprocess(dataset[0]["image"]))
    if options.layer:
        map_layer(net, image, options.layer, 1)  # says a wrong name
    held = _held_bytes(len(walk.spread(len(dataset), options.max_images)), image.shape)
    return Job(methods, scores, options, memory.at_once(net, image.shape, options.memory_gb, held))


def _check_names(methods, scores):
    """Raises ValueError where a method, a score or a part of a score has the name of another."""
    parts = [part for score in scores.values() for part in (*score.also, *score.summaries)]
    names = [*methods, *scores, *parts]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two things of this run are called {name!r}: a method, a score and what a score gives beside itself "
                "each need a name of their own"
            )


def features_shape(net: Any, images: Any, layer: str) -> tuple[int, ...]:
    """[h,w,K] of what a layer makes of images [B,h,w,C]; computes nothing."""
    return jax.eval_shape(lambda net, x: net.features(x, layer), net, images).shape[1:]


def _held_bytes(images, shape):
    """Of the images [h,w,C], their attributions, maps and masks."""
    height, width, channels = shape
    return images * height * width * (4 * (2 * channels + 1) + 1)


def with_controls(methods: Iterable) -> dict[str, Callable]:
    """{name: method} of the methods, each once, then the controls.

    Raises:
      ValueError: an unknown method, or two of one name.
    """
    controls = attribution.control_names()
    entries.chosen("methods", methods, attribution.METHODS)  # says what is wrong with them alone
    found = entries.chosen("methods", (*methods, *controls), attribution.METHODS)
    chosen = {name: method for name, method in found.items() if name not in controls}
    return chosen | {name: found[name] for name in controls}


def needs_reference(method: Callable) -> bool:
    """Whether a method looks at other images than the one it explains."""
    return bool({"baselines", "stats", "readout"} & entries.keywords(method).keys())


def reduction(method: Callable, reduce: str) -> str:
    """How a method's channels become one map: `reduce`, or what suits the method for "auto"."""
    if reduce != "auto":
        return reduce
    return "sum" if getattr(method, "signed", True) else "abs_sum"


def settings_of(net: Any, examples: Any, name: str, job: Job, reference: Any = ()) -> dict:
    """All that decides a result, as JSON has it; arrays and weights by their checksums."""
    method = job.methods[name]
    brought = {n: entries.origin(e) for n, e in {name: method, **job.scores}.items()}
    settings = {
        "method": name,
        "options": {**entries.options(method), **job.of_method(name)},
        "reduce": reduction(method, job.options.reduce),
        "scores": {score: job.told(score) for score in job.scores},
        "model": net.name,
        "weights": checksum(net.variables),
        "view": repr(net.preprocess),
        "examples": examples.checksum,
        "images": len(examples),
        "unlabeled": examples.unlabeled,
        "region": examples.region,
        "precision": job.options.precision,
        "code": {n: origin["sha256"] for n, origin in brought.items() if origin},
        **({"reference": checksum(reference)} if needs_reference(method) else {}),
        **job.extra,
    }
    # As they are read back from a file, so that both can be compared.
    return json.loads(json.dumps(settings, default=_as_json))


def _as_json(option):
    """A rule of relevance propagation as its text; an array, which would be long, as its checksum."""
    return repr(option) if isinstance(option, rules.Rule) else checksum(option)
