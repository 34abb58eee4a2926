"""The rules of the house that a machine can check, read from the package's text: floors, circles, writers, the voice, names."""

import ast
import functools
import pathlib
import re

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


@functools.cache
def nodes(path):
    """Every node of a file, walked once for all tests."""
    return list(ast.walk(tree(path)))


def faults(find, paths=None):
    """{module: what `find` says of its file}, of the files of which it says anything."""
    return {name_of(path): wrong for path in paths or FILES if (wrong := find(path))}


def name_of(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imports(path):
    """(line, module) of the package's modules that a file imports, anywhere in it."""
    for node in nodes(path):
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


def test_imports_go_down():
    def up(path):
        own = floor(name_of(path))
        return [f"line {line}: {other}" for line, other in imports(path) if floor(other) > own]

    assert not faults(up)


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


def test_an_import_inside_a_function_says_what_it_saves():
    def silent(path):
        lines = path.read_text().splitlines()
        for function in nodes(path):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.ImportFrom | ast.Import):
                    continue
                above = lines[node.lineno - 2].strip()
                beside = lines[node.lineno - 1].partition("#")[2]
                said = beside or above.startswith(("#", "import ", "from "))
                if "mixaug_jax" in ast.unparse(node) and not said:
                    yield f"line {node.lineno} imports without a comment"

    assert not faults(lambda path: list(silent(path)))


def functions_of(path):
    return {
        node.name
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def test_no_module_is_named_like_a_function_beside_it():
    """So that `from mixaug_jax.room import name` is never one thing for a reader and another for Python."""
    everywhere = set(mixaug_jax._PUBLIC) | ENTRIES
    beside = {path.parent: set(everywhere) for path in FILES}
    for path in FILES:
        beside[path.parent] |= functions_of(path)

    def twice(path):
        if path.parent.name == "stages" or path.stem == "main":
            return ""  # called as they are on the command line
        return path.stem in beside[path.parent] and path.stem

    assert not faults(twice, [path for path in FILES if path.stem[0] != "_"])


def test_names_of_files_are_unique():
    names = [path.stem for path in FILES if path.stem[0] != "_"]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice - {"train", "weights", "dissect", "explain", "occlude", "maps"}


def test_files_are_short():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length > 400}


def calls(path):
    """(line, text of the function, call) of every call in a file."""
    for node in nodes(path):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


OUTSIDE_CORE = [path for path in FILES if "core" not in path.relative_to(ROOT).parts]


def test_only_the_ground_floor_prints_writes_and_locks():
    assert not faults(printed_written_or_locked, OUTSIDE_CORE)


def printed_written_or_locked(path):
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
    return wrong


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


def test_nothing_is_said_of_an_entry_by_name():
    assert not faults(names_of_entries)


def names_of_entries(path):
    where = path.relative_to(ROOT).as_posix()
    if where.startswith((*OWN, *NAMED)) or where.removesuffix(".py") in NAMED:
        return []
    # Keyword arguments of drawing libraries ("center") are no entries.
    keywords = {id(node.value) for node in nodes(path) if isinstance(node, ast.keyword)}
    return [
        (node.lineno, node.value)
        for node in nodes(path)
        if isinstance(node, ast.Constant)
        and node.value in ENTRIES - SHARED
        and id(node) not in keywords
    ]


OLD_WORDS = {"stage", "stages", "from_features", "of", "road", "numbers", "anomaly", "attribute"}


def test_old_words_are_gone_from_public_arguments():
    def old(path):
        if path.parent.name == "stages" or path.stem in ("pipeline", "main"):
            return  # where a stage is a step of a run
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                if OLD_WORDS & {argument.arg for argument in arguments}:
                    yield node.name

    assert not faults(lambda path: list(old(path)))


BRITISH = re.compile(
    r"(?i)colour|centre|grey|neighbour|labelled|normalis|binaris|randomis|recognis|optimis|summaris|initialis"
)


def test_keys_speak_the_words_of_the_house():
    for key in keys.KEYS:
        assert not BRITISH.search(key)
        assert not set(key.split(".")) & (OLD_WORDS - {"stages"})


def test_spelling_is_american():
    def british(path):
        return [line for line in path.read_text().splitlines() if BRITISH.search(line)]

    assert not faults(british)


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
