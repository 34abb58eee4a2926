"""Users' own code: a file is imported again while it is what it was, or from a copy that is asked for."""

import importlib
import importlib.util
import pathlib
import sys
from types import ModuleType

from mixaug_jax.core.entries import sha256


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
    name = f"recorded_{checksum[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    advice = (
        "" if stored else '; restore it, or run the stored copy by code="stored" (--code=stored)'
    )
    if not source.is_file():
        raise ValueError(f"{source} is not there{advice}")
    if sha256(source) != checksum:
        raise ValueError(f"{source} has changed since{advice}")
    return _imported_already(source) or _run(source, name)


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


def _imported_already(path):
    """The module that this process has made of a file, under whatever name."""
    path = path.resolve()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and pathlib.Path(file).resolve() == path:
            return module
    return None


def _run(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as `import` does: dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
