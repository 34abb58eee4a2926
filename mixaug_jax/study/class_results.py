"""What a study says of single classes."""

import dataclasses

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.study.class_answers import Answers
from mixaug_jax.study.class_statistics import Counts, Dependence, Shrunken
from mixaug_jax.study.confusions import Confusion


@dataclasses.dataclass(frozen=True)
class Link:
    """The rank correlation over classes between the change of recall and that of another number.

    Attributes:
      what: that other number, in words.
      rho: Spearman's.
      p: two-sided, by permutation.
      classes: how many have both.
      p_holm: after Holm's correction over all links of a study.
    """

    what: str
    rho: float
    p: float
    classes: int
    p_holm: float = np.nan


@dataclasses.dataclass(frozen=True)
class ClassEffect:
    """One augmentation against its reference; K classes with images, S seeds that both have.

    Attributes:
      name, reference: the two augmentations.
      seeds: [S].
      classes: int [K], numbers of the classes.
      recall: [2,K], of the reference and of the augmentation, means over seeds.
      effects: [S,K], their differences.
      means: [K,3], the mean effect of a class and the ends of its interval.
      interval_of: what these are over: "seeds", "images" (one seed: this network, not this method), or "".
      overall: the mean over classes and the ends of its t-interval over seeds.
      observed: what papers print, [1]; `null`: the same of shuffled classes.
      band: [K,2], between which ends the sorted means lie where no class differs.
      found: whether the effect differs between classes; None with too few seeds or classes, and with it the
        following but for `confused`.
      population: `tau_squared` for all images that there might be, not for these.
      p_holm: of `found`, after Holm's correction over the comparisons of the study.
      shrunken: the effects without noise.
      named: bool [K], the classes that can be named as worse.
      by_tests: bool [K], those that t-tests name.
      agreement: rank correlation between halves of the seeds.
      forgiven: the share of the losses that vanishes where a class that the image shows counts as right; NaN where that is not
        known.
      confused: pairs of classes that are confused more or less often; none with too few seeds.
      links: to other numbers of the same classes.
    """

    name: str
    reference: str
    seeds: tuple[int, ...]
    classes: np.ndarray
    recall: np.ndarray
    effects: np.ndarray
    means: np.ndarray
    interval_of: str
    overall: tuple[float, float, float]
    observed: Counts
    forgiven: float
    links: tuple[Link, ...] = ()
    null: Counts | None = None
    band: np.ndarray | None = None
    found: Dependence | None = None
    population: float = np.nan
    p_holm: float = np.nan
    shrunken: Shrunken | None = None
    named: np.ndarray | None = None
    by_tests: np.ndarray | None = None
    agreement: float = np.nan
    confused: tuple[Confusion, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether it is supported that the effect differs between classes."""
        return self.p_holm < stats.ALPHA


@dataclasses.dataclass(frozen=True)
class Strengths:
    """How recall changes with the value of a swept key; V values, S seeds, K classes.

    Attributes:
      key: that is swept; line: the config, with what else is set.
      values: [V].
      names: of the augmentations, [V].
      recall: [V,S,K].
      slopes: [S,K], least squares over the values.
      found: whether the slope differs between classes; None with too few seeds or classes.
      opposite: bool [K], classes that can be named for a slope of another sign than the mean's.
      p_holm: of `found`, after Holm's correction over all that is swept.
    """

    key: str
    line: str
    values: tuple[float, ...]
    names: tuple[str, ...]
    recall: np.ndarray
    slopes: np.ndarray
    found: Dependence | None
    opposite: np.ndarray
    p_holm: float = np.nan


@dataclasses.dataclass(frozen=True)
class ClassStudy:
    """All comparisons of a study.

    Attributes:
      answers: what the networks said.
      effects: one a comparison, those with a seed.
      between: [P,P], rank correlations over classes between the comparisons, different seeds on either side.
      strengths: of every swept key of mixing with numbers.
      problems: runs that were left out.
    """

    answers: Answers
    effects: tuple[ClassEffect, ...]
    between: np.ndarray
    strengths: tuple[Strengths, ...]
    problems: tuple[str, ...]
