"""The precision of a public call is its argument: it depends on nothing that ran before, and changes nothing that runs after.

On CPU all precisions are the same, so the network here tells which one it was traced under.
"""

import pathlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
import toy

import mixaug_jax
from mixaug_jax import scores
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.dissection.result import Options as DissectOptions
from mixaug_jax.explain.job import Options as ExplainOptions
from mixaug_jax.models import Net
from mixaug_jax.models.layers import StagedModel
from mixaug_jax.occlusion.grid import Grid
from mixaug_jax.occlusion.sweeping import Options as SweepOptions
from mixaug_jax.occlusion.sweeping import sweep
from mixaug_jax.training import step as steps

NAMES = (None, *devices_lib.PRECISIONS)


class Telling(StagedModel):
    """Multiplies what it sees by the number of the precision that holds while it is traced."""

    layers: ClassVar = ("pixels", "fc")

    def run(self, layer: str, x, train: bool):
        if layer == "pixels":
            return x * (1 + NAMES.index(jax.config.jax_default_matmul_precision))
        return self.dense("fc", jnp.square(x).mean((1, 2)), 2)


SOURCE = planted.source(6)
NET = Net(Telling(), Telling().init(jax.random.key(0), np.zeros((1, 16, 16, 3))), planted.shares)
IMAGES = np.stack([planted.shares(SOURCE[i]["image"]) for i in range(6)])
LABELS = np.zeros(6, np.int32)


def attribute(precision):
    return mixaug_jax.attribute(NET, IMAGES, LABELS, "gradient", precision=precision), precision


def evaluate(precision):
    options = ExplainOptions(precision=precision, label="true")
    found = mixaug_jax.evaluate(
        NET, SOURCE, methods=("gradient",), scores=("deletion",), options=options
    )["gradient"]
    told = np.concatenate([found.heat.ravel(), *found.scores.values()])
    return told, found.settings["precision"]


def dissect(precision):
    options = DissectOptions(precision=precision, shuffles=0, random_baseline=False, size=16)
    found = mixaug_jax.dissect(NET, SOURCE, ("pixels",), options)["pixels"]
    return found.top_activations, found.settings["options"]["precision"]


def occlude(precision):
    grid = Grid(window=4, rankings=("gradient",), shares=(20,), values=("zero",))
    options = SweepOptions(grid, ("true",), precision=precision)
    found = sweep(NET, SOURCE, range(4), options)
    return found.loss, found.settings["precision"]


def delete(precision):
    found = scores.cross_model_deletion(
        {"one": NET}, {"one": IMAGES.sum(-1)}, IMAGES, LABELS, scores.Removal(window=4),
        precision=precision,
    )  # fmt: skip
    return found["per_image"], found["precision"]


CALLS = {f.__name__: f for f in (attribute, evaluate, dissect, occlude, delete)}


@pytest.mark.parametrize("name", CALLS)
def test_precision_is_an_argument_and_is_recorded(name):
    found, settings = zip(*(CALLS[name](p) for p in ("high", "highest")), strict=True)
    assert settings == ("high", "highest")
    assert not np.array_equal(*found, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_unknown_precision(name):
    with pytest.raises(ValueError, match="precision must be one of default, high, highest"):
        CALLS[name]("low")


@pytest.mark.parametrize("name", CALLS)
def test_what_holds_outside_changes_nothing_and_is_not_changed(name):
    expected, _ = CALLS[name]("highest")
    assert jax.config.jax_default_matmul_precision is None
    with jax.default_matmul_precision("high"):
        found, _ = CALLS[name]("highest")
        assert jax.config.jax_default_matmul_precision == "high"
    np.testing.assert_array_equal(found, expected)


def test_one_file_changes_what_jax_has_for_the_process():
    folder = pathlib.Path(mixaug_jax.__file__).parent
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        for said in ("jax.config.update", "default_matmul_precision", "default_backend")
        if said in path.read_text()
    }
    assert found == {"core/devices.py"}


def test_a_training_before_changes_nothing(tmp_path, monkeypatch):
    def counted(*arguments, **options):
        held.add(jax.config.jax_default_matmul_precision)
        return plain(*arguments, **options)

    held, plain = set(), steps.loss_fn
    expected = {name: call("highest")[0] for name, call in CALLS.items()}
    cache = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(steps, "loss_fn", counted)
    monkeypatch.setattr("mixaug_jax.data.open_splits", lambda config: toy.splits())
    config = toy.config(epochs=1)
    config.precision, config.compile_cache = "default", str(tmp_path / "compiled")
    mixaug_jax.train(config, tmp_path / "run")
    assert held == {"default"}
    assert jax.config.jax_default_matmul_precision is None
    assert jax.config.jax_compilation_cache_dir == cache
    for name, call in CALLS.items():
        np.testing.assert_array_equal(call("highest")[0], expected[name])
