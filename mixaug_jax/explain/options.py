"""What methods and scores can be told, and what a run fills in for them."""

import inspect
from collections.abc import Mapping

from mixaug_jax.attribution import METHODS, REDUCTIONS
from mixaug_jax.core import checks
from mixaug_jax.scores import SCORES

# They know nothing of the network: what every method has to beat.
CONTROLS = ("random", "center", "sobel")
# How their channels become one map unless it is said: these methods tell how sensitive the output is to a pixel, with a sign
# that depends on the pixel's color; the others what a pixel contributes to the output.
SENSITIVITIES = ("gradient", "loss_gradient", "guided_backprop", "deconvnet", "smoothgrad")
SENSITIVITIES += ("guided_gradcam",)
# What follows from the run: keys from its seed, chunks from its memory. The others are arrays, which a config does not hold.
_FILLED_IN = ("key", "chunk")
_ARRAYS = ("noise", "masks", "baselines", "stats", "draws")
REDUCES = ("auto", *REDUCTIONS)
_FUNCTIONS = {**METHODS, **SCORES}


def options(name: str) -> dict:
    """The options of a method or score and their defaults, without arrays and what a run fills in.

    Raises:
      ValueError: no method or score of this name.
    """
    checks.choice("name", name, _FUNCTIONS)
    return {
        option: default
        for option, default in keywords(name).items()
        if option not in _FILLED_IN + _ARRAYS
    }


def all_options() -> dict:
    """{method or score: its `options`}, of those that have any, for a config to write out."""
    return {name: options(name) for name in sorted(_FUNCTIONS) if options(name)}


def keywords(name: str) -> dict:
    """All options of a method or score, and their defaults."""
    parameters = inspect.signature(_FUNCTIONS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def needs(score: str) -> tuple[str, ...]:
    """The arguments by position, which tell the kind of a score; see `mixaug_jax.evaluation`."""
    parameters = inspect.signature(SCORES[score]).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def reduction(method: str, reduce: str) -> str:
    """How a method's channels become one map: `reduce`, or what suits the method for "auto"."""
    if reduce != "auto":
        return reduce
    return "abs_sum" if method in SENSITIVITIES else "sum"


def check_options(given: dict, prefix: str = "options") -> None:
    """Raises ValueError for {method or score: {option: value}} with a name that does not exist."""
    for name, values in given.items():
        checks.choice(prefix, name, _FUNCTIONS)
        if not isinstance(values, Mapping):
            raise ValueError(f"{prefix}.{name} must be {{option: value}}, got {values!r}")
        for option in values:
            allowed = [o for o in keywords(name) if o != "chunk"]
            checks.choice(f"{prefix}.{name}", option, allowed)
