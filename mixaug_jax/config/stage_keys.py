"""The table of keys, second part: what the stages after a training are asked."""

from mixaug_jax import attribution, scores
from mixaug_jax.attribution import bottleneck, readout, readout_training
from mixaug_jax.config.allowed import (
    NOTHING,
    Choice,
    Either,
    Entry,
    Flag,
    Int,
    Key,
    Many,
    Number,
    Text,
    section,
)
from mixaug_jax.config.training_keys import SEED
from mixaug_jax.dissection import unit_sets
from mixaug_jax.explain import examples, options, regions
from mixaug_jax.occlusion import grid

_SPLITS = ("train", "validation", "test")
_COUNT = Int(0, 10**9)
_REPLICATES = Int(0, 10**6)
_GIB = Number(0, 10**6)
_CLASS = Either(
    Text(pattern=r"true|predicted|\d{1,6}"), Int(0, 999_999), "true, predicted, or a class's number"
)
_REGION = Either(Choice(("auto", *regions.KINDS)), Text(pattern=regions.PARTS + ".+"),
                 f"one of auto, {', '.join(regions.KINDS)}, or parts:NAME,NAME of the data set's parts")  # fmt: skip

# fmt: off
_DISSECT = {
    "layers": Key((), "of the network; (): the last two that give maps",
                  Many(Text(1), distinct=True)),
    "split": Key("validation", "whose images", Choice(_SPLITS)),
    "max_images": Key(500, "at most so many, spread evenly over the split; 0: all", _COUNT),
    "size": Key(0, "side of the label maps; 0: the input's, or a quarter of it above 112 pixels",
                Int(0, 4096)),
    "q": Key(0.01, "a unit is on where its activation is in this upper share of all values",
             Number(0, 1, above=True, below=True)),
    "over": Key("upsampled", "the maps whose values q refers to", Choice(("upsampled", "raw"))),
    "rule": Key("linear", "of the quantile", Choice(("linear", "hazen", "inverted_cdf"))),
    "padding": Key("edge", "beyond a map's outer nodes", Choice(("edge", "zero"))),
    "restricted": Key(False, "a unit's area counts on images with the concept's category only",
                      Flag()),
    "iou": Key((0.03, 0.04, 0.05), "a unit detects a concept where IoU is above",
               Many(Number(0, 1, below=True), 1, 100, distinct=True)),
    "shuffles": Key(5, "of label maps against images, for the level of chance", Int(0, 10**6)),
    "formulas": Key(0, "units, the sharpest, whose best form of concepts by AND, OR, NOT is sought; 0: none",
                    Int(0, 10**6)),
    "random_baseline": Key(True, "also count the same architecture with random weights", Flag()),
    "seed": Key(0, "of the shuffles, the groups of images and the random weights", SEED),
    "colors": Key("auto", "names of pixels where the data has none",
                  Text(1, what="auto, off or the file of a table")),
    "broden": Key("", "a folder in Broden's format, to use in place of the data set", Text()),
    "segmenter": Key("", "weights of UPerNet, to find concepts: a folder, or ENCODER,DECODER",
                     Text()),
    "segmenter_sizes": Key((256,), "of the segmenter's input, pixels; probabilities are averaged",
                           Many(Int(32, 4096), 1, 16)),
    "cache_gb": Key(4.0, "GiB of activations on disk; beyond, the forward pass is repeated",
                    _GIB, NOTHING),
    "memory_gb": Key(1.0, "GiB of the tables of counts; with less, units go in more blocks",
                     Number(0, 10**6, above=True), NOTHING),
}

_EXPLAIN = {
    "methods": Key(("integrated_gradients", "gradient", "guided_backprop", "gradcam"),
                   "of attribution; the controls random, center and sobel are always added",
                   Many(Entry(lambda: attribution.METHODS), distinct=True)),
    "scores": Key(("pointing_game", "energy_pointing_game", "mass_accuracy", "deletion",
                   "insertion", "sparseness"),
                  "that judge each explanation", Many(Entry(lambda: scores.SCORES), distinct=True)),
    "split": Key("validation", "whose images", Choice(_SPLITS)),
    "max_images": Key(50, "at most so many, spread evenly over the split; 0: all", _COUNT),
    "label": Key("true", "the class explained; mapped: ImageNet's, by objects' names",
                 Choice(examples.LABELS)),
    "region": Key("auto", "to point at; auto: the first there is; parts:class: the part that tells it",
                  _REGION),
    "boxes": Key("", "a CSV of boxes for the images, as ImageNet's LOC_val_solution.csv", Text()),
    "layer": Key("", 'of CAMs and the bottleneck; "": CAMs the last with 4 x 4 nodes, iba its own',
                 Text()),
    "reduce": Key("auto", "over channels; auto: as suits the method",
                  Entry(lambda: options.REDUCES)),
    "reference": Key(100, "training images, for expected_gradients' baselines and iba's statistics",
                     Int(2, 10**6)),
    "replicates": Key(200, "of the bootstrap over images, for intervals", _REPLICATES),
    "seed": Key(0, "of all draws", SEED),
    "memory_gb": Key(2.0, "GiB, on a CPU in all; decides how much is done at once. 0: no bound",
                     _GIB),
}

_READOUT = {
    "variant": Key("paper", "whose code: paper or library; they standardize otherwise",
                   Choice(bottleneck.VARIANTS)),
    "layers": Key((), "that are read, noise in the first; (): the last of four sizes, logits",
                  Many(Text(1), distinct=True)),
    "hidden": Key("quarter", "the second convolution, by the bottleneck's channels",
                  Choice(tuple(readout.HIDDEN))),
    "sigma": Key(0.0, "that smooths the mask, cells; the library's is 1. 0: none", Number(0, 100)),
    "clamp": Key("published", "negative values to 0; auto: where the layer has none",
                 Choice(readout.CLAMPS)),
    "beta": Key(0.3, "weight of the mean capacity, nats; published: 10", Number(0, 10**6)),
    "lr": Key(1e-3, "of Adam; published: 1e-5", Number(0, 1000)),
    "steps": Key(300, "of the training; 0: as epochs say", _COUNT),
    "epochs": Key(20, "of the training images, with steps 0", Int(0, 10**6)),
    "batch_size": Key(32, "images of a step, over all devices", Int(1, 2**20)),
    "stat_images": Key(1000, "at most so many, for the statistics; published: 10000",
                       Int(2, 10**9)),
    "target": Key("label", "the class whose loss is kept low; without labels it is predicted",
                  Choice(readout_training.TARGETS)),
    "seed": Key(0, "of the first weights, the order and the noise", SEED),
}

_OCCLUDE = {
    "grid": Key("default", "removals: default (180 cells) or full (2688), unless named one by one",
                Choice(("default", "full"))),
    "rankings": Key((), "see occlusion.Grid", Many(Choice(grid.RANKINGS), distinct=True)),
    "selections": Key((), "see occlusion.Grid", Many(Choice(grid.SELECTIONS), distinct=True)),
    "shares": Key((), "of all units that are removed, percent",
                  Many(Number(0, 100), most=100, distinct=True)),
    "values": Key((), "see occlusion.Grid", Many(Choice(grid.VALUES), distinct=True)),
    "window": Key((1, 1), "rows and columns of a unit, pixels (bands and frames of a spectrogram)",
                  Many(Int(1, 4096), 2, 2)),
    "channels": Key("sum", "a unit has the sum of all channels, or each is one",
                    Choice(grid.CHANNELS)),
    "labels": Key(("true", "predicted"), "whose loss ranks",
                  Many(_CLASS, 1, distinct=True)),
    "split": Key("", 'whose images; "": test where there is one, else validation',
                 Choice(("", *_SPLITS))),
    "max_images": Key(200, "at most so many, spread evenly over the split; 0: all", _COUNT),
    "light": Key(50, "images as a part of --stage=all; 0: no part of it", _COUNT),
    "steps": Key(50, "gradients of integrated_gradients", Int(1, 10**6)),
    "samples": Key(50, "noisy copies of smoothgrad", Int(1, 10**6)),
    "seed": Key(0, "of random removals, noise and the bootstrap", SEED),
    "replicates": Key(1000, "of the bootstrap over images, for intervals", Int(1, 10**6)),
    "batch": Key(50, "images in memory at once, over all devices", Int(1, 2**20)),
}

_INTERVENE = {
    "layers": Key((), "whose units are removed; (): the last two that give maps",
                  Many(Text(1), distinct=True)),
    "max_images": Key(500, "of the training split, and of the test split, at most; 0: all", _COUNT),
    "value": Key("zero", "in the place of a unit's activations; mean: its own on training images",
                 Text(pattern=r"zero|mean|-?\d{1,9}(\.\d{1,9})?", what="zero, mean or a number")),
    "sets": Key(unit_sets.FAMILIES, "what is removed, see dissection.Asked",
                Many(Choice(unit_sets.FAMILIES), 1, distinct=True)),
    "seed": Key(0, "of random sets and orders", SEED),
}

_REPORT = {
    "column_width": Key(3.25, "of the paper, inches: figures as PDF take one column or two; 0: as drawn",
                        Number(0, 40)),
}
# fmt: on

KEYS: dict[str, Key] = {
    **section("dissect", _DISSECT, "dissect"),
    **section("explain", _EXPLAIN, "explain"),
    **section("readout", _READOUT, "explain"),
    **section("occlude", _OCCLUDE, "occlude"),
    **section("intervene", _INTERVENE, "intervene"),
    **section("report", _REPORT, "report"),
}
