"""What a dissection gives, to compare it between jobs of one, two and four processes."""

import dataclasses
import pathlib
import time
import zlib

import jax
import numpy as np
import planted

from mixaug_jax import dissection
from mixaug_jax.core import files, walk
from mixaug_jax.dissection import concepts, counting, network
from mixaug_jax.dissection.result import Options, Resources

IMAGES, BATCH = 23, 2  # of four devices: two steps of two images on each, and a rest
OPTIONS = Options(shuffles=2, q=0.05, formulas=4)


@dataclasses.dataclass(frozen=True)
class Noise:
    """`planted.noise`, that all processes call the same."""

    def __call__(self, image):
        return planted.noise(image)


def annotated(calls):
    """The planted images without their first and last masks, and with what a segmenter finds; `calls` notes its images."""
    source = planted.source(IMAGES)

    def read(index):
        example = source[index]
        return example if 0 < index < IMAGES - 1 else {k: example[k] for k in ("image", "label")}

    def segment(image):
        calls.add(zlib.crc32(image))
        return (image[..., 0] > 0).astype(int) * (1 + (np.arange(image.shape[1]) % 2))

    partly = concepts.Source(read, IMAGES, source.class_names, source.concept_names)
    return concepts.annotate(
        partly, segment, [("none", "none"), ("left", "side"), ("right", "side")]
    )


def dissect_all(folder):
    """{name: array} of all that a dissection gives, by each public call; and CPU seconds."""
    calls, walk.LIMIT = set(), 8 * 16 * 16  # so that counts go to the host several times
    source, net, found = annotated(calls), planted.net(Noise(), channels=16), {}
    labels = dissection.make_label_maps(source, net.preprocess, folder / "labels", size=16)
    found["segmented"] = np.array(sorted(calls))
    bare = Options(shuffles=0, random_baseline=False)
    for name, cache_gb, options, layers in (
        ("kept", 1.0, OPTIONS, ("pixels", "mixed")),
        ("recomputed", 0.0, bare, ("mixed",)),
    ):
        own = folder / f"own{jax.process_index()}"
        own.mkdir(exist_ok=True)
        resources = Resources(folder=own, cache_gb=cache_gb, batch_size=4 * BATCH)
        results = network.dissect(net, source, layers, options, labels=labels, resources=resources)
        for layer, result in results.items():
            path = folder / f"{name}-{layer}-{jax.process_index()}.npz"
            dissection.save(result, path)
            with np.load(path) as arrays:
                found |= {f"{name}/{layer}/{k}": v for k, v in arrays.items()}
    # Once more, when all is compiled.
    began = time.process_time()
    network.dissect(net, source, layers, options, labels=labels, resources=resources)
    found["seconds"] = np.array(time.process_time() - began)
    # By itself, of arrays that every process has.
    maps = np.stack([planted.noise(source[int(i)]["image"]) for i in labels.indices])
    threshold = dissection.quantile(maps, 0.05, size=(16, 16), batch_size=BATCH)
    counted = dissection.tally(maps, threshold, labels.maps, 7, batch_size=BATCH)
    found |= {"threshold": threshold, "intersection": counted.intersection, "unit": counted.unit}
    orders = counting.derangements(len(maps), 1)
    dense = counting.Counting(7, labels.vocabulary.category, backend="dense", batch_size=BATCH)
    (shuffled,) = counting.tally_orders(maps, threshold, labels.maps, orders, dense)
    found["shuffled"] = shuffled.intersection
    arrays = dissection.dissect_arrays(maps, labels.maps, labels.vocabulary.names, OPTIONS)
    found |= {"arrays/top": arrays.top_maps, "arrays/halves": arrays.halves}
    found["arrays/activations"] = np.array(arrays.settings["activations"]["examples"])
    # And of one image, so that most processes have none.
    (one,) = network.dissect(
        net, planted.source(1), ("mixed",), bare, resources=Resources(folder=folder)
    ).values()
    found |= {"one/threshold": one.threshold, "one/top": one.top_maps, "one/counts": one.counts}
    return found


def keep(folder):
    """`dissect_all`, in a file of its own for each process."""
    files.save_npz(folder / f"all-{jax.process_index()}.npz", dissect_all(pathlib.Path(folder)), {})
