"""What the stage keeps of a network: logits of scenes, as they are, with attributes drawn again, and unbiased."""

import dataclasses
import pathlib

import numpy as np

from mixaug_jax.core import files, stats
from mixaug_jax.core.types import Bool, Float, Int, Path
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES
from mixaug_jax.data.animals.animal_samplers import ambiguous
from mixaug_jax.papers.relevance.attribute_relevance import Pairs

OWN = "scenes"  # of `accuracies`, those of the run's own sampler
FILE, POINTING = "relevance.npz", "pointing.npz"


@dataclasses.dataclass(frozen=True)
class Result:
    """Of N scenes and M unbiased ones. A logit is that of class 1 minus that of class 0.

    Attributes:
      original: float32 [N], logits.
      values: float32 [N,10], in the order of `ATTRIBUTES`.
      labels: int [N], true classes.
      changed: {one of `animal_pairs.CHANGES`: float32 [N]}, logits with it drawn again.
      changed_values: {the same: float32 [N,10]}.
      unbiased: float32 [M], logits of unbiased scenes.
      unbiased_labels: int [M].
      settings: what made this, as JSON has it; "weights" is a checksum.
    """

    original: Float[np.ndarray, " N"]
    values: Float[np.ndarray, "N a"]
    labels: Int[np.ndarray, " N"]
    changed: dict
    changed_values: dict
    unbiased: Float[np.ndarray, " M"]
    unbiased_labels: Int[np.ndarray, " M"]
    settings: dict

    @property
    def pairs(self) -> Pairs:
        """The scenes, and what became of them."""
        return Pairs(self.original, self.values, self.changed, self.changed_values)

    @property
    def near(self) -> Bool[np.ndarray, " N"]:
        """Which scenes have arms that hardly tell the class."""
        return ambiguous(self.values[:, ATTRIBUTES.index("arm_position")])


@dataclasses.dataclass(frozen=True)
class Pointing:
    """Where explanations of N images point to.

    Attributes:
      hits: {method: bool [N]}, whether the highest value is on the head or a right arm.
      controls: the methods that know nothing of the network.
      area: float [N], share of the picture that these three blocks are: what chance hits.
      settings: what made this, as JSON has it.
    """

    hits: dict
    controls: tuple[str, ...]
    area: Float[np.ndarray, " N"]
    settings: dict


def save(result: Result, path: Path) -> None:
    """Writes a result to a .npz."""
    arrays = {
        name: getattr(result, name)
        for name in ("original", "values", "labels", "unbiased", "unbiased_labels")
    }
    arrays |= {f"changed.{name}": values for name, values in result.changed.items()}
    arrays |= {f"values.{name}": values for name, values in result.changed_values.items()}
    files.save_npz(path, arrays, result.settings)


def load(path: Path) -> Result:
    """The result in a file.

    Raises:
      ValueError: no such file, or another kind of file.
    """

    def make(arrays: dict, settings: dict) -> Result:
        groups = {kind: _taken(arrays, kind) for kind in ("changed.", "values.")}
        return Result(
            **arrays,
            changed=groups["changed."],
            changed_values=groups["values."],
            settings=settings,
        )

    return files.load_npz(path, make, "the relevance of attributes")


def save_pointing(found: Pointing, path: Path) -> None:
    """Writes where explanations point to to a .npz."""
    arrays = {f"hits.{name}": values for name, values in found.hits.items()} | {"area": found.area}
    files.save_npz(path, arrays, found.settings | {"controls": list(found.controls)})


def load_pointing(path: Path) -> Pointing:
    """Where explanations point to, from a file; ValueError where it cannot be read."""

    def make(arrays: dict, settings: dict) -> Pointing:
        controls = tuple(settings.pop("controls"))
        return Pointing(_taken(arrays, "hits."), controls, arrays["area"], settings)

    return files.load_npz(path, make, "where explanations point to")


def _taken(arrays, beginning):
    names = [name for name in arrays if name.startswith(beginning)]
    return {name.removeprefix(beginning): arrays.pop(name) for name in names}


def accuracies(result: Result) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which predictions are right: of the scenes, of those whose arms hardly tell the class, and of unbiased scenes."""
    right = (result.original > 0) == (result.labels == 1)
    unbiased = (result.unbiased > 0) == (result.unbiased_labels == 1)
    return {OWN: right, "ambiguous": right[result.near], "unbiased": unbiased}


def share(right: Bool[np.ndarray, " n"]) -> tuple[float, float, float]:
    """The share of what is right and its interval; NaN of nothing."""
    if not len(right):
        return np.nan, np.nan, np.nan
    return float(right.mean()), *stats.wilson(float(right.mean()), len(right))


def folder_of(workdir: Path) -> pathlib.Path:
    """Where a working directory keeps the latest result."""
    return pathlib.Path(workdir) / "relevance"
