"""The page of a study, from its runs' files and what `mixaug_jax.study` makes of them."""

import json
import os
import pathlib

from mixaug_jax import config as config_lib
from mixaug_jax import log
from mixaug_jax.report import (
    augmentations,
    figures,
    page,
    settings,
    study_anomaly,
    training_figures,
)
from mixaug_jax.report import study_figures as drawn
from mixaug_jax.report.page import Interval, Link, Table
from mixaug_jax.study.measures import READINGS
from mixaug_jax.study.plan import UNMIXED
from mixaug_jax.study.results import Study
from mixaug_jax.study.sentences import title


def make(study: Study, workdir: pathlib.Path, folder: pathlib.Path) -> str:
    """The page's HTML; figures and tables are written to `folder`."""
    said = [page.labelled(*text.partition(": ")[::2]) for text in study.sentences.values()]
    if study.problems:
        text = f"{_count(len(study.problems), 'result')}, listed under {_MISSING}."
        said.append(page.labelled("Missing or left out", text))
    parts = [
        _comparison(study, folder),
        _differences(study, folder),
        _concepts(study, folder),
        _cross_deletion(study, folder),
        study_anomaly.section(study, folder),
        _augmentations(study, folder),
        _training(study, folder),
        _runs(study, folder),
        _problems(study),
        _made(study, workdir, folder),
    ]
    name = f"{', '.join(study.augmentations)}: {_count(len(study.seeds), 'seed')}"
    return page.document(name, said, [part for part in parts if part])


def _count(number, what):
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _problems(study):
    if not study.problems:
        return ""
    return page.section("missing", _MISSING, page.missing_list(study.problems))


_MISSING = "What is missing"


def _mean(study, a, m):
    return Interval(float(study.mean[a, m]), *map(float, study.interval[a, m]))


def _what_intervals_are(kinds) -> str:
    """One sentence for a caption."""
    said = {
        "seeds": "95 % t-intervals over seeds",
        "images": "95 % intervals over images drawn anew, which say nothing about other seeds",
    }
    found = [said[kind] for kind in said if (kinds == kind).any()]
    return f"Intervals: {'; '.join(found)}." if found else "There are no intervals."


def _comparison(study, folder):
    name = "The augmentations compared"
    chosen = study.headlines
    if not chosen:
        return page.section("comparison", name, page.missing("No run has any result yet."))
    rows = [
        (name, *(_mean(study, a, m) for m in chosen)) for a, name in enumerate(study.augmentations)
    ]
    smaller = [title(study.measures[m]) for m in chosen if study.measures[m].better < 0]
    caption = "One seed." if len(study.seeds) == 1 else f"Means over {len(study.seeds)} seeds."
    caption += f" {_what_intervals_are(study.interval_of[:, list(chosen)])}"
    caption += f" Smaller is better for: {'; '.join(smaller)}." if smaller else ""
    header = ("augmentation", *(title(study.measures[m]) for m in chosen))
    parts = [page.table(folder, Table("comparison", caption, header, rows))]
    beside = [m for k in chosen for m in _chance(study, k) if m not in chosen]
    if beside:
        rows = [
            (name, *(_mean(study, a, m) for m in beside))
            for a, name in enumerate(study.augmentations)
        ]
        caption = (
            "To compare with: plain counts, counts with shuffled label maps and with random weights, and explanations that "
            "know nothing of the network."
        )
        header = ("augmentation", *(title(study.measures[m]) for m in beside))
        parts.append(page.table(folder, Table("chance", caption, header, rows)))
    parts.append(page.folded("Every measure", page.table(folder, _everything(study)), long=True))
    return page.section("comparison", name, *parts)


def _chance(study, m) -> list[int]:
    """The measures that say what chance gives for another one."""
    one = study.measures[m]
    if one.axis == "concepts":
        place = {"subject": one.subject, "setting": one.setting, "level": one.level}
        names = ("unique", "unique_shuffled", "unique_random")
        return [i for n in names for i in study.find("concepts", n, category=one.category, **place)]
    return [i for i in study.find(one.axis, one.name) if study.measures[i].control]


def _everything(study):
    header = ("axis", "measure", *study.augmentations)
    rows = [
        (
            measure.axis,
            title(measure),
            *(_mean(study, a, m) for a in range(len(study.augmentations))),
        )
        for m, measure in enumerate(study.measures)
    ]
    return Table("measures", "Every measure, means over seeds with their intervals.", header, rows)


def _differences(study, folder):
    chosen = study.headlines
    if not (chosen and study.comparisons):
        return ""
    figures.save_figure(drawn.differences(study, chosen), folder / "differences")
    caption = (
        "Differences, paired by seed. Line: the interval; small points: single seeds; filled: below 0.05 after Holm's "
        f"correction. {_what_intervals_are(study.difference_of[:, list(chosen)])}"
    )
    rows = [
        (
            study.measures[m].axis,
            title(study.measures[m]),
            drawn.comparison(pair),
            Interval(float(study.difference[p, m]), *map(float, study.difference_interval[p, m])),
            int(study.pairs[p, m]),
            float(study.p[p, m]),
            float(study.p_holm[p, m]),
        )
        for m in chosen
        for p, pair in enumerate(study.comparisons)
        if study.pairs[p, m]
    ]
    header = ("axis", "measure", "comparison", "difference", "seeds", "p", "p after Holm")
    return page.section(
        "differences",
        "Differences",
        page.figure(
            folder, "differences", caption, alt="dot plots; the numbers are in the table below"
        ),
        page.table(folder, Table("differences", "The same as a table.", header, rows)),
    )


def _concepts(study, folder):
    stages = dict.fromkeys(study.measures[m].subject for m in study.find("concepts", "unique"))
    if not stages:
        return page.section(
            "concepts", "Concepts", page.missing("dissect: no run has a dissection.")
        )
    parts = []
    for stage in stages:
        figures.save_figure(drawn.concepts(study, stage), folder / f"concepts_{stage}")
        caption = (
            f"Unique concepts of {stage} by category and IoU threshold. Bars: means over seeds; points: single seeds; circles: "
            "label maps shuffled against the images; crosses: random weights."
        )
        totals = study.find("concepts", "unique", subject=stage, setting="unit", category="total")
        said = [
            f"{name} {study.mean[a, m]:.3g} at IoU > {study.measures[m].level:g}"
            for m in totals
            for a, name in enumerate(study.augmentations)
        ]
        alt = f"bar charts; in all: {', '.join(said)}"
        parts.append(page.figure(folder, f"concepts_{stage}", caption, alt=alt))
    return page.section("concepts", "Concepts", *parts)


def _cross_deletion(study, folder):
    name = "Deletion across models"
    if not study.cross_deletion:
        return page.section(
            "cross-deletion", name, page.missing("No seed has explanations of two models.")
        )
    figures.save_figure(drawn.cross_deletion(study), folder / "cross_deletion")
    one = next(iter(study.cross_deletion.values()))
    caption = (
        f"How fast each model's output falls when pixels are removed in the order of another model's {one.method}. Smaller is "
        "faster; 1 is as slow as in random order, so that models that bear occlusion well have no advantage."
    )
    parts = [
        page.figure(
            folder, "cross_deletion", caption, alt="heat maps; the readings are in the table below"
        )
    ]
    chosen = [m for name in READINGS for m in study.find("faithfulness", name)]
    rows = [
        (name, *(_mean(study, a, m) for m in chosen)) for a, name in enumerate(study.augmentations)
    ]
    caption = (
        "Three readings of it. Own vs others (larger is better): other models' rankings minus the model's own, judged by the "
        "model. Fixed evaluators (smaller is better): the model's rankings judged by all models. Gain over random (larger is "
        f"better): what its own rankings gain over chance. {_what_intervals_are(study.interval_of[:, chosen])}"
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


def _augmentations(study, folder):
    name = "The augmentations"
    configs = {n: config for n, config in _configs(study).items() if not config.weights}
    if not configs:
        return ""
    try:
        shown = augmentations.pictures(configs, folder / "pictures.npz")
    except (ValueError, OSError) as error:
        text = f"The data set cannot be read here: {str(error).splitlines()[0]}"
        return page.section("augmentations", name, page.missing(text))
    figures.save_figure(augmentations.figure(shown), folder / "augmentations")
    caption = (
        f"{_count(shown.images.shape[1], 'training image')} under each augmentation. Below each is the label it is trained "
        "with. All rows share the images and the random key; for the picture every image has draws of its own."
    )
    alt = f"rows of images: {', '.join(shown.names)}"
    return page.section(
        "augmentations", name, page.figure(folder, "augmentations", caption, alt=alt, sheet=True)
    )


def _training(study, folder):
    runs = {
        name: [
            log.read(study.workdirs[name, seed])
            for seed in study.seeds
            if (name, seed) in study.workdirs
        ]
        for name in study.augmentations
    }
    runs = {name: [lines for lines in seeds if lines] for name, seeds in runs.items()}
    runs = {name: seeds for name, seeds in runs.items() if seeds}
    if not runs:
        return page.section("training", "Training", page.missing("No run was trained here."))
    figures.save_figure(training_figures.study_curves(runs), folder / "training")
    caption = "Training. A line a run; the loss of training is that of mixed images and labels."
    alt = f"two line charts over steps, of {', '.join(runs)}"
    return page.section("training", "Training", page.figure(folder, "training", caption, alt=alt))


def _runs(study, folder):
    accuracy = study.find("accuracy", "test_accuracy")
    rows = []
    for (name, seed), where in study.workdirs.items():
        a, s = study.augmentations.index(name), study.seeds.index(seed)
        report = pathlib.Path(where) / "report" / "report.html"
        link = Link("report", os.path.relpath(report, folder)) if report.exists() else None
        value = float(study.values[a, s, accuracy[0]]) if accuracy else None
        rows.append((name, seed, value, link))
    header = ("augmentation", "seed", "test accuracy", "page")
    caption = "The runs, each with its own report."
    return page.section("runs", "Runs", page.table(folder, Table("runs", caption, header, rows)))


def _made(study, workdir, folder):
    parts = [page.heading("Command"), page.code(_command(study, workdir))]
    commands = study.asked.get("commands", {})
    listed = [page.code("\n".join(commands.values()))] if commands else []
    parts.append(page.folded(f"The commands of the {_count(len(commands), 'run')}", *listed))
    parts.append(page.heading("Settings"))
    rows = _changed(_configs(study))
    header = ("augmentation", "setting", "value", "default")
    if rows:
        caption = "Settings that differ from the config files."
        parts.append(page.table(folder, Table("settings_changed", caption, header, rows)))
    else:
        parts.append(page.paragraph("Every setting is as the config files have it."))
    parts += _versions(study)
    return page.section("settings", "How it was made", *parts)


def _changed(configs):
    """(augmentation, setting, value, default); a setting that all have changed alike is one row."""
    found = {}
    for name, config in configs.items():
        for key, value, default in settings.differences(config):
            if key != "seed":
                row = key, settings.plain(value), settings.plain(default)
                found.setdefault(row, []).append(name)
    everyone = len(configs)
    return [
        (name, *row)
        for row, names in found.items()
        for name in (["all"] if len(names) == everyone else names)
    ]


def _command(study, workdir):
    names = [name for name in study.asked.get("configs", study.augmentations)]
    plain = [name for name in names if not name.endswith(UNMIXED)]
    flags = [
        f"--configs={','.join(f'configs/{name}.py' for name in plain)}",
        f"--seeds={','.join(map(str, study.seeds))}",
        f"--workdir={workdir}",
    ]
    flags += [f"--config.{text}" for text in study.asked.get("overrides", ())]
    return settings.shell("python -m mixaug_jax.study", flags)


def _versions(study):
    """The packages; where runs differ, said."""
    found = {}
    for (name, seed), where in study.workdirs.items():
        path = pathlib.Path(where) / "versions.json"
        if path.exists():
            text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
            found.setdefault(text, []).append((f"{name} seed {seed}", pathlib.Path(where)))
    parts = settings.versions(next(iter(found.values()))[0][1]) if found else []
    if len(found) > 1:
        others = [run for runs in list(found.values())[1:] for run, _ in runs]
        parts.append(page.missing(f"Other versions made {', '.join(others)}; see their reports."))
    return parts
