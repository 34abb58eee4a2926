"""The memory that explaining and dissecting images takes, beside the bound that was set: ResNet-50 at 224 pixels.

    python -m benchmarks.memory                     # about 10 minutes on two cores
    python -m benchmarks.memory --only lrp rise
    python -m benchmarks.memory --small             # shows that it runs
    python -m benchmarks.memory --dissect=resnet50 --images=2000 --formulas=64

Each method runs in a process of its own on a few images, with few steps and samples, since how many there are changes how long
it takes and not what is in memory at once. The peak is that of the whole process: Python, JAX, the weights, compiling and all.

A dissection is of the last layer with maps of a network with random weights, on images of noise, with label maps of 56 x 56
pixels of six slots and 1200 concepts, by five shuffles. Its activations and label maps are files, whose pages are given up
where anything else needs memory; so what is printed is the most that no file backs, beyond what there was before it began, and
processor time by image.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import jax
import numpy as np

import mixaug_jax
from benchmarks import dissection as dissection_benchmark
from mixaug_jax import dissection
from mixaug_jax.attribution import METHODS, iba_statistics
from mixaug_jax.core import entries
from mixaug_jax.data.source import Source
from mixaug_jax.dissection import activations
from mixaug_jax.explain import memory
from mixaug_jax.models import MODELS, Net, Preprocess

FEW = {"steps": 8, "samples": 8, "window": 64, "stride": 64}


def peak() -> int:
    """Bytes of this process; not getrusage's number, which begins with that of the process before."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def explain(method: str, side: int, images: int, memory_gb: float) -> None:
    """Runs one method, and prints how many evaluations were at once and the peak."""
    model = MODELS["resnet50"](1000)
    x = np.random.default_rng(0).normal(size=(images, side, side, 3)).astype(np.float32)
    net = Net(model, jax.jit(model.init)(jax.random.key(0), x[:1]), Preprocess(side))
    known = entries.keywords(METHODS[method])
    options = {k: v for k, v in FEW.items() if k in known}
    if "baselines" in known:
        options["baselines"] = x
    if "stats" in known:
        options["stats"] = iba_statistics(net, [x])
    labels = np.zeros(images, int)
    mixaug_jax.attribute(net, x, labels, method, options=options, memory_gb=memory_gb)
    print(memory.at_once(net, x.shape[1:], memory_gb), peak())


def dissect(model: str, images: int, given: argparse.Namespace) -> None:
    """Dissects a network, and prints what it took."""
    side, concepts = (64, 40) if given.small else (224, dissection_benchmark.CONCEPTS)
    module = MODELS[model](1000)
    blank = np.zeros((1, side, side, 3), np.float32)
    shapes = jax.eval_shape(lambda k: module.init(k, blank, train=False), jax.random.key(0))
    draw = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: np.abs(0.02 * draw.standard_normal(x.shape, dtype=np.float32)), shapes
    )
    net = Net(module, variables, Preprocess(side))

    def read(index: int) -> dict:
        pixels = np.random.default_rng(index).integers(0, 256, (side, side, 3), np.uint8)
        return {"image": pixels, "label": 0}

    names = (("none", "none"), *((str(k), f"category {k % 6}") for k in range(1, concepts)))
    source = Source(read, images, ("a", "b"), names)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "labels.npy"
        maps = np.lib.format.open_memmap(path, "w+", np.uint16, (images, 56, 56, 6))
        for start in range(0, images, 64):
            made = dissection_benchmark.make_labels(min(64, images - start))
            maps[start : start + 64] = made % concepts
        maps.flush()
        del maps
        labels = dissection.LabelMaps(
            np.load(path, mmap_mode="r"),
            np.arange(images),
            dissection.Vocabulary(names),
            {"size": 56},
        )
        options = dissection.Options(random_baseline=False, formulas=given.formulas)
        resources = dissection.Resources(
            folder=folder, cache_gb=given.cache_gb, memory_gb=given.memory_gb
        )
        (layer,) = activations.last_maps(net, source, 1)

        def job() -> None:
            dissection.dissect(net, source, (layer,), options, labels=labels, resources=resources)

        cpu, wall, extra = dissection_benchmark.watched(job)
    units = activations.shapes(net, source, (layer,))[layer][-1]
    print(
        f"{model}, {layer}: {images} images, {units} units, {concepts - 1} concepts, formulas={given.formulas}, "
        f"memory_gb={given.memory_gb:g}, cache_gb={given.cache_gb:g}: {1000 * cpu / images:.0f} ms of processor an image, "
        f"{wall:.0f} s in all, {extra / 2**20:.0f} MiB more than before, {peak() / 2**20:.0f} MiB in all with pages of files"
    )


def main():
    """Prints a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--small", action="store_true", help="64 pixels, to show that it runs")
    parser.add_argument("--memory_gb", type=float, default=2.0, help="the bound, in GiB")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # the method, in the process of its own
    parser.add_argument(
        "--dissect", choices=list(MODELS), help="a network, in place of the methods"
    )
    parser.add_argument("--images", type=int, default=2000, help="to dissect")
    parser.add_argument(
        "--formulas", type=int, default=0, help="units whose logical form is sought"
    )
    parser.add_argument("--cache_gb", type=float, default=4.0, help="GiB of activations on disk")
    given = parser.parse_args()
    if given.dissect:
        dissect(given.dissect, given.images, given)
        return
    side, images = (64, 2) if given.small else (224, 4)
    if given.here:
        explain(given.here, side, images, given.memory_gb)
        return
    print(f"ResNet-50, {side} pixels, {images} images, memory_gb={given.memory_gb:g}")
    for method in given.only:
        command = [sys.executable, "-m", "benchmarks.memory", "--here", method]
        command += [f"--memory_gb={given.memory_gb}", *["--small"] * given.small]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        at_once, most = map(int, done.stdout.splitlines()[-1].split())  # after its progress
        share = most / (given.memory_gb * 2**30)
        print(
            f"{method:22} {at_once:3} at once  {most / 2**20:6.0f} MiB  {share:.2f} of the bound",
            flush=True,
        )


if __name__ == "__main__":
    main()
