"""Training on data that a source makes on the device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mixaug_jax import data, training
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.data.source import Source
from mixaug_jax.training import step as steps


def make(key, count, arrays):
    """Noise around the level of a class; the levels are what is given."""
    noise, label = jax.random.split(key)
    label = jax.random.randint(label, (count,), 0, len(arrays))
    level = arrays[label][:, None, None, None] + 20 * jax.random.normal(noise, (count, 16, 16, 3))
    return {"image": jnp.clip(level, 0, 255).astype(jnp.uint8), "label": label}


LEVELS = np.float32([60, 100, 140, 180])


def refuse(index):
    raise AssertionError("an example of the training set was read")


@pytest.fixture
def made(monkeypatch):
    parts = toy.splits()
    names = parts["train"].class_names
    parts["train"] = Source(refuse, 64, names, make=make, arrays=LEVELS)
    monkeypatch.setattr(data, "open_splits", lambda config: parts)


def test_what_is_made_is_learned(made, tmp_path):
    result = training.train(toy.config(epochs=10), tmp_path)
    assert result["test_accuracy"] > 0.9


def test_a_run_that_goes_on_ends_with_the_same_bits(made, tmp_path):
    import mixaug_jax

    for folder, lengths in (("whole", [2]), ("cut", [1, 2])):
        for epochs in lengths:
            training.train(toy.config(epochs=epochs, schedule="constant"), tmp_path / folder)
    whole, cut = (mixaug_jax.load(tmp_path / name).variables for name in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, whole, cut)


def batches(devices, step, monkeypatch):
    """What each of so many devices makes in a step, [devices,count,...]."""
    monkeypatch.setattr(steps, "train_step", lambda state, batch, teacher, **given: (state, batch))
    config = toy.config()
    one = functools.partial(
        steps.made_step, make=make, count=3, model=None, optimizer=None, config=config
    )

    def gathered(state, arrays):
        return jax.lax.all_gather(one(state, arrays)[1], devices_lib.AXIS)

    specs = (devices_lib.REPLICATED, devices_lib.REPLICATED)
    mapped = devices_lib.pmap(gathered, specs, devices_lib.REPLICATED, devices=jax.devices()[:devices])  # fmt: skip
    state = steps.State(jnp.int32(step), {}, {}, {})
    given = devices_lib.replicate((state, LEVELS), jax.devices()[:devices])
    return jax.tree.map(np.asarray, mapped(*given))


@pytest.mark.parametrize("devices", [1, 4])
def test_each_device_and_each_step_makes_its_own(devices, monkeypatch):
    first, again, next_one = (batches(devices, step, monkeypatch) for step in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert first["image"].shape == (devices, 3, 16, 16, 3)
    both = np.concatenate([first["image"], next_one["image"]])
    assert len({image.tobytes() for image in both.reshape(-1, 16, 16, 3)}) == 6 * devices
    seeds = np.concatenate([first["seed"], next_one["seed"]])
    assert len(set(seeds.ravel().tolist())) == 6 * devices
    # They are what the arrays say, which every device was given.
    np.testing.assert_allclose(first["image"].mean((2, 3, 4)), LEVELS[first["label"]], atol=8)


def test_the_first_device_makes_the_same_however_many_there_are(monkeypatch):
    one, four = (batches(devices, 5, monkeypatch) for devices in (1, 4))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), one, four)
