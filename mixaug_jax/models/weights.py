"""Bring your own weights: released PyTorch checkpoints as networks of this package, and back.

net = weights.import_weights("resnet50_cutmix.pth.tar")
weights.export_weights(net, "net.safetensors")
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp

from mixaug_jax import models
from mixaug_jax.core import checks
from mixaug_jax.models import efficientnet_lite, mapping, weight_files
from mixaug_jax.models.layers import StagedModel
from mixaug_jax.models.mapping import Architecture
from mixaug_jax.models.net import CIFAR_MEAN, CIFAR_STD, Net, Preprocess

NOTES = "mixaug_jax"  # where exported files keep what their names and shapes do not tell


def import_weights(path: str | pathlib.Path, model: str = "") -> Net:
    """The network in a file of PyTorch weights, with its own preprocessing; neither PyTorch nor code from the file is run.

    Args:
      path: a .pth, .pt, .pth.tar, .safetensors or .npz file (`weight_files.read_state`). The names are torchvision's, or those
        that `mapping.canonical` knows; .npz files use PyTorch's names and layouts too.
      model: a name in MODELS; "" finds it from names and shapes.

    Returns:
      A float32 network. A 3x3 first convolution makes a ResNet one for CIFAR. Preprocessing is what `preprocessing` says, or,
      in files of `export_weights`, that of the exported network.

    Raises:
      ValueError: in one sentence, where the file cannot be read, is refused, or does not fit: missing, surplus and wrongly
        shaped names are listed, and nothing is loaded in part.
    """
    return import_network(path, model)[1]


def import_network(path: str | pathlib.Path, model: str = "") -> tuple[Architecture, Net]:
    """`import_weights` together with the arguments that make its model, for a config to keep."""
    checks.choice("model", model, ("", *models.MODELS))
    state = weight_files.read_state(path)
    tensors = mapping.canonical(state.tensors)
    try:
        stem, preprocess = _notes(state.metadata)
        found = mapping.identify(tensors, model, stem)
    except ValueError as error:
        raise ValueError(f"{path} cannot be imported: {error}") from None
    module = models.MODELS[found.name](found.num_classes, width=found.width, stem=found.stem)
    image = jax.ShapeDtypeStruct((1, 32, 32, found.channels), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    try:
        variables = mapping.to_variables(tensors, shapes)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {found.name}: {error}") from None
    return found, Net(module, variables, preprocess or preprocessing(found))


def _notes(metadata) -> tuple[str, Preprocess | None]:
    """The stem ("": unknown) and the preprocessing that `export_weights` wrote down."""
    if NOTES not in metadata:
        return "", None
    try:
        notes = json.loads(metadata[NOTES])
        fields = notes.get("preprocess")
        if fields is not None:
            fields = Preprocess(**fields | {name: tuple(fields[name]) for name in ("mean", "std")})
        return notes["stem"], fields
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"its notes are damaged ({error})") from None


def preprocessing(found: Architecture) -> Preprocess:
    """What networks of an architecture are evaluated with where they were published.

    With the "imagenet" stem: short side 256, center 224, ImageNet's mean and standard deviation, as in torchvision and in the
    CutMix and SaliencyMix code. With the "cifar" stem: 32 pixels and the constants of the Cutout, CutMix and SaliencyMix code.
    EfficientNet-Lite: (x - 127) / 128, the center's size / (size + 32), bicubic; the authors' code says bilinear, but
    TensorFlow's, which is not antialiased, and which PIL's bicubic comes closer to. One-channel networks get the mean of the
    three channels' constants.
    """
    if found.name.startswith("efficientnet_lite"):
        size = efficientnet_lite.SIDES[int(found.name[-1])]
        constants = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "interpolation": "bicubic"}
        preprocess = Preprocess(size, size + 32, **constants)
    elif found.stem == "cifar" or found.name == "tiny":
        preprocess = Preprocess(32, 32, CIFAR_MEAN, CIFAR_STD)
    else:
        preprocess = Preprocess(224, 256)
    if found.channels == 3:
        return preprocess
    mean, std = sum(preprocess.mean) / 3, sum(preprocess.std) / 3
    return dataclasses.replace(preprocess, mean=(mean,), std=(std,))


def export_weights(net: Net, path: str | pathlib.Path) -> None:
    """Writes a network's variables under PyTorch's names (torchvision's for ResNets and VGGs) and layouts as .safetensors.

    `import_weights` reads them back to the bit, with the same preprocessing; PyTorch's own modules load them too.

    Raises:
      ValueError: the network is not of this package, or `path` does not end in .safetensors.
    """
    if not isinstance(net.model, StagedModel):
        raise ValueError(f"{net.name} has no PyTorch names; networks in MODELS can be exported")
    if pathlib.Path(path).suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors, the format that it is written in")
    notes = {"stem": getattr(net.model, "stem", "")}
    if isinstance(net.preprocess, Preprocess):
        notes["preprocess"] = dataclasses.asdict(net.preprocess)
    arrays = mapping.from_variables(net.variables)
    weight_files.write_safetensors(path, arrays, {NOTES: json.dumps(notes)})
