"""What methods and scores can be told from a config, and what of that is wrong."""

from collections.abc import Callable, Mapping
from typing import Any

from mixaug_jax.attribution import METHODS, REDUCTIONS
from mixaug_jax.core import checks, entries
from mixaug_jax.scores import SCORES

REDUCES = ("auto", *REDUCTIONS)  # how channels become one map


def known() -> dict[str, Callable]:
    """Every method and score by its name, as the dicts hold them now."""
    return {**METHODS, **SCORES}


def all_options() -> dict[str, dict[str, Any]]:
    """{method or score: its options and their defaults}, of those that have any, for a config to write out."""
    found = {name: entries.options(entry) for name, entry in sorted(known().items())}
    return {name: options for name, options in found.items() if options}


def changed(given: Mapping[str, Mapping]) -> set[str]:
    """The methods and scores of which something is given that is not the default."""
    table = known()
    return {
        name
        for name, values in given.items()
        if name in table
        and any(entries.options(table[name]).get(k) != v for k, v in values.items())
    }


def check_options(
    given: Mapping, brought: Mapping[str, Callable] | None = None, prefix: str = "options"
) -> None:
    """Raises ValueError for {method or score: {option: value}} with a name that does not exist.

    brought: entries besides those of METHODS and SCORES.
    """
    table = {**known(), **(brought or {})}
    for name, values in given.items():
        checks.choice(prefix, name, table)
        if not isinstance(values, Mapping):
            raise ValueError(f"{prefix}.{name} must be {{option: value}}; got {values!r}")
        allowed = [option for option in entries.keywords(table[name]) if option != "chunk"]
        for option in values:
            checks.choice(f"{prefix}.{name}", option, allowed)
