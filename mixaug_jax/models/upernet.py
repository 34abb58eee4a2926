"""UPerNet, the Unified Perceptual Parsing network (Xiao et al. 2018, 1807.10221): objects, parts, materials and scenes.

It gives images the concepts that dissection compares units with. Written after the authors' released code, and for its
weights: an encoder that is a ResNet-50 with three 3x3 convolutions as its stem, and a decoder of pyramid pooling, a feature
pyramid and one head a task. Two things differ from the paper's figure 4 and from other code, and matter for these weights:
pooling is precise RoI pooling of the whole map (Jiang et al. 2018, 1807.11590, eq. 2), and pooled maps are enlarged *before*
their convolution.
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
# Of blue, green and red, 0..255; there is no division by a standard deviation.
MEAN = (102.9801, 115.9465, 122.7717)
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
    folder = importlib.resources.files("mixaug_jax.models")
    lists = json.loads(folder.joinpath("upernet_labels.json").read_text())
    objects, parts = tuple(lists["object"]), tuple(lists["part"])
    runs = sorted((objects.index(name), own) for name, own in lists["object_part"].items())
    owner = np.repeat([number for number, _ in runs], [len(own) for _, own in runs])
    part = np.array([parts.index(name) for _, own in runs for name in own])
    return Labels(objects, parts, tuple(lists["material"]), tuple(lists["scene"]), owner, part)


class Encoder(ResNet):
    """ResNet-50 with a stem of three convolutions; used up to layer4."""

    hidden_layers: ClassVar = ("layer1", "layer2", "layer3", "layer4")

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer != "conv1":
            return super().run(layer, x, train)
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
            # Fine to coarse: the input channels of `conv_fusion` are in this order in the authors' file.
            levels.insert(0, self._cbr(f"fpn_out.{i}.0.", down, 3))
        size = levels[0].shape[1:3]
        fused = jnp.concatenate([resize(level, size) for level in levels], -1)
        fused = self._cbr("conv_fusion.", fused, 3)
        names = labels()
        # A scene is global, so its head reads the top; materials are texture and read the finest level.
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

        # The hook made for manifold mixup sees all layers in one run of the encoder.
        def keep(layer: str, h: Any):
            if layer in Encoder.hidden_layers:
                features.append(h)
            return h

        encoder = Encoder(0, (3, 4, 6, 3), True, 64, "imagenet", name="encoder")
        encoder(x, stop="layer4", hidden=keep)
        return Decoder(name="decoder")(features)


def resize(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """x [B,h,w,C] -> [B,*size,C], bilinear with half-pixel centers, not antialiased."""
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear", antialias=False)


def precise_pool(x: jax.Array, bins: int) -> jax.Array:
    """Precise RoI pooling of whole maps, [B,h,w,C] -> [B,bins,bins,C] (Jiang et al. 2018, 1807.11590, eq. 2), in closed form.

    A cell is the mean of the bilinear surface through the values at integer coordinates, over [i h / bins, (i + 1) h / bins];
    the surface falls to 0 at h, so that even a single bin is not the mean of the map.
    """
    rows, cols = (pool_weights(n, bins).astype(np.float32) for n in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, cols)


def pool_weights(length: int, bins: int) -> np.ndarray:
    """[bins,length]: the mean over each bin of the hat function around each of the coordinates 0 to length - 1."""
    edges = np.arange(bins + 1)[:, None] * length / bins - np.arange(length)

    def integral(u):  # of the unit hat, up to u
        u = np.clip(u, -1, 1)
        return np.where(u < 0, (u + 1) ** 2 / 2, 1 - (1 - u) ** 2 / 2)

    return np.diff(integral(edges), axis=0) * bins / length


def part_probabilities(logits: jax.Array) -> jax.Array:
    """Logits [...,427] of the part head -> softmax within the parts of each object."""
    objects, run = np.unique(labels().owner, return_inverse=True)
    logits = jnp.moveaxis(logits, -1, 0)
    # Less each run's maximum, so that no exponential overflows.
    powers = jnp.exp(logits - jax.ops.segment_max(logits, run, len(objects))[run])
    sums = jax.ops.segment_sum(powers, run, len(objects))
    return jnp.moveaxis(powers / sums[run], 0, -1)


@functools.partial(jax.jit, static_argnames=("inner", "outer"))
def probabilities(
    variables: Any, image: jax.Array, inner: tuple[int, int], outer: tuple[int, int]
) -> dict[str, jax.Array]:
    """What the network makes of an image at one size.

    Args:
      variables: of `UPerNet`, as from `import_upernet`.
      image: [h,w,3] red green blue, 0..255.
      inner: height and width of the network's input.
      outer: height and width of the result; logits are resized before the softmax.

    Returns:
      object [*outer,336], material [*outer,26], part [*outer,427] (within each object) and scene [365], float32.
    """
    x = resize(image[None].astype(jnp.float32), inner)[..., ::-1] - jnp.array(MEAN)
    logits = UPerNet().apply(variables, x)
    scene = nn.softmax(logits.pop("scene")[0])
    maps = {task: resize(values, outer)[0] for task, values in logits.items()}
    return {
        "object": nn.softmax(maps["object"]),
        "material": nn.softmax(maps["material"]),
        "part": part_probabilities(maps["part"]),
        "scene": scene,
    }


def input_size(height: int, width: int, size: int) -> tuple[int, int]:
    """The network's input for a short side of `size`: the long side at most 1000, both made multiples of 8 by rounding up."""
    scale = min(size / min(height, width), LONGEST / max(height, width))
    return tuple(-(-int(n * scale) // MULTIPLE) * MULTIPLE for n in (height, width))


def segment(
    variables: Any, image: np.ndarray, sizes: tuple[int, ...] = SIZES
) -> dict[str, np.ndarray]:
    """Label maps of a photo: the most probable labels, probabilities averaged over sizes as in the authors' test code.

    Their code resizes photos in bytes; here they are not rounded. Every new shape of image compiles once for each size.

    Args:
      variables: of `UPerNet`, as from `import_upernet`.
      image: uint8 [H,W,3], red green blue.
      sizes: short sides in pixels.

    Returns:
      uint16 [H,W] each: object, an index into `labels().objects`; material, into `.materials`; part, into `.parts`: the part
      of the object that was found there, 0 where that object has no parts. And scene: an int, into `.scenes`.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image must be uint8 [H,W,3]; got {image.dtype} {list(image.shape)}")
    if not sizes or min(sizes) < 32:
        raise ValueError(f"sizes must be one or more, none below 32 pixels; got {sizes}")
    outer = image.shape[:2]
    total = None
    for size in sizes:
        found = probabilities(variables, image, input_size(*outer, size), outer)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    return jax.tree.map(np.asarray, _most_probable(total)) | {"scene": int(total["scene"].argmax())}


@jax.jit
def _most_probable(total):
    objects = total["object"].argmax(-1)
    own = labels().owner == objects[..., None]
    # -1 lies below every probability, so parts of other objects can never win.
    part = jnp.asarray(labels().part)[jnp.where(own, total["part"], -1).argmax(-1)]
    maps = {
        "object": objects,
        "material": total["material"].argmax(-1),
        "part": jnp.where(own.any(-1), part, 0),
    }
    return jax.tree.map(lambda a: a.astype(jnp.uint16), maps)


def import_upernet(encoder: str | pathlib.Path, decoder: str | pathlib.Path) -> dict[str, Any]:
    """The variables of `UPerNet` from the authors' two files, encoder_epoch_40.pth and decoder_epoch_40.pth.

    Raises:
      ValueError: a file that cannot be read or does not fit, as `weights.import_weights`.
    """
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(UPerNet().init, jax.random.key(0), image)
    variables = {collection: {} for collection in shapes}
    for part, path in (("encoder", encoder), ("decoder", decoder)):
        tensors = weight_files.read_state(path).tensors
        try:
            found = mapping.to_variables(tensors, {c: shapes[c][part] for c in shapes})
        except ValueError as error:
            raise ValueError(f"{path} does not fit the {part} of UPerNet: {error}") from None
        for collection, layers in found.items():
            variables[collection][part] = layers
    return variables
