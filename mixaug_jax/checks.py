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
    _one_of("data.crop", d.crop, ("none", "pad", "resized"))
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


def _check_attribute(config):
    del config


def _check_anomaly(config):
    del config


def _get(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def _one_of(key, value, allowed):
    if value not in allowed:
        near = difflib.get_close_matches(str(value), list(allowed), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{key}={value!r} is not known{hint}; allowed: {', '.join(allowed)}")


def _at_least(config, key, least, strict=False):
    value = _get(config, key)
    if not math.isfinite(value) or value < least or (strict and value == least):
        raise ValueError(f"{key} must be {'above' if strict else 'at least'} {least}, not {value}")
