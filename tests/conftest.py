"""Shared set-up: four virtual CPU devices, cheap compiles, golden arrays where they exist."""

import os
import pathlib

import jax
import jaxtyping
import numpy as np
import pytest

# Before the package is imported, which `toy` does: the types and shapes of the arguments and the result of every function
# of the package are checked at every call. JAXTYPING=0 leaves the checks out.
if os.environ.get("JAXTYPING", "1") != "0":
    # As for type checkers, an int is as good as a float.
    checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    jaxtyping.install_import_hook("mixaug_jax", checker)

# For the processes that tests start, which compile as cheaply as this one does below, and with as many threads as it has for
# its four devices: on some processors the order in which a convolution sums depends on their number.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["PJRT_NPROC"] = "4"

import toy

from mixaug_jax.attribution import METHODS

# Before the first use of a device. Tests check integers, geometry and equality, not speed, so the
# compiler's optimizations (most of a tiny test's time) are off.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_disable_most_optimizations", True)

# Many tests compile the same small programs; a later run of the tests finds them, too.
ROOT = pathlib.Path(__file__).parents[1]
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".pytest_cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

# A folder with the whole golden arrays (golden/) and sets of photographs (data/), for who has them.
DATA = os.environ.get("MIXAUG_JAX_DATA", "")
GOLDEN = pathlib.Path(DATA, "golden") if DATA else ROOT / "tests" / "data" / "golden"


_MAPPINGS = pathlib.Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="session")
def unchecked_processes():
    """The processes that tests start begin in a third of the time; their calls are checked in the tests' own process. A
    fixture, as what is set above would reach the workers, which are processes, too."""
    os.environ["JAXTYPING"] = "0"


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """A compiled program takes several mappings of memory, of which Linux gives a process 65,530 and ends it at the next."""
    yield
    if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def own_entries():
    """A config may bring entries of its own; they are its run's, not the next module's."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def unchecked():
    """For bad input that the package has a sentence for, which the checks of types would forestall."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def photographs():
    """`photographs("pets600.zip")` is the path of an archive in $MIXAUG_JAX_DATA/data; skips where there is none."""

    def find(name):
        path = pathlib.Path(DATA, "data", name)
        if not DATA or not path.exists():
            pytest.skip(f"{name} is not here: MIXAUG_JAX_DATA names no folder that has it in data/")
        return path

    return find


@pytest.fixture(scope="session")
def golden():
    """`golden("mixing/saliency.npz")` holds arrays made by other people's code: of fewer images without MIXAUG_JAX_DATA."""
    return lambda name: np.load(GOLDEN / name)


@pytest.fixture(scope="session")
def golden_text():
    """`golden_text("dissection/upp_labels.json")` is the text of a golden file."""
    return lambda name: (GOLDEN / name).read_text()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A working directory of `toy`'s, with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("trained")
    toy.train_run(workdir)
    return workdir
