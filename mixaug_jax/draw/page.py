"""The pieces of a page: one HTML file that holds its figures, style and script, and needs no network.

Functions return HTML made by the templates, which escape whatever a user may have named (classes, folders, settings).
"""

import base64
import dataclasses
import hashlib
import io
import math
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import PIL.Image
from markupsafe import Markup

from mixaug_jax.core import files
from mixaug_jax.draw import style, templates

MISSING = "\N{EN DASH}"
_HERE = pathlib.Path(__file__).parent
_STYLES, _SCRIPTS = (
    ("page.css", "units.css"),
    ("page.js", "units.js"),
)  # of every page, in this order
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


def paragraph(text: str, *, kind: str = "") -> Markup:
    """A paragraph; kind: "", "note" or "note missing" (something is not there)."""
    return templates.piece("paragraph", text, kind)


def labeled(label: str, text: str) -> Markup:
    """A paragraph that begins with what it is about."""
    return templates.piece("labeled", label, text[:1].upper() + text[1:])


def missing(text: str) -> Markup:
    """Says what is not there and which command makes it."""
    return paragraph(text, kind="note missing")


def missing_list(texts: Iterable[str]) -> Markup:
    """The same for many things."""
    return templates.piece("missing_list", list(texts))


def links(text: str, found: Iterable[Link]) -> Markup:
    """A sentence that ends in places to go to."""
    return templates.piece("links", text, list(found))


def heading(text: str) -> Markup:
    """A heading within a section."""
    return templates.piece("heading", text)


def code(text: str) -> Markup:
    """A command or other text as it is typed."""
    return templates.piece("code", text)


def copied(folder: pathlib.Path, name: str, text: str) -> Markup:
    """Text with a button that copies it; it is written to `<folder>/<name>`, which the page holds, too."""
    files.write_text(folder / name, text)
    return templates.piece("copied", text, name, _embedded("text/plain", text.encode()))


def folded(summary: str, *parts: str, long: bool = False) -> Markup:
    """Parts behind a line to click on; `long` ones are left out of print."""
    return templates.piece("folded", summary, _joined(parts), long)


def section(name: str, title: str, *parts: str) -> Markup:
    """A part of the page that the list at the top leads to."""
    return templates.render("section.html", name=name, title=title, inner=_joined(parts))


def _joined(parts):
    # Of what is no Markup, the join escapes the text: HTML comes from templates alone.
    return Markup("").join(parts)


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


def read_sections(workdir: pathlib.Path) -> list[Markup]:
    """What `write_section` kept, in the order of the names."""
    return [
        Markup(path.read_text(encoding="utf-8"))
        for path in sorted((workdir / "sections").glob("*.html"))
    ]


def table(folder: pathlib.Path, content: Table, *, most: int = 0) -> Markup:
    """A sortable table with buttons that copy it; all of it is written to `<folder>/<name>.csv`, which the page holds, too.

    most: rows on the page at most, the first ones; 0: all.
    """
    path = folder / f"{content.name}.csv"
    files.write_csv(path, *_flat(content))
    # The file has every row and the numbers as they are; the page has the first, rounded alike by column.
    rows = content.rows[:most] if most else content.rows
    columns = [_column([row[k] for row in rows]) for k in range(len(content.header))]
    numeric = [_is_numeric(row[k] for row in rows) for k in range(len(content.header))]
    # What a reader of the page alone would not know.
    notes = []
    if len(rows) < len(content.rows):
        notes.append(
            f"The first {len(rows)} of {len(content.rows)} rows; {content.name}.csv has all."
        )
    if any(_absent(cell) for row in rows for cell in row):
        notes.append(f"{MISSING} stands for what was not measured.")
    return templates.render(
        "table.html",
        name=content.name,
        caption=content.caption,
        notes=notes,
        columns=[*map(_head, content.header, numeric)],
        rows=[
            [_cell(k, text, row[k], numeric[k]) for k, text in enumerate(texts)]
            for row, texts in zip(rows, zip(*columns, strict=True), strict=True)
        ],
        csv=_embedded("text/csv", path.read_bytes()),
    )


def _embedded(kind, content):
    """An address that holds its content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _head(name, numeric):
    return {"name": name, "kinds": ["number"] * numeric + ["wide"] * (len(name) > 24)}


def _cell(column, text, cell, numeric):
    lines = []
    if isinstance(cell, Interval):
        text, _, rest = text.removesuffix(cell.note).partition(" ")
        lines = [line for line in (rest.strip(), cell.note) if line]
    names_row = column == 0 and not numeric
    long = not numeric and len(text) > (24 if names_row else 40)
    return {
        "tag": "th" if names_row else "td",
        "kinds": ["number"] * numeric + ["long"] * long,
        "value": _sorted_by(cell),  # sorted by the number itself, not by its text
        "text": text,
        "lines": lines,
        "address": cell.address if isinstance(cell, Link) else "",
    }


def _sorted_by(cell):
    if _absent(cell):
        return ""
    if isinstance(cell, Interval):
        return cell.value
    return cell.text if isinstance(cell, Link) else cell


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
    mixed = largest > 1 and min((n for n in floats if n), default=largest) < 0.01 * largest

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
    # A column is split where any of its cells has an interval, so that rows stay of one length.
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


def figure(
    folder: pathlib.Path, name: str, caption: str, *, alt: str, sheet: bool = False
) -> Markup:
    """An embedded figure that `style.save_figure` has written to `folder` as `name`.

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
    first, stop, rest = caption.partition(". ")
    return templates.render(
        "figure.html",
        name=name,
        # Embedded, so that the page is one file; the files beside it are for papers.
        source=_embedded(f"image/{kind}", content),
        ending=kind.partition("+")[0],
        width=width,
        sheet=sheet,
        alt=alt,
        first=first + stop.strip(),
        rest=rest,
        beside=[f"{name}{ending}" for ending in style.ENDINGS],
    )


def _drawing(path):
    content = path.read_bytes()
    points = re.search(rb'<svg[^>]*\swidth="([\d.]+)pt"', content)
    return "svg+xml", content, round(float(points[1]) * 96 / 72)


def _pixels(path):
    content = path.read_bytes()
    with PIL.Image.open(path) as picture:
        # By its own resolution, which pictures and drawings differ in.
        width = round(picture.width * 96 / picture.info.get("dpi", (style.DPI,))[0])
        if len(content) <= _LARGEST_PNG:
            return "png", content, width
        # A page with many sheets of photographs as PNG would be too large to send to anybody.
        smaller = io.BytesIO()
        picture.convert("RGB").save(smaller, "WEBP", quality=88)
    return "webp", smaller.getvalue(), width


def document(title: str, answer: Sequence[str], sections: Sequence[str]) -> Markup:
    """The whole page.

    Args:
      title: plain text.
      answer: the paragraphs at the top.
      sections: from `section`.
    """
    inner = _joined(sections)
    style = Markup(_read(_STYLES) + _widths(inner))
    script = Markup(_read(_SCRIPTS))
    # Each section says its own title, so the list at the top cannot miss one.
    found = (re.match(r'<section id="([^"]*)" data-title="([^"]*)">', part) for part in sections)
    return templates.render(
        "document.html",
        title=title,
        policy=policy(style, script),
        style=style,
        script=script,
        answer=_joined(answer),
        contents=[(part[1], Markup(part[2])) for part in found],
        sections=inner,
    )


def policy(style: str, script: str) -> str:
    """The content security policy of a page with this style and script: nothing else runs, and nothing is requested."""
    allowed = {"default": "'none'", "img": "data:", "style": _hash(style), "script": _hash(script)}
    rules = [f"{what}-src {source}" for what, source in allowed.items()]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _hash(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read(names):
    return "".join((_HERE / name).read_text(encoding="utf-8") for name in names)


def _widths(inner):
    """The natural widths of the figures as rules of the one style: the policy allows no styles of single elements."""
    found = sorted({int(width) for width in re.findall(r'<img [^>]*\bwidth="(\d+)"', inner)})
    return "".join(f'img[width="{width}"] {{ --width: {width}px; }}\n' for width in found)
