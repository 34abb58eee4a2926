"""Folders of studies with results that were never computed."""

import json

import numpy as np
import score_cases

from mixaug_jax import config as config_lib
from mixaug_jax.attribution import METHODS
from mixaug_jax.core import entries, files
from mixaug_jax.dissection import counting
from mixaug_jax.dissection import result as dissection
from mixaug_jax.explain import evaluation
from mixaug_jax.study import plan

NAMES = (("none", "none"), ("cat", "object"), ("paw", "part"))


def asked(folder, methods=("baseline", "cutmix"), seeds=(0, 1, 2), overrides=(), **options):
    """A study's folder with nothing but `study.json`; its runs."""
    configs = {name: config_lib.get_config(name.partition("-")[0]) for name in methods}
    runs = plan.make_plan(configs, seeds, folder, overrides, **options)
    plan.write_asked(runs, folder, overrides)
    return runs


def write_run(
    run,
    *,
    accuracy=0.9,
    images=0,
    split="test",
    unique=5,
    null=1.0,
    scores=None,
    brought=(),
    **settings,
):
    """The files of a finished run. images: that the accuracy is of, 0: not noted. scores: {method: {score: [N] or a number for
    all of 6 images}}; brought: see `explanations`."""
    config = config_lib.resolve(run.config, train_size=640, class_names=("a", "b"))
    with config.unlocked():
        config.resolved.steps = 10
    for folder in ("checkpoints/10", "dissection", "attribution"):
        (run.workdir / folder).mkdir(parents=True)
    (run.workdir / "config.json").write_text(config_lib.to_json(config))
    noted = {f"{split}_images": images} if images else {}
    lines = [{"step": 5, "loss": 1.0}, {"step": 10, f"{split}_accuracy": accuracy} | noted]
    (run.workdir / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dissection.save(concepts(unique, null), run.workdir / "dissection" / "layer4.npz")
    for method, values in (scores or {}).items():
        found = explanations(method, values, brought=brought, **settings)
        evaluation.save(found, run.workdir / "attribution" / f"{method}.npz")


def concepts(unique, null=1.0, **changed):
    """A dissection with `unique` unique objects (and one part) at every threshold, half of them at the last."""
    counts = np.zeros((2, 2, 3, 2), np.int64)
    counts[..., 0], counts[..., 1] = unique, 1
    counts[:, :, 2] //= 2
    chance = np.zeros((2, *counts.shape), np.int64)
    chance[..., 0] = [[[[np.floor(null)]]], [[[np.ceil(null)]]]]
    units = 3
    tally = counting.Tally(
        np.zeros((units, 3), np.int64), np.zeros(units, np.int64),
        np.zeros((units, 2), np.int64), np.zeros(3, np.int64), np.array([-1, 0, 1], np.int32),
    )  # fmt: skip
    options = {"iou": [0.03, 0.04, 0.05], "shuffles": 2} | changed
    return dissection.Dissection(
        layer="layer4",
        names=NAMES,
        threshold=np.zeros(units, np.float32),
        tally=tally,
        counts=counts,
        null=chance,
        random=counts // 2,
        halves=counts + np.arange(100).reshape(100, 1, 1, 1, 1) % 4,
        top_images=np.zeros((units, 5), int),
        top_activations=np.zeros((units, 5), np.float32),
        top_maps=np.zeros((units, 5, 2, 2), np.float32),
        indices=np.arange(6),
        settings={"options": options, "weights": unique, "labels": {"split": "validation"}},
    )


def explanations(method, values, images=6, brought=(), **settings):
    """An evaluation whose scores are given; `brought`: those that the package does not have, as functions or records."""
    heat = np.random.default_rng(len(method)).normal(size=(images, 8, 8)).astype(np.float32)
    scores = {k: np.broadcast_to(np.asarray(v, np.float64), images) for k, v in values.items()}
    record = METHODS[method]
    kind = "control" if record.control else "method"
    return evaluation.Evaluation(
        heat=heat,
        indices=np.arange(images),
        labels=np.zeros(images, int),
        predicted=np.zeros(images, int),
        scores=scores,
        curves={},
        pairs={},
        entries=score_cases.said(
            *values, kind=kind, title=entries.title_of(record), brought=brought
        ),
        settings={"method": method, "split": "test", "weights": 1, "examples": 7} | settings,
    )


def write_predictions(run, labels, predicted, *, classes=(), targets=None):
    """`predictions.npz` of a run's folder that `write_run` made, and the names of its classes."""
    count = len(labels)
    shown = np.zeros((count, 0)) if targets is None else targets
    arrays = {
        "indices": np.arange(count, dtype=np.int32),
        "label": np.asarray(labels, np.int32),
        "predicted": np.asarray(predicted, np.int32),
        "probability": np.full(count, 0.5, np.float32),
        "top": np.zeros((count, 2), np.int32),
        "top_probability": np.full((count, 2), 0.5, np.float32),
        "targets": shown.astype(np.float32),
    }
    files.save_npz(run.workdir / "predictions.npz", arrays, {"split": "test", "examples": 7})
    if classes:
        config = json.loads((run.workdir / "config.json").read_text())
        config["resolved"]["class_names"] = list(classes)
        (run.workdir / "config.json").write_text(json.dumps(config))
