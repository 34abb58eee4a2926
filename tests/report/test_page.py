"""Tables of a page: numbers, what is missing, and the CSV files beside it."""

import base64
import hashlib
import math
import re

import markupsafe
import pytest
import reports
from markupsafe import Markup

from mixaug_jax.draw import page
from mixaug_jax.draw.page import Interval, Link, Table


def test_table(tmp_path):
    rows = [
        ("b", 0.5, Interval(0.25, 0.125, 0.375, "rank 1"), Link("page", "x.html?a=1&b=2")),
        ("a", math.nan, Interval(12.0, math.nan, math.nan), None),
        ("", 100.25, None, Link("page", "y.html")),
    ]
    text = page.table(tmp_path, Table("t", "Things.", ("name", "x", "y", "z"), rows))
    assert (tmp_path / "t.csv").read_text() == (
        "name,x,y,y low,y high,z\nb,0.5,0.25,0.125,0.375,page\na,,12.0,,,\n,100.25,,,,page\n"
    )
    body = re.sub("</?small>", "", text.partition("<tbody>")[2])
    cells = re.findall(r"<t[dh][^>]*>(?:<[ab][^>]*>)?([^<]*)", body)
    assert cells == [
        "b",
        "0.5",
        "0.25 (0.12 to 0.38) rank 1",
        "page",
        "a",
        page.MISSING,
        "12.00",
        page.MISSING,
        page.MISSING,
        "100",
        page.MISSING,
        "page",
    ]
    assert "0.25 <small>(0.12 to 0.38)</small> <small>rank 1</small></td>" in text
    assert 'href="x.html?a=1&amp;b=2"' in text
    assert "stands for what was not measured" in text
    assert text.count('class="number"') == 2 + 6
    short = page.table(tmp_path, Table("t", "Things.", ("name",), [["a"], ["b"]]), most=1)
    assert "The first 1 of 2 rows; t.csv has all." in short
    assert (tmp_path / "t.csv").read_text() == "name\na\nb\n"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.03, 0.04], ["0.03", "0.04"]),
        ([2.0, 0.0], ["2", "0"]),
        ([0.12345, 1.0], ["0.123", "1.000"]),
        ([0.00012345], ["0.000123"]),
        ([math.inf, 1.5], ["inf", "1.5"]),
        ([3, 2.5], ["3", "2.5"]),
        ([12.25, 3.5], ["12.25", "3.50"]),
        ([0.0, -1.5, 400.0], ["0", "-1.5", "400"]),
        ([1234.5678, 3.25], ["1235", "3.25"]),
    ],
)
def test_decimals_suit_the_column(values, texts, tmp_path):
    text = page.table(tmp_path, Table("t", "", ("x",), [[v] for v in values]))
    assert re.findall(r"<td[^>]*>([^<]*)", text) == texts


BAD = "<script>alert('x')</script>\"&<img src=x>"


def write_all(folder):
    """A page of every kind of piece, with names that are markup."""
    (folder / "pixels.png").write_bytes(base64.b64decode(PIXEL))
    rows = [(BAD, Link(BAD, BAD), Interval(1.0, 0.5, 1.5, BAD))]
    pieces = [
        page.paragraph(BAD),
        page.labeled(BAD, BAD),
        page.missing_list([BAD]),
        page.links(BAD, [Link(BAD, BAD)]),
        page.heading(BAD),
        page.code(BAD),
        page.folded(BAD, page.missing(BAD)),
        page.table(folder, Table("t", BAD, (BAD, "y", "z"), rows)),
        page.figure(folder, "pixels", f"{BAD}. {BAD}", alt=BAD, sheet=True),
        BAD,
    ]
    text = page.document(BAD, [BAD], [page.section("a", BAD, *pieces)])
    (folder / "page.html").write_text(text, encoding="utf-8")
    return reports.Page(folder / "page.html")


# One gray pixel.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


def test_every_piece_escapes(tmp_path):
    found = write_all(tmp_path)
    assert found.open == []
    assert len(found.every("script")) == len(found.every("style")) == len(found.every("img")) == 1
    # The titles with the answer and the list, the small pieces, the table, the figure, and the text that is no piece.
    assert found.text.count(BAD) == 5 + 10 + 5 + 2 + 1
    assert found.every("section")[0]["data-title"] == found.every("img")[0]["alt"] == BAD


def test_pieces_are_markup_and_kept_sections_stay(tmp_path):
    page.write_section(tmp_path, "b", BAD, page.paragraph("later"))
    page.write_section(tmp_path, "a", "A", page.paragraph("a & b"))
    kept = page.read_sections(tmp_path)
    assert all(isinstance(part, Markup) for part in kept)
    assert kept == [page.section("a", "A", page.paragraph("a & b")),
                    page.section("b", BAD, page.paragraph("later"))]  # fmt: skip
    found = page.document("t", [], kept)
    assert f'<a href="#b">{markupsafe.escape(BAD)}</a>' in found


def test_the_policy_allows_one_style_and_one_script(tmp_path):
    found = write_all(tmp_path)
    (given,) = (m["content"] for m in found.every("meta") if "http-equiv" in m)
    rules = dict(rule.split(" ", 1) for rule in given.split("; "))
    for tag in ("style", "script"):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", found.raw, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in given
    # What a hash cannot allow is not there: styles and handlers of single elements.
    for _, attrs in found.elements:
        assert not [name for name in attrs if name == "style" or name.startswith("on")]
