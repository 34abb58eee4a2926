"""Users' own code: a file is imported again while it is what it was, or from a copy that is asked for."""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys
from types import ModuleType


def import_recorded(
    path: pathlib.Path | str, checksum: str, *, stored: pathlib.Path | None = None
) -> ModuleType:
    """The module that a recorded file makes; one and the same within a process, so that its classes stay equal.

    Args:
      path: where the file was; "" where there was none (a prompt, a notebook).
      checksum: its SHA-256 then.
      stored: a copy to run instead.

    Raises:
      ValueError: the file, or the copy, is not there or has changed.
    """
    source = pathlib.Path(stored or path)
    if str(path) in ("", ".") or not checksum:
        raise ValueError(
            "it was defined at a prompt or in a notebook, which cannot be run again; write it into a file"
        )
    # What this process has of the same file, or of a copy, needs no file any more.
    known = _imported_already(source, checksum)
    if known is not None:
        return known
    advice = '; restore it, or run the stored copy by code="stored" (--code=stored)'
    advice = "" if stored else advice
    if not source.is_file():
        raise ValueError(f"{source} is not there{advice}")
    if hashlib.sha256(source.read_bytes()).hexdigest() != checksum:
        raise ValueError(f"{source} has changed since{advice}")
    return run_file(source)


def run_file(path: pathlib.Path | str) -> ModuleType:
    """The module that a file makes when it is run, under a name of its own; it is run each time."""
    path = pathlib.Path(path).absolute()
    text = path.read_bytes()
    # Python's own cache of compiled files goes by times, not by contents, and would stand beside the file.
    program = compile(text, str(path), "exec")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    checksum = hashlib.sha256(text).hexdigest()
    module = ModuleType(name)
    module.__file__ = str(path)
    module.__spec__ = importlib.machinery.ModuleSpec(
        name, None, origin=str(path), loader_state=checksum
    )
    # Known before it runs, as by `import`: dataclasses look their module up.
    before, sys.modules[name] = sys.modules.get(name), module
    try:
        exec(program, module.__dict__)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def installed(name: str) -> ModuleType | None:
    """The module of an installed package, by its full name; None where it belongs to none (a script, a folder of one's own)."""
    if name == "__main__":
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent that is not there
        return None
    ours = name.partition(".")[0] == __name__.partition(".")[0]
    if spec is None or not (ours or _is_package_file(spec.origin)):
        return None
    return importlib.import_module(name)


def _is_package_file(origin):
    return bool({"site-packages", "dist-packages"} & set(pathlib.Path(origin or "").parts))


def _imported_already(path, checksum):
    """The module that this process has made of a file or of a copy of it, under whatever name."""
    path = path.resolve()
    for module in list(sys.modules.values()):
        state = getattr(getattr(module, "__spec__", None), "loader_state", None)
        file = getattr(module, "__file__", None)
        if isinstance(state, str):  # what `run_file` noted
            if state == checksum:
                return module
        elif isinstance(file, str) and pathlib.Path(file).resolve() == path and path.is_file():
            same = hashlib.sha256(path.read_bytes()).hexdigest() == checksum
            return module if same else None
    return None
