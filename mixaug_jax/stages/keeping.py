"""`dissect` and `evaluate` from Python, whose results may be kept where the page of a run looks for them.

train(config, "runs/mine")
dissect(load("runs/mine"), dataset, ("layer4",), workdir="runs/mine")
write_report("runs/mine")
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mixaug_jax import config as config_lib
from mixaug_jax import dissection
from mixaug_jax.core import files, processes, walk
from mixaug_jax.core.types import Config, Dataset, Devices, Net, Path
from mixaug_jax.dissection import network
from mixaug_jax.dissection.concepts import LabelMaps
from mixaug_jax.dissection.result import Dissection
from mixaug_jax.explain import evaluation, running
from mixaug_jax.explain.evaluation import Evaluation
from mixaug_jax.explain.job import Options as Explaining
from mixaug_jax.explain.job import make_job
from mixaug_jax.stages import dissect as dissect_stage
from mixaug_jax.stages import explain as explain_stage

Options, Resources = dissection.Options, dissection.Resources


def dissect(
    net: Net,
    dataset: Dataset,
    layers: Sequence[str],
    options: Options = Options(),  # noqa: B008 (it is frozen)
    *,
    labels: LabelMaps | None = None,
    thresholds: network.Given | None = None,
    resources: Resources = Resources(),  # noqa: B008 (it is frozen)
    devices: Devices = None,
    workdir: Path = "",
) -> dict[str, Dissection]:
    """Network Dissection (Bau et al., arXiv 1704.05796) of layers of a network: `dissection.dissect`, and keeps what it finds.

    Args:
      net: `models.Net`, or anything with its `variables`, `preprocess`, `layers` and methods.
      dataset: examples with image uint8 [H,W,3] and concepts [H,W,K], and `concept_names`, as `data.Source`.
      layers: names of layers; each unit is a channel of the layer's output.
      options: what decides the results.
      labels: label maps made before with `make_label_maps`.
      thresholds: {layer: [U]} to use in place of the quantiles.
      resources: what it may take: a folder, disk, threads.
      devices: default all of all processes.
      workdir: of a run, which then holds the results in `dissection/`, with tables, pictures and figures, as after
        --stage=dissect; "" keeps nothing.

    Returns:
      {layer: Dissection}.

    Raises:
      ValueError: an unknown layer, no concepts, label maps that do not fit, activations that are not finite, or a workdir that
        is no run's.
    """
    given = {"thresholds": thresholds, "resources": resources, "devices": devices}
    if not workdir:
        return network.dissect(net, dataset, layers, options, labels=labels, **given)
    network.check_shared(labels, resources.folder, walk.chosen(devices))
    with _claimed(workdir) as config, tempfile.TemporaryDirectory() as scratch:
        # Made here, as the figures below need them, too.
        if labels is None:
            place = resources.folder or scratch
            labels = network.label_maps(net, dataset, place, options, resources, devices)
        found = network.dissect(net, dataset, layers, options, labels=labels, **given)
        folder = pathlib.Path(workdir).absolute() / "dissection"
        if processes.is_main():
            for layer, result in found.items():
                dissection.save(result, folder / f"{layer}.npz")
            # As after the stage, so that report and study find all that they look for.
            seen = (dataset, net.preprocess, labels)
            dissect_stage.keep(config, found, seen, folder, again=True)
    return found


def evaluate(
    net: Any,
    dataset: Any,
    *,
    methods: Iterable[str | Callable],
    scores: Iterable[str | Callable],
    options: Explaining = Explaining(),  # noqa: B008 (it is frozen)
    reference: Any = (),
    devices: Iterable | None = None,
    workdir: Path = "",
) -> dict[str, Evaluation]:
    """Methods, and the controls beside them, on the images of a data set, each by all scores, and keeps what it finds.

    In a job of several processes all of them call it alike; each reads and explains its share of the images, and all get the
    same results.

    Args:
      net: `models.Net`, or anything with its methods, `model`, `variables` and `preprocess`.
      dataset: examples with image uint8 [H,W,3], label and, for scores of alignment, boxes or concepts, as `data.Source`.
      methods: names in METHODS, or methods of your own; the controls are added.
      scores: names in SCORES, or scores of your own, a function or a `Score`.
      options: see `explain.Options`.
      reference: images that some methods look at besides; () is the data set itself. See `explain.running.evaluate`.
      devices: default all of all processes.
      workdir: of a run, which then holds the results in `attribution/`, with tables and figures, as after --stage=explain; ""
        keeps nothing.

    Returns:
      {name: Evaluation}, the controls last.

    Raises:
      ValueError: an unknown name, an option outside its values, a layer that the network does not have, scores of alignment
        where the data set tells no place of anything, or a workdir that is no run's.
    """
    if not workdir:
        asked = {"methods": methods, "scores": scores, "options": options, "reference": reference}
        return running.evaluate(net, dataset, **asked, devices=devices)
    with _claimed(workdir) as config:
        job = make_job(net, dataset, methods, scores, options)
        ready = running.prepare(net, dataset, job, reference, devices)
        found = ready.evaluated(net)
        folder = pathlib.Path(workdir).absolute() / "attribution"
        if processes.is_main():
            for name, result in found.items():
                evaluation.save(result, folder / f"{name}.npz")
            seen = (net, ready.dataset, ready.examples)
            explain_stage.keep(config, found, ready.job, seen, folder, again=True)
    return found


@contextmanager
def _claimed(workdir: Path) -> Iterator[Config]:
    """The settings of a run whose working directory nobody else writes to meanwhile."""
    folder = pathlib.Path(workdir).absolute()
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"workdir={str(workdir)!r} is no working directory of a run: `train` or `save` makes one"
        )
    config = config_lib.read(folder)
    with processes.claimed(folder / files.RUN_LOCK):
        yield config
