"""Panels in files, with what readers were told of their pictures."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mixaug_jax.core import files
from mixaug_jax.core.types import Float, Path
from mixaug_jax.papers.relevance.panels.panel import Panel

_ARRAYS = ("images", "logits", "signs", "maps", "attributes")
_WHAT = "a panel"


@dataclasses.dataclass(frozen=True)
class Kept:
    """A panel that was looked at.

    Attributes:
      panel: with all rows that there are.
      readings: [R,C,A], what the evaluator read off its pictures.
      settings: what made this, as JSON has it.
    """

    panel: Panel
    readings: Float[np.ndarray, "R C A"]
    settings: Mapping


def save(kept: Kept, path: Path) -> None:
    """Writes a panel to a .npz."""
    panel = kept.panel
    arrays = {name: np.asarray(getattr(panel, name)) for name in _ARRAYS}
    arrays |= {name: np.array(getattr(panel, name), str) for name in ("columns", "rows")}
    arrays |= {
        "texts": np.array([panel.reading, panel.caption, panel.note]),
        "readings": kept.readings,
    }
    files.save_npz(path, arrays, kept.settings)


def load(path: Path) -> Kept:
    """The panel in a file; ValueError where there is none, or another kind of file."""

    def make(arrays: dict, settings: dict) -> Kept:
        reading, caption, note = map(str, arrays["texts"])
        texts = {name: tuple(map(str, arrays[name])) for name in ("columns", "rows")}
        values = {name: arrays[name] if len(arrays[name]) else () for name in _ARRAYS}
        panel = Panel(reading, caption=caption, note=note, **texts, **values)
        return Kept(panel, arrays["readings"], settings)

    return files.load_npz(path, make, _WHAT)
