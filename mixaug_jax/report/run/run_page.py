"""The page of one run, from the files of its working directory."""

import contextlib
import dataclasses
import pathlib

from mixaug_jax import config as config_lib
from mixaug_jax.core import files
from mixaug_jax.core.stats import LEVEL
from mixaug_jax.core.types import Scalar
from mixaug_jax.dissection import result
from mixaug_jax.draw import (
    dissection_figures,
    explanation_captions,
    page,
    style,
    training_figures,
    unit_browser,
    unit_pictures,
)
from mixaug_jax.draw.page import Interval, Table
from mixaug_jax.explain import caveats
from mixaug_jax.explain import evaluation as explained
from mixaug_jax.mixing import MIXERS
from mixaug_jax.models import imagenet
from mixaug_jax.report import augmentations, provenance, references
from mixaug_jax.report.run import (
    age,
    answers,
    found_files,
    over_steps,
    run_formulas,
    run_interventions,
    run_occlusion,
)
from mixaug_jax.training import chance, metric_log

# The folders of results, and the table that says that a stage has ended there.
_TABLES = {
    "dissection": "counts.csv",
    "interventions": "units.csv",
    "attribution": "scores.csv",
    "occlusion": "sweep.csv",
}
_MOST = 100  # rows of a long table on the page; all are in its CSV file


def make(workdir: pathlib.Path, folder: pathlib.Path, column: Scalar | None = None) -> str:
    """The page's HTML; figures and tables are written to `folder`.

    column: width of a paper's column for the figures as PDF, inches; None: as in the run's settings.

    Raises:
      ValueError: `workdir` is no run's working directory.
    """
    config, lines = config_lib.read(workdir), metric_log.read(workdir)
    if column is not None:
        config.report.column_width = float(column)
    column = config.report.column_width
    shown, problem = _pictures(workdir, config, folder)
    known = found_files.steps_of_run(workdir)
    dissected, removed, source, swept = (
        found_files.latest(workdir / name, table, known) for name, table in _TABLES.items()
    )
    results, unread = _dissections(dissected)
    scores = files.read_csv(source / "scores.csv")
    methods = dict.fromkeys(row["method"] for row in scores)
    made = {
        "dissect": found_files.results_of(dissected, known, results),
        "intervene": found_files.results_of(removed, known),
        "explain": found_files.results_of(source, known, methods),
        "occlude": found_files.results_of(swept, known),
    }
    judged, names = chance.read(workdir), config.resolved.class_names
    said = [
        answers.accuracy(config, lines, judged),
        *filter(None, [problem]),
        *age.warning(known, made),
    ]
    # The deepest layer speaks for the run; the others have their place in the section.
    said += [answers.concepts(found) for found in list(results.values())[-1:]]
    entries = _entries(source)
    said += answers.explanations(scores, entries, answers.per_image(source, entries))
    parts = [
        _augmentation(config, shown, problem, folder),
        _training(config, lines, folder),
        _concepts(
            dissected,
            folder,
            (results, unread),
            run_interventions.of(removed, results),
            age.notes(known, made, "dissect"),
            column,
        ),
        run_interventions.section(removed, folder, age.notes(known, made, "intervene"), column),
        _explanations(source, folder, scores, entries, age.notes(known, made, "explain")),
        run_occlusion.section(
            swept, folder, age.notes(known, made, "occlude"), imagenet.readable(names)
        ),
        over_steps.section(workdir, folder, column),
        *page.read_sections(workdir),
        references.section(folder, [references.used_in(workdir, config.mix.to_dict())]),
        provenance.section(folder, workdir, config, _asked(config, results, source, scores)),
    ]
    title = f"{_method(config)} on {config.data.name}, seed {config.seed}"
    warning = [page.paragraph(text, kind="banner") for text in [answers.banner(judged)] if text]
    said = [*warning, *map(page.paragraph, said)]
    return page.document(title, said, [part for part in parts if part])


def _method(config):
    if not config.resolved.steps:
        return pathlib.Path(config.weights).name or config.resolved.model["name"]
    return "baseline" if config.mix.name == "none" else config.mix.name


def _pictures(workdir, config, folder):
    """The pictures of the augmentation, or None and why not."""
    if not config.resolved.steps:  # not trained here, so nothing was mixed
        return None, ""
    try:
        name, path = _method(config), folder / "pictures.npz"
        return augmentations.pictures({name: config}, path, {name: workdir}), ""
    except (ValueError, OSError) as error:
        text = str(error).splitlines()[0]
        return (
            None,
            f"The data set cannot be read here, so its pictures are left out ({text}).",
        )


def _augmentation(config, shown, problem, folder):
    if not config.resolved.steps:
        return ""
    title = "The augmentation"
    if shown is None:
        return page.section("augmentation", title, page.missing(problem))
    style.save_figure(
        augmentations.figure(shown), folder / "augmentation", column=config.report.column_width
    )
    method, count = config.mix.name, shown.images.shape[1]
    caption = f"{count} training images. No images are mixed in this run."
    alt = f"a row of training images with their labels: {_flat(shown.labels[0])}"
    if method != "none" and len(shown.names) == 1:
        caption = f"{count} training images. {method} was brought to the run, and a page runs no such code."
        if method in MIXERS:
            caption = (
                f"{count} training images. {method} looks at a network, which cannot be read here."
            )
    elif method != "none":
        caption = (
            f"{count} training images without and with {method}. {augmentations.label_words({method: config})} For "
            f"this figure, parameters are drawn for each image separately; of {augmentations.DRAWS} draws, the one that mixes "
            "the most images is shown."
        )
        alt = f"{alt}; below, the same under {method}: {_flat(shown.labels[1])}"
    return page.section(
        "augmentation", title, page.figure(folder, "augmentation", caption, alt=alt, sheet=True)
    )


def _flat(labels):
    return ", ".join(label.replace("\n", " and ") for label in labels)


def _training(config, lines, folder):
    title = "Training"
    if not config.resolved.steps:
        said = "imported, not trained here" if config.weights else "trained elsewhere"
        return page.section("training", title, page.missing(f"The weights were {said}."))
    if not lines:
        return page.section(
            "training", title, page.missing("train: not run (there is no metrics.jsonl).")
        )
    style.save_figure(
        training_figures.training_curves(lines),
        folder / "training",
        column=config.report.column_width,
    )
    caption = "Loss and accuracy during training. "
    if config.mix.name != "none":
        caption += (
            "Training values are computed on mixed images with mixed labels, a harder task than validation: training accuracy "
            "below validation accuracy is expected."
        )
    # The last value of each name: the test's own line has no training loss.
    ends = {k: v for line in lines for k, v in line.items() if v is not None}
    rows = [
        (split, ends.get(f"{split}_loss"), ends.get(f"{split}_accuracy"))
        for split in ("train", "validation", "test")
        if f"{split}_loss" in ends
    ]
    table = Table(
        "training", "Loss and accuracy at the end of training.", ("split", "loss", "accuracy"), rows
    )
    return page.section(
        "training",
        title,
        page.figure(folder, "training", caption, alt=_curves_alt(lines)),
        page.table(folder, table),
    )


def _curves_alt(lines):
    ends = []
    for name in ("train_loss", "validation_accuracy"):
        _, values = training_figures.series(lines, name)
        if len(values):
            ends.append(f"{name.replace('_', ' ')} goes from {values[0]:.3g} to {values[-1]:.3g}")
    return f"two line charts over steps; {'; '.join(ends)}"


def _dissections(folder):
    """The latest dissection by layer, in the network's order; and sentences about files that cannot be read."""
    # counts.csv has the network's order; file names would put layer10 before layer2.
    layers = dict.fromkeys(str(row["layer"]) for row in files.read_csv(folder / "counts.csv"))
    found, unread = {}, []
    for layer in layers:
        try:
            found[layer] = result.load(folder / f"{layer}.npz")
        except ValueError as error:
            unread.append(f"{error}; --stage=dissect makes it again.")
    return found, unread


def _concepts(source, folder, found, removed, notes, column):
    title, (results, unread) = "Concepts", found
    if not results:
        said = unread or ["dissect: not run (--stage=dissect)."]
        return page.section("concepts", title, *map(page.missing, said))
    # Of --checkpoint=all, the last step is shown in full and the others as a table.
    every = source.parent if source.name.isdigit() else source
    steps = found_files.steps_of(every, "counts.csv")
    parts = [*notes, page.paragraph(_how(next(iter(results.values()))), kind="note")]
    parts += map(page.missing, unread)
    for layer in results:
        parts += [
            page.heading(layer),
            *_layer_figures(source, folder, layer, results[layer], column),
        ]
    if len(steps) > 1:
        parts.append(page.table(folder, _by_step(steps)))
    counts = files.read_csv(source / "counts.csv")
    rows = [_count_row(row) for row in counts if row["per"] == "unit"]
    caption = (
        f"Unique concepts by IoU threshold and category, with the {100 * LEVEL:g} % interval of the count that another set of "
        "equally many images is expected to give (from random halves of these; none below a count of 5). Beside it the mean "
        "and the range over label maps shuffled against the images, and the count with random weights."
    )
    header = ("layer", "IoU >", "category", *_COUNTED, "detectors")
    parts.append(page.table(folder, Table("unique", caption, header, rows)))
    pictures = unit_pictures.load_for(results, source)
    browser = unit_browser.write(folder, results, pictures, removed)
    parts += [page.heading("Unit browser"), browser.html]
    parts += run_formulas.parts(source, folder, results, browser)
    # Both tables are as long as the network is wide; the page shows their heads.
    for name, key in (("concepts", "best_iou"), ("units", "iou_1")):
        rows = sorted(files.read_csv(source / f"{name}.csv"), key=lambda row: -float(row[key] or 0))
        header = (
            [column for column in rows[0] if not column.startswith("image_")] if rows else [name]
        )
        rows = [[browser.cell(row, column) for column in header] for row in rows]
        long = Table(
            name, f"All {name}, sorted by IoU.", [h.replace("_", " ") for h in header], rows
        )
        parts.append(
            page.folded(f"Table of {name}", page.table(folder, long, most=_MOST), long=True)
        )
    return page.section("concepts", title, *parts)


def _how(found):
    options = found.options
    return (
        f"Network Dissection on {len(found.indices)} images with {len(found.names) - 1} concepts. A unit is active where its "
        f"activation is among its top {options.q:.1%} ({options.over} maps). It is a detector of the concept with the highest "
        "IoU if that IoU exceeds the threshold; unique concepts are the distinct concepts that have a detector."
    )


def _layer_figures(source, folder, layer, found, column):
    # Drawn by the stage as a rule; from the result alone where its figure is gone.
    if not found_files.copy(source, folder, f"unique_{layer}"):
        style.save_figure(
            dissection_figures.unique_concepts({layer: found}),
            folder / f"unique_{layer}",
            column=column,
        )
    caption = (
        f"Unique concepts of {layer} by category and IoU threshold, {len(found.threshold)} units, {len(found.indices)} images. "
        "Circle and gray band: control with label maps shuffled across images (mean, range). Cross: control with random "
        "weights. Line: 95 % interval of the count that another set of equally many images is expected to give."
    )
    totals = ", ".join(
        f"{total} at IoU > {threshold:g}"
        for threshold, total in zip(found.options.iou, found.unique().sum(-1), strict=True)
    )
    yield page.figure(
        folder, f"unique_{layer}", caption, alt=f"bar chart; unique concepts in all: {totals}"
    )
    if not found_files.copy(source, folder, f"units_{layer}"):
        yield page.missing("The units' top images are not there; --stage=dissect makes them.")
        return
    caption, alt = (
        dissection_figures.unit_sheet_caption(found),
        dissection_figures.unit_sheet_alt(found),
    )
    yield page.figure(folder, f"units_{layer}", caption, alt=alt, sheet=True)


_COUNTED = ("unique", "shuffled", "random weights")


def _count_row(row):
    shuffled = Interval(row["unique_null_mean"], row["unique_null_min"], row["unique_null_max"])
    unique = Interval(row["unique"], row["unique_low"], row["unique_high"])
    return (str(row["layer"]), row["iou_threshold"], row["category"], unique, shuffled,
            row["unique_random"], row["detectors"])  # fmt: skip


def _by_step(steps):
    """Totals of every checkpoint that was dissected."""
    rows = []
    for step, folder in steps.items():
        for row in files.read_csv(folder / "counts.csv"):
            if (row["per"], row["category"]) == ("unit", "total"):
                rows.append((step, *_count_row(row)[:2], *_count_row(row)[3:6]))
    header = ("step", "layer", "IoU >", *_COUNTED)
    return Table("unique_by_step", "Unique concepts in all, by training step.", header, rows)


def _asked(config, results, source, scores):
    """What the dissection and the explanations were asked for besides the run's settings."""
    given = {}
    if results:
        options = next(iter(results.values())).settings["options"]
        given |= {f"dissect.{key}": value for key, value in options.items()}
    methods = dict.fromkeys(row["method"] for row in scores if row["kind"] == "method")
    # One call of the stage made all of them, so any file knows what it was asked.
    for method in list(methods)[:1]:
        with contextlib.suppress(ValueError):  # a result that is not there, or damaged
            made = explained.load(source / f"{method}.npz").settings
            given |= {"explain.methods": (*methods,), "explain.scores": (*made["scores"],)}
            # What was explained from Python does not know its split.
            given |= {f"explain.{key}": made[key] for key in ("split", "label") if key in made}
            given["explain.max_images"] = made["images"]
    had = config_lib.flatten(config.to_dict())
    # Results went through JSON, whose lists never equal the config's tuples.
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    return {key: value for key, value in given.items() if key in had and had[key] != value}


def _explanations(source, folder, scores, entries, notes):
    title = "Explanations"
    if not scores:
        return page.section(
            "explanations", title, page.missing("explain: not run (--stage=explain).")
        )
    parts = [*notes]
    if found_files.copy(source, folder, "overlays"):
        caption = explanation_captions.overlays_caption(entries)
        alt = explanation_captions.overlays_alt(entries)
        parts.append(page.figure(folder, "overlays", caption, alt=alt, sheet=True))
    if found_files.copy(source, folder, "curves"):
        caption = explanation_captions.faithfulness_caption(entries)
        caption = f"{caption} {caveats.sentences(entries, 'ties')}".rstrip()
        alt = explanation_captions.faithfulness_alt(entries, scores)
        parts.append(page.figure(folder, "curves", caption, alt=alt))
    facts = next(iter(entries.values()), {}).get("scores", {})
    # What is merely another view of a score waits below the table.
    chief = [row for row in scores if not facts.get(row["score"], {}).get("view")]
    parts.append(page.table(folder, score_table(chief or scores, facts)))
    if 0 < len(chief) < len(scores):
        every = dataclasses.replace(score_table(scores, facts), name="scores_all")
        parts.append(page.folded("Every score", page.table(folder, every), long=True))
    return page.section("explanations", title, *parts)


def _entries(source) -> dict:
    """What the results say of their methods and scores, {} where that is not there."""
    path = source / "entries.json"
    return files.read_json(path) if path.exists() else {}


def score_table(scores: list[dict], facts: dict[str, dict]) -> Table:
    """Methods and controls against scores, means over images with their intervals; `facts` says which way is better."""
    names = list(dict.fromkeys(row["score"] for row in scores))
    cells = {(r["method"], r["score"]): Interval(r["mean"], r["low"], r["high"]) for r in scores}
    methods = {row["method"]: row["kind"] for row in scores}
    rows = [(m, kind, *(cells.get((m, name)) for name in names)) for m, kind in methods.items()]
    smaller = [
        run_occlusion.plain(name) for name in names if facts.get(name, {}).get("better", 0) < 0
    ]
    # At most: scores of alignment leave out images without a region.
    caption = (
        f"Scores of every explanation, means over at most {max(row['images'] for row in scores)} images, with "
        f"{100 * LEVEL:g} % intervals over bootstrap resamples of the images. Controls do not depend on the network."
    )
    caption += f" Smaller is better for {', '.join(smaller)}." if smaller else ""
    return Table("scores", caption, ("method", "kind", *map(run_occlusion.plain, names)), rows)
