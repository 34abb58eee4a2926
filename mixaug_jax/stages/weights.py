"""The stages `import` and `export`: released weights into a working directory, and a run's network out of it."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax import models
from mixaug_jax.config import brought
from mixaug_jax.config.weight_keys import UNSET
from mixaug_jax.core import processes, say
from mixaug_jax.models import Assume, build, imagenet, views, weight_files, weights
from mixaug_jax.stages import imported_accuracy
from mixaug_jax.stages.base import Stage
from mixaug_jax.training import checkpoint


def import_run(config: ml_collections.ConfigDict, workdir: os.PathLike | str) -> None:
    """Writes the network in the file `config.weights` as checkpoint 0 of a working directory.

    Every later stage reads it as if it had been trained here: the architecture, the number of classes and the preprocessing are
    those of the file, whatever config.model and config.data say; what a file does not tell stands in config.assume and
    config.view. Classes are called by their numbers, ImageNet's by those
    of WordNet. Where the run's data have as many classes, the accuracy on some of their
    images is said, with a warning where it is no better than chance.

    Args:
      config: from `get_config`, with `weights`, and perhaps `weights_key`, `weights_check`, `assume` and `view`.
      workdir: folder for the checkpoint; made where missing. The same file is not imported twice.

    Raises:
      ValueError: no such file, a file that is refused (see `import_weights`), or a working directory of another run.
      OSError: the disk is full.
    """
    config_lib.check(config)
    if not config.weights:
        raise ValueError("weights is empty: --stage=import needs --config.weights=FILE")
    found, net = weights.import_network(
        config.weights,
        assume=Assume(**config.assume.to_dict()),
        view=config.view.preset,
        key=config.weights_key,
    )
    changes = {n: value for n, value in config.view.items() if n != "preset" and value != UNSET[n]}
    view = views.changed(net.preprocess, found, changes)
    net = dataclasses.replace(net, preprocess=view)
    said = [weights.compare_logits(net, config.weights_check)] if config.weights_check else []
    # A network of 1000 classes is one for ImageNet, whose folders are called by WordNet numbers.
    classes = imagenet.wnids() if found.num_classes == imagenet.CLASSES else ()
    # One logit tells two classes apart.
    classes = classes or tuple(map(str, range(max(2, found.num_classes))))
    settings = {"name": found.name, "width": found.width, "stem": found.stem}
    plain = build.made(models.MODELS[found.name], found.num_classes, settings)
    fields = build.unseen_fields(net.model, plain)
    config = brought.noted(config_lib.resolve(config, train_size=0, class_names=classes))
    with config.unlocked():
        config.resolved.update(
            steps=0,
            weights_sha256=_checksum(weight_files.files_of(config.weights)),
            logits=found.num_classes,
            # A file that this package wrote knows; of any other the settings say it.
            loss=net.loss if net.loss == "sigmoid" else config.train.loss,
            preprocess=dataclasses.asdict(net.preprocess),
        )
        # Put in its place, not merged: what training's settings say of a network is not said of this one.
        config.resolved.model = settings | ({"fields": fields} if fields else {})
    # One process looks, since it may be writing before another has looked.
    if processes.agreed(processes.is_main() and _already_there(workdir, config)):
        say.line(f"{config.weights} is imported already")
        return
    checkpoint.write_network(workdir, config, net.variables)
    say.line(
        f"{found.name}, {len(classes)} classes, width {found.width:g}, sees {net.preprocess}\n"
        f"checkpoint {checkpoint.folder(workdir) / '0'}"
    )
    for line in said:
        say.line(line)
    imported_accuracy.say_accuracy(net, config)


def _checksum(paths: Iterable[pathlib.Path]) -> str:
    """SHA-256 of files, one after the other."""
    running = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(2**20):
                running.update(piece)
    return running.hexdigest()


def _already_there(workdir, config) -> bool:
    if not checkpoint.folder(workdir).is_dir():
        return False
    checkpoint.check_settings(workdir, config)
    if config_lib.read(workdir).resolved.get("weights_sha256") != config.resolved.weights_sha256:
        raise ValueError(f"{workdir} holds a run of other weights; use another --workdir")
    return bool(checkpoint.steps_there(workdir))  # a damaged one is set aside


def export_run(workdir: os.PathLike | str, which: str = "latest") -> pathlib.Path:
    """Writes a run's network as `<workdir>/weights/<step>.safetensors`, under torchvision's names.

    Args:
      workdir: a run's working directory.
      which: "latest", "best" or a step's number.

    Raises:
      ValueError: no such checkpoint.
    """
    step = checkpoint.step_of(workdir, which)
    path = pathlib.Path(workdir).absolute() / "weights" / f"{step}.safetensors"
    path.parent.mkdir(exist_ok=True)
    net = checkpoint.load(workdir, step)
    if processes.is_main():
        weights.export_weights(net, path)
    say.line(f"weights {path}")
    return path


def _import(config, workdir, *, which: str = "latest", required: bool = True) -> None:
    import_run(config, workdir)


def _export(config, workdir, *, which: str = "latest", required: bool = True) -> None:
    export_run(workdir, which)


IMPORT = Stage(_import, config_lib.check, "PyTorch weights (config.weights) into checkpoint 0")
EXPORT = Stage(_export, config_lib.check, "a run's network as PyTorch weights")
