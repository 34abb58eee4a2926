"""The decoder of marker bits (Sixt, Wild and Landgraf 2018, RenderGAN, arXiv 1611.01331, section 4.4; layout as in its code).

Residual blocks that normalize before they convolve, with ELUs, and a dense layer over the flat maps, which know where they are.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.layers import StagedModel


class Decoder(StagedModel):
    """Layers: conv1 (stride 2), layer1, layer2, ... (each the residual sum, stride 2 from the second on), hidden, fc.

    Attributes:
      num_classes: K, the bits.
      filters: of conv1 and layer1; each further layer has twice as many.
      blocks: residual blocks of each layer.
      hidden: units of the dense layer before the last.
      dropout: share of them that is left out in training.
      stem: "imagenet" (stride 2, as published for 64 px) or "cifar" (stride 1).
    """

    merges_norm: ClassVar = False
    smooth: ClassVar = "ELUs"

    num_classes: int
    filters: int
    blocks: tuple[int, ...]
    hidden: int
    dropout: float
    stem: str

    @property
    def layers(self) -> tuple[str, ...]:
        return ("conv1", *self.hidden_layers, "hidden", "fc")

    @property
    def hidden_layers(self) -> tuple[str, ...]:
        return tuple(f"layer{k + 1}" for k in range(len(self.blocks)))

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "conv1":
            x = nn.elu(self.norm("bn1", x, train))
            return self.conv("conv1", x, self.filters, 3, 2 if self.stem == "imagenet" else 1)
        if layer == "hidden":
            x = nn.elu(self.dense("dense", x.reshape(len(x), -1), self.hidden))
            x = self.norm("bn2", x, train)
            return nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)
        if layer == "fc":
            return self.dense("fc", x, self.num_classes, jnp.float32)
        depth = self.hidden_layers.index(layer)
        for i in range(self.blocks[depth]):
            # As in a ResNet: each group but the first begins with half the side.
            stride = 2 if depth > 0 and i == 0 else 1

            def block(model: Any, x: jax.Array, name: str = f"{layer}.{i}", stride: int = stride):
                return model._block(name, x, model.filters * 2**depth, stride, train)

            x = self.block(block, x)
        return x

    def _block(self, name, x, filters, stride, train):
        y = nn.elu(self.norm(f"{name}.bn1", x, train))
        # A projected shortcut starts after the first norm, an identity one before it.
        if stride > 1 or x.shape[-1] != filters:
            x = self.conv(f"{name}.shortcut", y, filters, 1, stride)
        y = self.conv(f"{name}.conv1", y, filters, 3, stride)
        y = nn.elu(self.norm(f"{name}.bn2", y, train))
        y = self.conv(f"{name}.conv2", y, filters, 3)
        return self.residual(f"{name}.add", y, x)
