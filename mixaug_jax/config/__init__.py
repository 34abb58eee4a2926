"""Every setting, once: defaults, recipes, checks, and how they are read and written."""

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
from mixaug_jax.config.validation import check

__all__ = [
    "check",
    "difference",
    "flatten",
    "from_json",
    "get_config",
    "overview",
    "read",
    "resolve",
    "to_json",
]
