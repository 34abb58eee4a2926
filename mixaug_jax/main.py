"""From the command line: one config, one working directory, one stage or all of them.

    python -m mixaug_jax.main --config=configs/cutmix.py
    python -m mixaug_jax.main --config=configs/cutmix.py:folder --config.data.dir=PHOTOS
    python -m mixaug_jax.main --config=configs/baseline.py --config.weights=resnet50.pth
    python -m mixaug_jax.main --config=configs/released.py --config.released.dir=CHECKPOINTS ...

Stage "all" trains (or, where `weights` names a file, imports it), dissects, explains, and writes the report.

The exit code is 0 when all went well, 2 for settings or data that cannot work, 3 when the loss was not finite, 4 when memory
or disk ran out, and 143 after SIGTERM (everything is saved; the same command goes on).
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from mixaug_jax.core import say

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Settings: FILE.py[:DATA]", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; default runs/<config>-<data>")
_STAGE = flags.DEFINE_string("stage", "all", "What to do: all, or the name of a stage")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "latest", "What later stages read: latest, best, all, or a step's number"
)
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the processes of one job first")


def default_workdir() -> str:
    """runs/<name of the config file>-<data set>."""
    name = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]
    return str(pathlib.Path("runs", f"{pathlib.Path(name).stem}-{_CONFIG.value.data.name}"))


def main(_) -> None:
    """Runs the stages that --stage names."""
    # Imported here, after the flags: a wrong one is said at once.
    from mixaug_jax import pipeline, training
    from mixaug_jax.core import devices

    level = flags.FLAGS.verbosity if flags.FLAGS["verbosity"].present else say.NORMAL
    say.set_verbosity(max(say.RESULTS, min(level, say.EVERYTHING)))
    logging.set_verbosity(logging.WARNING)  # the checkpoint library narrates every file
    config, workdir = _CONFIG.value, _WORKDIR.value or default_workdir()
    try:
        if _MULTIHOST.value:
            devices.initialize_multihost()
        pipeline.run(config, workdir, _STAGE.value, checkpoint=_CHECKPOINT.value)
    except training.Interrupted as error:
        _end(error, 143)
    except FloatingPointError as error:
        _end(error, 3)
    except (MemoryError, OSError) as error:
        _end(error, 4)
    except ValueError as error:
        _end(error, 2)
    if _STAGE.value == "all" and not config.stages:
        other = "cutmix" if config.mix.name == "none" else "baseline"
        say.line(
            f"next: open {workdir}/report/report.html, and compare with another augmentation: "
            f"python -m mixaug_jax.main --config=configs/{other}.py:{config.data.name}"
        )


def _parse(argv: list[str]) -> list[str]:
    """absl's parser, with one sentence for what it answers by a traceback."""
    if not any(
        a.startswith(("--config=", "-config=")) or a in ("--config", "--help") for a in argv
    ):
        _end("--config=configs/METHOD.py[:DATA] is needed, e.g. --config=configs/cutmix.py", 2)
    try:
        rest = app.parse_flags_with_usage(argv)
        _CONFIG.value.seed  # noqa: B018  (a file that cannot be read only says so here)
        return rest
    except (AttributeError, KeyError) as error:
        given = " ".join(a for a in argv if a.startswith("--config."))
        what = " ".join(str(error.args[0]).split())
        _end(f"unknown key {what} in {given}; every key is in mixaug_jax/config.py", 2)
    except (ValueError, TypeError, OSError) as error:
        _end(str(error).strip().splitlines()[-1].strip(), 2)  # the first lines say what was tried


def _end(error, code: int) -> None:
    say.error(error)
    sys.exit(code)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
