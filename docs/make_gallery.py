"""Draws docs/gallery.md: every augmentation, every explanation and every score on one picture of the scenes.

    python docs/make_gallery.py runs/cutmix-scenes

The run is one that the README's first command made; every method and score compiles for itself, some minutes in all.
"""

import dataclasses
import io
import pathlib
import re
import sys
import tempfile

import numpy as np
import PIL.Image

import mixaug_jax
from mixaug_jax import data
from mixaug_jax.attribution import (
    METHODS,
    Training,
    control_names,
    heatmap,
    iba_statistics,
    train_readout,
)
from mixaug_jax.core import checks, entries, files, say
from mixaug_jax.data.transforms import seen_part
from mixaug_jax.draw import explanation_figures
from mixaug_jax.explain import regions
from mixaug_jax.explain.job import reduction
from mixaug_jax.mixing import MIXERS
from mixaug_jax.report import augmentations
from mixaug_jax.scores import SCORES

PLACE = pathlib.Path(__file__).parent
PICTURE = 3  # of the validation split
SCORED = "gradcam"
TEXT = """# Gallery

Made by `python docs/make_gallery.py runs/cutmix-scenes` of a small network trained on the scenes. It shows what each part
does, not which is better.

## Augmentations

The same images under each method, with the label that the network is trained on under each image; every image has draws of its
own, and of sixteen draws the one that mixes the most labels is shown. Those that look at a network see that of the run; those
that mix hidden features are shown at the input.

![The same images under every augmentation](gallery/mixers.png)

## Explanations

One image under every method, by its default options; white is the outline of the object. The last three know nothing of the
network. A map that looks like `sobel` shows the image. The readout bottleneck was trained for 60 steps only.

![One image under every explanation](gallery/methods.png)

{left_out}

## Scores

The same image's Grad-CAM by every score, beside the controls. One image says nothing of a method: the table shows which
way a score points and how large its numbers are.

{table}

{unscored}
"""


def main(run: str) -> None:
    """Writes the page and its pictures from a run's working directory."""
    net, config = mixaug_jax.load(run), mixaug_jax.get_config("cutmix", "scenes")
    dataset = data.open_source("validation", config)
    draw_mixers(run)
    maps, left_out = explained(net, dataset)
    example = seen_part(dataset[PICTURE], net.preprocess)
    find = regions.finder(dataset, regions.own_classes(dataset.class_names))
    mask, _ = find(example, example["label"])
    save(explanation_figures.gallery(example["image"], maps, mask), "methods")
    table, unscored = scored(net, dataset)
    text = TEXT.format(table=table, left_out=left_out, unscored=unscored)
    files.write_text(PLACE / "gallery.md", re.sub("\n{3,}", "\n\n", text).rstrip() + "\n")


def draw_mixers(run: str) -> None:
    """Every augmentation on a few images; those that look at a network see that of the run."""
    configs = {name: mixaug_jax.get_config(name, "scenes") for name in MIXERS}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pictures.npz"
        shown = augmentations.pictures(configs, path, dict.fromkeys(configs, run))
    few = dataclasses.replace(
        shown, images=shown.images[:, :5], labels=tuple(row[:5] for row in shown.labels)
    )
    save(augmentations.figure(few), "mixers")


def explained(net, dataset) -> tuple[dict, str]:
    """{method: map [h,w]} of the picture, and a sentence about methods that this network cannot have."""
    image, label = net.preprocess(dataset[PICTURE]["image"]), dataset[PICTURE]["label"]
    others = np.stack([net.preprocess(dataset[k]["image"]) for k in range(32)])
    filled_in = {"baselines": others, "stats": iba_statistics(net, [others])}
    found, lacking, controls = {}, [], control_names()
    for name in (*(m for m in METHODS if m not in controls), *controls):
        wanted = entries.keywords(METHODS[name])
        given = {what: value for what, value in filled_in.items() if what in wanted}
        try:
            if "readout" in wanted:
                given["readout"] = train_readout(net, dataset, Training(steps=60))
            raw = mixaug_jax.attribute(net, image[None], [label], name, options=given)
        except checks.UnsupportedError as error:
            lacking.append(f"`{name}` ({error})")
            continue
        found[name] = np.asarray(heatmap(raw, reduction(METHODS[name], "auto")))[0]
        say.line(name)
    return found, f"Left out: {'; '.join(lacking)}." if lacking else ""


def scored(net, dataset) -> tuple[str, str]:
    """The table of scores as Markdown, and a sentence about scores that this network cannot have."""
    one = dataclasses.replace(dataset, read=lambda _: dataset[PICTURE], size=1)
    rows, lacking, names = [], [], (SCORED, *control_names())
    for name, score in SCORES.items():
        try:
            found = mixaug_jax.evaluate(net, one, methods=(SCORED,), scores=(name,))
        except checks.UnsupportedError as error:
            lacking.append(f"`{name}` ({error})")
            continue
        facts = found[SCORED].entries["scores"][name]
        better = {1: "larger", -1: "smaller", 0: ""}[facts["better"]]
        values = [float(np.mean(found[method].scores[name])) for method in names]
        title = getattr(score, "title", "") or name.replace("_", " ")
        cells = ("-" if np.isnan(value) else f"{value:.3g}" for value in values)
        rows.append([f"`{name}`", title, better, *cells])
        say.line(name)
    header = ["score", "what it is", "better", *(f"`{name}`" for name in names)]
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return table, f"Left out: {'; '.join(lacking)}." if lacking else ""


def save(figure, name: str) -> None:
    """As a PNG of few colors beside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    picture = PIL.Image.open(buffer).convert("RGB").quantize(128)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    files.write_bytes(PLACE / "gallery" / f"{name}.png", buffer.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
