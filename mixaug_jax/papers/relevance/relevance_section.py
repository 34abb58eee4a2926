"""What a reader sees of the relevance of attributes: lines on the console, tables, a figure, the section of the run's page."""

import pathlib
from collections.abc import Mapping, Sequence

from mixaug_jax.core import files, say
from mixaug_jax.core.stats import LEVEL
from mixaug_jax.core.types import Config
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES
from mixaug_jax.draw import page, style
from mixaug_jax.draw.page import Interval, Table
from mixaug_jax.papers.relevance import (
    attribute_bound,
    attribute_relevance,
    relevance_figures,
    relevance_keys,
    relevance_result,
)
from mixaug_jax.papers.relevance.attribute_relevance import CONTROL, LEAST_R2, Row
from mixaug_jax.papers.relevance.evaluator import Evaluator
from mixaug_jax.papers.relevance.relevance_result import Pointing, Result

NAME, TITLE = "relevance", "Which attributes the network uses"
FIGURE = "relevance_attributes"
_ACCURATE = {
    "scenes": "of the run's sampler",
    "ambiguous": "of these, arms between .45 and .55",
    "unbiased": "unbiased: the arms alone tell the class",
}


def write(
    config: Config,
    workdir: pathlib.Path,
    folder: pathlib.Path,
    result: Result,
    pointing: Pointing | None,
    reader: Evaluator | None,
) -> None:
    """Writes tables and figure to `folder`, and the section to the working directory.

    Args:
      config, workdir: of the run.
      folder: of the results.
      result: of a checkpoint.
      pointing: of its explanations, where there are any.
      reader: where one was asked for.
    """
    asked = relevance_keys.of_config(config)
    options = {"tolerance": asked.tolerance, "replicates": asked.replicates, "seed": asked.seed}
    rows = attribute_relevance.measure(result.pairs, **options)
    bound, trees, note = _trees(config, asked, result, options)
    files.write_csv(folder / "relevance.csv", Row._fields, rows)
    accurate = _accuracies(result)
    column = config.report.column_width
    drawn = relevance_figures.attributes(rows, trees, asked.tolerance)
    style.save_figure(drawn, folder / FIGURE, column=column)
    said = verdict(rows, asked.tolerance)
    # The integrals are of that sampler's densities alone.
    exact = attribute_bound.exact() if config.data.animals.sampler == "study" else {}
    parts = [
        page.paragraph(_how(config, asked, len(result.labels)), kind="note"),
        page.paragraph(said),
        page.figure(folder, FIGURE, _caption(trees), alt=f"dot plots over attributes; {said}"),
        page.table(folder, _table(rows, trees)),
        page.table(folder, _accuracy_table(accurate)),
        page.table(folder, _bound_table(exact, bound)),
        *([page.missing(note)] if note else []),
        _pointed(folder, pointing),
        _read_by(folder, reader),
    ]
    page.write_section(workdir, NAME, TITLE, *filter(None, parts))
    files.seal(folder)
    say.result(said)
    for name, (share, low, high, count) in accurate.items():
        say.line(f"accuracy {_ACCURATE[name]}: {share:.3f} ({low:.3f} to {high:.3f}; {count})")
    for text in filter(None, [note, _said_of(reader)]):
        say.line(f"relevance: {text}")
    say.line(f"written to {folder}: relevance.csv and {FIGURE} as PNG, SVG and PDF, among others")


def verdict(rows: Sequence[Row], tolerance: float) -> str:
    """Which attributes the network uses, in words.

    Args:
      rows: of `attribute_relevance.measure`.
      tolerance: of its flips.
    """
    single = [row for row in rows if row.attribute in ATTRIBUTES]
    used = sorted((row for row in single if row.relevant), key=lambda row: -row.beside)
    named = ", ".join(f"{row.attribute} ({100 * row.beside:+.1f})" for row in used) or "none"
    loose = [r.attribute for r in single if not r.relevant and r.beside_low > tolerance]
    text = (
        f"Relevant to the network: {named}, in points of flips beside those by {CONTROL}, more than {100 * tolerance:g} of "
        f"them supported, with an R2 of {LEAST_R2:g} or more."
    )
    if loose:
        verb = "flips" if len(loose) == 1 else "flip"
        text += (
            f" {', '.join(loose)} {verb} predictions, too, but the logit does not follow the value."
        )
    return text


def _trees(config, asked, result, options):
    """({what trees are given: (accuracy, animals)}, their rows by attribute, why there are none)."""
    if not asked.trees:
        return {}, {}, ""
    own = config.data.animals
    try:
        bound, pairs = attribute_bound.told_by_trees(
            own.sampler, own.ranges, result.pairs, asked.seed
        )
    except ImportError:
        return {}, {}, attribute_bound.MISSING
    return bound, {row.attribute: row for row in attribute_relevance.measure(pairs, **options)}, ""


def _accuracies(result) -> dict[str, tuple]:
    return {
        name: (*relevance_result.share(right), len(right))
        for name, right in relevance_result.accuracies(result).items()
    }


def _how(config, asked, count):
    mode = {
        "independent": "to its value in an unrelated animal",
        "released": "as the released code does, where the color stays tied to the arms",
    }[asked.mode]
    return (
        f"Of {count} scenes of the {asked.split} split (sampler {config.data.animals.sampler}, {config.data.animals.ranges} "
        f"ranges) each attribute alone was drawn again, {mode}, and the scene rendered again. A scene with itself changes "
        f"nothing, so flips are compared with those by {CONTROL}, which tells nothing of the class. The paper's own way to sum "
        "the pairs up is not in its released code; this one is ours."
    )


def _caption(trees):
    text = (
        "Attributes drawn again, one at a time. Left: share of predictions that flip, minus that of the background's color; "
        "the line is the tolerance. Right: R2 of the logit's change on the value's. Filled: relevant; lines: "
        f"{100 * LEVEL:g} % intervals over scenes."
    )
    return text + (
        " Crosses: boosted trees that are given the attributes themselves." if trees else ""
    )


def _table(rows: Sequence[Row], trees: Mapping[str, Row]) -> Table:
    cells = [
        (
            row.attribute,
            "yes" if row.relevant else "no",
            Interval(row.flips, row.flips_low, row.flips_high),
            Interval(row.beside, row.beside_low, row.beside_high),
            row.p,
            Interval(row.change, row.change_low, row.change_high),
            Interval(row.r2, row.r2_low, row.r2_high),
            Interval(row.slope, row.slope_low, row.slope_high),
            Interval(row.near_flips, row.near_low, row.near_high),
            Interval(row.near_r2, row.near_r2_low, row.near_r2_high),
            # Where trees are not asked for, or not installed, their column is left out.
            *([trees[row.attribute].flips] if trees else []),
        )
        for row in rows
    ]
    caption = (
        f"Relevance of attributes, with {100 * LEVEL:g} % intervals over bootstrap resamples of the scenes, the same for all; "
        "p is one-sided, of flips beside the control's above the tolerance, after Holm's correction over attributes. "
        "Ambiguous: arms between .45 and .55, where a bias pays. Of yaw R2 is that of its sine and cosine; the last row draws "
        "spherical, obj_color and bg_color together."
    )
    header = (
        "attribute",
        "relevant",
        "flips",
        f"flips beside {CONTROL}",
        "p",
        "change of the logit [sd]",
        "R2",
        "slope",
    )
    header += ("flips, ambiguous", "R2, ambiguous", *(["flips of trees"] if trees else []))
    return Table("attributes", caption, header, cells)


def _accuracy_table(accurate) -> Table:
    rows = [
        (_ACCURATE[name], Interval(share, low, high), count)
        for name, (share, low, high, count) in accurate.items()
    ]
    caption = "Accuracy by true labels; where arms are ambiguous a bias pays, on unbiased scenes it costs."
    return Table("accuracy", caption, ("scenes", "accuracy", "number"), rows)


def _bound_table(exact, bound) -> Table:
    rows = [
        (name, exact.get(name), bound[name][0] if name in bound else None)
        for name in dict.fromkeys([*exact, *bound])
    ]
    caption = (
        "What attributes alone can tell: the best accuracy there can be (an integral over the study's densities), and that of "
        "gradient-boosted trees on 2,000 animals that nobody rendered."
    )
    return Table("bound", caption, ("given", "at best", "trees"), rows)


def _pointed(folder, pointing):
    if pointing is None:
        text = "There are no explanations of these weights (--stage=explain), so nothing is said of where they point."
        return page.missing(text)
    rows = [
        (
            name,
            "control" if name in pointing.controls else "method",
            Interval(*relevance_result.share(hits)),
        )
        for name, hits in pointing.hits.items()
    ]
    caption = (
        f"Share of {len(pointing.area)} explanations whose highest value is on the head or a right arm, the blocks that the "
        f"class lies between. They are {pointing.area.mean():.1%} of a picture. A network that uses the color alone need not "
        "point there, and one that points there may use the color it finds."
    )
    return page.table(
        folder, Table("pointing", caption, ("explanation", "kind", "on head or right arms"), rows)
    )


def _read_by(folder, reader):
    if reader is None:
        return ""
    rows = [
        (name, reader.error[name], reader.r2[name], "yes" if name in reader.kept else "no")
        for name in ATTRIBUTES
    ]
    caption = (
        f"The evaluator, which reads attributes off any picture, on held unbiased scenes; it tells the class in "
        f"{reader.accuracy:.1%}. What it reads with an R2 below .5 is left out of what is made of its readings."
    )
    table = Table("evaluator", caption, ("attribute", "mean absolute error", "R2", "kept"), rows)
    left = [page.missing(f"The evaluator: {reader.left_out}.")] if reader.left_out else []
    return page.folded(
        "How well attributes are read off pictures", page.table(folder, table), *left
    )


def _said_of(reader) -> str:
    if reader is None:
        return ""
    text = f"the evaluator reads {len(reader.kept)} of {len(ATTRIBUTES)} attributes"
    return f"{text}; {reader.left_out}" if reader.left_out else text
