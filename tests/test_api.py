"""Every entry of every dict, and every flat public name, has the form that the rest of the code and its users rely on."""

import dataclasses
import inspect
import re

import pytest

import mixaug_jax
from mixaug_jax.attribution import METHODS, Method
from mixaug_jax.core import entries
from mixaug_jax.data import SOURCES
from mixaug_jax.mixing import MIXERS
from mixaug_jax.models import MODELS
from mixaug_jax.scores import SCORES, Score
from mixaug_jax.scores.score import kind_of

TABLES = {
    "MIXERS": MIXERS,
    "METHODS": METHODS,
    "SCORES": SCORES,
    "MODELS": MODELS,
    "SOURCES": SOURCES,
}
EVERY = [
    pytest.param(table, name, id=f"{table}-{name}") for table in TABLES for name in TABLES[table]
]
# The arguments that may be given by position, and options that every entry must take.
FORMS = {
    "MIXERS": ("key images targets", "shard prob per"),
    "METHODS": ("net image label", ""),
    "alignment": ("heatmap mask", ""),
    "faithfulness": ("heatmap net image label", ""),
    "stability": ("explain net image label", ""),
    "complexity": ("heatmap", ""),
    "MODELS": ("num_classes", "width stem"),
    "SOURCES": ("split config", "annotations"),
}
SOURCE = re.compile(r"arXiv \d{4}\.\d{4,5}|\b(19|20)\d\d\b")


def parameters(function):
    return inspect.signature(function).parameters.values()


@pytest.mark.parametrize(("table", "name"), EVERY)
def test_signature(table, name):
    """A score's form is that of its kind; in place of the heat map it may look at all channels."""
    entry = TABLES[table][name]
    form = kind_of(entry) if table == "SCORES" else table
    positional, needed = (words.split() for words in FORMS[form])
    given = [word.replace("attribution", "heatmap") for word in entries.arguments(entry)]
    assert given == positional
    assert set(needed) <= entries.keywords(entry).keys()
    functions = [entries.function_of(entry)]
    if getattr(entry, "measure", None):
        # What is measured of each example takes what the score takes.
        functions.append(entry.measure)
        assert entries.arguments(entry.measure) == entries.arguments(entry)
        assert entries.keywords(entry.measure) == entries.keywords(entry)
    for function in functions:
        for p in parameters(function):
            assert p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY), "no *args, no **kwargs"
            empty = p.default is p.empty
            assert empty == (p.kind is p.POSITIONAL_OR_KEYWORD), p.name
            assert p.default is not None, f"{p.name}: 0 or an empty string is off, not None"


@pytest.mark.parametrize(("table", "name"), EVERY)
def test_name_and_docstring(table, name):
    entry = TABLES[table][name]
    if table != "SOURCES":  # of which one function reads many
        assert entry.__name__ == entries.name_of(entry) == name
    doc = inspect.getdoc(entries.function_of(entry))
    assert doc, "no docstring"
    if table in ("MODELS", "SOURCES"):  # whose modules say what all have in common
        return
    assert SOURCE.search(doc), "no paper: an arXiv number or a year"
    for p in parameters(entry):
        assert re.search(rf"\b{p.name}\b", doc), f"{p.name} is not explained"


@pytest.mark.parametrize(("table", "name"), EVERY)
def test_options_can_stand_in_a_config(table, name):
    """Text, numbers, or tuples of them; what a run fills in, or draws, is none of them."""

    def plain(value):
        if isinstance(value, tuple):
            return all(map(plain, value))
        return isinstance(value, (str, bool, int, float))

    options = entries.options(TABLES[table][name])
    assert all(plain(value) for value in options.values())
    assert not options.keys() & {*entries.FILLED_IN, *entries.DRAWN}


@pytest.mark.parametrize("name", METHODS)
def test_records_of_methods(name):
    method = METHODS[name]
    assert isinstance(method, Method)
    assert (type(method.signed), type(method.control)) == (bool, bool)
    # What knows nothing of the network has no layer and no output to explain.
    assert not (method.control and entries.options(method))


@pytest.mark.parametrize("name", SCORES)
def test_records_of_scores(name):
    score = SCORES[name]
    assert isinstance(score, Score)
    options = entries.options(score)
    better = score.better(options) if callable(score.better) else score.better
    assert better in (-1, 1)
    for part in score.also.values():
        assert len(parameters(part.f)) == 2
    for part in score.summaries.values():
        assert len(parameters(part.f)) == 1
    for part in (*score.also.values(), *score.summaries.values()):
        assert part.better in (-1, 0, 1)
    if score.positions:
        positions = score.positions(options, 0)
        assert list(positions) == sorted(positions)
        assert score.axis


def test_every_name_is_used_once():
    """A run tells methods, scores and what scores give beside themselves apart by their names."""
    records = SCORES.values()
    names = [*METHODS, *SCORES, *(n for s in records for n in (*s.also, *s.summaries))]
    assert len(names) == len(set(names))


def public():
    """(name, function) of every flat name; of a class also its methods."""
    for name in mixaug_jax.__all__:
        entry = getattr(mixaug_jax, name)
        if inspect.isclass(entry):
            for method, function in vars(entry).items():
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", function
        elif name != "__version__":
            yield name, entry


PUBLIC = [pytest.param(function, id=name) for name, function in public()]


@pytest.mark.parametrize("function", PUBLIC)
def test_public_functions(function):
    doc, signature = inspect.getdoc(function), inspect.signature(function)
    assert doc, "no docstring"
    assert doc[0].isupper()
    given = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    for p in given:
        assert p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY), "no *args, no **kwargs"
        assert p.annotation is not p.empty, f"{p.name} has no type"
        # A method's one argument may be what its first line speaks of.
        if len(given) == len(signature.parameters):
            assert re.search(rf"\b{p.name}\b", doc), f"{p.name} is not explained"
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", mixaug_jax.__all__)
def test_public_names(name):
    entry = getattr(mixaug_jax, name)
    assert name in dir(mixaug_jax)
    if dataclasses.is_dataclass(entry):
        for field in dataclasses.fields(entry):
            assert re.search(rf"\b{field.name}\b", inspect.getdoc(entry)), field.name


def test_other_names_are_said_to_be_missing():
    with pytest.raises(AttributeError, match="module 'mixaug_jax' has no attribute 'explain_all'"):
        mixaug_jax.explain_all  # noqa: B018
