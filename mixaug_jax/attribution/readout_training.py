"""Training of the readout bottleneck, on all devices of all processes; a run that was killed goes on to the same bits."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixaug_jax.attribution import layer_statistics, readout_files, target
from mixaug_jax.attribution import readout as readout_lib
from mixaug_jax.attribution.bottleneck import VARIANTS
from mixaug_jax.attribution.readout import CLAMPS, HIDDEN, SHUT, Readout
from mixaug_jax.attribution.readout_files import MEASURES, Progress
from mixaug_jax.core import checks, files, processes, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Dataset, Devices, Features, Images, Net, Path, Tree

TARGETS = ("label", "predicted")
SAVED_EVERY = 50  # steps
NOTHING: Mapping = {}


@dataclasses.dataclass(frozen=True)
class Training:
    """How a readout bottleneck is trained.

    Attributes:
      layers: that are read, noise goes into the first; () see `readout.readout_layers`.
      variant: "paper" or "library", see `readout.iba_readout`.
      hidden: units of the second convolution, "quarter" or "double" the bottleneck's channels.
      sigma: of the Gaussian that smooths the mask, in cells; 0 is none. The library's is 1; the paper's code has a quarter of
        its number of taps.
      clamp: what becomes of negative values of the bottleneck, see `readout.noisy`.
      beta: weight of the capacity's mean over the cells, nats.
      lr: of Adam. The published 1e-5 moves nothing within a few hundred steps.
      epochs: of the images; the number of steps follows.
      steps: in their place; 0: as epochs say.
      batch_size: images of a step, over all devices.
      stat_images: at most so many, of which the statistics are.
      target: the class whose cross-entropy is kept low, the data's "label" (without labels the predicted one) or the
        "predicted" one.
      seed: of the first weights, the order of the images and the noise.
    """

    layers: tuple[str, ...] = ()
    variant: str = "paper"
    hidden: str = "quarter"
    sigma: float = 0.0
    clamp: str = "published"
    beta: float = 10.0
    lr: float = 1e-5
    epochs: int = 20
    steps: int = 0
    batch_size: int = 32
    stat_images: int = 10000
    target: str = "label"
    seed: int = 0

    def __post_init__(self):
        checks.choice("variant", self.variant, VARIANTS)
        checks.choice("hidden", self.hidden, HIDDEN)
        checks.choice("clamp", self.clamp, CLAMPS)
        checks.choice("target", self.target, TARGETS)
        for name in ("sigma", "beta", "lr"):
            checks.not_negative(name, getattr(self, name))
        for name, least in (
            ("epochs", 0),
            ("steps", 0),
            ("batch_size", 1),
            ("stat_images", 2),
            ("seed", 0),
        ):
            checks.count(name, getattr(self, name), least)

    def length(self, images: int) -> int:
        """The number of steps on so many images."""
        return self.steps or self.epochs * max(1, images // self.batch_size)


# Enough for small networks on a CPU; the published rate moves nothing in so few steps.
QUICK = Training(beta=0.3, lr=1e-3, steps=300, stat_images=1000)


class Pictures(NamedTuple):
    """What a readout bottleneck is trained on.

    Attributes:
      read: f(index) -> (image [h,w,C] preprocessed, label).
      count: of images.
      threads: that read them.
      devices: None: all of all processes.
    """

    read: Callable
    count: int
    threads: int = 4
    devices: Devices = None

    def image(self) -> np.ndarray:
        """The first image."""
        return self.read(0)[0]


def train_readout(
    net: Net,
    dataset: Dataset,
    training: Training = Training(),
    *,
    path: Path = "",
    extra: Mapping = NOTHING,
    threads: int = 4,
    devices: Devices = None,
) -> Readout:
    """Trains a readout bottleneck for a network, whose own weights stay as they are (Schulz et al. 2020, arXiv 2001.00396).

    The loss is cross-entropy plus beta times the mean capacity, of images with one draw of noise each, the network in its
    evaluation mode. The library's notebook compares every image with every label of the batch and leaves dropout on; this does
    neither.

    Args:
      net: the network.
      dataset: examples with image uint8 [H,W,3] and, for target="label", label; where the first one has none, the predicted
        class is the target, which is said.
      training: how.
      path: of a .npz to keep the result in, and every `SAVED_EVERY` steps what is needed to go on; what is there already for
        the same settings and weights is not trained again. "": of none.
      extra: what else belongs to the settings in that file.
      threads: that read images.
      devices: default all of all processes.

    Raises:
      ValueError: settings that do not fit the network, or fewer than two images.
      FloatingPointError: a loss that is not finite.
    """
    _check_count(len(dataset))
    if training.target == "label" and "label" not in dataset[0]:
        say.line("readout bottleneck: the data has no labels; the predicted class is the target")
        training = dataclasses.replace(training, target="predicted")

    def read(index: int):
        example = dataset[index]
        return net.preprocess(example["image"]), example.get("label", 0)

    pictures = Pictures(read, len(dataset), threads, devices)
    return fit(net, pictures, training, path=path, extra=extra)


def _check_count(images):
    if images < 2:
        raise ValueError(f"a readout bottleneck needs at least 2 images; got {images}")


def fit(
    net: Net, pictures: Pictures, training: Training, *, path: Path = "", extra: Mapping = NOTHING
) -> Readout:
    """`train_readout` on pictures that need be no data set."""
    _check_count(pictures.count)
    pictures = pictures._replace(devices=walk.chosen(pictures.devices))
    image = jax.ShapeDtypeStruct(np.shape(pictures.image()), np.float32)
    layers = readout_lib.readout_layers(net, image, training.layers)
    settings = {"images": pictures.count, "image": list(image.shape), **extra}
    settings |= _settings(net, training, layers, training.length(pictures.count))
    if path:
        # Other images under the same name are other data.
        settings["pixels"] = walk.fingerprint(pictures.read, pictures.count, pictures.devices)
    # A training that was stopped goes on from its file; one of other settings begins anew.
    found = files.load_if(readout_files.load_progress, path, settings) if path else None
    if path and walk.together(pictures.devices):
        processes.compare_views(path, {"step": found.step if found else 0})
    if found and found.step == settings["length"]:
        return found.readout
    # Only now, as a finished readout needs no device.
    net = devices_lib.replicate(net, pictures.devices)
    if found is None:
        stats = _statistics(net, pictures, training, layers)
        key = jax.random.key(training.seed)
        params = readout_lib.init(key, net, image, layers, training.hidden)
        blank = Readout(
            params, stats, layers, training.variant, float(training.sigma), settings["weights"]
        )
        found = Progress(
            0,
            blank,
            optax.adam(training.lr).init(params),
            np.zeros((0, len(MEASURES)), np.float32),
            settings,
        )
    say.line(
        f"readout bottleneck: noise in {layers[0]}, reading {', '.join(layers)}; {settings['length']} steps of "
        f"{training.batch_size} of {pictures.count} images, beta {training.beta:g}"
    )
    found = _train(net, pictures, training, found, path)
    say.line(outcome(found.history, found.readout))
    return found.readout


def outcome(history: np.ndarray, readout: Readout) -> str:
    """A training in words, with a warning where nothing passes any more.

    Args:
      history: float32 [steps,4], `MEASURES` of each step.
      readout: the result.
    """
    if not len(history):
        return "no step was trained: the readout bottleneck is as it was drawn"
    # Single steps are noisy: means over the first and the last twentieth.
    few = max(1, len(history) // 20)
    bits = history[:, 2] * readout.stats[0][0].size / math.log(2)
    clean, ce = history[-few:, :2].mean(0)
    text = (
        f"readout bottleneck: {bits[:few].mean():.0f} -> {bits[-few:].mean():.0f} bits an image, cross-entropy {ce:.3f} "
        f"(without noise {clean:.3f}), lambda {history[-few:, 3].mean():.3f}"
    )
    if history[-few:, 3].mean() < SHUT:
        text += "; the bottleneck is shut: its maps say nothing; lower readout.beta or readout.lr"
    return text


def _settings(net, training, layers, steps):
    return {
        **dataclasses.asdict(training),
        "layers": list(layers),
        "length": steps,
        "model": net.name,
        "weights": files.checksum(net.variables),
        "view": repr(net.preprocess),
    }


def _statistics(net, pictures, training, layers):
    """(mean, std, active) of each layer; each process reads its share, and all devices work on each step."""
    devices, chosen = pictures.devices, walk.spread(pictures.count, training.stat_images)
    own = walk.share(len(chosen), devices)
    found, program = layer_statistics.Moments(), _moments_program(layers, devices)
    indices = [int(chosen[k]) for k in own]
    reading = walk.read_ahead(lambda index: pictures.read(index)[0], indices, pictures.threads)
    report = say.progress("statistics", len(own))
    size = max(1, training.batch_size // len(devices))
    for start, stop, rows in walk.spans(len(chosen), size, devices):
        batch = [next(reading) for _ in range(start, stop)]
        shape = batch[0].shape if batch else pictures.image().shape
        # All processes run as many steps of one shape; rows that are no image do not count.
        filled = np.zeros((rows, *shape), np.float32)
        filled[: len(batch)] = batch if batch else 0
        given = devices_lib.shard_batch((filled, np.arange(rows) < len(batch)), devices)
        found = found.joined(jax.device_get(program(net, *given)))
        report(stop)
    return tuple(found.statistics(name, training.variant) for name in layers)


@functools.lru_cache(64)
def _moments_program(layers, devices):
    def step(net: Net, images: Images, real: Any) -> Tree:
        return layer_statistics.moments(net, images, real, layers, devices_lib.AXIS)

    specs = (devices_lib.REPLICATED, devices_lib.SHARDED, devices_lib.SHARDED)
    return devices_lib.pmap_inference(step, specs, devices_lib.REPLICATED, devices=devices)


def _train(net, pictures, training, found, path):
    """The training from where it is to its end."""
    steps = training.length(pictures.count)
    program = _step_program(training, found.readout.layers, pictures.devices)
    carry = devices_lib.replicate((found.readout, found.opt_state), pictures.devices)
    history, report = list(found.history), say.progress("readout bottleneck", steps, "steps")
    for step, batch in _batches(pictures, training, range(found.step, steps)):
        (readout, opt_state), measured = program(net, *carry, np.uint32(step), batch)
        carry = readout, opt_state
        history.append(np.asarray(jax.device_get(measured)))
        # Before anything is stored, so that what is on the disk can be gone on from.
        if not np.isfinite(history[-1]).all():
            raise FloatingPointError(
                f"the readout bottleneck's loss is not finite in step {step}; lower readout.lr"
            )
        report(step + 1)
        if step + 1 == steps or (path and (step + 1) % SAVED_EVERY == 0):
            found = Progress(step + 1, *jax.device_get(carry), np.stack(history), found.settings)
            if path and processes.is_main():
                readout_files.save_progress(found, path)
    return found


def _batches(pictures, training, steps) -> Iterator:
    """(step, batch on the devices) of each of `steps`: what is drawn follows from the seed and the step alone."""
    read, count, threads, devices = pictures
    size = min(training.batch_size, count)
    own = walk.share(size, devices)
    ((_, _, rows),) = walk.spans(size, size, devices)

    def load(step: int):
        indices = order(count, size, step, training.seed)[own.start : own.stop]
        return step, indices, [read(int(i)) for i in indices]

    for step, indices, examples in walk.read_ahead(load, steps, threads):
        pixels = (
            np.stack([image for image, _ in examples])
            if examples
            else np.zeros((0, *pictures.image().shape), np.float32)
        )
        batch = {"image": pixels.astype(np.float32), "index": indices.astype(np.int32)}
        batch["label"] = np.asarray([label for _, label in examples], np.int32)
        # Padding makes these rows False with all others 0.
        batch["real"] = np.ones(len(examples), bool)
        padded = {name: walk.pad_rows(values, rows) for name, values in batch.items()}
        yield step, devices_lib.shard_batch(padded, devices)


def order(images: int, size: int, step: int, seed: int) -> np.ndarray:
    """The indices of a step's images, int64 [size]: each image once in an epoch, which ends where less than a batch is left."""
    per_epoch = max(1, images // size)
    draw = np.random.Generator(np.random.Philox(key=[seed, step // per_epoch]))
    start = step % per_epoch * size
    return draw.permutation(images)[start : start + size]


@functools.lru_cache(64)
def _step_program(training, layers, devices):
    def step(net: Net, readout: Readout, opt_state: Any, number: Any, batch: dict) -> Tree:
        return train_step(net, readout, opt_state, number, batch, training)

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    specs = (whole, whole, whole, whole, split)
    return devices_lib.pmap(step, specs, (whole, whole), devices=devices)


def train_step(
    net: Net, readout: Readout, opt_state: Any, number: Any, batch: dict, training: Training
) -> Tree:
    """One step on a device's rows.

    Args:
      net, readout, opt_state: as they are before it; of Adam.
      number: of the step, which decides the noise.
      batch: image [B,h,w,C], index, label and real [B], this device's rows of one batch.
      training: how.

    Returns:
      (readout, opt_state) after the step, and float32 [4], `MEASURES` before it.
    """
    key = jax.random.fold_in(jax.random.key(training.seed), number)
    mean = readout.stats[0][0]

    def draw(index: Any) -> Features:
        return jax.random.normal(jax.random.fold_in(key, index), mean.shape)

    noise = jax.vmap(draw)(batch["index"])
    grads, measured = slopes(net, readout, batch, noise, training)
    # Sums, divided once by the real rows of all devices: any split of a batch gives the same step.
    grads, measured = jax.lax.psum((grads, measured), devices_lib.AXIS)
    count = jnp.maximum(measured[-1], 1)
    grads = jax.tree.map(lambda g: g / count, grads)
    updates, opt_state = optax.adam(training.lr).update(grads, opt_state)
    readout = dataclasses.replace(readout, params=optax.apply_updates(readout.params, updates))
    return (readout, opt_state), measured[:-1] / count


def slopes(
    net: Net, readout: Readout, batch: dict, noise: Features, training: Training
) -> tuple[Tree, Any]:
    """The gradient of the loss, summed over the real images of a batch, and sums of `MEASURES` and of the images, [5]."""
    features = net.capture(batch["image"], readout.layers)
    maps = readout_lib.standardized(features, readout)
    # On from the last one that is read, which need not give the logits.
    last = max(readout.layers, key=net.layers.index)
    clean = net.logits(batch["image"], layer=last, value=features[last])
    labels = batch["label"]
    if training.target == "predicted":
        labels = target.probability.predicted(clean).astype(jnp.int32)

    def loss(params: Tree):
        now = dataclasses.replace(readout, params=params)
        # Recomputed on the way back: its hidden maps are larger than the network's own.
        alpha = jax.checkpoint(readout_lib.alphas)(now, maps)
        found = readout_lib.capacities(now, features, alpha)
        layer = readout.layers[0]
        z = readout_lib.noisy(now, found, noise, features[layer], training.clamp)
        ce = _cross_entropy(net, net.logits(batch["image"], layer=layer, value=z), labels)
        each = [_cross_entropy(net, clean, labels), ce]
        each += [found[name].mean((1, 2, 3)) for name in ("capacity", "lam")]
        sums = jnp.stack([jnp.sum(values, where=batch["real"]) for values in each])
        return sums[1] + training.beta * sums[2], sums

    (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(readout.params)
    return grads, jnp.append(sums, batch["real"].sum().astype(jnp.float32))


def _cross_entropy(net, logits, labels):
    one = functools.partial(target.select, net, output="loss")
    return jax.vmap(lambda row, label: one(row[None], label)[0])(logits, labels)
