"""Shared set-up: four virtual CPU devices, cheap compiles, golden arrays where they exist."""

import os
import pathlib

import jax
import numpy as np
import pytest

# Before the first use of a device. Tests check integers, geometry and equality, not speed, so the
# compiler's optimisations (most of a tiny test's time) are off.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_disable_most_optimizations", True)

SHARED = pathlib.Path(
    os.environ.get("MIXAUG_JAX_SHARED", pathlib.Path(__file__).parents[2] / "shared")
)


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
