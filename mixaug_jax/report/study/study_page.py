"""The page of a study, from its runs' files and what `mixaug_jax.study` makes of them."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Callable

from mixaug_jax import config as config_lib
from mixaug_jax.core import files
from mixaug_jax.core.types import Scalar
from mixaug_jax.dissection import result as dissection
from mixaug_jax.draw import page, style, training_figures
from mixaug_jax.draw.page import Link, Table
from mixaug_jax.report import augmentations, provenance, references
from mixaug_jax.report.run import age, found_files
from mixaug_jax.report.study import (
    study_changes,
    study_classes,
    study_explanations,
    study_interventions,
    study_numbers,
    study_occlusion,
    study_relevance,
    study_sweeps,
)
from mixaug_jax.report.study import study_figures as drawn
from mixaug_jax.study import plan, sentences
from mixaug_jax.study.crossing import TILES
from mixaug_jax.study.measures import READINGS
from mixaug_jax.study.results import Study
from mixaug_jax.training import metric_log


def make(
    study: Study, workdir: pathlib.Path, folder: pathlib.Path, column: Scalar | None = None
) -> str:
    """The page's HTML; figures and tables are written to `folder`.

    column: width of a paper's column for the figures as PDF, inches; None: as in the settings of the first run.
    """
    configs = _configs(study)
    if column is None:
        column = next((config.report.column_width for config in configs.values()), 0.0)
    shown, problem = _pictures(study, configs, folder)
    # First what makes all that follows worthless, if there is any: networks at chance.
    said = [page.paragraph(text, kind="banner") for text in [sentences.at_chance(study)] if text]
    said.append(page.paragraph(_what(study, configs, shown), kind="note"))
    said += [page.labeled(*text.partition(": ")[::2]) for text in study.sentences.values()]
    if study.problems:
        text = f"{_count(len(study.problems), 'result')}, listed under {_MISSING}."
        said.append(page.labeled("Missing or left out", text))
    older = _older(study)
    if older:
        said.append(page.labeled("Older checkpoints", " ".join(older)))
    # From what the study was made for to how it was made; a section without results gives "" and is left out.
    parts = [
        study_numbers.comparison(study, folder),
        study_numbers.differences(study, folder, column),
        study_changes.section(study, folder, column),
        study_sweeps.section(study, folder, column),
        study_classes.section(study, study.classes, folder, column),
        _concepts(study, folder, column),
        study_interventions.section(study, folder, column),
        study_explanations.section(study, folder, column),
        _cross_deletion(study, folder, column),
        study_occlusion.section(study, folder, column),
        study_relevance.section(study, folder),
        _augmentations(shown, problem, configs, folder, column),
        _training(study, folder, column),
        _runs(study, folder),
        _problems(study),
        references.section(folder, _used(study, configs)),
        _made(study, configs, workdir, folder),
    ]
    return page.document(_name(study), said, [part for part in parts if part])


def _name(study) -> str:
    """Which augmentations; of a sweep the configs, and over which keys."""
    swept = study.asked.get("swept", {})
    configs = dict.fromkeys(swept.get(name, {}).get("of", name) for name in study.augmentations)
    over = dict.fromkeys(key for values in swept.values() for key in values if key != "of")
    name = ", ".join(configs) + (f", over {', '.join(over)}" if over else "")
    return f"{name}: {_count(len(study.seeds), 'seed')}"


def _what(study, configs, shown) -> str:
    """Data set, network and how much was looked at, in one line."""
    found = list(configs.values())
    if not found:
        return "No run has any result yet."

    def several(name: Callable):
        # All have the same as a rule; where they do not, a reader has to know.
        return ", ".join(dict.fromkeys(map(name, found)))

    sets = several(lambda config: config.data.name)
    networks = several(
        lambda c: f"{c.resolved.model['name']} (width {c.resolved.model['width']:g})"
    )
    parts = [networks, _count(len(study.seeds), "seed")]
    if shown:
        split = "test" if found[0].data.test_split else "validation"
        parts.append(f"{shown.held_out} {split} images")
    _, explained = study_explanations.results(study)
    parts += [f"{len(one.indices)} explained" for one in list(explained.values())[:1]]
    dissected = _dissected(study)
    parts += [f"{dissected} dissected"] if dissected else []
    return f"Augmentations compared on {sets}: {', '.join(parts)}."


def _dissected(study) -> int:
    """How many images were dissected, of the first run that was."""
    for where in study.workdirs.values():
        for path in sorted(pathlib.Path(where, "dissection").glob("*.npz")):
            with contextlib.suppress(ValueError):  # a damaged one is listed as missing
                return len(dissection.load(path).indices)
    return 0


def _count(number, what):
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _older(study) -> list[str]:
    """What is not of a run's latest checkpoint, although it is beside what is."""
    stages = {"dissect": "dissection", "intervene": "interventions"}
    stages |= {"explain": "attribution", "occlude": "occlusion"}
    said = []
    for (name, seed), where in study.workdirs.items():
        known = found_files.steps_of_run(pathlib.Path(where))
        made = {
            stage: found_files.results_of(pathlib.Path(where, folder), known)
            for stage, folder in stages.items()
        }
        said += [f"{name}, seed {seed}: {text}" for text in age.warning(known, made)]
    return said


def _used(study, configs):
    """What each run used, of which the references are given."""
    return [
        references.used_in(pathlib.Path(where), configs[name].mix.to_dict())
        for (name, _), where in study.workdirs.items()
    ]


def _problems(study):
    if not study.problems:
        return ""
    return page.section("missing", _MISSING, page.missing_list(study.problems))


_MISSING = "What is missing"


def _concepts(study, folder, column):
    layers = dict.fromkeys(study.measures[m].subject for m in study.find("concepts", "unique"))
    if not layers:
        return page.section(
            "concepts", "Concepts", page.missing("dissect: no run has a dissection.")
        )
    parts = []
    for layer in layers:
        style.save_figure(drawn.concepts(study, layer), folder / f"concepts_{layer}", column=column)
        caption = (
            f"Unique concepts of {layer} by category and IoU threshold. Bars: mean over seeds; points: individual seeds; "
            "circles: control with label maps shuffled across images; crosses: control with random weights."
        )
        totals = study.find("concepts", "unique", subject=layer, setting="unit", category="total")
        # For those who cannot see the figure.
        said = [
            f"{name} {study.mean[a, m]:.3g} at IoU > {study.measures[m].level:g}"
            for m in totals
            for a, name in enumerate(study.augmentations)
        ]
        alt = f"bar charts; in all: {', '.join(said)}"
        parts.append(page.figure(folder, f"concepts_{layer}", caption, alt=alt))
    reports = _reports(study, folder)
    if reports:
        text = "Units with the images that activate them most are on the runs' own pages, beside this one:"
        parts.append(page.links(text, reports.values()))
    return page.section("concepts", "Concepts", *parts)


def _reports(study, folder) -> dict[tuple[str, int], Link]:
    """The runs' own pages, those that are there."""
    found = {}
    for (name, seed), where in study.workdirs.items():
        report = pathlib.Path(where) / "report" / "report.html"
        if report.exists():
            # Relative, so that links survive when the study's folder is moved.
            found[name, seed] = Link(f"{name} {seed}", os.path.relpath(report, folder))
    return found


def _cross_deletion(study, folder, column):
    name = "Deletion across models"
    if not study.cross_deletion:
        return page.section(
            "cross-deletion", name, page.missing("No seed has explanations of two models.")
        )
    style.save_figure(drawn.cross_deletion(study), folder / "cross_deletion", column=column)
    one = next(iter(study.cross_deletion.values()))
    counts = [f"{len(c.indices)} (seed {seed})" for seed, c in study.cross_deletion.items()]
    caption = (
        f"How fast each model's output falls when pixels are deleted in the order of another model's {one.method}. Smaller is "
        "faster; 1 is as slow as in random order, which removes the advantage of models that are robust to occlusion. Framed: "
        "a model's own explanations. Only images that all models of the seed classify correctly are used: "
        f"{', '.join(counts)}. Tiles of 1/{TILES} of the side are set to the mean color."
    )
    parts = [
        page.figure(
            folder,
            "cross_deletion",
            caption,
            alt="matrices of models against the sources of the ranking; the readings are in the table below",
        )
    ]
    # The readings are numbers of the study; the figure shows what they are made of.
    chosen = [m for name in READINGS for m in study.find("faithfulness", name)]
    rows = [
        (name, *(study_numbers.mean(study, a, m) for m in chosen))
        for a, name in enumerate(study.augmentations)
    ]
    caption = (
        "Three readings of it. Own vs others (larger is better): other models' rankings minus the model's own, judged by the "
        "model. Fixed evaluators (smaller is better): the model's rankings judged by all models. Gain over random (larger is "
        f"better): what its own rankings gain over chance. {study_numbers.what_intervals_are(study.interval_of[:, chosen])}"
    )
    header = ("augmentation", *(study.measures[m].name.replace("_", " ") for m in chosen))
    if chosen:
        parts.append(page.table(folder, Table("readings", caption, header, rows)))
    return page.section("cross-deletion", name, *parts)


def _configs(study):
    """Each augmentation's settings, of its first seed that is there."""
    return {
        name: config_lib.read(next(w for (n, _), w in study.workdirs.items() if n == name))
        for name in study.augmentations
        if any(n == name for n, _ in study.workdirs)
    }


def _pictures(study, configs, folder):
    """The pictures of the augmentations, or None and why not ("": all weights were imported)."""
    configs = {n: config for n, config in configs.items() if not config.weights}
    if not configs:
        return None, ""
    try:
        # Of each the network of its first seed, where its mixer looks at one.
        places = {name: where for (name, _), where in reversed(study.workdirs.items())}
        return augmentations.pictures(configs, folder / "pictures.npz", places), ""
    except (ValueError, OSError) as error:
        return None, f"The data set cannot be read here: {str(error).splitlines()[0]}"


def _augmentations(shown, problem, configs, folder, column):
    name = "The augmentations"
    if shown is None:
        return page.section("augmentations", name, page.missing(problem)) if problem else ""
    style.save_figure(augmentations.figure(shown), folder / "augmentations", column=column)
    caption = (
        f"{_count(shown.images.shape[1], 'training image')} under each augmentation. {augmentations.label_words(configs)} "
        "All rows share the images and the random key; parameters are drawn for each image separately."
    )
    alt = f"a row of images for each of {', '.join(shown.names)}, with their labels"
    return page.section(
        "augmentations", name, page.figure(folder, "augmentations", caption, alt=alt, sheet=True)
    )


def _training(study, folder, column):
    runs = {
        name: [
            metric_log.read(study.workdirs[name, seed])
            for seed in study.seeds
            if (name, seed) in study.workdirs
        ]
        for name in study.augmentations
    }
    # Imported networks have no log of a training.
    runs = {name: [lines for lines in seeds if lines] for name, seeds in runs.items()}
    runs = {name: seeds for name, seeds in runs.items() if seeds}
    if not runs:
        return page.section("training", "Training", page.missing("No run was trained here."))
    style.save_figure(training_figures.study_curves(runs), folder / "training", column=column)
    caption = "Training. One line for each run; the training loss is that of mixed images with mixed labels."
    alt = f"two line charts over steps, of {', '.join(runs)}"
    return page.section("training", "Training", page.figure(folder, "training", caption, alt=alt))


def _runs(study, folder):
    accuracy = study.find("accuracy")
    rows = []
    reports = _reports(study, folder)
    for name, seed in study.workdirs:
        a, s = study.augmentations.index(name), study.seeds.index(seed)
        link = Link("report", reports[name, seed].address) if (name, seed) in reports else None
        values = [float(study.values[a, s, m]) for m in accuracy]
        value = next((value for value in values if not math.isnan(value)), None)
        rows.append((name, seed, value, link))
    # Runs with and without a test split are of different measures.
    named = " or ".join(sentences.name(study.measures[m]) for m in accuracy) or "accuracy"
    header = ("augmentation", "seed", named, "page")
    caption = "The runs, each with its own report."
    return page.section("runs", "Runs", page.table(folder, Table("runs", caption, header, rows)))


def _made(study, configs, workdir, folder):
    parts = [page.heading("Command"), page.code(_command(study, workdir))]
    commands = study.asked.get("commands", {})
    listed = [page.code("\n".join(commands.values()))] if commands else []
    parts.append(page.folded(f"The commands of the {_count(len(commands), 'run')}", *listed))
    parts.append(page.heading("Settings"))
    # Against the files that are named above, so that a reader sees what flags have changed.
    rows = _changed(configs)
    header = ("augmentation", "setting", "value", "default")
    if rows:
        caption = "Settings that differ from the config files."
        parts.append(page.table(folder, Table("settings_changed", caption, header, rows)))
    else:
        parts.append(page.paragraph("Every setting is as the config files have it."))
    caption = "All settings of the first seed's runs; where they differ, each augmentation's."
    table = Table("settings", caption, ("setting", "value"), provenance.together(configs))
    parts.append(page.folded("All settings", page.table(folder, table), long=True))
    parts += _versions(study)
    return page.section("settings", "How it was made", *parts)


def _changed(configs):
    """(augmentation, setting, value, default); a setting that all have changed alike is one row."""
    found = {}
    for name, config in configs.items():
        for key, value, default in provenance.differences(config):
            # The seed differs within every augmentation, and so tells none from another.
            if key != "seed":
                row = key, provenance.plain(value), provenance.plain(default)
                found.setdefault(row, []).append(name)
    everyone = len(configs)
    return [
        (name, *row)
        for row, names in found.items()
        for name in (["all"] if len(names) == everyone else names)
    ]


def _command(study, workdir):
    flags = plan.flags_of(study.asked, workdir)
    if flags:
        return provenance.shell("python -m mixaug_jax.study", flags)
    return "\n".join(study.asked["commands"].values())


def _versions(study):
    """The packages; where runs differ, said."""
    found = {}
    for (name, seed), where in study.workdirs.items():
        path = pathlib.Path(where) / "versions.json"
        if path.exists():
            # As text it can be a key, under which runs of the same versions meet.
            text = json.dumps(files.read_json(path))
            found.setdefault(text, []).append((f"{name} seed {seed}", pathlib.Path(where)))
    parts = provenance.versions(next(iter(found.values()))[0][1]) if found else []
    if len(found) > 1:
        others = [run for runs in list(found.values())[1:] for run, _ in runs]
        parts.append(page.missing(f"Other versions made {', '.join(others)}; see their reports."))
    return parts
