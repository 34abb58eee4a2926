"""Methods and scores on many images, from a network and a data set.

maps = attribute(net, images, labels, "integrated_gradients")
results = evaluate(net, dataset, methods=("gradcam",), scores=("pointing_game", "deletion"))
results["gradcam"].scores["deletion"].mean(), results["random"].scores["deletion"].mean()
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mixaug_jax.attribution import METHODS, heatmap, iba_statistics
from mixaug_jax.attribution.bottleneck import DEPTH
from mixaug_jax.attribution.target import map_layer
from mixaug_jax.core import checks, entries, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.data.source import numbered_as
from mixaug_jax.explain import caveats, memory, programs, readouts
from mixaug_jax.explain import options as options_lib
from mixaug_jax.explain.evaluation import Evaluation
from mixaug_jax.explain.examples import Examples, finder, load_examples, num_classes, on_devices
from mixaug_jax.explain.job import (
    NO_OPTIONS,
    Job,
    Options,
    features_shape,
    make_job,
    needs_reference,
    reduction,
    settings_of,
)
from mixaug_jax.explain.measured import finished
from mixaug_jax.models.net import count_classes
from mixaug_jax.scores.score import kind_of


def attribute(
    net: Any,
    images: np.ndarray,
    labels: np.ndarray,
    method: str | Callable,
    *,
    options: Mapping[str, Any] = NO_OPTIONS,
    chunk: int = 0,
    memory_gb: float = 2.0,
    indices: np.ndarray | Sequence[int] = (),
    precision: str = "highest",
    devices: Iterable | None = None,
) -> np.ndarray:
    """Attributions of many images by one method, each process of a job computing its share.

    In a job of several processes all of them call it alike, with the same arrays, and all get the attributions of all images.

    Args:
      net: `models.Net`, or anything with its methods.
      images: [N,h,w,C] float32, preprocessed.
      labels: int [N], the classes to explain.
      method: a name in `attribution.METHODS`, or a method of your own.
      options: of the method, arrays too. `key`, a seed, is folded with an image's index, so each image has its own draws.
      chunk: evaluations of the network at once on each device, which decides the memory; 0: as many as memory_gb holds. Results
        do not depend on it, but for rounding.
      memory_gb: a bound in GiB, see `memory.at_once`.
      indices: int [N], of the images in their data set; () is 0..N-1.
      precision: of the network's matrix products, see `devices.precision`.
      devices: default all of all processes.

    Returns:
      float32 [N,h,w,C] or [N,h,w,1], signed; see the method.

    Raises:
      ValueError: an unknown method or option, a readout of other weights, labels out of range, images that are not
        preprocessed, indices that are not one for each image, a negative chunk or memory_gb, an unknown precision.
    """
    # Everything that can be wrong is said before anything is compiled.
    multiplied = devices_lib.precision(precision)
    ((name, entry),) = entries.chosen("method", (method,), METHODS).items()
    options_lib.check_options({name: options}, {name: entry})
    readouts.check(net, {name: options})
    images, labels = np.asarray(images), np.asarray(labels)
    _check_images(net, images, labels)
    # An image's number decides its random draws: part of a data set, explained by itself, gets the maps it has in the whole.
    indices = np.asarray(indices) if np.size(indices) else np.arange(len(images))
    if indices.shape != labels.shape or indices.dtype.kind not in "iu":
        raise ValueError(
            f"indices must be integers [{len(images)}]; got {indices.dtype} {list(indices.shape)}"
        )
    checks.count("chunk", chunk, 0)
    chunk = chunk or memory.at_once(net, images.shape[1:], memory_gb, 2 * images.nbytes)
    devices = walk.chosen(devices)
    own = walk.share(len(images), devices)
    part = slice(own.start, own.stop)
    rows = {"label": labels.astype(np.int32)[part], "index": indices.astype(np.int32)[part]}
    task = programs.method_task(entry, options, chunk, devices)
    with multiplied:
        rows["image"] = images[part]
        found = task.run(on_devices(net, devices), rows, name, len(images))
        return walk.gather(found, len(images), devices)


def _check_images(net, images, labels):
    checks.images(images)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers [{len(images)}]; got {labels.dtype} {list(labels.shape)}"
        )
    classes = count_classes(net, images.shape[1:])
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(f"labels must be in 0..{classes - 1}; got {wrong[0]}")


def evaluate(
    net: Any,
    dataset: Any,
    *,
    methods: Iterable[str | Callable],
    scores: Iterable[str | Callable],
    options: Options = Options(),  # noqa: B008 (it is frozen)
    reference: Any = (),
    devices: Iterable | None = None,
) -> dict[str, Evaluation]:
    """Methods, and the controls beside them, on the images of a data set, each by all scores.

    In a job of several processes all of them call it alike; each reads and explains its share of the images, and all get the
    same results.

    Args:
      net: `models.Net`, or anything with its methods, `model`, `variables` and `preprocess`.
      dataset: examples with image uint8 [H,W,3], label and, for scores of alignment, boxes or concepts, as `data.Source`.
      methods: names in METHODS, or methods of your own; the controls are added.
      scores: names in SCORES, or scores of your own, a function or a `Score`.
      options: see `Options`. A readout bottleneck of your own is `entries={"iba_readout": {"readout": train_readout(...)}}`.
      reference: images that expected_gradients starts from and that iba's statistics are of, such as the training set; () is
        the data set itself. A readout bottleneck that is not given is trained on them, for the predicted class.
      devices: default all of all processes.

    Returns:
      {name: Evaluation}, the controls last.

    Raises:
      ValueError: an unknown name, an option outside its values, a layer that the network does not have, scores of alignment
        where the data set tells no place of anything.
    """
    job = make_job(net, dataset, methods, scores, options)
    return prepare(net, dataset, job, reference, devices).evaluated(net)


class Prepared(NamedTuple):
    """All that `evaluate` looks at, once it is known to fit.

    Attributes:
      dataset: with labels as the network has them.
      job: what is run.
      examples: the images that are explained.
      reference: the images that some methods look at besides.
      devices: on which.
    """

    dataset: Any
    job: Job
    examples: Examples
    reference: Any
    devices: tuple

    def evaluated(self, net: Any) -> dict[str, Evaluation]:
        """What `evaluate` gives of the network that this was prepared for."""
        one = functools.partial(evaluate_method, net, self.examples, devices=self.devices)
        return {name: one(name, self.job, self.reference) for name in self.job.methods}


def prepare(net: Any, dataset: Any, job: Job, reference: Any, devices: Iterable | None) -> Prepared:
    """Checks, traces and reads what `evaluate` of the same arguments needs; explains nothing."""
    options = job.options
    readouts.check(net, options.entries)
    devices = walk.chosen(devices)
    dataset = numbered_as(dataset, num_classes(net, dataset))
    find = finder(net, dataset, options.label, options.region)
    others: Any = ()
    if any(map(needs_reference, job.methods.values())):
        others = load_reference(net, reference or dataset, options, devices)
    check(net, dataset, find, job, others, devices=devices)
    with devices_lib.precision(options.precision):
        examples = load_examples(net, dataset, find, job.reading, devices=devices)
    return Prepared(dataset, job, examples, others, devices)


def load_reference(
    net: Any, dataset: Any, options: Options, devices: Iterable | None = None
) -> np.ndarray:
    """Preprocessed images [n,h,w,C], spread evenly over a data set; each process of a job reads its share."""

    def read(index: Any):
        return np.asarray(net.preprocess(dataset[int(index)]["image"]))

    chosen, devices = walk.spread(len(dataset), options.reference_images), walk.chosen(devices)
    own = walk.share(len(chosen), devices)
    images = list(walk.read_ahead(read, chosen[own.start : own.stop], options.threads))
    images = np.stack(images) if images else read(chosen[0])[None][:0]
    return walk.gather(images, len(chosen), devices)


def check(
    net: Any, dataset: Any, find: Any, job: Job, reference: Any = (), *, devices: Any = None
) -> None:
    """Traces everything that a job runs on a data set; compiles and computes nothing.

    Args:
      net, dataset, job, reference, devices: as in `evaluate` and `evaluate_method`; the network's variables may be shapes.
      find: how regions are found, from `examples.finder`.

    Raises:
      ValueError: what a method or a score cannot do on these images with these options.
    """
    if not find.kind:
        for name, score in job.scores.items():
            if kind_of(score) == "alignment":
                raise ValueError(
                    f"{name} needs to know where things are, and the data set has no boxes and no "
                    "concepts of the category object"
                )
    total = len(walk.spread(len(dataset), job.options.max_images))
    devices, row = walk.chosen(devices), _row_shapes(net.preprocess(dataset[0]["image"]).shape)
    with devices_lib.precision(job.options.precision):
        _map_task(job, devices).check(net, {name: row[name] for name in _SEEN}, total)
        for name in _of_net(job):
            _net_task(name, job, devices).check(net, _asked(row, job.scores[name]), total)
    for name in job.methods:
        check_method(net, dataset, name, job, reference, devices=devices)


def check_method(
    net: Any, dataset: Any, name: str, job: Job, reference: Any = (), *, devices: Any = None
) -> None:
    """Traces one method of a job and the scores that ask for explanations; see `check`.

    Raises:
      checks.UnsupportedError: the network cannot be explained so.
      ValueError: options that do not fit.
    """
    method, total = job.methods[name], len(walk.spread(len(dataset), job.options.max_images))
    devices, row = walk.chosen(devices), _row_shapes(net.preprocess(dataset[0]["image"]).shape)
    of_image = {k: row[k] for k in ("image", "label", "index")}
    # iba draws its noise from the spread of features, and one image has none.
    if "stats" in entries.keywords(method) and len(reference) < 2:
        raise ValueError(f"{name} needs at least 2 reference images; got {len(reference)}")
    given = job.of_method(name) | of_reference(net, name, job, reference, False)
    with devices_lib.precision(job.options.precision):
        programs.method_task(method, given, job.at_once, devices).check(net, of_image, total)
        for score in _of_explanation(job):
            _explain_task(score, name, given, job, devices).check(net, of_image, total)


_SEEN = ("heatmap", "attribution", "mask")  # what scores of a map alone may look at


def _row_shapes(shape):
    """Shapes of what an image [h,w,C] brings to methods and scores."""
    number, size = jax.ShapeDtypeStruct((), np.int32), shape[:2]
    heat = jax.ShapeDtypeStruct(size, np.float32)
    row = {"heatmap": heat, "attribution": jax.ShapeDtypeStruct(shape, np.float32)}
    row |= {"image": row["attribution"], "mask": jax.ShapeDtypeStruct(size, bool)}
    return row | {"label": number, "index": number}


def evaluate_method(
    net: Any,
    examples: Examples,
    name: str,
    job: Job,
    reference: Any = (),
    *,
    devices: Iterable | None = None,
) -> Evaluation:
    """One method on images, by all scores; each process of a job computes its share, and gets the rows of all.

    Args:
      net: the network.
      examples: the images, read for the same devices.
      name: of the method in the job.
      job: how.
      reference: see `evaluate`; needed where `needs_reference`.
      devices: default all of all processes.
    """
    method = job.methods[name]
    settings = settings_of(net, examples, name, job, reference)
    with devices_lib.precision(job.options.precision):
        heat, found, said = _measured(net, examples, name, job, reference, walk.chosen(devices))
    return Evaluation(
        heat,
        examples.indices,
        examples.labels,
        examples.predicted,
        *finished(found, examples, job),
        # What a page says of the method stands in the result, so that no code of the run is needed to show it.
        entries={
            "kind": _kind(method),
            "title": entries.title_of(method),
            "scores": job.facts(),
            **said,
        },
        settings=settings,
    )


def _measured(net, examples, name, job, reference, devices):
    """Heat maps [N,h,w] of a method, {score: what it measures of each image}, and what else is to be known of the maps."""
    net, method, total = on_devices(net, devices), job.methods[name], len(examples)
    of_image = examples.own(devices)
    mask = of_image.pop("mask")
    # The maps first; every score looks at these or asks for more explanations.
    given = job.of_method(name) | of_reference(net, name, job, reference, True)
    raw = programs.method_task(method, given, job.at_once, devices).run(net, of_image, name, total)
    heat = np.asarray(heatmap(raw, reduction(method, job.options.reduce)))
    seen = {"heatmap": heat, "attribution": raw, "mask": mask}
    said = {}
    if getattr(method, "complete", False):
        said["missing"] = caveats.missing(net, name, job, examples, raw, devices)
    found = _map_task(job, devices).run(net, seen, f"{name}, scores of its maps", total)
    for score in _of_net(job):
        rows = _asked({**seen, **of_image}, job.scores[score])
        found[score] = _net_task(score, job, devices).run(net, rows, f"{name}, {score}", total)
    if getattr(method, "cam", False):
        said["ties"] = caveats.tie_spreads(net, job, examples, heat, found, devices)
    for score in _of_explanation(job):
        task = _explain_task(score, name, given, job, devices)
        found[score] = task.run(net, of_image, f"{name}, {score}", total)
    return *walk.gather((heat, found), total, devices), said


def _kind(method):
    return "control" if getattr(method, "control", False) else "method"


def _map_task(job, devices):
    scores = {
        name: (score, job.of_score(name))
        for name, score in job.scores.items()
        if set(entries.arguments(score)) <= set(_SEEN)
    }
    return programs.map_task(scores, job.at_once, devices)


def _of_net(job):
    """The scores of a map and of what it explains: the network, the image or the label."""
    asked = {name: {*entries.arguments(score)} for name, score in job.scores.items()}
    return [n for n, names in asked.items() if "explain" not in names and names - {*_SEEN}]


def _of_explanation(job):
    """The scores that ask for explanations of changed images or networks."""
    return [name for name, s in job.scores.items() if "explain" in entries.arguments(s)]


def _asked(rows, score):
    """Of the rows those that a score looks at."""
    return {k: v for k, v in rows.items() if k in entries.arguments(score)}


def _net_task(name, job, devices):
    return programs.net_task(job.scores[name], job.of_score(name), job.at_once, devices)


def _explain_task(score, name, given, job, devices):
    record, told = job.scores[score], job.of_score(score)
    return programs.explain_task(record, told, job.methods[name], given, job.at_once, devices)


def of_reference(net: Any, name: str, job: Job, reference: Any, compute: bool) -> dict[str, Any]:
    """The options of a job's method that come from the reference images; their shapes alone unless `compute`."""
    keywords = entries.keywords(job.methods[name])
    if "baselines" in keywords:
        return {"baselines": np.asarray(reference)}
    if "readout" in keywords:
        return readouts.filled_in(net, job.of_method(name), reference, compute)
    if "stats" not in keywords or "stats" in job.of_method(name):
        return {}
    given = {k: v for k, v in job.of_method(name).items() if k in ("layer", "variant")}
    if compute:
        size = job.at_once
        batches = (reference[k : k + size] for k in range(0, len(reference), size))
        # On one device of each process: a pass over the references is little beside iba's own, and alike to the bit.
        alone = dataclasses.replace(net, variables=jax.device_get(net.variables))
        return {"stats": iba_statistics(alone, batches, **given)}
    layer = map_layer(net, reference[0], given.get("layer", ""), DEPTH)
    shape = features_shape(net, reference[:1], layer)
    # A trace needs shapes alone; the values would cost a pass over all references.
    return {"stats": (np.zeros(shape, np.float32),) * 3}
