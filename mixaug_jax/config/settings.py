"""Every setting, once.

    config = get_config(method="cutmix", data="scenes")

is what `configs/cutmix.py:scenes` gives. A number of 0, an empty string and an empty tuple mean "off"; no default is None.
Nothing here depends on another key: what does (the number of steps, say) is worked out by `resolve` after all overrides, once
the size of the data set is known.
"""

import json
import pathlib

import ml_collections

from mixaug_jax.config import recipes
from mixaug_jax.config.validation import check

__all__ = ["check", "difference", "flatten", "from_json", "get_config", "read", "resolve"]
__all__ += ["overview", "to_json"]


def get_config(method: str = "baseline", data: str = "scenes") -> ml_collections.ConfigDict:
    """The settings of one augmentation on one data set.

    Args:
      method: "baseline" or a name in `mixaug_jax.mixing.MIXERS`.
      data: "scenes", "folder", "speech", "cifar10", "cifar100", "imagenet2012"; any other name is read as a prepared TFDS set,
        with the folder's recipe.

    Returns:
      A ConfigDict whose keys are fixed; `config.unlocked()` adds to them.

    Raises:
      ValueError: an unknown method.
    """
    config = _defaults(data or "scenes")
    recipes.RECIPES.get(config.data.name, recipes.folder)(config)
    recipes.set_method(config, method)
    return config.lock()


def _defaults(data: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0  # decides the weights, the order of the data, and every draw
    config.precision = "highest"  # of float32 matrix products: "default", "high" or "highest"
    config.compile_cache = ""  # a folder that keeps compiled programs between runs
    config.stages = ()  # what --stage=all does; (): train, dissect, explain, occlude, report
    config.weights = ""  # released weights to start every later stage from

    config.data = d = ml_collections.ConfigDict()
    d.name = data
    d.dir = ""  # the files; TFDS: its data_dir; scenes: the cache. "": the usual place
    d.size = 64  # side of the network's input, pixels
    d.batch_size = 64  # images a step, over all devices
    d.train_split, d.validation_split, d.test_split = "train", "validation", "test"  # "": none
    d.crop = "none"  # "none", "pad" (pad, then crop), "resized" (random resized crop) or "time"
    d.crop_scale = (0.08, 1.0)  # smallest and largest share of the area, for crop="resized"
    d.pad = 4  # pixels on each side, for crop="pad"; frames before and after, for crop="time"
    d.flip = True  # mirror left and right, half of the time
    d.jitter = 0.0  # strength of brightness, contrast and saturation changes
    d.lighting = 0.0  # strength of PCA lighting
    d.resize = 1.0  # evaluation: the short side becomes resize * size, then the center is cut out
    d.mean, d.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # of 0..1 pixels, red green blue
    d.corrupt = "error"  # an unreadable image: "error" or "skip" (said once by name)
    d.threads = 4  # that read and decode
    d.prefetch = 2  # batches kept ready

    config.mix = m = ml_collections.ConfigDict()
    m.name = "none"  # "none" or a name in MIXERS; its own options follow in this section
    m.prob = 1.0  # share of the batches (or of the examples) that is mixed
    m.per = "batch"  # what shares its draws: a "batch" (as published) or an "example"
    m.label = "mixed"  # "mixed", "first", "pasted" or "majority"

    config.model = ml_collections.ConfigDict()
    config.model.name = "resnet18"
    config.model.width = 1.0  # factor on the number of filters
    config.model.stem = "imagenet"  # "imagenet" (stride 4) or "cifar" (stride 1)
    config.model.dtype = "float32"  # of the body: "float32" or "bfloat16"
    config.model.sync_bn = False  # batch statistics over all devices, not of each device's share
    config.model.remat = False  # recompute activations in the backward pass to save memory

    config.train = t = ml_collections.ConfigDict()
    t.epochs = 90
    t.steps = 0  # wins over epochs where not 0
    t.lr = 0.1
    t.schedule = "cosine"  # "cosine", "step" or "constant"
    t.boundaries = (0.25, 0.5, 0.75)  # of schedule="step", in shares of the length
    t.decay = 0.1  # the factor at each boundary
    t.warmup = 0.0  # share of the length over which the rate rises from 0
    t.momentum = 0.9
    t.nesterov = True
    t.weight_decay = 1e-4  # on every parameter, as in CutMix's code
    t.label_smoothing = 0.0  # before mixing
    t.ema = 0.0  # decay of an average of the weights, which is then what is evaluated and saved
    t.accumulate = 1  # micro-batches a step; each is mixed by itself
    t.log_every = 50  # steps
    t.checkpoint_every = 1.0  # epochs
    t.keep_every = 0.0  # epochs; those checkpoints are never deleted
    t.profile_steps = 0  # early steps to trace into <workdir>/profile

    config.eval = ml_collections.ConfigDict()
    config.eval.batch_size = 200
    config.eval.every = 1.0  # epochs

    config.dissect = _dissect()
    config.explain = _explain()
    config.occlude = _occlude()
    return config


def _dissect() -> ml_collections.ConfigDict:
    d = ml_collections.ConfigDict()
    d.layers = ()  # of the network; (): the last two that give maps
    d.split = "validation"  # whose images: "train", "validation" or "test"
    d.max_images = 500  # at most so many, spread evenly over the split; 0: all
    d.size = 0  # side of the label maps; 0: the input's, or a quarter of it above 112 pixels
    d.q = 0.01  # a unit is on where its activation is in this upper share of all values
    d.over = "upsampled"  # the values that q refers to: "upsampled" or "raw" maps
    d.rule = "linear"  # of the quantile: "linear", "hazen" or "inverted_cdf"
    d.padding = "edge"  # beyond a map's outer nodes: "edge" or "zero"
    d.restricted = False  # a unit's area counts on images with the concept's category only
    d.iou = (0.03, 0.04, 0.05)  # a unit detects a concept where IoU is above
    d.shuffles = 5  # of label maps against images, for the level of chance
    d.replicates = 20  # of the bootstrap over images, for intervals
    d.random_baseline = True  # also count the same architecture with random weights
    d.seed = 0  # of the shuffles, the bootstrap and the random weights
    d.colors = "auto"  # names of pixels where the data has none: "auto", "off" or a table's file
    d.broden = ""  # a folder in Broden's format, to use in place of the data set
    d.segmenter = ""  # weights of UPerNet, to find concepts: a folder, or ENCODER,DECODER
    d.segmenter_sizes = (256,)  # of the segmenter's input, pixels; probabilities are averaged
    d.cache_gb = 4.0  # GiB of activations on disk; beyond, the forward pass is repeated
    return d


def _explain() -> ml_collections.ConfigDict:
    from mixaug_jax.explain import options

    a = ml_collections.ConfigDict()
    # Names in attribution.METHODS and evaluation.RANKINGS. The controls random, center and sobel are always added.
    a.methods = ("gradient", "integrated_gradients", "guided_backprop", "gradcam")
    a.scores = ("pointing_game", "energy_pointing_game", "mass_accuracy", "deletion", "insertion",
                "sparseness")  # fmt: skip
    a.split = "validation"  # whose images: "train", "validation" or "test"
    a.max_images = 50  # at most so many, spread evenly over the split; 0: all
    a.label = "true"  # the class explained: "true", "predicted" or "mapped" (ImageNet's, by objects' names)
    a.region = "auto"  # to point at: "class_masks", "class_boxes", "boxes", "masks"; "auto": the first there is
    a.boxes = ""  # a CSV of boxes for the images, as ImageNet's LOC_val_solution.csv
    a.layer = ""  # for CAMs and the bottleneck; "": CAMs the last with 4 x 4 nodes, the bottleneck its own
    a.reduce = "auto"  # over channels: "sum", "abs_sum", "abs_max", "positive"; "auto": as suits the method
    a.reference = 100  # training images, for expected_gradients' baselines and iba's statistics
    a.replicates = 200  # of the bootstrap over images, for intervals
    a.seed = 0  # of all draws
    a.memory_gb = 2.0  # GiB, on a CPU in all; decides how much is done at once. 0: no bound
    # What each method and score can be told, e.g. options.occlusion.window; their docstrings explain it.
    given = options.all_options()
    # A name, or pairs of a layer and a name, so its type cannot be that of the default.
    given["lrp"]["rule"] = ml_collections.FieldReference(given["lrp"]["rule"], field_type=object)
    a.options = ml_collections.ConfigDict(given)
    a.options.deletion.window = 2  # pixels; half the steps of single ones
    a.options.insertion.window = 2
    a.options.pointing_game.tolerance = 0  # pixels; 0: 15 in proportion to an input of 224
    return a


def _occlude() -> ml_collections.ConfigDict:
    a = ml_collections.ConfigDict()
    a.grid = "default"  # removals: "default" (180 cells) or "full" (2688), unless named here:
    a.rankings, a.selections, a.shares, a.values = (), (), (), ()  # see occlusion.Grid
    a.window = (1, 1)  # rows and columns of a unit, pixels (bands and frames of a spectrogram)
    a.channels = "sum"  # a unit has the "sum" of all channels, or "each" is one
    a.labels = ("true", "predicted")  # whose loss ranks: these two, or a class's number
    a.split = ""  # "train", "validation" or "test"; "": test where there is one, else validation
    a.max_images = 200  # at most so many, spread evenly over the split; 0: all
    a.light = 50  # images as a part of --stage=all; 0: no part of it
    a.steps = 50  # gradients of integrated_gradients
    a.samples = 50  # noisy copies of smoothgrad
    a.seed = 0  # of random removals, noise and the bootstrap
    a.replicates = 1000  # of the bootstrap over images, for intervals
    a.batch = 50  # images in memory at once, over all devices
    return a


def resolve(config, *, train_size: int, class_names) -> ml_collections.ConfigDict:
    """A copy with `config.resolved`: what follows from the settings and from the data.

    Args:
      config: a checked configuration.
      train_size: number of training examples.
      class_names: names of the classes, in the order of their numbers.

    Returns:
      A locked copy with resolved.{steps, steps_per_epoch, warmup_steps, boundaries, eval_steps, checkpoint_steps, keep_steps},
      counted in steps; class_names; model, the arguments that make the network; preprocess, how it sees a picture.
    """
    t, d, m = config.train, config.data, config.model
    per_epoch = max(1, train_size // config.data.batch_size)
    steps = int(t.steps or max(1, round(t.epochs * per_epoch)))
    with config.unlocked():
        config = config.copy_and_resolve_references()
        config.resolved = ml_collections.ConfigDict(
            {
                "steps": steps,
                "steps_per_epoch": per_epoch,
                "warmup_steps": round(t.warmup * steps),
                "boundaries": tuple(round(b * steps) for b in t.boundaries),
                "eval_steps": max(1, round(config.eval.every * per_epoch)),
                "checkpoint_steps": max(1, round(t.checkpoint_every * per_epoch)),
                "keep_steps": round(t.keep_every * per_epoch),
                "class_names": tuple(class_names),
                "model": {"name": m.name, "width": m.width, "stem": m.stem},
                "preprocess": {
                    "size": d.size,
                    "resize": round(d.size * d.resize),
                    "mean": tuple(d.mean),
                    "std": tuple(d.std),
                },
            }
        )
    return config.lock()


def to_json(config) -> str:
    """The settings as JSON text, keys in their own order."""
    return json.dumps(config.to_dict(), indent=2)


def overview(config) -> str:
    """The settings for the console, a line for each section; without what single methods and scores can be told and
    the names of the classes."""
    sections = {"": {}}
    for key, value in flatten(config.to_dict()).items():
        section, _, name = key.partition(".") if "." in key else ("", "", key)
        if not key.startswith(("explain.options.", "resolved.class_names")):
            sections.setdefault(section, {})[name] = value
    lines = ["settings (all of them are in config.json):"]
    for section, values in sections.items():
        text = " ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
        lines.append(f"  {section}: {text}" if section else f"  {text}")
    return "\n".join(lines)


def from_json(text: str) -> ml_collections.ConfigDict:
    """The settings that `to_json` wrote; lists come back as the tuples they were."""

    def tuples(value):
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return ml_collections.ConfigDict(tuples(json.loads(text))).lock()


# What may differ when a run goes on: how often something is said or saved, how fast data is read, and the length.
_FREE = ("train.epochs", "train.steps", "train.log_every", "train.checkpoint_every", "train.keep_every",
         "train.profile_steps", "eval.", "data.threads", "data.prefetch", "data.dir", "compile_cache",
         "resolved.", "dissect.", "explain.", "occlude.", "report.")  # fmt: skip


def difference(old, new) -> list[str]:
    """Settings in which two runs differ and that a resumed run may not change, as "key: old -> new"."""
    old, new = (flatten(json.loads(to_json(config))) for config in (old, new))
    keys = [k for k in {**old, **new} if not k.startswith(_FREE)]
    return [f"{k}: {old.get(k)} -> {new.get(k)}" for k in keys if old.get(k) != new.get(k)]


def flatten(tree: dict, prefix: str = "") -> dict:
    """A tree of dicts as one, with keys "data.size"."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def read(workdir) -> ml_collections.ConfigDict:
    """The settings stored in a working directory."""
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise ValueError(f"{workdir} is not a working directory: it has no config.json")
    return from_json(path.read_text())
