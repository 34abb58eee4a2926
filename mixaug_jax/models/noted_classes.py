"""The names of a network's classes, where those who saved its weights noted them."""

import json
from collections.abc import Mapping
from typing import Any

_KEYS = ("class_names", "classes", "CLASSES", "label_names", "class_to_idx", "idx_to_class", "id2label")  # fmt: skip
_WITHIN = ("hyper_parameters", "hparams", "args", "config", "meta", "dataset_meta", "mixaug_jax")


def noted(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a training checkpoint, in notes of a safetensors file or in a config.json, in the order of the logits.

    They are looked for under the names that scripts use (`class_names`, `class_to_idx`, `id2label`, ...), also in the dicts of
    settings that a checkpoint holds; a text is read as JSON.

    Args:
      content: what the file holds by name.

    Returns:
      [K], or () where nothing of that form is there.
    """
    for key in _KEYS:
        if names := _names(_plain(content.get(key))):
            return names
    for key in _WITHIN:
        inner = _plain(content.get(key))
        if isinstance(inner, Mapping) and (names := noted(inner)):
            return names
    return ()


def _plain(value):
    """A value, or what its text says as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _names(value) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        value = _ordered(value)
    if not isinstance(value, list | tuple) or len(value) < 2:
        return ()
    plain = all(isinstance(name, str) and name for name in value)
    return tuple(value) if plain and len(set(value)) == len(value) else ()


def _ordered(table: Mapping) -> list:
    """The names of {name: number} or {number: name} by their numbers; [] where these are not 0..K-1."""
    pairs = [(v, k) if isinstance(k, str) and not k.isdigit() else (k, v) for k, v in table.items()]
    try:
        found = {int(number): name for number, name in pairs}
    except (TypeError, ValueError):
        return []
    whole = sorted(found) == list(range(len(table)))
    return [found[k] for k in sorted(found)] if whole else []
