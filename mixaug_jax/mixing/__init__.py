"""Mixing augmentations: pure functions that run inside the train step, on the device.

    images, targets = MIXERS["cutmix"](key, images, targets, shard=shard, alpha=1.0)

`key` is the step's key, equal on all devices; `images` [B,H,W,C] are normalized, so that 0 is the
mean color; `targets` [B,K] are rows that sum to 1; `shard` is the index of the device along the
data axis. All mix in float32 and return the types given. With `per="batch"` the examples share
lambda, coin and mask, alike on all devices; with `per="example"` each has its own; the default is
what was published. With the probability 1 - `prob` nothing is mixed. lambda is always the weight of
the image's own content, computed from the pixels that were really kept. `label` says what becomes
of the labels; under "visible" and "attention" mixers by a mask return them `labels.Pending`, for the
training step to settle. A mixer that takes `net` looks at a network, as it is evaluated, through the maps of
`mixing.maps`; its rows of targets sum to 1 unless it says otherwise.

* Chen et al., GridMask, arXiv 2001.04086: gridmask
* DeVries & Taylor, Cutout, arXiv 1708.04552: cutout
* Harris et al., FMix, arXiv 2002.12047: fmix
* Huang et al., SnapMix, arXiv 2012.04846: snapmix
* Kang & Kim, GuidedMixup, arXiv 2306.16612: guidedmixup
* Kim et al., Puzzle Mix, arXiv 2009.06962: puzzlemix
* Lee et al., SmoothMix, CVPR Workshops 2020: smoothmix
* Liu et al., TokenMix, arXiv 2207.08409: tokenmix
* OpenMixup, arXiv 2209.04851, after Baek et al., Pattern Recognition 109, 2021: gridmix
* Qin et al., ResizeMix, arXiv 2012.11101: resizemix
* timm's mixup-or-CutMix, as in DeiT, arXiv 2012.12877: switch
* Uddin et al., SaliencyMix, arXiv 2006.01791: saliencymix
* Venkataramanan et al., AlignMixup, arXiv 2103.15375: alignmix
* Verma et al., Manifold Mixup, arXiv 1806.05236: manifold_mixup
* Walawalkar et al., Attentive CutMix, arXiv 2003.13048: attentivemix
* Yin et al., Batchmixup, Findings of ACL 2021: batchmixup
* Yun et al., CutMix, arXiv 1905.04899: cutmix
* Zhang et al., mixup, arXiv 1710.09412: mixup
* Zhao et al., MixPro, arXiv 2304.12043: maskmix
* Zhong et al., Random Erasing, arXiv 1708.04896: random_erasing

A new mixer is one function of this form and one line in `MIXERS`. For a loop of one's own, with integer labels: `batch_mixer`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from mixaug_jax.core import checks, entries
from mixaug_jax.core.types import Config, Scalar
from mixaug_jax.mixing.aligned import alignmix, batchmixup
from mixaug_jax.mixing.batches import batch_mixer
from mixaug_jax.mixing.boxes import cut_box, cutmix, resizemix, saliencymix, switch
from mixaug_jax.mixing.erasing import random_erasing
from mixaug_jax.mixing.grids import gridmask, gridmix
from mixaug_jax.mixing.guided import guidedmixup
from mixaug_jax.mixing.hidden import manifold_mixup
from mixaug_jax.mixing.labels import LABELS, MASK_LABELS, mix_targets
from mixaug_jax.mixing.looked_at import attentivemix, snapmix
from mixaug_jax.mixing.masks import fmix, smoothmix
from mixaug_jax.mixing.patches import maskmix, tokenmix
from mixaug_jax.mixing.pixels import cutout, mixup
from mixaug_jax.mixing.puzzle import puzzlemix
from mixaug_jax.mixing.saliency import fine_grained_saliency

__all__ = [
    "FOR_ALL",
    "LABELS",
    "MASK_LABELS",
    "MIXERS",
    "batch_mixer",
    "batch_share",
    "bound",
    "cut_box",
    "fine_grained_saliency",
    "mix_targets",
    "options",
    "own_options",
]

# Settings beside a mixer's own options: which network it looks at, and how many of a step's examples are mixed.
FOR_ALL = ("net", "share")

MIXERS = {
    "alignmix": alignmix,
    "attentivemix": attentivemix,
    "batchmixup": batchmixup,
    "cutmix": cutmix,
    "cutout": cutout,
    "fmix": fmix,
    "gridmask": gridmask,
    "gridmix": gridmix,
    "guidedmixup": guidedmixup,
    "manifold_mixup": manifold_mixup,
    "maskmix": maskmix,
    "mixup": mixup,
    "puzzlemix": puzzlemix,
    "random_erasing": random_erasing,
    "resizemix": resizemix,
    "saliencymix": saliencymix,
    "smoothmix": smoothmix,
    "snapmix": snapmix,
    "switch": switch,
    "tokenmix": tokenmix,
}


def options(name: str) -> dict[str, Any]:
    """A mixer's options and their defaults, {option: default}, for a config file to write out.

    Without what whoever calls it fills in, see `core.entries`.

    Raises:
      ValueError: no mixer of this name.
    """
    checks.choice("mix.name", name, MIXERS)
    return entries.options(MIXERS[name])


def own_options(mix: Config) -> dict[str, Any]:
    """What of a section of settings the mixer itself is told: all but its name, and what whoever calls it does with it."""
    beside = {"name", *FOR_ALL} - {*options(mix.name)}
    return {name: value for name, value in mix.items() if name not in beside}


def batch_share(mix: Config) -> Scalar:
    """How much of a batch the mixer of a section of settings is given; all where `share` is an option of its own."""
    # Runs from before there was the key say nothing of it.
    return 1.0 if "share" in options(mix.name) else mix.get("share", 1.0)


def bound(mixer: Callable, options: Mapping[str, Any], available: Mapping[str, Any]) -> Callable:
    """f(key, images, targets): a mixer with its options, and of what is `available` ("shard", "net", ...) what it takes."""
    asked = entries.keywords(mixer)
    return functools.partial(mixer, **options, **{k: v for k, v in available.items() if k in asked})
