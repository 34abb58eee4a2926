"""What the words of a command line mean: flags, help, and which function of the package they ask for."""

import argparse
import contextlib
import pathlib
import shlex
import shutil
import time
from collections.abc import Sequence

from mixaug_jax.config import brought, keys, opening
from mixaug_jax.core import checks, entries, files, say

EXIT = {FloatingPointError: 3, MemoryError: 4, OSError: 4, ValueError: 2}
_ENTRIES = {"mixers": "MIXERS", "methods": "METHODS", "scores": "SCORES", "models": "MODELS", "data": "SOURCES"}  # fmt: skip
_CACHES = ("compiled", "dissection/cache", "dissection/*/cache")  # made again when needed


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are sentences like all others."""

    def error(self, message):
        raise ValueError(f"{message}; -h lists the flags, stages and keys")


def read(argv: Sequence[str]) -> argparse.Namespace:
    """The flags of a command line, with `overrides`, the texts of --config.KEY=VALUE.

    Raises:
      ValueError: an unknown flag, a value that a flag cannot have, words that belong to no flag.
    """
    overrides = [text for text in argv if text.startswith(("--config.", "-config."))]
    asked, rest = _parser().parse_known_args([text for text in argv if text not in overrides])
    if rest:
        raise ValueError(f"{rest[0]} is no flag; -h lists the flags, stages and keys")
    asked.overrides = [text.lstrip("-").removeprefix("config.") for text in overrides]
    return asked


def _parser():
    # No abbreviations: --config.train.epochs and its like are read elsewhere, and `--c` might be the start of either.
    parser = _Parser(prog="mixaug", add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("clean", nargs="*", help="clean WORKDIR frees the caches of a working directory")
    add("-h", "--help", nargs="?", const="all", metavar="TOPIC",
        help="this; with a topic: mixers, methods, scores, models, data, or a section of the settings")  # fmt: skip
    add(
        "--config",
        default="",
        metavar="NAME[:DATA]",
        help="a config that comes with the package, or FILE.py[:DATA]",
    )
    add("--config.KEY", metavar="VALUE", help="sets one of the settings below")
    add("--workdir", default="", help="folder of the run; default runs/<config>-<data>")
    add("--stage", default="all", help="what to do: all, or one of the stages below")
    add(
        "--checkpoint",
        default="latest",
        help="what later stages read: latest, best, all, or a step's number",
    )
    add(
        "--code",
        default="recorded",
        choices=brought.CODES,
        help="entries that were brought to a run come from their own file, or from the run's copy, which is then run",
    )
    add(
        "--verbosity",
        type=int,
        default=0,
        choices=(-1, 0, 1),
        help="-1 results and errors, 1 everything",
    )
    add("--multihost", action="store_true", help="join the processes of one job first")
    add(
        "--heartbeat_s",
        type=int,
        default=100,
        help="after so long without a sign a process is dead",
    )
    add("--wait_s", type=int, default=300, help="how long to wait for all processes of a job")
    add(
        "--check",
        action="store_true",
        help="say all that can be said before the first step, and stop",
    )
    return parser


def exit_code(error: BaseException) -> int:
    """What the process ends with for an error; 1 for one that nobody expects."""
    for kind, code in EXIT.items():
        if isinstance(error, kind):
            return code
    # Imported only here: whoever asks for help, or mistypes a flag, does not wait for it.
    from mixaug_jax import training
    from mixaug_jax.core import processes

    return processes.STOPPED if isinstance(error, training.Interrupted) else 1


def run(asked: argparse.Namespace) -> int:
    """Does what the flags ask for; returns the exit code.

    Raises:
      ValueError, OSError, MemoryError, FloatingPointError, training.Interrupted: see `pipeline.run`.
    """
    if asked.help:
        say.result(help_text(asked.help))
        return 0
    if asked.clean:
        return _clean(asked.clean)
    if not asked.config:
        raise ValueError(
            "--config=NAME[:DATA] is needed, e.g. --config=cutmix; -h lists what there is"
        )
    config = opening.open_config(asked.config, asked.overrides)
    workdir = asked.workdir or f"runs/{opening.name_of(asked.config)}-{config.data.name}"
    # Imported after the flags and settings have been read: what is wrong with them is said at once.
    from mixaug_jax import pipeline
    from mixaug_jax.core import processes

    if asked.multihost:
        processes.join(heartbeat=asked.heartbeat_s, wait=asked.wait_s)
    if asked.check:
        pipeline.check(config, workdir, asked.stage)
        return 0
    began = time.monotonic()
    with processes.one_fate(exit_code, asked.heartbeat_s):
        pipeline.run(config, workdir, asked.stage, checkpoint=asked.checkpoint, code=asked.code)
    say.line(f"done in {say.duration(time.monotonic() - began)}")
    if asked.stage == "all" and not config.stages:
        other = "" if config.weights else ", or compare with another augmentation:"
        say.line(f"next: open {workdir}/report/report.html{other}")
        if other:
            say.line(f"  {_next(asked, config)}")
    return 0


def _next(asked, config):
    """The command that trains another augmentation in the same way."""
    name, colon, data = asked.config.partition(":")
    other = "cutmix" if config.mix.name == "none" else "baseline"
    changes = [text for text in asked.overrides if not text.startswith("mix.")]
    beside = pathlib.Path(name).with_name(f"{other}.py")
    if name in opening.shipped():
        config_flag = f"{other}{colon}{data}"
    elif opening.name_of(name) in opening.shipped() and beside.exists():
        config_flag = f"{beside}{colon}{data}"
    else:
        # A file of the user's own, which may bring its own data: all but the mixing stays.
        config_flag = asked.config
        changes.append(f"mix.name={'none' if other == 'baseline' else other}")
    flags = [f"--config={config_flag}"]
    if asked.workdir:
        flags.append(f"--workdir={asked.workdir}-{other}")
    return shlex.join(["mixaug", *flags, *(f"--config.{text}" for text in changes)])


def _clean(words: Sequence[str]) -> int:
    """Removes what a working directory can make again."""
    if words[0] != "clean":
        hint = f"; write --config.{words[0]}" if "=" in words[0] else ", and is no command"
        raise ValueError(
            f"{words[0]} belongs to no flag{hint}; -h lists the flags, stages and keys"
        )
    if len(words) != 2:
        raise ValueError("write: mixaug clean WORKDIR")
    workdir = pathlib.Path(words[1])
    if not any((workdir / name).exists() for name in ("config.json", "study.json")):
        raise ValueError(
            f"{workdir} is no working directory: it has neither config.json nor study.json"
        )
    freed = 0
    for folder in [workdir, *(p.parent for p in workdir.glob("*/*/config.json"))]:
        caches = [found for name in _CACHES for found in folder.glob(name)]
        # Who is at work there needs them.
        with files.claim(folder / files.RUN_LOCK) if caches else contextlib.nullcontext():
            for cache in caches:
                freed += sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
                shutil.rmtree(cache, ignore_errors=True)
    say.result(f"{freed / 2**20:.1f} MiB freed in {workdir}")
    return 0


def help_text(topic: str) -> str:
    """The help of a topic: "all", a kind of entries, or a section of the settings.

    Raises:
      ValueError: an unknown topic.
    """
    sections = list(dict.fromkeys(key.rpartition(".")[0] for key in keys.KEYS if "." in key))
    checks.choice("the topic of help", topic, ["all", *_ENTRIES, *sections])
    if topic in _ENTRIES:
        return _entries(brought.tables()[_ENTRIES[topic]])
    if topic != "all":
        return keys.help_text(topic)
    # The table of stages stands on the roof, and takes a second to come.
    from mixaug_jax import pipeline

    stages = "\n".join(f"  {name:10}{stage.title}" for name, stage in pipeline.STAGES.items())
    return "\n\n".join([
        _parser().format_help().strip(),
        f"stages (--stage=all: {', '.join(pipeline.ALL)}):\n{stages}",
        f"configs: {', '.join(opening.shipped())}",
        f"settings (--config.KEY=VALUE; a tuple is typed as a,b):\n{keys.help_text()}",
    ])  # fmt: skip


def _entries(table):
    """The names of entries, each with the first line of what it says of itself."""
    lines = []
    for name, entry in table.items():
        said = (entries.function_of(entry).__doc__ or "").strip().split("\n")[0]
        lines.append(f"{name:26}{said}"[:120].rstrip())
    return "\n".join(lines)
