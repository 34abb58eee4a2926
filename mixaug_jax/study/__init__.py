"""Many configs x seeds -> one comparison.

    study = run_study(["configs/baseline.py", "configs/cutmix.py"], (0, 1, 2), "studies/first")
    print(study.sentences["concepts"])

From the command line: `python -m mixaug_jax.study --help`.
"""

import pathlib
from collections.abc import Sequence

from mixaug_jax.study.deletion import CrossDeletion
from mixaug_jax.study.gathering import gather
from mixaug_jax.study.measures import AXES, Measure
from mixaug_jax.study.plan import make_plan, write_asked
from mixaug_jax.study.results import Study
from mixaug_jax.study.runs import Stopped, run_missing
from mixaug_jax.study.tables import summary, write_tables

__all__ = [
    "AXES",
    "CrossDeletion",
    "Measure",
    "Stopped",
    "Study",
    "conclude",
    "gather",
    "run_study",
]


def run_study(
    configs,
    seeds: Sequence[int],
    workdir,
    *,
    overrides: Sequence[str] = (),
    unmixed_labels: bool = False,
) -> Study:
    """Makes the runs that are missing and compares all of them.

    Each run is a process of its own (`python -m mixaug_jax.main --stage=all`), so a notebook on a TPU has to call this before
    it uses the TPU itself. What is there already is not made again; a run that fails does not stop the others.

    Args:
      configs: config files ("FILE.py" or "FILE.py:DATA") or ConfigDicts, or {name: either}; see `plan.make_plan`.
      seeds: of the trainings.
      workdir: the study's folder. Runs are in `<workdir>/<config>/<seed>`.
      overrides: "key=value" for every config, e.g. "train.epochs=3".
      unmixed_labels: add, for each config that mixes labels, the same with the one label of which an image shows more.

    Returns:
      The comparison; `problems` holds the runs that failed. Its tables are in `<workdir>/tables`, its page in
      `<workdir>/report/report.html`.

    Raises:
      ValueError: settings that cannot work, or a folder of other settings; nothing has been run.
      Stopped: SIGTERM or Ctrl-C came; the same call goes on.
    """
    runs = make_plan(configs, seeds, workdir, overrides, unmixed_labels=unmixed_labels)
    write_asked(runs, workdir, overrides)
    run_missing(runs)
    return conclude(workdir)


def conclude(workdir) -> Study:
    """Compares the runs that are there: writes tables and the page, prints a summary."""
    from mixaug_jax.report import stage  # reads studies itself

    study = gather(workdir)
    write_tables(study, pathlib.Path(workdir).expanduser() / "tables")
    print(summary(study), flush=True)
    stage.write_study(study, workdir)
    return study
