"""What Network Dissection costs: thresholds and tally of ResNet-50's last layer, beside its forward.

    python -m benchmarks.dissection                  # about 5 minutes on two cores
    python -m benchmarks.dissection --skip_forward   # without compiling ResNet-50
    python -m benchmarks.dissection --interventions  # only what removing every unit of two layers costs

The setting is layer4 of ResNet-50: 2048 units of 7x7, label maps of 56x56 with 6 slots and about 48
of 1200 labels an image, q = 0.01. Activations are made up: white noise smoothed by a 2x2 box, of
unit variance, minus 0.65, ReLU, so that 74 % are zero and neighbors go together; each unit has its
own scale. They lie in a memory map, as the stage keeps them. Label maps are random
blocks of 8x8 pixels, a fifth unlabeled.

All columns are measured in turns in one run, and the best turn counts. "CPU" is processor time of
all threads (`time.process_time`), which other programs on the machine disturb less than wall time.
"Extra memory" is the highest anonymous resident memory above what there was before the call (a
memory map is not anonymous memory).

Floors, an image, with P = 3136 pixels, U = 2048 units, L = 50 labels:
* The forward pass is 8.2 GFLOP, 0.08 s at the 100 GFLOP/s of one core's matrix products.
* Upsampling to P pixels is 3 P U operations (19 MFLOP); as floats its result is 26 MB. Fused with
  its comparison it is bound by compute: about 2 ms on one core.
* Tally. One-hot matmul 2 P U C: 15 GFLOP, two forwards. Labels present only, 2 P U L: 0.6 GFLOP,
  10 ms. Words of 32 pixels, U L P/32 = 10 M AND + count: about 1 ms. Set bits alone,
  0.01 P U 6: 0.4 M increments.
* Thresholds. At each look only cells whose corners reach the interval: twice the asked tail in
  pixels, some 5 % of all cells, 6500 of 131,000, or 0.4 M pixels with a dozen operations and a
  scatter each: 2 ms, and two looks are needed to find one float32 among 2^24.
* Interventions. A layer's units, removed one by one, take as many passes through the rest of the network; where that is a mean
  and a dense layer, U K additions an image. The setting is that of the scenes: a ResNet-18 of quarter width at 64 pixels.
"""

import argparse
import pathlib
import tempfile
import threading
import time

import jax
import numpy as np

from mixaug_jax import dissection
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.data.source import Source
from mixaug_jax.dissection import formulas, interventions
from mixaug_jax.models import MODELS, Net, Preprocess

CONCEPTS, CATEGORIES, SLOTS, SIZE, Q = 1200, 6, 6, 56, 0.01


def make_activations(path, images, units):
    """A memory map [N, 7, 7, U] float32, as the module's docstring says."""
    draw = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(path, "w+", np.float32, (images, 7, 7, units))
    scale = np.exp(draw.standard_normal(units)).astype(np.float32)
    for i in range(images):
        x = draw.standard_normal((8, 8, units), dtype=np.float32)
        x = (x[1:, 1:] + x[:-1, 1:] + x[1:, :-1] + x[:-1, :-1]) / 2
        stored[i] = scale * np.maximum(x - 0.65, 0)
    stored.flush()
    return np.load(path, mmap_mode="r")


def make_labels(images):
    """Label maps [N, 56, 56, 6] uint16: 8 labels to a slot, a fifth of all blocks unlabeled."""
    draw = np.random.default_rng(1)
    blocks = SIZE // 8
    maps = np.empty((images, blocks, blocks, SLOTS), np.uint16)
    for i in range(images):
        labels = draw.permutation(np.arange(1, CONCEPTS))[: 8 * SLOTS].reshape(SLOTS, 8)
        chosen = draw.integers(0, 8, (blocks, blocks, SLOTS))
        maps[i] = labels[np.arange(SLOTS), chosen] * (draw.random(chosen.shape) < 0.8)
    return maps.repeat(8, 1).repeat(8, 2)


def anonymous_memory():
    """Resident bytes of this process that no file backs (Linux)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    return 0


def watched(job):
    """CPU seconds, wall seconds and highest extra memory in bytes of job()."""
    before = anonymous_memory()
    seen, done = [before], threading.Event()

    def sample():
        while not done.wait(0.02):
            seen.append(anonymous_memory())

    thread = threading.Thread(target=sample)
    thread.start()
    cpu, wall = time.process_time(), time.perf_counter()
    job()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    done.set()
    thread.join()
    return cpu, wall, max(seen) - before


def measure(jobs, turns):
    """{name: (CPU s an image, wall s an image, extra bytes)} of jobs {name: (job, images looked
    at)}: the best of `turns`, after one that compiles; memory is the most of all turns."""
    found = dict.fromkeys(jobs, (np.inf, np.inf, 0))
    for turn in range(turns + 1):
        for name, (job, images) in jobs.items():
            cpu, wall, extra = watched(job)
            best = found[name]
            if turn:
                best = min(best[0], cpu / images), min(best[1], wall / images), best[2]
            found[name] = *best[:2], max(best[2], extra)
    return found


def forward_job(images, batch=16):
    """A jitted ResNet-50 at 224, called on `images` random images."""
    model = MODELS["resnet50"](1000)
    batch_of = np.random.default_rng(0).standard_normal((batch, 224, 224, 3), dtype=np.float32)
    shapes = jax.eval_shape(lambda k: model.init(k, batch_of[:1], train=False), jax.random.key(0))
    draw = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: np.abs(0.02 * draw.standard_normal(x.shape, dtype=np.float32)), shapes
    )
    apply = jax.jit(
        lambda variables, x: model.apply(variables, x, train=False),
        compiler_options=devices_lib.compiler_options(),
    )
    variables = jax.device_put(variables)

    def job():
        for _ in range(images // batch):
            jax.block_until_ready(apply(variables, batch_of))

    return job


def dissection_jobs(activations, labels, categories, devices):
    """{name: (job, number of images)}."""
    images = len(activations)
    counting = dissection.Counting(CONCEPTS, categories, devices=devices)
    own, orders = np.arange(images)[None], dissection.derangements(images, 5)
    size = (SIZE, SIZE)
    thresholds = dissection.quantile(activations, Q, size=size, devices=devices)
    arguments = (activations, thresholds, labels)
    paired = np.concatenate([own, orders])
    tallied = formulas.Tallied(dissection.tally_orders(*arguments, paired, counting), paired)
    jobs = {
        "thresholds": lambda: dissection.quantile(activations, Q, size=size, devices=devices),
        "thresholds, raw": lambda: dissection.quantile(activations, Q, over="raw", devices=devices),
        "tally": lambda: dissection.tally_orders(*arguments, own, counting),
        "shuffled null, 5": lambda: dissection.tally_orders(*arguments, orders, counting),
        "in 20 groups": lambda: dissection.tally_halves(*arguments, own, counting),
        "64 logical forms": lambda: formulas.search(*arguments, tallied, counting),
    }
    return {name: (job, images) for name, job in jobs.items()}


def small_network(side=64, classes=10):
    """The network of the scenes with drawn weights, and a data set of noise for it."""
    model = MODELS["resnet18"](classes, width=0.25, last_stride=1)
    image = np.zeros((1, side, side, 3), np.float32)
    shapes = jax.eval_shape(lambda k: model.init(k, image, train=False), jax.random.key(0))
    draw = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: np.abs(0.1 * draw.standard_normal(x.shape, dtype=np.float32)), shapes
    )
    pixels = draw.integers(0, 256, (16, side, side, 3), np.uint8)

    def read(index):
        return {"image": pixels[index % 16], "label": index % classes}

    source = Source(read, 1000, tuple(map(str, range(classes))))
    return Net(model, variables, Preprocess(side)), source


def intervention_jobs(images, layer, batch=50):
    """{name: (job, images)}: every unit of a layer removed at once in one walk; the rest of the network as often as that, and
    nothing else; and a loop of whole forward passes, one for each unit, of which a tenth is run."""
    net, source = small_network()
    options = interventions.Removing(batch_size=batch)
    features = jax.jit(
        lambda net, x: net.features(x, layer), compiler_options=devices_lib.compiler_options()
    )
    rest = jax.jit(
        lambda net, x, h: net.logits(x, layer=layer, value=h),
        compiler_options=devices_lib.compiler_options(),
    )
    x = np.stack([net.preprocess(source[i]["image"]) for i in range(batch)])
    h = jax.block_until_ready(features(net, x))
    units = h.shape[-1]
    net = jax.device_put(net)

    def tail():
        with devices_lib.precision(options.precision):
            for _ in range(images // batch * units):
                jax.block_until_ready(rest(net, x, h))

    def loop():
        with devices_lib.precision(options.precision):
            for unit in range(0, units, 10):
                for _ in range(images // batch):
                    value = features(net, x).at[..., unit].set(0)
                    jax.block_until_ready(rest(net, x, value))

    def removal():
        sets = np.eye(units, dtype=bool)
        interventions.remove(
            net, source, np.arange(images), layer, sets, options, devices=jax.devices()[:1]
        )

    return {
        f"{layer}, removal": (removal, images),
        f"{layer}, its tail": (tail, images),
        f"{layer}, loop": (loop, images * len(range(0, units, 10)) / units),
    }


def show_interventions(images, turns):
    for layer in ("layer3", "layer4"):
        found = measure(intervention_jobs(images, layer), turns)
        show(f"Every single unit of {layer} removed, {images} images", found)
        removal, tail, loop = (cpu for cpu, _, _ in found.values())
        print(
            f"removal: {removal / tail:.2f} of its tail, {removal / loop:.3f} of a loop of forward passes"
        )


def show(title, found, forward=None):
    print(f"\n{title}\n{'':20}{'CPU ms/image':>14}{'wall ms/image':>15}{'extra MB':>10}", end="")
    print(f"{'of a forward':>14}" if forward else "")
    for name, (cpu, wall, extra) in found.items():
        print(f"{name:20}{1e3 * cpu:14.1f}{1e3 * wall:15.1f}{extra / 2**20:10.0f}", end="")
        print(f"{cpu / forward:14.2f}" if forward else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--units", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--skip_forward", action="store_true")
    parser.add_argument("--interventions", action="store_true")
    args = parser.parse_args()
    if args.interventions:
        show_interventions(500, args.turns)
        return
    jax.config.update("jax_num_cpu_devices", 4)
    categories = np.random.default_rng(2).integers(0, CATEGORIES, CONCEPTS)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "layer4.npy"
        activations = make_activations(path, 2 * args.images, args.units)
        labels = make_labels(2 * args.images)
        zeros = np.mean(activations[:16] == 0)
        print(f"{args.images} images, {args.units} units, {100 * zeros:.0f} % of activations zero")

        one = jax.devices()[:1]
        half = activations[: args.images]
        jobs = dissection_jobs(half, labels[: args.images], categories, one)
        if not args.skip_forward:
            jobs = {"forward": (forward_job(16), 16)} | jobs
        found = measure(jobs, args.turns)
        forward = None if args.skip_forward else found["forward"][0]
        show("One device", found, forward)
        if forward:
            both = found["thresholds"][0] + found["tally"][0]
            print(f"thresholds + tally: {both / forward:.2f} of a forward (at most 1.5, aim 1.0)")

        core = ("thresholds", "tally")
        for name, acts, maps, devices in (
            ("Twice the images", activations, labels, one),
            ("Half the units", half[..., : args.units // 2], labels[: args.images], one),
            ("Two devices", half, labels[: args.images], jax.devices()[:2]),
            ("Four devices", half, labels[: args.images], jax.devices()[:4]),
        ):
            jobs = dissection_jobs(acts, maps, categories, devices)
            show(name, measure({k: jobs[k] for k in core}, args.turns))


if __name__ == "__main__":
    main()
