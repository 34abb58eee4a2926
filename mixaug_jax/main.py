"""From the command line: one config, one working directory, one stage or all of them.

    mixaug --config=cutmix
    mixaug --config=cutmix:folder --config.data.dir=PHOTOS
    mixaug --config=baseline --config.weights=resnet50.pth
    mixaug clean WORKDIR

`python -m mixaug_jax` and `python -m mixaug_jax.main` are the same command. The exit code is 0 when all went well, 2 for a
command, settings or data that cannot work, 3 when the loss was not finite, 4 when memory or disk ran out, 5 when another
process of the job is gone, and 143 after SIGTERM (everything is saved; the same command goes on).
"""

import os
import sys

from absl import logging

from mixaug_jax import command
from mixaug_jax.core import say


def main(argv: list[str] | None = None) -> int:
    """Does what a command line says.

    Args:
      argv: the words after the command; None: those of this process.

    Returns:
      The exit code.
    """
    logging.set_verbosity(logging.WARNING)  # the checkpoint library narrates every file
    try:
        asked = command.read(sys.argv[1:] if argv is None else argv)
        say.set_verbosity(asked.verbosity)
        code = command.run(asked)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads has enough, as `head` does; Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (*command.EXIT, RuntimeError) as error:
        code = command.exit_code(error)
        if code == 1:
            raise
        say.error(" ".join(str(error).split()))
        return code


def entry() -> None:
    """The console command `mixaug`."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
