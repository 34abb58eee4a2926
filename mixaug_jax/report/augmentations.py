"""The augmentations on the same images, as Won et al. 2023 show them in their Fig. 1.

The pictures are made once from the training split and kept as `pictures.npz` beside the report, so that it can be built
again where the data is gone.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax import data, mixing
from mixaug_jax.core import files
from mixaug_jax.data import transforms
from mixaug_jax.draw.style import STYLE
from mixaug_jax.mixing import maps
from mixaug_jax.models import imagenet
from mixaug_jax.training import checkpoint, mixing_batches

_COUNT = 6  # images in a row
DRAWS = 16  # of which one is shown
_CANDIDATES = 64  # examples that are read to find so many classes
_LONGEST = 13  # letters of a class's name under an image


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What the report takes from the data set; R rows, n images a row.

    Attributes:
      names: of the rows; the first one is the images as they are.
      images: uint8 [R, n, size, size, 3 or 1].
      labels: the text under each image, [R][n].
      held_out: number of examples behind test_accuracy.
    """

    names: tuple[str, ...]
    images: np.ndarray
    labels: tuple[tuple[str, ...], ...]
    held_out: int


def pictures(
    configs: dict, path: os.PathLike | str, workdirs: Mapping[str, os.PathLike | str] | None = None
) -> Pictures:
    """The images under each config's augmentation, read from `path` or made and written there.

    All share the images and the random key. For the picture prob is 1 and every image has draws of its own (per="example"),
    so that a row shows the range of what the method does; of `DRAWS` keys the one is taken under which the most labels are
    mixed, since an image may well meet itself. Mixers of hidden features are shown at the input. One that looks at a network
    sees that of the run's latest checkpoint, and so do labels by attention; it has no row where there is none.

    Args:
      configs: resolved settings by the name to show; the data must be that of the first.
      path: of the .npz.
      workdirs: of the runs, by the same names.

    Raises:
      ValueError, OSError: the data cannot be read.
    """
    path = pathlib.Path(path)
    first = next(iter(configs.values()))
    wanted = {name: config.mix.to_dict() for name, config in configs.items()}
    settings = {"mix": wanted, "data": first.data.to_dict()}
    workdirs = workdirs or {}
    settings = json.loads(json.dumps(settings))  # tuples are lists, as they come back
    stored = _load(path, settings)
    if stored is not None:
        return stored
    made = _make(configs, first, workdirs)
    _save(path, made, settings)
    return made


def _make(configs, first, workdirs) -> Pictures:
    source = data.open_source(first.data.train_split, first, annotations=False)
    held_out = first.data.test_split or first.data.validation_split
    count = len(data.open_source(held_out, first, annotations=False))
    images, labels = _examples(source, first)
    targets = np.eye(source.num_classes, dtype=np.float32)[labels]
    # A page runs no code that was brought to a run: a mixer that is not known here has no row.
    # One image has no partner.
    known = mixing.MIXERS if len(images) > 1 else ()
    mixing_ones = {name: c for name, c in configs.items() if c.mix.name in known}
    nets = {name: _nets(config, workdirs.get(name)) for name, config in mixing_ones.items()}
    mixed = {
        name: _mixed(config, images, targets, *nets[name])
        for name, config in mixing_ones.items()
        if nets[name] is not None
    }
    # One draw for all rows, which share their keys; below 0.95 a label counts as visibly mixed.
    best = sum((t.max(-1) < 0.95).sum(-1) for _, t in mixed.values()).argmax() if mixed else 0
    rows = {"images": (images, targets)} | {n: (x[best], t[best]) for n, (x, t) in mixed.items()}
    names = imagenet.readable(source.class_names)
    texts = [tuple(_label_text(t, names) for t in targets) for _, targets in rows.values()]
    return Pictures(tuple(rows), np.stack([x for x, _ in rows.values()]), tuple(texts), count)


def _examples(source, config):
    """The first images of different classes, spread over the split, as evaluation crops them: uint8 [n,h,w,C] and labels."""
    found = []
    for index in np.unique(np.linspace(0, len(source) - 1, _CANDIDATES).astype(int)):
        found.append(source[int(index)])
        if len({example["label"] for example in found}) == min(_COUNT, source.num_classes):
            break
    # `return_index` comes in the order of labels; it is sorted below into that of the split.
    _, new = np.unique([example["label"] for example in found], return_index=True)
    rest = np.setdiff1d(np.arange(len(found)), new)
    chosen = [found[i] for i in [*np.sort(new), *rest][:_COUNT]]
    view = functools.partial(
        transforms.evaluation, size=config.data.size, resize=config.data.resize
    )
    images = np.stack([view({"image": example["image"]})["image"] for example in chosen])
    return images, np.array([example["label"] for example in chosen])


def _nets(config, workdir):
    """What a config's mixer looks at, and whose attention its labels follow: networks, or ().

    None where one of them is not there.
    """
    looks, reads = mixing_batches.looks_at_net(config), mixing_batches.reads_attention(config)
    if not looks and not reads:
        return (), ()
    try:
        teacher = mixing_batches.teacher(config)
        trained = checkpoint.load_alone(workdir or "") if reads or teacher is None else ()
    except (ValueError, OSError):
        return None
    return (teacher or trained) if looks else (), trained if reads else ()


def label_words(configs: Mapping[str, Any]) -> str:
    """Which label stands below the pictures of these configs, as a sentence."""
    if any(config.mix.get("label", "") == mixing.labels.VISIBLE for config in configs.values()):
        return "The label by area is given below each image; mix.label=visible weighs each class by what is seen of it."
    if any(map(mixing_batches.reads_attention, configs.values())):
        return "The label used in training is given below each image; mix.label=attention has it from the trained network here."
    return "The label used in training is given below each image."


def _mixed(config, images, targets, net, attentive):
    """Images uint8 [DRAWS,n,h,w,C] and targets [DRAWS,n,K] under a config's method."""
    mean, std = (np.asarray(v, np.float32) for v in (config.data.mean, config.data.std))
    options = mixing.own_options(config.mix)
    options |= {k: v for k, v in (("prob", 1.0), ("per", "example")) if k in options}
    if options.get("label") == mixing.labels.VISIBLE:
        options["label"] = "mixed"  # the picture says how much is kept of the whole
    known = {"mean": tuple(config.data.mean), "std": tuple(config.data.std), "deepest": False}
    entry = mixing.MIXERS[config.mix.name]

    def mixer(nets: Any, key: Any, images: Any, targets: Any):
        bound = mixing.bound(entry, options, {**known, "net": nets[0]})
        out, targets = bound(key, images, targets)
        if not isinstance(targets, mixing.labels.Pending):
            return out, targets
        kept = mixing.labels.attended_share(targets.mask, maps.attention(nets[1], out))
        return out, mixing.labels.settle(targets, kept)

    keys = jax.random.split(jax.random.key(0), DRAWS)
    normalized = (images.astype(np.float32) / 255 - mean) / std
    draw = jax.jit(jax.vmap(mixer, (None, 0, None, None)))
    mixed, targets = draw((net, attentive), keys, normalized, targets)
    pixels = 255 * (np.asarray(mixed) * std + mean)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), np.asarray(targets)


def _label_text(target, names) -> str:
    """ "cat 0.62" and "dog 0.38" in two lines, or one name alone."""
    order = np.argsort(-target, kind="stable")[:2]
    short = [
        names[k] if len(names[k]) <= _LONGEST else names[k][: _LONGEST - 1] + "…" for k in order
    ]
    if target[order[1:]].sum() < 0.005:
        return short[0]
    return "\n".join(f"{name} {target[k]:.2f}" for name, k in zip(short, order, strict=True))


def figure(shown: Pictures) -> Figure:
    """A row of images for each augmentation, with the label under each image."""
    rows, count = shown.images.shape[:2]
    with matplotlib.rc_context(STYLE):
        figure = Figure((1.35 * count + 1.1, 1.72 * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
        grid = figure.subplots(rows, count + 1, squeeze=False, width_ratios=[0.8] + [1] * count)
        for row, name, images, labels in zip(
            grid, shown.names, shown.images, shown.labels, strict=True
        ):
            row[0].axis("off")
            text = name.replace("-label_", "\nlabel: ")
            row[0].text(1, 0.5, text, ha="right", va="center", transform=row[0].transAxes)
            for panel, image, label in zip(row[1:], images, labels, strict=True):
                # Gray pictures have one channel, and a color map would color them.
                panel.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
                panel.set_xlabel(label, fontsize=8)
    return figure


def _save(path, made, settings):
    arrays = {"names": np.array(made.names), "images": made.images, "labels": np.array(made.labels)}
    files.save_npz(path, arrays | {"held_out": np.array(made.held_out)}, settings)


def _load(path, settings) -> Pictures | None:
    """What was stored for these settings, if it was."""

    def make(arrays: Any, stored: Any):
        labels = tuple(map(tuple, arrays["labels"].tolist()))
        names, held_out = tuple(arrays["names"].tolist()), int(arrays["held_out"])
        return Pictures(names, arrays["images"], labels, held_out) if stored == settings else None

    try:
        return files.load_npz(path, make, "the augmentations' pictures")
    except ValueError:
        return None  # an unreadable file is made again
