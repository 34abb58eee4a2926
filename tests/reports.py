"""Working directories with small results of every stage, made without training; and a reader of pages."""

import html.parser
import itertools
import json
import pathlib

import numpy as np
import planted
import score_cases
import toy
from matplotlib.figure import Figure

from mixaug_jax import config as config_lib
from mixaug_jax import dissection
from mixaug_jax.attribution import METHODS
from mixaug_jax.core import entries, files
from mixaug_jax.dissection import result
from mixaug_jax.draw import dissection_figures, dissection_tables, occlusion_tables, style
from mixaug_jax.training import checkpoint

SCORES = (
    ("gradcam", "method", "pointing_game", 0.75, 0.7, 0.8),
    ("gradcam", "method", "deletion", 0.25, 0.2, 0.3),
    ("gradient", "method", "pointing_game", 0.5, 0.4, 0.6),
    ("gradient", "method", "deletion", float("nan"), float("nan"), float("nan")),
    ("center", "control", "pointing_game", 0.625, 0.5, 0.7),
    ("random", "control", "pointing_game", 0.125, 0.1, 0.2),
    ("random", "control", "deletion", 0.5, 0.4, 0.6),
)


def found():
    """A dissection with three detectors."""
    options = dissection.Options(size=16, random_baseline=False, shuffles=2)
    thresholds = {"pixels": [0.5, 0.5, 0.5]}
    return dissection.dissect(
        planted.net(), planted.source(), ("pixels",), options, thresholds=thresholds
    )["pixels"]


def write_run(workdir, dissected=None, *, method="mixup", seed=0, accuracy=0.75, scores=SCORES):
    """What the stages write; without `dissected` and `scores` their folders are left out."""
    workdir = pathlib.Path(workdir)
    config = toy.config(method)
    config.seed = seed
    splits = toy.splits()
    config = config_lib.resolve(
        config, train_size=len(splits["train"]), class_names=splits["train"].class_names
    )
    checkpoint.write_settings(workdir, config)
    lines = [
        {"step": 4, "train_loss": 1.5, "train_accuracy": 0.25},
        {"step": 4, "validation_loss": None, "validation_accuracy": 0.5},
        {"step": 8, "train_loss": 0.5, "train_accuracy": 0.5},
        {"step": 8, "validation_loss": 0.75, "validation_accuracy": 0.7},
        {"step": 8, "test_loss": 0.8, "test_accuracy": accuracy, "test_images": 48},
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if dissected is not None:
        write_dissection(workdir / "dissection", dissected)
    if scores:
        write_attribution(workdir / "attribution", scores)
    return workdir


def write_occlusion(folder, shift=0.0):
    """A sweep of four removals under five names each, of which one raises the accuracy; and two figures."""
    folder.mkdir(parents=True)
    rows = []
    for label in ("true", "predicted"):
        for k, (selection, share) in enumerate(itertools.product(("top", "lowest"), (5, 50))):
            change = 0.125 * (k - 2) + shift
            for value in (
                "zero",
                "blur",
            ):  # of which the second is the same removal by another name
                row = [
                    label,
                    "gradient",
                    selection,
                    share,
                    value,
                    k + 1,
                    8,
                    change,
                    change - 0.1,
                    change + 0.1,
                ]
                rows.append([*row, int(k == 3), -change, -change, -change, 0.0, *[""] * 6])
    files.write_csv(folder / "sweep.csv", occlusion_tables.HEADER, rows)
    for name in ("rises", "curves_gradient"):
        _draw(folder / name)


def write_dissection(folder, dissected):
    folder.mkdir(parents=True)
    result.save(dissected, folder / f"{dissected.layer}.npz")
    for name in ("unit", "concept", "count"):
        header, rows = getattr(dissection_tables, f"{name}_rows")(dissected)
        files.write_csv(folder / f"{name}s.csv", header, rows)
    sheet = dissection_figures.unit_sheet(dissected, planted.source(), planted.shares)
    style.save_figure(sheet, folder / f"units_{dissected.layer}")


def write_attribution(folder, scores):
    folder.mkdir(parents=True)
    names = dict.fromkeys(score for _, _, score, *_ in scores)
    told = {
        method: score_cases.said(*names, kind=kind, title=entries.title_of(METHODS[method]))
        for method, kind, *_ in scores
    }
    files.write_json(folder / "entries.json", told)
    header = ("method", "kind", "score", "mean", "low", "high", "images", "left_out")
    files.write_csv(folder / "scores.csv", header, [(*row, 40, 0) for row in scores])
    for name in ("curves", "overlays"):
        _draw(folder / name)


def _draw(path):
    figure = Figure((4, 2))
    figure.subplots().plot(np.arange(3))
    style.save_figure(figure, path)


class Page(html.parser.HTMLParser):
    """Elements by tag, and the text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.open, self.text, self.raw = [], [], "", path.read_text(encoding="utf-8")
        self.feed(self.raw)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " if tag in ("p", "td", "th", "li", "figcaption") else ""

    def handle_data(self, text):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += text

    def every(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]
