"""Sentences that say of which checkpoint results are: a page shows nothing of an older one without saying so."""

from collections.abc import Mapping

from markupsafe import Markup

from mixaug_jax.draw import page
from mixaug_jax.report.run.found_files import Steps


def notes(known: Steps, made: Mapping[str, Mapping[str, int]], name: str) -> list[Markup]:
    """A line that says the step of a stage's results; nothing where that is not known.

    Args:
      known: the run's checkpoints.
      made: the steps of the results that are shown, by stage and by the results' names.
      name: of the stage whose results to speak of.
    """
    results = made[name]
    if not results or not known.noted:
        return []
    if is_current(results, known):
        return [
            page.paragraph(f"Results of step {known.latest}, the latest checkpoint.", kind="note")
        ]
    text = f"These are results of {_which(results)}, and the latest checkpoint is that of step {known.latest}"
    return [page.paragraph(f"{text}: --stage={name} brings them up to date.", kind="note stale")]


def warning(known: Steps, made: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for the top of the page where results are not of the latest checkpoint; arguments as those of `notes`."""
    stale = {stage: r for stage, r in made.items() if known.noted and not is_current(r, known)}
    if not stale:
        return []
    said = "; ".join(f"{stage}: {_which(results)}" for stage, results in stale.items())
    return [
        f"The latest checkpoint is that of step {known.latest}, but not all results are of it ({said})."
    ]


def is_current(results: Mapping[str, int], known: Steps) -> bool:
    """Whether all results are of the latest checkpoint."""
    return set(results.values()) <= {known.latest}


def _which(results):
    """ "step 8", or what is of which step."""
    names = {}
    for name, step in results.items():
        names.setdefault(step, []).append(name)
    if len(names) == 1:
        return _step(*names)
    return ", ".join(f"{_step(step)} ({', '.join(names[step])})" for step in sorted(names))


def _step(step):
    return f"step {step}" if step >= 0 else "weights that no checkpoint of this run had"
