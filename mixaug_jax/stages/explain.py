"""The stage `explain` of a run: from its checkpoints to `attribution/` in the working directory."""

import pathlib

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import say
from mixaug_jax.core.files import load_if, write_csv
from mixaug_jax.draw import explanation_figures
from mixaug_jax.draw.style import save_figure
from mixaug_jax.explain import regions
from mixaug_jax.explain import running as run_lib
from mixaug_jax.explain.evaluation import HEADER, load, save, summary, table
from mixaug_jax.explain.examples import Examples, finder, load_examples
from mixaug_jax.explain.job import make_plan, needs_reference, settings_of, with_controls
from mixaug_jax.explain.options import needs
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

_MEMORY_ADVICE = "memory ran out; lower explain.memory_gb or explain.max_images"


def run(config, workdir, *, which: str = "latest", required: bool = True) -> None:
    """Explains images by checkpoints of a run, scores the explanations, and writes tables and figures.

    Writes `attribution/` (`attribution/<step>/` for each step of which="all"): `<method>.npz`, for the controls too,
    scores.csv, and the figures `curves` and `overlays` as PNG and SVG. A method whose .npz is there with the same settings,
    images and weights is not computed again. In a job of several processes the first one does it, on its own devices; the
    others wait.

    Args:
      config: from `get_config`; its settings are those of the run, but for `explain`.
      workdir: a run's working directory, with checkpoints.
      which: "latest", "best", "all" or a step's number.
      required: whether it is an error where the data set tells no place of anything, or has other classes than the network; if
        not, the part that can be done is done, with a line about the rest.

    Raises:
      ValueError: settings or data that cannot work, no such checkpoint, stage or label.
      MemoryError, OSError: memory or disk ran out.
    """
    config_lib.check(config)
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)  # what is not there is said before the data is opened
    dataset = _open_dataset(config)
    devices_lib.set_up(config)

    def work(net, folder, step):
        _explain_step(config, net, dataset, folder, step, required)

    each_checkpoint(workdir, which, "attribution", _MEMORY_ADVICE, work)


def check(config) -> None:
    """Opens the data, so that what cannot work is said before a training and not after it.

    Raises:
      ValueError: settings or data that cannot work; missing boxes and masks are no error.
    """
    config_lib.check(config)
    _open_dataset(config)


def _open_dataset(config):
    a = config.explain
    split = config.data[f"{a.split}_split"]
    if not split:
        raise ValueError(
            f"explain.split={a.split!r}, but data.{a.split}_split is empty; name another split"
        )
    dataset = data.open_source(split, config)
    return regions.add_boxes(dataset, a.boxes) if a.boxes else dataset


def _explain_step(config, net, dataset, folder, step, required):
    """One checkpoint: what is there already is read, the rest computed, tables and figures written."""
    a = config.explain
    methods = with_controls(a.methods)
    label, find, scores, notes = _possible(config, net, dataset)
    for note in notes:
        if required:
            raise ValueError(f"explain.{note}")
        say.line(f"explain: {note}")
    plan = make_plan(
        net,
        dataset,
        scores=scores,
        options=a.options.to_dict(),
        stage=a.stage,
        reduce=a.reduce,
        seed=a.seed,
        max_images=a.max_images,
        memory_gb=a.memory_gb,
    )
    reference = _reference(config, net, methods)
    run_lib.check(net, dataset, a.max_images, find, methods, plan, reference)
    examples = load_examples(
        net,
        dataset,
        find,
        max_images=a.max_images,
        label=label,
        batch_size=plan.at_once,
        threads=config.data.threads,
    )
    say.line(
        f"explaining step {step}: {', '.join(methods)}; {len(examples)} images, {label} class; "
        f"{_where(examples)}"
    )
    extra = {"data": config.data.name, "split": a.split, "label": label}
    results, again = {}, False
    for method in methods:
        path = folder / f"{method}.npz"
        settings = settings_of(net, examples, method, plan, reference, extra)
        results[method] = load_if(load, path, settings)
        if results[method] is None:
            again = True
            result = run_lib.evaluate_method(net, examples, method, plan, reference, extra=extra)
            folder.mkdir(parents=True, exist_ok=True)
            save(result, path)
            results[method] = result
    _write(config, results, folder)
    _draw(config, results, examples, dataset, net.preprocess, folder, again)
    done = "written to" if again else "already there:"
    say.line(
        f"{done} {folder}: {', '.join(f'{m}.npz' for m in results)}, scores.csv, curves and overlays as "
        "PNG and SVG"
    )


def _possible(config, net, dataset):
    """The label to explain, how regions are found, the scores that the data set allows, and a sentence for each thing that had
    to be given up."""
    a, notes = config.explain, []
    label, scores = a.label, tuple(a.scores)
    try:
        find = finder(net, dataset, label, a.region)
    except ValueError as error:
        if label != "true":
            raise
        notes.append(f"{error}; the predicted class is explained")
        label = "predicted"
        find = finder(net, dataset, label, a.region)
    pointing = [score for score in scores if "mask" in needs(score)]
    if pointing and not find.kind:
        scores = tuple(score for score in scores if score not in pointing)
        notes.append(
            f"scores: left out {', '.join(pointing)}, because {config.data.name} has no boxes and no "
            f"masks in its {a.split} split (explain.boxes names a file of boxes)"
        )
    return label, find, scores, notes


def _reference(config, net, methods):
    """Training images for the methods that look at other images."""
    if not any(needs_reference(method) for method in methods):
        return ()
    dataset = data.open_source(config.data.train_split, config, annotations=False)
    a = config.explain
    return run_lib.load_reference(net, dataset, a.reference, config.data.threads)


def _where(examples: Examples) -> str:
    if not examples.region:
        return "no regions"
    empty = int((~examples.masks.any((1, 2))).sum())
    return (
        f"regions from {examples.region}, {empty} images without one, "
        f"{int(examples.difficult.sum())} difficult"
    )


def _write(config, results, folder):
    """The table, and the summary on the console."""
    a = config.explain
    for method, result in results.items():
        if result.empty:
            say.line(f"{method}: {result.empty} maps are empty or hold NaN, and count as misses")
    rows = table(results, replicates=a.replicates, seed=a.seed)
    write_csv(folder / "scores.csv", HEADER, rows)
    say.line(summary(rows))


def _draw(config, results, examples, dataset, preprocess, folder, again):
    """The figures, where they are missing or something is new."""
    a = config.explain
    files = [folder / f"{name}{e}" for name in ("curves", "overlays") for e in (".png", ".svg")]
    if again or not all(file.exists() for file in files):
        figure = explanation_figures.faithfulness(results, replicates=a.replicates, seed=a.seed)
        save_figure(figure, folder / "curves")
        figure = explanation_figures.overlays(results, examples, dataset, preprocess)
        save_figure(figure, folder / "overlays")


STAGE = Stage(run, check, keys=("explain.",))
