"""A questionnaire of panels for people: one page without a server, answers as CSV files, scored as the simulated reader is.

Whether such a study may be done, by law and by ethics, is for the researcher to have approved.
"""

import base64
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import PIL.Image
from markupsafe import Markup

from mixaug_jax.core import checks, files, stats
from mixaug_jax.core.types import Path
from mixaug_jax.draw import page, templates
from mixaug_jax.papers.relevance.panels.panel import Panel, Pictures
from mixaug_jax.papers.relevance.panels.simulated_reader import ReaderRow, evidence_auc

ANSWERS = ("irrelevant", "relevant", "cannot tell")
LEVELS = ("not at all sure", "not very sure", "somewhat sure", "rather sure", "very sure")
CHECK = "check"  # the item that has a right answer
_EXAMPLES = 4
_TEXTS = ("participant", "condition", "attribute", "rating")  # columns of answers
_NUMBERS = {"confidence": range(1, len(LEVELS) + 1), "attentive": range(2)}
_PLACE = pathlib.Path(page.__file__).parent


def write(
    path: Path,
    panels: Mapping[str, Panel],
    pictures: Pictures,
    attributes: Mapping[str, str],
    consent: Path,
    *,
    title: str = "What does the program go by?",
) -> pathlib.Path:
    """Writes the page: consent, instructions, one panel, a rating for each attribute, and a file to save.

    Each participant sees one condition, `?c=NAME&p=ID`; without c one is chosen by the ID. Nothing is sent: answers are a CSV
    file that the participant saves, and stay in the browser's local storage. True attributes and what is
    relevant are not in the page.

    Args:
      path: of the page, *.html.
      panels: {condition: panel}; names of letters, digits, "_" and "-".
      pictures: whose images are shown as examples of the two classes: those of which the network is surest.
      attributes: {name: in words}, which are asked about.
      consent: a text file, whose paragraphs (between empty lines) are the page of consent.
      title: of the page.

    Returns:
      The path.

    Raises:
      ValueError: no panels or attributes, names that cannot stand in an address, a file of consent that is not there or empty.
    """
    if not panels or not attributes:
        raise ValueError("a questionnaire needs at least one panel and one attribute")
    for name in (*panels, *attributes):
        # Names become parts of addresses, of form fields and of columns.
        if not name.replace("_", "").replace("-", "").isalnum() or name == CHECK:
            raise ValueError(
                f"names of panels and attributes must be of letters, digits, _ and -, and not {CHECK!r}; got {name!r}"
            )
    words = paragraphs(consent)
    if not words:
        raise ValueError(
            f"the text of consent, {str(consent)!r}, must be a text file with words in it"
        )
    shown = [_condition(name, panel) for name, panel in panels.items()]
    items = [{"name": name, "text": text, "check": ""} for name, text in attributes.items()]
    text = f"This line is a check: please choose “{ANSWERS[2]}” here."
    items.append({"name": CHECK, "text": text, "check": ANSWERS[2]})
    style, script = (_part(f"questionnaire.{ending}") for ending in ("css", "js"))
    # Kept with each answer, so that answers to other pictures are not taken for these.
    version = files.checksum([panel.images for panel in panels.values()])
    content = templates.render(
        "questionnaire.html",
        title=title,
        policy=page.policy(style, script),
        style=style,
        script=script,
        version=f"{version:08x}",
        consent=words,
        classes=pictures.classes,
        examples=_examples(pictures),
        conditions=shown,
        items=items,
        answers=ANSWERS,
        levels=LEVELS,
    )
    path = pathlib.Path(path)
    files.write_text(path, content)
    return path


def _part(name):
    return Markup((_PLACE / name).read_text(encoding="utf-8"))


def paragraphs(path: Path) -> list[str]:
    """The paragraphs of a text file, between empty lines; none where it cannot be read."""
    try:
        text = pathlib.Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _examples(pictures) -> list[dict]:
    order = np.argsort(pictures.logits, kind="stable")
    sides = order[:_EXAMPLES], order[::-1][:_EXAMPLES]
    return [
        {"name": name, "sources": [_source(pictures.images[i]) for i in side]}
        for name, side in zip(pictures.classes, sides, strict=True)
    ]


def _condition(name, panel) -> dict:
    maps = heat_pictures(panel)
    rows, columns = panel.logits.shape
    names = panel.rows or ("",) * rows
    # Without attributes: whoever takes part can read the page's source.
    return {
        "name": name,
        "caption": panel.caption,
        "columns": panel.columns,
        "named": bool(panel.rows),
        "rows": [
            {
                "name": names[r],
                "cells": [
                    [_source(panel.images[r, c]), *([_source(maps[r, c])] if len(maps) else [])]
                    for c in range(columns)
                ],
            }
            for r in range(rows)
        ],
    }


def heat_pictures(panel: Panel) -> np.ndarray:
    """Heat maps of a panel as pictures uint8 [R,C,S,S,3]: red above 0, blue below, each scaled by its own largest value; empty
    where the panel has none."""
    if not len(panel.maps):
        return np.zeros((0,), np.uint8)
    maps = np.asarray(panel.maps)
    most = np.maximum(np.abs(maps).max((2, 3), keepdims=True), 1e-12)
    colored = matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * maps / most)
    return np.round(255 * colored[..., :3]).astype(np.uint8)


def _source(image):
    stream = io.BytesIO()
    PIL.Image.fromarray(image).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


class Answer(NamedTuple):
    """What one participant said: verdicts and evidence by attribute.

    Attributes:
      participant, condition: as in the address.
      attentive: whether the check was answered as asked.
      verdicts: {attribute: 1 relevant, 0 irrelevant, .5 cannot tell}.
      evidence: {attribute: confidence 1..5, negative for irrelevant, 0 for cannot tell}.
    """

    participant: str
    condition: str
    attentive: bool
    verdicts: dict[str, float]
    evidence: dict[str, float]


def read_answers(csvs: Sequence[Path]) -> list[Answer]:
    """Reads participants' files; of a participant who answered a condition more than once, the first file in the order given.

    Raises:
      ValueError: a file that is not of the questionnaire, or with a value that no page of it writes.
    """
    found: dict[tuple[str, str], Answer] = {}
    for path in csvs:
        rows = _checked_rows(path)
        who, condition = rows[0]["participant"], rows[0]["condition"]
        # Who does not know is right in half of the cases, as one who guesses.
        verdicts = {ANSWERS[0]: 0.0, ANSWERS[1]: 1.0, ANSWERS[2]: 0.5}
        said = {row["attribute"]: verdicts[row["rating"]] for row in rows}
        evidence = {
            row["attribute"]: (2 * said[row["attribute"]] - 1) * row["confidence"] for row in rows
        }
        answer = Answer(who, condition, bool(rows[0]["attentive"]), said, evidence)
        found.setdefault((who, condition), answer)
    return list(found.values())


def _checked_rows(path) -> list[dict]:
    # IDs stay as they were given: 007 is not 7.
    rows = files.read_csv(path, text=_TEXTS)
    if not rows or not {*_TEXTS, *_NUMBERS} <= set(rows[0]):
        raise ValueError(f"{path} holds no answers of a questionnaire")
    for line, row in enumerate(rows, 2):
        checks.choice(f"the rating in line {line} of {path}", row["rating"], ANSWERS)
        for name, allowed in _NUMBERS.items():
            checks.choice(f"{name} in line {line} of {path}", row[name], allowed)
    return rows


def score(csvs: Sequence[Path], truth: Mapping[str, bool]) -> list[ReaderRow]:
    """Scores people as the simulated reader is scored: a row for each condition.

    A verdict "cannot tell" counts as half right. Participants who failed the check are left out. Means are over participants,
    with t-intervals from three of them on.

    Args:
      csvs: the participants' files.
      truth: {attribute: whether it is relevant to the network}; others are not counted.

    Raises:
      ValueError: files that are not of the questionnaire, or without any attribute of `truth`.
    """
    by_condition: dict[str, list[Answer]] = {}
    for answer in read_answers(csvs):
        by_condition.setdefault(answer.condition, []).append(answer)
    return [_row(name, answers, truth) for name, answers in sorted(by_condition.items())]


def _row(condition, answers, truth):
    kept = [answer for answer in answers if answer.attentive]
    right, areas = [], []
    for answer in kept:
        names = [name for name in truth if name in answer.verdicts]
        if not names:
            raise ValueError(
                f"the answers of {answer.participant} are about none of {checks.listed(truth)}"
            )
        true = np.array([truth[name] for name in names])
        said = np.array([answer.verdicts[name] for name in names])
        right.append(float((1 - np.abs(said - true)).mean()))
        areas.append(evidence_auc(np.array([answer.evidence[name] for name in names]), true))
    accuracy = stats.mean_interval(right, (0, 1))[:3] if right else (np.nan,) * 3
    auc = stats.mean_interval(areas, (0, 1))[:3] if areas else (np.nan,) * 3
    return ReaderRow("people", condition, "", *accuracy, *auc, len(kept), len(answers) - len(kept))
