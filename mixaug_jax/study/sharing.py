"""The machine's devices, divided among runs that go on at once."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from mixaug_jax.core import checks


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run computes: what its environment says of accelerators, and the processor cores it may use; () are all."""

    environment: Mapping[str, str]
    cores: tuple[int, ...] = ()


def places(jobs: int) -> list[Place]:
    """`jobs` places that share no device; one alone is the whole machine.

    NVIDIA GPUs are divided by CUDA_VISIBLE_DEVICES and TPU chips, one each, by TPU_VISIBLE_CHIPS. On a machine without either
    the processor's cores are. JAX is not asked: it would take the accelerators for this process.

    Raises:
      ValueError: fewer devices than jobs.
    """
    checks.count("jobs", jobs)
    if jobs == 1:
        return [Place({})]
    # A process that sees all devices takes the memory of all of them.
    gpus, chips = _gpus(), _chips()
    if gpus:
        return [
            Place({"CUDA_VISIBLE_DEVICES": ",".join(part)}) for part in _parts(gpus, jobs, "GPU")
        ]
    if chips:
        one = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        parts = _parts(chips, jobs, "TPU chip")
        return [Place(one | {"TPU_VISIBLE_CHIPS": part[0]}) for part in parts]
    cores = _cores()
    return [Place({}, tuple(map(int, part))) for part in _parts(cores, jobs, "processor core")]


def settle(process: int, place: Place) -> None:
    """Keeps a process that has just begun on the cores of its place, where the system can do that."""
    if place.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, place.cores)


def _parts(devices: Sequence[str], jobs: int, what: str) -> list[Sequence[str]]:
    """Neighbors together; the first parts are larger where the division leaves a rest."""
    if jobs > len(devices):
        raise ValueError(
            f"jobs={jobs} must be at most {len(devices)}: a run needs a {what} of its own"
        )
    return [devices[len(devices) * k // jobs : len(devices) * (k + 1) // jobs] for k in range(jobs)]


def _gpus():
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return _numbered("/dev", "nvidia")


def _chips():
    return _numbered("/dev", "accel") or _numbered("/dev/vfio", "")


def _numbered(folder, stem):
    """The numbers of the device files `<folder>/<stem><number>`, in their order."""
    names = (path.name.removeprefix(stem) for path in pathlib.Path(folder).glob(f"{stem}*"))
    return sorted((name for name in names if name.isdecimal()), key=int)


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return [str(core) for core in sorted(os.sched_getaffinity(0))]
    return [str(core) for core in range(os.cpu_count() or 1)]
