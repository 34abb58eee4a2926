"""What a signature says of an entry, how entries are chosen, and where they came from."""

import dataclasses
import functools
import hashlib
import importlib.util

import numpy as np
import pytest

from mixaug_jax.attribution import METHODS, Method
from mixaug_jax.core import entries
from mixaug_jax.mixing import MIXERS
from mixaug_jax.scores import SCORES, Score


def mine(net, image, label, *, gain=2.0, layer="", key=0, chunk=16, noise=(), baselines=()):
    return gain * image


def twin():
    """Another function of the same name."""

    def mine(net, image, label):
        return -image

    return mine


@pytest.mark.parametrize("entry", [mine, Method(mine), Score(mine)])
def test_a_signature_says_what_is_given_filled_in_and_told(entry):
    assert entries.function_of(entry) is mine
    assert entries.arguments(entry) == ("net", "image", "label")
    assert entries.keywords(entry) == {
        "gain": 2.0, "layer": "", "key": 0, "chunk": 16, "noise": (), "baselines": (),
    }  # fmt: skip
    assert entries.options(entry) == {"gain": 2.0, "layer": ""}
    assert entries.name_of(entry) == "mine"
    image = np.full((2, 2, 3), 3, np.float32)
    np.testing.assert_array_equal(entry("net", image, 0, gain=5.0), 5 * image)


@pytest.mark.parametrize("name", entries.FILLED_IN + entries.DRAWN)
def test_what_a_run_fills_in_is_no_option(name):
    scope = {}
    exec(f"def one(heatmap, *, {name}=0, wide=3): return 0", scope)
    assert entries.options(scope["one"]) == {"wide": 3}
    assert set(entries.keywords(scope["one"])) == {name, "wide"}


def test_entries_are_chosen_by_name_and_as_themselves():
    table = {"mine": Method(mine), "other": twin()}
    own = twin()
    own.__name__ = own.__qualname__ = "own"
    found = entries.chosen("methods", ["other", own, "mine", "other", mine, own], table)
    assert list(found) == ["other", "own", "mine"]
    assert found["own"] is own
    assert entries.function_of(found["mine"]) is mine
    table["late"] = own  # at any time
    assert entries.chosen("methods", ("late",), table) == {"late": own}
    assert entries.chosen("methods", (), table) == {}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("mnie",), r"methods must be one of mine, other; got 'mnie' \(did you mean 'mine'\?\)"),
        (("nothing like it",), r"methods must be one of mine, other; got 'nothing like it'$"),
        ("mine", r"methods must be several, as in \('mine',\); got 'mine'"),
        (mine, r"methods must be several, as in \(<function mine.*; got <function mine"),
        ((twin(), mine), "methods holds two entries called 'mine'; rename one"),
        (("mine", twin()), "methods holds two entries called 'mine'; rename one"),
        ((lambda net, image, label: image,), "has no name to be stored under: give a function"),
        ((Method(lambda net, image, label: image),), "has no name to be stored under"),
        ((functools.partial(mine, gain=3),), "has no name to be stored under"),
        ((Method(functools.partial(mine, gain=3)),), "has no name to be stored under"),
        ((3,), "3 has no name to be stored under"),
        ((None,), "None has no name to be stored under"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_chosen(given, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        entries.chosen("methods", given, {"mine": mine, "other": twin()})
    assert not str(error.value).endswith(".")


def test_a_record_and_its_function_are_one_entry():
    record = Method(mine, signed=False)
    for given in ((mine, record), (record, mine), (record, mine, record)):
        assert entries.chosen("methods", given, {}) == {"mine": record}
    assert entries.chosen("methods", (mine,), {"mine": record}) == {"mine": record}
    assert entries.chosen("methods", (mine, "mine"), {"mine": record}) == {"mine": record}
    assert entries.chosen("methods", (mine,), {"mine": twin()}) == {"mine": mine}


def test_where_an_entry_came_from(tmp_path):
    for table in (METHODS, SCORES, MIXERS):
        assert all(entries.origin(entry) == {} for entry in table.values())
    file = tmp_path / "brought.py"
    file.write_text("import jax\n\n@jax.jit\ndef mine(net, image, label):\n    return image\n")
    spec = importlib.util.spec_from_file_location("brought", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert entries.origin(module.mine) == entries.origin(Method(module.mine)) == expected
    assert entries.arguments(module.mine) == ("net", "image", "label")
    scope = {"__name__": "__prompt__"}
    exec("def typed(net, image, label): return image", scope)
    assert entries.origin(scope["typed"]) == {"file": "__prompt__", "sha256": ""}


def test_titles():
    assert entries.title_of(mine) == entries.title_of(Method(mine)) == "mine"
    assert entries.title_of(METHODS["input_x_gradient"]) == "input x gradient"
    assert entries.title_of(SCORES["max_sensitivity"]) == "max sensitivity"
    assert entries.title_of(dataclasses.replace(SCORES["road"], title="R")) == "R"
