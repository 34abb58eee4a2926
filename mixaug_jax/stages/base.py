"""What a stage is."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run: it reads files of one working directory and writes others.

    Attributes:
      run: f(config, workdir, *, which, required). `which` names the checkpoints: "latest", "best", "all" or a step's number.
        Where `required` is False, as under --stage=all, what the data do not allow is left out with a line that says so; where
        it is True that is an error.
      check: f(config), which raises ValueError for settings or data that cannot work, before anything is compiled.
      title: what it does, for the help.
      keys: beginnings of the settings' keys that decide its result and nothing before it, as ("dissect.",).
    """

    run: Callable
    check: Callable
    title: str = ""
    keys: tuple[str, ...] = ()
