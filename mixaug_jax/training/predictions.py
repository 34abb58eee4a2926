"""What a network says of every image of the split that it is tested on: `<workdir>/predictions.npz`."""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import data
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import say, stored, walk
from mixaug_jax.core.files import checksum, load_npz, save_npz
from mixaug_jax.core.frames import frame, names_of
from mixaug_jax.core.types import Config, Count, Dataset, Float, Int, Net, Path
from mixaug_jax.data.source import numbered_as
from mixaug_jax.models import imagenet, probability
from mixaug_jax.models.net import count_classes, input_shape
from mixaug_jax.training import checkpoint

FILE = "predictions.npz"
_ROWS = 32  # images at once on a device, however many devices there are: the same program makes the same file
_TOP = 2  # classes that are kept with their probabilities


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Of N images, in the order of the data set, the same in every run on it.

    Attributes:
      indices: int32 [N], of the images in the split.
      label: int32 [N], the true class.
      predicted: int32 [N], the class with the largest logit.
      probability: float32 [N] in 0..1, of the true class.
      top: int32 [N,T], the classes with the two largest logits, largest first; T is 2.
      top_probability: float32 [N,T], their probabilities.
      targets: float32 [N,K], what each image shows, where an image may show several classes; else [N,0].
      settings: what made this, as JSON has it: "split", the name of the "data", checksums of the "weights" and of some
        "examples", among others.
    """

    indices: Int[np.ndarray, " N"]
    label: Int[np.ndarray, " N"]
    predicted: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, " N"]
    top: Int[np.ndarray, "N T"]
    top_probability: Float[np.ndarray, "N T"]
    targets: Float[np.ndarray, "N K"]
    settings: dict

    @property
    def accuracy(self) -> float:
        """The share of images whose predicted class is the true one, 0..1."""
        return float((self.predicted == self.label).mean())

    def to_frame(self, dataset: Dataset = ()) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each image: its index and the name of its file, the true class
        with its probability, the predicted one with its, and whether they are equal.

        Args:
          dataset: the split, for the names of files and classes; () leaves out the former, and has numbers for the latter.
        """
        classes = imagenet.readable(getattr(dataset, "class_names", ()))

        def named(labels: np.ndarray) -> Any:
            return [classes[label] for label in labels] if len(classes) else labels

        return frame(
            {
                "image": self.indices,
                "file": names_of(dataset, self.indices),
                "label": named(self.label),
                "probability": self.probability,
                "predicted": named(self.predicted),
                "top_probability": self.top_probability[:, 0],
                "right": self.predicted == self.label,
            }
        )


def load(path: Path) -> Predictions:
    """The predictions in a file, or in the working directory that holds it.

    Raises:
      ValueError: no such file, or another kind of file.
    """
    path = pathlib.Path(path)
    return load_npz(
        path / FILE if path.is_dir() else path,
        lambda arrays, settings: Predictions(**arrays, settings=settings),
        "predictions",
    )


def keep(workdir: Path, net: Net, source: Dataset, config: Config, split: str) -> Predictions:
    """The predictions in a working directory; made where they are not there, are damaged, or are of another network.

    Args:
      workdir: where `predictions.npz` is.
      net: with a copy of its variables on every device.
      source: the examples, as `data.Source`.
      config: with eval.batch_size, data.threads, data.name, precision and deterministic; of the run.
      split: what `source` is, "test" or "validation".
    """
    path = pathlib.Path(workdir) / FILE
    settings = _settings(net, source, config, split)

    def save(found: Predictions, path: Path) -> None:
        arrays = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
        del arrays["settings"]
        save_npz(path, arrays, settings)

    def make() -> Predictions:
        return _predicted(net, source, config, settings)

    found, _ = stored.keep(path, settings, load=load, make=make, save=save)
    devices_lib.barrier("predictions written")
    return load(path) if found is None else found


def keep_given(workdir: Path, config: Config) -> None:
    """`keep` for a network that was not trained in its working directory; says why where that cannot be.

    Args:
      workdir: with a checkpoint.
      config: whose data the network is tested on.
    """
    split = "test" if config.data.test_split else "validation"
    name = config.data[f"{split}_split"]
    try:
        if not name:
            raise ValueError("data.test_split and data.validation_split are both empty")
        net = checkpoint.load(workdir)
        classes = count_classes(net, input_shape(net.preprocess))
        source = numbered_as(data.open_source(name, config, annotations=False), classes)
        if classes != source.num_classes:
            raise ValueError(
                f"the network has {classes} classes and the data set {source.num_classes}"
            )
    # An import of other classes is no error: explanations and concepts need no labels.
    except ValueError as error:
        say.line(f"predictions: left out, because {error}")
        return
    with devices_lib.applied(config):
        found = keep(workdir, net, source, config, split)
    say.line(f"{split} accuracy {found.accuracy:.4f} ({len(found.indices)} images)")


def _settings(net, source, config, split) -> dict:
    # Eight images tell another data set, or another view of it, without reading all of them.
    probed = [source[int(i)] for i in walk.spread(len(source), 8)]
    seen = [(net.preprocess(example["image"]), np.int64(example["label"])) for example in probed]
    settings = {
        "model": net.name,
        "weights": checksum(net.variables),
        "view": repr(net.preprocess),
        "data": config.data.name,
        "split": split,
        "images": len(source),
        "examples": checksum(seen),
        "precision": config.precision,
        "rows": min(_ROWS, config.eval.batch_size),
    }
    return json.loads(json.dumps(settings))


def _answers(net, batch) -> dict:
    """One device's share, gathered from all devices."""
    given = net.logits(batch["image"]).astype(jnp.float32)
    logits, probabilities = probability.class_logits(given), probability.probabilities(net, given)
    _, top = jax.lax.top_k(logits, min(_TOP, logits.shape[-1]))
    # Of logits, since probabilities near 1 are equal where logits are not.
    chosen = jnp.concatenate([batch["label"][:, None], top], -1)
    of_chosen = jnp.take_along_axis(probabilities, chosen, -1)
    found = {
        "label": batch["label"],
        "predicted": top[:, 0],
        "probability": of_chosen[:, 0],
        "top": top,
        "top_probability": of_chosen[:, 1:],
        "targets": batch["targets"],
    }
    return jax.lax.all_gather(found, devices_lib.AXIS, tiled=True)


def _predicted(net, source, config, settings) -> Predictions:
    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    answers = devices_lib.pmap(
        _answers, specs, devices_lib.REPLICATED, deterministic=config.deterministic
    )
    found = []
    report = say.progress("predictions", len(source))
    for count, batch in _batches(net, source, settings["rows"], config.data.threads):
        given = jax.device_get(answers(net, devices_lib.shard_batch(batch)))
        found.append({name: values[:count] for name, values in given.items()})
        report(sum(len(part["label"]) for part in found))
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return Predictions(indices=np.arange(len(source), dtype=np.int32), **columns, settings=settings)


def _batches(net, source, rows: Count, threads: Count) -> Iterator[tuple[int, dict]]:
    """(images of all processes, this process's rows, padded), in the order of the data set."""

    def read(index: int) -> dict:
        example = source[index]
        return {
            "image": np.asarray(net.preprocess(example["image"])),
            "label": np.int32(example["label"]),
            "targets": np.asarray(example.get("targets", ()), np.float32),
        }

    local = rows * jax.local_device_count()
    first, total = local * jax.process_index(), rows * jax.device_count()
    chunks = [
        range(start, min(start + total, len(source))) for start in range(0, len(source), total)
    ]
    own = [chunk[first : first + local] for chunk in chunks]
    examples = walk.read_ahead(read, itertools.chain.from_iterable(own), threads)
    # The shape of rows where a process has none: of a first example, whose values do not count.
    blank = functools.cache(lambda: read(0))
    for chunk, mine in zip(chunks, own, strict=True):
        read_now = list(itertools.islice(examples, len(mine)))
        padded = read_now + [blank()] * (local - len(mine))
        yield len(chunk), {name: np.stack([row[name] for row in padded]) for name in padded[0]}
