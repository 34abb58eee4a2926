"""The table of keys, third part: what a file of weights does not tell about its network."""

from mixaug_jax.config.allowed import NOTHING, Choice, Flag, Int, Key, Many, Number, Text, section
from mixaug_jax.models.net import INTERPOLATIONS
from mixaug_jax.models.views import PRESETS

# fmt: off
_TOP = {
    "weights_key": Key("", 'which weights of a file with several: "state_dict_ema", "encoder_k"',
                       Text()),
    "weights_check": Key("", "a .npz with arrays images and logits, to compare with", Text(),
                         NOTHING),
}

_ASSUME = {
    "stem": Key("", 'of a ResNet; "": by the first kernel. strided: 3x3 at stride 2',
                Choice(("", "imagenet", "cifar", "strided"))),
    "pool": Key("auto", "the max pool after a ResNet's stem; auto: as the stem has it",
                Choice(("auto", "max", "none"))),
    "last_stride": Key(2, "of a ResNet's layer4", Int(1, 2)),
    "dilation": Key(1, "of a ResNet's layer4, in place of strides: 2 (its own), 4, 8 (all)",
                    Int(1, 8)),
    "stride_in": Key("conv2", "the convolution of a bottleneck with the stride; Caffe's: conv1",
                     Choice(("conv2", "conv1"))),
    "epsilon": Key(0.0, "of the norms; 0: the architecture's own", Number(0, 1)),
    "slope": Key(0.0, "of the ReLUs below zero", Number(0, 1)),
    "heads": Key(0, "of a transformer's attention; 0: one for every 64 numbers of a token",
                 Int(0, 1024)),
    "transform_input": Key(False, "a GoogLeNet normalizes ImageNet's view anew, as torchvision's",
                           Flag()),
}

_VIEW = {
    "preset": Key("", 'a recipe; "": as the architecture was published', Choice(("", *PRESETS))),
    "size": Key(0, "side of the center that is cut out, pixels; 0: the preset's", Int(0, 4096)),
    "resize": Key(-1, "short side before that, pixels; 0: as it is; -1: the preset's",
                  Int(-1, 65536)),
    "mean": Key((), "of 0..1 pixels; (): the preset's", Many(Number(-100, 100), 0, 3)),
    "std": Key((), "of 0..1 pixels; (): the preset's", Many(Number(1e-6, 100), 0, 3)),
    "order": Key("", 'of the channels; "": the preset\'s', Choice(("", "rgb", "bgr"))),
    "interpolation": Key("", 'of the resizing; "": the preset\'s',
                         Choice(("", *INTERPOLATIONS))),
}
# fmt: on

KEYS: dict[str, Key] = {**_TOP, **section("assume", _ASSUME), **section("view", _VIEW)}
UNSET = {key.removeprefix("view."): known.default for key, known in KEYS.items() if "view." in key}
