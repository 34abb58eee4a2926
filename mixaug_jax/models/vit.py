"""Vision transformers (Dosovitskiy et al. 2020, 2010.11929; DeiT: Touvron et al. 2020, 2012.12877) with timm's names.

Blocks normalize before they compute, GELUs are exact, attention is softmax(q k' / sqrt(D / heads)). A layer's output is tokens
[B,T,D]: the class token, a distilled network's second one, and the patches row by row, which `maps` lays out on their grid.
Attention is no layer: `Net.attention` reads it.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Float
from mixaug_jax.models.convolution import Window
from mixaug_jax.models.layers import StagedModel

STD = 0.02
CHANGE = "attention_change"  # the collection that is added to the attention, for derivatives
SEEN = "intermediates"  # the collection in which the attention is found, where it is asked for


class VisionTransformer(StagedModel):
    """ViT and DeiT.

    Layers: embed (patches with their positions), block0, block1, ..., head (the logits; a distilled network's are the mean of
    its two heads').

    Attributes:
      num_classes: K.
      dim: D, of a token.
      depth: blocks.
      heads: of the attention; no weight tells how many.
      patch: side of a patch, pixels.
      grid: patches along a side that positions are kept of; of an image with more or fewer they are interpolated. 0: as many as
        the image has that the network is initialized with.
      distilled: a second token and a second head.
      drop_path_rate: share of the examples that the last block leaves out in training; earlier blocks less, the first none.
    """

    no_affine: ClassVar = "has attention"
    smooth: ClassVar = "GELUs"
    has_attention: ClassVar = True
    unseen: ClassVar = ("heads", "epsilon")

    num_classes: int
    dim: int
    depth: int
    heads: int
    patch: int
    grid: int = 0
    distilled: bool = False
    drop_path_rate: float = 0.0
    epsilon: float = dataclasses.field(default=1e-6, kw_only=True)

    @property
    def init_std(self) -> float:
        """The published one, for tokens of 192 numbers and more; five times that for shorter ones, about 1 / sqrt(96).

        In a training of vit_micro on the scenes (rate .001), .11 of the images of steps 250 to 500 were right with the
        published one, .17 with this one; chance is .10.
        """
        return STD if self.dim >= 192 else 5 * STD

    @property
    def layers(self) -> tuple[str, ...]:
        return ("embed", *(f"block{i}" for i in range(self.depth)), "head")

    @property
    def hidden_layers(self) -> tuple[str, ...]:
        return self.layers[: min(3, self.depth + 1)]

    @property
    def blind_layers(self) -> tuple[str, ...]:
        return (f"block{self.depth - 1}",)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The tokens before those of patches."""
        return ("cls_token", "dist_token")[: 1 + self.distilled]

    @nn.nowrap
    def maps(self, layer: str, h: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """Tokens [B,T,D] -> [B,n,n,D], the tokens before the patches' left out; other outputs as they are."""
        if jnp.ndim(h) != 3:
            return h
        side = math.isqrt(h.shape[1] - len(self.prefix))
        return h[:, len(self.prefix) :].reshape(h.shape[0], side, side, h.shape[2])

    @nn.nowrap
    def with_maps(
        self, layer: str, h: Float[AnyArray, "..."], maps: Float[AnyArray, "..."]
    ) -> Float[AnyArray, "..."]:
        if jnp.ndim(h) != 3:
            return maps
        tokens = jnp.reshape(maps, (maps.shape[0], -1, maps.shape[-1]))
        return jnp.concatenate([h[:, : len(self.prefix)], tokens], 1)

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "embed":
            return self._embed(x)
        if layer == "head":
            return self._head(x)
        number = int(layer.removeprefix("block"))
        return self.block(lambda model, x: model._block(number, x, train), x)

    def _embed(self, x):
        batch, height, width = x.shape[:3]
        if height != width or height < self.patch:
            raise ValueError(
                f"{type(self).__name__} takes square images of {self.patch} pixels or more; got {height} x {width}"
            )
        window = Window(self.patch, self.patch, bias=True, padding=0)
        x = self.windowed("patch_embed.proj", x, self.dim, window)
        side, draw = x.shape[1], nn.initializers.truncated_normal(self.init_std)
        tokens = [self.value(name, (1, 1, self.dim), draw) for name in self.prefix]
        tokens = [jnp.broadcast_to(token, (batch, 1, self.dim)) for token in tokens]
        x = jnp.concatenate([*tokens, x.reshape(batch, -1, self.dim)], 1)
        shape = (1, len(tokens) + (self.grid or side) ** 2, self.dim)
        return x + at_size(self.value("pos_embed", shape, draw), len(tokens), side)

    def _block(self, number: int, x, train):
        name = f"blocks.{number}"
        rate = self.drop_path_rate * number / max(1, self.depth - 1)
        y = self._attention(number, self.layer_norm(f"{name}.norm1", x))
        x = self.residual(f"{name}.add1", self.drop_path(f"{name}.drop1", y, rate, train), x)
        y = self.dense(f"{name}.mlp.fc1", self.layer_norm(f"{name}.norm2", x), 4 * self.dim)
        y = self.dense(f"{name}.mlp.fc2", nn.gelu(y, approximate=False), self.dim)
        return self.residual(f"{name}.add2", self.drop_path(f"{name}.drop2", y, rate, train), x)

    def _attention(self, number: int, x):
        batch, count, _ = x.shape
        qkv = self.dense(f"blocks.{number}.attn.qkv", x, 3 * self.dim)
        q, k, v = jnp.moveaxis(qkv.reshape(batch, count, 3, self.heads, -1), 2, 0)
        products = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32)
        attention, key = nn.softmax(products / math.sqrt(self.dim // self.heads)), f"block{number}"
        # Nothing unless the collection is asked for, as are derivatives.
        self.sow(SEEN, key, attention)
        if self.has_variable(CHANGE, key):
            attention = attention + self.get_variable(CHANGE, key)
        y = jnp.einsum("bhqk,bkhd->bqhd", attention.astype(self.dtype), v)
        return self.dense(f"blocks.{number}.attn.proj", y.reshape(batch, count, -1), self.dim)

    def _head(self, x):
        x = self.layer_norm("norm", x[:, : len(self.prefix)])
        logits = self.dense("head", x[:, 0], self.num_classes, jnp.float32)
        if not self.distilled:
            return logits
        return (logits + self.dense("head_dist", x[:, 1], self.num_classes, jnp.float32)) / 2


def at_size(
    positions: Float[AnyArray, "1 T D"], prefix: int, side: int
) -> Float[AnyArray, "1 t D"]:
    """Positions of n x n patches, after `prefix` others, for side x side: bicubic, antialiased, as timm's."""
    grid = math.isqrt(positions.shape[1] - prefix)
    if grid == side:
        return positions
    square = positions[:, prefix:].reshape(1, grid, grid, -1)
    square = jax.image.resize(square, (1, side, side, square.shape[-1]), "cubic", antialias=True)
    return jnp.concatenate([positions[:, :prefix], square.reshape(1, side * side, -1)], 1)


def read_attention(
    model: Any, variables: Any, x: Float[AnyArray, "B h w C"], change: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Logits [B,K] and {block: attention [B,heads,T,T], a row a query}, with `change` {block: ...} added to the attention."""
    variables = {**variables, CHANGE: change} if change else variables
    logits, found = model.apply(variables, x, train=False, mutable=[SEEN])
    return logits, attention_of(model, found)


def attention_of(model: Any, found: Any) -> dict[str, jax.Array]:
    """{block: attention [B,heads,T,T]}, in the network's order, of what `apply` with mutable=[SEEN] has found."""
    return {layer: found[SEEN][layer][0] for layer in model.layers if layer in found[SEEN]}


def seen_patches(
    model: Any, attention: Float[AnyArray, "... T T"]
) -> Float[AnyArray, "... side side"]:
    """How much the class token looks at each patch: its row of the attention, without the tokens before the patches'."""
    row = attention[..., 0, :]
    maps = model.maps("", row.reshape(-1, row.shape[-1], 1))
    return maps.reshape(*row.shape[:-1], *maps.shape[1:3])


def last_seen_patches(
    model: Any, attention: dict[str, jax.Array]
) -> Float[AnyArray, "B side side"]:
    """`seen_patches` of the last block, the mean over its heads."""
    return seen_patches(model, attention[list(attention)[-1]]).mean(1)
