"""Sharding: the mapped step is `jax.pmap`, and global arrays come and go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mixaug_jax import config as config_lib
from mixaug_jax import data, training
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.models import build
from mixaug_jax.models.convolution import conv


@pytest.fixture(scope="module")
def step():
    """A per-device step with its state and one batch."""
    config = toy.config("cutmix")
    sources = toy.splits()
    config = config_lib.resolve(config, train_size=64, class_names=sources["train"].class_names)
    model, optimizer = build.build_model(config), training.build_optimizer(config)
    state = training.init_state(model, optimizer, config)
    batch = next(iter(data.batches(sources["train"], config, train=True)))
    run = functools.partial(training.train_step, model=model, optimizer=optimizer, config=config)
    return run, jax.device_get(state), batch


@pytest.fixture(scope="module")
def ours(step):
    """State and metrics after the mapped step on four devices."""
    run, state, batch = step
    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    return devices_lib.pmap(run, specs, devices_lib.REPLICATED)(
        devices_lib.replicate(state), devices_lib.shard_batch(batch)
    )


def compare(a, b, check=np.testing.assert_array_equal):
    jax.tree.map(lambda x, y: check(np.asarray(x), np.asarray(y)), a, b)


def test_step_is_bitwise_that_of_jax_pmap_under_the_same_options(step, ours):
    run, state, batch = step
    split = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch)
    mapped = jax.pmap(run, axis_name=devices_lib.AXIS, in_axes=(None, 0)).lower(state, split)
    theirs = mapped.compile(devices_lib.training_options("cpu", False))(state, split)
    compare(ours, jax.tree.map(lambda x: x[0], theirs))


def test_step_is_that_of_one_device_under_vmap(step, ours):
    run, state, batch = step
    split = jax.tree.map(lambda x: jnp.asarray(x.reshape(4, -1, *x.shape[1:])), batch)
    one = jax.jit(jax.vmap(run, in_axes=(None, 0), axis_name=devices_lib.AXIS))(state, split)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    compare(ours, jax.tree.map(lambda x: x[0], one), close)


def test_all_shards_of_the_state_are_equal(step, ours):
    state, _ = ours
    for leaf in jax.tree.leaves(state):
        shards = [np.asarray(s.data) for s in leaf.addressable_shards]
        assert len(shards) == 4
        for shard in shards[1:]:
            np.testing.assert_array_equal(shard, shards[0])
    before = step[1].variables["params"]["fc"]["kernel"]
    assert not np.array_equal(state.variables["params"]["fc"]["kernel"], before)


def test_pmean_of_a_gradient_does_not_depend_on_the_number_of_devices():
    x = np.arange(8, dtype=np.float32)

    def gradient(w, x):
        return jax.lax.pmean(jax.grad(lambda w: jnp.mean(w * x))(w), devices_lib.AXIS)

    for count in (1, 2, 4):
        f = devices_lib.pmap(
            gradient, (devices_lib.REPLICATED, devices_lib.SHARDED), devices_lib.REPLICATED,
            devices=jax.devices()[:count],
        )  # fmt: skip
        assert f(jnp.float32(3), x) == 3.5


def test_convolutions_on_cpu_use_all_threads():
    """They are no part of a "ynn_fusion", which would leave a layer of 64 filters to one thread."""

    def f(x, kernel):
        return conv(x, kernel, 1, 1)

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    x, kernel = jnp.ones((8, 16, 16, 64)), jnp.ones((3, 3, 64, 64))
    compiled = devices_lib.pmap_inference(f, (split, whole), split).lower(x, kernel).compile()
    assert "convolution(" in compiled.as_text()
    assert "ynn_fusion" not in compiled.as_text()


def test_inference_on_cpu_keeps_nan():
    """XLA's own choice of kernels takes the mean over NaN as if the ReLU had made it 0."""
    x = np.ones((8, 32, 32, 32), np.float32)
    x[2, 5, 7, 3] = np.nan
    specs = (devices_lib.SHARDED,), devices_lib.SHARDED
    for reduce in (jnp.mean, jnp.max):
        f = devices_lib.pmap_inference(lambda x, r=reduce: r(jax.nn.relu(x), (1, 2)), *specs)
        assert np.argwhere(np.isnan(f(x))).tolist() == [[2, 3]]


def test_convolutions_of_a_train_step_on_cpu_use_all_threads_and_sums_the_library():
    def f(x, kernel):
        return conv(x, kernel, 1, 1).mean((0, 1, 2))

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    x, kernel = jnp.ones((8, 16, 16, 64)), jnp.ones((3, 3, 64, 64))
    text = devices_lib.pmap(f, (split, whole), split).lower(x, kernel).compile().as_text()
    convolutions = [line for line in text.splitlines() if " convolution(" in line]
    assert convolutions
    assert "ynn_fusion" in text
    bodies = text.split("\n\n")
    assert not any("ynn" in body.split("{")[0] and " convolution(" in body for body in bodies)


def test_an_unknown_compiler_option_is_left_out(monkeypatch):
    assert devices_lib.compiler_options() == devices_lib.inference_options("cpu")
    unheard_of = {"xla_cpu_unheard_of": "1"}
    monkeypatch.setattr(devices_lib, "inference_options", lambda platform: unheard_of)
    monkeypatch.setattr(devices_lib, "training_options", lambda platform, again: unheard_of)
    assert devices_lib.compiler_options() is None
    whole = devices_lib.REPLICATED
    assert devices_lib.pmap(lambda x: 2 * x, (whole,), whole)(jnp.float32(3)) == 6


@pytest.mark.parametrize(
    ("platform", "deterministic", "expected"),
    [
        ("gpu", True, {"xla_gpu_deterministic_ops": True}),
        ("gpu", False, {}),
        ("tpu", True, {}),
    ],
)
def test_deterministic_kernels_are_asked_for_on_gpus(platform, deterministic, expected):
    cpu = devices_lib.training_options("cpu", deterministic)
    assert cpu == devices_lib.training_options("cpu", not deterministic)
    assert devices_lib.training_options(platform, deterministic) == expected


def test_options_are_those_of_the_devices(monkeypatch):
    """A GPU's are known to the compiler, which on CPU does nothing with them."""
    given = {}

    def jit(f, **options):
        given.update(options)
        return plain(f, **options)

    plain = jax.jit
    monkeypatch.setattr(devices_lib, "platform", lambda devices=None: "gpu")
    monkeypatch.setattr(jax, "jit", jit)
    whole = devices_lib.REPLICATED
    double = devices_lib.pmap(lambda x: 2 * x, (whole,), whole, deterministic=True)
    assert given["compiler_options"] == {"xla_gpu_deterministic_ops": True}
    assert double(jnp.float32(3)) == 6
    assert devices_lib.quick_options() is None
    assert devices_lib.compiler_options() is None


def test_precision_holds_inside_alone():
    def product():
        return str(jax.make_jaxpr(jnp.dot)(jnp.ones((2, 2)), jnp.ones((2, 2))))

    before = product()
    with devices_lib.precision("highest"):
        assert "HIGHEST" in product()
        with devices_lib.precision("high"):
            assert "HIGHEST" not in product()
    assert product() == before
    assert "HIGHEST" not in before


def test_unknown_precision():
    with pytest.raises(
        ValueError, match=r"one of default, high, highest; got 'hihg' \(did you mean 'high'"
    ):
        devices_lib.precision("hihg")


@pytest.fixture
def everything_is_kept():
    """Also programs that compile in no time."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 0.0)
    yield
    jax.config.update(name, before)


@pytest.mark.usefixtures("everything_is_kept")
def test_the_settings_of_a_run_end_with_it(tmp_path):
    """Compiled programs go to its folder until then, and to the former one afterwards, also after an error."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_default_matmul_precision
    config = config_lib.get_config("baseline", "scenes")
    config.precision, config.compile_cache = "high", str(tmp_path / "kept")

    def compile_one(number):
        jax.jit(lambda x: x * number + 1)(np.float32(1)).block_until_ready()

    def fail():
        with devices_lib.applied(config):
            assert jax.config.jax_default_matmul_precision == "high"
            compile_one(0.123)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    kept = len(list((tmp_path / "kept").iterdir()))
    assert kept
    assert before == (
        jax.config.jax_compilation_cache_dir,
        jax.config.jax_default_matmul_precision,
    )
    compile_one(0.456)
    assert len(list((tmp_path / "kept").iterdir())) == kept


def test_pad_batch():
    batch = {"image": np.ones((3, 2, 2, 1), np.uint8), "label": np.array([4, 5, 6], np.int32)}
    padded = devices_lib.pad_batch(batch, 5)
    np.testing.assert_array_equal(padded["mask"], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(padded["label"], [4, 5, 6, 0, 0])
    assert padded["image"].shape == (5, 2, 2, 1)
    assert padded["image"].dtype == np.uint8
    empty = devices_lib.pad_batch({"label": np.zeros(0, np.int32)}, 2)
    np.testing.assert_array_equal(empty["mask"], [0, 0])
    with pytest.raises(ValueError, match="3 rows cannot be padded to 2"):
        devices_lib.pad_batch(batch, 2)


@pytest.mark.parametrize("size", [1, 2, 50])
def test_prefetch_keeps_order_and_reads_no_further_than_asked(size):
    read = []

    def numbers():
        for i in range(6):
            read.append(i)
            yield {"x": np.full(4, i, np.int32)}

    got = devices_lib.prefetch(numbers(), size)
    assert int(next(got)["x"][0]) == 0
    assert len(read) <= size + 1
    assert [int(b["x"][0]) for b in got] == [1, 2, 3, 4, 5]


def test_check_batch_size():
    devices_lib.check_batch_size(8, 2)
    with pytest.raises(ValueError, match=r"data.batch_size=6 does not divide over 4 devices"):
        devices_lib.check_batch_size(6)
    with pytest.raises(ValueError, match="at least 2 on each, so 8 or more"):
        devices_lib.check_batch_size(4, 2)
