"""What dissecting one layer of a network found."""

import dataclasses

import numpy as np

from mixaug_jax.core.files import load_npz, save_npz
from mixaug_jax.dissection import counting
from mixaug_jax.dissection.concepts import Vocabulary
from mixaug_jax.dissection.resample import PADDINGS
from mixaug_jax.dissection.thresholds import OVER, RULES

PER = ("unit", "category")  # the two conventions of `counting.count_detectors`


@dataclasses.dataclass(frozen=True)
class Options:
    """How units are measured and counted.

    Attributes:
      q: the tail share of the thresholds, P(a > T) = q.
      over: thresholds of the "upsampled" maps or of the "raw" ones; see `thresholds.quantile`.
      rule: "linear", "hazen" or "inverted_cdf"; see `thresholds.quantile`.
      padding: "edge" or "zero"; see `resample`.
      restricted: count a unit's area only on images that hold the concept's category.
      iou: thresholds; a unit detects its best concept where IoU > threshold.
      shuffles: label maps are shuffled against images so many times for the chance level; 0: none.
      replicates: of the bootstrap over images; 0: none.
      seed: of the shuffles, the bootstrap and the random network.
    """

    q: float = 0.01
    over: str = "upsampled"
    rule: str = "linear"
    padding: str = "edge"
    restricted: bool = False
    iou: tuple[float, ...] = (0.03, 0.04, 0.05)
    shuffles: int = 5
    replicates: int = 20
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.q < 1:
            raise ValueError(
                f"q={self.q} is not a tail share; it must lie between 0 and 1, both excluded"
            )
        for name, allowed in (("over", OVER), ("rule", RULES), ("padding", PADDINGS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not known; use one of {', '.join(allowed)}"
                )
        if not self.iou or any(not 0 <= value < 1 for value in self.iou):
            raise ValueError(f"iou={self.iou} must be one or more thresholds from 0 up to below 1")
        for name in ("shuffles", "replicates", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")


@dataclasses.dataclass(frozen=True)
class Dissection:
    """The units of one layer and what they detect; U units, C concepts, G categories, T IoU
    thresholds, S shuffles, R replicates, N images.

    Counts have the axes [2, 2, T, G]: the conventions `PER` (one best label a unit; every category
    by itself), then detectors and unique concepts. The paper's total (Won et al. 2023, Fig. 3) is
    the sum over G. All are int64.

    Attributes:
      layer: its name.
      names: (name, category) of each concept's number; 0 is none.
      threshold: float32 [U], T of each unit.
      tally: pixel counts.
      counts: [2, 2, T, G].
      null: [S, 2, 2, T, G], with label maps shuffled against images; S = 0 where it was not asked
        for, or there is one image only.
      random: [2, 2, T, G] of a network of the same architecture with random weights, thresholds its
        own; all -1 where it was not asked for.
      replicates: [R, 2, 2, T, G], images drawn anew (Poisson bootstrap, thresholds held). Equal
        seeds draw equal images, so replicates of two networks are pairs.
      top_images: int [U, 5], indices in the data set of the images with the largest activations.
      top_activations: float32 [U, 5], those activations.
      top_maps: float32 [U, 5, h, w], the unit's maps of those images.
      indices: int [N], of the images that were looked at, in the data set.
      settings: what made this, as JSON has it.
    """

    layer: str
    names: tuple[tuple[str, str], ...]
    threshold: np.ndarray
    tally: counting.Tally
    counts: np.ndarray
    null: np.ndarray
    random: np.ndarray
    replicates: np.ndarray
    top_images: np.ndarray
    top_activations: np.ndarray
    top_maps: np.ndarray
    indices: np.ndarray
    settings: dict

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories' names, [G]."""
        return Vocabulary(self.names).categories

    @property
    def options(self) -> Options:
        """How it was measured."""
        return Options(
            **{**self.settings["options"], "iou": tuple(self.settings["options"]["iou"])}
        )

    def iou(self) -> np.ndarray:
        """[U, C] float64; over all images, or those with the category if that was the setting."""
        return self.tally.iou(self.options.restricted)

    def top_labels(self, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The numbers [U, count] of each unit's best concepts, best first, and their IoU."""
        return counting.top_labels(self.iou(), count)

    def unique(self, per: str = "unit") -> np.ndarray:
        """Unique concepts [T, G]."""
        return self.counts[PER.index(per), 1]


def with_total(counts: np.ndarray) -> np.ndarray:
    """Counts [..., G] with their sum as one more entry, [..., G + 1]."""
    return np.concatenate([counts, counts.sum(-1, keepdims=True)], -1)


def save(result: Dissection, path) -> None:
    """Writes a .npz that `load` reads; the file appears when it is whole."""
    arrays = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in ("tally", "settings", "names")
    }
    arrays |= {f.name: getattr(result.tally, f.name) for f in dataclasses.fields(result.tally)}
    arrays["concept_names"] = np.array([name for name, _ in result.names])
    arrays["concept_categories"] = np.array([category for _, category in result.names])
    arrays["category_names"] = np.array(result.categories)
    save_npz(path, arrays, result.settings)


def load(path) -> Dissection:
    """What `save` wrote.

    Raises:
      ValueError: no such file, or another kind of file.
    """
    return load_npz(path, _from_arrays, "a dissection")


def _from_arrays(arrays, settings):
    tally = {f.name: arrays.pop(f.name) for f in dataclasses.fields(counting.Tally)}
    names, categories = (arrays.pop(f"concept_{what}").tolist() for what in ("names", "categories"))
    del arrays["category_names"]  # they are there for other readers
    return Dissection(
        names=tuple(zip(names, categories, strict=True)),
        tally=counting.Tally(**tally),
        layer=str(arrays.pop("layer")),
        settings=settings,
        **arrays,
    )
