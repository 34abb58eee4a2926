"""A network of four convolutions with everything that attribution finds hard: norms, a max pool, a residual sum, a stride."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from mixaug_jax.models.layers import StagedModel


class Tiny(StagedModel):
    """About 3000 parameters: for tests, and for trying a method in a second.

    Layers: relu1 (before the pool), relu3 (after the residual sum), relu4 (before the global pool), fc.
    """

    layers: ClassVar = ("relu1", "relu3", "relu4", "fc")
    hidden_layers: ClassVar = ("relu1", "relu3")

    num_classes: int
    filters: int

    def run(self, layer: str, x: jax.Array, train: bool):
        if layer == "relu1":
            x = self.conv("conv1", x, self.filters, 3, norm="bn1", bias=True, train=train)
            return self.relu("relu1", x)
        if layer == "relu3":
            x, shortcut = self.branch("fork", self.max_pool("maxpool1", x, 2, 2))
            x = self.conv("conv2", x, self.filters, 3, norm="bn2", train=train)
            x = self.relu("relu2", x)
            x = self.conv("conv3", x, self.filters, 3, norm="bn3", train=train)
            return self.relu("relu3", self.residual("add", x, shortcut))
        if layer == "relu4":
            x = self.conv("conv4", x, 2 * self.filters, 3, 2, norm="bn4", bias=True, train=train)
            return self.relu("relu4", x)
        x = self.global_average("avgpool", x)
        return self.dense("fc", x, self.num_classes, jnp.float32)
