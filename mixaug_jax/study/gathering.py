"""From a study's folder to the study."""

import dataclasses
import os
import pathlib

from mixaug_jax import config as config_lib
from mixaug_jax.study import class_effects, collect, comparing, crossing, plan, runs
from mixaug_jax.study.collect import Part
from mixaug_jax.study.results import Study
from mixaug_jax.training import chance


def gather(workdir: os.PathLike | str) -> Study:
    """Reads all runs of a study and compares them. What is missing, or of other settings, is left out, and said.

    Deletion across models is computed here, once (up to a minute a seed), and kept in `cross_model_deletion/`.

    Args:
      workdir: a study's folder, with `study.json`.

    Raises:
      ValueError: no `study.json`.
    """
    folder = pathlib.Path(workdir).expanduser().absolute()
    asked = plan.read_asked(folder)
    if not asked:
        raise ValueError(f"{workdir} is not the folder of a study: it has no study.json")
    # The baseline first, which all others are compared with; the others as they were asked for.
    of = {name: values["of"] for name, values in asked.get("swept", {}).items()}
    names = sorted(asked["configs"], key=lambda name: of.get(name, name) != plan.BASELINE)
    parts, problems, failed, workdirs, at_chance = {}, [], [], {}, {}
    for name, seed in ((n, s) for n in names for s in asked["seeds"]):
        if f"{name}/{seed}" not in asked["commands"]:
            continue
        run = folder / name / str(seed)
        found, wrong = _read(run, asked["configs"][name], seed)
        sentences = [f"{name} seed {seed}: {text}" for text in wrong]
        problems += sentences
        if _reason(run) in wrong or not found:
            failed.append(sentences[0])
        if found:
            parts[name, seed], workdirs[name, seed] = found, str(run)
            at_chance |= _at_chance(name, seed, run)
    # Only what was measured in the same way can be compared.
    problems += _drop_other_settings(parts)
    method = _method(asked, parts)
    crossed = _cross_models(folder, parts, workdirs, method, problems)
    study = comparing.compare(names, asked["seeds"], parts, method, at_chance=at_chance)
    study = dataclasses.replace(
        study,
        failed=tuple(failed),
        workdirs=workdirs,
        cross_deletion=crossed,
        asked=asked,
    )
    # After the comparison, whose reference and seeds it takes.
    classes = class_effects.compare(study, folder)
    problems += classes.problems if classes else ()
    return dataclasses.replace(study, problems=tuple(problems), classes=classes)


def _at_chance(name, seed, run) -> dict:
    """The run and a sentence, where its network does not exceed chance."""
    found = chance.read(run)
    if found is None or not found.at_chance:
        return {}
    text = f"{name} seed {seed} ({found.split} accuracy {found.share:.1%} of {found.images} images, chance {found.chance:.1%})"
    return {(name, seed): text}


def _reason(run: pathlib.Path) -> str:
    """Why the last try failed."""
    path = run / runs.FAILED
    return path.read_text(errors="replace") if path.exists() else ""


def _read(run: pathlib.Path, asked: dict, seed: int) -> tuple[list[Part], list[str]]:
    if (run / "config.json").exists():
        try:
            config = config_lib.read(run)
        except ValueError as error:  # damaged, or of another version
            return [], [f"left out: {error}"]
        there = plan.trained_by(plan.settings(config)) | {"seed": config.seed}
        changed = plan.differences(plan.trained_by(asked) | {"seed": seed}, there)
        if changed:
            return [], [f"left out: made with other settings than asked ({changed})"]
    parts, problems = collect.read_run(run)
    reason = _reason(run)
    # A later call of the run's own command may have ended well: then all is there.
    return parts, [reason, *problems] if reason and problems else problems


def _drop_other_settings(parts: dict) -> list[str]:
    """Takes out what was measured otherwise than in the first run that has it; says what."""
    first, problems = {}, []
    for (name, seed), found in parts.items():
        kept = []
        for part in found:
            # The baseline comes first where there is one, and so sets the standard.
            owner, settings = first.setdefault(part.title, (f"{name} seed {seed}", part.settings))
            changed = plan.differences(settings, part.settings)
            if changed:
                problems.append(
                    f"{name} seed {seed}: {part.title} left out: measured with other settings or images than "
                    f"{owner} ({changed[:300]})"
                )
            else:
                kept.append(part)
        parts[name, seed] = kept
    return problems


def _method(asked: dict, parts: dict) -> str:
    """The attribution method that is judged: the first that was asked for, of those that are there; "" for none."""
    there = [
        measure.subject
        for found in parts.values()
        for part in found
        for measure in part.values
        if part.title.startswith("attribution/") and not measure.control
    ]
    wanted = next(iter(asked["configs"].values())).get("explain.methods", [])
    return next((method for method in [*wanted, *there] if method in there), "")


def _cross_models(folder, parts, workdirs, method, problems) -> dict:
    """{seed: CrossDeletion}; its readings are added to the runs' parts, and what is left out to the problems."""
    crossed = {}
    for seed in sorted({seed for _, seed in parts}):
        models = {
            name: workdirs[name, s]
            for (name, s), found in parts.items()
            if s == seed and any(part.title == f"attribution/{method}" for part in found)
        }
        # One model alone has nobody to judge it.
        if len(models) < 2:
            continue
        cache = folder / "cross_model_deletion" / f"{seed}.npz"
        try:
            crossed[seed] = crossing.cross_deletion(models, method, cache)
        except (ValueError, OSError) as error:
            problems.append(f"seed {seed}: no deletion across models: {error}")
            continue
        values, replicates = crossing.measured(crossed[seed])
        for name in models:
            title = "cross_model_deletion"
            parts[name, seed].append(Part(title, values[name], replicates[name], {}))
    return crossed
