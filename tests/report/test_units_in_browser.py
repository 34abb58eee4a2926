"""The unit browser in headless Chromium: filtered, sorted, opened by address and by keyboard, on a screen and on a phone."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
import unit_cases

from mixaug_jax.draw import page, unit_browser

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `test` brings it")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
if not CHROMIUM:
    pytest.skip("no Chromium is installed", allow_module_level=True)

AXE = os.environ.get("MIXAUG_JAX_AXE", "")  # axe.min.js of the npm package axe-core
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")  # root has no sandbox
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
UNITS = {"layer3": 6, "block/1 a": 30}


@pytest.fixture(scope="module")
def layers():
    made = {name: unit_cases.layer(units, layer=name) for name, units in UNITS.items()}
    result, pictures = made["layer3"]
    made["layer3"] = dataclasses.replace(result, formulas=unit_cases.FORMS), pictures
    return made


@pytest.fixture(scope="module")
def written(layers, tmp_path_factory):
    """The page's path."""
    folder = tmp_path_factory.mktemp("units")
    results = {name: result for name, (result, _) in layers.items()}
    pictures = {name: made for name, (_, made) in layers.items()}
    removed = {"layer3": unit_cases.removed(results["layer3"])}
    made = unit_browser.write(folder, results, pictures, removed)
    rows = [(f"{n} {u}", page.Link(str(u), made.address(n, u))) for n in UNITS for u in (0, 3)]
    table = page.table(folder, page.Table("all", "All units.", ("layer", "unit"), rows))
    section = page.section("concepts", "Concepts", page.heading("Unit browser"), made.html, table)
    path = folder / "report.html"
    path.write_text(page.document("Run", [], [section]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, written):
    """visit(fragment, width, **options) opens the page; fails at the end where the console had an error or a request failed."""
    complaints, contexts = [], []

    def open_page(fragment="", width=1280, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, offline=True, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.goto(written.as_uri() + fragment)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def listed(tab):
    """(layer, unit) of the list, in its order."""
    ids = tab.locator(".units-list [role=option]").evaluate_all("all => all.map((e) => e.id)")
    parts = [one.removeprefix("unit-").rpartition("-") for one in ids]
    return [(layer, int(unit)) for layer, _, unit in parts]


def values(layers):
    """{(layer, unit): IoU} of all units."""
    return {
        (n, u): v for n, (r, _) in layers.items() for u, v in enumerate(r.top_labels(1)[1][:, 0])
    }


def chosen(tab):
    (one,) = tab.locator("[aria-selected=true]").evaluate_all("all => all.map((e) => e.id)")
    return one


def test_every_unit_is_listed_once(visit, layers):
    tab = visit()
    found = listed(tab)
    assert len(found) == sum(UNITS.values())
    assert set(found) == {(n, u) for n, count in UNITS.items() for u in range(count)}
    assert tab.locator(".units [role=status]").inner_text() == "36 of 36 units"
    # The best match first.
    iou = [round(values(layers)[place], 4) for place in found]
    assert iou == sorted(iou, reverse=True)
    # Of a page that nobody has touched the address stays as it was, and so does the place.
    assert "#" not in tab.url
    assert tab.evaluate("scrollY") == 0


def test_filters(visit, layers):
    tab = visit()
    tab.get_by_label("layer", exact=True).select_option("layer3")
    assert set(listed(tab)) == {("layer3", u) for u in range(6)}
    tab.get_by_label("layer", exact=True).select_option("")
    tab.get_by_label("concept contains").fill("DO")
    best = {(n, u): r.names[c] for n, (r, _) in layers.items()
            for u, c in enumerate(r.top_labels(1)[0][:, 0]) if u}  # fmt: skip
    assert set(listed(tab)) == {place for place, (name, _) in best.items() if name == "dog"}
    tab.get_by_label("concept contains").fill("")
    tab.get_by_label("category").select_option("part")
    assert set(listed(tab)) == {place for place, (_, kind) in best.items() if kind == "part"}
    tab.get_by_label("category").select_option("")
    tab.get_by_label("IoU at least").fill("0.08")
    assert set(listed(tab)) == {p for p, v in values(layers).items() if float(f"{v:.4g}") >= 0.08}
    tab.get_by_label("IoU at least").fill("0")
    tab.get_by_label("live or dead").select_option("dead")
    assert set(listed(tab)) == {("layer3", 0), ("block/1 a", 0)}
    assert tab.locator(".units-verdict").inner_text().startswith("dead")
    assert not tab.locator(".units-detail canvas").count()
    tab.get_by_label("concept contains").fill("nothing like it")
    assert listed(tab) == []
    assert tab.locator(".units [role=status]").inner_text() == "0 of 36 units"
    assert tab.locator(".units-detail").inner_text() == ""


@pytest.mark.parametrize("order", ["unit", "concept", "threshold", "area"])
def test_orders(visit, layers, order):
    tab = visit()
    tab.get_by_label("layer", exact=True).select_option("block/1 a")
    tab.get_by_label("order by").select_option(order)
    found = [unit for _, unit in listed(tab)]
    result = layers["block/1 a"][0]
    assert sorted(found) == list(range(30))
    if order == "unit":
        assert found == list(range(30))
    if order == "area":
        area = result.tally.unit[found]
        assert (np.diff(area) <= 0).all()
    if order == "concept":
        names = [result.names[result.top_labels(1)[0][unit, 0]][0] for unit in found[:-1]]
        assert names == sorted(names)
        assert found[-1] == 0  # dead, so without a concept


def shown(tab, title):
    """Waits until the chosen unit is called so: a browser follows an address when it comes to it."""
    tab.locator(".units-detail h4").get_by_text(title, exact=True).wait_for(timeout=10_000)


def test_a_unit_is_opened_by_its_address(visit):
    tab = visit("#unit-block%2F1%20a-7")
    shown(tab, "Unit 7 of block/1 a")
    assert tab.evaluate("document.activeElement.id") == "unit-block/1 a-7" == chosen(tab)
    assert tab.locator(".units-panes").evaluate(
        "e => e.getBoundingClientRect().top < innerHeight && e.getBoundingClientRect().bottom > 0"
    )
    # Where it is filtered out, the filters give way.
    tab.get_by_label("live or dead").select_option("dead")
    tab.locator("#table-all tbody tr", has_text="layer3 3").locator("a").click()
    assert tab.url.endswith("#unit-layer3-3")
    shown(tab, "Unit 3 of layer3")
    assert tab.locator(".units [role=status]").inner_text() == "36 of 36 units"
    tab.go_back()
    shown(tab, "Unit 7 of block/1 a")


@pytest.mark.parametrize("fragment", ["#unit-layer3-99", "#%E0%A4%A", "#concepts"])
def test_other_addresses_are_no_units(visit, layers, fragment):
    tab = visit(fragment)
    best = max(values(layers), key=values(layers).get)
    assert chosen(tab) == f"unit-{best[0]}-{best[1]}"


def test_by_keyboard(visit):
    tab = visit()
    ids = [f"unit-{layer}-{unit}" for layer, unit in listed(tab)]
    tab.get_by_label("order by").focus()
    tab.keyboard.press("Tab")
    focused = "document.activeElement.id"
    assert tab.evaluate(focused) == ids[0]
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for key, place in [("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("PageDown", 11),
                       ("End", 35), ("ArrowDown", 35), ("PageUp", 25), ("Home", 0), ("ArrowUp", 0)]:  # fmt: skip
        tab.keyboard.press(key)
        assert tab.evaluate(focused) == ids[place] == chosen(tab)
        assert tab.evaluate(outline) == "solid"
        seen = """e => e.offsetTop >= e.parentElement.scrollTop &&
            e.offsetTop + e.offsetHeight <= e.parentElement.scrollTop + e.parentElement.clientHeight + 1"""
        assert tab.locator("[aria-selected=true]").evaluate(seen)
    assert tab.locator("[role=option][tabindex='0']").count() == 1
    tab.keyboard.press("ArrowDown")
    assert tab.url.endswith("#" + ids[1].replace("/", "%2F").replace(" ", "%20"))


def until(tab, condition):
    """Waits until it holds; Playwright's own way of waiting is a script that the page's policy forbids."""
    for _ in range(200):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    pytest.fail(f"{condition} never held")


def pixels(tab, number):
    """A canvas beside the list as uint8 [h,w,3], once it is drawn."""
    canvas = tab.locator(".units-detail canvas").nth(number)
    until(tab, f"document.querySelectorAll('.units-detail canvas')[{number}]?.dataset.drawn")
    size, data = canvas.evaluate(
        "e => [[e.height, e.width], [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data]]"
    )
    return np.array(data, np.uint8).reshape(*size, 4)[..., :3]


def test_the_pictures_are_the_image_and_its_mask(visit, layers):
    tab = visit("#unit-layer3-1")
    result, pictures = layers["layer3"]
    names = tab.locator(".units-detail canvas").evaluate_all(
        "all => all.map((e) => e.getAttribute('aria-label'))"
    )
    index = result.top_images[1, 0]
    assert len(names) == 10
    assert names[0] == f"image {index}"
    assert names[1].startswith(f"image {index}, bright where unit 1 is on; ")
    photo, masked = pixels(tab, 0).astype(int), pixels(tab, 1).astype(int)
    truth = unit_cases.source()[int(index)]["image"].astype(int)
    rows = (np.arange(len(photo)) + 0.5) * 96 / len(photo)
    near = truth[rows.astype(int)][:, rows.astype(int)]
    assert np.abs(photo - near).mean() < 12
    # Away from borders, on is as it was and off is dark.
    on = pictures.on[1, 0][rows.astype(int)][:, rows.astype(int)]
    assert 0 < on.mean() < 1
    assert np.median(np.abs(masked - photo).max(-1)[on]) <= 2
    assert np.quantile(masked.max(-1)[~on], 0.7) < 95
    # The outline is white and there is none on the photo.
    assert (masked.min(-1) > 250).any()
    text = tab.locator(".units-detail").inner_text()
    assert "detects dog (object)" in text
    assert f"threshold {result.threshold[1]:g}" in text


def test_what_a_unit_is_needed_for(visit, layers):
    tab = visit("#unit-layer3-1")
    shown(tab, "Unit 1 of layer3")
    detail = tab.locator(".units-detail")
    text = detail.inner_text()
    assert "best form: dog AND NOT cat · IoU 0.313, above the 0.050 of chance" in text
    assert "most active for the class ant: selectivity 0.50" in text
    profile, lost = detail.locator("table").all()
    rows = profile.locator("tbody tr").all()
    iou = layers["layer3"][0].iou()[1]
    assert [row.locator("td").first.inner_text() for row in rows] == [
        f"{value:.3f}" for value in sorted(iou[iou > 0], reverse=True)
    ]
    assert [row.inner_text().split() for row in lost.locator("tbody tr").all()] == [
        ["ant", "50.0", "50.0"], ["bee", "25.0", "25.0"], ["cow", "0.0", "0.0"]
    ]  # fmt: skip
    # A bar is as long as its number.
    lengths = lost.locator(".units-bar").evaluate_all(
        "all => all.map((e) => e.offsetWidth / e.parentElement.clientWidth)"
    )
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=0.02)
    assert lengths[2] == 0
    assert lengths[0] > 0.8
    tab.get_by_label("order by").select_option("importance")
    assert listed(tab)[:2] == [("layer3", 1), ("layer3", 2)]
    # A unit without any of it says what it can.
    tab.locator("[id='unit-block/1 a-7']").click()
    shown(tab, "Unit 7 of block/1 a")
    assert detail.locator("table").count() == 1
    assert "best form" not in detail.inner_text()


@pytest.mark.skipif(not AXE, reason="MIXAUG_JAX_AXE does not name a copy of axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(visit, scheme, width):
    tab = visit("#unit-layer3-1", width, color_scheme=scheme)
    shown(tab, "Unit 1 of layer3")
    tab.evaluate(pathlib.Path(AXE).read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run('.units').then((result) => result.violations)")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_pictures_of_the_list_are_drawn_when_they_come_into_sight(visit):
    tab = visit()
    drawn = "document.querySelectorAll('.units-list canvas[data-drawn]').length"
    tab.locator(".units-list").scroll_into_view_if_needed()
    until(tab, f"{drawn} > 3")
    assert tab.evaluate(drawn) < 34
    tab.locator("[aria-selected=true]").focus()
    tab.keyboard.press("End")
    until(tab, f"{drawn} > 20")


@pytest.mark.parametrize("width", [1280, 390])
def test_fits_the_screen_and_says_what_it_is(visit, width):
    tab = visit("#unit-layer3-1", width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    canvases = tab.locator(".units-detail canvas")
    assert min(canvases.evaluate_all("all => all.map((e) => e.clientWidth)")) >= 100
    sizes = tab.locator(".units :is(p, label, span, strong, figcaption, select, input)")
    assert (
        min(sizes.evaluate_all("all => all.map((e) => parseFloat(getComputedStyle(e).fontSize))"))
        >= 12
    )
    nameless = """all => all.filter((e) => !e.getAttribute('aria-label') && !e.hasAttribute('aria-hidden')
        && !e.labels?.length && !(e.role === 'option' && e.innerText.trim())).map((e) => e.outerHTML)"""
    named = tab.locator(
        ".units :is(canvas, select, input, form, [role=listbox], [role=option], [role=region])"
    )
    assert named.evaluate_all(nameless) == []


def test_print_and_no_scripts_say_so(visit):
    tab = visit()
    assert not tab.locator(".units-print").is_visible()
    tab.emulate_media(media="print")
    assert tab.locator(".units-print").is_visible()
    assert not tab.locator(".units-app").is_visible()
    tab = visit(java_script_enabled=False)
    assert "needs scripts" in tab.locator(".units noscript").inner_text()
    assert not tab.locator(".units-app").is_visible()
