"""For whoever has a GPU or a TPU: are the results right there, and how fast is it? One table.

    python -m benchmarks.accelerator            # under 8 minutes on an accelerator
    python -m benchmarks.accelerator --small    # minutes on a CPU, to show that it runs

Checks: functions of every floor on the accelerator, under "highest" and "default" precision, beside the same functions on this
machine's CPU under "highest" (a difference is a share of the largest value); integers beside those of NumPy; one device beside
all; and a run that is cut short and goes on, with `deterministic`, beside one that is not, bit for bit. Under "default" a
difference is reported and fails nothing: TPUs multiply in bfloat16 there, GPUs in TF32.

Figures: images a second of all devices together. The share of peak is of the products of convolutions and dense layers, three
times the forward pass, beside what the manufacturer prints for the type of number; on other devices beside one large matrix
product. PyTorch's train step is timed where PyTorch is installed and has a GPU.
"""

import argparse
import dataclasses
import functools
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import mixaug_jax
from benchmarks.timing import interleaved, timeit
from benchmarks.train_step import forward_flops, torch_step
from mixaug_jax import config as config_lib
from mixaug_jax import dissection, training
from mixaug_jax.attribution import METHODS
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import walk
from mixaug_jax.mixing import MIXERS, fine_grained_saliency
from mixaug_jax.models import MODELS, Net, Preprocess, build
from mixaug_jax.scores import SCORES
from mixaug_jax.training import step as steps

LIMIT = 2e-3  # of a difference under "highest", as a share of the largest value
# What one device does at most with bfloat16 (float32 under "default" on a TPU) as the manufacturers print it, by a part of its
# name; the first that fits.
PEAKS = {"h100": 989e12, "h200": 989e12, "a100": 312e12, "v5 lite": 197e12, "v5e": 197e12, "v5p": 459e12, "v6": 918e12,
         "v4": 275e12}  # fmt: skip
TINY_RUN = {"data.size": 32, "data.batch_size": 32, "data.scenes.train": 128, "data.scenes.validation": 32,
            "data.scenes.test": 32, "eval.batch_size": 32, "model.name": "tiny", "model.width": 2.0, "train.log_every": 4,
            "train.epochs": 2, "train.checkpoint_every": 1.0, "train.keep_every": 1.0, "deterministic": True}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work there is; `batch` is images on each device."""

    network: str = "resnet50"
    width: float = 1.0
    side: int = 224
    batch: int = 64
    classes: int = 1000
    units: int = 2048
    steps: int = 16
    repeats: int = 5
    bodies: tuple[str, ...] = ("float32", "bfloat16")


SMALL = Size("resnet18", 0.125, 32, 4, 10, 64, 4, 1)
TINIEST = Size("tiny", 1.0, 16, 2, 4, 8, 2, 1, ("bfloat16",))


def network(size: Size) -> Net:
    model = MODELS[size.network](size.classes, width=size.width)
    with devices_lib.precision("highest"):
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size.side, size.side, 3)))
    return Net(model, variables, Preprocess(size=size.side, mean=(0.5,) * 3, std=(0.25,) * 3))


def cases(size: Size) -> dict[str, Callable]:
    """{name: f(net, images [2,h,w,3], labels [2]) -> arrays}; each is deterministic."""

    def of_method(name, **options):
        def run(net, images, labels):
            one = functools.partial(METHODS[name], **options)
            return jax.vmap(one, (None, 0, 0))(net, images, labels)

        return run

    def of_score(name, **options):
        def run(net, images, labels):
            def one(net, image, label):
                return SCORES[name](image.sum(-1), net, image, label, **options)

            return jax.vmap(one, (None, 0, 0))(net, images, labels)

        return run

    def of_mixer(name):
        def run(net, images, labels):
            targets = jax.nn.one_hot(labels, size.classes)
            return MIXERS[name](jax.random.key(3), images, targets)

        return run

    def learned(net, images, labels):
        def loss(params):
            variables = {**net.variables, "params": params}
            logits, _ = net.model.apply(variables, images, True, mutable="batch_stats")
            return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()

        return jax.grad(loss)(net.variables["params"])

    def saliency(net, images, labels):
        bright = jnp.clip(60 * images + 128, 0, 255).astype(jnp.uint8)
        return fine_grained_saliency(bright).astype(jnp.float32)

    window = max(2, size.side // 4)
    return {
        "logits": lambda net, images, labels: net.logits(images),
        "gradient of the weights": learned,
        "cutmix": of_mixer("cutmix"),
        "fmix": of_mixer("fmix"),
        "saliency map": saliency,
        "gradient": of_method("gradient"),
        "integrated_gradients": of_method("integrated_gradients", steps=size.steps),
        "guided_backprop": of_method("guided_backprop"),
        "gradcam": of_method("gradcam"),
        "lrp": of_method("lrp"),
        "occlusion": of_method("occlusion", window=window, stride=window),
        # 8 x 8 tiles, so many of them at a step that there are `steps`.
        "deletion": of_score("deletion", window=size.side // 8, step=64 // size.steps),
    }


def worst(a, b) -> float:
    """The largest difference of two trees, each leaf's as a share of its largest value."""

    def one(x, y):
        x, y = np.asarray(x, float), np.asarray(y, float)
        return np.abs(x - y).max() / max(np.abs(y).max(), 1e-30)

    return max(jax.tree.leaves(jax.tree.map(one, a, b)))


def check_values(size: Size) -> list[tuple]:
    """Rows of each case under both precisions, beside this machine's CPU under "highest"."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, size.side, size.side, 3)).astype(np.float32)
    labels = rng.integers(size.classes, size=2).astype(np.int32)
    net, rows = network(size), []
    host, device = jax.devices("cpu")[0], jax.devices()[0]

    def at(where, run, precision):
        with devices_lib.precision(precision), jax.default_device(where):
            return jax.device_get(jax.jit(run)(*jax.device_put((net, images, labels), where)))

    for name, run in cases(size).items():
        expected = at(host, run, "highest")
        for precision in ("highest", "default"):
            found = worst(at(device, run, precision), expected)
            fine = found <= LIMIT if precision == "highest" else math.isfinite(found)
            rows.append((f"{name}, {precision}", f"{found:.1e}", verdict(fine)))
    return rows


def verdict(fine: bool) -> str:
    return "ok" if fine else "WRONG"


def stored(size: Size, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations [N,4,4,U] and label maps [N,16,16,1] of 5 concepts."""
    rng = np.random.default_rng(1)
    maps = np.maximum(rng.normal(size=(images, 4, 4, size.units)), 0).astype(np.float32)
    return maps, rng.integers(0, 6, (images, 16, 16, 1))


def check_integers(size: Size) -> list[tuple]:
    """Thresholds and counts of a dissection: NumPy's, and the same on one device and on all."""
    maps, labels = stored(size, 6 * jax.device_count())
    ordered = np.sort(maps.reshape(-1, size.units), 0)
    found, counted = [], []
    for devices in (jax.devices()[:1], jax.devices()):
        found.append(dissection.quantile(maps, 0.1, over="raw", devices=devices))
        tally = dissection.tally(maps, np.float32(ordered[-len(ordered) // 8]), labels, 6, devices=devices)  # fmt: skip
        counted.append(jax.tree.map(np.asarray, dataclasses.asdict(tally)))
    expected = np.quantile(ordered, 0.9, axis=0)
    same = jax.tree.map(np.array_equal, *counted)
    return [
        ("thresholds beside NumPy", "", verdict(np.allclose(found[1], expected, 1e-6, 0))),
        ("thresholds, one device and all", "", verdict(np.array_equal(*found))),
        ("counts, one device and all", "", verdict(all(jax.tree.leaves(same)))),
    ]


def trainer(size: Size, mixer: str, devices, **changes):
    """f() that takes a step of the ImageNet recipe and returns the state and its metrics, and how many images it takes."""
    config = config_lib.get_config(mixer, "imagenet2012")
    count = size.batch * (len(devices) if devices else jax.device_count())
    changes |= {"data.size": size.side, "data.batch_size": count, "model.name": size.network}
    config.update_from_flattened_dict(changes | {"model.width": size.width})
    names = tuple(map(str, range(size.classes)))
    config = config_lib.resolve(config, train_size=100 * count, class_names=names)
    model, optimizer = build.build_model(config), training.build_optimizer(config)
    given = {"model": model, "optimizer": optimizer, "config": config}
    specs = devices_lib.REPLICATED, devices_lib.SHARDED
    run = functools.partial(training.train_step, **given)
    step = devices_lib.pmap(run, specs, devices_lib.REPLICATED, donate_argnums=0, devices=devices)
    rng = np.random.default_rng(2)
    here = size.batch * len(walk.own(walk.chosen(devices)))  # of a job each process has its part
    batch = {
        "image": rng.integers(256, size=(here, size.side, size.side, 3), dtype=np.uint8),
        "label": rng.integers(size.classes, size=here, dtype=np.int32),
        "seed": np.arange(here, dtype=np.uint32),
    }
    batch = devices_lib.shard_batch(batch, devices)
    state = [devices_lib.replicate(jax.device_get(steps.init_state(**given)), devices), None]

    def run_step():
        state[:] = step(state[0], batch)
        return state

    return run_step, count


def check_devices(size: Size) -> list[tuple]:
    """A train step on one device beside one on all, with batch statistics over all."""
    everywhere = dataclasses.replace(size, batch=2)
    alone = dataclasses.replace(size, batch=2 * jax.device_count())
    same = {
        "model.dtype": "float32",
        "model.sync_bn": True,
        "data.jitter": 0.0,
        "data.lighting": 0.0,
    }
    with devices_lib.precision("highest"):
        losses = [
            float(trainer(sized, "baseline", devices, **same)[0]()[1]["loss"])
            for sized, devices in ((alone, jax.devices()[:1]), (everywhere, None))
        ]
    difference = abs(losses[0] - losses[1]) / abs(losses[0])
    return [("train step, one device and all", f"{difference:.1e}", verdict(difference < 1e-4))]


def check_resume() -> list[tuple]:
    """A run of two epochs, and the same cut short after the first and gone on with."""
    config = config_lib.get_config("cutmix", "scenes")
    config.update_from_flattened_dict(TINY_RUN)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder, "whole"), Path(folder, "cut")
        step = mixaug_jax.train(config, whole)["step"]
        shutil.copytree(whole, cut)
        shutil.rmtree(cut / "checkpoints" / str(step))
        mixaug_jax.train(config, cut)
        a, b = (jax.device_get(mixaug_jax.load(path).variables) for path in (whole, cut))
    same = all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))
    return [("a run cut short and gone on with, bit for bit", "", verdict(same))]


def peak() -> tuple[float, str]:
    """Operations a second of all devices, and where the number is from."""
    kind = jax.devices()[0].device_kind.lower()
    for name, flops in PEAKS.items():
        if name in kind:
            return flops * jax.device_count(), "the manufacturer's"
    a = jnp.ones((1024, 1024))
    product = jax.jit(jnp.matmul)
    return 2 * 1024**3 / timeit(lambda: product(a, a)), "of one large matrix product"


def training_figures(size: Size) -> list[tuple]:
    """Images a second of the train step, its share of peak, and what mixing takes of it."""
    most, source = peak()
    shape = jax.ShapeDtypeStruct((1, size.side, size.side, 3), np.float32)
    flops = 3 * forward_flops(MODELS[size.network](size.classes, width=size.width), shape)
    rows = []
    for name in size.bodies:
        body = {"model.dtype": name}
        made = {m: trainer(size, m, None, **body) for m in ("baseline", "cutmix", "saliencymix")}
        seconds = interleaved({m: run for m, (run, _) in made.items()}, size.repeats)
        images = made["baseline"][1] / seconds["baseline"]
        share = f"{images * flops / most:.1%} of peak ({source})"
        rows.append((f"train, {name}", f"{images:,.1f} images/s", share))
        for mixer in ("cutmix", "saliencymix"):
            share = 1 - seconds["baseline"] / seconds[mixer]
            pace = f"{made[mixer][1] / seconds[mixer]:,.1f} images/s"
            rows.append((f"train, {name}, {mixer}", pace, f"mixing {share:.1%}"))
    return rows + torch_figures(size)


def torch_figures(size: Size) -> list[tuple]:
    try:
        import torch
    except ImportError:
        return [("train, PyTorch", "not installed", "")]
    if (
        size.network not in ("resnet18", "resnet50")
        or size.width != 1
        or not torch.cuda.is_available()
    ):
        return [("train, PyTorch", "not timed", "no GPU, or another network")]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size.batch, size.side, size.side, 3)).astype(np.float32)
    model = MODELS[size.network](size.classes)
    with torch.device("cuda"):
        run = torch_step(model, x, rng.integers(size.classes, size=size.batch))
    seconds = timeit(run, size.repeats)
    return [("train, PyTorch, float32", f"{size.batch / seconds:,.1f} images/s", "one GPU")]


def other_figures(size: Size) -> list[tuple]:
    """Images a second of what looks at a network."""
    net, count = network(size), size.batch * jax.device_count()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, size.side, size.side, 3)).astype(np.float32)
    labels = rng.integers(size.classes, size=count).astype(np.int32)
    maps, segments = stored(size, count)
    thresholds = np.ones(size.units, np.float32)
    spec = devices_lib.REPLICATED, devices_lib.SHARDED, devices_lib.SHARDED
    deletion = devices_lib.pmap_inference(cases(size)["deletion"], spec, devices_lib.SHARDED)
    given = devices_lib.replicate(net), *devices_lib.shard_batch((images, labels))
    options = {"options": {"steps": size.steps}, "precision": "default"}
    runs = {
        "dissection, thresholds": lambda: dissection.quantile(maps, 0.01, size=(16, 16)),
        "dissection, counts": lambda: dissection.tally(maps, thresholds, segments, 6).unit,
        f"integrated gradients, {size.steps} steps": lambda: mixaug_jax.attribute(
            net, images, labels, "integrated_gradients", **options
        ),
        f"deletion, {size.steps} steps": lambda: deletion(*given),
    }
    repeats = min(size.repeats, 2)
    return [
        (name, f"{count / timeit(run, repeats):,.1f} images/s", "") for name, run in runs.items()
    ]


def table(size: Size) -> list[tuple]:
    checks = check_values(size) + check_integers(size) + check_devices(size) + check_resume()
    return checks + training_figures(size) + other_figures(size)


def main(size: Size | None = None) -> bool:
    """Prints the table; returns whether everything is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    began, device = time.monotonic(), jax.devices()[0]
    if size is None:
        size = SMALL if parser.parse_args().small else Size()
    rows = table(size)
    print(
        f"\n{jax.device_count()} x {device.device_kind} ({device.platform}), jax {jax.__version__}, {size}\n"
    )
    print("| what | found | |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    wrong = [row[0] for row in rows if row[2] == "WRONG"]
    print(f"\n{len(wrong)} wrong; {time.monotonic() - began:.0f} s")
    return not wrong


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
