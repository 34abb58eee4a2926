"""From the command line: one config, one working directory, one stage or all of them.

    python -m mixaug_jax.main --config=configs/cutmix.py
    python -m mixaug_jax.main --config=configs/cutmix.py:folder --config.data.dir=PHOTOS

The exit code is 0 when all went well, 2 for settings or data that cannot work, 3 when the loss was not finite, 4 when memory
or disk ran out, and 143 after SIGTERM (everything is saved; the same command goes on).
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

STAGES = ("all", "train")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Settings: FILE.py[:DATA]", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; default runs/<config>-<data>")
_STAGE = flags.DEFINE_enum("stage", "all", STAGES, "What to do")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the processes of one job first")


def default_workdir() -> str:
    """runs/<name of the config file>-<data set>."""
    name, _, data = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return str(pathlib.Path("runs", f"{pathlib.Path(name).stem}-{_CONFIG.value.data.name}"))


def main(_) -> int:
    """Runs the stages; returns the exit code."""
    # Imported here: a wrong flag is said at once.
    from mixaug_jax import parallel, training

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the checkpoint library narrates every file
    if _MULTIHOST.value:
        parallel.initialize_multihost()
    workdir = _WORKDIR.value or default_workdir()
    training.train(_CONFIG.value, workdir)
    return 0


def run() -> None:
    """Parses the flags, runs `main`, and turns errors a user can mend into one sentence and an exit code."""
    try:
        app.run(main)
    except (ValueError, AttributeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
