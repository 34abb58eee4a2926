"""Many augmentations x seeds, and one comparison of all.

    python -m mixaug_jax.study --configs=configs/baseline.py,configs/cutmix.py --seeds=0,1,2 --workdir=DIR [--config.KEY=VALUE]

Every --config.KEY=VALUE goes to each config that has the key; --sweep.KEY=VALUE,VALUE, as --sweep.mix.alpha=0.2,1.0, makes each
value an augmentation of its own. Runs are in DIR/<config>/<seed>; the same command makes what is missing, and goes on after it
was killed.

    python -m mixaug_jax.study ... --jobs=4         # makes four runs at once, each on its own devices
    python -m mixaug_jax.study --workdir=DIR --status       # says which run is done, running, failed (and why) or waiting

On a Slurm cluster (pip install 'mixaug_jax[slurm]'), one job a run and a last one that gathers; a job that is preempted, or
whose time is up, saves and is queued again:

    python -m mixaug_jax.study ... --launch=slurm --hours=4 --gpus=1 --cpus=8 --memory_gb=32 --partition=NAME

On other machines:

    python -m mixaug_jax.study ... --list           # prints a command for each run, for another scheduler
    python -m mixaug_jax.study ... --only=2/8       # or: makes the second of eight shares
    python -m mixaug_jax.study --workdir=DIR --gather       # then: compares what is there

The exit code is 0 when all went well, 1 when a run failed (with --gather: or is missing), 2 for settings that cannot work, and
143 after SIGTERM or Ctrl-C (the same command goes on).
"""

import argparse
import re
import sys

import mixaug_jax
from mixaug_jax import study
from mixaug_jax.core import say
from mixaug_jax.study import launching, status


def main(argv: list[str]) -> int:
    """Does what the command line says; returns the exit code."""
    overrides, sweep = (
        [text.lstrip("-") for text in argv if re.match(rf"--?{flag}\.", text)]
        for flag in ("config", "sweep")
    )
    asked = _parser().parse_args([t for t in argv if not re.match(r"--?(config|sweep)\.", t)])
    try:
        sweep = [text.removeprefix("sweep.") for text in sweep]
        return _run(asked, [f"--{text}" for text in overrides], sweep)
    except study.Stopped as error:
        return _end(error, 143)
    except KeyboardInterrupt:
        return _end("stopped; the same command goes on", 143)
    except (ValueError, OSError) as error:
        return _end(error, 2)


def _run(asked, overrides, sweep) -> int:
    if asked.status:
        say.result("\n".join(status.lines(status.read(asked.workdir))))
        return 0
    if asked.gather:
        return _failed(mixaug_jax.run_study(workdir=asked.workdir).failed)
    if not asked.configs or not asked.seeds:
        raise ValueError("--configs and --seeds are needed, unless with --gather or --status")
    planned = study.make_plan(
        asked.configs,
        asked.seeds,
        asked.workdir,
        overrides,
        unmixed_labels=asked.unmixed_labels,
        sweep=sweep,
    )
    study.write_asked(planned, asked.workdir, overrides)
    number, shares = asked.only
    share = planned[number - 1 :: shares]
    if asked.list:
        say.result("\n".join(run.command for run in share))
        return 0
    if asked.launch:
        return _launch(asked, share)
    failures = study.run_missing(share, asked.jobs)
    # Of several shares none knows when the others are done; --gather compares them then.
    if shares == 1:
        mixaug_jax.run_study(workdir=asked.workdir)
    return _failed(failures)


def _launch(asked, share) -> int:
    names = ("hours", "gpus", "cpus", "memory_gb", "partition", "at_once")
    resources = launching.Resources(
        **{name: getattr(asked, name) for name in names},
        more=dict(text.partition("=")[::2] for text in asked.sbatch),
    )
    jobs = launching.launch(share, asked.workdir, resources, asked.launch)
    if asked.launch == "slurm":
        say.line(f"next: python -m mixaug_jax.study --workdir={asked.workdir} --status")
        return 0
    for job in jobs:  # on this machine, so this process waits and gathers itself
        job.wait()
    return _failed(mixaug_jax.run_study(workdir=asked.workdir).failed)


def _failed(sentences) -> int:
    for text in sentences:
        say.error(text)
    return 1 if sentences else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixaug_jax.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--configs",
        type=_names,
        default=[],
        help="config files FILE.py[:DATA], with commas; mixers[:DATA]: the baseline and every mixer",
    )
    add("--seeds", type=_numbers, default=[], help="of the trainings, with commas")
    add("--workdir", required=True, help="the study's folder")
    add(
        "--unmixed_labels",
        action="store_true",
        help="also make <config>-label_majority: each label-mixing config with the same mixed images, and the one label of "
        "which an image shows more",
    )
    add("--list", action="store_true", help="print the command of each run, and make none")
    add("--only", type=_share, default=(1, 1), help="K/N: make the K-th of N shares, do not gather")
    add("--gather", action="store_true", help="make no run, compare what is there")
    add("--status", action="store_true", help="make no run, say which are done, running, failed")
    add("--jobs", type=int, default=1, help="runs at once on this machine, each on its own devices")
    add("--launch", choices=launching.CLUSTERS, default="", help="hand the runs to a scheduler")
    # What each job of a launch asks for.
    asked = launching.Resources()
    add("--hours", type=float, default=asked.hours, help="of a job; after that it is queued again")
    add("--gpus", type=int, default=asked.gpus, help="of a job")
    add("--cpus", type=int, default=asked.cpus, help="of a job")
    add("--memory_gb", type=float, default=asked.memory_gb, help="of a job; 0: the default")
    add("--partition", default=asked.partition, help="of the cluster")
    add("--at_once", type=int, default=asked.at_once, help="jobs at the same time; 0: no limit")
    add("--sbatch", action="append", default=[], metavar="KEY=VALUE", help="any other of sbatch")
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[int]:
    numbers = [number for number in text.split(",") if number]
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text} is not whole numbers with commas, like 0,1,2")
    return [int(number) for number in numbers]


def _share(text: str) -> tuple[int, int]:
    number, _, shares = text.partition("/")
    if not (number.isdigit() and shares.isdigit() and 1 <= int(number) <= int(shares)):
        raise argparse.ArgumentTypeError(f"{text} is not K/N with K from 1 to N")
    return int(number), int(shares)


def _end(error, code: int) -> int:
    say.error(error)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
