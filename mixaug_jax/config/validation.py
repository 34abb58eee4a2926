"""What settings can work: the sentences about those that cannot, before anything is opened or compiled."""

import math

from mixaug_jax.core import checks


def check(config) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work. Needs no data and compiles nothing."""
    from mixaug_jax import mixing, models

    d, t, m = config.data, config.train, config.mix
    checks.choice("model.name", config.model.name, models.MODELS)
    checks.choice("model.stem", config.model.stem, ("imagenet", "cifar"))
    checks.choice("model.dtype", config.model.dtype, ("float32", "bfloat16"))
    checks.choice("precision", config.precision, ("default", "high", "highest"))
    checks.choice("data.crop", d.crop, ("none", "pad", "resized", "time"))
    checks.choice("data.corrupt", d.corrupt, ("error", "skip"))
    checks.choice("train.schedule", t.schedule, ("cosine", "step", "constant"))
    checks.choice("mix.name", m.name, ("none", *mixing.MIXERS))
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
    _check_explain(config)
    _check_occlude(config)
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
        raise ValueError("data.jitter and data.lighting are for colors; data.mean has one channel")


def _check_audio(config):
    from mixaug_jax.data.speech import spectrogram

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
    for layer in () if config.weights else d.layers:  # weights bring their own network
        known = models.MODELS[m.name](2, width=m.width, stem=m.stem).layers
        checks.choice("dissect.layers", layer, known)
    checks.choice("dissect.split", d.split, ("train", "validation", "test"))
    checks.choice("dissect.over", d.over, ("upsampled", "raw"))
    checks.choice("dissect.rule", d.rule, ("linear", "hazen", "inverted_cdf"))
    checks.choice("dissect.padding", d.padding, ("edge", "zero"))
    for key in ("max_images", "size", "shuffles", "replicates", "seed", "cache_gb"):
        _at_least(config, f"dissect.{key}", 0)
    if not 0 < d.q < 1:
        raise ValueError(f"dissect.q must lie between 0 and 1, both excluded, not {d.q}")
    if not d.iou or any(not 0 <= value < 1 for value in d.iou):
        raise ValueError(f"dissect.iou must be thresholds from 0 up to below 1, not {d.iou}")
    if not d.segmenter_sizes or min(d.segmenter_sizes) < 32:
        raise ValueError(
            f"dissect.segmenter_sizes must be sizes of 32 pixels or more, not {d.segmenter_sizes}"
        )


def _check_explain(config):
    from mixaug_jax import attribution, models, scores
    from mixaug_jax.explain import examples, options, regions

    a, m = config.explain, config.model
    for method in a.methods:
        checks.choice("explain.methods", method, attribution.METHODS)
    for score in a.scores:
        checks.choice("explain.scores", score, scores.SCORES)
    if a.layer and not config.weights:
        known = models.MODELS[m.name](2, width=m.width, stem=m.stem).layers
        checks.choice("explain.layer", a.layer, known)
    checks.choice("explain.split", a.split, ("train", "validation", "test"))
    checks.choice("explain.label", a.label, examples.LABELS)
    checks.choice("explain.region", a.region, ("auto", *regions.KINDS))
    checks.choice("explain.reduce", a.reduce, options.REDUCES)
    for key in ("max_images", "replicates", "seed", "memory_gb"):
        _at_least(config, f"explain.{key}", 0)
    _at_least(config, "explain.reference", 2)


def _check_occlude(config):
    from mixaug_jax.occlusion import grid

    a = config.occlude
    try:
        grid.from_config(a)
    except ValueError as error:  # a sentence that begins with the key
        raise ValueError(f"occlude.{error}") from error
    checks.choice("occlude.split", a.split, ("", "train", "validation", "test"))
    named = {"true", "predicted"}
    if not a.labels or not all(v in named or str(v).isdigit() for v in a.labels):
        raise ValueError(
            f"occlude.labels must be 'true', 'predicted' or numbers of classes, not {a.labels}"
        )
    for key in ("max_images", "light", "seed"):
        _at_least(config, f"occlude.{key}", 0)
    for key in ("replicates", "batch"):
        _at_least(config, f"occlude.{key}", 1)


def _get(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def _at_least(config, key, least, strict=False):
    value = _get(config, key)
    if not math.isfinite(value) or value < least or (strict and value == least):
        raise ValueError(f"{key} must be {'above' if strict else 'at least'} {least}, not {value}")
