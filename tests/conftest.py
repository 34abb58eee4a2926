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

import toy

# Before the first use of a device. Tests check integers, geometry and equality, not speed, so the
# compiler's optimizations (most of a tiny test's time) are off.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_disable_most_optimizations", True)

# Many tests compile the same small programs; a later run of the tests finds them, too.
ROOT = pathlib.Path(__file__).parents[1]
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".pytest_cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

SHARED = pathlib.Path(os.environ.get("MIXAUG_JAX_SHARED", ROOT.parent / "shared"))


@pytest.fixture
def unchecked():
    """For bad input that the package has a sentence for, which the checks of types would forestall."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared():
    """`shared("data/pets600.zip")` is the path of a development file; skips where there is none."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not here: it belongs to the development data")
        return path

    return find


@pytest.fixture(scope="session")
def golden(shared):
    """`golden("mixing/saliency.npz")` holds arrays made by other people's code."""
    return lambda name: np.load(shared(f"golden/{name}"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A working directory of `toy`'s, with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("trained")
    toy.train_run(workdir)
    return workdir
