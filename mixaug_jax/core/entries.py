"""Entries of the dicts that make the package: functions, or records of functions, found by name or brought by a user.

What an entry needs of a run are keyword-only arguments of fixed names (`FILLED_IN`), read from its signature and filled in by
whoever calls it; its other keyword-only arguments are its options.
"""

import hashlib
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from mixaug_jax.core import checks

# shard, mean, std, active, deepest, net: a mixer's; key, chunk: seed and memory of a run; stats, baselines: of other images;
# readout: trained weights; parts: of what an example shows.
FILLED_IN = ("shard", "mean", "std", "active", "deepest", "net")
FILLED_IN += ("key", "chunk", "stats", "baselines", "readout", "parts")
# Arrays that take the place of an entry's own draws, which no config holds.
DRAWN = ("noise", "masks", "draws")


def function_of(entry: Callable) -> Callable:
    """The plain function of an entry, which may be a record of one."""
    # A class, of a network say, may have a field called f.
    return entry if isinstance(entry, type) else getattr(entry, "f", entry)


def keywords(entry: Callable) -> dict[str, Any]:
    """The keyword-only arguments of an entry and their defaults."""
    parameters = inspect.signature(function_of(entry)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def arguments(entry: Callable) -> tuple[str, ...]:
    """The names of an entry's arguments by position, which tell what it is given."""
    parameters = inspect.signature(function_of(entry)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def options(entry: Callable) -> dict[str, Any]:
    """What a user can tell an entry, and the defaults: without arrays and what a run fills in."""
    return {k: v for k, v in keywords(entry).items() if k not in FILLED_IN + DRAWN}


def name_of(entry: str | Callable) -> str:
    """The name of an entry that is given by name or as itself.

    Raises:
      ValueError: a function without a name of its own (a lambda, a partial).
    """
    if isinstance(entry, str):
        return entry
    name = getattr(entry, "__name__", "")
    if not callable(entry) or not name.isidentifier():
        raise ValueError(
            f"{entry!r} has no name to be stored under: give a function made by def, not a lambda or a partial"
        )
    return name


def chosen(what: str, entries: Any, table: Mapping[str, Callable]) -> dict[str, Callable]:
    """{name: entry} of names in a table and of functions or records that a user brings, each once.

    Args:
      what: what they are, for the error: "methods".
      entries: several, by name or as themselves.
      table: the dict of those that are known.

    Raises:
      ValueError: an unknown name (with the nearest), one text where several are expected, two different entries of one name.
    """
    if isinstance(entries, str) or callable(entries):
        raise ValueError(f"{what} must be several, as in ({entries!r},); got {entries!r}")
    found: dict[str, Callable] = {}
    for entry in entries:
        name = name_of(entry)
        if isinstance(entry, str):
            checks.choice(what, name, table)
            entry = table[name]
        elif function_of(entry) is entry:  # a plain function; a record of it says more
            known = [there[name] for there in (found, table) if name in there]
            entry = next((record for record in known if function_of(record) is entry), entry)
        if function_of(found.get(name, entry)) is not function_of(entry):
            raise ValueError(f"{what} holds two entries called {name!r}; rename one")
        found[name] = entry
    return found


def origin(entry: Callable) -> dict[str, str]:
    """{"file", "sha256"} of the file that brought an entry from outside the package; {} for the package's own.

    An entry typed at a prompt or in a notebook has no file: its module stands in the place of one, with the checksum "".
    """
    function = inspect.unwrap(function_of(entry))
    if function.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return {}
    try:
        path = pathlib.Path(inspect.getsourcefile(function) or "")
    except TypeError:  # an object with __call__, or a function of C
        path = pathlib.Path()
    if not path.is_file():
        return {"file": function.__module__, "sha256": ""}
    return {"file": str(path.absolute()), "sha256": sha256(path)}


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def title_of(entry: Callable) -> str:
    """An entry in words: its record's title, or its name."""
    return getattr(entry, "title", "") or name_of(entry).replace("_", " ")
