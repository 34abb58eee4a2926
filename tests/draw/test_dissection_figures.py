"""Tables and figures of a dissection."""

import dataclasses

import numpy as np
import PIL.Image
import planted
import pytest

from mixaug_jax import dissection
from mixaug_jax.core import files
from mixaug_jax.dissection import resample
from mixaug_jax.draw import dissection_figures, dissection_tables, style

SMALL = dissection.Options(size=16, random_baseline=False, shuffles=2)


@pytest.fixture(scope="module")
def found():
    thresholds = {"pixels": [0.5, 0.5, 0.5]}
    return dissection.dissect(
        planted.net(), planted.source(), ("pixels",), SMALL, thresholds=thresholds
    )["pixels"]


@pytest.fixture(scope="module")
def empty():
    return dissection.dissect(
        planted.net(), planted.source(), ("pixels",), SMALL, thresholds={"pixels": [9, 9, 9]}
    )["pixels"]


def bars(figure):
    """Heights of the bars of each panel that belong to a network."""
    return [[b.get_height() for b in panel.containers[0]] for panel in figure.axes]


def test_unique_concepts_by_category(found):
    figure = dissection_figures.unique_concepts({"run": found})
    assert [panel.get_title() for panel in figure.axes] == [
        "IoU > 0.03",
        "IoU > 0.04",
        "IoU > 0.05",
    ]
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["object", "part", "material", "total"]
    assert bars(figure) == [[2, 1, 0, 3]] * 3
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"run", "shuffled labels (mean, range)"} == set(legend)
    marks = figure.axes[0].collections[0].get_offsets()
    assert marks[3, 1] == pytest.approx(found.null[:, 0, 1, 0].sum(-1).mean(), abs=0.01)


def test_several_runs_stand_side_by_side(found, empty):
    figure = dissection_figures.unique_concepts(
        {"one": found, "two": empty, "three": found}, per="category"
    )
    assert [len(panel.containers) for panel in figure.axes] == [6, 6, 6]  # with their null's ranges
    assert len({c[0].get_facecolor() for c in figure.axes[0].containers[::2]}) == 3
    options = dataclasses.replace(SMALL, iou=(0.5,))
    other = dissection.dissect(planted.net(), planted.source(), ("pixels",), options)["pixels"]
    with pytest.raises(ValueError, match="two has other concepts or IoU thresholds than one"):
        dissection_figures.unique_concepts({"one": found, "two": other})


def test_sheet_of_units(found):
    figure = dissection_figures.unit_sheet(found, planted.source(), planted.shares)
    panels = np.reshape(figure.axes, (3, 6))
    names = [panel.texts[0].get_text().splitlines()[0] for panel in panels[:, 0]]
    assert names == ["cat", "dog", "paw"]
    picture = np.asarray(panels[1, 1].images[0].get_array())
    image = planted.source()[int(found.top_images[1, 0])]["image"]
    inside = image[..., 1] == 255
    np.testing.assert_array_equal(picture[inside], image[inside])
    assert picture[~inside].max() < 110


def test_masked_is_what_the_counts_are_made_of():
    draw = np.random.default_rng(0)
    activation = draw.standard_normal((3, 5), dtype=np.float32)
    image = np.full((16, 22, 3), 255, np.uint8)
    grid = resample.Grid((3, 5), (16, 22), "edge")
    on = np.asarray(resample.upsample(activation[..., None], grid))[..., 0] > 0.3
    np.testing.assert_array_equal(
        dissection_figures.masked(image, activation, 0.3)[..., 0] == 255, on
    )


def test_example_units_prefer_new_concepts(found):
    assert dissection_figures.example_units(found, 2).tolist() == [0, 1]
    assert dissection_figures.example_units(found, 8).tolist() == [0, 1, 2]
    wide = dissection.dissect(planted.net(), planted.source(), ("mixed",), SMALL)["mixed"]
    labels, values = wide.top_labels(1)
    shown = dissection_figures.example_units(wide, 6)
    assert (values[shown, 0] > 0.03).all()
    assert (np.diff(values[shown, 0]) <= 0).all()
    concepts = len(set(labels[values[:, 0] > 0.03, 0]))
    few = dissection_figures.example_units(wide, concepts)
    assert len(set(labels[few, 0])) == len(few) == concepts


def test_captions_of_the_sheet_of_units(found, empty):
    text = dissection_figures.unit_sheet_caption(found)
    assert text.startswith("3 of 3 units of pixels and their top 5 of 12 images. Bright is")
    alt = dissection_figures.unit_sheet_alt(found, units=2)
    assert alt.endswith("unit 0: cat, IoU 1.00; unit 1: dog, IoU 1.00")
    assert dissection_figures.unit_sheet_alt(empty).endswith("no unit is above the IoU thresholds")


def test_empty_results_are_drawn_and_tabled(empty, tmp_path):
    assert not empty.counts.any()
    figure = dissection_figures.unique_concepts({"run": empty})
    assert figure.texts[0].get_text() == "no unit is above these thresholds"
    sheet = dissection_figures.unit_sheet(empty, planted.source(), planted.shares)
    assert sheet.texts[0].get_text() == "no unit is above the IoU thresholds"
    for drawn, name in ((figure, "unique"), (sheet, "units")):
        style.save_figure(drawn, tmp_path / name)
    _, rows = dissection_tables.unit_rows(empty)
    assert [row[4:7] for row in rows] == [["", "", "0.000000"]] * 3
    assert "no unit is above any of the IoU thresholds" in dissection_tables.summary(empty)


def test_saved_as_png_svg_and_pdf_and_equal_each_time(found, tmp_path):
    for name in ("a", "b"):
        written = style.save_figure(
            dissection_figures.unique_concepts({"run": found}), tmp_path / name
        )
        assert [path.name for path in written] == [f"{name}.png", f"{name}.svg", f"{name}.pdf"]
    for ending in ("png", "svg", "pdf"):
        a, b = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
        assert a == b
    with PIL.Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300
    assert len(list(tmp_path.iterdir())) == 6


def test_tables(found):
    header, rows = dissection_tables.unit_rows(found)
    assert header[:7] == ["layer", "unit", "threshold", "area", "concept_1", "category_1", "iou_1"]
    assert rows[2][:7] == ["pixels", 2, "0.5", rows[2][3], "paw", "part", "1.000000"]
    assert float(rows[2][3]) == pytest.approx(found.tally.unit[2] / (12 * 16 * 16), abs=1e-6)
    header, rows = dissection_tables.concept_rows(found)
    by_name = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["dog"]["best_unit"] == 1
    assert by_name["dog"]["pixels"] == found.tally.concept[2]
    assert by_name["dog"]["units_above_0.04"] == 1
    assert by_name["fur"]["units_above_0.04"] == 0
    header, rows = dissection_tables.count_rows(found)
    row = dict(zip(header, rows[3], strict=True))
    assert (row["per"], row["category"], row["unique"], row["detectors"]) == ("unit", "total", 3, 3)
    assert row["unique_random"] == ""
    assert (row["unique_low"], row["unique_high"]) == ("", "")  # a count below 5


def test_comparison_table_and_figure(found, empty):
    # `compare` refuses thresholds that were given; the numbers alone are wanted here.
    compared = dissection.Comparison(
        ("found", "empty"),
        (*found.categories, "total"),
        found.options.iou,
        -np.array([dissection_tables.with_total(found.counts)]),
        np.stack([np.full((1, 2, 2, 3, 4), -1.25), np.full((1, 2, 2, 3, 4), 1.0)], -1),
    )
    header, rows = dissection_tables.comparison_rows(compared)
    assert len(rows) == 2 * 3 * 4
    row = dict(zip(header, rows[3], strict=True))
    assert (row["run"], row["minus"], row["category"]) == ("empty", "found", "total")
    assert (row["unique"], row["unique_low"], row["unique_high"]) == (-3, -1.2, 1)
    figure = dissection_figures.differences(compared)
    points = figure.axes[0].collections[0].get_offsets()
    assert points[:, 1].tolist() == [-2, -1, 0, -3]
    assert figure.axes[0].get_ylabel() == "unique concepts, minus found"


def test_csv_is_whole_or_not_there(tmp_path):
    def broken():
        yield ["a", "1"]
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        files.write_csv(tmp_path / "t.csv", ["name", "value"], broken())
    assert not list(tmp_path.iterdir())
    files.write_csv(tmp_path / "t.csv", ["name", "value"], [["a, b", 1]])
    assert (tmp_path / "t.csv").read_text() == 'name,value\n"a, b",1\n'
