"""The part of a run's page about occlusion."""

import pathlib
from collections.abc import Sequence

from markupsafe import Markup

from mixaug_jax.core import files
from mixaug_jax.draw import occlusion_figures, page
from mixaug_jax.draw.page import Table
from mixaug_jax.occlusion import outcomes
from mixaug_jax.report.run import answers, found_files

# What is said of figures whose sweep.npz cannot be read any more.
_RISES = "Change of accuracy when parts of the images are removed."
_CURVES = "Change of accuracy and of loss by the share removed, in the order of {}."
_ALT = "what the table of removals lists"
_MOST = 100  # rows of a long table on the page; all are in its CSV file


def plain(name: str) -> str:
    """A name of a table, as words."""
    return name.replace("_", " ")


def section(
    source: pathlib.Path, folder: pathlib.Path, notes: Sequence[Markup], class_names: Sequence[str]
) -> Markup:
    """The results of occlude in `source`, after `notes`; figures and the table go to `folder`."""
    title = answers.OCCLUSION
    rows = files.read_csv(source / "sweep.csv")
    if not rows:
        return page.section("occlusion", title, page.missing("occlude: not run (--stage=occlude)."))
    swept = _loaded(source)
    found = outcomes.outcome(swept) if swept else None
    said = (answers.rises(rows, _by_chance(swept, found), class_names), answers.words(rows))
    parts = [*notes, *(page.paragraph(text, kind="note") for text in said)]
    if found_files.copy(source, folder, "rises"):
        caption, alt = _RISES, _ALT
        if swept:
            caption = occlusion_figures.rises_caption(swept, found)
            alt = occlusion_figures.rises_alt(swept, found)
        parts.append(page.figure(folder, "rises", caption, alt=alt))
    # One ranking is enough to see the kind of curve; the others wait behind a line.
    drawn = []
    for ranking in dict.fromkeys(row["ranking"] for row in rows):
        if found_files.copy(source, folder, f"curves_{ranking}"):
            caption, alt = _CURVES.format(plain(ranking)), _ALT
            if swept:
                caption = occlusion_figures.curves_caption(swept, found, ranking)
                alt = occlusion_figures.curves_alt(swept, found, ranking)
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


def _loaded(source):
    """The sweep, or None where it cannot be read: its table is there without it."""
    try:
        return outcomes.load(source / "sweep.npz")
    except ValueError:
        return None


def _by_chance(swept, found):
    """How many removals raise the accuracy if none has an effect, by label; {} without a sweep."""
    if not swept:
        return {}
    return dict(zip(swept.labels, map(float, found.by_chance.mean(1)), strict=True))
