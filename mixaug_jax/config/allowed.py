"""What a setting is, and what it may be: kinds of values with their ranges.

Every kind has three things: `words`, as in "an integer of at least 1"; `check(name, value)`, which raises one sentence that
says so; and `read(name, text)`, the value that a text stands for. Every range is finite, so that what is accepted can be
counted, stored as JSON, and multiplied by another setting without an overflow.
"""

import ast
import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from mixaug_jax.core import checks

# What a setting decides, besides the names of later stages, "dissect", "intervene" and so on: of what reads it alone.
NETWORK = "network"  # the weights: a run that goes on must have it as it was
LENGTH = "length"  # the weights, too; but a run may go on to be longer
RATE = "rate"  # the weights, too; but a run may go on at another rate, with train.restart
PLACE = "place"  # where the data are: they may have been moved
MACHINE = "machine"  # nothing but this machine's affairs, which another one need not be told
NOTHING = ""  # no result: how often something is said or saved, and how fast it goes


@runtime_checkable
class Allowed(Protocol):
    """A kind of values."""

    @property
    def words(self) -> str:
        """What is allowed, to follow "must be"."""

    def check(self, name: str, value: Any) -> None:
        """Raises ValueError, in one sentence about `name`, for a value that is not allowed."""

    def read(self, name: str, text: str) -> Any:
        """The value that a text of a command line stands for, not checked; ValueError where it stands for none."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
      default: where neither a recipe nor a user says otherwise; not None.
      comment: what it is, its unit, and what 0, "" and () mean.
      allowed: what it may be.
      decides: what changes with it: NETWORK, another of these words, or the later stage that alone reads it.
    """

    default: Any
    comment: str
    allowed: Allowed
    decides: str = NETWORK


def section(name: str, keys: dict[str, Key], decides: str = NETWORK) -> dict[str, Key]:
    """{"name.key": key} of a section whose keys decide `decides` where they do not say otherwise themselves."""
    return {
        f"{name}.{key}": dataclasses.replace(k, decides=decides) if k.decides == NETWORK else k
        for key, k in keys.items()
    }


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False."""

    words = "True or False"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, bool):
            _refuse(name, self, value)

    def read(self, name: str, text: str) -> bool:
        values = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
        if text.strip().lower() not in values:
            _refuse(name, self, text)
        return values[text.strip().lower()]


@dataclasses.dataclass(frozen=True)
class Int:
    """An integer in `least`..`most`."""

    least: int
    most: int

    @property
    def words(self) -> str:
        return f"an integer of {checks.bounds(self.least, self.most)}"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, int):  # of Python, which JSON can hold
            _refuse(name, self, value)
        checks.count(name, value, self.least, self.most)

    def read(self, name: str, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            _refuse(name, self, text)


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number in `least`..`most`; `above` and `below` leave out that end."""

    least: int | float
    most: int | float
    above: bool = False
    below: bool = False

    @property
    def words(self) -> str:
        ends = checks.bounds(self.least, self.most, above=self.above, below=self.below)
        return f"a number {ends}"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, int | float):  # of Python, which JSON can hold
            _refuse(name, self, value)
        checks.number(name, value, self.least, self.most, above=self.above, below=self.below)

    def read(self, name: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            _refuse(name, self, text)


@dataclasses.dataclass(frozen=True)
class Text:
    """One line of text of at least `least` characters; with a `pattern`, a text that matches all of it.

    Attributes:
      pattern: a regular expression; "": any text.
      what: the pattern in words.
    """

    least: int = 0
    pattern: str = ""
    what: str = ""

    @property
    def words(self) -> str:
        return self.what or ("text" if not self.least else "text that is not empty")

    def check(self, name: str, value: Any) -> None:
        fits = isinstance(value, str) and self.least <= len(value) < 10_000
        if not fits or any(ord(c) < 32 or ord(c) == 127 for c in value):
            _refuse(name, self, value)
        if self.pattern and not re.fullmatch(self.pattern, value, re.ASCII):
            _refuse(name, self, value)

    def read(self, name: str, text: str) -> str:
        return text


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few texts."""

    values: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"one of {checks.listed(self.values)}"

    def check(self, name: str, value: Any) -> None:
        checks.choice(name, value, self.values)

    def read(self, name: str, text: str) -> str:
        return text


@dataclasses.dataclass(frozen=True)
class Entry:
    """A name in a dict of entries, which is looked at anew at each check: entries may be added at any time.

    Attributes:
      of: a function of nothing that gives the names, or the dict itself.
      beside: names that are allowed besides.
    """

    of: Callable[[], Iterable[str]]
    beside: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return f"one of {checks.listed((*self.beside, *self.of()))}"

    def check(self, name: str, value: Any) -> None:
        checks.choice(name, value, (*self.beside, *self.of()))

    def read(self, name: str, text: str) -> str:
        return text


@dataclasses.dataclass(frozen=True)
class Many:
    """Several values of one kind, as a tuple.

    Attributes:
      of: the kind of each.
      least: at least so many.
      most: at most so many.
      rising: none is below the one before.
      distinct: no two are equal.
    """

    of: Allowed
    least: int = 0
    most: int = 1000
    rising: bool = False
    distinct: bool = False

    @property
    def words(self) -> str:
        count = f"{self.least} to {self.most}" if self.least < self.most else f"{self.least}"
        few = {(0, 1000): "a list of", (1, 1000): "a list of one or more"}
        count = few.get((self.least, self.most), count)
        order = ", none below the one before" * self.rising + ", no two alike" * self.distinct
        return f"{count} values{order}, each {self.of.words}"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, tuple | list) or not self.least <= len(value) <= self.most:
            _refuse(name, self, value)
        for one in value:
            self.of.check(f"each of {name}", one)
        unordered = self.rising and any(b < a for a, b in itertools.pairwise(value))
        if unordered or (self.distinct and len(set(value)) < len(value)):
            _refuse(name, self, value)

    def read(self, name: str, text: str) -> tuple:
        """Values between commas, "a,b", or a tuple as Python has it, "('a', 'b')"; "" is no value."""
        literal = _literal(text)
        if literal is not None:
            return literal if isinstance(literal, tuple) else (literal,)
        parts = [part.strip() for part in text.strip().strip("()[]").split(",")]
        # A trailing comma is Python's way to write a tuple of one, and "" splits into [""].
        parts = parts[:-1] if not parts[-1] else parts
        return tuple(self.of.read(f"each of {name}", part) for part in parts)


@dataclasses.dataclass(frozen=True)
class Plain:
    """A text, True or False, a finite number, or several of these: what an option may be whose default does not tell."""

    words = "text, a number of at most 1e12 either way, or several of these"

    def check(self, name: str, value: Any) -> None:
        if not _plain(value, 4):
            _refuse(name, self, value)

    def read(self, name: str, text: str) -> Any:
        literal = _literal(text)
        if literal is not None:
            return literal
        # 0 and t are numbers and letters here: nothing says that a flag is wanted.
        if text.strip() in ("True", "False"):
            return text.strip() == "True"
        for kind in (Int(-(10**12), 10**12), Number(-(10**12), 10**12)):
            with contextlib.suppress(ValueError):
                return _checked(kind, name, text)
        return text


@dataclasses.dataclass(frozen=True)
class Either:
    """One of two kinds; a text of a command line is read as the first that it fits.

    Attributes:
      what: both in words; "": the words of the one and of the other.
    """

    first: Allowed
    second: Allowed
    what: str = ""

    @property
    def words(self) -> str:
        return self.what or f"{self.first.words}, or {self.second.words}"

    def check(self, name: str, value: Any) -> None:
        if not (_fits(self.first, value) or _fits(self.second, value)):
            _refuse(name, self, value)

    def read(self, name: str, text: str) -> Any:
        literal = _literal(text)
        if literal is not None:
            return literal
        for kind in (self.first, self.second):
            with contextlib.suppress(ValueError):
                return _checked(kind, name, text)
        _refuse(name, self, text)


def like(default: Any) -> Allowed:
    """What an option of an entry may be, as far as its default tells; its own checks know the rest."""
    # bool before int: in Python True is an int too.
    if isinstance(default, bool):
        return Flag()
    if isinstance(default, int):
        return Int(-(10**9), 10**9)
    if isinstance(default, float):
        return Number(-(10**9), 10**9)
    if isinstance(default, str):  # a name, or perhaps names of layers with a name for each
        return Either(Text(), Many(Plain()))
    return Many(_each(default)) if isinstance(default, tuple | list) else Plain()


def _each(values):
    """What each of several may be: a number where all are; of none at all nothing is known."""
    kinds = {type(like(value)) for value in values}
    if kinds == {Int}:
        return like(values[0])
    # A 1 among fractions is one of them.
    return Number(-(10**9), 10**9) if kinds and kinds <= {Int, Number} else Plain()


def _checked(kind, name, text):
    value = kind.read(name, text)
    kind.check(name, value)
    return value


def _fits(kind, value):
    try:
        kind.check("", value)
    except ValueError:
        return False
    return True


def _plain(value, depth):
    if isinstance(value, tuple | list):
        return depth > 0 and all(_plain(one, depth - 1) for one in value)
    kind = Text() if isinstance(value, str) else Number(-(10**12), 10**12)
    return isinstance(value, bool) or _fits(kind, value)


def _literal(text):
    """A tuple, or a quoted text, as Python writes it, lists as tuples; None for a text that is none."""
    if not text.strip().startswith(("(", "[", "'", '"')):
        return None
    try:
        return _tuples(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, tuple | list) else value


def _refuse(name, kind, value):
    raise ValueError(f"{name} must be {kind.words}; got {checks.shown(value)}")
