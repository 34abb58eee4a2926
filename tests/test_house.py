"""The rules of the house that a machine can check, read from the package's text: floors, circles, writers, the voice, names."""

import ast
import functools
import pathlib
import re

import pytest

import mixaug_jax
from mixaug_jax import attribution, config, data, mixing, models, scores
from mixaug_jax.config import keys

ROOT = pathlib.Path(mixaug_jax.__file__).parent
# From the ground up: an import goes down, never up.
FLOORS = ("core", "models", "data", "mixing", "attribution", "scores", "explain", "dissection",
          "occlusion", "config", "training", "draw", "stages", "papers", "study", "report")  # fmt: skip
ROOF = ("__init__", "__main__", "command", "main", "pipeline")
FILES = sorted(ROOT.rglob("*.py"))
ENTRIES = {*mixing.MIXERS, *attribution.METHODS, *scores.SCORES, *data.SOURCES, *models.MODELS}


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def name_of(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imports(path):
    """(line, module) of the package's modules that a file imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in full]
        for name in names:
            if name in MODULES and MODULES[name] != path:
                yield node.lineno, name


def floor(name):
    parts = name.split(".")
    room = parts[1] if len(parts) > 1 else "__init__"
    return len(FLOORS) if room in ROOF or parts[-1] == "__main__" else FLOORS.index(room)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    own = floor(name_of(path))
    up = [f"line {line}: {other}" for line, other in imports(path) if floor(other) > own]
    assert not up


def test_nothing_imports_the_roof():
    above = {
        name_of(path): other
        for path in FILES
        for _, other in imports(path)
        if floor(other) == len(FLOORS) and floor(name_of(path)) < len(FLOORS)
    }
    # The version stands on the ground floor, so nobody needs the package's own __init__.
    assert not above


def test_there_is_no_circle_of_files():
    graph = {name: {other for _, other in imports(path)} for name, path in MODULES.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            path.append(name)
            for other in sorted(graph[name]):
                visit(other)
            path.pop()
            done.add(name)

    for name in graph:
        visit(name)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_an_import_inside_a_function_says_what_it_saves(path):
    lines = path.read_text().splitlines()
    for function in ast.walk(tree(path)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            own = isinstance(node, ast.ImportFrom | ast.Import) and "mixaug_jax" in ast.unparse(
                node
            )
            if own:
                above = lines[node.lineno - 2].strip()
                beside = lines[node.lineno - 1].partition("#")[2]
                assert above.startswith("#") or beside or above.startswith(("import ", "from ")), (
                    f"{path}:{node.lineno} imports inside a function without a comment"
                )


def functions_of(path):
    return {
        node.name
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


@pytest.mark.parametrize("path", [p for p in FILES if p.stem[0] != "_"], ids=name_of)
def test_no_module_is_named_like_a_function_beside_it(path):
    """So that `from mixaug_jax.room import name` is never one thing for a reader and another for Python."""
    if path.parent.name == "stages" or path.stem == "main":
        return  # called as they are on the command line
    beside = set().union(*(functions_of(other) for other in path.parent.glob("*.py")))
    assert path.stem not in beside | set(mixaug_jax._PUBLIC) | ENTRIES


def test_names_of_files_are_unique():
    names = [path.stem for path in FILES if path.stem[0] != "_"]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice - {"train", "weights", "dissect", "explain", "occlude"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def calls(path):
    """(line, text of the function, call) of every call in a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


OUTSIDE_CORE = [path for path in FILES if "core" not in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("path", OUTSIDE_CORE, ids=name_of)
def test_only_the_ground_floor_prints_writes_and_locks(path):
    wrong = []
    for line, function, call in calls(path):
        last = function.rpartition(".")[2]
        modes = [a.value for a in [*call.args, *(k.value for k in call.keywords)]
                 if isinstance(a, ast.Constant) and isinstance(a.value, str)]  # fmt: skip
        if last in (
            "savez",
            "savez_compressed",
            "flock",
            "write_text",
            "write_bytes",
        ) and not function.startswith("files"):
            wrong.append((line, function))
        if function == "print" or (
            last == "open" and any(re.fullmatch("[wax]b?[+]?", m) for m in modes)
        ):
            wrong.append((line, function))
    assert not wrong


# Where the name of an entry may stand as a string outside its own room, with the reason.
NAMED = {
    "config": "recipes and defaults name what they set up",
    "papers": "a published experiment names its networks and methods",
    "command": "the next thing to try",
    "occlusion/grid.py": "rankings and replacements of its own, some of which are called like methods",
    "occlusion/removal.py": "the same",
    "draw/dissection_tables.py": "a column of the table is called random, as the control is",
    "draw/dissection_figures.py": "the same",
    "report/run/answers.py": "the same, and the occlusion experiment's words",
    "dissection/network.py": "counts of a network with random weights stand beside those of the trained one",
    "study/plan.py": "the study's own baseline",
    "data/scenes": "the scenes' own words",
    "data/markers": "the markers' own words",
    "data/animals": "the animals' own words",
    "stages/dissect.py": "label maps lie beside the scenes, whose folder is a cache",
    "draw/occlusion_tables.py": "a selection of the occlusion experiment is called random",
}
# Words that are names of entries and of other things, too: an axis of the study, a folder of results, a half of UPerNet.
SHARED = {"occlusion", "complexity", "decoder"}
OWN = ("mixing", "attribution", "scores", "data/__init__.py", "models")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_said_of_an_entry_by_name(path):
    where = path.relative_to(ROOT).as_posix()
    if where.startswith((*OWN, *NAMED)) or where.removesuffix(".py") in NAMED:
        return
    nodes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)]
    # Keyword arguments of drawing libraries ("center") are no entries.
    keywords = {
        id(k.value) for n in ast.walk(tree(path)) if isinstance(n, ast.keyword) for k in [n]
    }
    found = [
        (n.lineno, n.value) for n in nodes if n.value in ENTRIES - SHARED and id(n) not in keywords
    ]
    assert not found


OLD_WORDS = {"stage", "stages", "from_features", "of", "road", "numbers", "anomaly", "attribute"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_old_words_are_gone_from_public_arguments(path):
    if path.parent.name == "stages" or path.stem in ("pipeline", "main"):
        return  # where a stage is a step of a run
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            assert not OLD_WORDS & {argument.arg for argument in arguments}, node.name


BRITISH = re.compile(
    r"(?i)colour|centre|grey|neighbour|labelled|normalis|binaris|randomis|recognis|optimis|summaris|initialis"
)


def test_keys_speak_the_words_of_the_house():
    for key in keys.KEYS:
        assert not BRITISH.search(key)
        assert not set(key.split(".")) & (OLD_WORDS - {"stages"})


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_spelling_is_american(path):
    found = [line for line in path.read_text().splitlines() if BRITISH.search(line)]
    assert not found


def test_importing_the_settings_is_cheap_enough_to_be_plain():
    """`get_config` needs no part of training, stages or report."""
    below = {name for name in MODULES if floor(name) <= FLOORS.index("config")}
    seen, todo = set(), [config.__name__]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [other for _, other in imports(MODULES[name])]
    assert seen <= below
