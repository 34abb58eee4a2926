"""What settings can work: the sentences about those that cannot, before anything is opened or compiled."""

import difflib
import math


def check(config) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work. Needs no data and compiles nothing."""
    from mixaug_jax import mixing, models

    d, t, m = config.data, config.train, config.mix
    _one_of("model.name", config.model.name, models.MODELS)
    _one_of("model.stem", config.model.stem, ("imagenet", "cifar"))
    _one_of("model.dtype", config.model.dtype, ("float32", "bfloat16"))
    _one_of("precision", config.precision, ("default", "high", "highest"))
    _one_of("data.crop", d.crop, ("none", "pad", "resized", "time"))
    _one_of("data.corrupt", d.corrupt, ("error", "skip"))
    _one_of("train.schedule", t.schedule, ("cosine", "step", "constant"))
    _one_of("mix.name", m.name, ("none", *mixing.MIXERS))
    for key in ("data.size", "data.batch_size", "data.threads", "data.prefetch", "eval.batch_size"):
        _at_least(config, key, 1)
    for key in ("train.epochs", "train.steps", "train.profile_steps", "train.keep_every", "train.lr",
                "train.weight_decay", "data.pad", "data.jitter", "data.lighting"):  # fmt: skip
        _at_least(config, key, 0)
    for key in ("train.accumulate", "train.log_every", "data.resize"):
        _at_least(config, key, 1)
    for key in ("model.width", "train.checkpoint_every", "eval.every"):
        _at_least(config, key, 0, strict=True)
    for key in ("mix.prob", "train.warmup", "train.momentum", "train.label_smoothing", "train.ema"):
        _at_least(config, key, 0)
        if _get(config, key) > 1:
            raise ValueError(f"{key} must lie in 0..1, not {_get(config, key)}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must lie in 0..2**32-1, not {config.seed}")
    if not t.steps and not t.epochs:
        raise ValueError("train.epochs and train.steps are both 0; set one")
    if not (len(d.crop_scale) == 2 and 0 < d.crop_scale[0] <= d.crop_scale[1] <= 1):
        raise ValueError(f"data.crop_scale must be (least, most) within 0..1, not {d.crop_scale}")
    if len(d.mean) != len(d.std) or min(d.std, default=0) <= 0:
        raise ValueError("data.mean and data.std need one value a channel, std above 0")
    if list(t.boundaries) != sorted(t.boundaries) or any(not 0 < b < 1 for b in t.boundaries):
        raise ValueError(f"train.boundaries must rise within 0..1, not {tuple(t.boundaries)}")
    if d.batch_size % t.accumulate:
        raise ValueError(
            f"train.accumulate={t.accumulate} does not divide data.batch_size={d.batch_size}"
        )
    if not d.train_split:
        raise ValueError("data.train_split must name a split")
    if not d.validation_split and not d.test_split:
        raise ValueError("data.validation_split and data.test_split are both empty; name one")
    _check_channels(d)
    _check_audio(config)
    _check_dissect(config)
    _check_attribute(config)
    _check_anomaly(config)
    if m.name != "none":
        surplus = set(m) - {"name"} - set(mixing.options(m.name))
        if surplus:
            raise ValueError(
                f"mix.{min(surplus)} is not an option of {m.name}; its options: "
                f"{', '.join(mixing.options(m.name))} (start from configs/{m.name}.py)"
            )


def _check_channels(d):
    if len(d.mean) not in (1, 3):
        raise ValueError(f"data.mean has {len(d.mean)} values; images have 1 channel or 3")
    if len(d.mean) == 1 and (d.jitter or d.lighting):
        raise ValueError("data.jitter and data.lighting are for colours; data.mean has one channel")


def _check_audio(config):
    from mixaug_jax.data import spectrogram

    d = config.data
    if (d.name == "speech") != ("audio" in d):
        raise ValueError(
            f"data.name={d.name!r} does not fit the other settings of data; name the data set where "
            "they are chosen: configs/METHOD.py:speech"
        )
    if "audio" not in d:
        if d.crop == "time":
            raise ValueError("data.crop='time' is for recordings only (configs/METHOD.py:speech)")
        return
    if len(d.mean) != 1 or d.flip or d.resize != 1 or d.crop not in ("time", "none"):
        raise ValueError(
            "a spectrogram has one channel and no mirror image, and its bands are not resized: data.mean "
            "needs one value, data.flip False, data.resize 1, and data.crop 'time' or 'none'"
        )
    for key in ("rate", "window", "hop", "span"):
        _at_least(config, f"data.audio.{key}", 0, strict=True)
    for key in ("low", "high", "masks", "mask_bands", "mask_frames"):
        _at_least(config, f"data.audio.{key}", 0)
    a = d.audio
    if min(a.window, a.hop) * a.rate < 1:
        raise ValueError("data.audio.window and data.audio.hop must last a sample at least")
    if a.span > 200:
        raise ValueError(f"data.audio.span must be at most 200 decibels, not {a.span}")
    if max(a.mask_bands, a.mask_frames) > 1:
        raise ValueError("data.audio.mask_bands and data.audio.mask_frames must lie in 0..1")
    spectrogram.mel_filters(a.rate, round(a.window * a.rate), d.size, a.low, a.high)


def _check_dissect(config):
    from mixaug_jax import models

    d, m = config.dissect, config.model
    for stage in () if config.weights else d.stages:  # weights bring their own network
        known = models.MODELS[m.name](2, width=m.width, stem=m.stem).stages
        _one_of("dissect.stages", stage, known)
    _one_of("dissect.split", d.split, ("train", "validation", "test"))
    _one_of("dissect.over", d.over, ("upsampled", "raw"))
    _one_of("dissect.rule", d.rule, ("linear", "hazen", "inverted_cdf"))
    _one_of("dissect.padding", d.padding, ("edge", "zero"))
    for key in ("images", "size", "shuffles", "replicates", "seed", "cache_gb"):
        _at_least(config, f"dissect.{key}", 0)
    if not 0 < d.q < 1:
        raise ValueError(f"dissect.q must lie between 0 and 1, both excluded, not {d.q}")
    if not d.iou or any(not 0 <= value < 1 for value in d.iou):
        raise ValueError(f"dissect.iou must be thresholds from 0 up to below 1, not {d.iou}")
    if not d.segmenter_sizes or min(d.segmenter_sizes) < 32:
        raise ValueError(
            f"dissect.segmenter_sizes must be sizes of 32 pixels or more, not {d.segmenter_sizes}"
        )


def _check_attribute(config):
    from mixaug_jax import attribution, evaluation, models
    from mixaug_jax.evaluation import examples, options, regions

    a, m = config.attribute, config.model
    for method in a.methods:
        _one_of("attribute.methods", method, attribution.METHODS)
    for score in a.scores:
        _one_of("attribute.scores", score, evaluation.SCORES)
    if a.stage and not config.weights:
        known = models.MODELS[m.name](2, width=m.width, stem=m.stem).stages
        _one_of("attribute.stage", a.stage, known)
    _one_of("attribute.split", a.split, ("train", "validation", "test"))
    _one_of("attribute.label", a.label, examples.LABELS)
    _one_of("attribute.region", a.region, ("auto", *regions.KINDS))
    _one_of("attribute.reduce", a.reduce, options.REDUCES)
    for key in ("images", "replicates", "seed", "memory_gb"):
        _at_least(config, f"attribute.{key}", 0)
    _at_least(config, "attribute.reference", 2)


def _check_anomaly(config):
    from mixaug_jax.evaluation import anomaly_grid

    a = config.anomaly
    try:
        anomaly_grid.from_config(a)
    except ValueError as error:  # a sentence that begins with the key
        raise ValueError(f"anomaly.{error}") from error
    _one_of("anomaly.split", a.split, ("", "train", "validation", "test"))
    named = {"true", "predicted"}
    if not a.labels or not all(v in named or str(v).isdigit() for v in a.labels):
        raise ValueError(
            f"anomaly.labels must be 'true', 'predicted' or numbers of classes, not {a.labels}"
        )
    for key in ("images", "light", "seed"):
        _at_least(config, f"anomaly.{key}", 0)
    for key in ("replicates", "batch"):
        _at_least(config, f"anomaly.{key}", 1)


def _get(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def _one_of(key, value, allowed):
    check_known(f"{key}={value!r}", value, allowed)


def check_known(what: str, value, allowed) -> None:
    """Raises ValueError, with a list of all and the nearest, unless `value` is one of `allowed`; `what` begins the sentence."""
    if value not in allowed:
        near = difflib.get_close_matches(str(value), list(allowed), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{what} is not known{hint}; allowed: {', '.join(allowed)}")


def _at_least(config, key, least, strict=False):
    value = _get(config, key)
    if not math.isfinite(value) or value < least or (strict and value == least):
        raise ValueError(f"{key} must be {'above' if strict else 'at least'} {least}, not {value}")
