"""The stage `panels` of a run on animals: explanations by pictures, and how well a simulated reader reads them."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from mixaug_jax import data
from mixaug_jax.attribution import METHODS
from mixaug_jax.core import checks, entries, files, processes, say, stored, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Config, Net, Path
from mixaug_jax.data.animals import animal_drawing, animal_samplers
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, Animal
from mixaug_jax.models.layer_maps import cam_layer, map_shapes
from mixaug_jax.papers.relevance import (
    attribute_relevance,
    evaluator_training,
    relevance_keys,
    relevance_result,
)
from mixaug_jax.papers.relevance.evaluator import Evaluator
from mixaug_jax.papers.relevance.panels import (
    flow_training,
    kept_panels,
    panel_keys,
    panel_section,
    questionnaire,
    seen,
)
from mixaug_jax.papers.relevance.panels import simulated_reader as reading
from mixaug_jax.papers.relevance.panels.flow import Flow
from mixaug_jax.papers.relevance.panels.kept_panels import Kept
from mixaug_jax.papers.relevance.panels.kinds import PANELS
from mixaug_jax.papers.relevance.panels.panel import Pictures
from mixaug_jax.papers.relevance.panels.readers_table import RANDOM, TRAINED, UNBIASED
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

FOLDER = "panels"
_ADVICE = "memory ran out; lower panels.images or panels.pool"
_FILES = {TRAINED: "trained", RANDOM: "random", UNBIASED: "unbiased"}


class Looked(NamedTuple):
    """A network whose panels are read.

    Attributes:
      net: the network.
      truth: bool [10], which attributes are relevant to it.
    """

    net: Net
    truth: np.ndarray


def run(config: Config, workdir: Path, *, which: str = "latest", required: bool = True) -> None:
    """Makes panels of a run's network and of its controls, and has a simulated reader read them.

    Which attributes are relevant to the network is what the stage relevance has measured. Controls are the same network with
    random weights, to which none is, and, where panels.unbiased names one, a network that was trained on unbiased animals, to
    which the arms alone are. Writes `panels/` (`panels/<step>/` for which="all"): a .npz for each network and kind,
    readers.csv, verdicts.csv, a figure for each kind, and a section of the run's page; and the questionnaire to panels.export.
    A panel that is there for the same settings and weights is not made again.

    Args:
      config: of a run on animals; the section `panels`, which `configs/relevance.py` has, else its defaults.
      workdir: the run's working directory, with checkpoints.
      which: "latest", "best", "all" or a step's number.
      required: whether it is an error where the stage relevance has not measured this network; if not, a line says so.

    Raises:
      ValueError: settings that cannot work, no such checkpoint, a network of other than two classes.
      MemoryError, OSError: memory or disk ran out.
    """
    check(config)
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)

    def work(net: Net, folder: pathlib.Path, step: int) -> None:
        # Readers are scored by what really reaches the network, which another stage measures.
        step_folder, blank = folder.relative_to(workdir / FOLDER), np.zeros(len(ATTRIBUTES), bool)
        # One process looks: the others may not see yet what it has just written.
        truth = _truth(config, workdir, step_folder, net) if processes.is_main() else None
        there = processes.agreed(truth is not None)
        truth = walk.told(blank if truth is None else truth, walk.chosen(None))
        if not there:
            sentence = "panels: --stage=relevance has not measured this network, by which readers of panels are scored"
            if required:
                raise ValueError(sentence)
            say.line(f"{sentence}; they are left out")
            return
        _step(config, workdir, folder, _networks(config, net, truth))

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, FOLDER, _ADVICE, work)


def check(config: Config) -> None:
    """Raises ValueError for settings that cannot work."""
    asked = panel_keys.of_config(config)
    relevance_keys.check_section(config, panel_keys.SECTION, asked, panel_keys.KEYS)
    checks.choice("panels.method", asked.method, METHODS)
    if asked.rows >= asked.pool:
        raise ValueError(
            f"panels.pool must be above panels.rows, because each reader is shown other rows of it; got {asked.pool} and "
            f"{asked.rows}"
        )
    if asked.export and not questionnaire.paragraphs(asked.consent):
        raise ValueError(
            "panels.export needs panels.consent, a text file with words that people agree to; got "
            f"{asked.consent!r}"
        )
    # Said before an evaluator is trained, which takes minutes.
    if asked.unbiased and not checkpoint.steps_there(_folder(asked.unbiased)):
        sampler = animal_samplers.unbiased(config.data.animals.sampler, "independent")
        raise ValueError(
            f"panels.unbiased={asked.unbiased!r} has no checkpoints; --config=baseline:animals "
            f"--config.data.animals.sampler={sampler} trains such a network"
        )
    if _flows(asked):
        flow_training.check_side(asked.flow_side, config.data.size)


def _folder(path) -> pathlib.Path:
    return pathlib.Path(path).expanduser().absolute()


def _truth(config, workdir, step, net) -> np.ndarray | None:
    """Which attributes the stage relevance found relevant to the network, bool [10]; None where it has not looked at it."""
    path = relevance_result.folder_of(workdir) / step / relevance_result.FILE
    try:
        found = relevance_result.load(path)
    except ValueError:
        return None
    if found.settings.get("weights") != files.checksum(net.variables):
        return None
    asked = relevance_keys.of_config(config)
    given = {"tolerance": asked.tolerance, "replicates": asked.replicates, "seed": asked.seed}
    rows = {row.attribute: row for row in attribute_relevance.measure(found.pairs, **given)}
    return np.array([rows[name].relevant for name in ATTRIBUTES])


def _networks(config, net, truth) -> dict[str, Looked]:
    asked = panel_keys.of_config(config)
    blank = net.preprocess(np.zeros((config.data.size, config.data.size, 3), np.uint8))
    fresh = net.reinitialized(jax.random.key(asked.seed), blank)
    found = {
        TRAINED: Looked(net, truth),
        RANDOM: Looked(fresh, np.zeros(len(ATTRIBUTES), bool)),
    }
    if asked.unbiased:
        other = checkpoint.load(_folder(asked.unbiased))
        arms = np.array([name == "arm_position" for name in ATTRIBUTES])
        found[UNBIASED] = Looked(other, arms)
    else:
        say.line("panels: no network trained on unbiased animals stands beside (panels.unbiased)")
    return found


@dataclasses.dataclass(frozen=True)
class _Job:
    """What panels are made of.

    Attributes:
      config: of the run.
      networks: {name: Looked}.
      evaluator: reads their pictures.
      read: f(name of a network) -> Pictures, kept.
      labels: f() -> the classes of these pictures, int [N].
      flow: f() -> the flow, trained where it is not there.
    """

    config: Config
    networks: dict
    evaluator: Evaluator
    read: Callable
    labels: Callable
    flow: Callable

    def settings(self, name: str, kind: str) -> dict:
        """All that decides a panel and its readings, as JSON has it."""
        asked, wanted = panel_keys.of_config(self.config), entries.keywords(PANELS[kind])
        names = ["split", "images", "pool", "seed"]
        # Only what this kind of panel looks at: another method makes no other grid of plain pictures.
        names += [n for n in ("method", "factorization", "layer") if n in wanted]
        names += ["concepts"] * ("count" in wanted)
        names += ["flow_side", "flow_steps", "flow_batch", "flow_lr"] * ("flow" in wanted)
        settings = {
            "kind": kind,
            "weights": files.checksum(self.networks[name].net.variables),
            "evaluator": files.checksum(self.evaluator.net.variables),
            "centered": name == RANDOM,
            "animals": self.config.data.animals.to_dict(),
            "size": self.config.data.size,
            "precision": self.config.precision,
        }
        settings |= {n: asked[n] for n in names}
        return json.loads(json.dumps(settings))

    def pictures(self, name: str) -> tuple[Pictures, float]:
        """The images with what a network says of them, and what was taken from its logits: of random weights the median."""
        found = self.read(name)
        # Their bias decides nothing that a panel should show.
        shift = np.float32(np.median(found.logits) if name == RANDOM else 0)
        return dataclasses.replace(found, logits=found.logits - shift), float(shift)

    def make(self, name: str, kind: str) -> Kept:
        """A panel with all of its rows, and what the evaluator reads off it."""
        say.line(f"panels: {kind}, {name}")
        asked, wanted = panel_keys.of_config(self.config), entries.keywords(PANELS[kind])
        pictures, shift = self.pictures(name)
        offered = {
            "rows": asked.pool,
            "method": asked.method,
            "factorization": asked.factorization,
            "count": asked.concepts,
            "layer": asked.layer,
            "shift": shift,
            "render": renderer(self.config),
        }
        # What a kind of panel needs it says in its signature.
        given = {option: value for option, value in offered.items() if option in wanted}
        given |= {n: getattr(self, n)() for n in ("flow", "labels") if n in wanted}
        key = jax.random.key(asked.seed)
        panel = PANELS[kind](self.networks[name].net, pictures, key, **given)
        values = reading.read(panel, reader_of(self.evaluator))
        return Kept(panel, values, self.settings(name, kind))


def _job(config, folder, networks) -> _Job:
    asked = panel_keys.of_config(config)
    dataset = data.open_source(config.data[f"{asked.split}_split"], config)
    # Before the evaluator is trained, which takes longer than all panels.
    for looked in networks.values():
        _check_net(asked, looked.net, dataset[0]["image"])
    training = flow_training.Training(asked.flow_steps, asked.flow_batch, asked.flow_lr, asked.seed)

    def read(name: str) -> Pictures:
        return seen.read_pictures(networks[name].net, dataset, max_images=asked.images)

    def labels() -> np.ndarray:
        return np.array([dataset[int(i)]["label"] for i in seen.indices_of(dataset, asked.images)])

    def flow() -> Flow:
        source = data.open_source(config.data.train_split, config, annotations=False)
        told = config.data.animals.to_dict()
        path = folder / "flow.npz"
        return flow_training.keep_flow(path, source, asked.flow_side, training, told)

    evaluator = evaluator_training.keep(config)
    # Computed when a panel first asks, as all of them may be there already; then kept for the others.
    kept = functools.cache(read), labels, functools.cache(flow)
    return _Job(config, networks, evaluator, *kept)


def _check_net(asked, net, image):
    """Raises ValueError for what the panels would ask of a network in vain."""
    seen.check_net(net, image[None])
    if not any("factorization" in entries.keywords(PANELS[kind]) for kind in asked.kinds):
        return
    view = net.preprocess(image)
    shapes = map_shapes(net, view)
    checks.choice("panels.layer", asked.layer, ("", *shapes))
    layer = cam_layer(net, view, asked.layer)
    checks.count("panels.concepts", asked.concepts, 2, shapes[layer][2])
    if asked.factorization == "nmf" and seen.activations(net, image[None], layer).min() < 0:
        raise ValueError(
            f"panels.factorization=nmf needs a layer without negative activations, as after a ReLU, and {layer} has some; "
            "name another panels.layer, or use pca"
        )


def _step(config, workdir, folder, networks):
    asked, job = panel_keys.of_config(config), _job(config, folder, networks)
    kept: dict[tuple[str, str], Kept] = {}
    for name in networks:
        for kind in asked.kinds:
            if name != TRAINED and kind in _flows(asked):
                continue  # what a flow costs is paid once
            kept[name, kind], _ = stored.keep(
                folder / f"{_FILES[name]}_{kind}.npz",
                job.settings(name, kind),
                load=kept_panels.load,
                make=functools.partial(job.make, name, kind),
                save=kept_panels.save,
            )
    pictures = job.pictures(TRAINED)[0] if asked.export else None
    if processes.is_main():
        truths = {name: looked.truth for name, looked in networks.items()}
        panel_section.write(config, workdir, folder, kept, truths, job.evaluator)
        if pictures:
            panel_section.export(config, kept, pictures)
    devices_lib.barrier(FOLDER)


def _flows(asked) -> tuple[str, ...]:
    """The kinds that a flow makes."""
    return tuple(kind for kind in asked.kinds if "flow" in entries.keywords(PANELS[kind]))


def renderer(config: Config) -> Callable:
    """f(attributes [n,10]) -> uint8 [n,S,S,3], pictures of animals as a config's are."""
    sampler, size = animal_samplers.SAMPLERS[config.data.animals.sampler], config.data.size

    def render(values: np.ndarray) -> np.ndarray:
        scenes = (Animal(0, *map(float, row)) for row in values)
        return np.stack([animal_drawing.picture(one, size, sampler)[0] for one in scenes])

    return render


def reader_of(evaluator: Evaluator) -> Callable:
    """f(images uint8 [N,S,S,3]) -> [N,10] of an `Evaluator`."""

    def read(images: np.ndarray) -> np.ndarray:
        return evaluator.read([{"image": image} for image in images])[0]

    return read


STAGE = Stage(
    run,
    check,
    "explanations by pictures, and a simulated reader of them (configs/relevance.py)",
    keys=(f"{panel_keys.SECTION}.", f"{relevance_keys.SECTION}."),
)
