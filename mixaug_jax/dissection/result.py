"""What dissecting one layer of a network found."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixaug_jax.core import checks, stats
from mixaug_jax.core.devices import PRECISIONS
from mixaug_jax.core.files import load_npz, save_npz
from mixaug_jax.core.frames import frame, names_of
from mixaug_jax.core.types import Count, Dataset, Float, Int, Path
from mixaug_jax.dissection import counting
from mixaug_jax.dissection import formulas as formulas_lib
from mixaug_jax.dissection.concepts import Vocabulary
from mixaug_jax.dissection.formulas import Composed
from mixaug_jax.dissection.resample import PADDINGS
from mixaug_jax.dissection.thresholds import OVER, RULES

PER = ("unit", "category")  # the two conventions of `counting.count_detectors`
_FORMULA = dataclasses.fields(Composed)


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides a dissection, besides the network and the images.

    Attributes:
      q: the tail share of the thresholds, P(a > T) = q.
      over: thresholds of the "upsampled" maps or of the "raw" ones; see `thresholds.quantile`.
      rule: "linear", "hazen" or "inverted_cdf"; see `thresholds.quantile`.
      padding: "edge" or "zero"; see `resample`.
      restricted: count a unit's area only on images that hold the concept's category.
      iou: thresholds, kept as a tuple; a unit detects its best concept where IoU > threshold.
      shuffles: label maps are shuffled against images so many times for the chance level; 0: none.
      seed: of the shuffles, the groups of images and the random network.
      random_baseline: also count a network of the same architecture with random weights.
      size: side of the label maps [pixels]; 0: the input's, or a quarter of it above 112.
      max_images: at most so many images, spread evenly over the data set; 0: all.
      precision: of float32 matrix products in the forward pass, "default", "high" or "highest".
      formulas: logical forms of concepts are looked for, for so many units, the sharpest; see `formulas`. 0: none.
    """

    q: float = 0.01
    over: str = "upsampled"
    rule: str = "linear"
    padding: str = "edge"
    restricted: bool = False
    iou: Sequence[float] = (0.03, 0.04, 0.05)
    shuffles: int = 5
    seed: int = 0
    random_baseline: bool = True
    size: int = 0
    max_images: int = 0
    precision: str = "highest"
    formulas: int = 0

    def __post_init__(self):
        object.__setattr__(self, "iou", tuple(self.iou))  # a list, as JSON has it, has no hash
        checks.number("q", self.q, 0, 1, above=True, below=True)
        for name, allowed in (("over", OVER), ("rule", RULES), ("padding", PADDINGS)):
            checks.choice(name, getattr(self, name), allowed)
        if not self.iou or any(not 0 <= value < 1 for value in self.iou):
            raise ValueError(
                f"iou must be one or more thresholds from 0 up to below 1; got {self.iou}"
            )
        for name in ("shuffles", "seed", "size", "max_images", "formulas"):
            checks.count(name, getattr(self, name), 0)
        checks.choice("precision", self.precision, PRECISIONS)


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a dissection may take; no result depends on it, but for rounding in the forward pass.

    Attributes:
      folder: where activations and label maps wait; "" takes one that is removed in the end.
      cache_gb: GiB of activations that a process keeps on disk; beyond it the forward pass is repeated.
      memory_gb: GiB that tables of counts take on a device and on the host together; with less, units go in more blocks, each
        with a walk over the images of its own.
      parts: a folder where the counts of blocks of units are kept, so that a dissection that was stopped goes on from
        there; whoever names it removes it in the end. "": none.
      batch_size: images of a forward step, over all devices of all processes.
      threads: that read images.
    """

    folder: Path = ""
    cache_gb: float = 4.0
    memory_gb: float = 1.0
    parts: Path = ""
    batch_size: int = 64
    threads: int = 4

    def __post_init__(self):
        checks.not_negative("cache_gb", self.cache_gb)
        checks.number("memory_gb", self.memory_gb, 0, np.inf, above=True)
        for name in ("batch_size", "threads"):
            checks.count(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Dissection:
    """The units of one layer and what they detect; U units, C concepts, G categories, T IoU
    thresholds, S shuffles, H halves, N images.

    Counts have the axes [2,2,T,G]: the conventions `PER` (one best label a unit; every category
    by itself), then detectors and unique concepts. The paper's total (Won et al. 2023, Fig. 3) is
    the sum over G. All are int64.

    Attributes:
      layer: its name.
      names: (name, category) of each concept's number; 0 is none.
      threshold: float32 [U], T of each unit.
      tally: pixel counts.
      counts: [2,2,T,G].
      null: [S,2,2,T,G], with label maps shuffled against images; S = 0 where it was not asked
        for, or there is one image only.
      random: [2,2,T,G] of a network of the same architecture with random weights, thresholds its
        own; all -1 where it was not asked for.
      halves: [H,2,2,T,G], in random halves of the images, thresholds held (`stats.half_samples`); H = 0 for fewer than 20
        images. Equal seeds halve equally many images alike, so halves of two networks are pairs. They are there for
        `intervals`: half the images have noisier IoU, so their counts tell nothing by themselves.
      top_images: int [U,5], indices in the data set of the images with the largest activations.
      top_activations: float32 [U,5], those activations.
      top_maps: float32 [U,5,h,w], the unit's maps of those images.
      indices: int [N], of the images that were looked at, in the data set.
      settings: what made this, as JSON has it.
      formulas: the best logical forms of units, where they were asked for.
    """

    layer: str
    names: tuple[tuple[str, str], ...]
    threshold: Float[np.ndarray, " U"]
    tally: counting.Tally
    counts: Int[np.ndarray, "2 2 T G"]
    null: Int[np.ndarray, "S 2 2 T G"]
    random: Int[np.ndarray, "2 2 T G"]
    halves: Int[np.ndarray, "H 2 2 T G"]
    top_images: Int[np.ndarray, "U top"]
    top_activations: Float[np.ndarray, "U top"]
    top_maps: Float[np.ndarray, "U top h w"]
    indices: Int[np.ndarray, " N"]
    settings: dict
    formulas: Composed = formulas_lib.NONE

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories' names, [G]."""
        return Vocabulary(self.names).categories

    @property
    def options(self) -> Options:
        """How it was measured."""
        return Options(**self.settings["options"])

    @property
    def pixels(self) -> int:
        """How many pixels the label maps of all images have."""
        labels = self.settings["labels"]  # of `make_label_maps`, which are square, or of arrays
        height, width = labels["shape"] if "shape" in labels else (labels["size"], labels["size"])
        return height * width * len(self.indices)

    def iou(self) -> Float[np.ndarray, "U C"]:
        """[U,C] float64; over all images, or those with the category if that was the setting."""
        return self.tally.iou(self.options.restricted)

    def profile(self, unit: Count) -> list[tuple[str, str, float]]:
        """The name and the category of every concept that a unit has a pixel in common with, and its IoU, largest first."""
        iou = self.iou()[unit]
        order = np.argsort(-iou, kind="stable")
        return [(*self.names[c], float(iou[c])) for c in order.tolist() if iou[c] > 0]

    def top_labels(
        self, count: int = 5
    ) -> tuple[Int[np.ndarray, "U top"], Float[np.ndarray, "U top"]]:
        """The numbers [U,count] of each unit's best concepts, best first, and their IoU."""
        return counting.top_labels(self.iou(), count)

    def intervals(self) -> Float[np.ndarray, "2 2 T G ends"]:
        """The 95 % intervals [2,2,T,G+1,2] of the counts and, last, of their total over categories: low and high of what is
        expected in another set of equally many images (`stats.half_sample_interval`); NaN below a count of 5, for fewer than
        20 images, and so nowhere else."""
        counts = with_total(self.counts)
        if not len(self.halves):
            return np.full((*counts.shape, 2), np.nan)
        ends = stats.half_sample_interval(counts, with_total(self.halves), 0, self.most())
        return np.where((counts < stats.FEWEST)[..., None], np.nan, np.stack(ends, -1))

    def most(self) -> Int[np.ndarray, "2 2 1 G"]:
        """What the counts and their totals can be at most, [2,2,1,G+1]: all units, all concepts of the category."""
        units, groups = len(self.threshold), len(self.categories)
        concepts = np.bincount(Vocabulary(self.names).category[1:], minlength=groups)
        detectors = np.full(groups, units)
        most = with_total(np.stack([np.stack([detectors, concepts])] * len(PER)))
        most[PER.index("unit"), 0, -1] = units  # which has one best label over all categories
        return most[:, :, None]

    def unique(self, per: str = "unit") -> Int[np.ndarray, "T G"]:
        """Unique concepts [T,G]."""
        return self.counts[PER.index(per), 1]

    def to_frame(self, dataset: Dataset = ()) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each unit: its threshold, the share of all pixels where it is on,
        its best concept with category and IoU ("" and 0 for a unit that is never on), and the image that moves it most.

        Args:
          dataset: what was dissected, for the name of that image's file; () leaves it "".
        """
        labels, values = self.top_labels(1)
        best, iou = labels[:, 0], values[:, 0]
        # A unit that overlaps nothing has no concept, though one of them comes first.
        names = [self.names[k] if value else ("", "") for k, value in zip(best, iou, strict=True)]
        top = self.top_images[:, 0]
        return frame(
            {
                "layer": [self.layer] * len(best),
                "unit": np.arange(len(best)),
                "threshold": self.threshold,
                "area": self.tally.unit / max(1, self.pixels),
                "concept": [name for name, _ in names],
                "category": [category for _, category in names],
                "iou": iou,
                "top_image": top,
                "file": names_of(dataset, top),
            }
        )


def with_total(counts: Int[np.ndarray, "*S G"]) -> Int[np.ndarray, "*S G+1"]:
    """Counts [...,G] with their sum as one more entry, [...,G+1]."""
    return np.concatenate([counts, counts.sum(-1, keepdims=True)], -1)


def save(result: Dissection, path: Path) -> None:
    """Writes a .npz that `load` reads; the file appears when it is whole."""
    arrays = {
        field.name: np.asarray(getattr(result, field.name))
        for field in dataclasses.fields(result)
        if field.name not in ("tally", "settings", "names", "formulas")
    }
    # A flat file of arrays, which anybody reads without this package.
    arrays |= {f.name: getattr(result.tally, f.name) for f in dataclasses.fields(result.tally)}
    arrays |= {f"formula_{f.name}": getattr(result.formulas, f.name) for f in _FORMULA}
    arrays["concept_names"] = np.array([name for name, _ in result.names])
    arrays["concept_categories"] = np.array([category for _, category in result.names])
    arrays["category_names"] = np.array(result.categories)
    save_npz(path, arrays, result.settings)


def load(path: Path) -> Dissection:
    """What `save` wrote.

    Raises:
      ValueError: no such file, or another kind of file.
    """
    return load_npz(path, _from_arrays, "a dissection")


def _from_arrays(arrays, settings):
    tally = {f.name: arrays.pop(f.name) for f in dataclasses.fields(counting.Tally)}
    names, categories = (arrays.pop(f"concept_{what}").tolist() for what in ("names", "categories"))
    del arrays["category_names"]  # they are there for other readers
    # Files of before have none.
    given = {
        f.name: arrays.pop(f"formula_{f.name}", getattr(formulas_lib.NONE, f.name))
        for f in _FORMULA
    }
    return Dissection(
        names=tuple(zip(names, categories, strict=True)),
        tally=counting.Tally(**tally),
        layer=str(arrays.pop("layer")),
        settings=settings,
        formulas=Composed(**given),
        **arrays,
    )
