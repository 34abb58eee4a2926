"""What a data set, or a method on a data set, changes in the defaults: the published recipes."""

import ml_collections

from mixaug_jax import mixing
from mixaug_jax.config import keys
from mixaug_jax.core import checks, entries
from mixaug_jax.explain import options
from mixaug_jax.models.net import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD


def _scenes(config):
    """Drawn pictures of ten kinds of objects."""
    config.data.scenes = keys.defaults("data.scenes")
    config.data.batch_size = 32
    # At 64 px layer4 would else have 2 x 2 nodes, in which no map and no unit can point at anything.
    config.model.update(width=0.25, last_stride=1)
    config.train.update(epochs=18, lr=0.05, warmup=0.05, weight_decay=5e-4)


def folder(config: ml_collections.ConfigDict) -> None:
    """Photographs in folders, and any set that has no recipe of its own."""
    # 256 / 224 is ImageNet's customary ratio of the short side to the crop.
    config.data.update(size=96, batch_size=32, test_split="", resize=256 / 224)
    config.data.update(crop="resized", crop_scale=(0.35, 1.0), jitter=0.4)
    config.data.update(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    config.train.update(epochs=30, lr=0.02, warmup=0.05, weight_decay=5e-4)
    config.eval.batch_size = 64


def _own_folder(config):
    """Photographs in a folder of one's own, whose test/ is used where it is there."""
    folder(config)
    config.data.test_split = "auto"


def _speech(config):
    """64 bands, and 64 frames at least: 0.8 s, more than 97 % of spoken digits."""
    config.data.audio = keys.defaults("data.audio")
    # Of the training spectrograms of the Free Spoken Digit Dataset.
    config.data.update(size=64, batch_size=64, crop="time", pad=8, flip=False, test_split="auto")
    config.data.update(mean=(0.26,), std=(0.29,))
    config.model.width = 0.25
    config.train.update(epochs=20, lr=0.1, warmup=0.05, weight_decay=5e-4)


def _markers(config):
    """Twelve bits of a marker, in gray; a mirror image would be another marker, and a black border would tell real pictures."""
    config.data.markers = keys.defaults("data.markers")
    config.data.update(
        size=32, batch_size=64, train_split="labeled", crop="shift", pad=2, flip=False
    )
    config.data.update(mean=(0.33,), std=(0.21,))
    config.model.name = "decoder"
    config.train.update(loss="sigmoid", epochs=30, lr=0.05, warmup=0.05, weight_decay=5e-4)


def _animals(config):
    """Animals of eight blocks; a mirror image would be one that the sampler may not draw."""
    config.data.animals = keys.defaults("data.animals")
    config.data.update(size=64, batch_size=64, flip=False)
    config.data.update(mean=(0.75, 0.72, 0.74), std=(0.105, 0.1, 0.115))
    config.model.width = 0.25
    config.train.update(epochs=10, lr=0.1, warmup=0.05, weight_decay=5e-4)
    config.stages = ("train", "dissect", "intervene", "explain", "occlude", "relevance", "report")


def _cifar(config):
    """Cutout's recipe, which SaliencyMix's code shares."""
    config.data.update(size=32, batch_size=128, validation_split="", crop="pad")
    config.data.update(mean=CIFAR_MEAN, std=CIFAR_STD)
    config.dissect.split = config.explain.split = "test"
    config.model.stem = "cifar"
    # Cutout's code multiplies the rate by 0.2 at epochs 60, 120 and 160.
    config.train.update(epochs=200, schedule="step", boundaries=(0.3, 0.6, 0.8), decay=0.2)
    config.train.weight_decay = 5e-4
    config.eval.batch_size = 1000


def _imagenet(config):
    """CutMix's recipe, 300 epochs; on a TPU or GPU add --config.model.dtype=bfloat16.

    A train step of ResNet-50 moves memory rather than multiplies, about 1 GB an image in float32: on a TPU v5e 82 ms for the
    bytes of 64 images, 46 ms for products in float32, 8 ms for those in bfloat16, by its printed peaks (docs/scale.md). In
    bfloat16 the compiler counts 60 % of the bytes, 49 ms, and products take one pass, whatever `precision` says; parameters,
    batch statistics and the loss stay float32. It is no default, for imported weights and what is measured of them are float32.
    """
    config.data.update(size=224, batch_size=256, test_split="", resize=256 / 224)
    config.data.update(crop="resized", jitter=0.4, lighting=0.1, threads=8)
    config.data.update(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    config.model.name = "resnet50"
    # CutMix's code divides the rate by 10 every 75 epochs.
    config.train.update(epochs=300, schedule="step", boundaries=(0.25, 0.5, 0.75), decay=0.1)
    config.eval.batch_size = 256


RECIPES = {
    "scenes": _scenes,
    "folder": _own_folder,
    "speech": _speech,
    "markers": _markers,
    "hf": _own_folder,
    "animals": _animals,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "imagenet2012": _imagenet,
}

# As on CIFAR: with every batch mixed, they hardly learn within the scenes' 2250 steps (SnapMix: .144 of the validation images
# after 1000, where the baseline has .940).
_HALF = (
    *("attentivemix", "batchmixup", "cutmix", "fmix", "gridmix", "guidedmixup", "maskmix"),
    *("resizemix", "saliencymix", "smoothmix", "snapmix", "tokenmix"),
)
# Where a paper, or its code, uses another value than the mixer's own default.
_METHOD_ON_DATA = {
    ("cutout", "cifar100"): {"length": 0.25},  # 8 of 32 pixels
    ("cutmix", "cifar10"): {"prob": 0.5},
    ("cutmix", "cifar100"): {"prob": 0.5},
    ("saliencymix", "cifar10"): {"prob": 0.5},
    ("saliencymix", "cifar100"): {"prob": 0.5},
    ("manifold_mixup", "imagenet2012"): {"alpha": 0.2},
    **{(mixer, "scenes"): {"prob": 0.5} for mixer in _HALF},
}


# What a run sets otherwise than an entry's own default, which is as published.
_ENTRY_OPTIONS = {
    "deletion": {"window": 2},  # pixels; half the steps of single ones
    "insertion": {"window": 2},
    "pointing_game": {"tolerance": 0},  # pixels; 0: 15 in proportion to an input of 224
}


def entry_options() -> ml_collections.ConfigDict:
    """What each method and score can be told, e.g. options.occlusion.window; their docstrings explain it."""
    given = options.all_options()
    for name, changed in _ENTRY_OPTIONS.items():
        given[name] |= changed
    # A name may also be names, of several layers say, so its type cannot be that of the default.
    for known in given.values():
        texts = {option: value for option, value in known.items() if isinstance(value, str)}
        known |= {k: ml_collections.FieldReference(v, object) for k, v in texts.items()}
    return ml_collections.ConfigDict(given)


def set_method(config: ml_collections.ConfigDict, method: str) -> None:
    """Fills in config.mix, and what else a method's own paper sets.

    Raises:
      ValueError: an unknown method.
    """
    if method in ("baseline", "none", ""):
        for option in ("label", *mixing.FOR_ALL):  # nothing is mixed
            del config.mix[option]
        return
    checks.choice("method", method, ("baseline", *mixing.MIXERS))
    config.mix.name = method
    known = mixing.options(method)
    for option in ("prob", "per", "label"):  # a mixer need not have them
        if option not in known:
            del config.mix[option]
    if "net" not in entries.keywords(mixing.MIXERS[method]):
        del config.mix.net
    config.mix.update(known)
    config.mix.update(_METHOD_ON_DATA.get((method, config.data.name), {}))
    # Mixup's own code trains CIFAR by another recipe than Cutout's.
    if method in ("mixup", "manifold_mixup") and config.data.name in ("cifar10", "cifar100"):
        config.train.update(weight_decay=1e-4, boundaries=(0.5, 0.75), decay=0.1)
        config.train.nesterov = False
