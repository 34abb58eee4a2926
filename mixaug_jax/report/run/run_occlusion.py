"""The part of a run's page about occlusion."""

import pathlib
from collections.abc import Sequence

from markupsafe import Markup

from mixaug_jax.core import files
from mixaug_jax.draw import page
from mixaug_jax.draw.page import Table
from mixaug_jax.occlusion import outcomes
from mixaug_jax.report.run import answers, found_files

_MOST = 100  # rows of a long table on the page; all are in its CSV file


def plain(name: str) -> str:
    """A name of a table, as words."""
    return name.replace("_", " ")


def section(source: pathlib.Path, folder: pathlib.Path, notes: Sequence[Markup]) -> Markup:
    """The results of occlude in `source`, after `notes`; figures and the table go to `folder`."""
    title = answers.OCCLUSION
    rows = files.read_csv(source / "sweep.csv")
    if not rows:
        return page.section("occlusion", title, page.missing("occlude: not run (--stage=occlude)."))
    said = (answers.rises(rows, _by_chance(source)), answers.words(rows))
    parts = [*notes, *(page.paragraph(text, kind="note") for text in said)]
    if found_files.copy(source, folder, "rises"):
        caption = (
            f"Change of accuracy for each way to occlude parts of the images, {rows[0]['images']} images. Dots: the interval "
            "lies above 0. Rings: the interval of the change of loss lies below 0."
        )
        parts.append(
            page.figure(
                folder,
                "rises",
                caption,
                alt="a grid of colored cells for each label, rankings in rows; the numbers are in the table",
            )
        )
    # One ranking is enough to see the kind of curve; the others wait behind a line.
    drawn = []
    for ranking in dict.fromkeys(row["ranking"] for row in rows):
        if found_files.copy(source, folder, f"curves_{ranking}"):
            caption = (
                f"Occlusion in the order of {plain(ranking)}, {rows[0]['images']} images. Change of accuracy and of loss "
                "against the share that is occluded; dotted: the change of loss to first order."
            )
            alt = f"line charts of the change of accuracy and of loss against the share occluded by {plain(ranking)}; "
            alt += "the numbers are in the table"
            drawn.append(page.figure(folder, f"curves_{ranking}", caption, alt=alt))
    parts += drawn[:1]
    if drawn[1:]:
        parts.append(page.folded("The same for other rankings", *drawn[1:]))
    rows = sorted(rows, key=lambda row: -row["accuracy_change"])
    columns = [column for column in rows[0] if column != "removal"]
    cells = [[row[column] for column in columns] for row in rows]
    caption = "All occlusions, sorted by the change of accuracy."
    whole = page.table(folder, Table("sweep", caption, [*map(plain, columns)], cells), most=_MOST)
    parts.append(page.folded("Table of occlusions", whole, long=True))
    return page.section("occlusion", title, *parts)


def _by_chance(source):
    """How many removals raise the accuracy if none has an effect, by label; {} where the sweep cannot be read."""
    try:
        swept = outcomes.load(source / "sweep.npz")
    except ValueError:
        return {}
    means = outcomes.outcome(swept).by_chance.mean(1)
    return dict(zip(swept.labels, map(float, means), strict=True))
