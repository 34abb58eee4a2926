"""How figures are written: sizes of the PDF, fonts, and the pictures inside."""

import base64
import io
import re

import matplotlib
import numpy as np
import PIL.Image
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixaug_jax.draw import style

# A photograph's noise does not compress, but has no edges that JPEG would spoil either.
PHOTO = np.random.default_rng(0).normal(128, 30, (96, 96, 3)).clip(0, 255).astype(np.uint8)


def chart(width=9.4):
    with matplotlib.rc_context(style.STYLE):
        figure = Figure((width, 3), layout="constrained")
        figure.subplots().plot(np.arange(3), label="x")
        figure.axes[0].set_title("a title")
    return figure


def sheet(count=2):
    with matplotlib.rc_context(style.STYLE):
        figure = Figure((1.5 * count, 1.5), layout="constrained")
        for panel in figure.subplots(1, count):
            panel.imshow(PHOTO)
            panel.set_axis_off()
    return figure


def inches(path):
    """Width and height of a PDF's page."""
    box = re.search(rb"/MediaBox \[ *0 0 ([\d.]+) ([\d.]+) *\]", path.read_bytes())
    return tuple(float(number) / 72 for number in box.groups())


@pytest.mark.parametrize("shade", style.PALETTE)
def test_a_cross_is_seen_on_bars_of_every_color(shade):
    def drawn(marked):
        figure = Figure((2, 2), dpi=150)
        panel = figure.subplots()
        panel.bar(0, 2, color=shade)
        if marked:
            panel.scatter(0, 1, s=16, **style.CROSS)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3] @ [0.2126, 0.7152, 0.0722]

    changed = np.abs(drawn(True) - drawn(False))
    # A cross of 16 square points is some 8 pixels wide at this size; two strokes of more than one pixel each.
    assert (changed > 60).sum() >= 20


@pytest.mark.parametrize(
    ("drawn", "column", "width"),
    [
        (9.4, 0.0, 9.4),  # as drawn
        (9.4, 3.25, 6.75),  # two columns and the gutter
        (5.0, 3.25, 3.25),
        (5.5, 3.25, 5.5),  # less than two columns already
        (2.0, 3.25, 2.0),  # nothing is enlarged
        (9.4, 8.0, 8.0),
    ],
)
def test_pdf_is_one_column_wide_or_two(drawn, column, width, tmp_path):
    style.save_figure(chart(drawn), tmp_path / "a", column=column)
    np.testing.assert_allclose(inches(tmp_path / "a.pdf"), (width, 3 * width / drawn), atol=0.01)
    with PIL.Image.open(tmp_path / "a.png") as picture:  # which the page shows, as drawn
        assert abs(picture.width - drawn * style.DPI) <= 1
    assert f'width="{72 * drawn:g}pt"'.encode() in (tmp_path / "a.svg").read_bytes()


def test_letters_shrink_with_the_figure(tmp_path):
    figure = chart()
    style.save_figure(figure, tmp_path / "a", column=3.25)
    title = figure.axes[0].title.get_fontsize()
    assert title == pytest.approx(
        matplotlib.rcParams["font.size"] * 1.2 * 0.9 * 6.75 / 9.4, rel=0.01
    )


def test_fonts_are_of_type_42(tmp_path):
    style.save_figure(chart(), tmp_path / "a")
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/Subtype /Type3" not in content
    assert b"/FontFile2" in content
    assert b"CreationDate" not in content


def test_another_column_is_another_figure(tmp_path):
    path = tmp_path / "a"
    assert not style.is_saved(path)
    style.save_figure(chart(), path, column=3.25)
    assert style.is_saved(path, column=3.25)
    assert not style.is_saved(path)
    assert not style.is_saved(path, column=3.3)
    (tmp_path / "a.svg").unlink()
    assert not style.is_saved(path, column=3.25)


def test_pictures_have_at_most_twice_the_shown_pixels(tmp_path):
    style.save_figure(sheet(), tmp_path / "a")
    text = (tmp_path / "a.svg").read_text()
    found = re.findall(r"<image [^>]*>", text)
    assert len(found) == 2
    for image in found:
        points = float(re.search(r' width="([\d.]+)"', image)[1])
        kind, content = re.search(r'"data:image/(\w+);base64,([^"]*)"', image).groups()
        with PIL.Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.width <= 2 * points * 96 / 72
            shown = np.asarray(picture.convert("RGB"), float)
        assert kind == "jpeg"
        size = shown.shape[1::-1]
        drawn = np.asarray(PIL.Image.fromarray(PHOTO).resize(size, PIL.Image.Resampling.BILINEAR))
        # What is shown is what was drawn; SVG may hold it upside down.
        assert min(abs(image - drawn).mean() for image in (shown, shown[::-1])) < 12
    assert len(text) < 0.7 * 2 * PHOTO.size * 4 / 3


def test_grids_of_few_colors_stay_as_they_are(tmp_path):
    with matplotlib.rc_context(style.STYLE):
        figure = Figure((2, 2))
        figure.subplots().imshow(np.eye(4), interpolation="nearest")
    assert not style.has_pictures(figure)
    assert style.has_pictures(sheet())
    style.save_figure(figure, tmp_path / "a")
    assert "image/png" in (tmp_path / "a.svg").read_text()
    with PIL.Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
    # A palette changes no color so that it could be seen.
    with matplotlib.rc_context(style.STYLE):
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=style.DPI)
    with PIL.Image.open(tmp_path / "a.png") as picture, PIL.Image.open(buffer) as drawn:
        difference = np.asarray(picture.convert("RGB"), int) - np.asarray(drawn.convert("RGB"), int)
    assert abs(difference).max() <= 16
