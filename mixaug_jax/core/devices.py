"""Devices: the only file that knows meshes and shardings.

A step is written for one device, with collectives over the axis `AXIS`, and mapped over all devices by `pmap`:

    step = devices.pmap(train_step, in_specs=(REPLICATED, SHARDED), out_specs=(REPLICATED, REPLICATED))

Arrays going in and out are global: batches are split along their first axis, state is one plain copy on every device, with no
leading device axis, so a checkpoint reads the same on one device and on a pod.
"""

import collections
import contextlib
import functools
import itertools
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mixaug_jax.core import checks
from mixaug_jax.core.types import Config, Devices, Tree

AXIS = "data"
PRECISIONS = ("default", "high", "highest")  # of float32 matrix products
SHARDED = P(AXIS)
REPLICATED = P()
# XLA's CPU backend takes tens of seconds to optimize what makes a network's first weights, which runs once.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"  # what XLA's CPU backend leaves to YNNPACK


@functools.cache
def _mesh(devices: tuple) -> Mesh:
    # Mesh gives Auto axes; jax.make_mesh gives Explicit ones, for which shard_map refuses plain arrays.
    return Mesh(np.array(devices), (AXIS,))


def mesh(devices: Devices = None) -> Mesh:
    """The one-axis mesh over `devices` (default: all devices of all processes)."""
    return _mesh(tuple(jax.devices() if devices is None else devices))


def platform(devices: Devices = None) -> str:
    """The platform of `devices` (default: all devices of all processes): "cpu", "gpu" or "tpu"."""
    return mesh(devices).devices.flat[0].platform


def pmap(
    f: Callable,
    in_specs: Any,
    out_specs: Any,
    *,
    donate_argnums: int | tuple[int, ...] = (),
    devices: Devices = None,
    deterministic: bool = False,
) -> Callable:
    """Maps a per-device function over the devices, with global arrays: what `jax.pmap` is built on.

    Under the same compiler options it is the same to the bit.

    Args:
      f: per-device function; may use `jax.lax` collectives over `AXIS`.
      in_specs: SHARDED or REPLICATED for each argument.
      out_specs: the same for what `f` returns.
      donate_argnums: arguments whose buffers may be reused.
      devices: the devices to use (default: all).
      deterministic: see `training_options`.
    """
    return jax.jit(
        _mapped(f, in_specs, out_specs, devices),
        donate_argnums=donate_argnums,
        compiler_options=_those_known(training_options(platform(devices), deterministic)),
    )


def pmap_inference(
    f: Callable, in_specs: Any, out_specs: Any, *, devices: Devices = None
) -> Callable:
    """`pmap` for what runs networks and trains none, with `compiler_options`."""
    return jax.jit(
        _mapped(f, in_specs, out_specs, devices), compiler_options=compiler_options(devices)
    )


def _mapped(f, in_specs, out_specs, devices):
    # check_vma=False keeps pmap's meaning of collectives: with the check on, pmean of a gradient with respect to replicated
    # parameters would count each device's share once per device.
    return jax.shard_map(
        f, mesh=mesh(devices), in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def training_options(platform: str, deterministic: bool) -> dict[str, Any]:
    """What the compiler is asked for where networks are trained, and where integers are counted.

    On CPU it leaves matrix products and reductions to YNNPACK, and convolutions to none: see `inference_options`. Batch norm's
    sums are slow without it. It loses a NaN in a ReLU before a sum, as XLA's own choice does, so the train step looks at the
    weights themselves.

    Args:
      platform: of the devices.
      deterministic: only kernels that give the same bits each time. GPUs have others, which add in an order of their own; on
        CPU and TPU there is nothing to ask for.
    """
    if platform == "cpu":
        return {_LIBRARY: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
    gpu = platform in ("gpu", "cuda", "rocm")
    return {"xla_gpu_deterministic_ops": True} if deterministic and gpu else {}


def inference_options(platform: str) -> dict[str, str]:
    """What the compiler is asked for where networks are run and not trained.

    On CPU it leaves nothing but matrix products to YNNPACK. Of convolutions that library gives each thread 64 output channels,
    so that a ResNet's first layers run on one thread; and its maxima and the ReLUs before its sums lose NaN.
    """
    return {_LIBRARY: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"} if platform == "cpu" else {}


def compiler_options(devices: Devices = None) -> dict[str, str] | None:
    """`inference_options` for `devices` as `jax.jit` takes them; None where there are none or this XLA does not know them."""
    return _those_known(inference_options(platform(devices)))


def _those_known(options):
    return options if options and _known(tuple(options.items())) else None


@functools.cache
def _known(options: tuple) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def quick_options(devices: Devices = None) -> dict[str, Any] | None:
    """What `compile` takes for a large program that runs once: on CPU hardly any optimization."""
    return dict(_QUICK) if platform(devices) == "cpu" else None


def shard_batch(batch: Tree, devices: Devices = None) -> Tree:
    """Puts this process's rows [B_local, ...] on its devices as global arrays split along axis 0."""
    sharding = NamedSharding(mesh(devices), SHARDED)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def across(tree: Tree, devices: Devices = None) -> Tree:
    """Arrays [n, ...] split over this process's own devices, as its parts of arrays [N, ...] split over all; copies nothing."""
    sharding = NamedSharding(mesh(devices), SHARDED)
    total = len(sharding.device_set)

    def joined(x: jax.Array) -> jax.Array:
        parts = [part.data for part in x.addressable_shards]
        shape = (total * parts[0].shape[0], *x.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)

    return jax.tree.map(joined, tree)


def replicate(tree: Tree, devices: Devices = None) -> Tree:
    """Puts a copy of every leaf on every device, as global arrays."""
    return jax.device_put(tree, NamedSharding(mesh(devices), REPLICATED))


def replicated_like(tree: Tree, devices: Devices = None) -> Tree:
    """Shapes, dtypes and the replicated sharding of `tree`: what a checkpoint is restored into."""
    sharding = NamedSharding(mesh(devices), REPLICATED)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree
    )


def pad_batch(batch: dict, size: int) -> dict:
    """Pads a batch of n <= size rows with zeros to `size` rows and adds `mask` [size] float32, 1 for real rows."""
    n = len(next(iter(batch.values())))
    if n > size:
        raise ValueError(f"a batch of {n} rows cannot be padded to {size} rows")
    padded = {k: np.pad(v, [(0, size - n)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
    return padded | {"mask": (np.arange(size) < n).astype(np.float32)}


def prefetch(iterator: Iterable, size: int = 2) -> Iterator:
    """Sends batches to the devices `size` ahead of their use; the transfer runs while the last step computes."""
    iterator = map(shard_batch, iterator)
    queue = collections.deque(itertools.islice(iterator, max(1, size)))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(iterator, 1))


def check_batch_size(batch_size: int, minimum: int = 1, key: str = "data.batch_size") -> None:
    """Raises ValueError where the devices do not divide a global batch, or leave fewer than `minimum` rows on each."""
    devices = jax.device_count()
    if batch_size % devices:
        raise ValueError(
            f"{key}={batch_size} does not divide over {devices} devices; use a multiple of {devices}"
        )
    if batch_size // devices < minimum:
        raise ValueError(
            f"{key}={batch_size} leaves {batch_size // devices} images on each of {devices} devices; "
            f"this needs at least {minimum} on each, so {minimum * devices} or more"
        )


def precision(name: str) -> contextlib.AbstractContextManager:
    """A context in which float32 matrix products and convolutions have a precision, whatever holds outside.

    It is that of what this thread traces inside, so that a public call neither depends on what ran before it nor changes what
    runs after it.

    Args:
      name: "highest" is float32. "high" and "default" are faster on GPU (TF32) and TPU (bfloat16, three passes or one), and the
        same on CPU.

    Raises:
      ValueError: another name.
    """
    checks.choice("precision", name, PRECISIONS)
    return jax.default_matmul_precision(name)


@contextlib.contextmanager
def applied(config: Config) -> Iterator[None]:
    """A context with a run's settings of the machine: the precision, and where compiled programs are kept.

    Args:
      config: with `precision` and `compile_cache`.
    """
    with precision(config.precision), _compile_cache(config.compile_cache):
        yield


@contextlib.contextmanager
def _compile_cache(folder: str):
    """Keeps compiled programs in a folder; "" leaves things as they are."""
    before = jax.config.jax_compilation_cache_dir
    after = str(pathlib.Path(folder).absolute()) if folder else before
    if after == before:
        yield
        return
    _keep_in(after)
    try:
        yield
    finally:
        _keep_in(before)


def _keep_in(folder):
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()  # it would go on with the folder that it has opened


@contextlib.contextmanager
def out_of_memory(advice: str) -> Iterator[None]:
    """Turns the devices' running out of memory into a MemoryError that says what to lower."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
            raise MemoryError(advice) from error
        raise


def barrier(name: str) -> None:
    """Waits until every process is here."""
    multihost_utils.sync_global_devices(name)


def stop_requested(flag: threading.Event, step: int) -> bool:
    """Whether to stop after this step: this process's flag, or, with many processes, what all of them agreed on.

    There JAX's runtime notes the signal, so nobody else may handle it.
    """
    if jax.process_count() == 1:
        return flag.is_set()
    return multihost_utils.reached_preemption_sync_point(step)
