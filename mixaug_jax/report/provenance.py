"""How a result was made: the command, the settings and the versions, as a section of a page."""

import contextlib
import os
import pathlib
import shlex
from collections.abc import Iterable
from typing import Any

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax.config import brought, keys, opening
from mixaug_jax.core import files
from mixaug_jax.draw import page


def command(
    config: ml_collections.ConfigDict, workdir: os.PathLike | str, asked: dict | None = None
) -> str:
    """The command line that makes a run again.

    Args:
      config: its settings.
      workdir: where it went.
      asked: settings by key, "dissect.q", of later stages that were run with others than config's.
    """
    flags = [f"--config={_source(config)}", f"--workdir={workdir}"]
    changed = {key: value for key, value, _ in differences(config)} | (asked or {})
    flags += [f"--config.{key}={value}" for key, value in changed.items()]
    return shell("python -m mixaug_jax.main", flags)


def shell(program: str, flags: Iterable[str]) -> str:
    """A command for a shell, one flag a line."""
    return " \\\n    ".join([program, *map(shlex.quote, flags)])


def differences(config: ml_collections.ConfigDict) -> list[tuple]:
    """(key, value, default) of every setting of consequence that its method's config file does not have so."""
    default = config_lib.flatten(_recipe(config)[1].to_dict())
    own = config_lib.flatten(config.to_dict())
    return [
        (key, value, default.get(key, ""))
        for key, value in own.items()
        if keys.decides(key) != keys.MACHINE and (key not in default or value != default[key])
    ]


def together(configs: dict) -> list[tuple[str, str]]:
    """(setting, value) of many configs by name, the seed left out; where they differ, "name: value; name: value"."""
    flat = {name: config_lib.flatten(config.to_dict()) for name, config in configs.items()}
    rows = []
    for key in dict.fromkeys(key for one in flat.values() for key in one if key != "seed"):
        values = {name: plain(one[key]) for name, one in flat.items() if key in one}
        same = len(values) == len(flat) and len(set(values.values())) == 1
        text = "; ".join(f"{name}: {value}" for name, value in values.items())
        rows.append((key, next(iter(values.values())) if same else text))
    return rows


def section(
    folder: pathlib.Path,
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    asked: dict | None = None,
) -> str:
    """Command, changed settings, all settings and versions of a run."""
    changed = differences(config)
    # Against the config that the run was made from: what a reader has to type, and no more.
    name = _recipe(config)[0]
    parts = [page.heading("Command"), page.code(command(config, workdir, asked))]
    parts.append(page.heading("Settings"))
    if changed:
        rows = [(key, plain(value), plain(default)) for key, value, default in changed]
        caption = f"Settings that differ from {name}."
        header = ("setting", "value", "default")
        parts.append(page.table(folder, page.Table("settings_changed", caption, header, rows)))
    else:
        parts.append(page.paragraph(f"Every setting is as {name} has it."))
    rows = [(key, plain(value)) for key, value in config_lib.flatten(config.to_dict()).items()]
    settings = page.Table("settings", "All settings.", ("setting", "value"), rows)
    parts.append(page.folded("All settings", page.table(folder, settings), long=True))
    parts += versions(workdir)
    return page.section("settings", "How it was made", *parts)


def versions(workdir: pathlib.Path) -> list[str]:
    """The packages, as one paragraph."""
    path = workdir / "versions.json"
    if not path.exists():
        return [
            page.missing("The versions of the packages are not known: there is no versions.json.")
        ]
    found = files.read_json(path)
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    return [page.heading("Versions"), page.paragraph(text)]


def _method(config) -> str:
    """The recipe that a run's settings start from; mixers that were brought have none."""
    mine = {
        name for note in brought.read(config).values() for name in note["entries"].get("MIXERS", {})
    }
    return "baseline" if config.mix.name in {"none", *mine} else config.mix.name


def _source(config) -> str:
    """What --config says: the file that brings what no recipe has, or a config of the package."""
    for file, note in brought.read(config).items():
        if note["entries"].keys() & {"MIXERS", "SOURCES"}:
            return file
    return _recipe(config)[0]


def _recipe(config) -> tuple[str, ml_collections.ConfigDict]:
    """The config of the package that a run's settings start from, as --config names it, and what it says."""
    method, data = _method(config), config.data.name
    plain_recipe = config_lib.get_config(method, data)
    own = [f"settings.{head} = " for head in config if head not in plain_recipe]
    if own:  # sections of a paper, which come with a config of its own
        for path in opening.shipped().values():
            text = path.read_text(encoding="utf-8")
            for argument in (data, method) if all(line in text for line in own) else ():
                source = f"configs/{path.name}:{argument}"
                with contextlib.suppress(ValueError):
                    found = opening.open_config(source)
                    if (found.data.name, found.mix.name) == (data, config.mix.name):
                        return source, found
    return f"configs/{method}.py:{data}", plain_recipe


def plain(value: Any) -> str:
    return repr(value) if value == "" else str(value)
