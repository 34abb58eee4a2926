"""The published finding on the networks it was made with: unique concepts of released ResNet-50s, beside the paper's numbers.

The paper (Won et al. 2023, which dissects networks of mixed-sample augmentations) looks at the last convolutional layer of five
networks of ImageNet, whose weights the authors of CutMix and of SaliencyMix released: P(a > T) = 0.01, maps enlarged to the
label map, IoU over all images, concepts from a UPerNet in the categories object, part, material and color. It does not say
which images were scanned, so differences to its numbers are to be read with that in mind. Settings: `configs/released.py`.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax.config import keys
from mixaug_jax.config.allowed import Choice, Key, Many, Text, section
from mixaug_jax.core import files, processes, say
from mixaug_jax.dissection.result import PER, Dissection, load
from mixaug_jax.draw import dissection_figures, dissection_tables, style
from mixaug_jax.models import hub
from mixaug_jax.stages import dissect as dissection_stage
from mixaug_jax.stages import weights as import_stage
from mixaug_jax.stages.base import Stage

MODELS = ("baseline", "cutout", "mixup", "cutmix", "saliencymix")
CATEGORIES = ("object", "part", "material", "color", "total")  # a total is the sum of the others
_CUTMIX = "the README of clovaai/CutMix-PyTorch on GitHub links to it (ResNet-50, {}), on Dropbox"
PUBLISHED = {
    "baseline": _CUTMIX.format("baseline"),
    "cutout": _CUTMIX.format("Cutout"),
    "mixup": _CUTMIX.format("Mixup"),
    "cutmix": _CUTMIX.format("CutMix"),
    "saliencymix": "the README of afm-shahab-uddin/SaliencyMix on GitHub links to it (ResNet-50), on Google Drive",
}
KEYS = section(
    "released",
    {
        "dir": Key("", "the folder of released weights", Text()),
        "models": Key(
            MODELS, "all of the networks, or some", Many(Choice(MODELS), 1, distinct=True)
        ),
        "files": Key(
            (),
            "files of weights of your own, in place of dir and models",
            Many(Text(1), distinct=True),
        ),
    },
    "released",
)
_ENDINGS = (".pth", ".pt", ".tar", ".safetensors", ".npz")
# Won et al. 2023: numbers and sentences of the text, in the order of MODELS. Its figure 3 has them all, but only as bars, so ""
# is what the text does not give. What it says without a number is a claim; `holds` knows how to read it.
PAPER = {
    0.03: {
        "object": ("54", "", "", "", "46"),
        "part": ("", "", "", "", "smallest"),
        "material": ("", "", "", "", "not smallest"),
        "color": ("", "", ">baseline", "", "smallest"),
        "total": ("96", "82", "91", "80", "71"),
    },
    0.04: {
        "object": ("42", "<=42", "<=42", "44", "36"),
        "part": ("17", "<=17", "<=17", "12", "10"),
        "material": ("8", "<=8", "<=8", "6", "6"),
        "color": ("4", ">4", ">4", "1", "1"),
        "total": ("71", "61", "66", "63", "53"),
    },
    0.05: {
        "object": ("33", "", "", "", "24"),
        "total": ("", "", "third", "", ""),
    },
}


class Cell(NamedTuple):
    """One number of the table.

    Attributes:
      iou, category, model: of which threshold, category and network.
      count: unique concepts, each unit taken for its one best concept.
      low, high: 95 % interval, see `Dissection.intervals`; "" where there is none.
      shuffled: the mean count with label maps shuffled against images; "" where there is none.
      paper: what the paper says: a number, a bound, a claim, or "" for nothing.
      difference: count minus the paper's number; "" where it gives none.
      holds: "yes" or "no" for a bound or claim of the paper; "" for a number, and where networks are left out of the table.
    """

    iou: float
    category: str
    model: str
    count: int
    low: float | str
    high: float | str
    shuffled: float | str
    paper: str
    difference: int | str
    holds: str


def run(
    config: ml_collections.ConfigDict,
    workdir: os.PathLike | str,
    *,
    which: str = "latest",
    required: bool = False,
) -> None:
    """Imports and dissects each network in a folder of its own, then writes released.csv, and released as PNG, SVG and PDF.

    A run that was stopped goes on where it was: what is imported, segmented or dissected stays so.

    Args:
      config: of `configs/released.py`.
      workdir: folder of the result; each network's own working directory is `<workdir>/<name>`.

    Raises:
      ValueError: settings or data that cannot work, before anything is computed; files of weights that are missing, with where
        their authors published them.
      MemoryError, OSError: memory or disk ran out.
    """
    check(config)
    workdir = pathlib.Path(workdir)
    places = _places(config.released)
    names = tuple(places)
    configs = {name: _config_of(config, file) for name, file in places.items()}
    for name in names:  # all first: a damaged file is found before hours of work
        say.line(f"{name}: {places[name]}")
        import_stage.import_run(configs[name], workdir / name)
    for name in names:
        say.line(f"dissecting {name}")
        dissection_stage.run(configs[name], workdir / name)
    if processes.is_main():  # the only one that writes
        _compare(config, workdir, names)


def _compare(config, workdir, names):
    """The table and the figure of dissections that are there."""
    (layer,) = config.dissect.layers
    results = {name: load(workdir / name / "dissection" / f"{layer}.npz") for name in names}
    cells = compare(results)
    files.write_csv(workdir / "released.csv", Cell._fields, cells)
    style.save_figure(figure(results, cells), workdir / "released")
    say.line(text(cells))
    say.line(f"written to {workdir}: released.csv, and released as PNG, SVG and PDF")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for settings that cannot work."""
    config_lib.check(config)
    own = {"released": config.released.to_dict()} if "released" in config else {}
    keys.check_values(config_lib.flatten(own), KEYS)
    if len(config.dissect.layers) != 1:
        raise ValueError(
            f"dissect.layers={config.dissect.layers} must name one layer: the paper's table has one"
        )
    if own:
        _places(config.released)
    dissection_stage.check(config)


def _places(released) -> dict[str, str | pathlib.Path]:
    """The file of each network: those that are listed, or those of the published ones."""
    if released.files:
        return named_files(released.files)
    return find_files(released.dir, tuple(released.models))


def named_files(given: Sequence[str]) -> dict[str, str | pathlib.Path]:
    """Files of weights, or names on the hub, by the names that the table shows: the file's up to its first dot, with that of
    its folder before it where two are alike. A published network's name has the paper's numbers beside it.

    Raises:
      ValueError: files that are not there, or two of one name.
    """
    on_hub = {path for path in given if path.startswith(hub.PREFIX)}
    places = {path: path if path in on_hub else pathlib.Path(path).expanduser() for path in given}
    missing = [path for path, place in places.items() if path not in on_hub and not place.is_file()]
    if missing:
        raise ValueError(f"released.files: {', '.join(missing)} is no file")
    short = {path: pathlib.PurePath(path).name.partition(".")[0] for path in given}
    alike = {name for name in short.values() if list(short.values()).count(name) > 1}
    named = {
        f"{pathlib.PurePath(path).parent.name}-{name}" if name in alike else name: places[path]
        for path, name in short.items()
    }
    if len(named) < len(given):
        raise ValueError(f"released.files has two files of one name among {', '.join(given)}")
    return named


def find_files(place: str, names: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """The weights of each network: `PLACE/<name>.*`, or the one file of weights in the folder `PLACE/<name>`.

    Raises:
      ValueError: an unknown name, or files that are missing or not unique; all are named, with where they were published.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown or not names:
        raise ValueError(f"released.models={names} must be names out of {', '.join(MODELS)}")
    folder = pathlib.Path(place).expanduser()
    if not place or not folder.is_dir():
        raise ValueError(f"released.dir={place!r} must be a folder of weights, {_wanted(names)}")
    found = {name: _candidates(folder, name) for name in names}
    several = [name for name, files in found.items() if len(files) > 1]
    if several:
        listed = ", ".join(str(file) for file in found[several[0]])
        raise ValueError(f"{folder} has several files for {several[0]} ({listed}); keep one")
    missing = tuple(name for name, files in found.items() if not files)
    if missing:
        raise ValueError(f"{folder} lacks {_wanted(missing)}; or leave them out of released.models")
    return {name: files[0] for name, files in found.items()}


def _candidates(folder, name):
    inside = (folder / name).iterdir() if (folder / name).is_dir() else ()
    beside = (file for file in folder.iterdir() if file.name.partition(".")[0] == name)
    return sorted(f for f in (*inside, *beside) if f.is_file() and f.suffix in _ENDINGS)


def _wanted(names) -> str:
    return "; ".join(f"{name}.pth.tar: {PUBLISHED[name]}" for name in names)


def _config_of(config, file):
    """The settings of one network's own run."""
    own = config.copy_and_resolve_references()
    with own.unlocked():
        del own.released
        own.weights = str(file)
    config_lib.check(own)
    return own


def compare(results: dict[str, Dissection]) -> list[Cell]:
    """The table, by threshold, category and network. results: of the same options, by name; the paper speaks of `MODELS`."""
    one = next(iter(results.values()))
    cells = []
    for t, iou in enumerate(one.options.iou):
        for category in CATEGORIES:
            found = {name: _found(result, t, category) for name, result in results.items()}
            counts = {name: beside["count"] for name, beside in found.items()}
            for name, beside in found.items():
                # Where the paper says nothing the cell stays empty.
                said = dict(zip(MODELS, PAPER.get(iou, {}).get(category, ()), strict=False))
                paper = said.get(name, "")
                cells.append(
                    Cell(
                        iou,
                        category,
                        name,
                        beside["count"],
                        beside["low"],
                        beside["high"],
                        beside["null_mean"],
                        paper,
                        beside["count"] - int(paper) if paper.isdigit() else "",
                        holds(paper, name, counts),
                    )
                )
    return cells


def _found(result, t, category) -> dict:
    """The unique concepts of a category and what stands beside them; a category that no concept has counts 0."""
    order = (*result.categories, "total")
    if category not in order:
        return {"count": 0, "low": "", "high": "", "null_mean": ""}
    return dissection_tables.beside(result, (PER.index("unit"), 1, t), order.index(category))


def holds(paper: str, name: str, counts: dict[str, int]) -> str:
    """Whether a bound or claim of `PAPER` is true of the counts of all networks: "yes", "no", or "" for what cannot be said."""
    if not paper or paper.isdigit():
        return ""
    own = counts[name]
    if paper.startswith("<="):
        true = own <= int(paper[2:])
    elif paper.startswith(">") and paper[1:].isdigit():
        true = own > int(paper[1:])
    # What follows compares networks, all of which must be there.
    elif not set(MODELS) <= counts.keys():
        return ""
    else:
        counts = {model: counts[model] for model in MODELS}
        above = sum(count > own for count in counts.values())
        true = {
            ">baseline": own > counts["baseline"],
            "smallest": own == min(counts.values()),
            "not smallest": own > min(counts.values()),
            "third": above == 2,
        }[paper]
    return "yes" if true else "no"


def text(cells: list[Cell]) -> str:
    """The table as lines of text: "40 / 42 (-2)" is 40 here and 42 in the paper; "-" is what the paper does not give."""
    names = list(dict.fromkeys(cell.model for cell in cells))
    lines = [
        'unique concepts: here / in the paper (difference); "-": not given in the paper\'s text'
    ]
    for start in range(0, len(cells), len(names)):
        row = cells[start : start + len(names)]
        if row[0].category == CATEGORIES[0]:
            lines.append(f"IoU > {row[0].iou:<6g}" + "".join(f"{name:>24}" for name in names))
        lines.append(f"{row[0].category:12}" + "".join(f"{_shown(cell):>24}" for cell in row))
    return "\n".join(lines)


def _shown(cell: Cell) -> str:
    if not cell.paper:
        return f"{cell.count} / -"
    note = f"{cell.difference:+d}" if cell.difference != "" else cell.holds
    return f"{cell.count} / {cell.paper}" + f" ({note})" * bool(note)


def figure(results: dict[str, Dissection], cells: list[Cell]):
    """`dissection_figures.unique_concepts` with the paper's numbers as diamonds."""
    drawn = dissection_figures.unique_concepts(results)
    order = (*next(iter(results.values())).categories, "total")
    names = list(results)
    numbers = [cell for cell in cells if cell.paper.isdigit() and cell.category in order]
    style = {"marker": "D", "s": 22, "facecolor": "#D55E00", "edgecolor": "white", "zorder": 7}
    for panel, iou in zip(drawn.axes, dict.fromkeys(cell.iou for cell in cells), strict=True):
        given = [cell for cell in numbers if cell.iou == iou]
        shift = [(names.index(c.model) - (len(names) - 1) / 2) * 0.8 / len(names) for c in given]
        at = np.add([order.index(c.category) for c in given], shift)
        panel.scatter(at, [int(c.paper) for c in given], **style)
    highest = max((int(cell.paper) for cell in numbers), default=0)
    panel.set_ylim(0, max(panel.get_ylim()[1], 1.05 * highest))  # of all panels: they share it
    drawn.set_size_inches(15, 3.6)
    drawn.suptitle("diamonds: the paper's numbers", fontsize=9)
    return drawn


STAGE = Stage(run, check, "the published protocol on released networks (configs/released.py)")
