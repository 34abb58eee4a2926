"""What a study consists of: its runs, the command of each, and `study.json`, which says what was asked."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.config import brought, keys, opening
from mixaug_jax.core import files, say
from mixaug_jax.study import sweeps

UNMIXED = "-label_majority"  # added to the name of a run whose images are mixed and labels are not
BASELINE = sweeps.BASELINE
COMPILED = "compiled"  # the folder of programs that runs share

_LOCK = "lock"  # held while runs are added
SHOWN = "shown_classes.npz"  # what test images show besides their class
_OWN_FOLDERS = (COMPILED, "configs", "cross_model_deletion", _LOCK, "report", SHOWN, "tables")


@dataclasses.dataclass(frozen=True)
class Run:
    """One network: an augmentation and a seed.

    Attributes:
      name: of the augmentation: the config file's stem.
      seed: of the training.
      workdir: its working directory, absolute.
      config: its settings.
      flags: what makes it, after `python -m mixaug_jax.main`.
      swept: what a sweep sets, {key: value}, and "of", the config's name; {} without a sweep.
    """

    name: str
    seed: int
    workdir: pathlib.Path
    config: ml_collections.ConfigDict
    flags: tuple[str, ...]
    swept: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """ "cutmix seed 0"."""
        return f"{self.name} seed {self.seed}"

    @property
    def command(self) -> str:
        """For a shell."""
        return shlex.join(("python", "-m", "mixaug_jax.main", *self.flags))


def make_plan(
    configs: Any,
    seeds: Sequence[int],
    workdir: os.PathLike | str,
    overrides: Sequence[str] = (),
    *,
    unmixed_labels: bool = False,
    sweep: Sequence[str] = (),
) -> tuple[Run, ...]:
    """All runs of a study, settings checked; writes nothing.

    Args:
      configs: config files, each "FILE.py" or "FILE.py:DATA", or ConfigDicts (called by their method), or {name: either};
        "mixers" or "mixers:DATA" stands for the baseline and every entry of MIXERS that has a config of its name. The one
        called "baseline", or else the first, is what the others are compared with.
      seeds: of the trainings. Imported weights (config.weights) have one seed only.
      workdir: the study's folder.
      overrides: "key=value" for every config, typed by the config's own key. A key that only some configs have, as an option of
        one method (mix.alpha), goes to those; a key that none of them has is an error.
      unmixed_labels: add, for each config that mixes labels, one `<config>-label_majority` with mix.label=majority: the same
        mixed images, each with the one label of which it shows more.
      sweep: "key=value,value" makes each value a named augmentation of every config that has the key; see `sweeps.variants`.

    Returns:
      Every augmentation with the first seed, then every one with the next: a study cut short can still be read.

    Raises:
      ValueError: no config or seed, the same one twice, an unknown key, a value of another type, settings that cannot work.
    """
    sources = _named(configs)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"seeds must be one or more whole numbers, each once, not {list(seeds)}")
    given = _split(_plain(overrides))
    plain = {name: load(source, ()) for name, source in sources.items()}
    known = {key for config in plain.values() for key in config_lib.flatten(config.to_dict())}
    for key in given:
        if not any(_has(config, key) for config in plain.values()):
            raise ValueError(f"no config of this study has it: {keys.unknown(key, sorted(known))}")
    variants = {v.name: v for v in sweeps.variants(plain, sweeps.parse(sweep))}
    sources = {name: sources[v.base] for name, v in variants.items()}
    plain = {name: plain[v.base] for name, v in variants.items()}
    changes = {
        name: [f"{key}={value}" for key, value in given.items() if _has(config, key)]
        + [f"{key}={value}" for key, value in variants[name].values.items()]
        for name, config in plain.items()
    }
    if unmixed_labels:
        twins = [n for n, config in plain.items() if config.mix.get("label", "") == "mixed"]
        changes |= {name + UNMIXED: [*changes[name], "mix.label=majority"] for name in twins}
        sources |= {name + UNMIXED: sources[name] for name in twins}
        variants |= {name + UNMIXED: variants[name] for name in twins}
    folder = pathlib.Path(workdir).expanduser().absolute()
    # Stable: the rest as they came.
    names = sorted(changes, key=lambda name: variants[name].base != BASELINE)
    runs = [
        dataclasses.replace(
            _run(n, sources[n], seed, folder, changes[n]), swept=_swept(variants[n])
        )
        for seed in seeds
        for n in names
    ]
    _check_weights(runs)
    return tuple(runs)


def _swept(variant) -> dict[str, str]:
    return {"of": variant.base, **variant.values} if variant.values else {}


def _named(configs) -> dict:
    if isinstance(configs, str | ml_collections.ConfigDict):
        raise ValueError("configs must be a list of config files or ConfigDicts, or a dict of them")
    pairs = (
        configs.items()
        if isinstance(configs, Mapping)
        else [(_name(c), c) for c in sweeps.each(configs)]
    )
    named = dict(pairs)
    if not named:
        raise ValueError("a study needs one config or more, e.g. --configs=configs/baseline.py")
    if len(named) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two configs are called {twice} and would share a folder; rename one")
    for name in named:
        # A leading dot would hide the folder, and a leading hyphen makes it look like a flag.
        allowed = re.fullmatch(r"[^\W_][\w.+-]*", name)
        if not allowed or name in _OWN_FOLDERS or name.endswith(UNMIXED):
            raise ValueError(
                f"a config cannot be called {name!r}: it names a folder, by letters, digits, '_', '-', begins with "
                f"a letter or digit, and is none of {', '.join(_OWN_FOLDERS)}, *{UNMIXED}"
            )
    return named


def _name(source) -> str:
    if isinstance(source, ml_collections.ConfigDict):
        return BASELINE if source.mix.name == "none" else source.mix.name
    return opening.name_of(str(source))


def _split(overrides) -> dict[str, str]:
    given = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text} has no value; write --config.{key}=VALUE")
        if key in ("seed", "mix.name"):
            use = "--seeds" if key == "seed" else "other files in --configs"
            raise ValueError(f"--config.{key} would make all runs the same; use {use}")
        given[key] = value
    return given


def _has(config, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, ml_collections.ConfigDict) or part not in config:
            return False
        config = config[part]
    return True


def load(source: Any, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """A config file's settings, or a copy of a ConfigDict, with overrides "key=value"; see `config.opening`.

    Raises:
      ValueError: a file that cannot be read, an unknown key, a text that is no value of a key, a value that is not allowed.
    """
    if isinstance(source, ml_collections.ConfigDict):
        return opening.with_overrides(source.copy_and_resolve_references(), overrides)
    return opening.open_config(str(source), overrides)


def _run(name, source, seed, folder, changes) -> Run:
    changes = [*changes, f"seed={seed}"]
    config = data.settled(load(source, changes))
    if "released" in config:
        raise ValueError(f"{name} is a comparison by itself; start it with mixaug_jax.main")
    try:
        config_lib.check(config)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    workdir = folder / name / str(seed)
    if isinstance(source, ml_collections.ConfigDict):  # see `write_asked`
        source, changes = folder / "configs" / f"{name}.py", [f"seed={seed}"]
    flags = [f"--config={source}", *(f"--config.{text}" for text in changes)]
    return Run(name, seed, workdir, config, (*flags, f"--workdir={workdir}", "--stage=all"))


def _check_weights(runs):
    imported = {}
    for run in runs:
        if not run.config.weights:
            continue
        if any(r.name == run.name and r.seed != run.seed for r in runs):
            raise ValueError(
                f"{run.name} imports its weights, which are the same for every seed; name one seed"
            )
        # One network under two names would be compared with itself.
        first = imported.setdefault(run.config.weights, run.name)
        if first != run.name:
            raise ValueError(
                f"{first} and {run.name} import the same weights, {run.config.weights}; write a config file for each network "
                "that sets config.weights"
            )


def settings(config: ml_collections.ConfigDict) -> dict:
    """What decides a run's results, but for the seed, as {key: value}; values as JSON has them."""
    return {
        key: value
        for key, value in config_lib.flatten(json.loads(config_lib.to_json(config))).items()
        if keys.decides(key) not in (keys.NOTHING, keys.MACHINE)
        and key != "seed"
        # Scenes and animals are rendered, so where they are cached decides nothing.
        and not (key == "data.dir" and config.data.name in ("scenes", "animals"))
    }


def trained_by(all_settings: dict) -> dict:
    """Those of `settings` that decide the network: what later stages are asked is left out."""
    return {k: v for k, v in all_settings.items() if keys.decides(k) in keys.TRAINING}


def differences(old: dict, new: dict) -> str:
    """Where settings differ, as "key: old -> new; ..."; "" where they do not."""
    # A merged dict, unlike a set, keeps the order of keys in the message.
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in changed)


def read_asked(workdir: os.PathLike | str) -> dict:
    """`study.json` of a study's folder: {"configs": {name: settings}, "seeds": [...], "overrides": [...], "commands":
    {"name/seed": command}}, and {"swept": {name: {key: value, "of": config}}} where there is a sweep; {} without the file.

    Raises:
      DamagedError: it is not as it was written.
    """
    path = pathlib.Path(workdir) / "study.json"
    found = files.read_json(path) if path.exists() else {}
    if found and set(found) - {"swept"} != {"configs", "seeds", "overrides", "commands"}:
        raise files.DamagedError(
            f"{path} is damaged: it is no list of runs; the study's own command writes it again"
        )
    return found


def write_asked(runs: Sequence[Run], workdir: os.PathLike | str, overrides: Sequence[str]) -> None:
    """Adds runs to `study.json`, and writes the config files of those that were given as ConfigDicts.

    A study may grow by augmentations and seeds, and its networks may be evaluated anew by other settings. What decides the
    networks stays.

    Raises:
      ValueError: a run, or the folder, of other settings; says which.
    """
    with _locked(pathlib.Path(workdir).expanduser()) as folder:
        try:
            asked = read_asked(folder)
        except files.DamagedError as error:
            say.warning(f"{error}; it is written anew, for the runs of this command alone")
            asked = {}
        asked = asked or {"configs": {}, "seeds": [], "overrides": [], "commands": {}}
        _add(asked, runs, workdir, _plain(overrides))
        for run in runs:
            _write_config(run, folder)
        files.write_json(folder / "study.json", asked)
        files.seal(folder, ("study.json",))


@contextlib.contextmanager
def _locked(folder: pathlib.Path):
    """The folder, while no other process adds runs to it: shares of a study may begin together."""
    with files.lock(folder / _LOCK):
        yield folder


def _plain(overrides) -> list[str]:
    return [text.removeprefix("--config.") for text in overrides]


def _add(asked, runs, workdir, overrides):
    _check_overrides(asked, overrides, workdir)
    for run in runs:
        new = settings(run.config)
        known = asked["configs"].get(run.name, new)
        _refuse(f"{workdir} is a study in which {run.name} has", trained_by(known), trained_by(new))
        # study.json may have been deleted; what the run was trained with has the last word.
        if (run.workdir / "config.json").exists():
            stored = settings(config_lib.read(run.workdir))
            there = trained_by(stored) | {"seed": config_lib.read(run.workdir).seed}
            _refuse(f"{run.workdir} has", there, trained_by(new) | {"seed": run.seed})
        asked["configs"][run.name] = new
        asked["commands"][f"{run.name}/{run.seed}"] = run.command
        if run.swept:
            asked.setdefault("swept", {})[run.name] = dict(run.swept)
    asked["seeds"] = sorted({*asked["seeds"], *(run.seed for run in runs)})
    asked["overrides"] = overrides


def flags_of(asked: dict, workdir: os.PathLike | str) -> list[str]:
    """What makes the study that `read_asked` read, after `python -m mixaug_jax.study`; [] where configs are not called as their
    files, so that no single command does."""
    sources = {}
    for run, line in asked["commands"].items():
        flag = next(word for word in shlex.split(line) if word.startswith("--config="))
        sources[run.rpartition("/")[0]] = flag.removeprefix("--config=")
    # Arms that a flag adds, and values of a sweep, come back from the flag, not by name.
    plain = {name: source for name, source in sources.items() if not name.endswith(UNMIXED)}
    swept = {name: values for name, values in asked.get("swept", {}).items() if name in plain}
    bases = {swept.get(name, {}).get("of", name): source for name, source in plain.items()}
    if any(_name(source) != name for name, source in bases.items()):
        return []
    return [
        f"--configs={','.join(bases.values())}",
        f"--seeds={','.join(map(str, asked['seeds']))}",
        f"--workdir={workdir}",
        *(["--unmixed_labels"] if len(plain) < len(sources) else []),
        *(f"--config.{text}" for text in _plain(asked["overrides"])),
        *(f"--sweep.{key}={','.join(values)}" for key, values in swept_values(asked).items()),
    ]


def swept_values(asked: dict) -> dict[str, list[str]]:
    """{key: values} that a study sweeps, of what `read_asked` read; {} without a sweep."""
    found: dict[str, list[str]] = {}
    for values in asked.get("swept", {}).values():
        for key, value in values.items():
            if key != "of" and value not in found.setdefault(key, []):
                found[key].append(value)
    return found


def _check_overrides(asked, overrides, workdir):
    """Overrides of networks that are in the folder already hold for those that come."""
    # Whether data.dir matters depends on the data set; see `settings`.
    old, new = (
        {k: v for k, v in trained_by(_split(_plain(texts))).items() if k != "data.dir"}
        for texts in (asked["overrides"], overrides)
    )
    if asked["configs"]:
        _refuse(f"{workdir} is a study with", old, new)


def _refuse(what: str, old: dict, new: dict):
    changed = differences(old, new)
    if changed:
        raise ValueError(
            f"{what} other settings ({changed}); use another --workdir, or these again"
        )


_FILE = '''"""Settings that a program gave; they are in {name}.json, and may be read there."""

import pathlib

from mixaug_jax import config
from mixaug_jax.config import brought

ENTRIES = {entries!r}  # that the program brought: files and what is in them


def get_config(_=""):
    brought.bring(ENTRIES, pathlib.Path(__file__).parent)
    return config.from_json(pathlib.Path(__file__).with_suffix(".json").read_text())
'''


def _write_config(run: Run, folder: pathlib.Path):
    path = folder / "configs" / f"{run.name}.py"
    if f"--config={path.absolute()}" in run.flags:
        files.write_text(path.with_suffix(".json"), config_lib.to_json(run.config))
        files.write_text(path, _FILE.format(name=run.name, entries=brought.recorded(run.config)))
