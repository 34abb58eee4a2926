"""Where the stages of a run left their files, and of which checkpoint these are."""

import dataclasses
import json
import pathlib
import shutil
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np

from mixaug_jax.core import files, say
from mixaug_jax.draw import style
from mixaug_jax.training import checkpoint, weight_log


@dataclasses.dataclass(frozen=True)
class Steps:
    """The checkpoints of a run.

    Attributes:
      noted: step by the checksum of the weights.
      latest: the step of the newest one; -1 where that is not known.
    """

    noted: Mapping[int, int]
    latest: int


def copy(source: pathlib.Path, folder: pathlib.Path, name: str) -> bool:
    """Copies a stage's figure into the report; False where it is not there, or damaged, which is said."""
    found = [source / f"{name}{ending}" for ending in style.ENDINGS]
    if not all(file.exists() for file in found):
        return False
    for file in found:
        if not files.is_intact(file):
            say.warning(f"{file} is damaged and left out; the stage that drew it draws it again")
            return False
    for file in found:
        shutil.copyfile(file, folder / file.name)
    return True


def steps_of_run(workdir: pathlib.Path) -> Steps:
    """Those that weights.json notes; one that was set aside is none."""
    noted = weight_log.read(workdir)
    # A page can be made again where the checkpoints are gone.
    there = checkpoint.steps_there(workdir) or sorted(noted)
    return Steps({check: step for step, check in noted.items()}, there[-1] if there else -1)


def results_of(
    folder: pathlib.Path, known: Steps, names: Iterable[str] | None = None
) -> dict[str, int]:
    """The step of the results in `folder`, by the file's name; -1 for one whose weights are not noted.

    names: of the files, without ending; None: all there are.
    """
    found = {}
    every = (path.stem for path in sorted(folder.glob("*.npz")))
    for path in (folder / f"{name}.npz" for name in (every if names is None else names)):
        try:
            with np.load(path, allow_pickle=False) as file:
                weights = json.loads(str(file["settings"])).get("weights")
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
            continue  # the page says elsewhere that it is damaged
        found[path.stem] = known.noted.get(weights, -1)
    return found


def latest(folder: pathlib.Path, name: str, known: Steps) -> pathlib.Path:
    """Of `folder` and the folders of single steps in it (--checkpoint=all), those that hold the file `name`: the one whose
    results are of the newest checkpoint; `folder` itself where there is none."""
    single = steps_of(folder, name)
    candidates = [*single.values(), *([folder] if (folder / name).exists() else [])]

    def newest(path: pathlib.Path) -> int:
        by_weights = max(results_of(path, known).values(), default=-1)
        return max(by_weights, *(step for step, own in single.items() if own == path), -1)

    # Of equals the last one, which is `folder` itself.
    return max(reversed(candidates), key=newest, default=folder)


def steps_of(folder: pathlib.Path, name: str) -> dict[int, pathlib.Path]:
    """The folders of single steps that hold the file `name`, by step."""
    found = [path for path in folder.glob("*") if path.name.isdigit() and (path / name).exists()]
    # By number, in which 10 comes after 9.
    return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}
