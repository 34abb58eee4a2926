"""What the occlusion experiment costs: the default sweep, beside the forward passes that it consists of.

    python -m benchmarks.occlusion                   # about 3 minutes on two cores
    python -m benchmarks.occlusion --images=50 --size=96

ResNet-18 with a quarter of the filters and random weights, images of noise in memory, the default grid
ranked by the true label. All are measured in turns in one run, and the best turn counts; "CPU" is
processor time of all threads, which other programs on the machine disturb less than wall time.

* "forward" calls the compiled network as often as there are removals that differ, on batches of the
  same size.
* "sweep" is `sweeping.sweep`, reading and the pass over complete images included.
* "gradients" is the gradients of the loss alone.

The cost is (sweep - gradients) / forward: what replacements, scores, sorting and choosing add. Floors
for 64 pixels, where the forward pass of an image takes 1 ms on one core: sorting 4096 integers takes
0.15 ms, once for each of 10 maps of scores; choosing units and replacing pixels, for each removal a
dozen operations on 4096 integers and one on 12,288 numbers, 0.02 ms.
"""

import argparse
import time

import jax
import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.data.source import Source
from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.occlusion import removal, sweeping
from mixaug_jax.occlusion.grid import FULL, Grid, plan


def make_net(size, width):
    model = MODELS["resnet18"](10, width=width)
    shape = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(lambda k, x: model.init(k, x, train=False), jax.random.key(0), shape)
    draw = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: np.abs(0.05 * draw.standard_normal(x.shape, dtype=np.float32)), shapes
    )
    return Net(model, jax.device_put(variables), Preprocess(size))


def make_jobs(net, size, images, batch, grid):
    """{name: job}, and how many removals differ."""
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 256, (images, size, size, 3)).astype(np.uint8)
    labels = draw.integers(10, size=images, dtype=np.int32)
    dataset = Source(
        lambda i: {"image": pixels[i], "label": labels[i]}, images, tuple(map(str, range(10)))
    )
    seen = np.stack([net.preprocess(image) for image in pixels[:batch]])
    removals = len(plan(grid, seen.shape[1:]).cells) - 1
    as_layers = devices_lib.compiler_options()
    forward = jax.jit(lambda net, x: net.logits(x), compiler_options=as_layers)
    gradients = jax.jit(removal.gradients, compiler_options=as_layers)

    def forward_job():
        for _ in range(removals * images // batch):
            jax.block_until_ready(forward(net, seen))

    def gradient_job():
        for _ in range(images // batch):
            jax.block_until_ready(gradients(net, seen, labels[:batch], labels[:batch]))

    def sweep_job():
        options = sweeping.Options(grid, labels=("true",), batch_size=batch)
        sweeping.sweep(net, dataset, range(images), options, devices=jax.devices()[:1])

    return {"forward": forward_job, "sweep": sweep_job, "gradients": gradient_job}, removals


def measure(jobs, turns):
    """{name: (CPU s, wall s)}, each the best of `turns`, after one that compiles."""
    best = dict.fromkeys(jobs, (np.inf, np.inf))
    for turn in range(turns + 1):
        for name, job in jobs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            job()
            took = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                best[name] = tuple(map(min, best[name], took))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--full", action="store_true", help="the full grid, not the default one")
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    grid = FULL if args.full else Grid()
    net = make_net(args.size, args.width)
    jobs, removals = make_jobs(net, args.size, args.images, args.batch, grid)
    cells = np.prod(grid.shape)
    print(f"{args.images} images of {args.size} px; {cells} cells, {removals} removals that differ")
    found = measure(jobs, args.turns)
    print(f"{'':12}{'CPU s':>8}{'wall s':>8}")
    for name, (cpu, wall) in found.items():
        print(f"{name:12}{cpu:8.2f}{wall:8.2f}")
    for k, what in enumerate(("CPU", "wall")):
        cost = (found["sweep"][k] - found["gradients"][k]) / found["forward"][k]
        print(
            f"sweep, gradients apart: {cost:.3f} of its forward passes, by {what} time (at most 1.1)"
        )


if __name__ == "__main__":
    main()
