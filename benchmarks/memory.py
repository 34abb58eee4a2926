"""The memory that explaining images takes, beside the bound that was set: ResNet-50 at 224 pixels.

    python -m benchmarks.memory                     # about 10 minutes on two cores
    python -m benchmarks.memory --only lrp rise
    python -m benchmarks.memory --small             # shows that it runs

Each method runs in a process of its own on a few images, with few steps and samples, since how many there are changes how long
it takes and not what is in memory at once. The peak is that of the whole process: Python, JAX, the weights, compiling and all.
"""

import argparse
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np

import mixaug_jax
from mixaug_jax.attribution import METHODS, iba_statistics
from mixaug_jax.core import entries
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


def main():
    """Prints a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--small", action="store_true", help="64 pixels, to show that it runs")
    parser.add_argument("--memory_gb", type=float, default=2.0, help="the bound, in GiB")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # the method, in the process of its own
    given = parser.parse_args()
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
