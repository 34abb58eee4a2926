"""The table of keys, first part: what decides a network, and how it is trained."""

from mixaug_jax import data, mixing, models
from mixaug_jax.config.allowed import (
    LENGTH,
    MACHINE,
    NOTHING,
    PLACE,
    RATE,
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
from mixaug_jax.data import transforms
from mixaug_jax.data.animals import animal_samplers
from mixaug_jax.models.probability import LOSSES

SEED = Int(0, 2**32 - 1)
_SIDE = Int(1, 4096)
_BATCH = Int(1, 2**20)
_THREADS = Int(1, 1024)
_EPOCHS = Number(0, 10**6)
_SOME_EPOCHS = Number(0, 10**6, above=True)
_SHARE = Number(0, 1)
_NAME = Text(pattern=r"[A-Za-z_]\w*", what="the name of a stage")
_TFDS = Text(pattern=r"\w[\w./:+*-]{0,200}", what="the name of a prepared TFDS set")

# fmt: off
_TOP = {
    "seed": Key(0, "decides the weights, the order of the data, and every draw", SEED),
    "precision": Key("highest", "of float32 matrix products",
                     Choice(("default", "high", "highest"))),
    "deterministic": Key(False, "ask the GPU compiler for deterministic kernels", Flag()),
    "compile_cache": Key("", "a folder that keeps compiled programs between runs", Text(), MACHINE),
    "stages": Key((), "what --stage=all does; (): train, dissect, intervene, explain, occlude, report",
                  Many(_NAME, most=50), NOTHING),
    "weights": Key("", "released weights to start every later stage from: a file, or hf:timm/NAME",
                   Text()),
}

_DATA_KEYS = {
    "name": Key("scenes", "the data set; a config file chooses it, with all that follows from it",
                Either(Entry(lambda: data.SOURCES), _TFDS)),
    "dir": Key("", 'the files; TFDS: its data_dir; scenes: the cache. "": the usual place',
               Text(), PLACE),
    "size": Key(64, "side of the network's input, pixels", _SIDE),
    "batch_size": Key(64, "images a step, over all devices", _BATCH),
    "train_split": Key("train", "the split to train on", Text(1)),
    "validation_split": Key("validation", 'the split that chooses the best checkpoint; "": none',
                            Text()),
    "validation_share": Key(0.1, "of each class's training files, where a folder has no val/; 0: none",
                            Number(0, 0.9)),
    "test_split": Key("test", 'the split that is left for the end; "": none; auto: a folder\'s test/',
                      Text()),
    "crop": Key("none", "pad: pad, then crop; shift: pad with the edge; resized: random resized crop; time: of recordings",
                Choice(tuple(sorted(transforms.CROPS)))),
    "crop_scale": Key((0.08, 1.0), 'smallest and largest share of the area, for crop="resized"',
                      Many(Number(0, 1, above=True), 2, 2, rising=True)),
    "pad": Key(4, 'pixels on each side, for crop="pad" and "shift"; frames before and after, for crop="time"',
               Int(0, 4096)),
    "flip": Key(True, "mirror left and right, half of the time", Flag()),
    "jitter": Key(0.0, "strength of brightness, contrast and saturation changes", _SHARE),
    "lighting": Key(0.0, "strength of PCA lighting", Number(0, 10)),
    "resize": Key(1.0, "evaluation: the short side becomes resize * size, the center is cut out",
                  Number(1, 16)),
    "mean": Key((0.5, 0.5, 0.5), "of 0..1 pixels, red green blue", Many(Number(-100, 100), 1, 3)),
    "std": Key((0.25, 0.25, 0.25), "of 0..1 pixels, red green blue",
               Many(Number(1e-6, 100), 1, 3)),
    "corrupt": Key("error", "an unreadable image: error, or skip (said once by name)",
                   Choice(("error", "skip"))),
    "outside": Key(False, "whether a folder's masks may lie outside of it", Flag()),
    "threads": Key(4, "that read and decode", _THREADS, NOTHING),
    "prefetch": Key(2, "batches kept ready", _THREADS, NOTHING),
}

_SCENES = {
    "seed": Key(0, "of the pictures; config.seed is that of the training", SEED),
    "train": Key(4000, "pictures", Int(1, 10**8)),
    "validation": Key(500, "pictures", Int(1, 10**8)),
    "test": Key(1000, "pictures", Int(1, 10**8)),
    "background": Key(0.0, "shortcut in training and validation: share whose class decides the wall",
                     _SHARE),
    "color": Key(0.0, "shortcut in training and validation: share whose class decides the color",
                _SHARE),
    "position": Key(0.0, "shortcut in training and validation: share whose class decides the place",
                   _SHARE),
    "label_noise": Key(0.0, "share of wrong labels, in training only", _SHARE),
}

_MARKERS = {
    "seed": Key(0, "of the pictures; config.seed is that of the training", SEED),
    "spin": Key(0.785, "markers are turned by so much at most, radians; 3.1416: in every direction",
                Number(0, 3.1416)),
    "unlabeled": Key(20_000, "pictures whose bits nobody tells", Int(1, 10**8)),
    "labeled": Key(2000, "pictures", Int(1, 10**8)),
    "validation": Key(1000, "pictures", Int(1, 10**8)),
    "test": Key(2000, "pictures", Int(1, 10**8)),
    "photos": Key("", 'a folder of photographs to lie behind the markers; "": drawn materials',
                  Text()),
    "crops": Key("", 'a folder of real crops, with labels.csv, in place of the pictures; "": none',
                 Text(), PLACE),
}

_ANIMALS = {
    "seed": Key(0, "of the pictures; config.seed is that of the training", SEED),
    "sampler": Key("study", "which attributes tell the class, see animal_samplers.SAMPLERS",
                   Choice(tuple(animal_samplers.SAMPLERS))),
    "ranges": Key("released", "of yaw, positions and background: as the code draws them, or as meant",
                  Choice(tuple(animal_samplers.RANGES))),
    "label_noise": Key(0.1, "share of the training labels that a coin replaces: half are wrong",
                       _SHARE),
    "train": Key(12_000, "pictures; published: 60000", Int(1, 10**8)),
    "validation": Key(2000, "pictures; published: 5000", Int(1, 10**8)),
    "test": Key(2000, "pictures; published: 5000", Int(1, 10**8)),
}

_AUDIO = {
    "rate": Key(8000, "samples a second; recordings of another rate are resampled", Int(1, 10**6)),
    "window": Key(0.032, "length of a frame, s", Number(0, 10, above=True)),
    "hop": Key(0.0125, "from one frame to the next, s", Number(0, 10, above=True)),
    "low": Key(0.0, "lower end of the data.size mel bands, Hz", Number(0, 10**6)),
    "high": Key(0.0, "upper end of the data.size mel bands, Hz; 0: half the rate",
                Number(0, 10**6)),
    "span": Key(80.0, "decibels from the loudest cell down to black", Number(0, 200, above=True)),
    "masks": Key(2, "training: runs of bands, and of frames, that are hidden (SpecAugment); 0: off",
                 Int(0, 100)),
    "mask_bands": Key(0.2, "longest run, a share of the bands", _SHARE),
    "mask_frames": Key(0.2, "longest run, a share of the recording", _SHARE),
}

_MIX = {
    "name": Key("none", "the mixer; its own options follow in this section",
                Entry(lambda: mixing.MIXERS, ("none",))),
    "prob": Key(1.0, "share of the batches (or of the examples) that is mixed", _SHARE),
    "per": Key("batch", "what shares its draws: a batch (as published) or an example",
               Choice(("batch", "example"))),
    "label": Key("mixed", "what becomes of the labels of a mixer that mixes them; visible, attention: see docs/mixers.md",
                 Choice(mixing.MASK_LABELS)),
    "net": Key("current", "what a mixer that looks at a network sees: current, ema (train.ema), or a file of weights",
                Text(1)),
    "share": Key(1.0, "share of a step's examples that the mixer is given; the others stay (DropMix)",
                  Number(0, 1, above=True)),
}

_MODEL = {
    "name": Key("resnet18", "the architecture", Entry(lambda: models.MODELS)),
    "width": Key(1.0, "factor on the number of filters", Number(0, 64, above=True)),
    "stem": Key("imagenet", "imagenet: stride 4; cifar: stride 1",
                Choice(("imagenet", "cifar"))),
    "last_stride": Key(2, "of a ResNet's layer4; 1: its maps have four times the nodes", Int(1, 2)),
    "drop_path": Key(-1.0, "stochastic depth of the last block, earlier ones less; -1: the network's own",
                     Number(-1, 1, below=True)),
    "dtype": Key("float32", "of the body", Choice(("float32", "bfloat16"))),
    "sync_bn": Key(False, "batch statistics over all devices, not of each device's share", Flag()),
    "remat": Key(False, "recompute activations in the backward pass to save memory", Flag()),
}

_TRAIN = {
    "epochs": Key(90, "length of the training", Int(0, 10**6), LENGTH),
    "loss": Key("softmax", "softmax: which one class; sigmoid: of each class whether it is there",
                Choice(LOSSES)),
    "steps": Key(0, "length of the training; wins over epochs where not 0", Int(0, 10**9), LENGTH),
    "optimizer": Key("sgd", "sgd: with momentum; adamw: its first moment's decay is train.momentum",
                     Choice(("sgd", "adamw"))),
    "lr": Key(0.1, "the learning rate at its highest", Number(0, 1000), RATE),
    "schedule": Key("cosine", "how the rate falls", Choice(("cosine", "step", "constant")), RATE),
    "boundaries": Key((0.25, 0.5, 0.75), 'of schedule="step", in shares of the length',
                      Many(Number(0, 1, above=True, below=True), rising=True), RATE),
    "decay": Key(0.1, "the factor at each boundary", Number(0, 1, above=True), RATE),
    "warmup": Key(0.0, "share of the length over which the rate rises from 0", _SHARE, RATE),
    "momentum": Key(0.9, "of the gradient descent", Number(0, 1, below=True)),
    "nesterov": Key(True, "whether the momentum is Nesterov's", Flag()),
    "weight_decay": Key(1e-4, "on every parameter, as in CutMix's code; adamw: on kernels alone",
                        Number(0, 1000)),
    "label_smoothing": Key(0.0, "share of a label that all classes share, before mixing", _SHARE),
    "ema": Key(0.0, "decay of an average of the weights, which is then evaluated and saved; 0: off",
               Number(0, 1, below=True)),
    "accumulate": Key(1, "micro-batches a step; each is mixed by itself", _BATCH),
    "restart": Key(False, "start the schedule anew on resume, at this rate", Flag(), NOTHING),
    "log_every": Key(50, "steps from one line of the log to the next", Int(1, 10**9), NOTHING),
    "checkpoint_every": Key(1.0, "epochs from one checkpoint to the next", _SOME_EPOCHS, NOTHING),
    "keep_every": Key(0.0, "epochs; those checkpoints are never deleted; 0: off", _EPOCHS, NOTHING),
    "profile_steps": Key(0, "early steps to trace into <workdir>/profile", Int(0, 10**6), NOTHING),
}

_EVAL = {
    "batch_size": Key(200, "images at once, over all devices", _BATCH, NOTHING),
    "every": Key(1.0, "epochs from one evaluation on the validation split to the next",
                 _SOME_EPOCHS, NOTHING),
}
# fmt: on

KEYS: dict[str, Key] = {
    **_TOP,
    **section("data", _DATA_KEYS),
    **section("data.scenes", _SCENES),
    **section("data.markers", _MARKERS),
    **section("data.audio", _AUDIO),
    **section("data.animals", _ANIMALS),
    **section("mix", _MIX),
    **section("model", _MODEL),
    **section("train", _TRAIN),
    **section("eval", _EVAL),
}
