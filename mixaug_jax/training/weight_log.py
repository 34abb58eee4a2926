"""The file weights.json of a run: the checksum of the weights at every checkpoint, by which a result's step is known."""

import json
import pathlib

from mixaug_jax.core import files
from mixaug_jax.core.types import Path, Tree

NAME = "weights.json"


def note(workdir: Path, step: int, variables: Tree) -> None:
    """Adds a checkpoint's weights. Entries outlive their checkpoints, of which a run keeps only a few."""
    noted = read(workdir) | {step: files.checksum(variables)}
    text = json.dumps({str(at): noted[at] for at in sorted(noted)}, indent=1)
    files.write_text(pathlib.Path(workdir) / NAME, text)


def read(workdir: Path) -> dict[int, int]:
    """Checksums as results' settings have them under "weights", by step; {} where there is no such file."""
    path = pathlib.Path(workdir) / NAME
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return {int(step): int(value) for step, value in noted.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # what is damaged can only be noted again
