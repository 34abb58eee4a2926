"""Every setting, once: the table of keys, recipes, checks, and how settings are read and written."""

from mixaug_jax.config.keys import help_text
from mixaug_jax.config.settings import (
    difference,
    flatten,
    from_json,
    get_config,
    overview,
    read,
    resolve,
    to_json,
)
from mixaug_jax.config.validation import check, check_layers

__all__ = [
    "check",
    "check_layers",
    "difference",
    "flatten",
    "from_json",
    "get_config",
    "help_text",
    "overview",
    "read",
    "resolve",
    "to_json",
]
