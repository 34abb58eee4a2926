"""The pieces of a page: one HTML file that holds its figures, style and script, and needs no network.

Functions return HTML text; whatever a user may have named (classes, folders, settings) is escaped.
"""

import base64
import dataclasses
import html
import io
import math
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import PIL.Image

from mixaug_jax.core import files
from mixaug_jax.draw import style

MISSING = "\N{EN DASH}"
_HERE = pathlib.Path(__file__).parent
_LARGEST_PNG = 200_000  # bytes; a larger sheet is embedded as WebP, its PNG stays beside the page


class Interval(NamedTuple):
    """A number, the ends of its interval and a remark, on a smaller line below it; sorted by the number."""

    value: float
    low: float
    high: float
    note: str = ""  # of the page; a CSV file has the numbers alone


class Link(NamedTuple):
    """Text that leads to another page."""

    text: str
    address: str


Cell = str | int | float | Interval | Link | None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
      name: of the CSV file, unique in the report.
      caption: what it says, plain text.
      header: the columns' names.
      rows: one cell a column; None, "" and NaN are missing.
    """

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def escape(value: Any) -> str:
    """Text that is safe in an element and in an attribute."""
    return html.escape(str(value), quote=True)


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph; kind: "", "note" or "note missing" (something is not there)."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def labeled(label: str, text: str) -> str:
    """A paragraph that begins with what it is about."""
    return f"<p><strong>{escape(label)}.</strong> {escape(text[:1].upper() + text[1:])}</p>"


def missing(text: str) -> str:
    """Says what is not there and which command makes it."""
    return paragraph(text, kind="note missing")


def missing_list(texts: Iterable[str]) -> str:
    """The same for many things."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="note missing">{items}</ul>'


def links(text: str, found: Iterable[Link]) -> str:
    """A sentence that ends in places to go to."""
    listed = ", ".join(f'<a href="{escape(a)}">{escape(name)}</a>' for name, a in found)
    return f'<p class="note">{escape(text)} {listed}.</p>'


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def code(text: str) -> str:
    """A command or other text as it is typed."""
    return f"<pre><code>{escape(text)}</code></pre>"


def folded(summary: str, *parts: str, long: bool = False) -> str:
    """Parts behind a line to click on; `long` ones are left out of print."""
    kind = ' class="long"' if long else ""
    return f"<details{kind}><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page that the list at the top leads to."""
    inner = "".join(parts)
    return f'<section id="{name}" data-title="{escape(title)}"><h2>{escape(title)}</h2>{inner}</section>'


def write_section(workdir: pathlib.Path | str, name: str, title: str, *parts: str) -> None:
    """Keeps a part of the page in `<workdir>/sections/<name>.html`: what a stage or a paper offers to the page of its run.

    Args:
      workdir: of the run.
      name: of the file and of the section's anchor.
      title: plain text.
      parts: HTML from the functions of this module.
    """
    path = pathlib.Path(workdir) / "sections" / f"{name}.html"
    files.write_text(path, section(name, title, *parts))


def read_sections(workdir: pathlib.Path) -> list[str]:
    """What `write_section` kept, in the order of the names."""
    return [
        path.read_text(encoding="utf-8") for path in sorted((workdir / "sections").glob("*.html"))
    ]


def table(folder: pathlib.Path, content: Table, *, most: int = 0) -> str:
    """A sortable table with buttons that copy it; all of it is written to `<folder>/<name>.csv`.

    most: rows on the page at most, the first ones; 0: all.
    """
    files.write_csv(folder / f"{content.name}.csv", *_flat(content))
    # The file has every row and the numbers as they are; the page has the first, rounded alike by column.
    rows = content.rows[:most] if most else content.rows
    columns = [_column([row[k] for row in rows]) for k in range(len(content.header))]
    numeric = [_is_numeric(row[k] for row in rows) for k in range(len(content.header))]
    head = "".join(map(_head, content.header, numeric))
    body = "".join(
        "<tr>"
        + "".join(_cell(k, text, row[k], numeric[k]) for k, text in enumerate(texts))
        + "</tr>"
        for row, texts in zip(rows, zip(*columns, strict=True), strict=True)
    )
    # What a reader of the page alone would not know.
    notes = []
    if len(rows) < len(content.rows):
        notes.append(
            f"The first {len(rows)} of {len(content.rows)} rows; {content.name}.csv has all."
        )
    if any(_absent(cell) for row in rows for cell in row):
        notes.append(f"{MISSING} stands for what was not measured.")
    caption = escape(content.caption) + "".join(f" {escape(note)}" for note in notes)
    return (
        f'<figure class="table" id="table-{content.name}"><figcaption>{caption}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="table {escape(content.name)}">'
        f'<table aria-label="{escape(content.caption)}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        '<div class="files"><button type="button" class="copy" data-copy="csv">copy as CSV</button>'
        '<button type="button" class="copy" data-copy="latex">copy as LaTeX</button>'
        f'<a href="{content.name}.csv">{content.name}.csv</a><span role="status"></span></div></figure>'
    )


def _head(name, numeric):
    kinds = ["number"] * numeric + ["wide"] * (len(name) > 24)
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    return f'<th scope="col"{kind}><button type="button">{escape(name)}</button></th>'


def _cell(column, text, cell, numeric):
    inner = escape(text)
    if isinstance(cell, Interval):
        value, _, rest = text.removesuffix(cell.note).partition(" ")
        smaller = (f" <small>{escape(line)}</small>" for line in (rest.strip(), cell.note) if line)
        inner = escape(value) + "".join(smaller)
    if isinstance(cell, Link):
        inner = f'<a href="{escape(cell.address)}">{inner}</a>'
    # Sorted by the number itself, not by its text.
    data = f' data-value="{escape(_sorted_by(cell))}"'
    if column == 0 and not numeric:
        long = ' class="long"' if len(text) > 24 else ""
        return f'<th scope="row"{long}{data}>{inner}</th>'
    long = ' class="long"' if len(text) > 40 else ""
    return f"<td{_number(numeric) or long}{data}>{inner}</td>"


def _sorted_by(cell):
    if _absent(cell):
        return ""
    if isinstance(cell, Interval):
        return cell.value
    return cell.text if isinstance(cell, Link) else cell


def _number(numeric):
    return ' class="number"' if numeric else ""


def _absent(cell) -> bool:
    if isinstance(cell, Interval):
        return _absent(cell.value)
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _is_numeric(column: Iterable[Cell]) -> bool:
    return all(isinstance(c, int | float | Interval) for c in column if not _absent(c))


def _column(cells: Sequence[Cell]) -> list[str]:
    """The cells as text, floats with as many decimals as suit the column."""
    # Ends of intervals count, too: they are printed with the same decimals.
    numbers = [n for c in cells for n in (c[:3] if isinstance(c, Interval) else [c])]
    floats = [abs(n) for n in numbers if isinstance(n, float) and math.isfinite(n)]
    largest = max(floats, default=0)
    most = 3 if largest < 10 else 2 if largest < 100 else 1
    exact = (d for d in range(most) if all(math.isclose(n, round(n, d)) for n in floats))
    decimals = next(exact, most)
    # Of different units, as differences of accuracies and of counts: digits, not decimals.
    mixed = largest >= 1 and min((n for n in floats if n), default=largest) < 0.01 * largest

    def text(cell: Cell) -> str:
        if _absent(cell):
            return MISSING
        if isinstance(cell, Interval):
            ends = text(cell.low), text(cell.high)
            parts = ["" if MISSING in ends else f"({ends[0]} to {ends[1]})", cell.note]
            return " ".join([text(cell.value), *filter(None, parts)])
        if isinstance(cell, float) and (largest < 0.01 or mixed):
            return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:.0f}"
        if isinstance(cell, float):
            return f"{cell:.{decimals}f}"
        return cell.text if isinstance(cell, Link) else str(cell)

    return [text(cell) for cell in cells]


def _flat(content: Table) -> tuple[list[str], list[list]]:
    """Header and rows for a CSV file: an interval is three columns, what is missing is empty."""
    split = [
        any(isinstance(row[k], Interval) for row in content.rows)
        for k in range(len(content.header))
    ]
    header = []
    for name, three in zip(content.header, split, strict=True):
        header += [name, f"{name} low", f"{name} high"] if three else [name]
    rows = []
    for row in content.rows:
        flat = []
        for cell, three in zip(row, split, strict=True):
            if three:
                flat += cell[:3] if isinstance(cell, Interval) else [cell, None, None]
            else:
                flat.append(cell.text if isinstance(cell, Link) else cell)
        rows.append(["" if _absent(cell) else cell for cell in flat])
    return header, rows


def figure(folder: pathlib.Path, name: str, caption: str, *, alt: str, sheet: bool = False) -> str:
    """An embedded figure that is in `folder` as `<name>.svg` and `<name>.png`.

    Args:
      folder: where the page is written.
      name: of the files, without ending.
      caption: plain text; the part before the first full stop is set bold.
      alt: what there is to see, for those who cannot.
      sheet: of pictures, which is embedded as pixels; drawings are embedded as SVG.
    """
    kind, content, width = (
        _pixels(folder / f"{name}.png") if sheet else _drawing(folder / f"{name}.svg")
    )
    # Embedded, so that the page is one file; the files beside it are for papers.
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    first, stop, rest = caption.partition(". ")
    return (
        f'<figure id="figure-{escape(name)}">'
        f'<div class="scroll{" sheet" * sheet}" tabindex="0" role="region" aria-label="figure {escape(name)}">'
        f'<img src="{source}" alt="{escape(alt)}" style="--width: {width}px"></div>'
        f"<figcaption><strong>{escape(first + stop.strip())}</strong> {escape(rest)}</figcaption>"
        f'<div class="files"><a href="{escape(name)}.png">PNG</a><a href="{escape(name)}.svg">SVG</a></div></figure>'
    )


def _drawing(path):
    content = path.read_bytes()
    points = re.search(rb'<svg[^>]*\swidth="([\d.]+)pt"', content)
    return "svg+xml", content, round(float(points[1]) * 96 / 72)


def _pixels(path):
    content = path.read_bytes()
    with PIL.Image.open(path) as picture:
        width = round(picture.width * 96 / style.DPI)
        if len(content) <= _LARGEST_PNG:
            return "png", content, width
        # A page with many sheets of photographs as PNG would be too large to send to anybody.
        smaller = io.BytesIO()
        picture.convert("RGB").save(smaller, "WEBP", quality=88)
    return "webp", smaller.getvalue(), width


def _read(*names):
    return "".join((_HERE / name).read_text(encoding="utf-8") for name in names)


def document(title: str, answer: Sequence[str], sections: Sequence[str]) -> str:
    """The whole page.

    Args:
      title: plain text.
      answer: the paragraphs at the top.
      sections: from `section`.
    """
    # Each section says its own title, so the list at the top cannot miss one.
    found = (re.match(r'<section id="([^"]*)" data-title="([^"]*)">', part) for part in sections)
    links = "".join(f'<li><a href="#{part[1]}">{part[2]}</a></li>' for part in found)
    # The policy forbids every request, so the page is the same with and without a network.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{_read("page.css", "units.css")}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<div class="answer">{"".join(answer)}</div>
<nav aria-label="contents"><ul>{links}</ul></nav>
</header>
{"".join(sections)}
</main>
<script>
{_read("page.js", "units.js")}</script>
</body>
</html>
"""
