"""The table of all settings, and what is made from it: defaults, checks, help, and what each of them decides.

    KEYS["train.lr"]  # Key(default=0.1, comment=..., allowed=Number(0, 1000), decides="rate")

The options of a mixer (mix.alpha) and of single methods and scores (explain.options.occlusion.window) are not in KEYS:
`table_of` reads them from the signatures of the entries, which may be added to at any time.
"""

import difflib
import functools
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from mixaug_jax import mixing
from mixaug_jax.config import stage_keys, training_keys, weight_keys
from mixaug_jax.config.allowed import (
    LENGTH,
    MACHINE,
    NETWORK,
    NOTHING,
    PLACE,
    RATE,
    Key,
    Plain,
    like,
)
from mixaug_jax.core import checks, entries
from mixaug_jax.explain import options

__all__ = ["KEYS", "LENGTH", "MACHINE", "NETWORK", "NOTHING", "PLACE", "RATE", "TRAINING", "Key"]
__all__ += ["assign", "check_values", "decides", "defaults", "flatten", "has_section", "help_text"]
__all__ += ["read_text", "table_of", "unknown"]

KEYS: dict[str, Key] = {**training_keys.KEYS, **weight_keys.KEYS, **stage_keys.KEYS}
TRAINING = (NETWORK, LENGTH, RATE, PLACE)  # what decides the network, in one way or another
# Of one data set each.
OWN_SECTIONS = {
    "scenes": "data.scenes",
    "speech": "data.audio",
    "markers": "data.markers",
    "animals": "data.animals",
}

_OPTIONS = "explain.options."
_SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}
_WIDTH, _LEFT = 100, 38  # columns of the help, and of the keys in it


def defaults(section: str = "", table: Mapping[str, Key] = KEYS) -> ml_collections.ConfigDict:
    """The defaults of a section ("data.scenes"), or of all but those that only one data set has."""
    config = ml_collections.ConfigDict()
    beside = tuple(f"{own}." for own in OWN_SECTIONS.values()) if not section else ()
    for key, known in table.items():
        if key.startswith(f"{section}." if section else "") and not key.startswith(beside):
            _put(config, key.removeprefix(f"{section}."), known.default)
    return config


def assign(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Sets a setting of a config to what a text of a command line stands for; see `read_text`.

    Raises:
      ValueError: a key that this config does not have, a text that is no such value, a value that is not allowed.
    """
    *sections, name = key.split(".")
    place = config
    for section in sections:
        place = place.get(section) if isinstance(place, ml_collections.ConfigDict) else None
    known = KEYS.get(key)
    # All settings are looked at only where they are needed: a study assigns hundreds of times.
    if known is None or not isinstance(place, ml_collections.ConfigDict) or name not in place:
        values = flatten(config.to_dict())
        if key not in values:
            raise ValueError(unknown(key, values))
        # A section that a stage brought is known by its values only.
        known = table_of(values).get(key) or Key(values[key], "", like(values[key]))
    value = _read(known.allowed, key, text)
    with place.ignore_type():  # the table knows better than the type of the default
        place[name] = value


def _put(config, key, value):
    *sections, name = key.split(".")
    for section in sections:
        if section not in config:
            config[section] = ml_collections.ConfigDict()
        config = config[section]
    config[name] = value


def decides(key: str) -> str:
    """What a setting decides: one of the words of `allowed`, or the stage that alone reads it.

    A section that the table does not have belongs to the stage that brought it. Another key that the table does not have may be
    an option of a mixer or of a data set, and is taken to decide the network.
    """
    head = key.partition(".")[0]
    if key in KEYS:
        return KEYS[key].decides
    if head == "resolved":
        return MACHINE  # follows from other settings
    if key.startswith(_OPTIONS):
        return "explain"
    return NETWORK if has_section(key) else head


def has_section(key: str) -> bool:
    """Whether a setting stands in a section of the table, so that the table says which keys there are."""
    head, dot, _ = key.partition(".")
    return not dot or head in _SECTIONS


def table_of(values: Mapping[str, Any]) -> dict[str, Key]:
    """The table, and the keys that it does not have: options of the mixer, of methods and of scores, by their signatures.

    Where data.name is that of a data set from outside the package, what stands in data.<name> is taken as it is; and so are
    options of a mixer where none is on.

    Args:
      values: of all settings by key.
    """
    mixer, own = values.get("mix.name"), f"data.{values.get('data.name')}."
    table = {
        f"{_OPTIONS}{name}.{option}": known
        for name, entry in options.known().items()
        for option, known in _keys_of(entries.function_of(entry), "explain").items()
    }
    if mixer in mixing.MIXERS:
        own_keys = _keys_of(entries.function_of(mixing.MIXERS[mixer]), NETWORK)
        table |= {f"mix.{name}": known for name, known in own_keys.items()}
    plain = ("mix.",) if mixer == "none" else ()
    plain += (own,) if own.rstrip(".") not in OWN_SECTIONS.values() else ()
    table |= {
        key: Key(value, "", Plain()) for key, value in values.items() if key.startswith(plain)
    }
    return table | KEYS


@functools.lru_cache(maxsize=1000)  # signatures take milliseconds, and every check asks for all
def _keys_of(function, decides):
    known = entries.options(function)
    return {name: Key(default, "", like(default), decides) for name, default in known.items()}


def check_values(
    values: Mapping[str, Any], table: Mapping[str, Key], needed: Iterable[str] | None = None
) -> None:
    """Raises ValueError, in one sentence, for a key that a table does not have, for one that is missing, or for a value that is
    not allowed.

    Args:
      values: {key: value}, all of them.
      table: {key: Key} of all keys that there may be.
      needed: those that there must be; None: all.
    """
    for key in values:
        if key not in table:
            raise ValueError(unknown(key, table))
    for key in table if needed is None else needed:
        if key not in values:
            raise ValueError(f"{key} is missing; start from what config.get_config gives")
    for key, value in values.items():
        table[key].allowed.check(key, value)


def unknown(key: str, table: Iterable[str]) -> str:
    """The sentence about a key that is not in a table: it names the nearest, or else what there is."""
    inside = [k for k in table if k.startswith(f"{key}.")]
    if inside:
        return f"{key} is a section of settings, and no key; its keys are {', '.join(inside)}"
    head, _, name = key.rpartition(".")
    beside = {k.rpartition(".")[2]: k for k in table if head and k.rpartition(".")[0] == head}
    near = [beside[n] for n in difflib.get_close_matches(name, list(beside), 2)]
    near = near or sorted(k for k in table if k.rpartition(".")[2] == name)[:3]
    near = near or difflib.get_close_matches(key, list(table), 1, 0.75)
    if near:
        return f"unknown key {key} (did you mean {' or '.join(near)}?)"
    there = beside.values() or dict.fromkeys(k.partition(".")[0] for k in table)
    return f"unknown key {key}; there are {', '.join(there)}"


def read_text(key: str, text: str, values: Mapping[str, Any] | None = None) -> Any:
    """The value of a setting that a text of a command line stands for: "0.1", "True", "a,b" or "('a', 'b')" for a tuple.

    Args:
      key: of the table, or of an option.
      text: what was typed.
      values: of other settings by key; what an option may be depends on mix.name and data.name. None: the defaults.

    Raises:
      ValueError: an unknown key, a text that is no such value, a value that is not allowed.
    """
    table = KEYS if key in KEYS else table_of(values or {})
    if key not in table:
        raise ValueError(unknown(key, table))
    return _read(table[key].allowed, key, text)


def _read(allowed, key, text):
    value = allowed.read(key, text)
    allowed.check(key, value)
    return value


def help_text(section: str = "", table: Mapping[str, Key] = KEYS) -> str:
    """The settings for a console: each key with its default, its comment and what is allowed, in 100 columns.

    Args:
      section: "train", "data.audio", ...; "": all.
      table: of a paper, where it has settings of its own.

    Raises:
      ValueError: an unknown section.
    """
    sections: dict[str, list[str]] = {}
    for key, known in table.items():
        sections.setdefault(key.rpartition(".")[0], []).append(_help_lines(key, known))
    if section:
        checks.choice("section", section, [name for name in sections if name])
    named = [n for n in sections if not section or f"{n}.".startswith(f"{section}.")]
    return "\n\n".join("\n".join(sections[name]) for name in named)


def _help_lines(key, known):
    """The key and its default on the left; on the right the comment and, below it, what is allowed."""
    left = f"{key} = {_typed(known.default)}"
    right = [
        line
        for text in (known.comment, known.allowed.words)
        for line in textwrap.wrap(text, _WIDTH - _LEFT)
    ]
    if len(left) >= _LEFT:
        head, beside = [left], right
    else:
        head, beside = [f"{left:{_LEFT}}{right[0]}"], right[1:]
    return "\n".join([*head, *(" " * _LEFT + line for line in beside)])


def _typed(value):
    """A default as it would be typed on a command line."""
    return (",".join(map(str, value)) if isinstance(value, tuple) else str(value)) or '""'


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """A tree of dicts as one, with keys "data.size"; an empty dict counts as a value."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
