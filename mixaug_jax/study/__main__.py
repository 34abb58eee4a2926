"""Many augmentations x seeds, and one comparison of all.

    python -m mixaug_jax.study --configs=configs/baseline.py,configs/cutmix.py --seeds=0,1,2 --workdir=DIR [--config.KEY=VALUE]

Every --config.KEY=VALUE goes to each config that has the key. Runs are in DIR/<config>/<seed>; the same command makes what is
missing, and goes on after it was killed. On many machines:

    python -m mixaug_jax.study ... --list           # prints a command for each run, for a cluster's scheduler
    python -m mixaug_jax.study ... --only=2/8       # or: makes the second of eight shares
    python -m mixaug_jax.study --workdir=DIR --gather       # then: compares what is there

The exit code is 0 when all went well, 1 when a run failed (with --gather: or is missing), 2 for settings that cannot work, and
143 after SIGTERM or Ctrl-C (the same command goes on).
"""

import argparse
import sys

import mixaug_jax
from mixaug_jax import study
from mixaug_jax.core import say


def main(argv: list[str]) -> int:
    """Does what the command line says; returns the exit code."""
    overrides = [text for text in argv if text.startswith(("--config.", "-config."))]
    asked = _parser().parse_args([text for text in argv if text not in overrides])
    try:
        return _run(asked, [f"--{text.lstrip('-')}" for text in overrides])
    except study.Stopped as error:
        return _end(error, 143)
    except KeyboardInterrupt:
        return _end("stopped; the same command goes on", 143)
    except (ValueError, OSError) as error:
        return _end(error, 2)


def _run(asked, overrides) -> int:
    if asked.gather:
        return _failed(mixaug_jax.run_study(workdir=asked.workdir).failed)
    if not asked.configs or not asked.seeds:
        raise ValueError("--configs and --seeds are needed, unless with --gather")
    planned = study.make_plan(
        asked.configs, asked.seeds, asked.workdir, overrides, unmixed_labels=asked.unmixed_labels
    )
    study.write_asked(planned, asked.workdir, overrides)
    number, shares = asked.only
    share = planned[number - 1 :: shares]
    if asked.list:
        say.result("\n".join(run.command for run in share))
        return 0
    failures = study.run_missing(share)
    if shares == 1:
        mixaug_jax.run_study(workdir=asked.workdir)
    return _failed(failures)


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
    add("--configs", type=_names, default=[], help="config files FILE.py[:DATA], with commas")
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
