"""How well a decoder reads: wrong bits of 12, by what makes markers hard to read, and by how sure the decoder is.

RenderGAN (Sixt, Wild and Landgraf 2018, arXiv 1611.01331, section 5) reports the mean number of wrong bits. Everything is
counted over the bits that are known; the number of wrong ones is in proportion to 12.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import stats, walk
from mixaug_jax.core.types import Config, Dataset, Devices, Float, Net
from mixaug_jax.data.markers.tags import BITS
from mixaug_jax.explain.examples import on_devices
from mixaug_jax.models import probability

HARD = ("hidden", "tilt", "light")  # of an example; numbers that thirds are told by
THRESHOLDS = tuple(np.round(np.linspace(0, 0.95, 20), 2).tolist())


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a decoder says of N pictures, in the order of the data set.

    Attributes:
      probabilities: float32 [N,12], of each bit to be 1.
      targets: float32 [N,12], the bits.
      weights: float32 [N,12], 0 where a bit is not known.
      hard: float32 [N,3], the `HARD` numbers, NaN where the data set does not tell.
    """

    probabilities: Float[np.ndarray, "N K"]
    targets: Float[np.ndarray, "N K"]
    weights: Float[np.ndarray, "N K"]
    hard: Float[np.ndarray, "N 3"]

    @property
    def wrong(self) -> np.ndarray:
        """[N] wrong bits of 12; NaN where no bit is known."""
        off = ((self.probabilities > 0.5) != (self.targets > 0.5)) * self.weights
        known = self.weights.sum(1)
        return np.where(known > 0, BITS * off.sum(1) / np.maximum(known, 1), np.nan)

    @property
    def confidence(self) -> np.ndarray:
        """[N] in 0..1: how far the least sure bit is from even odds."""
        return 2 * np.abs(self.probabilities - 0.5).min(1)


def read(net: Net, source: Dataset, config: Config, devices: Devices = None) -> Reading:
    """A network's reading of every picture of a data set, on all devices of all processes.

    Args:
      net: with 12 logits, trained with train.loss="sigmoid".
      source: examples with image and targets.
      config: with eval.batch_size and data.threads.
      devices: None: all.
    """
    devices = walk.chosen(devices)
    own, placed = walk.own(devices), on_devices(net, devices)
    rows = walk.read_ahead(
        functools.partial(_row, source, net.preprocess),
        walk.share(len(source), devices),
        config.data.threads,
    )
    report = walk.progress("reading", len(source), devices)
    found, done = [], 0
    batch = max(1, config.eval.batch_size // len(devices))
    for start, stop, size in walk.spans(len(source), batch, devices):
        # Of the first picture the shapes alone, where a process has none.
        taken = [next(rows) for _ in range(stop - start)] or [_row(source, net.preprocess, 0)]
        part = {name: np.stack([row[name] for row in taken])[: stop - start] for name in taken[0]}
        images = devices_lib.shard_batch(walk.pad_rows(part.pop("image"), size), own)
        given = np.asarray(_program(own)(placed, images))
        found.append(part | {"probabilities": given[: stop - start]})
        done += stop - start
        report(done)
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return Reading(**walk.gather(columns, len(source), devices))


def _row(source, preprocess, index) -> dict:
    example = source[int(index)]
    targets = np.asarray(example["targets"], np.float32)
    return {
        "image": np.asarray(preprocess(example["image"])),
        "targets": targets,
        "weights": np.asarray(example.get("weights", np.ones_like(targets)), np.float32),
        "hard": np.float32([example.get(name, np.nan) for name in HARD]),
    }


@functools.lru_cache(maxsize=8)
def _program(devices):
    def answers(net: Any, images: Any):
        return probability.probabilities(net, net.logits(images))

    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    return devices_lib.pmap_inference(answers, specs, devices_lib.SHARDED, devices=devices)


def summary(found: Reading) -> list[tuple]:
    """Rows (name, value, low, high, pictures): wrong bits, their share, ids that are right, the surer half, and the thirds.

    Intervals are over pictures. Thirds are of each of `HARD`, the hardest first for what is hidden and tilted, and the darkest.
    """
    wrong = found.wrong
    rows = [_mean("wrong bits of 12", wrong, (0, BITS))]
    rows.append(_mean("bits right", 1 - wrong / BITS, (0, 1)))
    rows.append(_mean("all bits right", np.where(np.isnan(wrong), np.nan, wrong == 0), (0, 1)))
    order = np.argsort(-found.confidence, kind="stable")
    surer = order[: (len(order) + 1) // 2]
    rows.append(_mean("wrong bits, the surer half", wrong[surer], (0, BITS)))
    for k, name in enumerate(HARD):
        value = found.hard[:, k]
        if not np.isfinite(value).all():
            continue
        # Much of anything makes a marker hard to read, but for light, of which little does.
        order = np.argsort(value if name == "light" else -value, kind="stable")
        for which, part in zip(
            ("hardest", "middle", "easiest"), np.array_split(order, 3), strict=True
        ):
            rows.append(_mean(f"wrong bits, {name}, the {which} third", wrong[part], (0, BITS)))
    return rows


def _mean(name, values, scale):
    return (name, *stats.mean_interval(values, scale))


def curve(found: Reading) -> list[tuple]:
    """Rows (threshold, kept, wrong, low, high): of the pictures whose confidence is at least a threshold, their share and wrong
    bits; NaN where none is left."""
    wrong, sure = found.wrong, found.confidence
    rows = []
    for threshold in THRESHOLDS:
        kept = sure >= threshold
        mean, low, high, _ = stats.mean_interval(wrong[kept], (0, BITS))
        rows.append((threshold, float(kept.mean()), mean, low, high))
    return rows
