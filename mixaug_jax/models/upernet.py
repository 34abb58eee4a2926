"""UPerNet, the Unified Perceptual Parsing network (Xiao et al. 2018, 1807.10221): objects, parts, materials and the scene of a photo.

It gives images the concepts that dissection compares units with. Written after the authors' released code, and for its weights: an
encoder that is a ResNet-50 with three 3x3 convolutions as its stem, and a decoder of pyramid pooling, a feature pyramid and one head
a task. Two things differ from the paper's figure 4 and from other code, and matter for these weights: pooling is precise RoI pooling of
the whole map (Jiang et al. 2018, 1807.11590, eq. 2), and pooled maps are enlarged *before* their convolution.
"""

import functools
import importlib.resources
import json
import pathlib
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.models import mapping, weight_files
from mixaug_jax.models.layers import StagedModel
from mixaug_jax.models.resnet import ResNet

FILTERS = 512  # of the decoder
BINS = (1, 2, 3, 6)  # of pyramid pooling, on each side
MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green and red, 0..255; there is no division by a standard deviation
SIZES = (300, 400, 500, 600)  # short sides over which the authors average
LONGEST = 1000  # of the long side, in pixels
MULTIPLE = 8  # of which both sides are made


class Labels(NamedTuple):
    """What the outputs are called. Entry 0 of objects, parts and materials is "-", nothing.

    Attributes:
      objects [336], parts [153], materials [26], scenes [365]: names.
      owner: int [427], the object that each channel of the part head belongs to; channels of one object are in one run, and the
        runs in the order of the objects.
      part: int [427], which part each of these channels is; 0, its background, in the first of each run.
    """

    objects: tuple[str, ...]
    parts: tuple[str, ...]
    materials: tuple[str, ...]
    scenes: tuple[str, ...]
    owner: np.ndarray
    part: np.ndarray


@functools.cache
def labels() -> Labels:
    """The authors' lists of names, and of which parts each of 77 objects has."""
    text = importlib.resources.files("mixaug_jax.models").joinpath("upernet_labels.json").read_text()
    lists = json.loads(text)
    objects, parts = tuple(lists["object"]), tuple(lists["part"])
    runs = sorted((objects.index(name), own) for name, own in lists["object_part"].items())
    owner = np.repeat([number for number, _ in runs], [len(own) for _, own in runs])
    part = np.array([parts.index(name) for _, own in runs for name in own])
    return Labels(objects, parts, tuple(lists["material"]), tuple(lists["scene"]), owner, part)


class Encoder(ResNet):
    """ResNet-50 with a stem of three convolutions; used up to layer4."""

    hidden_stages: ClassVar = ("layer1", "layer2", "layer3", "layer4")

    def run(self, stage: str, x: jax.Array, train: bool) -> jax.Array:
        if stage != "conv1":
            return super().run(stage, x, train)
        for i, filters in enumerate((64, 64, 128), 1):
            x = self.conv(f"conv{i}", x, filters, 3, 2 if i == 1 else 1, norm=f"bn{i}", train=train)
            x = self.relu(f"relu{i}", x)
        return x


class Decoder(StagedModel):
    """From the outputs of layer1 to layer4 to each task's logits."""

    @nn.compact
    def __call__(self, features: list[jax.Array]) -> dict[str, jax.Array]:
        """features [B,h/4..h/32,w/4..w/32,256..2048] -> object, part, material [B,h/4,w/4,*] and scene [B,365], all float32."""
        top = features[-1]
        pooled = [self._pooled(i, top, bins) for i, bins in enumerate(BINS)]
        top = self._cbr("ppm_last_conv.", jnp.concatenate([top, *pooled], -1), 3)
        levels, down = [top], top
        for i in (2, 1, 0):
            lateral = self._cbr(f"fpn_in.{i}.", features[i], 1)
            down = lateral + resize(down, lateral.shape[1:3])
            levels.insert(0, self._cbr(f"fpn_out.{i}.0.", down, 3))
        size = levels[0].shape[1:3]
        fused = jnp.concatenate([resize(level, size) for level in levels], -1)
        fused = self._cbr("conv_fusion.", fused, 3)
        names = labels()
        scene = self._cbr("scene_head.0.", top, 3).mean((1, 2), keepdims=True)
        return {
            "object": self._head("object_head.", fused, len(names.objects)),
            "part": self._head("part_head.", fused, len(names.part)),
            "material": self._head("material_head.", levels[0], len(names.materials)),
            "scene": self.conv("scene_head.2", scene, len(names.scenes), 1, bias=True)[:, 0, 0],
        }

    def _pooled(self, i, x, bins):
        return self._cbr(f"ppm_conv.{i}.", resize(precise_pool(x, bins), x.shape[1:3]), 1)

    def _head(self, name, x, channels):
        return self.conv(f"{name}1", self._cbr(f"{name}0.", x, 3), channels, 1, bias=True)

    def _cbr(self, name, x, size):
        """Convolution, batch norm and ReLU, as entries 0 and 1 of a PyTorch sequence."""
        return nn.relu(self.conv(f"{name}0", x, FILTERS, size, norm=f"{name}1"))


class UPerNet(nn.Module):
    """Encoder and decoder: images [B,h,w,3], blue green red, 0..255 less `MEAN` -> logits by task, as `Decoder`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        features = []

        def keep(stage, h):
            features.append(h)
            return h

        encoder = Encoder(0, (3, 4, 6, 3), True, 64, "imagenet", name="encoder")
        encoder(x, stop="layer4", hidden=keep)
        return Decoder(name="decoder")(features)
