"""The forward pass whose activations are dissected: where in a batch an image stands."""

import dataclasses

import jax
import numpy as np
import planted
import pytest

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.dissection import activations


class Row(planted.Planted):
    """Gives for an image which row of the batch it is."""

    def run(self, layer, x, train):
        return 0 * x + np.arange(len(x), dtype=np.float32)[:, None, None, None]


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(("start", "stop"), [(0, 12), (5, 11), (3, 4), (7, 12), (6, 6)])
def test_an_images_row_on_its_device_follows_its_number(devices, start, stop):
    """So that its last bits do not depend on where the share of a process begins."""
    here, source = tuple(jax.devices()[:devices]), planted.source()
    net = dataclasses.replace(planted.net(), model=Row())
    net = dataclasses.replace(net, variables=devices_lib.replicate(net.variables, here))
    forward = activations.Forward(
        net, source, np.arange(12), ("pixels",), 3 * devices, threads=2, devices=here
    )
    found = [batch["pixels"] for batch in forward.run(start, stop)]
    rows = [row for batch in found for row in batch[:, 0, 0, 0].tolist()]
    assert rows == [i % 3 for i in range(start, stop)]
