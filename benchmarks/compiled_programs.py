"""The programs that `compile_for` and `lowering` know by name: each as a jitted function and the shapes of its arguments.

Networks and images are shapes, so that nothing is computed. What explains and counts takes a small network unless its name says
otherwise: whether a program compiles does not depend on the size, what it costs does.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from mixaug_jax import config as config_lib
from mixaug_jax import training
from mixaug_jax.attribution import METHODS
from mixaug_jax.config import opening
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.data.source import Source
from mixaug_jax.dissection import resample, tables, thresholds
from mixaug_jax.explain import job as job_lib
from mixaug_jax.explain import programs, running
from mixaug_jax.mixing import MIXERS
from mixaug_jax.models import MODELS, Net, Preprocess, build
from mixaug_jax.occlusion import sweeping
from mixaug_jax.occlusion.grid import Grid, plan
from mixaug_jax.papers.rendergan import adversary, learning, making
from mixaug_jax.papers.rendergan.marker_options import GENERATORS, settings_of
from mixaug_jax.scores import SCORES
from mixaug_jax.scores.score import as_score, kind_of
from mixaug_jax.training import step as steps

IMAGENET = {"train_size": 1_281_167, "class_names": tuple(map(str, range(1000)))}
REPLICATED, SHARDED = devices_lib.REPLICATED, devices_lib.SHARDED
UNITS, CONCEPTS, CATEGORIES = 2048, 1200, 4  # of a dissection of ResNet-50's last layer by Broden
MIXED = 64  # images of a mixer alone, on each device


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function, the shapes of its arguments, and how many images one call is for, over all devices.

    `precision` is that of its matrix products, see `devices.precision`.
    """

    run: Callable
    arguments: tuple
    images: int
    precision: str = "default"

    def lower(self) -> Any:
        with devices_lib.precision(self.precision):
            return self.run.lower(*self.arguments)


def array(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def placed(tree, spec, devices):
    """Shapes with where their arrays lie."""
    sharding = NamedSharding(devices_lib.mesh(devices), spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def recipe(mixer: str, **changes: Any):
    """Resolved settings of the ImageNet recipe."""
    config = config_lib.get_config(mixer, "imagenet2012")
    config.update_from_flattened_dict(changes)
    return config_lib.resolve(config, **IMAGENET)


def train_step(devices: tuple, mixer: str, **changes: Any) -> Program:
    """The train step of the ImageNet recipe, with changes of its settings."""
    config = recipe(mixer, **changes)
    model, optimizer = build.build_model(config), training.build_optimizer(config)
    given = {"model": model, "optimizer": optimizer, "config": config}
    size, count = config.data.size, config.data.batch_size
    step = devices_lib.pmap(
        functools.partial(training.train_step, **given),
        (REPLICATED, SHARDED),
        REPLICATED,
        donate_argnums=0,
        devices=devices,
    )
    batch = {
        "image": array(count, size, size, 3, dtype=np.uint8),
        "label": array(count, dtype=np.int32),
        "seed": array(count, dtype=np.uint32),
    }
    state = placed(steps.state_shapes(**given), REPLICATED, devices)
    return Program(step, (state, placed(batch, SHARDED, devices)), count, config.precision)


def mixer_alone(devices: tuple, mixer: str) -> Program:
    """A mixer on images of 224 px, `MIXED` on each device."""
    config, count = recipe(mixer), MIXED * len(devices)

    def mix(seed, net, images, targets):
        shard = jax.lax.axis_index(devices_lib.AXIS)
        key = jax.random.key(seed)
        return steps.mixed(key, images, targets, config=config, shard=shard, net=net)[:2]

    specs = (REPLICATED, REPLICATED, SHARDED, SHARDED)
    mapped = devices_lib.pmap(mix, specs, SHARDED, devices=devices)
    rows = placed((array(count, 224, 224, 3), array(count, 1000)), SHARDED, devices)
    seed = placed(array(dtype=np.uint32), REPLICATED, devices)
    net = placed(network(side=224, classes=1000), REPLICATED, devices)
    return Program(mapped, (seed, net, *rows), count)


def network(name: str = "resnet18", side: int = 32, width: float = 0.125, classes: int = 10) -> Net:
    """A net whose variables are shapes."""
    model = MODELS[name](classes, width=width)
    variables = jax.eval_shape(model.init, jax.random.key(0), array(1, side, side, 3))
    return Net(model, variables, Preprocess(size=side, mean=(0.5,) * 3, std=(0.2,) * 3))


def resnet50() -> Net:
    return network("resnet50", 224, 1.0, 1000)


def dataset(side: int, size: int) -> Source:
    """Black images with a box in each."""

    def read(index):
        box = np.array([[0, 0, side // 2, side // 2]])
        image = np.zeros((side, side, 3), np.uint8)
        return {"image": image, "label": 0, "boxes": box, "box_labels": np.array([0])}

    return Source(read, size, tuple("0123456789"), box_names=("thing",))


def explained(devices: tuple, method: str = "", score: str = "", net: Net | None = None) -> Program:
    """A method, or a score (of the gradient, where it asks for explanations), on 16 images a device."""
    net = network() if net is None else net
    side, count = net.preprocess.size, 16 * len(devices)
    stability = score and kind_of(as_score(SCORES[score])) == "stability"
    methods = (method or "gradient",)
    options = job_lib.Options(memory_gb=8.0)
    job = job_lib.make_job(net, dataset(side, count), methods, (score,) if score else (), options)
    job = dataclasses.replace(job, at_once=min(job.at_once, 16))
    given = job.of_method(methods[0])
    reference = np.zeros((2, side, side, 3), np.float32)
    given |= running.of_reference(net, methods[0], job, reference, False)
    rows = running._row_shapes((side, side, 3))
    names = ("image", "label", "index")
    if method:
        task = programs.method_task(job.methods[method], given, job.at_once, devices)
    elif stability:
        task = running._explain_task(score, methods[0], given, job, devices)
    elif score in running._of_net(job):
        task = running._net_task(score, job, devices)
        names = tuple(running._asked(rows, job.scores[score]))
    else:
        task, names = running._map_task(job, devices), running._SEEN
    step = task._step(count)
    batch = {name: array(step, *rows[name].shape, dtype=rows[name].dtype) for name in names}
    arguments = (
        placed(net, REPLICATED, devices),
        placed(array(dtype=np.uint32), REPLICATED, devices),
        placed(jax.tree.map(lambda x: array(*x.shape, dtype=x.dtype), task.arrays), REPLICATED, devices),
        placed(batch, SHARDED, devices),
    )  # fmt: skip
    return Program(task.program, arguments, step, options.precision)


def occlusion(devices: tuple, evaluate: bool, net: Net | None = None) -> Program:
    """The ranking of the occlusion experiment, or one call of its removals."""
    net, grid, count = network() if net is None else net, Grid(), 16 * len(devices)
    side = net.preprocess.size
    batch = {"image": array(count, side, side, 3)}
    batch |= {name: array(count, dtype=np.int32) for name in ("index", "label", "by")}
    rank, cells = sweeping._programs(grid, devices)
    net = placed(net, REPLICATED, devices)
    given = (
        net,
        placed(batch, SHARDED, devices),
        placed(array(3), REPLICATED, devices),
        placed(array(dtype=np.uint32), REPLICATED, devices),
    )
    if not evaluate:
        return Program(rank, given, count, "highest")
    ranked = placed(jax.eval_shape(rank, *given), SHARDED, devices)
    made = plan(grid, (side, side, 3)).cells[: sweeping._CELLS]
    return Program(cells, (net, ranked, made), count, "highest")


def _stacked(devices, **state):
    shapes = {k: array(len(devices), *shape, dtype=np.int32) for k, shape in state.items()}
    return placed(shapes, SHARDED, devices)


DISSECTED = resample.Grid(
    (7, 7), (112, 112), "zero"
)  # ResNet-50's last layer, and Broden's label maps


def dissection_thresholds(devices: tuple) -> Program:
    """A pass of the thresholds of all units over 8 images a device."""
    bins, count = thresholds._BIN_BYTES // (4 * UNITS), 8 * len(devices)
    step, _ = thresholds._programs(DISSECTED, UNITS, bins, devices)
    one = {"following": (UNITS,), "least": (UNITS,), "most": (UNITS,)}
    state = _stacked(devices, counts=(UNITS * (bins + 1),), **one)
    rows = (array(count, 7, 7, UNITS), array(count, dtype=bool))
    interval = {name: array(UNITS, dtype=np.int32) for name in ("low", "last", "shift")}
    interval = placed(interval, REPLICATED, devices)
    return Program(step, (state, placed(rows, SHARDED, devices), interval), count)


def dissection_counts(devices: tuple, backend: str) -> Program:
    """Units against concepts on 8 images a device, each with 31 concepts (bits) or 4 labels a pixel (dense)."""
    count, pixels = 8 * len(devices), DISSECTED.pixels
    categories = tuple(k % CATEGORIES for k in range(CONCEPTS))
    step, _ = tables._programs(DISSECTED, backend, CONCEPTS, (-1, *categories[1:]), devices)
    rows = CONCEPTS + CATEGORIES
    state = _stacked(devices, table=(rows, UNITS), sizes=(rows,))
    there = {"there": array(count, dtype=np.int32), "activations": array(count, 7, 7, UNITS)}
    if backend == "bits":
        ids, words = (
            array(count, 32, dtype=np.int32),
            array(count, 32, pixels // 32, dtype=np.uint32),
        )
        labels = {"ids": ids, "words": words}
    else:
        labels = {"labels": array(count, 1, pixels, 4, dtype=np.int32)}
        labels["ids"] = array(count, rows, dtype=np.int32)
    given = placed(there | labels, SHARDED, devices)
    return Program(step, (state, given, placed(array(UNITS), REPLICATED, devices)), count)


def markers_at_published_size(generator: str):
    """Settings of RenderGAN's published size, with either generator."""
    return opening.open_config("rendergan:published", [f"markers.generator={generator}"])


def generator_step(devices: tuple, generator: str) -> Program:
    """The step of generator and discriminator at RenderGAN's published size."""
    config = markers_at_published_size(generator)
    modules = dict(
        zip(("generator", "discriminator"), learning.modules(settings_of(config)), strict=True)
    )
    given = modules | {"steps": config.markers.steps}
    step = devices_lib.pmap(
        functools.partial(adversary.train_step, seed=0, **given),
        (REPLICATED, SHARDED),
        (REPLICATED, REPLICATED),
        donate_argnums=0,
        devices=devices,
    )
    count, side = config.markers.batch_size, config.data.size
    state = placed(adversary.shapes(**given), REPLICATED, devices)
    batch = placed({"image": array(count, side, side, 1, dtype=np.uint8)}, SHARDED, devices)
    return Program(step, (state, batch), count, config.precision)


def decoder_step(devices: tuple, generator: str) -> Program:
    """The decoder's step at the same size, on pictures that the generator makes within it."""
    config = markers_at_published_size(generator)
    made, judge = learning.modules(settings_of(config))
    params = adversary.shapes(made, judge, config.markers.steps).average
    config = config_lib.resolve(config, train_size=20_000, class_names=tuple(map(str, range(12))))
    model, optimizer = build.build_model(config), training.build_optimizer(config)
    given = {"model": model, "optimizer": optimizer, "config": config}
    count, side = config.data.batch_size, config.data.size
    make = functools.partial(making.learned, generator=made, until="detail", size=side)
    step = devices_lib.pmap(
        functools.partial(steps.made_step, make=make, count=count // len(devices), **given),
        (REPLICATED, REPLICATED),
        REPLICATED,
        donate_argnums=0,
        devices=devices,
    )
    state = placed(steps.state_shapes(**given), REPLICATED, devices)
    return Program(step, (state, placed(params, REPLICATED, devices)), count, config.precision)


def _table() -> dict[str, Callable[[tuple], Program]]:
    p = functools.partial
    small = {"model.name": "resnet18", "model.width": 0.25}
    transformer = {"model.name": "deit_small", "mix.label": "attention"}
    found: dict[str, Callable] = {
        "train baseline": p(train_step, mixer="baseline"),
        "train baseline, bfloat16": p(train_step, mixer="baseline", **{"model.dtype": "bfloat16"}),
        "train baseline, 1024 images": p(train_step, mixer="baseline", **{"data.batch_size": 1024}),
        "train saliencymix": p(train_step, mixer="saliencymix"),
        "train DeiT-S, labels by attention": p(train_step, mixer="cutmix", **transformer),
        "train a small ResNet-18": p(train_step, mixer="baseline", **small),
        "train a small ResNet-18, bfloat16": p(
            train_step, mixer="baseline", **small, **{"model.dtype": "bfloat16"}
        ),
        "thresholds": dissection_thresholds,
        "counts, bits": p(dissection_counts, backend="bits"),
        "counts, dense": p(dissection_counts, backend="dense"),
        "occlusion ranking": p(occlusion, evaluate=False),
        "occlusion cells": p(occlusion, evaluate=True),
    }
    for name in GENERATORS:
        found[f"RenderGAN's generator, {name}"] = p(generator_step, generator=name)
        found[f"RenderGAN's decoder, {name}"] = p(decoder_step, generator=name)
    found |= {f"mixer {name}": p(mixer_alone, mixer=name) for name in MIXERS}
    found |= {f"method {name}": p(explained, method=name) for name in METHODS}
    found |= {f"score {name}": p(explained, score=name) for name in SCORES}
    found |= {
        f"ResNet-50 {kind} {name}": p(_of_resnet50, p(explained, **{kind: name}))
        for kind, name in (("method", "integrated_gradients"), ("score", "deletion"))
    }
    return found | {"ResNet-50 occlusion cells": p(_of_resnet50, p(occlusion, evaluate=True))}


def _of_resnet50(make: Callable, devices: tuple) -> Program:
    return make(devices, net=resnet50())


PROGRAMS = _table()
