"""What the data say of single classes, in plain words."""

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.study import class_statistics
from mixaug_jax.study.class_results import ClassEffect, ClassStudy, Strengths
from mixaug_jax.study.sentences import listed

_WIDE = 20  # classes; of fewer the interval of tau is wide
_MOST = 8  # classes that a sentence names


def of_study(found: ClassStudy) -> list[str]:
    """A sentence or two for each comparison, and what the numbers do not bear."""
    tested = sum(effect.found is not None for effect in found.effects)
    said = [of_effect(effect, found.answers.classes, tested) for effect in found.effects]
    said += [of_strengths(one, found.answers.classes) for one in found.strengths if one.found]
    few = [e for e in found.effects if e.found is None]
    if few:
        said.append(_too_few(few[0]))
    elif 0 < len(found.effects[0].classes) < _WIDE:
        said.append(
            f"With {len(found.effects[0].classes)} classes the intervals of tau are wide, and a correlation over classes is "
            "an illustration."
        )
    return said


def of_effect(effect: ClassEffect, classes: tuple[str, ...], tested: int) -> str:
    """Whether an augmentation's effect differs between classes, and which can be named.

    Args:
      effect: the comparison.
      classes: names of all classes.
      tested: comparisons in Holm's family.
    """
    what, count = f"the effect of {effect.name}", len(effect.classes)
    below, many = int(effect.observed.worse[0]), len(effect.seeds)
    seeds = f"Over {many} seeds" if many > 1 else "With one seed"
    if effect.found is None:
        return (
            f"{seeds} {below} of {count} classes have a smaller recall under {effect.name} than under {effect.reference}, "
            "which says little: without any effect about half of them would."
        )
    chance = effect.null.worse
    low, high = np.percentile(chance, stats.PERCENTILES)
    by_chance = (
        f"{below} of {count} classes look worse; if all had the mean effect, {chance.mean():.3g} ({low:.3g} to {high:.3g}) "
        "would"
    )
    # Without support for any difference, the sharpest class is noise, however far it is out.
    if not effect.differs:
        return (
            f"{seeds} it is not supported that {what} differs between classes ({_tau(effect)}; "
            f"{_p(effect.p_holm, tested)}): no single class can be named at this number of seeds. {by_chance}."
        )
    names = [classes[m] for m in effect.classes[effect.named]]
    worse = (
        f"{len(names)} {'class' if len(names) == 1 else 'classes'} can be named as worse: {_some(names)}"
        if names
        else "no single class can be named as worse at this number of seeds"
    )
    ends = effect.shrunken.expected_interval
    return (
        f"{seeds} {what} differs between classes ({_tau(effect)}; {_p(effect.p_holm, tested)}). "
        f"{worse[:1].upper()}{worse[1:]}. The expected number of worse classes is {effect.shrunken.expected:.3g} "
        f"({ends[0]:.3g} to {ends[1]:.3g}) of {count}; {by_chance}."
    )


def of_strengths(one: Strengths, classes: tuple[str, ...]) -> str:
    """Whether classes answer differently to the strength of a mixing."""
    values = ", ".join(f"{value:g}" for value in one.values)
    text = f"Over {one.key} = {values} ({one.line}), the slope of recall "
    if not one.p_holm < stats.ALPHA:
        return f"{text}is not shown to differ between classes (p {one.p_holm:.2g})."
    names = [classes[m] for m in np.flatnonzero(one.opposite)]
    against = (
        f"against the mean go {_some(names)}"
        if names
        else "none can be named that goes against the mean"
    )
    return f"{text}differs between classes (p {one.p_holm:.2g}); {against}."


def _some(names) -> str:
    more = len(names) - _MOST
    return listed(names) if more <= 0 else f"{', '.join(names[:_MOST])} and {more} more"


def _tau(effect) -> str:
    found = effect.found
    low, high = (100 * end for end in found.tau_interval)
    value = f"{100 * found.tau:.2g} points" if found.tau_squared > 0 else "0 (negative estimate)"
    return f"tau {value}, 95 % interval {low:.2g} to {high:.2g}"


def _p(value, tested) -> str:
    family = f" after Holm's correction over {tested} comparisons" if tested > 1 else ""
    return f"p {value:.2g}{family}"


def _too_few(effect) -> str:
    count, seeds = len(effect.classes), len(effect.seeds)
    need = []
    if count < class_statistics.FEWEST_CLASSES:
        need.append(f"{class_statistics.FEWEST_CLASSES} classes (there are {count})")
    if seeds < stats.FEWEST_SEEDS:
        need.append(f"{stats.FEWEST_SEEDS} seeds (there {'is' if seeds == 1 else 'are'} {seeds})")
    more = ", changes of confusions" if seeds < stats.FEWEST_SEEDS else ""
    return (
        "Left out: how much the effect differs between classes (tau), the expected number of worse classes, their names, "
        f"whether different seeds agree{more} and the counts by chance. They need {listed(need)}."
    )
