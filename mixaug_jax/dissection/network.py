"""Dissecting a network, from images to counts.

results = dissect(net, dataset, ("layer3", "layer4"))
results["layer4"].unique()  # [IoU thresholds, categories]
"""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import checksum
from mixaug_jax.core.types import Dataset, Devices, Net, Path, Thresholds
from mixaug_jax.dissection import activations as activations_lib
from mixaug_jax.dissection import concepts
from mixaug_jax.dissection.measuring import Layer, count_only, measure, top_images
from mixaug_jax.dissection.parts import Parts
from mixaug_jax.dissection.result import Dissection, Options, Resources

Given = Mapping[str, Thresholds | Sequence[float]]  # thresholds [U] of layers


def dissect(
    net: Net,
    dataset: Dataset,
    layers: Sequence[str],
    options: Options = Options(),  # noqa: B008 (it is frozen)
    *,
    labels: concepts.LabelMaps | None = None,
    thresholds: Given | None = None,
    resources: Resources = Resources(),  # noqa: B008 (it is frozen)
    devices: Devices = None,
) -> dict[str, Dissection]:
    """Network Dissection (Bau et al., arXiv 1704.05796) of layers of a network, by one forward pass.

    In a job of several processes all call it with the same arguments, and get the same. Each runs the network over its share of
    the images, on its own devices, and keeps their activations; counts meet.

    Args:
      net: `models.Net`, or anything with its `variables`, `preprocess`, `layers` and methods.
      dataset: examples with image uint8 [H,W,3] and concepts [H,W,K], and `concept_names`, as
        `data.Source`; examples without concepts are left out.
      layers: names of layers; each unit is a channel of the layer's output.
      options: what decides the results.
      labels: label maps made before with `make_label_maps`; size and max_images are theirs. Several processes need these, or
        resources.folder on a disk that all of them share.
      thresholds: {layer: [U]} to use in place of the quantiles.
      resources: what it may take: a folder, disk, threads.
      devices: default all of all processes; this process's own: it works alone.

    Returns:
      {layer: Dissection}.

    Raises:
      ValueError: an unknown layer, no concepts, label maps that do not fit the images or the
        vocabulary, activations that are not finite.
      OSError: the disk is full.
    """
    # Names and shapes are checked by tracing, before label maps are made.
    layers = tuple(dict.fromkeys(layers))
    sizes = activations_lib.shapes(net, dataset, layers)
    _check_thresholds(thresholds or {}, sizes)
    devices, folder = walk.chosen(devices), resources.folder
    check_shared(labels, folder, devices)
    with (
        tempfile.TemporaryDirectory(dir=folder or None, prefix="dissection-") as scratch,
        devices_lib.precision(options.precision),
    ):
        if labels is None:
            labels = label_maps(net, dataset, folder or scratch, options, resources, devices)
        settings = settings_of(net, labels, options, layers, given=thresholds)
        parts = {k: Parts(resources.parts, settings[k], devices) for k in layers}
        forward = _forward(net, dataset, layers, labels.indices, resources, devices)
        limits = {"sizes": sizes, "scratch": scratch, "cache_gb": resources.cache_gb}
        walked = functools.partial(_activations, **limits)
        given = {"labels": labels, "options": options, "devices": devices}
        seen = functools.partial(Layer, **given, memory_gb=resources.memory_gb)
        # The layers share a forward pass, and are then measured one by one from its files.
        found = {}
        for layer, kept, largest in walked(forward, title="forward"):
            one = seen(kept, title=layer, parts=parts[layer])
            found[layer] = measure(one, (thresholds or {}).get(layer))
            found[layer] |= top_images(kept, largest, labels.indices, devices)
            found[layer]["random"] = np.full_like(found[layer]["counts"], -1)
        # What the architecture and the data bring without any training, by thresholds of its own.
        untrained = _untrained(net, dataset, options.seed) if options.random_baseline else None
        if untrained is not None:
            other = dataclasses.replace(forward, net=untrained)
            for layer, counts in _random_counts(other, parts, walked, seen):
                found[layer]["random"] = counts
    same = {"names": labels.vocabulary.names, "indices": labels.indices}
    return {k: Dissection(layer=k, settings=settings[k], **same, **found[k]) for k in layers}


def label_maps(
    net: Net,
    dataset: Dataset,
    folder: Path,
    options: Options,
    resources: Resources,
    devices: Devices = None,
) -> concepts.LabelMaps:
    """Makes in `folder` the label maps that `dissect` of the same arguments takes where it is given none."""
    return concepts.make_label_maps(
        dataset,
        net.preprocess,
        folder,
        size=options.size,
        max_images=options.max_images,
        threads=resources.threads,
        devices=devices,
    )


def _random_counts(forward, parts, walked, seen) -> Iterator[tuple]:
    """Yields (layer, counts) of a network without training; what is counted already needs no forward pass."""
    left = tuple(layer for layer in forward.layers if not parts[layer].has("untrained"))
    forward = dataclasses.replace(forward, layers=left)
    for layer, kept, _ in walked(forward, title="forward, random weights") if left else ():
        one = seen(kept, title=f"{layer}, random weights", parts=parts[layer])
        yield layer, count_only(one)
    # In one order in all processes, which meet at each.
    for layer in [layer for layer in parts if layer not in left]:
        yield layer, parts[layer].get("untrained", dict)["counts"]


def check_shared(labels: concepts.LabelMaps | None, folder: Path, devices: tuple) -> None:
    """Raises ValueError where the processes of a job would each make label maps in a place that the others do not see."""
    if labels is None and not folder and walk.together(devices):
        raise ValueError(
            "in a job of several processes dissect needs labels, or resources.folder on a disk that all of them share"
        )


def _forward(net, dataset, layers, indices, resources, devices) -> activations_lib.Forward:
    """The network over the images; every step has as many images, so that one program is compiled."""
    each = -(-min(resources.batch_size, len(indices)) // len(devices))
    rows = each * len(walk.own(devices))
    ordered = tuple(layer for layer in net.layers if layer in layers)
    return activations_lib.Forward(net, dataset, indices, ordered, rows, resources.threads, devices)


def _activations(forward, sizes, scratch, cache_gb, title) -> Iterator[tuple]:
    """Yields (layer, activations, largest) of each layer; their files live until the end."""
    # Copies go to the devices once, not with every step.
    here = walk.own(forward.devices)
    variables = devices_lib.replicate(jax.device_get(forward.net.variables), here)
    net = dataclasses.replace(forward.net, variables=variables)
    forward = dataclasses.replace(forward, net=net)
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        kept, largest = activations_lib.collect(forward, sizes, place, cache_gb, title)
        for layer in forward.layers:
            yield layer, kept[layer], largest[layer]


def settings_of(
    net: Net,
    labels: concepts.LabelMaps,
    options: Options,
    layers: Sequence[str],
    given: Given | None = None,
) -> dict[str, dict]:
    """All that decides each layer's result, as JSON has it; `weights` is a checksum of the network's."""
    weights, found = checksum(net.variables), {}
    for layer in layers:
        # As a checksum, since the result itself holds the numbers.
        thresholds = np.asarray((given or {}).get(layer, ()), np.float32)
        settings = {
            "layer": layer,
            "model": net.name,
            "weights": weights,
            "options": dataclasses.asdict(options),
            "thresholds": checksum(thresholds),
            "labels": labels.settings,
        }
        found[layer] = json.loads(json.dumps(settings))
    return found


def random_net(net: Net, dataset: Dataset, seed: int) -> Net:
    """The network with weights as before training, drawn from `seed`; its batch norms' running
    statistics are mean 0 and variance 1."""
    image = jnp.asarray(net.preprocess(dataset[0]["image"]))
    key = jax.random.key(seed)
    # On the host: arrays that lie on the devices of all processes are none that this one alone can compute with.
    net = dataclasses.replace(net, variables=jax.device_get(net.variables))
    lowered = jax.jit(lambda key, image: net.reinitialized(key, image).variables).lower(key, image)
    compiled = lowered.compile(devices_lib.quick_options())
    return dataclasses.replace(net, variables=compiled(key, image))


def _untrained(net, dataset, seed):
    """`random_net`, or None, with a line, for a network whose variables cannot be drawn anew."""
    try:
        return random_net(net, dataset, seed)
    except checks.UnsupportedError as error:
        say.line(f"no random baseline: {error}")
        return None


def _check_thresholds(thresholds, sizes):
    for layer, values in thresholds.items():
        units = sizes.get(layer, (0, 0, 0))[2]
        if np.shape(values) != (units,):
            raise ValueError(
                f"thresholds of layer {layer!r} have shape {np.shape(values)}; it has {units} units"
            )
