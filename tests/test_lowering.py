"""Every program lowers for TPU and CUDA from this machine: nothing that is traced asks which backend it has."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
import toy

from mixaug_jax import config as config_lib
from mixaug_jax import scores, training
from mixaug_jax.attribution import METHODS, readout, readout_training
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.dissection import (
    activations,
    formula_counts,
    inserting,
    interventions,
    resample,
    tables,
    thresholds,
)
from mixaug_jax.explain import examples, job, programs, running
from mixaug_jax.mixing import MIXERS
from mixaug_jax.models import MODELS, Net, Preprocess, build, upernet
from mixaug_jax.occlusion import sweeping
from mixaug_jax.occlusion.grid import Grid, plan
from mixaug_jax.papers.bottleneck_table import row_results
from mixaug_jax.papers.relevance.panels import (
    concept_rows,
    flow_routes,
    flow_training,
    seen,
)
from mixaug_jax.papers.relevance.panels import flow as flows
from mixaug_jax.papers.rendergan import adversary, few, making, map_generator
from mixaug_jax.scores import SCORES, comparison
from mixaug_jax.scores.score import as_score, kind_of
from mixaug_jax.training import step as steps

ELSEWHERE = ("tpu", "cuda")
SIDE, CLASSES, ROWS = 32, 4, 8
SPECS = (devices_lib.REPLICATED, devices_lib.SHARDED)


def lower(program, *arguments):
    """The text of a jitted program for both platforms."""
    return program.trace(*arguments).lower(lowering_platforms=ELSEWHERE).as_text()


def array(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def integers(*shape):
    return array(*shape, dtype=np.int32)


def network(name="tiny", side=SIDE, **options):
    """A net whose variables are shapes."""
    model = MODELS[name](CLASSES, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), array(1, side, side, 3))
    return Net(model, variables, Preprocess(size=side, mean=(0.5,) * 3, std=(0.2,) * 3))


@pytest.fixture(autouse=True)
def no_backend(monkeypatch):
    """A program that would choose while it is traced would lower, for the wrong platform."""

    def refuse():
        raise AssertionError("a backend was asked for while tracing")

    monkeypatch.setattr(jax, "default_backend", refuse)


@pytest.fixture(scope="module")
def devices():
    return tuple(jax.devices())


def trained(method="baseline", **changes):
    """Resolved settings, and a step's keywords."""
    config = toy.config(method)
    config.data.size = SIDE
    config.update_from_flattened_dict(changes)
    config = config_lib.resolve(config, train_size=64, class_names=tuple("abcd"))
    model, optimizer = build.build_model(config), training.build_optimizer(config)
    return config, {"model": model, "optimizer": optimizer, "config": config}


def batch():
    return {"image": array(16, SIDE, SIDE, 3, dtype=np.uint8), "label": integers(16),
            "seed": array(16, dtype=np.uint32)}  # fmt: skip


FORMS = {
    "baseline": {},
    "bfloat16": {"model.dtype": "bfloat16"},
    "accumulated": {"train.accumulate": 2, "train.ema": 0.9},
    "recomputed": {"model.remat": True},
    "synchronized": {"model.sync_bn": True},
    "adamw": {
        "model.name": "vit_micro",
        "model.width": 0.1,
        "train.optimizer": "adamw",
        "model.drop_path": 0.1,
    },
}


def lower_step(method, changes):
    _, given = trained(method, **changes)
    step = functools.partial(training.train_step, **given)
    mapped = devices_lib.pmap(step, SPECS, devices_lib.REPLICATED, donate_argnums=0)
    text = lower(mapped, steps.state_shapes(**given), batch())
    assert "stablehlo.all_reduce" in text
    assert "callback" not in text  # nothing of a step runs on the host


@pytest.mark.parametrize("form", FORMS)
def test_train_step(form):
    lower_step("baseline", FORMS[form])


@pytest.mark.parametrize("mixer", MIXERS)
def test_train_step_that_mixes(mixer):
    lower_step(mixer, {})


@pytest.mark.parametrize("form", ["adamw", "recomputed"])
def test_train_step_with_labels_by_attention(form):
    lower_step("cutmix", FORMS["adamw"] | FORMS[form] | {"mix.label": "attention"})


def test_train_step_with_labels_by_attention_at_tokens():
    lower_step("tokenmix", FORMS["adamw"] | {"mix.scores": "attention"})


@pytest.mark.parametrize("name", ["resnet50", "binary_resnet18", "efficientnet_lite0"])
def test_gradients(name):
    """1x1, strided and depthwise convolutions and the max pool, which have ways of their own on CPU; one block a group."""
    whole = MODELS[name](CLASSES, width=1 / 16)
    model = whole.clone(blocks=(1,) * len(whole.blocks))
    x = array(2, SIDE, SIDE, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    lower(jax.jit(jax.grad(lambda v, x: model.apply(v, x).sum(), (0, 1))), variables, x)


def test_made_step():
    _, given = trained()

    def make(key, count, arrays):
        image = jax.random.bits(key, (count, SIDE, SIDE, 3), np.uint8) + arrays
        return {"image": image, "label": jax.random.randint(key, (count,), 0, CLASSES)}

    step = functools.partial(steps.made_step, make=make, count=4, **given)
    specs = (devices_lib.REPLICATED, devices_lib.REPLICATED)
    mapped = devices_lib.pmap(step, specs, devices_lib.REPLICATED)
    lower(mapped, steps.state_shapes(**given), array(dtype=np.uint8))


@pytest.mark.parametrize("kind", ["few", "maps"])
def test_step_of_a_generator(kind):
    made = {
        "few": few.Few(SIDE, 0.7, devices_lib.AXIS),
        "maps": map_generator.Maps(SIDE, 0.7, 2, devices_lib.AXIS),
    }
    modules = made[kind], adversary.Discriminator(2, devices_lib.AXIS)
    given = {"generator": modules[0], "discriminator": modules[1], "steps": 10}
    step = functools.partial(adversary.train_step, **given, seed=0)
    mapped = devices_lib.pmap(step, SPECS, devices_lib.REPLICATED, donate_argnums=0)
    real = {"image": array(16, SIDE, SIDE, 1, dtype=np.uint8)}
    assert "stablehlo.all_reduce" in lower(mapped, adversary.shapes(**given), real)


@pytest.mark.parametrize("make", [making.plain, making.handmade])
def test_markers_that_are_made(make):
    made = functools.partial(make, count=2, arrays=(), size=SIDE, spin=0.7)
    lower(jax.jit(made), jax.eval_shape(lambda: jax.random.key(0)))


def test_eval_step():
    config, given = trained()
    step = functools.partial(training.eval_step, model=given["model"], config=config)
    shapes = build.variable_shapes(given["model"], config)
    mapped = devices_lib.pmap(step, SPECS, devices_lib.REPLICATED)
    lower(mapped, shapes, batch() | {"mask": array(16)})


def test_first_weights():
    _, given = trained()
    lower(jax.jit(steps._init(**given)), jax.random.key(0))


def test_forward_of_a_dissection(devices):
    lower(activations._program(("relu1", "fc"), devices), network(), array(ROWS, SIDE, SIDE, 3))


GRID = resample.Grid((4, 4), (16, 16), "zero")


def stacked(devices, **state):
    return {name: integers(len(devices), *shape) for name, shape in state.items()}


def test_interventions(devices):
    """What goes once through the network, then the rest of it under sets of units, and the sums in its place."""
    begin, run, add = interventions._programs("relu3", devices)
    batch = {"image": array(ROWS, SIDE, SIDE, 3), "label": integers(ROWS)}
    lower(begin, network(), batch)
    known = {"h": array(ROWS, 16, 16, 8), "mean": array(ROWS, 8), "labels": integers(ROWS)}
    known["image"] = batch["image"]
    sets, value = array(16, 8, dtype=bool), array(8)
    lower(run, network(), known, sets, value)
    lower(add, network(), known, sets, value, array(8, CLASSES), array(CLASSES))
    image, mask = array(SIDE, SIDE, 3), array(16, 16, dtype=bool)
    inserted = functools.partial(inserting._inserted.trace, layer="relu3")
    traced = inserted(network(), image, integers(2), mask, array())
    traced.lower(lowering_platforms=ELSEWHERE)


def test_thresholds(devices):
    units, bins = 6, 16
    step, reduce = thresholds._programs(GRID, units, bins, devices)
    state = stacked(
        devices, counts=(units * (bins + 1),), following=(units,), least=(units,), most=(units,)
    )
    interval = {name: integers(units) for name in ("low", "last", "shift")}
    lower(step, state, (array(ROWS, 4, 4, units), array(ROWS, dtype=bool)), interval)
    lower(reduce, state)


@pytest.mark.parametrize("backend", ["bits", "dense"])
def test_counts(devices, backend):
    units, concepts, categories = 6, 5, (-1, 0, 0, 1, 1)
    step, reduce = tables._programs(GRID, backend, concepts, categories, devices)
    rows = 21 * (concepts + 2)  # groups of images and a shuffle
    state = stacked(devices, table=(rows, units), sizes=(rows,))
    labels = {"labels": integers(ROWS, 2, 256, 1), "ids": integers(ROWS, 2 * (concepts + 2))}
    if backend == "bits":
        labels = {"ids": integers(ROWS, 32), "words": array(ROWS, 32, 8, dtype=np.uint32)}
    given = {"activations": array(ROWS, 4, 4, units), "there": integers(ROWS)}
    lower(step, state, given | labels, array(units))
    lower(reduce, state)


def test_counts_of_formulas(devices):
    concepts, units, beam, pairings = 5, 3, 10, 2
    step, reduce = formula_counts._programs(GRID, devices)
    state = stacked(devices, table=(pairings * concepts, 2 * units * beam))
    constants = {"thresholds": array(units), "places": integers(pairings, units)}
    constants["operators"] = integers(pairings, units, beam, 1)
    batch = {"activations": array(ROWS, 4, 4, units), "there": integers(ROWS)}
    batch |= {
        "ids": integers(ROWS, pairings, 32),
        "leaves": integers(ROWS, pairings, units, beam, 2),
    }
    batch["words"] = array(ROWS, pairings, 32, 8, dtype=np.uint32)
    lower(step, state, batch, constants)
    lower(reduce, state)


def explained(methods, asked, monkeypatch, devices):
    """Lowers what `running.check` and `check_method` would trace: the programs that explain a data set."""

    def lowered(task, net, rows, total):
        step = task._step(total)
        specs = {k: array(step, *v.shape, dtype=v.dtype) for k, v in rows.items()}
        seen.append(lower(task.program, net, np.uint32(0), task.arrays, specs))

    of_tokens = any(METHODS[name].attention for name in methods)
    sizes = {"dim": 6, "depth": 2, "heads": 2, "patch": 8}
    seen, net = [], network("vit_of_size", **sizes) if of_tokens else network(width=0.5)
    monkeypatch.setattr(programs.Task, "check", lowered)
    source = dataclasses.replace(toy.source(side=SIDE, size=ROWS), box_names=("thing",))
    find = examples.finder(net, source, "true", "boxes")
    # Few evaluations at once: how many there are changes shapes, not operations.
    chosen = job.make_job(net, source, methods, asked, job.Options(max_images=ROWS))
    chosen = dataclasses.replace(chosen, at_once=4)
    reference = np.zeros((2, SIDE, SIDE, 3), np.float32)
    running.check(net, source, find, dataclasses.replace(chosen, methods={}), reference)
    for name in methods:
        running.check_method(net, source, name, chosen, reference, devices=devices)
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_method(method, monkeypatch, devices):
    assert len(explained((method,), (), monkeypatch, devices)) == 2  # and that of no scores


@pytest.mark.parametrize("statistic", ["top", "entropy"])
def test_gradient_paths(statistic):
    found = functools.partial(METHODS["gradient_paths"], statistic=statistic)
    lower(jax.jit(jax.vmap(found, (None, 0, 0))), network(), array(2, SIDE, SIDE, 3), integers(2))


@pytest.mark.parametrize("score", SCORES)
def test_score(score, monkeypatch, devices):
    stability = kind_of(as_score(SCORES[score])) == "stability"
    methods = ("gradient",) if stability else ()
    assert explained(methods, (score,), monkeypatch, devices)


def test_readout(devices):
    net, image = network(width=0.5), array(SIDE, SIDE, 3)
    blank = readout.blank(net, image)
    given = readout_training.Training(batch_size=ROWS)
    state = jax.eval_shape(optax.adam(given.lr).init, blank.params)
    rows = {"image": array(ROWS, SIDE, SIDE, 3), "real": array(ROWS, dtype=bool)}
    rows |= {"index": integers(ROWS), "label": integers(ROWS)}
    step = readout_training._step_program(given, blank.layers, devices)
    assert "stablehlo.all_reduce" in lower(step, net, blank, state, np.uint32(0), rows)
    moments = readout_training._moments_program(blank.layers, devices)
    lower(moments, net, rows["image"], rows["real"])


def test_degradation(devices):
    task = programs.net_task(row_results.DEGRADED, {"window": 8, "gone": (0, 3, 16)}, 4, devices)
    rows = {"ranking": integers(ROWS, 2, 4, 4), "image": array(ROWS, SIDE, SIDE, 3)}
    rows |= {"label": integers(ROWS), "predicted": integers(ROWS)}
    lower(task.program, network(width=0.5), np.uint32(0), task.arrays, rows)


def test_logits(devices):
    lower(examples._forward(devices), network(), array(ROWS, SIDE, SIDE, 3))


@pytest.mark.usefixtures("unchecked")  # a ranking of shapes is no ranking
def test_sweep(devices):
    grid, x = Grid(), array(ROWS, SIDE, SIDE, 3)
    rows = {"image": x} | {name: integers(ROWS) for name in ("index", "label", "by")}
    given = network(), rows, array(3), np.uint32(0)
    rank, evaluate = sweeping._programs(grid, devices)
    lower(examples.predictor(devices), given[0], x)
    lower(rank, *given)
    cells = plan(grid, (SIDE, SIDE, 3)).cells[: sweeping._CELLS]
    lower(evaluate, given[0], jax.eval_shape(rank, *given), cells)


def test_deletion_across_models():
    areas = functools.partial(comparison._areas, removal=scores.Removal(window=8))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    shapes = array(2, SIDE, SIDE), array(2, SIDE, SIDE, 3), integers(2)
    lower(jax.jit(areas), network(), *shapes, keys)


def test_segmenter():
    variables = jax.eval_shape(upernet.UPerNet().init, jax.random.key(0), array(1, 64, 64, 3))
    image = array(24, 24, 3, dtype=np.uint8)
    given = {"inner": (64, 64), "outer": (24, 24)}
    traced = upernet.probabilities.trace(variables, image, **given)
    traced.lower(lowering_platforms=ELSEWHERE)
    found = jax.eval_shape(functools.partial(upernet.probabilities, **given), variables, image)
    lower(upernet._most_probable, found)


def small_flow(training):
    init = functools.partial(flows.init, widths=training.widths, steps=training.depth)
    return jax.eval_shape(init, jax.random.key(0), array(4, 8, 8, 3))


def test_flow():
    training = flow_training.Training(steps=2, batch=8, depth=2, widths=(4, 4))
    state = jax.eval_shape(
        functools.partial(flow_training.start, training=training), small_flow(training)
    )
    step = flow_training._program(training, 8)
    images, number = array(16, 8, 8, 3, dtype=np.uint8), integers()
    assert "stablehlo.all_reduce" in lower(step, state, images, number, number)


def test_panels(devices):
    net, training = network(width=0.5), flow_training.Training(depth=1, widths=(4,))
    lower(
        seen._program(seen._logit, devices),
        net,
        np.uint32(0),
        {},
        {"image": array(ROWS, SIDE, SIDE, 3)},
    )
    given = {"flow": small_flow(training), "targets": array(2)}
    rows = {"image": array(ROWS, 8, 8, 3, dtype=np.uint8)}
    lower(flow_routes._program(SIDE, devices), net, np.uint32(0), given, rows)
    key = jax.eval_shape(lambda: jax.random.key(0))
    concept_rows._nmf.trace(array(64, 8), key, 3).lower(lowering_platforms=ELSEWHERE)
