"""The stages `import` and `export`: released weights into a working directory, and a run's network out of it."""

import dataclasses
import hashlib
import os
import pathlib

import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax.config import brought
from mixaug_jax.core import say
from mixaug_jax.models import weights
from mixaug_jax.stages.base import Stage
from mixaug_jax.training import checkpoint


def import_run(config: ml_collections.ConfigDict, workdir: os.PathLike | str) -> None:
    """Writes the network in the file `config.weights` as checkpoint 0 of a working directory.

    Every later stage reads it as if it had been trained here: the architecture, the number of classes and the preprocessing are
    those of the file, whatever config.model and config.data say. Classes are called by their numbers.

    Args:
      config: from `get_config`, with `weights`.
      workdir: folder for the checkpoint; made where missing. The same file is not imported twice.

    Raises:
      ValueError: no such file, a file that is refused (see `import_weights`), or a working directory of another run.
      OSError: the disk is full.
    """
    config_lib.check(config)
    if not config.weights:
        raise ValueError("weights is empty: --stage=import needs --config.weights=FILE")
    found, net = weights.import_network(config.weights)
    # One logit tells two classes apart.
    classes = tuple(map(str, range(max(2, found.num_classes))))
    config = brought.noted(config_lib.resolve(config, train_size=0, class_names=classes))
    with config.unlocked():
        config.resolved.update(
            steps=0,
            weights_sha256=hashlib.sha256(pathlib.Path(config.weights).read_bytes()).hexdigest(),
            logits=found.num_classes,
            model={"name": found.name, "width": found.width, "stem": found.stem},
            preprocess=dataclasses.asdict(net.preprocess),
        )
    if _already_there(workdir, config):
        say.line(f"{config.weights} is imported already")
        return
    checkpoint.write_network(workdir, config, net.variables)
    say.line(
        f"{found.name}, {len(classes)} classes, width {found.width:g}, sees {net.preprocess}\n"
        f"checkpoint {checkpoint.folder(workdir) / '0'}"
    )


def _already_there(workdir, config) -> bool:
    if not checkpoint.folder(workdir).is_dir():
        return False
    checkpoint.check_settings(workdir, config)
    if config_lib.read(workdir).resolved.get("weights_sha256") != config.resolved.weights_sha256:
        raise ValueError(f"{workdir} holds a run of other weights; use another --workdir")
    return True


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
    weights.export_weights(checkpoint.load(workdir, step), path)
    say.line(f"weights {path}")
    return path


def _import(config, workdir, *, which: str = "latest", required: bool = True) -> None:
    import_run(config, workdir)


def _export(config, workdir, *, which: str = "latest", required: bool = True) -> None:
    export_run(workdir, which)


IMPORT = Stage(_import, config_lib.check, "PyTorch weights (config.weights) into checkpoint 0")
EXPORT = Stage(_export, config_lib.check, "a run's network as PyTorch weights")
