"""The questionnaire: filled in by a browser from disk, saved as CSV, scored; and what its page does not say."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest

from mixaug_jax.core import files
from mixaug_jax.papers.relevance.panels import logit_grid, questionnaire
from mixaug_jax.papers.relevance.panels.panel import Pictures

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")  # root has no sandbox
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
ATTRIBUTES = {"tone": "The brightness of the square", "size": "Its size"}
TRUTH = {"tone": True, "size": False}
CONSENT = "We study explanations.\nYou may stop.\n\nAnswers <b>stay</b> with you."


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questionnaire")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=60).astype(np.float32)
    images = rng.integers(256, size=(60, 8, 8, 3), dtype=np.uint8)
    values = np.full((60, 2), 0.123456, np.float32)
    shown = Pictures(images, logits, ("peaky", "stretchy"), values)
    grid = logit_grid.grid(None, shown, jax.random.key(0), rows=3)
    with_maps = dataclasses.replace(grid, maps=rng.normal(size=(3, 5, 8, 8)).astype(np.float32))
    (folder / "consent.txt").write_text(CONSENT)
    panels = {"grid": grid, "attribution": with_maps}
    return questionnaire.write(
        folder / "index.html", panels, shown, ATTRIBUTES, folder / "consent.txt"
    )


def test_the_page_holds_everything_and_no_truth(page):
    text = page.read_text()
    assert "Answers &lt;b&gt;stay&lt;/b&gt; with you." in text
    assert "We study explanations. You may stop." in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<img") == 8 + 15 + 30  # examples, the grid, and the grid with maps
    for word in ("0.123", "truth", "flip"):
        assert word not in text
    assert list(page.parent.glob("*.html")) == [page]


def test_heat_is_red_above_zero_and_blue_below():
    rng = np.random.default_rng(0)
    shown = Pictures(
        rng.integers(256, size=(9, 4, 4, 3), dtype=np.uint8),
        np.linspace(-1, 1, 9, dtype=np.float32), ("a", "b"), np.zeros((9, 0), np.float32),
    )  # fmt: skip
    panel = logit_grid.grid(None, shown, jax.random.key(0), rows=1, percents=(-50, 50))
    assert not questionnaire.heat_pictures(panel).size
    maps = np.zeros((1, 2, 4, 4), np.float32)
    maps[0, 0, 0, 0], maps[0, 0, 3, 3] = 2, -2
    found = questionnaire.heat_pictures(dataclasses.replace(panel, maps=maps))
    red, blue, even = found[0, 0, 0, 0], found[0, 0, 3, 3], found[0, 1, 0, 0]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert np.ptp(even.astype(int)) < 3


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `test` brings it")
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """visit(page, query, width) opens the page; fails at the end where the console had an error or a request was made."""
    complaints, contexts = [], []

    def open_page(path, query, width=1280):
        context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.goto(f"{path.as_uri()}?{query}")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def begin(tab):
    go = tab.locator("#consent button")
    assert go.is_disabled()
    tab.get_by_label("I have read this and take part").check()
    go.click()
    tab.locator("#instructions button").click()


def answer(tab, item, rating, confidence):
    field = tab.locator(f"fieldset[data-item='{item}']")
    field.get_by_label(rating, exact=True).check()
    field.locator("select").select_option(str(confidence))


def fill(tab, folder, *, check="cannot tell", tone="relevant"):
    begin(tab)
    answer(tab, "tone", tone, 4)
    answer(tab, "size", "irrelevant", 2)
    tab.get_by_role("button", name="Finish").click()
    assert tab.locator("#missing").inner_text() == "1 of 3 answers are missing."
    answer(tab, "check", check, 5)
    tab.get_by_role("button", name="Finish").click()
    with tab.expect_download() as download:
        tab.locator("#download").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_a_person_fills_it_in(visit, page, tmp_path):
    tab = visit(page, "c=grid&p=ann")
    path = fill(tab, tmp_path)
    assert path.name == "answers-grid-ann.csv"
    rows = {row["attribute"]: row for row in files.read_csv(path)}
    assert set(rows) == {"tone", "size"}
    assert (rows["tone"]["rating"], rows["tone"]["confidence"]) == ("relevant", 4)
    positions = {row["position"] for row in rows.values()}
    assert len(positions) == 2
    assert positions < {1, 2, 3}
    assert all(row["panel_s"] >= row["answered_after_s"] >= 0 for row in rows.values())
    kept = tab.evaluate("Object.entries(localStorage)")
    assert len(kept) == 1
    assert kept[0][0].endswith("grid ann")
    assert kept[0][1].replace("\r\n", "\n") == path.read_text().replace("\r\n", "\n")
    one = questionnaire.score([path], TRUTH)
    assert [(row.reader, row.panel, row.accuracy, row.auc, row.count) for row in one] == [
        ("people", "grid", 1.0, 1.0, 1)
    ]


def test_one_condition_each(visit, page):
    for query, images in (("c=grid&p=a", 15), ("c=attribution&p=a", 30)):
        tab = visit(page, query, 390)
        begin(tab)
        assert tab.locator(".condition").count() == 1
        assert tab.locator(".condition img").count() == images
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
    # Without c the ID decides, the same at every visit; many IDs see every condition.
    seen = []
    for person in (*range(5), *range(5)):
        tab.goto(f"{page.as_uri()}?p={person}")
        seen.append(tab.locator(".condition").get_attribute("data-condition"))
    assert seen[:5] == seen[5:]
    assert set(seen) == {"grid", "attribution"}


def test_who_did_not_look_is_left_out(visit, page, tmp_path):
    good = fill(visit(page, "c=grid&p=b"), tmp_path, tone="cannot tell")
    bad = fill(visit(page, "c=grid&p=c"), tmp_path, check="relevant")
    (row,) = questionnaire.score([good, bad, good], TRUTH)
    assert (row.count, row.left_out) == (1, 1)
    assert row.accuracy == 0.75  # one right, one half right
    assert row.auc == 1  # 0 against -2
    (none,) = questionnaire.score([bad], TRUTH)
    assert (none.count, none.left_out) == (0, 1)
    assert np.isnan(none.accuracy)


def written(folder, person, ratings, condition="grid", attentive=1):
    header = ("participant", "condition", "attribute", "rating", "confidence", "attentive")
    path = folder / f"{condition}-{person}.csv"
    rows = [(person, condition, name, *said, attentive) for name, said in ratings.items()]
    files.write_csv(path, header, rows)
    return path


def test_scores_are_means_over_people(tmp_path):
    """By hand: three people, of whom one errs about one of two attributes."""
    right = {"tone": ("relevant", 5), "size": ("irrelevant", 5)}
    wrong = {"tone": ("relevant", 1), "size": ("relevant", 5)}
    paths = [written(tmp_path, k, said) for k, said in enumerate((right, right, wrong))]
    paths.append(written(tmp_path, 0, wrong, condition="attribution"))
    other, row = questionnaire.score(paths, TRUTH)
    assert (row.panel, row.count) == ("grid", 3)
    assert row.accuracy == pytest.approx(2.5 / 3)
    assert row.low < row.accuracy < row.high <= 1
    assert row.auc == pytest.approx(2 / 3)
    assert (other.panel, other.accuracy) == ("attribution", 0.5)
    assert np.isnan(other.low)  # one person has no interval


def test_people_with_like_numbers_are_two(tmp_path):
    """007 and 7, as text."""
    right, wrong = {"tone": ("relevant", 5)}, {"tone": ("irrelevant", 5)}
    paths = [written(tmp_path, *given) for given in (("7", right), ("007", wrong), ("-1", right))]
    who = [answer.participant for answer in questionnaire.read_answers([*paths, paths[0]])]
    assert who == ["7", "007", "-1"]
    (row,) = questionnaire.score(paths, TRUTH)
    assert (row.count, row.accuracy) == (3, pytest.approx(2 / 3))


def test_answers_that_no_page_writes_are_refused(tmp_path, unchecked):
    said = {"size": ("irrelevant", 5)}
    for confidence in ("", "sure", 0, 6, 2.5, "nan"):
        path = written(tmp_path, "a", said | {"tone": ("relevant", confidence)})
        words = r"confidence in line 3 of .*grid-a\.csv must be one of 1, 2, 3, 4, 5; got "
        with pytest.raises(ValueError, match=words):
            questionnaire.score([path], TRUTH)
    for attentive in ("false", "no", "", 2):
        path = written(tmp_path, "b", said, attentive=attentive)
        with pytest.raises(ValueError, match=r"attentive in line 2 of .* one of 0, 1; got "):
            questionnaire.score([path], TRUTH)
    with pytest.raises(ValueError, match=r"the rating in line 2 of .*grid-c\.csv must be one of"):
        questionnaire.score([written(tmp_path, "c", {"tone": ("relevent", 1)})], TRUTH)


def test_what_cannot_work_is_said(tmp_path, page, unchecked):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv holds no answers of a questionnaire"):
        questionnaire.score([tmp_path / "other.csv"], TRUTH)
    path = written(tmp_path, 2, {"tone": ("relevant", 1)})
    with pytest.raises(ValueError, match="the answers of 2 are about none of nose"):
        questionnaire.score([path], {"nose": True})
    shown = Pictures(
        np.zeros((2, 4, 4, 3), np.uint8), np.array([-1.0, 1.0], np.float32), ("a", "b"),
        np.zeros((2, 0), np.float32),
    )  # fmt: skip
    panel = logit_grid.grid(None, shown, jax.random.key(0), rows=1, percents=(-50, 50))
    for empty in ("", str(tmp_path / "nowhere.txt")):
        with pytest.raises(ValueError, match=r"the text of consent, .*, must be a text file"):
            questionnaire.write(tmp_path / "a.html", {"g": panel}, shown, ATTRIBUTES, empty)
    consent = pathlib.Path(page).parent / "consent.txt"
    with pytest.raises(ValueError, match="names of panels and attributes must be of letters"):
        questionnaire.write(tmp_path / "a.html", {"g r": panel}, shown, ATTRIBUTES, consent)
