"""Where a network's tensors are among all tensors of a file: under which prefix, with which head, and what is beside them."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mixaug_jax.models.pickles import Tensor

# By one of these a network is found, whatever stands in front of it.
_ANCHORS = re.compile(
    r"(.*\.|)((layer1\.0\.conv1|features\.0|_conv_stem|block1\.layer\.0\.conv1|conv4|inception3a\.branch1\.conv|conv_stem|features\.0\.0"
    r"|features\.conv0|stem\.0|downsample_layers\.0\.0)\.weight|cls_token|class_token)"
)
# The children of a ResNet that have weights, by their places.
_CHILDREN = {0: "conv1", 1: "bn1", **{i: f"layer{i - 3}" for i in range(4, 8)}}
_HEADS = ("fc", "linear", "head", "classifier", "last_linear", "cls_head")
# Parts that do nothing to the logits: a normalizing layer's constants, auxiliary classifiers, what a training loss and metrics
# keep.
_BESIDE = re.compile(
    r"(.*\.)?(mean|std|pixel_mean|pixel_std|(aux\w*|criterion|loss\w*|queue\w*|normali[sz]er?)(\..*)?)"
    r"|(.*\.)?(metrics?|(train|val|valid|validation|test)_\w+)\..*"
)


class Located(NamedTuple):
    """A network's tensors by its own names, and what was left out or put in, in sentences."""

    tensors: dict[str, Tensor]
    remarks: tuple[str, ...]


def prefixes(names: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What stands in front of the networks in a file, without the last dot: most tensors first; the whole file is ""."""
    anchors = [match for name in names if (match := _ANCHORS.fullmatch(name))]
    # Many networks have a fourth convolution; the one here has a norm of that number, too.
    found = dict.fromkeys(m[1] for m in anchors if m[3] != "conv4" or f"{m[1]}bn4.weight" in names)
    sizes = {p: sum(name.startswith(p) for name in names) for p in found}
    # Blocks of a network may look like networks themselves, so what lies inside of another is none.
    outer = [p for p in found if not any(p != q and p.startswith(q) for q in found)]
    return tuple(p.removesuffix(".") for p in sorted(outer, key=lambda p: -sizes[p]))


def locate(tensors: Mapping[str, Tensor], prefix: str = "") -> Located:
    """The tensors of the one network in a file.

    The network is what lies under a common prefix ("backbone."); its head may be beside it. What does nothing to the logits is
    left out; other tensors stay, under names that no network has, and so are refused later.

    Args:
      tensors: by the names of their file.
      prefix: one of `prefixes`; "" is the largest, of equal ones the first.
    """
    tensors = _of_children(tensors)
    known = prefixes(tensors)
    taken = prefix or (known[0] if known else "")
    start = f"{taken}." if taken else ""
    inside = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    others = tuple(f"{p}." for p in known if p != taken)
    # A head may lie beside a backbone of its own prefix; what belongs to another network does not come along.
    outside = {
        n: t for n, t in tensors.items() if not n.startswith((*others, start) if start else others)
    }
    # What wraps the network may lie in a module itself, "model.backbone." beside "model.fc.".
    outer = f"{taken.rpartition('.')[0]}." if "." in taken else ""
    outside = {n.removeprefix(outer): t for n, t in outside.items()} if start else {}
    remarks = [f"networks under {', '.join(known)}: {taken} is taken"] if len(known) > 1 else []
    found = {n: t for n, t in {**inside, **outside}.items() if not _BESIDE.fullmatch(n)}
    shown = (lambda n: n.removeprefix(start)), (lambda n: n.removeprefix(outer))
    left = [n for n in tensors if n not in found and not any(f(n) in found for f in shown)]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        remarks.append(f"left out: {', '.join(left[:3])}{more}")
    return Located(found, tuple(remarks))


def _of_children(tensors):
    """A ResNet's tensors under its own names where it was put together anew as nn.Sequential(*list(resnet.children())[:-1])."""
    first = next((n for n in tensors if n.endswith("4.0.conv1.weight")), "")
    start = first.removesuffix("4.0.conv1.weight")
    if not first or not {f"{start}0.weight", f"{start}7.0.conv1.weight"} <= tensors.keys():
        return tensors
    names = {f"{start}{i}.": f"{start}{name}." for i, name in _CHILDREN.items()}
    renamed = {}
    for name, tensor in tensors.items():
        old = next((child for child in names if name.startswith(child)), "")
        renamed[names[old] + name.removeprefix(old) if old else name] = tensor
    return renamed


def with_head(tensors: Mapping[str, Tensor], last: str) -> Located:
    """The tensors of a network that ends in one dense layer, with that layer under its usual name.

    It may be called otherwise or have a dropout in front ("fc.1.", "head.fc."); where it has no bias, the bias is 0.

    Args:
      tensors: by name.
      last: the layer's usual name, "fc".

    Raises:
      ValueError: a network without a head, or with a head of more than one dense layer.
    """
    names = {n: n for n in tensors if n.split(".")[0] in _HEADS}
    matrices = [n for n in names if n.endswith(".weight") and _is_dense(tensors[n])]
    if not matrices:
        raise ValueError(f"it has no last layer ({last}), so it gives features and no logits")
    if len(matrices) > 1:
        layers = [f"{n.removesuffix('.weight')} {list(tensors[n].shape)}" for n in matrices]
        raise ValueError(
            f"its head has {len(matrices)} dense layers ({', '.join(layers)}), and the networks here have one"
        )
    (weight,) = matrices
    # Whatever the head is called: one dense layer at the end can only be the last one.
    old, new = weight.removesuffix("weight"), f"{last}."
    renamed = {new + n.removeprefix(old) if n.startswith(old) else n: t for n, t in tensors.items()}
    if f"{new}bias" in renamed:
        return Located(renamed, ())
    count = tensors[weight].shape[0]
    kind = tensors[weight].dtype
    renamed[f"{new}bias"] = Tensor((count,), kind, lambda: np.zeros(count, kind))
    return Located(renamed, (f"{old.removesuffix('.')} has no bias, which is 0 then",))


def _is_dense(tensor):
    return len(tensor.shape) == 2 or (len(tensor.shape) == 4 and tensor.shape[2:] == (1, 1))
