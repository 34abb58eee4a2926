"""The part of a study's page about animals: which attributes the networks of each augmentation use."""

import pathlib

from mixaug_jax.draw import page
from mixaug_jax.draw.page import Table
from mixaug_jax.papers.relevance.attribute_relevance import CONTROL
from mixaug_jax.report.study import study_numbers
from mixaug_jax.study import sentences
from mixaug_jax.study.results import Study

TITLE = "Which attributes the networks use"


def section(study: Study, folder: pathlib.Path) -> str:
    """Flip rates by attribute, accuracies where a bias pays or costs, and pointing; "" of networks that know no animals."""
    # No section and no line about a missing one: most studies are of other data.
    measures = study.find("relevance")
    if not measures:
        return ""
    count = range(len(study.augmentations))
    rows = [
        (sentences.title(study.measures[m]), *(study_numbers.mean(study, a, m) for a in count))
        for m in measures
    ]
    caption = (
        "Attributes of animals, means over seeds. A flip rate is the share of predictions that change where that attribute "
        f"alone is drawn again; that of {CONTROL}, which tells nothing of the class, is the level to compare with. On unbiased "
        "animals a bias costs accuracy, on those with ambiguous arms it pays. The class lies between head and right arms. "
        f"{study_numbers.what_intervals_are(study.interval_of[:, list(measures)])}"
    )
    table = Table("relevance", caption, ("measure", *study.augmentations), rows)
    return page.section("relevance", TITLE, page.table(folder, table))
