"""Every entry of every dict of functions has the signature that the rest of the code relies on."""

import inspect
import re

import pytest

from mixaug_jax.attribution import METHODS
from mixaug_jax.mixing import MIXERS
from mixaug_jax.scores import SCORES

ALIGNMENT = (
    "best_box_iou",
    "box_ratio",
    "effective_heat_ratio",
    "energy_pointing_game",
    "mass_accuracy",
    "pointing_game",
    "rank_accuracy",
)
STABILITY = ("class_sensitivity", "completeness", "max_sensitivity", "parameter_randomization")
COMPLEXITY = ("complexity", "effective_complexity", "sparseness")
FAITHFULNESS = SCORES.keys() - {*ALIGNMENT, *STABILITY, *COMPLEXITY}


def scores(names):
    return {name: SCORES[name] for name in sorted(names)}


# dict, the arguments that may be given by position, options that every entry must take.
DICTS = {
    "METHODS": (METHODS, ("net", "image", "label"), ()),
    "SCORES of alignment": (scores(ALIGNMENT), ("heatmap", "mask"), ()),
    "SCORES of faithfulness": (scores(FAITHFULNESS), ("heatmap", "net", "image", "label"), ()),
    "SCORES of stability": (scores(STABILITY), ("explain", "net", "image", "label"), ()),
    "SCORES of complexity": (scores(COMPLEXITY), ("heatmap",), ()),
    "MIXERS": (MIXERS, ("key", "images", "targets"), ("shard", "prob", "per")),
}
CASES = [
    pytest.param(function, *rest, id=f"{dictionary}-{name}")
    for dictionary, (entries, *rest) in DICTS.items()
    for name, function in entries.items()
]
SOURCE = re.compile(r"arXiv \d{4}\.\d{4,5}|\b(19|20)\d\d\b")


@pytest.mark.parametrize(("function", "positional", "options"), CASES)
def test_signature(function, positional, options):
    parameters = inspect.signature(function).parameters
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    by_position = [
        n for n, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    by_keyword = [n for n, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY]
    assert tuple(by_position) == positional
    assert len(by_position) + len(by_keyword) == len(kinds), "no *args, no **kwargs"
    assert set(options) <= set(by_keyword)
    for name in by_position:
        assert parameters[name].default is inspect.Parameter.empty
    for name in by_keyword:
        default = parameters[name].default
        assert default is not inspect.Parameter.empty, f"{name} needs a default"
        assert default is not None, f"{name}: 0 or an empty string is off, not None"


@pytest.mark.parametrize(("function", "positional", "options"), CASES)
def test_docstring_names_a_source(function, positional, options):
    doc = inspect.getdoc(function)
    assert doc, "no docstring"
    assert SOURCE.search(doc), "no paper: an arXiv number or a year"
    for name in inspect.signature(function).parameters:
        assert re.search(rf"\b{name}\b", doc), f"{name} is not explained"


@pytest.mark.parametrize("dictionary", DICTS)
def test_names(dictionary):
    entries = DICTS[dictionary][0]
    assert all(name == function.__name__ for name, function in entries.items())
