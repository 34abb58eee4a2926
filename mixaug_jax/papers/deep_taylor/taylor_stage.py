"""The stage `taylor`: the study of deep Taylor decomposition on its test bed and on a network, from settings to a page.

Sixt and Landgraf 2022, "A Rigorous Study of the Deep Taylor Decomposition", arXiv 2211.08425. Settings:
`configs/taylor_study.py`.
"""

import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.config import keys
from mixaug_jax.config.allowed import Choice, Int, Key, Many, Number, Text, section
from mixaug_jax.core import checks, files, processes, say, stored, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Config, Net, Path
from mixaug_jax.draw import style
from mixaug_jax.papers.deep_taylor import (
    bed_numbers,
    claims,
    convergence,
    on_images,
    relu_stack,
    taylor_section,
)
from mixaug_jax.papers.deep_taylor.roots import RULES
from mixaug_jax.stages import weights as import_stage
from mixaug_jax.stages.base import Stage
from mixaug_jax.training import checkpoint

FOLDER = "taylor"
PARTS = ("testbed", "draw", "region", "csc", "class", "weights")
DRAWN = 4  # images that are drawn on
_MEMORY_ADVICE = (
    "memory ran out; lower taylor.width or taylor.points (testbed), taylor.units or taylor.draws"
)
# fmt: off
KEYS = section("taylor", {
    "parts": Key(PARTS, "what is done: testbed needs no network", Many(Choice(PARTS), 1, distinct=True)),
    "run": Key("runs/baseline-scenes", 'the working directory of another run, whose network is copied where this one has none',
               Text()),
    "rules": Key(RULES, "whose roots are looked at", Many(Choice(RULES), 1, distinct=True)),
    "gamma": Key(1.0, "of the rule gamma's roots", Number(0, 1e6)),
    "points": Key(1000, "inputs of the test bed", Int(2, 10**6)),
    "depth": Key(3, f"layers of the test bed; width ** depth is at most {bed_numbers.LARGEST}", Int(1, 6)),
    "width": Key(10, "of its inputs and hidden layers", Int(2, 1000)),
    "torch_seed": Key(1, "of its weights; 1 with depth 3 and width 10 is the published one", Int(0, 2**31 - 1)),
    "delta": Key(0.01, "share of the way to a root that full recursions leave out", Number(0, 1, above=True, below=True)),
    "split": Key("validation", "whose images", Choice(("train", "validation", "test"))),
    "images": Key(20, "of the network's parts, spread evenly over the split", Int(2, 10**6)),
    "units": Key(200, "random active units of each layer and image", Int(1, 10**6)),
    "draws": Key(5, "random relevances whose cosines are looked at", Int(2, 100)),
    "starts": Key((), "layers from which they go down; (): the last three", Many(Text(1), distinct=True)),
    "targets": Key(on_images.TARGETS, "drawn as explanations: a letter, the map of another class",
                   Many(Choice(on_images.TARGETS), 1, distinct=True)),
    "seed": Key(0, "of all draws", Int(0, 2**31 - 1)),
}, FOLDER)
# fmt: on


class Photos(NamedTuple):
    """A network and the images that it is studied on.

    Attributes:
      net: the network.
      dataset: as `data.Source`.
      indices: of the images, the same in every process.
      pixels: uint32 [images], checksums of them as the network sees them.
      settings: what tells the network and the data from others.
    """

    net: Net
    dataset: Any
    indices: np.ndarray
    pixels: np.ndarray
    settings: dict

    def told(self, most: int) -> dict:
        """What tells a part of the study from others, with at most so many images."""
        images = {"indices": self.indices[:most].tolist(), "pixels": self.pixels[:most].tolist()}
        return self.settings | images

    def measure(self, works: Mapping[str, Callable], most: int) -> dict[str, np.ndarray]:
        """{"WORK/NAME": [images, ...]} of {work: f(net, row)}, on this process's share of at most `most` images."""
        indices = self.indices[:most]
        own = indices[list(walk.share(len(indices), walk.chosen(None)))]
        shape = np.shape(self.net.preprocess(self.dataset[int(indices[0])]["image"]))
        images = [self.net.preprocess(self.dataset[int(i)]["image"]) for i in own]
        rows = {
            "image": np.stack(images) if images else np.zeros((0, *shape), np.float32),
            "index": own.astype(np.int32),
        }
        return {
            f"{name}/{array}": values
            for name, work in works.items()
            for array, values in on_images.run(work, self.net, rows, len(indices), name).items()
        }


def run(config: Config, workdir: Path, *, which: str = "latest", required: bool = True) -> None:
    """Measures every part of the study that is not there with the same settings, and draws and says what comes of it.

    Writes `taylor/`: a .npz for each part, taylor.csv, claims.csv, figures; and a section of the run's page. The network is
    that of `config.weights`, else the one that the working directory has, else the one of `taylor.run`, which is copied.

    Args:
      config: of `configs/taylor_study.py`.
      workdir: where the results go.
      which: "latest", "best" or a step's number, of the network.
      required: False leaves a network that cannot be studied out, with a line that says so.

    Raises:
      ValueError: settings or data that cannot work, a network whose backward rules cannot be replaced.
      MemoryError, OSError: memory or disk ran out.
    """
    check(config)
    workdir = pathlib.Path(workdir).absolute()
    with devices_lib.applied(config), devices_lib.out_of_memory(_MEMORY_ADVICE):
        photos = _photos(config, workdir, which, required)
        found, again = {}, False
        for part in _possible(config.taylor, photos):
            settings, work = _PARTS[part](config.taylor, photos)
            found[part], new = _kept(workdir / FOLDER / f"{part}.npz", settings, work)
            again |= new
    if processes.is_main():
        layers = photos.net.layers if photos else ()
        _write(config, workdir, found, layers, again)
    devices_lib.barrier(FOLDER)


def check(config: Config) -> None:
    """Raises ValueError for settings that cannot work, or where there is no network to study."""
    config_lib.check(config)
    if "taylor" not in config:
        raise ValueError("this config has no section taylor; start from configs/taylor_study.py")
    keys.check_values(config_lib.flatten({"taylor": config.taylor.to_dict()}), KEYS)
    if "testbed" in config.taylor.parts:
        bed_numbers.tree_size(config.taylor.depth, config.taylor.width)


def _possible(t, photos) -> list[str]:
    """The parts that are asked for and that can be made; a line about what cannot."""
    wanted = [part for part in t.parts if part == "testbed" or photos is not None]
    if taylor_section.rooted(t.rules):
        return wanted
    say.line(
        "taylor: the figure of roots on a plane and the part region are left out, because the rule zero has one root for all "
        "neurons; taylor.rules takes others"
    )
    return [part for part in wanted if part != "region"]


def _photos(config, workdir, which, required) -> Photos | None:
    """The network and its images; None where there is none, or it is left out."""
    if set(config.taylor.parts) == {"testbed"}:
        return None
    if config.weights:
        import_stage.import_run(config, workdir)
    # A study of a run's network has a working directory of its own, into which the checkpoint is copied.
    elif not processes.agreed(bool(checkpoint.steps_there(workdir))):
        _copy(config, workdir, which)
    net = checkpoint.load(workdir, "latest" if checkpoint.is_given(workdir) else which)
    told = config if config.weights else config_lib.read(workdir)
    dataset = data.open_source(told.data[f"{config.taylor.split}_split"], told, annotations=False)
    indices = walk.spread(len(dataset), config.taylor.images)
    sentence = on_images.refusal(net, net.preprocess(dataset[int(indices[0])]["image"]))
    if sentence and required:
        raise ValueError(sentence)
    if sentence:
        say.line(f"taylor: the parts of a network are left out: {sentence}")
        return None
    checks.choices("taylor.starts", tuple(config.taylor.starts), net.layers[1:])
    settings = {
        "weights": files.checksum(net.variables),
        "data": told.data.name,
        "split": config.taylor.split,
    }
    return Photos(net, dataset, indices, _checksums(net, dataset, indices), settings)


def _checksums(net, dataset, indices):
    """Of the images as the network sees them, uint32 [images]: photographs may change while their folder's name stays."""
    devices = walk.chosen(None)
    own = indices[list(walk.share(len(indices), devices))]
    found = [files.checksum(net.preprocess(dataset[int(i)]["image"])) for i in own]
    return walk.gather(np.array(found, np.uint32), len(indices), devices)


def _copy(config, workdir, which):
    """Makes the working directory one of the network of `taylor.run`."""
    place = pathlib.Path(config.taylor.run).absolute()
    if not config.taylor.run or not checkpoint.steps_there(place):
        raise ValueError(
            f"taylor.run={config.taylor.run!r} has no checkpoints; --config=baseline trains a network in runs/baseline-scenes, "
            "--config.weights=FILE takes another one, and --stage=taylor --config.taylor.parts=testbed needs none"
        )
    net, told = checkpoint.load(place, which), config_lib.read(place)
    told = told.copy_and_resolve_references()
    with told.unlocked():
        told.taylor, told.stages = config.taylor, config.stages
        told.resolved.steps = 0  # none of them is done here
    checkpoint.write_network(workdir, told.lock(), net.variables)
    say.line(f"the network of {place}")


def _kept(path, settings, work: Callable) -> tuple[dict, bool]:
    """A part's arrays, from its file if that was made by these settings; and whether they are new."""

    def load(path: Path) -> Any:
        return files.load_npz(path, _Kept, "the study of deep Taylor decomposition")

    def make() -> _Kept:
        say.line(f"taylor: {path.stem}")
        return _Kept({name: np.asarray(value) for name, value in work().items()}, settings)

    def save(found: _Kept, path: Path) -> None:
        files.save_npz(path, found.arrays, settings)

    found, new = stored.keep(path, settings, load=load, make=make, save=save)
    devices_lib.barrier(path.stem)
    # Where the first process alone sees the file, it alone needs it.
    return found.arrays if found else {}, new


class _Kept(NamedTuple):
    arrays: dict
    settings: Mapping


def _test_bed(t, photos):
    names = ("rules", "gamma", "points", "depth", "width", "torch_seed", "delta", "seed")
    settings = {name: _plain(t[name]) for name in names}

    def work() -> dict:
        stack = relu_stack.bed_stack(t.torch_seed, t.depth, t.width)
        x = relu_stack.points(stack, t.points, t.seed)
        return bed_numbers.measure(
            stack, x, bed_numbers.Bed(tuple(t.rules), t.gamma, t.delta, t.seed)
        )

    return settings, work


def _draw(t, photos):
    layer = photos.net.layers[0]
    settings = photos.told(DRAWN) | {"targets": _plain(t.targets), "layer": layer, "seed": t.seed}
    works = {target: on_images.Draw(layer, target, t.seed) for target in t.targets}
    return settings, lambda: photos.measure(works, DRAWN)


def _region(t, photos):
    rules = taylor_section.rooted(t.rules)
    names = ("rules", "gamma", "units", "seed")
    settings = photos.told(t.images) | {name: _plain(t[name]) for name in names}

    def work() -> dict:
        image = photos.net.preprocess(photos.dataset[int(photos.indices[0])]["image"])
        layers = on_images.layers_before_relus(photos.net, image)
        works = {k: on_images.Units(k, rules, t.units, t.gamma, t.seed) for k in layers}
        return photos.measure(works, t.images) | {"rules": np.array(rules)}

    return settings, work


def _csc(t, photos):
    starts = tuple(t.starts) or photos.net.layers[-3:]
    settings = photos.told(t.images) | {"starts": list(starts), "draws": t.draws, "seed": t.seed}
    works = {way: on_images.Convergence(way, starts, t.draws, t.seed) for way in on_images.WAYS}

    def work() -> dict:
        products = convergence.matrix_products(seed=t.seed)
        found = convergence.percentiles(photos.measure(works, t.images))
        return found | {f"products/{signs}": line for signs, line in products.items()}

    return settings, work


def _class(t, photos):
    settings = photos.told(t.images) | {"seed": t.seed}

    def work() -> dict:
        found = photos.measure({"all": on_images.Classes(seed=t.seed)}, t.images)
        return found | {"ways": np.array(list(on_images.WAYS))}

    return settings, work


def _weights(t, photos):
    settings = photos.told(t.images) | {"seed": t.seed}
    works = {way: on_images.Weights(way, t.seed) for way in on_images.WAYS}
    return settings, lambda: photos.measure(works, t.images)


_PARTS = {
    "testbed": _test_bed,
    "draw": _draw,
    "region": _region,
    "csc": _csc,
    "class": _class,
    "weights": _weights,
}


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _write(config, workdir, found, layers, again):
    """The tables, the figures, the section of the page, and the sentences on the console."""
    folder, column = workdir / FOLDER, config.report.column_width
    rows, said = claims.table(found), claims.judged(found)
    files.write_csv(folder / "taylor.csv", claims.Row._fields, rows)
    files.write_csv(folder / "claims.csv", claims.Claim._fields, said)
    drawn = taylor_section.figures(config.taylor, found, rows, layers)
    for name, (draw, _) in drawn.items():
        if again or not style.is_saved(folder / name, column=column):
            style.save_figure(draw(), folder / name, column=column)
        # The page lies beside its pictures, so that the folder can be moved as one.
        for ending in style.ENDINGS:
            (workdir / "report").mkdir(exist_ok=True)
            shutil.copyfile(folder / f"{name}{ending}", workdir / "report" / f"{name}{ending}")
    files.seal(folder)
    taylor_section.write(workdir, rows, said, drawn)
    for claim in said:
        say.result(f"({claim.letter}) {claim.claim}. {claim.said}")
    say.line(f"written to {folder}: taylor.csv, claims.csv, {', '.join(drawn)} as PNG, SVG and PDF")


STAGE = Stage(
    run,
    check,
    "what deep Taylor decomposition really does (configs/taylor_study.py)",
    keys=("taylor.",),
)
