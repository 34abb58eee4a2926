"""What a study found: every run's numbers, and what they say about the augmentations."""

import dataclasses
from typing import Any

import numpy as np

from mixaug_jax.core.frames import frame
from mixaug_jax.study.class_results import ClassStudy
from mixaug_jax.study.crossing import CrossDeletion
from mixaug_jax.study.measures import Measure


@dataclasses.dataclass(frozen=True)
class Study:
    """Many runs compared; A augmentations, S seeds, M measures, P comparisons. Arrays are float64; NaN is "not there".

    Intervals cover 95 %. Where three seeds or more are there they are t-intervals over seeds (n - 1 degrees of freedom), cut to
    the measure's scale: of the mean in `interval`, of the mean difference, paired by seed, in `difference_interval`. Each holds
    for one comparison. Two seeds have neither interval nor p: their spread is not known well enough, and the two points say
    all. With one seed nothing is known of the spread between trainings: the interval is then that over bootstrap resamples of
    the images (percentiles 2.5 and 97.5; the same images for both sides of a difference), which says how much the number hangs
    on the choice of test images for these very networks; NaN where a run keeps no scores of single images (accuracy), or
    resampling shifts the number (concepts). `interval_of` says which. A difference that is the same in all seeds has no
    interval: a few equal numbers do not show how far others may lie apart.

    Attributes:
      augmentations: names of the folders, [A]; the first is what the others are compared with.
      seeds: [S].
      measures: [M].
      values: [A, S, M], one number a run.
      image_intervals: [A, S, M, 2], of each run's number over bootstrap resamples of its images.
      mean: [A, M], over the seeds that are there.
      interval: [A, M, 2].
      n: int64 [A, M], seeds that are there.
      interval_of: str array [A, M], what `interval` is over: "seeds", "images" or "".
      rank: [A, M], NaN where no difference of the measure is supported, else 1 is the best (the largest, where `better` is 0):
        the mean over seeds of the rank among the augmentations with a number; equal numbers share the mean of their ranks.
        Seeds that miss an augmentation are left out.
      comparisons: [P] of (augmentation, reference): each augmentation and the first; then each with unmixed labels and the same
        with mixed ones.
      difference: [P, M], augmentation minus reference, mean over the seeds that both have.
      difference_interval: [P, M, 2].
      pairs: int64 [P, M], seeds that both have.
      difference_of: str array [P, M], what `difference_interval` is over: "seeds", "images" or "".
      p: [P, M], two-sided p of the paired t-test; NaN with fewer than three pairs, and where all pairs have the same difference
        (there is no spread to go by).
      p_holm: [P, M], p after Holm's correction over the family; NaN where there is no p or the measure is no headline. A family
        is all the comparisons with the first augmentation, or all those of labels, on all headline measures of one axis.
      sentences: {axis: text}, what the data support and what they do not; the axes that were looked at.
      at_chance: {(augmentation, seed): sentence} of the networks whose accuracy does not exceed chance. Their numbers are in
        `values` and `mean`, but in no difference, rank or sentence.
      problems: sentences about what is missing or was left out, e.g. "cutmix seed 1: no dissection".
      failed: those about runs that gave nothing, or whose last try failed.
      workdirs: {(augmentation, seed): path of the run's working directory}, those that are there.
      cross_deletion: {seed: CrossDeletion}.
      asked: study.json: {"configs": {name: settings without the seed}, "seeds", "overrides", "commands"}; `commands` is
        {"name/seed": command} that makes each run.
      classes: gains and losses of single classes; None where no run has predictions of single images.
    """

    augmentations: tuple[str, ...]
    seeds: tuple[int, ...]
    measures: tuple[Measure, ...]
    values: np.ndarray
    image_intervals: np.ndarray
    mean: np.ndarray
    interval: np.ndarray
    n: np.ndarray
    interval_of: np.ndarray
    rank: np.ndarray
    comparisons: tuple[tuple[str, str], ...]
    difference: np.ndarray
    difference_interval: np.ndarray
    pairs: np.ndarray
    difference_of: np.ndarray
    p: np.ndarray
    p_holm: np.ndarray
    sentences: dict[str, str]
    at_chance: dict[tuple[str, int], str]
    problems: tuple[str, ...] = ()
    workdirs: dict[tuple[str, int], str] = dataclasses.field(default_factory=dict)
    cross_deletion: dict[int, CrossDeletion] = dataclasses.field(default_factory=dict)
    asked: dict = dataclasses.field(default_factory=dict)
    failed: tuple[str, ...] = ()
    classes: ClassStudy | None = None

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each number of a run: augmentation, seed, what is measured, the
        value, and low and high of its interval over images."""
        a, s, m = np.nonzero(~np.isnan(self.values))
        measured = [self.measures[k] for k in m]
        fields = ("axis", "name", "subject", "setting", "level", "category", "better", "headline")
        return frame(
            {"augmentation": np.take(self.augmentations, a), "seed": np.take(self.seeds, s)}
            | {field: [getattr(one, field) for one in measured] for field in fields}
            | {"value": self.values[a, s, m]}
            | {end: self.image_intervals[a, s, m, k] for k, end in enumerate(("low", "high"))}
        )

    @property
    def headlines(self) -> tuple[int, ...]:
        """Indices of the headline measures, in the order of `measures`."""
        return tuple(i for i, m in enumerate(self.measures) if m.headline)

    def find(
        self,
        axis: str,
        name: str = "",
        *,
        subject: str = "",
        setting: str = "",
        level: float = 0.0,
        category: str = "",
    ) -> tuple[int, ...]:
        """Indices of the measures with all that is given; "" and 0 mean any."""
        wanted = {"axis": axis, "name": name, "subject": subject, "setting": setting}
        wanted |= {"level": level, "category": category}
        wanted = {key: value for key, value in wanted.items() if value}
        return tuple(
            i
            for i, measure in enumerate(self.measures)
            if all(getattr(measure, key) == value for key, value in wanted.items())
        )
