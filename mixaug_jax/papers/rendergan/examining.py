"""The end of the stage `gan`: a trained generator is looked at and judged, in tables under gan/ and on the run's page."""

import pathlib

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from mixaug_jax.core import files, say, stats
from mixaug_jax.core.types import Config, Dataset
from mixaug_jax.data.markers.tags import BITS
from mixaug_jax.draw import page, style
from mixaug_jax.models.net import count_logits, input_shape
from mixaug_jax.papers.rendergan import adversary, chain, judging, looking
from mixaug_jax.training import checkpoint

_COUNT = 500  # pictures that statistics are of
_JUDGED = 200  # of each subset of links
_APART = 1000  # of each kind, real and made
_STATISTICS = ("what", "real", "made")
_WORTH = ("link", "logit", "low", "high")
_KEPT = ("read", "bits right", "low", "high")
_FIGURE = "generator_links"
_TOLD = ("what", "share right", "low", "high", "pictures")


def check_reader(config: Config) -> None:
    """Raises ValueError where markers.reader names no decoder of 12 bits, or one of pictures of another size."""
    reader = config.markers.reader
    if not reader:
        return
    folder = pathlib.Path(reader).expanduser()
    if not checkpoint.steps_there(folder):
        raise ValueError(
            f"markers.reader={reader} holds no decoder; a run with markers.train=labeled trains one"
        )
    net = checkpoint.load(folder)
    size, logits = net.preprocess.size, count_logits(net, input_shape(net.preprocess))
    # Any network would give numbers, and a picture of another side another answer.
    if (logits, net.loss) != (BITS, "sigmoid"):
        raise ValueError(
            f"markers.reader={reader} holds a network of {logits} logits and train.loss={net.loss}; a decoder of markers has "
            f"{BITS} and sigmoid"
        )
    if size != config.data.size:
        raise ValueError(
            f"markers.reader={reader} holds a decoder of {size} pixels; this run has data.size={config.data.size}"
        )


def examine(
    config: Config, modules: tuple, params: dict, source: Dataset, workdir: pathlib.Path
) -> None:
    """Writes gan/{statistics,worth,kept,apart}.csv and the page's section, and says what is in them.

    Args:
      config: of the run.
      modules: generator and discriminator, of one device.
      params: {"generator", "discriminator"}, on the host.
      source: real pictures.
      workdir: of the run.
    """
    # Other draws than those of the training.
    folder, seed = workdir / "gan", config.seed + 1
    generator, discriminator = modules
    count = min(_COUNT, len(source))
    labels, tags, pictures = looking.made_by(generator, params["generator"], seed, count)
    last = np.clip(adversary.last(pictures), -1, 1)
    rows = looking.statistics(looking.real_ones(source, count), last)
    rows += looking.spreads(labels) + looking.changes(tags, pictures)
    tables = {"statistics": (_STATISTICS, rows)}
    real = looking.real_ones(source, min(_JUDGED, len(source)))
    logits = judging.logits_of_subsets(generator, discriminator, params, real, seed)
    tables["worth"] = (_WORTH, judging.worth(logits))
    tables["apart"] = (_TOLD, [_apart(generator, discriminator, params, source, seed)])
    if config.markers.reader:
        tables["kept"] = (_KEPT, _kept(config, labels, tags, pictures))
    for name, (header, found) in tables.items():
        files.write_csv(folder / f"{name}.csv", header, found)
        for what, *values in found:
            say.detail(f"{name}: {what}: {', '.join(f'{v:.3f}' for v in values if v != '')}")
    _write_section(config, workdir, tables)


def _apart(generator, discriminator, params, source, seed):
    count = min(_APART, len(source))
    real = looking.real_ones(source, count)
    _, _, pictures = looking.made_by(generator, params["generator"], seed + 1, len(real))
    made = np.clip(adversary.last(pictures), -1, 1)
    right = judging.told_apart(discriminator, real, made, seed)
    share = float(right.mean())
    return ("a fresh network", share, *stats.wilson(share, len(right)), len(right))


def _kept(config, labels, tags, pictures):
    folder = pathlib.Path(config.markers.reader).expanduser()
    rows = judging.kept(checkpoint.load_alone(folder), tags, pictures, labels.bits)
    path = folder / "decoding" / "decoding.csv"
    if path.exists():
        held = next(row for row in files.read_csv(path) if row["what"] == "bits right")
        rows.append(("held test pictures", *(float(held[k]) for k in ("value", "low", "high"))))
    return rows


def _write_section(config, workdir, tables):
    """The page's section."""
    folder = workdir / "report"
    _draw(workdir / "gan" / f"links_{config.markers.steps}.png", folder / _FIGURE)
    # The statistics have no intervals: they are single numbers of all pictures.
    intervals = {
        name: [[row[0], page.Interval(*row[1:4]), *row[4:]] for row in rows]
        for name, (_, rows) in tables.items()
        if name != "statistics"
    }
    captions = {
        "worth": "Shapley values of the links on the discriminator's logit, exact over all 16 subsets; a link that is left out "
        "changes nothing.",
        "apart": "How often a fresh network, trained on others, tells real pictures from made ones; half would be perfect.",
        "kept": "Bits that a decoder of held pictures reads right after each link; chance is one half.",
    }
    headers = {
        "worth": ("link", "logit"),
        "apart": ("what", "share right", "pictures"),
        "kept": ("read", "bits right"),
    }
    parts = [
        page.paragraph(
            f"A generator ({config.markers.generator}) that learned from unlabeled pictures how to change rendered markers, "
            "link by link, so that a discriminator takes them for real. Intervals are over pictures: of one training they say "
            "nothing of another."
        ),
        page.figure(
            folder,
            _FIGURE,
            "Real pictures and made ones. Top row: real. Then the same markers as rendered and after each link.",
            alt="Six rows of sixteen small gray pictures of markers.",
            sheet=True,
        ),
        *(
            _table(folder, n, captions[n], headers[n], intervals[n])
            for n in captions
            if n in tables
        ),
        _table(
            folder,
            "statistics",
            "Numbers that should be alike, and spreads that are 0 where a generator has collapsed.",
            _STATISTICS,
            [list(row) for row in tables["statistics"][1]],
        ),
    ]
    page.write_section(workdir, "generator", "What the generator has learned", *parts)


def _draw(sheet, path):
    """The rows of a sheet of links with their names, as a figure."""
    names = ("real", "rendered", *chain.CHAIN)
    with PIL.Image.open(sheet) as picture:
        pixels = np.asarray(picture)
    with matplotlib.rc_context(style.STYLE):
        figure = Figure((7, 6 * pixels.shape[0] / pixels.shape[1]), layout="constrained")
        axes = figure.subplots()
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        height = pixels.shape[0] / len(names)
        axes.set_yticks((np.arange(len(names)) + 0.5) * height, names)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    style.save_figure(figure, path)


def _table(folder, name, caption, header, rows):
    return page.table(folder, page.Table(f"generator_{name}", caption, header, rows))
