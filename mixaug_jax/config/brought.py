"""Entries that a user brings: which files they came from, a copy of each, and how a fresh process finds them again.

A run notes the files in `resolved.code` of its settings and keeps copies in `<workdir>/code`. Another process takes an entry
from the file's own place where that has the same checksum; a copy is run only where that is asked for.
"""

import importlib
import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from mixaug_jax import attribution, data, mixing, models, scores
from mixaug_jax.core import checks, entries, files
from mixaug_jax.core import code as code_lib
from mixaug_jax.core.code import run_file

_NETWORK = {"MIXERS", "MODELS", "SOURCES"}  # dicts whose entries decide what is trained
CODES = ("recorded", "stored")  # the file where it was, or the run's own copy of it


def tables() -> dict[str, dict[str, Callable]]:
    """The dicts that entries may be added to, by their names."""
    return {
        "MIXERS": mixing.MIXERS,
        "MODELS": models.MODELS,
        "SOURCES": data.SOURCES,
        "METHODS": attribution.METHODS,
        "SCORES": scores.SCORES,
    }


def used(config: ml_collections.ConfigDict) -> list[tuple[str, str]]:
    """(table, name) of every entry that a config names and that is in its dict."""
    named = [
        ("MIXERS", config.mix.name),
        ("MODELS", config.model.name),
        ("SOURCES", config.data.name),
    ]
    named += [("METHODS", name) for name in config.explain.methods]
    named += [("SCORES", name) for name in config.explain.scores]
    known = tables()
    return [(table, name) for table, name in named if name in known[table]]


def recorded(config: ml_collections.ConfigDict) -> dict[str, dict]:
    """{file: {"sha256", "module", "entries": {table: {name: name of the function}}}} of entries from outside the package."""
    found: dict[str, dict] = {}
    for table, name in used(config):
        entry = tables()[table][name]
        origin = entries.origin(entry)
        if origin:
            module = entries.function_of(entry).__module__
            note = {"sha256": origin["sha256"], "module": module, "entries": {}}
            note = found.setdefault(origin["file"], note)
            note["entries"].setdefault(table, {})[name] = entries.name_of(entry)
    return found


def noted(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A resolved config with `resolved.code`, what `recorded` says as JSON text; "" where all entries are the package's."""
    found = recorded(config)
    with config.unlocked():
        config.resolved.code = json.dumps(found) if found else ""
    return config


def read(config: ml_collections.ConfigDict) -> dict[str, dict]:
    """What `noted` wrote into a config; {} where there is nothing."""
    return json.loads(config.get("resolved", {}).get("code", "") or "{}")


def changed(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> list[str]:
    """Files that decide the network, of which two configs have noted different contents."""
    before, after = ({f: n["sha256"] for f, n in read(c).items() if _NETWORK & n["entries"].keys()}
                     for c in (old, new))  # fmt: skip
    return [file for file in before if file in after and before[file] != after[file]]


def copy_to(found: Mapping[str, Mapping], workdir: pathlib.Path | str) -> None:
    """Keeps a copy of every recorded file in `<workdir>/code`."""
    for file, note in found.items():
        if note["sha256"]:  # an entry typed at a prompt has no file
            copy = copy_of(file, note["sha256"], workdir)
            files.write_bytes(copy, pathlib.Path(file).read_bytes())


def copy_of(file: str, checksum: str, workdir: pathlib.Path | str) -> pathlib.Path:
    """Where a run keeps its copy of a recorded file, whatever the file was called when it was copied."""
    folder, head = pathlib.Path(workdir) / "code", f"{checksum[:8]}_"
    return next(folder.glob(f"{head}*"), folder / f"{head}{pathlib.Path(file).name}")


def bring(
    found: Mapping[str, Mapping], workdir: pathlib.Path | str, code: str = "recorded"
) -> None:
    """Makes recorded entries known again, where they are not.

    Args:
      found: from `recorded`.
      workdir: whose copies may be run.
      code: "recorded" imports a file from its own place if it is still the same; "stored" runs the run's copy.

    Raises:
      ValueError: a file that is gone or has changed; it says what it brought and how its copy is run.
    """
    checks.choice("code", code, CODES)
    for file, note in found.items():
        names = {(t, n): f for t, some in note["entries"].items() for n, f in some.items()}
        missing = {(t, n): f for (t, n), f in names.items() if n not in tables()[t]}
        if not note["entries"] and code == "stored":
            # It defines a network that was saved, whose class is looked for when that is loaded.
            stored = copy_of(file, note["sha256"], workdir)
            code_lib.import_recorded(file, note["sha256"], stored=stored)
        if not missing:
            continue
        module = _module(file, note, workdir, code, ", ".join(n for _, n in missing))
        # The file may have added its entries to the dicts itself, as records.
        for (table, name), function in missing.items():
            if name not in tables()[table]:
                tables()[table][name] = getattr(module, function)


def _module(file, note, workdir, code, names):
    """The module of a recorded file, from where it was or from the copy."""
    path = pathlib.Path(file) if code == "recorded" else copy_of(file, note["sha256"], workdir)
    if not note["sha256"] or not path.is_file():
        raise ValueError(
            f"{names} came from {file}, which is not there; add the entry again before this call, or run the copy "
            f'in {pathlib.Path(workdir) / "code"} by code="stored" (--code=stored)'
        )
    if entries.sha256(path) != note["sha256"]:
        raise ValueError(
            f"{names} came from {file}, which has changed since; restore it, or run the copy in "
            f'{pathlib.Path(workdir) / "code"} by code="stored" (--code=stored)'
        )
    return _installed(note["module"], path) or run_file(path)


def _installed(name, path) -> Any:
    """The module of an installed package that this file is, or None."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent package that is not there; "__main__"
        return None
    same = (
        spec is not None and spec.origin and pathlib.Path(spec.origin).resolve() == path.resolve()
    )
    # By its name, not by its path, or the classes of a package would exist twice.
    return importlib.import_module(name) if same else None
