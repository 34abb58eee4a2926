"""What no file of weights tells about its network, and a user may know."""

import dataclasses
from typing import Any

from mixaug_jax.core import checks

_FIELDS = {"pool": "stem_pool"}  # a network's own `pool` is a backward rule


@dataclasses.dataclass(frozen=True)
class Assume:
    """What is taken for granted of imported weights; the defaults are those of the published networks.

    Names and shapes of weights are the same whatever these are, and logits are not.

    Attributes:
      stem: of a ResNet, "imagenet" (7x7, stride 2, max pool), "cifar" (3x3, stride 1, no pool) or "strided" (3x3, stride 2, no
        pool); of a VGG or EfficientNet-Lite one of the first two; "" is what the first convolution's size suggests.
      pool: the max pool after a ResNet's stem, "max" or "none"; "auto" is as the stem says.
      last_stride: of a ResNet's layer4, 2 or 1.
      dilation: of a ResNet's layer4 where strides are replaced by dilation: 1 (none), 2 (layer4), 4 (layer3 too) or 8
        (layer2 too), for strides of 32, 16, 8 and 4 in all.
      stride_in: "conv2" or "conv1", the convolution of a bottleneck that has its stride; Caffe's ResNets have it in the latter.
      epsilon: of the norms; 0 is the architecture's: 1e-5, 1e-3 of EfficientNet-Lite and GoogLeNet, 1e-6 of transformers.
      slope: of the ReLUs below zero.
      heads: of a transformer's attention; 0 is one for every 64 numbers of a token.
      transform_input: a GoogLeNet takes images normalized as ImageNet's and brings them to -1..1 itself, as torchvision's does
        under this name. Without it, the view does so.
    """

    stem: str = ""
    pool: str = "auto"
    last_stride: int = 2
    dilation: int = 1
    stride_in: str = "conv2"
    epsilon: float = 0.0
    slope: float = 0.0
    heads: int = 0
    transform_input: bool = False

    def __post_init__(self):
        checks.choice("assume.stem", self.stem, ("", "imagenet", "cifar", "strided"))
        checks.choice("assume.pool", self.pool, ("auto", "max", "none"))
        checks.choice("assume.last_stride", self.last_stride, (1, 2))
        checks.choice("assume.dilation", self.dilation, (1, 2, 4, 8))
        checks.choice("assume.stride_in", self.stride_in, ("conv1", "conv2"))
        checks.count("assume.heads", self.heads, 0)
        checks.choice("assume.transform_input", self.transform_input, (False, True))
        for name in ("epsilon", "slope"):
            checks.number(f"assume.{name}", getattr(self, name), 0, 1)

    def applied(self, module: Any, name: str) -> Any:
        """The module of MODELS with what is assumed, the stem left out, in place of its own fields.

        Args:
          module: made from the architecture `name`.
          name: for messages.

        Raises:
          ValueError: something that this architecture does not have.
        """
        return module.clone(**self.fields(module, name))

    def fields(self, module: Any, architecture: str) -> dict[str, Any]:
        """The module's fields that are assumed; arguments and errors as of `applied`."""
        fields = {}
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), _FIELDS.get(field.name, field.name)
            if value == field.default or field.name == "stem":
                continue
            if name not in module.unseen or (name == "stride_in" and not module.bottleneck):
                raise ValueError(f"assume.{field.name}={value!r}: {architecture} has no such thing")
            fields[name] = value
        return fields


def sentence(module: Any) -> str:
    """What an imported network is taken to be, of all that its weights do not tell: "stem imagenet, pool max, ..."."""
    said = [("stem", getattr(module, "stem", ""))]
    basic = not getattr(module, "bottleneck", True)
    names = [name for name in module.unseen if not (basic and name == "stride_in")]
    said += [(name.removeprefix("stem_"), getattr(module, name)) for name in names]
    shown = [f"{name} {_shown(module, name, value)}" for name, value in said if value != ""]
    return ", ".join(shown)


def _shown(module, name, value):
    if name == "pool" and value == "auto":
        return "max" if module.stem == "imagenet" else "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value
