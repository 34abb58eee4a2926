"""From what a user types to settings: `cutmix`, `cutmix:folder`, `configs/cutmix.py:folder`, `mine.py`."""

import difflib
import inspect
import pathlib
from collections.abc import Sequence

import ml_collections

from mixaug_jax.config import keys
from mixaug_jax.core import code

_PACKAGE = pathlib.Path(__file__).parents[1]
# Beside the package in a clone; inside it where it was installed.
SHIPPED = (_PACKAGE.parent / "configs", _PACKAGE / "configs")


def shipped() -> dict[str, pathlib.Path]:
    """{name: file} of the configs that come with the package."""
    found = (sorted(folder.glob("*.py")) for folder in SHIPPED if folder.is_dir())
    return {path.stem: path for path in next(found, ()) if path.stem != "__init__"}


def find(name: str) -> pathlib.Path:
    """The file of a config that is named by its path, or by the name of one that comes with the package.

    Raises:
      ValueError: neither; it names the nearest and says which there are.
    """
    path, known = pathlib.Path(name).expanduser(), shipped()
    if path.is_file():
        return path
    stem = path.stem if path.parent.name in ("", "configs") else ""
    if stem in known:
        return known[stem]
    beside = sorted(p.stem for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.stem, [*known, *beside], 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(
        f"there is no config {name}{hint}; those that come with the package are {', '.join(known)}"
    )


def open_config(source: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The settings of a config file, which is run, so that it may bring entries of its own.

    Args:
      source: "NAME[:DATA]" or "FILE.py[:DATA]".
      overrides: "key=value", see `keys.assign`.

    Raises:
      ValueError: no such file, one that is no config, an unknown key, a value that is not allowed.
    """
    name, colon, data = source.partition(":")
    path = find(name)
    try:
        module = code.run_file(path)
    except SyntaxError as error:
        raise ValueError(f"{path} is no Python: {error.msg} in line {error.lineno}") from error
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} is no config: it has no function get_config")
    if colon and not inspect.signature(module.get_config).parameters:
        raise ValueError(f"{path} takes no data set: write --config={name}")
    config = module.get_config(data) if colon else module.get_config()
    return with_overrides(config, overrides)


def with_overrides(
    config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
    """The config with "key=value" texts assigned, locked.

    Raises:
      ValueError: a text without a value, an unknown key, a value that is not allowed.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            known = keys.flatten(config.to_dict())
            said = f"{key} has no value; write --config.{key}=VALUE"
            raise ValueError(said if key in known else keys.unknown(key, known))
        keys.assign(config, key, value)
    return config.lock()


def name_of(source: str) -> str:
    """What a config is called: the stem of its file."""
    return pathlib.Path(source.partition(":")[0]).stem
