"""ConvNeXt (Liu et al. 2022, 2201.03545) with timm's names: depthwise 7x7, a norm over channels, two dense layers."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.convolution import Window
from mixaug_jax.models.layers import StagedModel

SCALE = 1e-6  # of a block's sum at first


class ConvNeXt(StagedModel):
    """ConvNeXt-T, S and B.

    Layers: stem (4x4, stride 4, and its norm), stage0 to stage3 (each the residual sum), head.

    Attributes:
      num_classes: K.
      blocks: in each of the four stages.
      filters: of each stage.
      drop_path_rate: stochastic depth of the last block in training, less of earlier ones.
    """

    layers: ClassVar = ("stem", "stage0", "stage1", "stage2", "stage3", "head")
    hidden_layers: ClassVar = ("stage0", "stage1")
    no_affine: ClassVar = "has norms over channels"
    smooth: ClassVar = "GELUs"
    init_std: ClassVar = 0.02
    unseen: ClassVar = ("epsilon",)

    num_classes: int
    blocks: tuple[int, int, int, int]
    filters: tuple[int, int, int, int]
    drop_path_rate: float = 0.0
    epsilon: float = dataclasses.field(default=1e-6, kw_only=True)

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "stem":
            x = self.windowed("stem.0", x, self.filters[0], Window(4, 4, bias=True, padding=0))
            return self.layer_norm("stem.1", x)
        if layer == "head":
            x = self.global_average("avgpool", x)
            return self.dense(
                "head.fc", self.layer_norm("head.norm", x), self.num_classes, jnp.float32
            )
        stage = int(layer.removeprefix("stage"))
        if stage:
            x = self.layer_norm(f"stages.{stage}.downsample.0", x)
            name = f"stages.{stage}.downsample.1"
            x = self.windowed(name, x, self.filters[stage], Window(2, 2, bias=True, padding=0))
        for i in range(self.blocks[stage]):
            # The rate of stochastic depth rises over all blocks, not within a stage.
            before = sum(self.blocks[:stage]) + i

            def block(model: Any, x: jax.Array, i: int = i, before: int = before):
                return model._block(f"stages.{stage}.blocks.{i}", x, before, train)

            x = self.block(block, x)
        return x

    def _block(self, name, x, before, train):
        channels = x.shape[-1]
        y = self.windowed(f"{name}.conv_dw", x, channels, Window(7, bias=True, groups=channels))
        y = self.dense(f"{name}.mlp.fc1", self.layer_norm(f"{name}.norm", y), 4 * channels)
        y = self.dense(f"{name}.mlp.fc2", nn.gelu(y, approximate=False), channels)
        y = y * self.value(f"{name}.gamma", (channels,), nn.initializers.constant(SCALE))
        rate = self.drop_path_rate * before / max(1, sum(self.blocks) - 1)
        return self.residual(f"{name}.add", self.drop_path(f"{name}.drop", y, rate, train), x)
