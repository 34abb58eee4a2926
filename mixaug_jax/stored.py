"""What the stages share: results as files that carry their settings, and a sentence where memory runs out."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from mixaug_jax import checkpoint


def save_npz(path, arrays: dict, settings: dict) -> None:
    """Writes arrays, `settings` and the packages' `versions` (both as JSON text) to a .npz, which appears when it is whole."""
    notes = {"settings": settings, "versions": checkpoint.versions()}
    arrays = arrays | {name: np.array(json.dumps(note)) for name, note in notes.items()}
    path = pathlib.Path(path)
    whole = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with whole.open("wb") as file:
            np.savez_compressed(file, **arrays)
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def load_if(load: Callable, path, settings: dict):
    """`load(path)` if its settings are these; None where it is not there, cannot be read, or was made with others."""
    if not pathlib.Path(path).exists():
        return None
    with contextlib.suppress(ValueError):  # an unreadable file is replaced
        result = load(path)
        if result.settings == settings:
            return result
    return None


@contextlib.contextmanager
def out_of_memory(advice: str):
    """Turns the devices' running out of memory into a MemoryError that says what to lower."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
            raise MemoryError(advice) from error
        raise
