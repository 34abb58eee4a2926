"""The part of a run's page about its checkpoints: what was measured of each, over the training steps."""

import json
import pathlib

from markupsafe import Markup

from mixaug_jax.core import files
from mixaug_jax.draw import page, style, training_figures
from mixaug_jax.report.run import found_files

_Lines = dict[str, dict[int, float]]


def section(workdir: pathlib.Path, folder: pathlib.Path, column: float) -> Markup | str:
    """Curves over the checkpoints that --checkpoint=all has looked at; "" where these are fewer than two."""
    panels = _concepts(workdir / "dissection") | _scores(workdir / "attribution")
    if not panels:
        return ""
    style.save_figure(training_figures.over_steps(panels), folder / "over_steps", column=column)
    steps = {step for drawn in panels.values() for line in drawn.values() for step in line}
    caption = (
        f"Over training. Results of {len(steps)} checkpoints, steps {min(steps)} to {max(steps)}. Unique concepts are totals "
        "at the middle IoU threshold, scores are means over images. Lines only join the checkpoints that were kept."
    )
    alt = f"line charts over the training steps: {', '.join(panels)}"
    figure = page.figure(folder, "over_steps", caption, alt=alt)
    return page.section("steps", "Over training", figure)


def _concepts(place) -> dict[str, _Lines]:
    """Unique concepts of every layer, at the middle threshold."""
    lines: _Lines = {}
    title = ""
    for step, folder in found_files.steps_of(place, "counts.csv").items():
        totals = [
            row
            for row in files.read_csv(folder / "counts.csv")
            if (row["per"], row["category"]) == ("unit", "total")
        ]
        levels = sorted({row["iou_threshold"] for row in totals})
        for row in totals:
            if row["iou_threshold"] == levels[len(levels) // 2]:
                title = f"unique concepts, IoU > {row['iou_threshold']:g}"
                lines.setdefault(str(row["layer"]), {})[step] = row["unique"]
    return _several({title: lines})


def _scores(place) -> dict[str, _Lines]:
    """The scores that a page's first sentences speak of, of every method and control."""
    panels: dict[str, _Lines] = {}
    for step, folder in found_files.steps_of(place, "scores.csv").items():
        told = json.loads((folder / "entries.json").read_text(encoding="utf-8"))
        facts = next(iter(told.values()))["scores"]
        for row in files.read_csv(folder / "scores.csv"):
            known = facts.get(row["score"], {})
            if known.get("headline"):
                lines = panels.setdefault(known["title"], {})
                value = float(row["mean"]) if row["mean"] != "" else float("nan")
                lines.setdefault(told[row["method"]]["title"], {})[step] = value
    return _several(panels)


def _several(panels):
    """Those with two checkpoints at least."""
    return {
        title: lines
        for title, lines in panels.items()
        if len({step for line in lines.values() for step in line}) > 1
    }
