"""What readers make of the panels of a network and of its controls: how right they are, and their verdicts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mixaug_jax.core.types import Bool, Count, Scalar
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, CIRCULAR, LIMITS
from mixaug_jax.papers.relevance.evaluator import Evaluator
from mixaug_jax.papers.relevance.panels import simulated_reader as reading
from mixaug_jax.papers.relevance.panels.kept_panels import Kept
from mixaug_jax.papers.relevance.panels.simulated_reader import Reader, ReaderRow, Scores

TRAINED, RANDOM, UNBIASED = "trained", "random weights", "unbiased"
SIMULATED, TRUE, LINEAR = "simulated", "true attributes", "linear, of other networks"
OWN = "the run's network"
OTHER_NETWORK = ("flow_classifier",)  # panels that explain another network than the run's
Panels = Mapping[tuple[str, str], Kept]
Truth = Bool[np.ndarray, "A"]
Truths = Mapping[str, Truth]


class Verdict(NamedTuple):
    """How often a reader calls an attribute relevant.

    Attributes:
      panel, network, attribute, reader: what is read, and by whom.
      share: of the panels of other rows.
      evidence: its median over the border that it has to be above.
      truth: whether the attribute is relevant; -1 where nobody knows.
    """

    panel: str
    network: str
    attribute: str
    reader: str
    share: float
    evidence: float
    truth: int


class Read(NamedTuple):
    """All that readers make of panels."""

    rows: list[ReaderRow]
    verdicts: list[Verdict]


def read_all(
    kept: Panels, truths: Truths, evaluator: Evaluator, *, rows: Count, jnd: Scalar, seed: Count
) -> Read:
    """Has every reader read every panel.

    Args:
      kept: {(network, kind): panel and readings}.
      truths: {network: which of the 10 attributes are relevant to it}.
      evaluator: what it reads badly is left out, but by the reader that is told the true attributes.
      rows: that a reader is shown.
      jnd: least just noticeable difference, a share of each attribute's range.
      seed: of rows and noise.
    """
    floor = np.array([jnd * np.ptp(LIMITS[name]) for name in ATTRIBUTES], np.float32)
    error = np.array([evaluator.error[name] for name in ATTRIBUTES], np.float32)
    # Beside the reader that sees pictures one that is told the attributes: what is lost between them is lost in the pictures.
    readers = {
        SIMULATED: (evaluator.kept, np.maximum(error, floor)),
        TRUE: (ATTRIBUTES, floor),
    }
    found, table, verdicts = {}, [], []
    for (network, kind), one in kept.items():
        for reader, (names, noise) in readers.items():
            values = one.readings if reader == SIMULATED else one.panel.attributes
            if not len(values) or not names:
                continue
            at = _at(names)
            looking = Reader(names, noise[at], tuple(name for name in CIRCULAR if name in names))
            truth = truths[network][at]
            panels = {"truth": truth, "rows": rows, "seed": seed}
            scores = reading.many(one.panel, np.asarray(values)[..., at], looking, **panels)
            found[reader, network, kind] = scores
            known = kind not in OTHER_NETWORK
            table += [_row(reader, kind, network, scores)] if known else []
            verdicts += _verdicts(reader, kind, network, scores, names, truth if known else None)
    return Read(table + _linear(found, truths, _at(evaluator.kept)), verdicts)


def _at(names) -> list[int]:
    return [ATTRIBUTES.index(name) for name in names]


def _row(reader, kind, network, scores):
    accuracy, auc = reading.interval(scores.accuracy), reading.interval(scores.auc)
    return ReaderRow(reader, kind, network, *accuracy, *auc, len(scores.accuracy))


def _verdicts(reader, kind, network, scores, names, truth):
    return [
        Verdict(
            kind,
            network,
            name,
            reader,
            float(scores.relevant[:, k].mean()),
            float(np.median(scores.ratio[:, k])),
            -1 if truth is None else int(truth[k]),
        )
        for k, name in enumerate(names)
    ]


def _linear(found, truths, at) -> list[ReaderRow]:
    """The one reader that is fitted: to panels of the same kind of all other networks."""
    rows = []
    for (reader, network, kind), scores in found.items():
        others = [n for r, n, k in found if (r, k) == (reader, kind) and n != network]
        if reader != SIMULATED or kind in OTHER_NETWORK or not others:
            continue
        evidence, truth = [found[reader, n, kind].ratio for n in others], truths[network][at]
        known = np.concatenate([truths[n][at] for n in others])
        if known.all() or not known.any():
            continue  # who has seen networks to which nothing is relevant has learned to say so
        chances = reading.linear_reader(evidence, [truths[n][at] for n in others], scores.ratio)
        judged = Scores(
            ((chances > 0.5) == truth).mean(1),
            np.array([reading.evidence_auc(one, truth) for one in chances]),
            chances > 0.5,
            chances,
        )
        rows.append(_row(LINEAR, kind, network, judged))
    return rows


def sentences(read: Read) -> list[str]:
    """What the simulated reader says of each relevant attribute, by kind of panel, and what else it mostly calls so."""
    by = {(v.panel, v.network, v.attribute): v for v in read.verdicts if v.reader == SIMULATED}
    texts = []
    for (kind, network, attribute), verdict in by.items():
        if network != TRAINED or verdict.truth < 0 or (not verdict.truth and verdict.share <= 0.5):
            continue
        controls = {n: by[kind, n, attribute] for n in (RANDOM, UNBIASED) if (kind, n, attribute) in by}  # fmt: skip
        beside = ", ".join(f"{100 * v.share:.0f} % of those of the network {_of(n)}" for n, v in controls.items())  # fmt: skip
        above = all(verdict.share > v.share for v in controls.values() if v.truth == 0)
        found = "found" if verdict.share > 0.5 and above else "not found"
        known = f"is relevant, is {found}" if verdict.truth else "is not relevant, is taken for it"
        text = f"{kind}: {attribute}, which {known}: called so in {100 * verdict.share:.0f} % of the panels"
        texts.append(text + (f", and in {beside}." if beside else "."))
    return texts


def all_shown(kept: Panels, rows: Count) -> str:
    """One sentence about panels that have no more than the `rows` that a reader is shown; "" where there are none."""
    few = [
        f"{kind} of {OWN if network == TRAINED else f'the network {_of(network)}'}"
        for (network, kind), one in kept.items()
        if reading.drawn_from(one.panel) <= rows
    ]
    if not few:
        return ""
    return f"Every reader is shown all that there is of {', '.join(few)}, so that intervals there are over its noise alone."


def _of(network):
    return f"with {network}" if network == RANDOM else "trained without bias"
