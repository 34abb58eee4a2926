"""The stage `report`: one HTML file from the files of a run or of a study."""

import functools
import os
import pathlib

from mixaug_jax import study
from mixaug_jax.core import files, processes, say
from mixaug_jax.core.types import Scalar
from mixaug_jax.report.run import run_page
from mixaug_jax.report.study import study_page
from mixaug_jax.stages.base import Stage


def write_report(workdir: os.PathLike | str, *, column: Scalar | None = None) -> pathlib.Path:
    """Writes `<workdir>/report/report.html`, its figures as PNG, SVG and PDF and its tables as CSV.

    The page holds everything inside it and needs no network. It is made of what the other stages have written, without a
    checkpoint and without running the network; what is not there is said on the page.

    Args:
      workdir: a run's working directory, or a study's folder (which has a study.json).
      column: width of a paper's column, inches, for the PDFs that the report draws; None: report.column_width of the run, or of
        the study's first run.

    Returns:
      The page's path.

    Raises:
      ValueError: neither of these.
    """
    workdir = pathlib.Path(workdir).absolute()
    if (workdir / "study.json").exists():
        return write_study(study.gather(workdir), workdir, column=column)
    if (workdir / "config.json").exists():
        return _write(functools.partial(run_page.make, column=column), workdir)
    raise ValueError(
        f"{workdir} is no working directory: it has neither config.json nor study.json"
    )


def write_study(
    found: study.Study, workdir: os.PathLike | str, *, column: Scalar | None = None
) -> pathlib.Path:
    """`write_report` of a study that is gathered already."""
    return _write(
        functools.partial(study_page.make, found, column=column), pathlib.Path(workdir).absolute()
    )


def _write(make, workdir) -> pathlib.Path:
    folder = workdir / "report"
    folder.mkdir(exist_ok=True)
    with files.lock(workdir / "report.lock", "waiting for another process to write the page"):
        text = make(workdir, folder)
        files.write_text(folder / "report.html", text)
    say.result(f"report {folder / 'report.html'}")
    return folder / "report.html"


def _run(config, workdir, *, which: str = "latest", required: bool = True) -> None:
    if processes.is_main():
        write_report(workdir, column=config.report.column_width)


STAGE = Stage(_run, lambda config: None, "the page, from files alone", keys=("report.",))
