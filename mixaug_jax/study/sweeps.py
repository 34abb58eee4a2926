"""Where one word stands for several augmentations: each value of a key, with a name of its own; every mixer."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax import mixing
from mixaug_jax.config import opening
from mixaug_jax.core import checks

BASELINE = "baseline"  # what the others are compared with, where there is one of this name
EVERY_MIXER = "mixers"  # stands for the baseline and all of them


def each(configs: Iterable[Any]) -> Iterator[Any]:
    """The configs of a study one by one: "mixers[:DATA]" stands for the baseline and every mixer with a config of its name."""
    for source in configs:
        name, colon, where = source.partition(":") if isinstance(source, str) else ("", "", "")
        if name == EVERY_MIXER:
            mixers = [mixer for mixer in mixing.MIXERS if mixer in opening.shipped()]
            yield from (f"{mixer}{colon}{where}" for mixer in (BASELINE, *mixers))
        else:
            yield source


@dataclasses.dataclass(frozen=True)
class Variant:
    """A config with one value of each key that is swept.

    Attributes:
      name: the config's, with what is swept: "cutmix-alpha0.2".
      base: the config's name.
      values: {key: value} of the keys that this config has, as they were typed.
    """

    name: str
    base: str
    values: Mapping[str, str]


def parse(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{key: values} of "mix.alpha=0.2,1.0".

    Raises:
      ValueError: no values, one value twice, a key twice.
    """
    swept: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, _, listed = text.partition("=")
        values = tuple(value for value in listed.split(",") if value)
        if not values or len(set(values)) < len(values):
            raise ValueError(
                f"--sweep.{key} needs one value or more, each once: --sweep.{key}=0.2,1.0"
            )
        if key in swept or key in ("seed", "mix.name"):
            use = {"seed": "use --seeds", "mix.name": "use other files in --configs"}
            raise ValueError(f"--sweep.{key} cannot be: {use.get(key, 'it is there twice')}")
        swept[key] = values
    return swept


def variants(
    configs: Mapping[str, ml_collections.ConfigDict], swept: Mapping[str, Sequence[str]]
) -> list[Variant]:
    """Every config with every combination of the values of those keys that it has; itself where it has none.

    Raises:
      ValueError: a key that no config has, one whose value is a tuple, or two variants of one name.
    """
    flat = {name: config_lib.flatten(config.to_dict()) for name, config in configs.items()}
    for key in swept:
        # A key may belong to some of the configs alone, as a mixer's own option does; it must belong to one.
        having = [settings[key] for settings in flat.values() if _has(settings, key)]
        if not having:
            known = sorted({key for settings in flat.values() for key in settings})
            raise ValueError(f"no config of this study has {key}{checks.nearest(key, known)}")
        if isinstance(having[0], tuple):
            raise ValueError(
                f"--sweep.{key} cannot be: its value is a tuple, and commas part values"
            )
    found = [
        _variant(name, dict(zip(keys, values, strict=True)))
        for name in configs
        for keys in [[key for key in swept if _has(flat[name], key)]]
        for values in itertools.product(*(swept[key] for key in keys))
    ]
    names = [variant.name for variant in found]
    # Names are made of values as they are written, and 0.5 and .5 would be one folder.
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise ValueError(f"two augmentations of this sweep would be called {twice}")
    return found


def _has(settings, key) -> bool:
    """Whether a key decides anything in a config: where nothing is mixed, no key of mixing does."""
    return key in settings and not (key.startswith("mix.") and settings["mix.name"] == "none")


def _variant(base: str, values: dict[str, Any]) -> Variant:
    # A folder's name: of the key its last part, of the value what a folder may be called.
    parts = (
        f"{key.rpartition('.')[2]}{re.sub(r'[^A-Za-z0-9.+-]', '_', v)}" for key, v in values.items()
    )
    return Variant("-".join([base, *parts]), base, values)


def lines(swept: dict[str, dict[str, str]], key: str) -> dict[str, dict[str, str]]:
    """{line: {value of `key`: augmentation}}; a line is a config with the same values of all other keys.

    Args:
      swept: of study.json, {augmentation: {"of": config, key: value, ...}}.
      key: the one that is drawn along the axis.
    """
    found: dict[str, dict[str, str]] = {}
    for name, values in swept.items():
        if key in values:
            rest = [f"{k}={v}" for k, v in values.items() if k not in ("of", key)]
            found.setdefault(", ".join([values["of"], *rest]), {})[values[key]] = name
    return found
