"""Weights that are a function of their names, so that tests can rebuild what other code was given."""

import zlib

import numpy as np


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array for a PyTorch parameter: He-scaled kernels, batch norms that do something."""
    draw = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("running_mean"):
        array = 0.1 * draw.randn(*shape)
    elif name.endswith("running_var"):
        array = 0.5 + draw.rand(*shape)
    elif len(shape) > 1:
        array = draw.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("bias"):
        array = 0.1 * draw.randn(*shape)
    else:
        array = 0.4 + 0.4 * draw.rand(*shape)
    return array.astype(np.float32)


def image(height: int, width: int) -> np.ndarray:
    """[1,height,width,3] float32, standard normal."""
    return np.random.RandomState(0).randn(1, height, width, 3).astype(np.float32)
