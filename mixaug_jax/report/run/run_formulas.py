"""The part of a run's page about logical forms: what units detect beyond one label, beside what chance gives."""

import pathlib
from collections.abc import Iterator, Mapping

from markupsafe import Markup

from mixaug_jax.core import files
from mixaug_jax.dissection.result import Dissection
from mixaug_jax.draw import page
from mixaug_jax.draw.page import Table
from mixaug_jax.draw.unit_browser import Browser

_MOST = 100  # rows of a long table on the page; all are in its CSV file


def parts(
    source: pathlib.Path, folder: pathlib.Path, results: Mapping[str, Dissection], browser: Browser
) -> Iterator[Markup]:
    """What the dissections in `source` found, nothing where no forms were asked for; the table goes to `folder`."""
    asked = {layer: found for layer, found in results.items() if len(found.formulas.units)}
    rows = files.read_csv(source / "formulas.csv")
    if not asked or not rows:
        return
    yield page.heading("Logical forms")
    for layer, found in asked.items():
        yield page.paragraph(said(layer, found), kind="note")
    # Of all layers together, the best forms first; the table stores each layer's own order.
    rows = sorted(rows, key=lambda row: -float(row["form_iou"]))
    caption = (
        "The form of at most three concepts, joined from the left by AND, OR and AND NOT, with the largest IoU over all images "
        "that a beam search finds (Mu and Andreas, NeurIPS 2020), sorted by it. Longer forms always fit at least as well: "
        "chance is the largest IoU of as many units, searched alike, where label maps are shuffled against images."
    )
    header = [name.replace("_", " ") for name in rows[0]]
    cells = [[browser.cell(row, name) for name in row] for row in rows]
    table = page.table(folder, Table("formulas", caption, header, cells), most=_MOST)
    yield page.folded("Table of logical forms", table, long=True)


def said(layer: str, found: Dissection) -> str:
    """What the forms of a layer come to, in a sentence or two."""
    forms = found.formulas
    label, form = forms.iou[:, 0].mean(), forms.iou[:, -1].mean()
    text = (
        f"{layer}: the {len(forms.units)} sharpest units have a mean IoU of {label:.3f} with their best concept and of "
        f"{form:.3f} with their best form."
    )
    if not len(forms.null):
        return f"{text} Label maps were not shuffled, so nothing says how much of that is chance."
    shuffled = forms.null[..., -1].mean()
    return (
        f"{text} With label maps shuffled {len(forms.null)} times, forms reach {shuffled:.3f} on average and "
        f"{forms.chance[-1]:.3f} at most; the forms of {forms.above_chance.sum()} units are above that. Where no unit had to "
        f"do with any concept, one layer in {len(forms.null) + 1} would still have such a unit."
    )
