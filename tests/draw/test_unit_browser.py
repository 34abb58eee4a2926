"""The data behind the unit browser: every unit once, nothing that could end the script, pages of a bounded size."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import PIL.Image
import planted
import pytest
import unit_cases

from mixaug_jax.draw import page, unit_browser

PAGE = 6_000_000  # bytes of a page with 256 units


@pytest.fixture(scope="module")
def layer():
    return unit_cases.layer(9)


def blocks(text):
    """The layers whose data are in a page, as the script reads them."""
    found = re.findall(r'<script type="application/json" class="units-data">(.*?)</script>', text)
    return [json.loads(block) for block in found]


def decoded(address):
    kind, _, content = address.partition(";base64,")
    assert kind in ("data:image/webp", "data:image/png")
    with PIL.Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return np.asarray(picture.convert("L"))


def test_every_unit_is_there_once_with_what_the_dissection_says(layer, tmp_path):
    result, pictures = layer
    made = unit_browser.write(tmp_path, {"layer4": result}, {"layer4": pictures})
    assert made.beside == {}
    (data,) = blocks(made.html)
    assert [one["unit"] for one in data["units"]] == list(range(9))
    assert (data["layer"], data["detects"]) == ("layer4", 0.03)
    labels, values = result.top_labels(1)
    for unit, one in enumerate(data["units"][1:], 1):
        assert not one["dead"]
        assert one["threshold"] == pytest.approx(result.threshold[unit], rel=1e-3)
        assert one["concepts"][0] == [labels[unit, 0], pytest.approx(values[unit, 0], rel=1e-3)]
        shown = [data["photos"][place][0] for place, *_ in one["images"]]
        assert shown == result.top_images[unit].tolist()
        strength = [activation for _, activation, _ in one["images"]]
        np.testing.assert_allclose(strength, result.top_activations[unit], rtol=1e-3)
    assert data["units"][0] | {"threshold": 0, "area": 0} == {
        "unit": 0, "threshold": 0, "area": 0, "dead": True, "concepts": [], "images": [],
    }  # fmt: skip


def test_masks_are_at_the_places_that_the_script_looks_at(layer):
    result, pictures = layer
    data = json.loads(unit_browser.as_json(result, pictures))
    sheets = [decoded(address) // 85 for address in data["masks"]]
    height, width = data["size"]
    for one in data["units"][1:]:
        for k in range(5):
            sheet, within = divmod(one["first"] + k, data["perSheet"])
            row, column = divmod(within, data["columns"])
            cell = sheets[sheet][row * height : (row + 1) * height][
                :, column * width : (column + 1) * width
            ]
            np.testing.assert_array_equal(cell & 1 > 0, pictures.on[one["unit"], k])
            np.testing.assert_array_equal(cell & 2 > 0, pictures.concept[one["unit"], k])
            assert one["images"][k][2] == pictures.concept[one["unit"], k].any()


def test_units_without_pictures_are_listed(layer, tmp_path):
    result, _ = layer
    (data,) = blocks(unit_browser.write(tmp_path, {"layer4": result}, {}).html)
    assert len(data["units"]) == 9
    assert not any(one["images"] for one in data["units"])


def test_what_a_unit_is_needed_for_and_its_form(layer, tmp_path):
    result, pictures = layer
    result = dataclasses.replace(result, formulas=unit_cases.FORMS)
    removed = {"layer4": unit_cases.removed(result)}
    made = unit_browser.write(tmp_path, {"layer4": result}, {"layer4": pictures}, removed)
    assert '<option value="importance">' in made.html
    (data,) = blocks(made.html)
    assert data["classes"] == ["ant", "bee", "cow"]
    assert data["chance"] == 0.05
    first, second, third = data["units"][1:4]
    assert first["form"] == ["dog AND NOT cat", 0.3125, True]
    assert second["form"] == ["(cat AND paw) OR fur", 0.04, False]
    assert "form" not in third
    # Class by class: as it was measured on training images, and on those that did not choose it.
    assert first["classes"] == [[0, 0.5, 0.5], [1, 0.25, 0.25], [2, 0, 0]]
    assert second["classes"][0] == [1, 0.125, pytest.approx(0.5 * 4 / 10, rel=1e-3)]
    assert first["selective"] == [0, 0.5]
    tally, (best, value) = result.tally, first["concepts"][0]
    assert first["fits"] == pytest.approx(
        tally.intersection[1, best] / [tally.unit[1], tally.concept[best]], rel=1e-3
    )
    assert value == pytest.approx(result.iou()[1].max(), rel=1e-3)
    assert [c for c, _ in first["concepts"]] == (
        1 + np.argsort(-result.iou()[1, 1:], kind="stable")
    ).tolist()
    plain = unit_browser.write(tmp_path, {"layer4": result}, {"layer4": pictures})
    assert "importance" not in plain.html
    assert "classes" not in blocks(plain.html)[0]


def test_names_cannot_end_the_script(tmp_path):
    hostile = (
        ("none", "none"),
        ('</script><img src=x onerror="a">', "<!--<script>"),
        *planted.NAMES[2:],
    )
    result, pictures = unit_cases.layer(3, names=hostile)
    pictures = dataclasses.replace(pictures, names=("</script>",) * len(pictures.names))
    html = unit_browser.write(tmp_path, {"layer4": result}, {"layer4": pictures}).html
    assert html.count("</script>") == 1
    assert "<img" not in html
    assert "<!--" not in html
    (data,) = blocks(html)
    assert data["names"][1] == list(hostile[1])
    assert data["photos"][0][1] == "</script>"


def test_256_units_fit_on_the_page(tmp_path):
    result, pictures = unit_cases.layer(256, 1500, side=32)
    assert len(pictures.images) > 800
    made = unit_browser.write(tmp_path, {"layer4": result}, {"layer4": pictures})
    assert made.beside == {}
    (data,) = blocks(made.html)
    assert sorted(one["unit"] for one in data["units"]) == list(range(256))
    assert len(data["sheets"]) == -(-len(pictures.images) // 256)
    text = page.document("Run", [], [page.section("units", "Units", made.html)])
    assert len(text.encode()) < PAGE - 2_000_000  # what else there is on a page


def test_a_layer_too_large_for_the_page_stands_beside_it(layer, tmp_path):
    first, second = unit_cases.layer(5, layer="a b/1"), layer
    results = {"a b/1": first[0], "layer4": second[0]}
    pictures = {"a b/1": first[1], "layer4": second[1]}
    most = len(unit_browser.as_json(*second)) + 10
    made = unit_browser.write(tmp_path, results, pictures, most=most)
    # The deepest layer is the first to have a place.
    assert [data["layer"] for data in blocks(made.html)] == ["layer4"]
    assert made.beside == {"a b/1": "units-a_b_1.html"}
    assert made.address("layer4", 3) == "#unit-layer4-3"
    assert made.address("a b/1", 3) == "units-a_b_1.html#unit-a%20b%2F1-3"
    assert 'href="units-a_b_1.html">5 units of a b/1</a>' in made.html
    (beside,) = blocks((tmp_path / "units-a_b_1.html").read_text())
    assert len(beside["units"]) == 5
    none = unit_browser.write(tmp_path, results, pictures, most=0)
    assert not blocks(none.html)
    assert set(none.beside) == set(results)


def test_the_caption_counts(layer):
    text = unit_browser.caption({"layer4": layer[0]}, 9)
    assert text.startswith("9 units, measured on 40 images. Shown are the 5 images")
