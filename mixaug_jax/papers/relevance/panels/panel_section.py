"""What is seen of the panels: pictures, tables and sentences on the console and on the run's page, and the questionnaire."""

import pathlib
import shutil

import numpy as np

from mixaug_jax.core import files, say
from mixaug_jax.core.stats import LEVEL
from mixaug_jax.core.types import Config, Path
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES
from mixaug_jax.draw import page, style
from mixaug_jax.draw.page import Interval, Table
from mixaug_jax.papers.relevance.evaluator import Evaluator
from mixaug_jax.papers.relevance.panels import (
    panel_figures,
    panel_keys,
    questionnaire,
    readers_table,
)
from mixaug_jax.papers.relevance.panels.panel import Pictures, part
from mixaug_jax.papers.relevance.panels.readers_table import (
    OTHER_NETWORK,
    SIMULATED,
    TRAINED,
    Panels,
    Read,
    Truths,
    Verdict,
)
from mixaug_jax.papers.relevance.panels.simulated_reader import (
    PROXY,
    QUANTILE,
    REPEATS,
    ReaderRow,
)

NAME, TITLE = "panels", "Can a reader see what the network goes by?"
SHOWN = 5  # rows of a panel on the page
WORDS = {
    "arm_position": "How far apart the arms on one side are from the body",
    "bending": "How much the animal's spine is bent",
    "bg_color": "The color of the background",
    "obj_color": "The color of the animal",
    "pitch": "Whether the animal is turned to one side",
    "roll": "Whether the animal leans forward or backward",
    "yaw": "Which way up the animal lies in the picture",
    "position_x": "Where the animal is, left to right",
    "position_y": "Where the animal is, up and down",
    "spherical": "Whether the animal's blocks are cubes or balls",
}
_PEOPLE = (
    "In the published study with 240 people (Sixt et al. 2022, arXiv 2204.11642) people did as well with the grid as with "
    "counterfactuals, and worse with concepts."
)
_SAME = (
    "The simulated reader looks at pictures and not at heat maps, so that of attribution it scores what it does of the "
    "grid; maps are for people."
)


def write(
    config: Config,
    workdir: Path,
    folder: pathlib.Path,
    kept: Panels,
    truths: Truths,
    evaluator: Evaluator,
) -> None:
    """Reads all panels, and writes readers.csv, verdicts.csv, the figures and the section of the page; says what comes of it.

    Args:
      config, workdir: of the run.
      folder: of the panels.
      kept: {(network, kind): panel}.
      truths: {network: which attributes are relevant}.
      evaluator: what read them.
    """
    asked = panel_keys.of_config(config)
    read = readers_table.read_all(
        kept, truths, evaluator, rows=asked.rows, jnd=asked.jnd, seed=asked.seed
    )
    files.write_csv(folder / "readers.csv", ReaderRow._fields, read.rows)
    files.write_csv(folder / "verdicts.csv", Verdict._fields, read.verdicts)
    report = pathlib.Path(workdir) / "report"
    report.mkdir(exist_ok=True)
    # Panels of the other networks are read as controls, and not shown.
    shown = {kind: one.panel for (network, kind), one in kept.items() if network == TRAINED}
    for kind, panel in shown.items():
        path = folder / f"panel_{kind}"
        figure = panel_figures.panel_figure(panel, SHOWN)
        for written in style.save_figure(figure, path, column=config.report.column_width):
            shutil.copyfile(written, report / written.name)
    files.seal(folder, ("readers.csv", "verdicts.csv"))
    said, same = readers_table.sentences(read), readers_table.all_shown(kept, asked.rows)
    pictures = [
        page.figure(
            report,
            f"panel_{kind}",
            f"{kind}. {panel.caption} {panel.note}".strip(),
            alt=_alt(kind),
            sheet=True,
        )
        for kind, panel in shown.items()
    ]
    texts = [page.paragraph(_intro(len(truths)))]
    texts += [page.paragraph(text) for text in _notes(evaluator, shown)]
    texts += [page.paragraph(text) for text in (*said, *filter(None, [same]))]
    tables = [
        page.table(report, _readers(read)),
        page.table(report, _verdicts(read)),
        page.folded("How well attributes are read", page.table(report, _evaluated(evaluator))),
    ]
    page.write_section(workdir, NAME, TITLE, *texts, *tables, *pictures)
    for text in said:
        say.result(text)
    if same:
        say.line(f"panels: {same}")
    say.line(f"written to {folder}: readers.csv, verdicts.csv, {', '.join(shown)} as PNG, SVG, PDF")


def export(config: Config, kept: Panels, pictures: Pictures) -> None:
    """Writes the questionnaire about the run's network, `<panels.export>/index.html`, with the rows that a reader is shown."""
    asked = panel_keys.of_config(config)
    panels = {}
    for (network, kind), one in kept.items():
        if network == TRAINED and kind not in OTHER_NETWORK:
            few = [*range(min(asked.rows, len(one.panel.logits)))]
            panels[kind] = one.panel if one.panel.reading == "signs" else part(one.panel, few)
    path = pathlib.Path(asked.export).expanduser() / "index.html"
    questionnaire.write(path, panels, pictures, WORDS, asked.consent)
    say.line(f"the questionnaire is {path}; ?c={'|'.join(panels)}&p=ID chooses what a person sees")


def _alt(kind):
    return f"rows and columns of pictures of animals: {kind}"


def _intro(networks):
    return (
        f"Panels are read by {PROXY}: a network reads the attributes of every picture, noise of the size of its errors is "
        f"added, and an attribute is called relevant where its evidence is above what {100 * QUANTILE:g} % of panels with "
        "shuffled columns have. Verdicts are scored against what interventions measured, in "
        f"{REPEATS} panels of other rows, and {LEVEL:.0%} intervals are over these. Beside the run's network stand "
        f"{networks - 1} control{'s' * (networks > 2)}, and a reader that is told the true attributes."
    )


def _notes(evaluator, shown):
    notes = [_PEOPLE]
    if "attribution" in shown:
        notes.append(_SAME)
    if evaluator.left_out:
        notes.append(f"Attributes {evaluator.left_out}.")
    if set(OTHER_NETWORK) & set(shown):
        notes.append(
            "The panel flow_classifier explains a classifier of the flow's own, so that its reader has no score."
        )
    return notes


def _readers(read: Read) -> Table:
    cells = [
        (
            row.panel,
            row.network,
            row.reader,
            Interval(row.accuracy, row.low, row.high),
            Interval(row.auc, row.auc_low, row.auc_high),
            row.count,
        )
        for row in read.rows
    ]
    caption = (
        "How right readers are (simulated ones, a proxy for people). Accuracy is the share of attributes of which the verdict "
        "is right, AUC that of the evidence; where no attribute is relevant there is none."
    )
    header = ("panel", "network", "reader", "accuracy", "AUC", "panels")
    return Table("panels_readers", caption, header, cells)


def _verdicts(read: Read) -> Table:
    kinds = list(dict.fromkeys(v.panel for v in read.verdicts))
    networks = list(dict.fromkeys(v.network for v in read.verdicts))
    by = {(v.network, v.attribute, v.panel): v for v in read.verdicts if v.reader == SIMULATED}
    names = [name for name in ATTRIBUTES if any(key[1] == name for key in by)]
    cells = []
    for network in networks:
        for name in names:
            found = [by.get((network, name, kind)) for kind in kinds]
            # The truth is of the network and not of the panel, so any panel that knows it will do.
            truth = next((v.truth for v in found if v and v.truth >= 0), -1)
            told = {1: "yes", 0: "no", -1: None}[truth]
            cells.append((network, name, told, *(v.share if v else np.nan for v in found)))
    caption = (
        "Shares of panels in which the simulated reader calls an attribute relevant. Of panels that say nothing it is one in "
        "twenty."
    )
    return Table("panels_verdicts", caption, ("network", "attribute", "relevant", *kinds), cells)


def _evaluated(evaluator: Evaluator) -> Table:
    cells = [(n, evaluator.error[n], evaluator.r2[n]) for n in ATTRIBUTES]
    caption = "The network that reads attributes. On scenes that it was not trained on; angles in radians."
    return Table("panels_evaluator", caption, ("attribute", "mean absolute error", "R2"), cells)
