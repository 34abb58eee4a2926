"""Where the stages of a run left their files."""

import pathlib
import shutil

from mixaug_jax.core import files, say


def copy(source: pathlib.Path, folder: pathlib.Path, name: str) -> bool:
    """Copies a stage's figure into the report; False where it is not there, or damaged, which is said."""
    found = [source / f"{name}.{ending}" for ending in ("png", "svg")]
    if not all(file.exists() for file in found):
        return False
    for file in found:
        if not files.is_intact(file):
            say.warning(f"{file} is damaged and left out; the stage that drew it draws it again")
            return False
    for file in found:
        shutil.copyfile(file, folder / file.name)
    return True


def latest(folder: pathlib.Path, name: str) -> pathlib.Path:
    """`folder` where it holds the file `name`, else that of the last step (--checkpoint=all)."""
    steps = steps_of(folder, name)
    return folder if (folder / name).exists() or not steps else list(steps.values())[-1]


def steps_of(folder: pathlib.Path, name: str) -> dict[int, pathlib.Path]:
    """The folders of single steps that hold the file `name`, by step."""
    found = [path for path in folder.glob("*") if path.name.isdigit() and (path / name).exists()]
    # By number, in which 10 comes after 9.
    return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}
