"""The stage `explain` of a run: from its checkpoints to `attribution/` in the working directory."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.attribution import METHODS, readout_training
from mixaug_jax.attribution.target import map_layers
from mixaug_jax.core import checks, entries, processes, say, stored
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import seal, write_csv, write_json
from mixaug_jax.core.types import Dataset
from mixaug_jax.data.source import numbered_as
from mixaug_jax.draw import explanation_figures
from mixaug_jax.draw.style import is_saved, save_figure
from mixaug_jax.explain import caveats, readouts, regions
from mixaug_jax.explain import options as options_lib
from mixaug_jax.explain import running as run_lib
from mixaug_jax.explain.evaluation import (
    HEADER,
    Evaluation,
    image_columns,
    load,
    save,
    summary,
    table,
)
from mixaug_jax.explain.examples import Examples, finder, load_examples, num_classes
from mixaug_jax.explain.job import Job, Options, make_job, needs_reference, settings_of
from mixaug_jax.models import Net, build, imagenet
from mixaug_jax.scores import SCORES
from mixaug_jax.scores.score import as_score, kind_of
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

READOUTS = "readout"  # the folder of trained ones, in the working directory: <step>.npz
_FIGURES = ("curves", "overlays")
_MEMORY_ADVICE = "memory ran out; lower explain.memory_gb or explain.max_images"


def run(
    config: ml_collections.ConfigDict,
    workdir: os.PathLike | str,
    *,
    which: str = "latest",
    required: bool = True,
) -> None:
    """Explains images by checkpoints of a run, scores the explanations, and writes tables and figures.

    Writes `attribution/` (`attribution/<step>/` for each step of which="all"): `<method>.npz`, for the controls too,
    scores.csv, images.csv (the scores of each image, with its file's name), and the figures `curves` and `overlays` as PNG, SVG
    and PDF; for methods that want one, readout/<step>.npz, from which a killed training goes on. A method whose .npz is there
    with the same settings, images and weights is not computed again. In a job of several processes each explains its share of
    the images; the first one writes.

    Args:
      config: from `get_config`; its settings are those of the run, but for `explain`.
      workdir: a run's working directory, with checkpoints.
      which: "latest", "best", "all" or a step's number.
      required: whether it is an error where the data set tells no place of anything, or has other classes than the network; if
        not, the part that can be done is done, with a line about the rest.

    Raises:
      ValueError: settings or data that cannot work, no such checkpoint, layer or label.
      MemoryError, OSError: memory or disk ran out.
    """
    config_lib.check(config)
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)  # what is not there is said before the data is opened
    dataset = open_dataset(config)

    def work(net: Net, folder: os.PathLike | str, step: int):
        asked = _asked(config, net, dataset, workdir / READOUTS / f"{step}.npz", required)
        _explain_step(config, net, asked, folder, step, required)

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, "attribution", _MEMORY_ADVICE, work)


def check(config: ml_collections.ConfigDict) -> None:
    """Opens the data and traces what will be run, so that what cannot work is said before a training and not after it.

    Raises:
      ValueError: settings or data that cannot work; missing boxes and masks are no error, nor is what a network cannot do.
    """
    config_lib.check(config)
    dataset = open_dataset(config)
    if config.weights:  # the network is known when the file has been read
        return
    net = untrained(config, dataset)
    _, find, scores, _ = possible(config, net, dataset)
    # What is not asked for, but told something, is looked at too.
    told = options_lib.changed(config.explain.options.to_dict())
    methods = [*config.explain.methods, *sorted(told & METHODS.keys())]
    asked = [*scores, *sorted(told & SCORES.keys() - set(config.explain.scores))]
    if not find.kind:
        asked = [name for name in asked if kind_of(as_score(SCORES[name])) != "alignment"]
    job = make_job(net, dataset, methods, asked, options_of(config))
    # Blank stand-ins: a trace needs their shape alone, and iba asks for two.
    reference = np.zeros((2, *net.preprocess(dataset[0]["image"]).shape), np.float32)
    _able(net, dataset, find, job, reference, lambda name, error: None)  # said when its turn comes


def untrained(config: ml_collections.ConfigDict, dataset: Dataset) -> Net:
    """The network that a config trains on a data set; of its variables there are shapes alone."""
    resolved = config_lib.resolve(
        config, train_size=0, class_names=dataset.class_names, multi_label=dataset.multi_label
    )
    model = build.build_model(resolved)
    return build.as_net(resolved, model, build.variable_shapes(model, resolved))


def options_of(config: ml_collections.ConfigDict) -> Options:
    """The section `explain` of a config as `explain.job.Options`."""
    a = config.explain
    return Options(
        entries=a.options.to_dict(),
        max_images=a.max_images,
        label=a.label,
        region=a.region,
        layer=a.layer,
        reduce=a.reduce,
        seed=a.seed,
        reference_images=a.reference,
        precision=config.precision,
        memory_gb=a.memory_gb,
        threads=config.data.threads,
    )


def open_dataset(config: ml_collections.ConfigDict) -> Dataset:
    """The images that `config.explain` asks for, with boxes from its file where it names one.

    Raises:
      ValueError: a split that the data does not have, or data that cannot be read.
    """
    a = config.explain
    split = config.data[f"{a.split}_split"]
    if not split:
        raise ValueError(
            f"explain.split={a.split!r}, but data.{a.split}_split is empty; name another split"
        )
    dataset = data.open_source(split, config)
    return regions.add_boxes(dataset, a.boxes) if a.boxes else dataset


class _Asked(NamedTuple):
    """What is run on one network: the data set with labels as the network has them, how regions are found, the job, and where
    its trained readout is kept."""

    dataset: Dataset
    find: regions.Finder
    job: Job
    readout: os.PathLike | str


def _asked(config, net, dataset, readout, required) -> _Asked:
    """What the config asks for, as far as it is possible; says what is not, or raises where it is required."""
    dataset = numbered_as(dataset, num_classes(net, dataset))
    label, find, scores, notes = possible(config, net, dataset)
    for wrong, done in notes:
        if required:
            raise ValueError(f"explain.{wrong}")
        say.line(f"explain: {wrong}{done}")
    # The true class may have been given up for the predicted one above.
    options = dataclasses.replace(options_of(config), label=label)
    job = make_job(net, dataset, config.explain.methods, scores, options)
    # Beside what decides each result, where its images are from.
    extra = {"data": config.data.name, "split": config.explain.split, "label": label}
    return _Asked(dataset, find, dataclasses.replace(job, extra=extra), readout)


def _explain_step(config, net, asked, folder, step, required):
    """One checkpoint: what is there already is read, the rest computed, tables and figures written."""
    dataset, find, job, readout = asked
    reference = reference_images(config, net, job)

    def left_out(name: str, error: Any):
        if required:
            raise error
        say.line(f"explain: {name} is left out, because {error}")

    job = _able(net, dataset, find, job, reference, left_out)
    # Trained for what is left alone: networks of tokens, say, can have none.
    job = with_readout(config, net, job, readout)
    examples = load_examples(net, dataset, find, job.reading)
    say.line(
        f"explaining step {step}: {', '.join(job.methods)}; {len(examples)} images, {job.options.label} class; "
        f"{_where(examples)}"
    )
    # A method whose result is there, made in the same way, is not computed again.
    results, again = {}, False
    for name in job.methods:
        path = folder / f"{name}.npz"
        settings = settings_of(net, examples, name, job, reference)
        make = functools.partial(run_lib.evaluate_method, net, examples, name, job, reference)
        results[name], new = stored.keep(path, settings, load=load, make=make, save=save)
        again |= new
    if processes.is_main():
        keep(config, results, job, (net, dataset, examples), folder, again=again)


def keep(
    config: ml_collections.ConfigDict,
    results: Mapping[str, Evaluation],
    job: Job,
    seen: tuple[Net, Dataset, Examples],
    folder: pathlib.Path,
    *,
    again: bool,
) -> None:
    """Writes the tables of results whose .npz are there, and their figures where these are not there.

    Args:
      config: reads `explain.replicates`, `explain.seed` and `report.column_width`.
      results: of one network, by method.
      job: what was run.
      seen: the network, the data set with labels as the network has them, and the images that were explained.
      folder: of the results.
      again: whether some of the results are new.
    """
    net, dataset, examples = seen
    _write(config, results, job, dataset, folder)
    if again or not all(
        is_saved(folder / name, column=config.report.column_width) for name in _FIGURES
    ):
        _draw(config, results, examples, dataset, net, folder)
    seal(folder)
    done = "written to" if again else "already there:"
    say.line(
        f"{done} {folder}: {', '.join(f'{m}.npz' for m in results)}, scores.csv, images.csv, curves "
        "and overlays as PNG, SVG and PDF"
    )


def with_readout(
    config: ml_collections.ConfigDict, net: Net, job: Job, path: os.PathLike | str
) -> Job:
    """The job with a readout for the methods that want one, which is trained where it is not there.

    Args:
      config: of the run; its section `readout` says how, its training images are those.
      net: the network.
      job: what is explained.
      path: of the readout's .npz.
    """
    names = [name for name, method in job.methods.items() if readouts.asked(method)]
    if not names:
        return job
    training = readout_training.Training(**config.readout.to_dict())
    if job.options.label != "true":  # the data's labels are not the network's classes
        training = dataclasses.replace(training, target="predicted")
    split = config.data.train_split
    dataset = data.open_source(split, config, annotations=False)
    found = readout_training.train_readout(
        net,
        dataset,
        training,
        path=path,
        extra={"data": config.data.name, "split": split},
        threads=config.data.threads,
    )
    given = {name: {**job.options.entries.get(name, {}), "readout": found} for name in names}
    options = dataclasses.replace(job.options, entries={**job.options.entries, **given})
    return dataclasses.replace(job, options=options)


def _able(net, dataset, find, job, reference, left_out):
    """The job, traced, without the methods and scores that this kind of network cannot have; left_out(name, error) is told."""

    def able(name: str, check: Any, *given):
        try:
            check(net, dataset, *given, reference)
        except checks.UnsupportedError as error:
            left_out(name, error)
            return False
        return True

    # Most networks can do everything, which is one trace of each program; only else are the culprits looked for.
    with contextlib.suppress(checks.UnsupportedError):
        run_lib.check(net, dataset, find, job, reference)
        return job
    # Without scores, so that what a score refuses does not cost a method its place.
    alone = dataclasses.replace(job, scores={})
    methods = {n: m for n, m in job.methods.items() if able(n, run_lib.check_method, n, alone)}
    job = dataclasses.replace(job, methods=methods)
    # Each score with every method: what a score asks of the network does not depend on the others.
    with_one = {n: dataclasses.replace(job, scores={n: s}) for n, s in job.scores.items()}
    scores = {n: job.scores[n] for n, one in with_one.items() if able(n, run_lib.check, find, one)}
    return dataclasses.replace(job, scores=scores)


def possible(config: ml_collections.ConfigDict, net: Net, dataset: Dataset) -> tuple:
    """The label to explain, how regions are found, the scores that the data set allows, and a sentence for each thing that had
    to be given up, with what is done instead."""
    a, notes = config.explain, []
    label, scores = a.label, tuple(a.scores)
    if a.layer:
        image = np.asarray(net.preprocess(dataset[0]["image"]))
        checks.choice("explain.layer", a.layer, map_layers(net, image))
    try:
        find = finder(net, dataset, label, a.region)
    except ValueError as error:
        if label != "true":
            raise
        notes.append((str(error), "; the predicted class is explained"))
        # An error about something else, such as an unknown region, comes again below.
        label = "predicted"
        find = finder(net, dataset, label, a.region)
    known = entries.chosen("scores", scores, SCORES)
    pointing = [name for name, entry in known.items() if kind_of(as_score(entry)) == "alignment"]
    if pointing and not find.kind:
        scores = tuple(score for score in scores if score not in pointing)
        why = (
            f"scores: left out {', '.join(pointing)}, because {config.data.name} has no boxes and no "
            f"masks in its {a.split} split (explain.boxes names a file of boxes)"
        )
        notes.append((why, ""))
    return label, find, scores, notes


def reference_images(config: ml_collections.ConfigDict, net: Net, job: Job) -> Any:
    """Training images for the methods that look at other images."""
    if not any(map(needs_reference, job.methods.values())):
        return ()
    dataset = data.open_source(config.data.train_split, config, annotations=False)
    return run_lib.load_reference(net, dataset, job.options)


def _where(examples: Examples) -> str:
    if not examples.region:
        return "no regions"
    empty = int((~examples.masks.any((1, 2))).sum())
    return (
        f"regions from {examples.region}, {empty} images without one, "
        f"{int(examples.difficult.sum())} difficult"
    )


def _write(config, results, job, dataset, folder):
    """The tables, and the summary on the console."""
    a = config.explain
    for method, result in results.items():
        if result.empty:
            say.line(f"{method}: {result.empty} maps are empty or hold NaN, and count as misses")
    told = {
        name: result.entries | {"images": len(result.indices), "empty": result.empty}
        for name, result in results.items()
    }
    write_json(folder / "entries.json", told)
    # A sum that misses the output's change is no attribution of it, whatever the scores say.
    if missed := caveats.sentences(told, "missing"):
        say.line(missed)
    rows = table(results, replicates=a.replicates, seed=a.seed, scores=job.scores)
    write_csv(folder / "scores.csv", HEADER, rows)
    columns = [image_columns(result, dataset) for result in results.values()]
    images = [row for one in columns for row in zip(*one.values(), strict=True)]
    write_csv(folder / "images.csv", columns[0], images)
    say.line(summary(results))


def _draw(config, results, examples, dataset, net, folder):
    a = config.explain
    figure = explanation_figures.faithfulness(results, replicates=a.replicates, seed=a.seed)
    save_figure(figure, folder / "curves", column=config.report.column_width)
    names = imagenet.readable(dataset.class_names)
    names = names if num_classes(net, dataset) == len(names) else ()
    figure = explanation_figures.overlays(
        results, examples, dataset, net.preprocess, class_names=names
    )
    save_figure(figure, folder / "overlays", column=config.report.column_width)


STAGE = Stage(
    run, check, "explains images and scores the explanations", keys=("explain.", "readout.")
)
