"""How the work grows: exponents over images, units, concepts and devices, and the arithmetic of a whole study.

    python -m benchmarks.growth              # exponents, about 5 minutes on two cores
    python -m benchmarks.growth --small      # shows that it runs
    python -m benchmarks.growth --study      # the table of docs/scale.md that is arithmetic alone

An exponent is the slope of log(processor seconds) over log(size): 1 is work in proportion, 0 none that grows. Seconds are those
of all threads, the best of several turns. Virtual devices, and processes of one device on this machine, share its cores, so
over them the whole work of the same images is measured, that of all processes added up: 0 says that they do nothing twice, and
the time of real ones would fall in proportion; 1 that each of them does everything.
"""

import argparse
import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np

import mixaug_jax
from benchmarks.accelerator import SMALL, network, trainer
from benchmarks.timing import measured
from mixaug_jax import dissection
from mixaug_jax.core import processes


@dataclasses.dataclass(frozen=True)
class Work:
    """How much there is of everything."""

    images: int = 64
    units: int = 256
    concepts: int = 256


BASE, LITTLE = Work(), Work(16, 16, 16)
AXES = ("images", "units", "concepts")
FACTORS = (1, 2, 4, 8)
DEVICES, PROCESSES = (1, 2, 4, 8), (1, 2, 4)


def jobs(work: Work) -> dict[str, Callable]:
    """{name: f()}, each for as much as `work` says, on all devices."""
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.normal(size=(work.images, 7, 7, work.units)), 0).astype(np.float32)
    # Blocks of 8 x 8 pixels of one concept each, whatever the vocabulary.
    labels = rng.integers(1, work.concepts + 1, (work.images, 7, 7, 1)).repeat(8, 1).repeat(8, 2)
    thresholds = np.quantile(maps, 0.99, (0, 1, 2)).astype(np.float32)
    net = network(SMALL)
    images = rng.normal(size=(work.images, 32, 32, 3)).astype(np.float32)
    classes = rng.integers(SMALL.classes, size=work.images)
    share = dataclasses.replace(SMALL, batch=work.images // jax.device_count())
    explain = functools.partial(mixaug_jax.attribute, net, images, classes, chunk=8)
    return {
        "train step": trainer(share, "cutmix", None)[0],
        "thresholds": lambda: dissection.quantile(maps, 0.01, size=(56, 56)),
        "counts": lambda: dissection.tally(maps, thresholds, labels, work.concepts + 1).unit,
        "integrated gradients": lambda: explain("integrated_gradients", options={"steps": 8}),
    }


GROWS = {
    "train step": ("images",),
    "thresholds": ("images", "units"),
    "counts": ("images", "units", "concepts"),
    "integrated gradients": ("images",),
}


def seconds(work: Work, names, repeats: int) -> dict[str, float]:
    """Processor seconds of each job."""
    made = jobs(work)
    found = measured({name: made[name] for name in names}, repeats)
    return {name: cpu for name, (_, cpu) in found.items()}


def exponent(sizes, spent) -> float:
    """The slope of log(spent) over log(size)."""
    return float(np.polyfit(np.log(sizes), np.log(spent), 1)[0])


def over_sizes(base: Work, factors, repeats: int) -> list[tuple]:
    """Rows (job, axis, exponent, seconds of each size)."""
    rows = []
    for axis in AXES:
        names = [name for name, axes in GROWS.items() if axis in axes]
        sizes = [getattr(base, axis) * factor for factor in factors]
        found = [seconds(dataclasses.replace(base, **{axis: n}), names, repeats) for n in sizes]
        for name in names:
            spent = [turn[name] for turn in found]
            rows.append((name, f"{axis} {sizes[0]} to {sizes[-1]}", exponent(sizes, spent), spent))
    return rows


def over_devices(counts, small: bool) -> list[tuple]:
    """Rows as `over_sizes`, each number of devices in a process of its own."""
    return _rows("devices", counts, [_apart(small, count, 1) for count in counts])


def over_processes(counts, small: bool) -> list[tuple]:
    """Rows as `over_sizes`, of jobs of so many processes on this machine, each with one device."""
    return _rows("processes", counts, [_apart(small, 1, count) for count in counts])


def _rows(what, counts, found):
    rows = []
    for name in GROWS:
        spent = [turn[name] for turn in found]
        rows.append((name, f"{what} {counts[0]} to {counts[-1]}", exponent(counts, spent), spent))
    return rows


def _apart(small, devices, count) -> dict[str, float]:
    """`seconds` of a job of `count` processes of so many devices, added up."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.growth", "--here", *["--small"] * small]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    told: list[dict] = [{}]
    if count > 1:
        job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
        told = [job | {"JAX_PROCESS_ID": str(k)} for k in range(count)]
    given = {"stdout": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(command, env=os.environ | {"XLA_FLAGS": flags} | one, **given)
        for one in told
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"of {count} processes one failed; see what it printed")
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return {name: sum(one[name] for one in found) for name in GROWS}


# A chip: bfloat16 and float32 operations and bytes of memory a second. TPUs make float32 of six bfloat16 products ("highest").
@dataclasses.dataclass(frozen=True)
class Machine:
    chips: int
    bfloat16: float
    float32: float
    bandwidth: float


MACHINES = {
    "one H100": Machine(1, 989e12, 67e12, 3350e9),
    "v5e-8": Machine(8, 197e12, 197e12 / 6, 819e9),
    "v4-64": Machine(32, 275e12, 275e12 / 6, 1228e9),  # named by its cores, of which a chip has two
}
FORWARD = 8.2e9  # operations of ResNet-50 for one image of 224 px; a gradient takes as many again, weights' once more
# Bytes that a train step moves for one image, as the compiler counts them for a v5e: see docs/scale.md.
MOVED = {"float32": 66.88e9 / 64, "bfloat16": 39.85e9 / 64}
EPOCHS, IMAGENET, VALIDATION, BRODEN = 300, 1_281_167, 50_000, 63_305


def study() -> list[tuple[str, float, float, str]]:
    """(stage, operations, bytes or 0, type of the products' numbers) of one network of the study."""
    trained = EPOCHS * IMAGENET
    found = [
        (f"train, 300 epochs of ImageNet, {dtype}", 3 * FORWARD * trained, moved * trained, dtype)
        for dtype, moved in MOVED.items()
    ]
    later = {
        "dissect Broden, forward twice (random weights as well)": 2 * BRODEN,
        "integrated gradients, 50,000 images, 64 steps": 2 * VALIDATION * 64,
        "Grad-CAM, 50,000 images": VALIDATION,
        "RISE, 50,000 images, 4,000 masks": VALIDATION * 4000,
        "deletion of one method, 50,000 images, 100 steps": VALIDATION * 100,
        "occlusion, 5,000 images, 180 removals": 5000 * 180,
    }
    return found + [(stage, FORWARD * times, 0.0, "float32") for stage, times in later.items()]


def hours(machine: Machine, flops: float, moved: float, dtype: str) -> float:
    """The least hours: what the compiler's bytes take, where they are known, or the operations."""
    peak = {"float32": machine.float32, "bfloat16": machine.bfloat16}[dtype]
    return max(flops / peak, moved / machine.bandwidth) / machine.chips / 3600


def print_study() -> None:
    print("| stage | PFLOP | " + " | ".join(f"{name}, h" for name in MACHINES) + " |")
    print("| --- " * (2 + len(MACHINES)) + "|")
    for stage, flops, *needs in study():
        cells = [f"{hours(machine, flops, *needs):.3g}" for machine in MACHINES.values()]
        print(f"| {stage} | {flops / 1e15:,.3g} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="little work, two sizes")
    parser.add_argument("--study", action="store_true", help="the arithmetic of a study, and ends")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    base, repeats = (LITTLE, 1) if given.small else (BASE, 3)
    if given.study:
        print_study()
        return
    if given.here:
        if "JAX_PROCESS_ID" in os.environ:
            processes.join()
        print(json.dumps(seconds(base, GROWS, repeats)))
        return
    rows = over_sizes(base, FACTORS[:2] if given.small else FACTORS, repeats)
    rows += over_devices(DEVICES, given.small) + over_processes(PROCESSES, given.small)
    print("| work | grows with | exponent | processor seconds |\n| --- | --- | --- | --- |")
    for name, axis, slope, spent in rows:
        print(f"| {name} | {axis} | {slope:.2f} | {', '.join(f'{s:.2f}' for s in spent)} |")


if __name__ == "__main__":
    main()
