"""The report in headless Chromium: from disk, without a network, wide and on a phone."""

import csv
import io
import os
import pathlib
import shutil

import pytest
import reports
import studies
import toy

from mixaug_jax import data
from mixaug_jax.report import writing

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `test` brings it")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
if not CHROMIUM:
    pytest.skip("no Chromium is installed", allow_module_level=True)

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")  # root has no sandbox
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
WIDTHS = (1280, 390)
AXE = os.environ.get("MIXAUG_JAX_AXE", "")  # axe.min.js of the npm package axe-core


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Where the pages of a run and of a study are."""
    source = toy.source(24, classes=6)
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", lambda split, config, annotations=True: source)
        run = reports.write_run(folder / "run", reports.found())
        for planned in studies.asked(folder / "study", ("baseline", "cutmix", "mixup"), (0, 1)):
            worse = 0.1 * (planned.name != "baseline")
            studies.write_run(planned, accuracy=0.9 - worse - 0.01 * planned.seed)
        return {"run": writing.write_report(run), "study": writing.write_report(folder / "study")}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, pages):
    """visit(name, width, **options) opens a page; fails at the end where the console had an error or a request was made."""
    complaints, contexts = [], []

    def open_page(name, width=1280, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, offline=True, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.goto(pages[name].as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def column(tab, table, index):
    cells = f"#table-{table} tbody tr :is(td, th):nth-child({index})"
    return tab.locator(cells).all_inner_texts()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "study"])
def test_fits_and_is_whole(visit, name, width):
    tab = visit(name, width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    for details in tab.locator("summary").all():
        details.click()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.locator("h1").is_visible()
    assert tab.locator("figure .scroll").count() > 5
    pictures = "[...document.images].map((i) => i.complete && i.naturalWidth > 0 && i.width >= 250)"
    assert all(tab.evaluate(pictures))
    texts = tab.locator("p, li, td, th, figcaption, button")
    sizes = texts.evaluate_all("all => all.map((e) => parseFloat(getComputedStyle(e).fontSize))")
    assert min(sizes) >= 12


def test_tables_sort_by_number_and_by_name(visit):
    tab = visit("run")
    assert column(tab, "scores", 1) == ["gradcam", "gradient", "center", "random"]
    header = tab.locator("#table-scores thead th", has_text="pointing game")
    header.locator("button").click()
    assert column(tab, "scores", 1) == ["random", "gradient", "center", "gradcam"]
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").click()
    assert column(tab, "scores", 1) == ["gradcam", "center", "gradient", "random"]
    assert header.get_attribute("aria-sort") == "descending"
    tab.locator("#table-scores thead th", has_text="method").locator("button").focus()
    tab.keyboard.press("Enter")
    assert column(tab, "scores", 1) == ["center", "gradcam", "gradient", "random"]
    assert header.get_attribute("aria-sort") is None


def test_what_is_missing_stays_last(visit):
    tab = visit("run")
    for _ in range(2):
        tab.locator("#table-scores thead th", has_text="deletion").locator("button").click()
        assert column(tab, "scores", 4)[2:] == ["\N{EN DASH}", "\N{EN DASH}"]


@pytest.mark.parametrize("clipboard", [True, False])
def test_tables_are_copied(visit, clipboard):
    tab = visit("run", permissions=["clipboard-read", "clipboard-write"])
    if not clipboard:
        tab.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    figure = tab.locator("#table-scores")

    def copied(kind):
        figure.get_by_role("button", name=f"copy as {kind}").click()
        figure.get_by_text("copied", exact=True).wait_for()
        # Pasted, as a reader would: there may be no clipboard to ask.
        tab.evaluate("document.body.append(document.createElement('textarea'))")
        tab.locator("textarea").last.focus()
        tab.keyboard.press("Control+V")
        return tab.locator("textarea").last.input_value()

    rows = list(csv.reader(io.StringIO(copied("CSV"))))
    assert rows[0] == ["method", "kind", "pointing game", "deletion"]
    assert rows[1] == ["gradcam", "method", "0.750 (0.700 to 0.800)", "0.25 (0.20 to 0.30)"]
    assert rows[3][3] == ""
    lines = copied("LaTeX").splitlines()
    assert lines[:2] == [r"\begin{tabular}{llrr}", r"\toprule"]
    assert lines[2] == r"method & kind & pointing game & deletion \\"
    assert lines[6] == r"center & control & 0.625 (0.500 to 0.700) & -- \\"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_special_characters_of_latex(visit):
    tab = visit("run")
    tab.evaluate(
        "document.querySelector('#table-scores tbody th').textContent = 'a_b & 5% \\\\ {x} ~ ^ > #$'"
    )
    text = tab.evaluate("asLatex(document.querySelector('#table-scores table'))")
    assert (
        r"a\_b \& 5\% \textbackslash{} \{x\} \textasciitilde{} \textasciicircum{} $>$ \#\$ & method"
        in text
    )


@pytest.mark.parametrize("name", ["run", "study"])
def test_print_is_as_wide_as_paper(visit, name):
    tab = visit(name, 720)  # A4 with its margins
    tab.emulate_media(media="print")
    assert not tab.locator("details.long").first.is_visible()
    assert not tab.locator("button.copy").first.is_visible()
    assert not tab.locator("nav").is_visible()
    right = "all => Math.max(...all.map((e) => e.getBoundingClientRect().right))"
    assert tab.locator("img, table, p, pre").evaluate_all(right) <= 720


def test_print_unfolds_what_is_folded(visit):
    tab = visit("study")
    folded = tab.locator("details:not(.long)")
    assert folded.count()
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.evaluate_all("all => all.every((d) => d.open)")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not tab.locator("details[open]").count()


@pytest.mark.skipif(not AXE, reason="MIXAUG_JAX_AXE does not name a copy of axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "study"])
def test_nobody_is_shut_out(visit, name, width, scheme):
    tab = visit(name, width, color_scheme=scheme)
    for details in tab.locator("summary").all():
        details.click()
    tab.evaluate(pathlib.Path(AXE).read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run().then((result) => result.violations)")
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert not [(v["id"], v["nodes"][0]["html"][:200], len(v["nodes"])) for v in grave]


@pytest.mark.parametrize("name", ["run", "study"])
def test_dark_where_the_reader_wants_it(visit, name):
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    tab = visit(name, color_scheme="dark")
    assert tab.evaluate(ground) == "rgb(22, 24, 27)"
    # Figures are drawn in black: they keep their white.
    white = "[...document.images].map((i) => getComputedStyle(i).backgroundColor)"
    assert set(tab.evaluate(white)) == {"rgb(255, 255, 255)"}
    tab.emulate_media(media="print")
    assert tab.evaluate(ground) == "rgb(255, 255, 255)"
    assert visit(name, color_scheme="light").evaluate(ground) == "rgb(255, 255, 255)"


def test_a_page_alone_gives_its_tables_and_figures(browser, pages, tmp_path):
    alone = tmp_path / "mailed.html"
    shutil.copy(pages["run"], alone)
    beside = pages["run"].parent
    tab = browser.new_page()
    tab.goto(alone.as_uri())
    with tab.expect_download() as download:
        tab.locator("#table-scores .files a").click()
    assert download.value.suggested_filename == "scores.csv"
    content = pathlib.Path(download.value.path()).read_bytes()
    assert content == (beside / "scores.csv").read_bytes()
    with tab.expect_download() as download:
        tab.locator("#figure-training").get_by_role("button", name="save as SVG").click()
    assert download.value.suggested_filename == "training.svg"
    content = pathlib.Path(download.value.path()).read_bytes()
    assert content == (beside / "training.svg").read_bytes()
    tab.close()


def test_no_other_script_runs(browser, pages):
    tab = browser.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(pages["run"].as_uri())
    tab.evaluate(
        """() => {
          document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='window.ran = 1'>");
          const script = document.createElement("script");
          script.textContent = "window.ran = 2";
          document.body.append(script);
        }"""
    )
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in said)
    tab.close()


def test_readable_without_scripts(visit):
    tab = visit("run", java_script_enabled=False)
    assert column(tab, "scores", 1) == ["gradcam", "gradient", "center", "random"]
