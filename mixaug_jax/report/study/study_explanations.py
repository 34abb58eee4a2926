"""The part of a study's page about explanations: the judged method's heat maps and curves under each augmentation.

One seed is shown. The pictures are read from the data set once and kept as `explained.npz` beside the report, so that it can be
built again where the data is gone.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax import data, models
from mixaug_jax.attribution.controls import random as random_map
from mixaug_jax.core import walk
from mixaug_jax.core.files import load_if, load_npz, save_npz
from mixaug_jax.core.types import Scalar
from mixaug_jax.data import transforms
from mixaug_jax.data.source import numbered_as
from mixaug_jax.draw import explanation_figures, page, style
from mixaug_jax.explain import evaluation, regions
from mixaug_jax.explain.evaluation import Evaluation
from mixaug_jax.report.study import study_figures
from mixaug_jax.study.results import Study

_TITLE = "Explanations"
_IMAGES = 4  # rows of the sheet


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The images of the sheet as the network sees them, uint8 [n,h,w,C], and their regions, bool [n,h,w]."""

    images: np.ndarray
    masks: np.ndarray
    settings: dict


def method(study: Study) -> str:
    """The attribution method that the sentences judge; "" where there is none."""
    judged = (study.measures[m] for m in study.headlines)
    return next((m.subject for m in judged if m.axis in ("alignment", "faithfulness")), "")


def results(study: Study) -> tuple[int, dict[str, Evaluation]]:
    """The first seed with results of the judged method, and these by augmentation, those that are of the same images."""
    name = method(study)
    for seed in study.seeds if name else ():
        found = _load(study, seed, name)
        if found:
            return seed, found
    return 0, {}


def _load(study, seed, name):
    found = {}
    for augmentation in study.augmentations:
        where = study.workdirs.get((augmentation, seed), "")
        path = pathlib.Path(where, "attribution", f"{name}.npz")
        if where and path.exists():
            try:
                result = evaluation.load(path)
            except ValueError:
                continue  # the study says that it is damaged
            if _same(result, next(iter(found.values()), result)):
                found[augmentation] = result
    return found


def _same(one, other):
    """Whether these are of the same images and regions, at the same size."""
    keys = ("examples", "region", "split")
    there = [[result.settings.get(key) for key in keys] for result in (one, other)]
    return (
        there[0] == there[1]
        and one.heat.shape == other.heat.shape
        and np.array_equal(one.indices, other.indices)
    )


def section(study: Study, folder: pathlib.Path, column: Scalar = 0.0) -> str:
    """Overlays and curves; what is not there is said."""
    seed, found = results(study)
    if not found:
        text = "explain: no run has explanations of a method that is judged."
        return page.section("explanations", _TITLE, page.missing(text))
    parts = [
        _overlays(study, seed, found, folder, column),
        _curves(study, seed, found, folder, column),
    ]
    return page.section("explanations", _TITLE, *parts)


def _overlays(study, seed, found, folder, column):
    first = next(iter(found.values()))
    # The same images for all augmentations, from the first one's run: their results are of equal settings.
    rows = _shown(first)
    where = study.workdirs[next(iter(found)), seed]
    try:
        shown = _pictures(config_lib.read(where), first, rows, folder / "explained.npz")
    except (ValueError, OSError) as error:
        text = f"The images that were explained cannot be read here: {str(error).splitlines()[0]}"
        return page.missing(text)
    heats = {name: one.heat[rows] for name, one in found.items()}
    hits = {name: one.hits[rows] for name, one in found.items()}
    style.save_figure(
        explanation_figures.sheet(shown.images, shown.masks, heats, hits),
        folder / "overlays",
        column=column,
    )
    caption = (
        f"Explanations by {first.method} under each augmentation. {len(rows)} images, networks of seed {seed}. Brighter: "
        "larger positive attribution, each map scaled by its 99th percentile. White: outline of the target region of the "
        "pointing game; the maximum is marked with a circle (hit) or a cross (miss)."
    )
    alt = f"rows of images, columns of heat maps: {', '.join(found)}"
    return page.figure(folder, "overlays", caption, alt=alt, sheet=True)


def _shown(result) -> np.ndarray:
    """Which images: spread evenly over those with a region, over all where none has one, as on a run's page."""
    shown = np.flatnonzero(~np.isnan(result.hits))
    shown = shown if len(shown) else np.arange(len(result.indices))
    return shown[walk.spread(len(shown), _IMAGES)]


def _pictures(config, result: Evaluation, rows, path) -> Pictures:
    """Read from `path`, or from the data set and written there.

    Raises:
      ValueError, OSError: the data cannot be read, or is not what was explained.
    """
    settings = {
        "examples": result.settings["examples"],
        "images": result.indices[rows].tolist(),
        "data": config.data.to_dict(),
    }
    settings = json.loads(json.dumps(settings))  # tuples are lists, as they come back
    stored = load_if(_stored, path, settings)
    if stored is not None:
        return stored
    images, masks = _read(config, result, rows)
    save_npz(path, {"images": images, "masks": masks}, settings)
    return Pictures(images, masks, settings)


def _stored(path) -> Pictures:
    def make(arrays: Any, settings: Any):
        return Pictures(arrays["images"], arrays["masks"], settings)

    return load_npz(path, make, "a report's pictures")


def _read(config, result, rows):
    asked = result.settings
    dataset = data.open_source(config.data[f"{asked['split']}_split"], config)
    if config.explain.boxes:
        dataset = regions.add_boxes(dataset, config.explain.boxes)
    dataset = numbered_as(dataset, len(config.resolved.class_names))
    shows = regions.own_classes(dataset.class_names)
    if asked.get("label") == "mapped":
        shows = regions.imagenet_classes(dataset)
    region = asked.get("region", "")
    find = regions.finder(dataset, shows, region) if region else regions.Finder("")
    preprocess = models.Preprocess(**config.resolved.preprocess)
    images, masks = [], []
    for row in rows:
        example = transforms.seen_part(dataset[int(result.indices[row])], preprocess)
        # A data set that has changed since would put maps beside other pictures.
        if example["image"].shape[:2] != result.heat.shape[1:]:
            raise ValueError("the data set's images are not of the size of the heat maps")
        images.append(example["image"])
        masks.append(find(example, int(result.labels[row]))[0])
    return np.stack(images), np.stack(masks)


def _curves(study, seed, found, folder, column):
    first = next(iter(found.values()))
    if not first.curves:
        return page.missing("There are no curves: no score that removes pixels was asked for.")
    # Only where the random ranking was judged on the same images in the same way.
    random = {n: r for n, r in _load(study, seed, random_map.__name__).items() if _same(r, first)}
    colors = {name: study_figures.color(study, name) for name in found}
    style.save_figure(
        explanation_figures.compared_curves(found, random, colors), folder / "curves", column=column
    )
    caption = (
        f"Faithfulness of {first.method} under each augmentation. Mean curves of {len(first.indices)} images, networks of seed "
        f"{seed}, as pixels are deleted or inserted in the order given by each network's own explanations."
    )
    caption += " Thin and dashed: random order." if random else ""
    areas = [f"{n} {r.scores[k].mean():.3f} ({k})" for n, r in found.items() for k in r.curves]
    alt = f"line charts; areas: {', '.join(areas)}"
    return page.figure(folder, "curves", caption, alt=alt)
