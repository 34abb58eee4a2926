"""What a run will take, as far as it can be said before the first step: data, network, memory, disk, hours."""

import pathlib
import shutil
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import say
from mixaug_jax.dissection import Counting
from mixaug_jax.explain import memory
from mixaug_jax.models import build
from mixaug_jax.training import step as steps

_TRIPLE = 3  # a training step takes about three times the forward pass: forward, and two products backward
_GIB = 2**30


def forecast(config: ml_collections.ConfigDict, workdir: pathlib.Path | str) -> list[str]:
    """Lines about a run that is not begun: what it reads, how large the network is, and what the training will take.

    Hours are those of the multiplications at the pace of a product of matrices here: real steps take longer, by a factor of
    1.5 to 4. Nothing of the network is compiled.

    Args:
      config: checked settings.
      workdir: where the run will write.

    Raises:
      ValueError: settings or data that cannot work.
    """
    if config.weights:
        return [f"weights: imported from {config.weights}; nothing is trained"]
    sources = data.open_splits(config)
    sizes = [f"{len(s)} {name}" for name, s in sources.items() if s is not None]
    train = sources["train"]
    # As the training resolves it, so that steps and layers are those that will be run.
    config = config_lib.resolve(
        config,
        train_size=len(train),
        class_names=train.class_names,
        multi_label=train.multi_label,
    )
    model = build.build_model(config)
    net = build.as_net(config, model, build.variable_shapes(model, config))
    return [
        f"data: {config.data.name}, {', '.join(sizes)} images, {len(train.class_names)} classes",
        *_annotations(config),
        *_network(config, net),
        *_training(config, net, model, workdir),
    ]


def _annotations(config):
    """What the images that are dissected and explained know besides their class."""
    lines = []
    for section in ("dissect", "explain"):
        split = config.data[f"{config[section].split}_split"]
        source = data.open_source(split, config) if split else None
        known = [] if source is None else [
            f"{len(source.concept_names) - 1} concepts" * bool(source.concept_names),
            f"boxes of {len(source.box_names)} names" * bool(source.box_names),
        ]  # fmt: skip
        found = " and ".join(filter(None, known)) or "neither concepts nor boxes"
        lines.append(f"{section}: {config[section].split} images with {found}")
    # Groups of images have tables of their own; past this bound units are counted block by block.
    most = Counting.memory_mb / 1024
    return [*lines, f"dissect: tables of counts take at most {most:.1f} GiB of memory"]


def _network(config, net):
    """Size and layers of the network."""
    count = sum(x.size for x in jax.tree.leaves(net.variables.get("params", net.variables)))
    image = jax.ShapeDtypeStruct((1, *_view(config)), jnp.float32)
    shapes = jax.eval_shape(lambda net, x: net.capture(x, net.layers), net, image)
    layers = ", ".join(f"{name} {list(shapes[name].shape[1:])}" for name in net.layers)
    return [f"network: {config.resolved.model['name']}, {count:,} parameters", f"layers: {layers}"]


def _view(config):
    return config.data.size, config.data.size, len(config.data.mean)


def _training(config, net, model, workdir):
    """Steps, memory, disk and hours."""
    r, batch = config.resolved, config.data.batch_size
    share = batch // config.train.accumulate // jax.device_count()
    kept = share * memory.evaluation_bytes(net, _view(config))
    state = steps.state_shapes(model, steps.build_optimizer(config), config)
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    there = pathlib.Path(workdir).absolute()
    place = next(p for p in (there, *there.parents) if p.exists())
    free = shutil.disk_usage(place).free
    operations = _TRIPLE * batch * r.steps * _flops(config, net)
    hours = operations / (_pace() * jax.device_count()) / 3600
    return [
        f"training: {r.steps} steps of {batch} images on {jax.device_count()} device(s)",
        f"memory: about {(kept + 4 * stored) / _GIB:.2f} GiB a device",
        f"disk: {2 * stored / 2**20:.0f} MiB for two checkpoints, {free / _GIB:.1f} GiB free",
        f"time: {operations / 1e12:.1f} TFLOP, at least {hours:.2g} h at the pace of matrix products here",
    ]


def _flops(config, net):
    """Of the forward pass of one image, from the program before it is compiled."""
    image = jax.ShapeDtypeStruct((1, *_view(config)), jnp.float32)
    cost = jax.jit(lambda net, x: net.logits(x)).lower(net, image).cost_analysis()
    return (cost or {}).get("flops", 0.0)


def _pace():
    """Operations a second of a product of matrices on one device, measured for a moment."""
    side = 1024
    a = jnp.asarray(np.random.default_rng(0).normal(size=(side, side)), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    multiply(a).block_until_ready()
    began, times = time.monotonic(), 0
    while time.monotonic() - began < 0.2:
        multiply(a).block_until_ready()
        times += 1
    return 2 * side**3 * times / (time.monotonic() - began)


def say_forecast(config: ml_collections.ConfigDict, workdir: pathlib.Path | str) -> None:
    """Prints `forecast`."""
    for line in forecast(config, workdir):
        say.result(line)
