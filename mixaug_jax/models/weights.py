"""Bring your own weights: released PyTorch checkpoints as networks of this package, and back.

net = weights.import_weights("resnet50_cutmix.pth.tar")
weights.export_weights(net, "net.safetensors")
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import models
from mixaug_jax.core import checks, say
from mixaug_jax.models import assume as assuming
from mixaug_jax.models import build, hub, locating, mapping, noted_classes, views, weight_files
from mixaug_jax.models.assume import Assume
from mixaug_jax.models.layers import STEMS, StagedModel
from mixaug_jax.models.mapping import Architecture
from mixaug_jax.models.net import Net, Preprocess, input_shape
from mixaug_jax.models.probability import LOSSES

NOTES = "mixaug_jax"  # where exported files keep what their names and shapes do not tell
# Networks with blurred strides, whose blur has no weights: only their names tell them from ResNets.
_BLURRED = re.compile(r"resnet(blur|aa)\w*", re.IGNORECASE)
# So are those that timm took from TensorFlow, but for EfficientNet-Lite.
_PADDED = re.compile(r"tf_(efficientnet_(?!lite)|mobilenet)\w*", re.IGNORECASE)
# Whose heads people replace.
_DENSE_ENDS = (
    "googlenet",
    "resnet",
    "resnext",
    "seresnet",
    "preact_resnet",
    "wide_resnet",
    "vit",
    "deit",
)
_SIDE = 64  # of an image that every network here takes
_NEAR = 1e-3  # logits that differ by less than this share of their spread are called equal


def import_weights(
    path: str | pathlib.Path,
    *,
    model: str = "",
    assume: Assume = Assume(),  # noqa: B008, it is frozen
    view: Preprocess | str = "",
    key: str = "",
    check: Sequence[Any] | str | pathlib.Path = (),
) -> Net:
    """The network in a file of PyTorch weights, with its own preprocessing; neither PyTorch nor code from the file is run.

    Args:
      path: a .pth, .pt, .pth.tar, .safetensors or .npz file or an index of shards (`weight_files.read_state`), or
        "hf:timm/NAME" for a repository on the hub (`hub.located`), whose config.json says the view. The names are
        torchvision's, or those that `mapping.canonical` knows, under any prefix; so are those in .npz files.
      model: a name in MODELS; "" finds it from names and shapes.
      assume: what neither names nor shapes tell; what is taken for granted is printed.
      view: how the network sees an image: a `Preprocess`, one of `views.PRESETS`, or "" for that of the architecture where it
        was published (`views.preset`).
      key: which weights, where a file holds several: the name of a dict in it ("state_dict_ema"), or a prefix ("encoder_k").
      check: images and the logits that the network should give of them, to be compared: a pair of arrays, or a .npz file with
        arrays of those names. Images are uint8 [B,H,W,C], to go through the view, or float [B,h,w,C], which the network sees as
        they are; logits [B,K]. The largest difference is printed.

    Returns:
      A float32 network. Files of `export_weights` say themselves what they need.

    Raises:
      ValueError: in one sentence, where the file cannot be read, is refused, or does not fit: missing, surplus and wrongly
        shaped names are listed, and nothing is loaded in part.
    """
    net = import_network(path, model=model, assume=assume, view=view, key=key)[1]
    say.line(f"{pathlib.Path(path).name}: sees {net.preprocess}")
    if isinstance(check, (str, pathlib.Path)) or len(check):
        say.line(compare_logits(net, check))
    return net


def import_network(
    path: str | pathlib.Path,
    *,
    model: str = "",
    assume: Assume = Assume(),  # noqa: B008, it is frozen
    view: Preprocess | str = "",
    key: str = "",
) -> tuple[Architecture, Net]:
    """`import_weights` together with the arguments that make its model, for a config to keep."""
    checks.choice("model", model, ("", *models.MODELS))
    path, facts = place = hub.located(path)
    state = weight_files.read_state(path, key)
    said_of = f"{state.arch} {place.architecture} {path.name}"
    # Two kinds of network whose tensors look like those of others, but which compute something else: names alone tell.
    padded, blurred = _PADDED.search(said_of), _BLURRED.search(said_of)
    if padded:
        raise ValueError(
            f"{path} is of {padded[0]}, which pads as TensorFlow does and has no weights that say so, and is no network here"
        )
    if blurred:
        raise ValueError(
            f"{path} is of {blurred[0]}, whose blur has no weights, and which is no network here"
        )
    try:
        stem, fields, loss, noted = _notes(state.metadata)
        known = (*state.containers, *locating.prefixes(state.tensors))
        checks.choice("key", key, dict.fromkeys(("", *known)))
        located = locating.locate(state.tensors, "" if key in state.containers else key)
        tensors, said = mapping.canonical(located.tensors), ()
        name = model or mapping.name_of(tensors)
        if name.startswith(_DENSE_ENDS):
            tensors, said = locating.with_head(tensors, mapping.family_of(name).last[0])
        heads = assume.heads or fields.get("heads", 0)
        found = mapping.identify(tensors, name, _stem(assume, stem), heads)
        module = _module(found, assume, fields)
    except ValueError as error:
        raise ValueError(f"{path} cannot be imported: {error}") from None
    # torchvision's name for it: of a transformer, the names of the tensors tell which library's recipe holds.
    if isinstance(view, str):
        from_torchvision = "class_token" in located.tensors
        recipe = view or ("torchvision" if from_torchvision else "")
        noted = noted or hub.view(facts)
        transforms = getattr(module, "transform_input", False)
        published = views.preset(found, recipe, transforms=transforms)
        view = noted if noted and not view else published
    image = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, found.channels), jnp.float32)
    # Shapes tell whether everything fits; no weight is drawn.
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    try:
        view = views.checked(view, found)
        net = Net(module, mapping.to_variables(tensors, shapes), view, loss)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {found.name}: {error}") from None
    name = path.name
    for remark in (*state.remarks, *located.remarks, *said):
        say.line(f"{name}: {remark}")
    told = (
        "as the file says"
        if NOTES in state.metadata
        else "assumed, as no file of weights tells; assume says otherwise"
    )
    say.line(f"{name}: {found.name} with {assuming.sentence(module)} ({told})")
    return found, net


def class_names(path: str | pathlib.Path) -> tuple[str, ...]:
    """The names of the classes in the logits' order, where the file or its repository's config.json notes them; else ()."""
    place = hub.located(path)
    return weight_files.read_state(place.file).class_names or noted_classes.noted(place.facts)


def _stem(assume, noted):
    if noted and assume.stem not in ("", noted):
        raise ValueError(
            f"its notes say that its stem is {noted}, and assume.stem is {assume.stem}"
        )
    return assume.stem or noted


def _module(found, assume, noted):
    """The network, with what its file notes and what is assumed."""
    stems = STEMS if found.name.startswith("resnet") else ("imagenet", "cifar")
    checks.choice("assume.stem", found.stem, stems)
    if found.channels not in (1, 3):
        raise ValueError(
            f"its first convolution takes {found.channels} channels, and images have 1 or 3 here"
        )
    plain = build.made(models.MODELS[found.name], found.num_classes, found.settings)
    if not noted:
        return assume.applied(plain, found.name)
    module = plain.clone(**noted)
    for name, value in assume.fields(plain, found.name).items():
        if getattr(module, name) != value:
            raise ValueError(f"its notes contradict what is assumed of {name}, {value!r}")
    return module


def _notes(metadata) -> tuple[str, dict[str, Any], str, Preprocess | None]:
    """The stem ("": unknown), other fields, the loss and the preprocessing that `export_weights` wrote down."""
    if NOTES not in metadata:
        return "", {}, LOSSES[0], None
    try:
        notes = json.loads(metadata[NOTES])
        fields = notes.get("preprocess")
        if fields is not None:
            fields = Preprocess(**fields | {name: tuple(fields[name]) for name in ("mean", "std")})
        loss = notes.get("loss", LOSSES[0])
        checks.choice("loss", loss, LOSSES)
        return notes["stem"], dict(notes.get("fields", {})), loss, fields
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"its notes are damaged ({error})") from None


def compare_logits(net: Net, check: Sequence[Any] | str | pathlib.Path) -> str:
    """A sentence about how far a network's logits are from given ones.

    Args:
      net: the network.
      check: as for `import_weights`.

    Raises:
      ValueError: other arrays than those.
    """
    images, logits = _given(check)
    shape = input_shape(net.preprocess)
    # Bytes are pictures as they are stored, floats are preprocessed already.
    if images.dtype == np.uint8 and images.ndim == 4:
        images = np.stack([net.preprocess(image) for image in images])
    if images.ndim != 4 or images.shape[-1] != shape[-1]:
        raise ValueError(
            f"check: images must be [B,h,w,{shape[-1]}], channels last; got {list(images.shape)}"
        )
    found = np.asarray(net.logits(jnp.asarray(images, jnp.float32)))
    if found.shape != logits.shape:
        raise ValueError(
            f"check: logits must be {list(found.shape)}, a row an image; got {list(logits.shape)}"
        )
    worst, spread = float(np.abs(found - logits).max()), float(np.std(logits))
    verdict = "they agree" if worst <= _NEAR * spread else "they do NOT agree"
    return f"largest difference to the given logits {worst:.3g}, beside a standard deviation of {spread:.3g}: {verdict}"


def _given(check):
    if not isinstance(check, (str, pathlib.Path)):
        if len(check) != 2:
            raise ValueError("check must be (images, logits), or a .npz file of these")
        return np.asarray(check[0]), np.asarray(check[1], np.float32)
    tensors = weight_files.read_npz(pathlib.Path(check)) if pathlib.Path(check).is_file() else {}
    if not {"images", "logits"} <= tensors.keys():
        raise ValueError(f"check: {check} is no .npz file with arrays images and logits")
    return tensors["images"].read(), np.asarray(tensors["logits"].read(), np.float32)


def export_weights(net: Net, path: str | pathlib.Path, *, class_names: Sequence[str] = ()) -> None:
    """Writes a network's variables under PyTorch's names (torchvision's for ResNets and VGGs) and layouts as .safetensors.

    `import_weights` reads them back to the bit, with the same preprocessing; PyTorch's own modules load them too.

    Args:
      net: the network.
      path: of the file.
      class_names: to be noted in it, [K].

    Raises:
      ValueError: the network is not of this package, or `path` does not end in .safetensors.
    """
    if not isinstance(net.model, StagedModel):
        raise ValueError(f"{net.name} has no PyTorch names; networks in MODELS can be exported")
    if pathlib.Path(path).suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors, the format that it is written in")
    notes = {"stem": getattr(net.model, "stem", ""), "loss": net.loss}
    notes["fields"] = {name: getattr(net.model, name) for name in net.model.unseen}
    if isinstance(net.preprocess, Preprocess):
        notes["preprocess"] = dataclasses.asdict(net.preprocess)
    if class_names:
        notes["class_names"] = list(class_names)
    arrays = mapping.from_variables(net.variables)
    weight_files.write_safetensors(path, arrays, {NOTES: json.dumps(notes)})
