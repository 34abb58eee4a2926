"""Tables of a page: numbers, what is missing, and the CSV files beside it."""

import math
import re

import pytest

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
