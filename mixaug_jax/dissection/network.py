"""Dissecting a network, from images to counts.

results = dissect(net, dataset, ("layer3", "layer4"))
results["layer4"].unique()  # [IoU thresholds, categories]
"""

import dataclasses
import json
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import say, walk
from mixaug_jax.core.files import checksum
from mixaug_jax.dissection import activations as activations_lib
from mixaug_jax.dissection import concepts, counting
from mixaug_jax.dissection import thresholds as thresholds_lib
from mixaug_jax.dissection.activations import Watched
from mixaug_jax.dissection.result import PER, Dissection, Options

_TOP = 5  # images of a unit that are kept


def dissect(
    net,
    dataset,
    layers,
    *,
    q: float = 0.01,
    over: str = "upsampled",
    rule: str = "linear",
    padding: str = "edge",
    restricted: bool = False,
    iou: tuple[float, ...] = (0.03, 0.04, 0.05),
    shuffles: int = 5,
    replicates: int = 20,
    random_baseline: bool = True,
    seed: int = 0,
    size: int = 0,
    max_images: int = 0,
    labels: concepts.LabelMaps | None = None,
    thresholds: dict | None = None,
    folder: str = "",
    cache_gb: float = 4.0,
    batch_size: int = 64,
    threads: int = 4,
    devices=None,
) -> dict[str, Dissection]:
    """Network Dissection (Bau et al., CVPR 2017) of layers of a network, by one forward pass.

    Runs on devices of this process; in a job of several processes, call it in one of them.

    Args:
      net: `models.Net`, or anything with its `model`, `variables`, `preprocess` and `layers`.
      dataset: examples with image uint8 [H, W, 3] and concepts [H, W, K], and `concept_names`, as
        `data.Source`; examples without concepts are left out.
      layers: names of layers; each unit is a channel of the layer's output.
      q, over, rule, padding, restricted, iou, shuffles, replicates, seed: see `Options`.
      random_baseline: also count a network of the same architecture with random weights.
      size: side of the label maps [pixels]; 0: the input's, or a quarter of it above 112.
      max_images: at most so many images, spread evenly over the data set; 0: all.
      labels: label maps made before with `make_label_maps`; `size` and `max_images` are theirs.
      thresholds: {layer: [U]} to use in place of the quantiles.
      folder: where activations and label maps wait; "" takes one that is removed in the end.
      cache_gb: GiB of activations on disk; beyond it the forward pass is repeated.
      batch_size: images of a forward step, over all devices.
      threads: that read images.
      devices: default all of this process.

    Returns:
      {layer: Dissection}.

    Raises:
      ValueError: an unknown layer, an option outside its values, no concepts, label maps that do
        not fit the images or the vocabulary, activations that are not finite.
      OSError: the disk is full.
    """
    options = Options(q, over, rule, padding, restricted, tuple(iou), shuffles, replicates, seed)
    layers = tuple(dict.fromkeys(layers))
    sizes = activations_lib.shapes(net, dataset, layers)
    _check_thresholds(thresholds or {}, sizes)
    devices = walk.local(devices)
    with tempfile.TemporaryDirectory(dir=folder or None, prefix="dissection-") as scratch:
        if labels is None:
            labels = concepts.make_label_maps(
                dataset,
                net.preprocess,
                folder or scratch,
                size=size,
                max_images=max_images,
                threads=threads,
            )
        rows = len(devices) * -(-min(batch_size, len(labels.indices)) // len(devices))
        ordered = tuple(layer for layer in net.layers if layer in layers)
        forward = activations_lib.Forward(
            net, dataset, labels.indices, ordered, rows, threads, devices
        )
        found, by_chance = {}, {}
        for layer, kept, maxima in _activations(forward, sizes, scratch, cache_gb, "forward"):
            given = (thresholds or {}).get(layer)
            found[layer] = _measure(kept, labels, options, layer, given, devices)
            found[layer] |= _top_images(kept, maxima, labels.indices)
            by_chance[layer] = np.full_like(found[layer]["counts"], -1)
        if random_baseline:
            other = dataclasses.replace(forward, net=random_net(net, dataset, seed))
            title = "forward, random weights"
            for layer, kept, _ in _activations(other, sizes, scratch, cache_gb, title):
                title = f"{layer}, random weights"
                by_chance[layer] = _count_only(kept, labels, options, title, devices)
    return {
        layer: Dissection(
            layer=layer,
            names=labels.vocabulary.names,
            random=by_chance[layer],
            indices=labels.indices,
            settings=settings_of(net, labels, options, layer, random_baseline, given=thresholds),
            **found[layer],
        )
        for layer in layers
    }


def _activations(forward, sizes, scratch, cache_gb, title):
    """Yields (layer, activations, maxima) of each layer; their files live until the end."""
    variables = devices_lib.replicate(jax.device_get(forward.net.variables), forward.devices)
    net = dataclasses.replace(forward.net, variables=variables)
    forward = dataclasses.replace(forward, net=net)
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        kept, maxima = activations_lib.collect(forward, sizes, place, cache_gb, title)
        for layer in forward.layers:
            yield layer, kept[layer], maxima[layer]


def settings_of(
    net, labels, options: Options, layer: str, random_baseline: bool, given=None
) -> dict:
    """All that decides a result, as JSON has it; `weights` is a checksum of the network's."""
    thresholds = np.asarray((given or {}).get(layer, ()), np.float32)
    settings = {
        "layer": layer,
        "model": type(net.model).__name__,
        "weights": checksum(net.variables),
        "options": dataclasses.asdict(options),
        "random_baseline": random_baseline,
        "thresholds": checksum(thresholds),
        "labels": labels.settings,
    }
    return json.loads(json.dumps(settings))


def random_net(net, dataset, seed: int):
    """The network with weights as before training, drawn from `seed`; its batch norms' running
    statistics are mean 0 and variance 1."""
    image = jnp.asarray(net.preprocess(dataset[0]["image"]))[None]
    lowered = jax.jit(net.model.init).lower(jax.random.key(seed), image)
    # XLA's CPU backend takes tens of seconds to optimize this, which runs once.
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    compiled = lowered.compile(quick if jax.default_backend() == "cpu" else None)
    return dataclasses.replace(net, variables=compiled(jax.random.key(seed), image))


def _check_thresholds(thresholds, sizes):
    for layer, values in thresholds.items():
        units = sizes.get(layer, (0, 0, 0))[2]
        if np.shape(values) != (units,):
            raise ValueError(
                f"thresholds of layer {layer!r} have shape {np.shape(values)}; it has {units} units"
            )


def _measure(activations, labels, options, layer, given, devices) -> dict:
    """The fields of a `Dissection` that need the activations."""
    threshold = _thresholds(activations, labels, options, layer, given, devices)
    orders, note = _orders(len(labels.indices), options)
    if note:
        say.line(note)
    tally, *shuffled = _tallies(activations, threshold, labels, options, layer, orders, devices)
    category = labels.vocabulary.category
    null = [_count(*_best(t, category, options), options) for t in shuffled]
    counts = _count(*_best(tally, category, options), options)
    replicates = np.zeros((0, *counts.shape), np.int64)
    if options.replicates:
        labels_, values = counting.bootstrap(
            Watched(activations, f"{layer}, intervals"),
            threshold,
            labels.maps,
            len(category),
            categories=category,
            padding=options.padding,
            restricted=options.restricted,
            replicates=options.replicates,
            seed=options.seed,
            devices=devices,
        )
        replicates = np.stack(
            [_count(*best, options) for best in zip(labels_, values, strict=True)]
        )
    return {
        "threshold": threshold,
        "tally": tally,
        "counts": counts,
        "null": np.stack(null) if null else np.zeros((0, *counts.shape), np.int64),
        "replicates": replicates,
    }


def _count_only(activations, labels, options, title, devices) -> np.ndarray:
    """The counts [2, 2, T, G] alone."""
    threshold = _thresholds(activations, labels, options, title, None, devices)
    order = np.arange(len(labels.indices))[None]
    (tally,) = _tallies(activations, threshold, labels, options, title, order, devices)
    return _count(*_best(tally, labels.vocabulary.category, options), options)


def _thresholds(activations, labels, options, title, given, devices):
    if given is not None:
        return np.asarray(given, np.float32)
    return thresholds_lib.quantile(
        Watched(activations, f"{title}, thresholds"),
        options.q,
        over=options.over,
        size=labels.maps.shape[1:3],
        padding=options.padding,
        rule=options.rule,
        devices=devices,
    )


def _orders(images, options) -> tuple[np.ndarray, str]:
    """Images' own label maps, then the shuffles; and what to say where these cannot be."""
    own = np.arange(images)[None]
    if not options.shuffles:
        return own, ""
    if images < 2:
        return own, "there is no chance level: one image cannot be shuffled"
    return np.concatenate([own, counting.derangements(images, options.shuffles, options.seed)]), ""


def _tallies(activations, threshold, labels, options, title, orders, devices):
    category = labels.vocabulary.category
    return counting.tally_orders(
        Watched(activations, f"{title}, counts"),
        threshold,
        labels.maps,
        len(category),
        orders,
        categories=category,
        padding=options.padding,
        devices=devices,
    )


def _best(tally, category, options):
    return counting.best_by_category(tally.iou(options.restricted), category)


def _count(labels, values, options) -> np.ndarray:
    """Detectors and unique concepts by both conventions, [2, 2, T, G]."""
    return np.array(
        [counting.count_detectors(labels, values, options.iou, per=per) for per in PER], np.int64
    )


def _top_images(activations, maxima, indices) -> dict:
    """The images that move each unit most; equal ones in the data set's order."""
    top = np.argsort(-maxima, 0, kind="stable")[:_TOP]  # [5, U]
    _, height, width, units = activations.shape
    maps = np.empty((units, len(top), height, width), np.float32)
    for image in np.unique(top):
        one = np.asarray(activations[image : image + 1])[0]
        place, unit = np.nonzero(top == image)
        maps[unit, place] = np.moveaxis(one[..., unit], -1, 0)
    return {
        "top_images": indices[top].T,
        "top_activations": np.take_along_axis(maxima, top, 0).T,
        "top_maps": maps,
    }
