"""Settings: made from the table of keys and the recipes, resolved, compared, written and read.

    config = get_config(method="cutmix", data="scenes")

is what `configs/cutmix.py:scenes` gives. A number of 0, an empty string and an empty tuple mean "off"; no default is None.
Nothing in it depends on another key: what does (the number of steps, say) is worked out by `resolve` after all overrides, once
the size of the data set is known.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from mixaug_jax.config import keys, recipes
from mixaug_jax.config.keys import flatten
from mixaug_jax.core import files
from mixaug_jax.models.probability import logits_for

__all__ = ["difference", "flatten", "from_json", "get_config", "overview", "read", "resolve"]
__all__ += ["to_json"]


def get_config(method: str = "baseline", data: str = "scenes") -> ml_collections.ConfigDict:
    """The settings of one augmentation on one data set.

    Args:
      method: "baseline" or a name in `mixaug_jax.mixing.MIXERS`.
      data: "scenes", "folder", "speech", "markers", "animals", "cifar10", "cifar100", "imagenet2012"; any other name is
        read as a prepared TFDS set, with the folder's recipe.

    Returns:
      A ConfigDict whose keys are fixed; `config.unlocked()` adds to them.

    Raises:
      ValueError: an unknown method.
    """
    config = keys.defaults()
    config.data.name = data or "scenes"
    config.explain.options = recipes.entry_options()
    recipes.RECIPES.get(config.data.name, recipes.folder)(config)
    recipes.set_method(config, method)
    return config.lock()


def resolve(
    config: ml_collections.ConfigDict,
    *,
    train_size: int,
    class_names: Sequence[str],
    multi_label: bool = False,
) -> ml_collections.ConfigDict:
    """A copy with `config.resolved`: what follows from the settings and from the data.

    Args:
      config: a checked configuration.
      train_size: number of training examples.
      class_names: names of the classes, in the order of their numbers.
      multi_label: whether an image may show several of them.

    Returns:
      A locked copy with resolved.{steps, steps_per_epoch, warmup_steps, boundaries, eval_steps, checkpoint_steps, keep_steps},
      counted in steps; class_names; logits, their number; loss, which decides what probabilities are; model, the arguments that
      make the network; preprocess, how it sees a picture.
    """
    t, d, m = config.train, config.data, config.model
    # A saved network has no training set, and a small set may not fill one batch.
    per_epoch = max(1, train_size // config.data.batch_size)
    steps = int(t.steps or max(1, round(t.epochs * per_epoch)))
    with config.unlocked():
        # A copy: the caller's settings may be used for another run, on other data.
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
                "logits": logits_for(t.loss, len(class_names), multi_label=multi_label),
                "loss": t.loss,
                "model": {k: m[k] for k in ("name", "width", "stem", "last_stride")},
                "preprocess": {
                    "size": d.size,
                    "resize": round(d.size * d.resize),
                    "mean": tuple(d.mean),
                    "std": tuple(d.std),
                },
            }
        )
    return config.lock()


def to_json(config: ml_collections.ConfigDict) -> str:
    """The settings as JSON text, keys in their own order."""
    return json.dumps(config.to_dict(), indent=2)


def overview(config: ml_collections.ConfigDict) -> str:
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

    def tuples(value: Any):
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return ml_collections.ConfigDict(tuples(json.loads(text))).lock()


def difference(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> list[str]:
    """Settings in which two runs differ and that a resumed run may not change, as "key: old -> new".

    The learning rate and its schedule are none of them where `new.train.restart` is set. Where `old` is of a time that did not
    know a key, it counts as the default.
    """
    fixed = (keys.NETWORK,) if new.train.get("restart") else (keys.NETWORK, keys.RATE)
    # Both through JSON, so that a tuple never differs from a list of the same values.
    old, new = (flatten(json.loads(to_json(config))) for config in (old, new))
    changed = []
    for key in {**old, **new}:
        default = list(known) if isinstance(known := _default(key), tuple) else known
        before, after = old.get(key, default), new.get(key, default)
        if key == "data.test_split" and "auto" in (before, after):
            continue  # of a network that was saved without data: it is not known yet what there is
        if keys.decides(key) in fixed and before != after:
            changed.append(f"{key}: {before} -> {after}")
    return changed


def _default(key):
    return keys.KEYS[key].default if key in keys.KEYS else None


# Of settings before the sections were called explain and occlude.
_OLD_SECTIONS = {"attribute", "anomaly"}


def read(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The settings stored in a working directory.

    Raises:
      ValueError: there are none, of another version, or (`files.DamagedError`) not as they were written.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise ValueError(f"{workdir} is not a working directory: it has no config.json")
    found = files.read_json(path)
    if not all(isinstance(found.get(name), dict) for name in ("data", "mix", "model", "train")):
        raise files.DamagedError(f"{path} is damaged: it does not hold the settings of a run")
    config = from_json(json.dumps(found))
    if _OLD_SECTIONS.intersection(config):
        raise ValueError(
            f"{workdir} was made by version 0.1, whose settings and results have other names; make the run again in another "
            "--workdir, or read it with that version"
        )
    return config
