"""What a reader sees of the table: lines on the console, table.csv, two figures, and the section of the run's page."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax.core import files, say
from mixaug_jax.core.stats import LEVEL
from mixaug_jax.core.types import Config, Path
from mixaug_jax.draw import page
from mixaug_jax.draw.page import Interval
from mixaug_jax.draw.style import save_figure
from mixaug_jax.papers.bottleneck_table import comparison_table, protocol, table_figures
from mixaug_jax.papers.bottleneck_table.published_rows import RECALLED, Row
from mixaug_jax.papers.bottleneck_table.row_results import Result, Shared

TITLE = "Bottlenecks and other explanations"
_HEADER = ("row", "kind", "column", "value", "low", "high", "rank", "images", "beats", "seconds")
_UNCONFIRMED = "recalled from the paper, not confirmed"


@dataclasses.dataclass(frozen=True)
class Measured:
    """All that a table is made of.

    Attributes:
      rows, results: by name.
      drops: {side of units: [sizes,n,samples]}.
      shared: what the rows were measured on.
    """

    rows: Mapping[str, Row]
    results: Mapping[str, Result]
    drops: Mapping[int, np.ndarray]
    shared: Shared


def write(
    config: Config,
    workdir: Path,
    folder: pathlib.Path,
    measured: Measured,
    notes: Sequence[str],
) -> None:
    """Writes table.csv and the figures to `folder`, and the section to the working directory.

    Args:
      config, workdir: of the run.
      folder: of the table.
      measured: the rows, and what they were measured on.
      notes: sentences about what was left out.
    """
    rows, results, shared = measured.rows, measured.results, measured.shared
    a, boxes = config.explain, bool(len(shared.masks))
    found = comparison_table.table(
        *(rows, results, measured.drops, shared.examples.probabilities),
        replicates=a.replicates,
        seed=a.seed,
    )
    tiles, units = tuple(shared.curves), tuple(shared.subsets)
    columns = comparison_table.columns(tiles, units, boxes)
    others = comparison_table.beside(tiles, units, boxes)
    files.write_csv(folder / "table.csv", _HEADER, _lines(found, rows, results))
    settings = [name for name in columns if not name.startswith("sensitivity")]
    said = [comparison_table.verdict(found, rows, settings)]
    said += [comparison_table.beaten(found, rows, column) for column in columns]
    _draw(folder, measured, config.report.column_width)
    network = config_lib.read(workdir).resolved.model["name"]
    parts = [page.paragraph(_how(shared, tiles), kind="note")]
    parts += [page.paragraph(text) for text in said[:1]]
    parts += [page.paragraph(text, kind="note") for text in said[1:]]
    parts += [page.missing(f"{note[:1].upper()}{note[1:]}.") for note in notes]
    parts.append(page.table(folder, _page_table(found, rows, results, columns, network)))
    parts += _figures(folder, tiles, bool(measured.drops))
    # What the paper does not report, or reports and nobody has checked, stands folded below what was measured as it did.
    beside = page.table(folder, _beside(found, others))
    parts.append(page.folded("The same, measured in other ways", beside, long=True))
    recalled = page.table(folder, _recalled())
    parts.append(page.folded(f"The paper's numbers, {_UNCONFIRMED}", recalled, long=True))
    page.write_section(workdir, "bottleneck_table", TITLE, *parts)
    files.seal(folder)
    for line in (_text(found, columns), *said):
        say.line(line)
    say.line(
        f"written to {folder}: table.csv, degradation_curves and sensitivity_n as PNG, SVG and PDF"
    )


def _draw(folder, measured, column):
    """The two figures; that of sensitivity-n where it was measured."""
    rows, results, shared = measured.rows, measured.results, measured.shared
    figure = table_figures.curves(rows, results, tuple(shared.curves))
    save_figure(figure, folder / "degradation_curves", column=column)
    if measured.drops:
        sizes = {side: masks[:, 0].sum((1, 2)) for side, masks in shared.subsets.items()}
        figure = table_figures.correlations(rows, results, measured.drops, sizes)
        save_figure(figure, folder / "sensitivity_n", column=column)


def _lines(found, rows, results):
    for name, cells in found.items():
        seconds = f"{float(results[name].arrays['seconds']):.4g}"
        for column, cell in cells.items():
            numbers = [f"{value:.6g}" for value in (cell.value, cell.low, cell.high)]
            beats = " ".join(cell.beats)
            yield [name, rows[name].kind, column, *numbers, cell.rank, cell.images, beats, seconds]


def _how(shared, tiles):
    sides = " and ".join(map(str, tiles))
    return (
        f"The comparison of Schulz et al. 2020 on {len(shared.examples)} images, with maps and measures as in the paper's code "
        f"but for its slips. Degradation: tiles of {sides} pixels are replaced by the image's mean color, most or least "
        "relevant first; the score is the mean distance between both curves, divided by what the probability loses in all. "
        "Boxes: the share of the n highest pixels inside, n as many as the boxes have, where they cover at most "
        f"{protocol.SHARE:.0%}. Sensitivity-n: one correlation for each size of subset, over all images; the mean over sizes. "
        "Larger is better everywhere. The readout bottleneck knows no class: its map is the same whatever is asked."
    )


def _interval(cell, note=""):
    if cell is None:
        return None
    return Interval(cell.value, cell.low, cell.high, note)


def _page_table(found, rows, results, columns, network):
    header, body = ["row", "kind"], []
    # Numbers of a published table say something only beside those of the same network.
    known = any(network == name for name in RECALLED)
    for column in columns:
        header += [column, *([f"{column}, {_UNCONFIRMED}"] if known and _has(column) else [])]
    for name, cells in found.items():
        line = [name, rows[name].kind]
        for column in columns:
            cell = cells.get(column)
            line.append(_interval(cell, _note(cell)))
            if known and _has(column):
                line.append(comparison_table.recalled(network, name, column))
        body.append([*line, float(results[name].arrays["seconds"])])
    caption = (
        f"All rows, with {100 * LEVEL:g} % intervals over bootstrap resamples of the images, ranks, and the controls that a "
        "row is above (r random, c center, s edges by Sobel; paired over images, Holm's correction over the table). Seconds "
        "are those of one map, compilation included."
    )
    return page.Table("comparison", caption, (*header, "seconds"), body)


def _has(column):
    return column in ("degradation 8", "degradation 14", "boxes")


def _note(cell):
    if cell is None:
        return ""
    above = " ".join(name[0] for name in cell.beats)
    return f"rank {cell.rank}" + (f", above {above}" if above else "")


def _beside(found, others):
    body = [
        [name, *(_interval(cells.get(column)) for column in others)]
        for name, cells in found.items()
    ]
    caption = (
        "Beside the published measures: " + "; ".join(f"{k}: {v}" for k, v in others.items()) + "."
    )
    return page.Table("comparison_beside", caption, ("row", *others), body)


def _recalled():
    body = [
        [network, row, *numbers]
        for network, rows in RECALLED.items()
        for row, numbers in rows.items()
    ]
    caption = (
        "Numbers of the paper's table as they are remembered. Nobody has compared them with the paper: they are for "
        "orientation alone."
    )
    header = ("network", "row", "degradation 8", "degradation 14", "boxes")
    return page.Table("comparison_recalled", caption, header, body)


def _figures(folder, tiles, correlated):
    caption = (
        "Mean probability of the class as tiles are replaced. Upper panels: most relevant first, a fast fall is good; lower "
        "panels: least relevant first, a slow fall is good. Bottlenecks are thick, controls gray."
    )
    alt = f"line charts of probability over the share of tiles replaced, tiles of {', '.join(map(str, tiles))} pixels"
    yield page.figure(folder, "degradation_curves", caption, alt=alt)
    if correlated:
        caption = (
            "Sensitivity-n. Pearson's r between what a map has in a random subset and how far the logit drops without it, over "
            "images and subsets of one size."
        )
        alt = "line charts of the correlation over the number of units removed"
        yield page.figure(folder, "sensitivity_n", caption, alt=alt)


def _text(found, columns):
    wide = max(map(len, found))
    lines = [" " * wide + "".join(f"{name[:20]:>22}" for name in columns)]
    for name, cells in found.items():
        shown = [cells.get(column) for column in columns]
        texts = ["-" if c is None else f"{c.value:.3f} ({c.low:.2f},{c.high:.2f})" for c in shown]
        lines.append(f"{name:{wide}}" + "".join(f"{text:>22}" for text in texts))
    return "\n".join(lines)
