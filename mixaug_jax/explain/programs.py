"""Methods and scores as programs over many images: jitted, mapped over images and devices, a few images at a time.

One device's step holds `at_once` evaluations of the network: `rows` images, and for each of them the `chunk` that a function
works on at once. Programs are kept, so that another checkpoint of the same network compiles nothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import entries, say, walk
from mixaug_jax.core.types import Net, Seed
from mixaug_jax.scores.score import Score

_KEPT = 512  # programs of each kind, more than methods times scores of one; a study of many settings forgets the oldest


@dataclasses.dataclass(frozen=True)
class Task:
    """A program f(net, seed, arrays, rows) and what it takes besides the network and the rows.

    Attributes:
      program: mapped over the devices; its results have a row for each row.
      devices: those.
      seed: of what it draws.
      arrays: options that are arrays.
      rows: how many a device takes at once.
    """

    program: Callable
    devices: tuple
    seed: int
    arrays: dict
    rows: int

    def run(self, net: Net, rows: Mapping, title: str):
        """The results for all rows {name: [N, ...]}, numpy [N, ...] or a dict of such; says how far it is."""
        total = len(next(iter(rows.values())))
        step = self._step(total)
        report, found = say.progress(title, total), []
        arrays = devices_lib.replicate(self.arrays, self.devices)  # once, not with every step
        for start in range(0, total, step):
            # Padded, since a shorter last batch would compile the program again.
            batch = {k: walk.pad_rows(v[start : start + step], step) for k, v in rows.items()}
            batch = devices_lib.shard_batch(batch, self.devices)
            done = jax.device_get(self.program(net, np.uint32(self.seed), arrays, batch))
            found.append(jax.tree.map(lambda x, n=total - start: x[:n], done))
            report(min(start + step, total))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def check(self, net: Net, rows: Mapping, total: int) -> None:
        """Traces the program for `total` rows, so that wrong options raise before anything is compiled.

        Args:
          net: the network.
          rows: {name: shape and dtype of one row}.
          total: how many there will be, so that what is traced here is what is run.
        """
        step = self._step(total)
        specs = {k: jax.ShapeDtypeStruct((step, *v.shape), v.dtype) for k, v in rows.items()}
        jax.eval_shape(self.program, net, np.uint32(0), self.arrays, specs)

    def _step(self, total):
        """Rows of a step over all devices: steps of about equal length."""
        count = len(self.devices)
        # Full steps and a short rest would compute more padding than equal ones.
        steps = -(-total // (self.rows * count))
        return count * -(-total // (steps * count))


def method_task(method: Callable, options: Mapping, at_once: int, devices: tuple) -> Task:
    """A method on rows of image, label and index; gives maps [h,w,C] or [h,w,1].

    Args:
      method: the entry.
      options: of the method, arrays too. `key` is a seed, folded with an image's index.
      at_once: evaluations of the network in memory at once on a device.
      devices: to run on.
    """
    static, arrays, seed = _parted(method, options)
    static, rows = _chunked(method, static, at_once)
    return Task(_method_program(method, static, devices), devices, seed, arrays, rows)


def map_task(scores: Mapping[str, tuple[Score, Mapping]], at_once: int, devices: tuple) -> Task:
    """Scores {name: (record, options)} of a map alone, on rows of heatmap, attribution and mask; gives {name: scalar}."""
    parted = {name: _parted(score, given) for name, (score, given) in scores.items()}
    static = tuple((name, scores[name][0], plain) for name, (plain, _, _) in parted.items())
    arrays = {name: given for name, (_, given, _) in parted.items()}
    # The seed is the job's, so that of one score is that of all.
    seed = max((seed for _, _, seed in parted.values()), default=0)
    return Task(_map_program(static, devices), devices, seed, arrays, at_once)


def net_task(score: Score, options: Mapping, at_once: int, devices: tuple) -> Task:
    """A score of faithfulness on rows of heatmap, attribution, image and label; gives what the score measures."""
    static, arrays, seed = _parted(score, options)
    static, rows = _chunked(score, static, at_once)
    return Task(_net_program(score, static, devices), devices, seed, arrays, rows)


def explain_task(
    score: Score, options: Mapping, method: Callable, method_options: Mapping, at_once: int, devices: tuple
) -> Task:  # fmt: skip
    """A score of stability, of a method, on rows of image, label and index; gives a scalar."""
    static, arrays, seed = _parted(score, options)
    method_static, method_arrays, method_seed = _parted(method, method_options)
    method_static, rows = _chunked(method, method_static, at_once)
    # Chunks nest: the score divides what the method's own chunk has left.
    static, rows = _chunked(score, static, rows)
    program = _explain_program(score, static, method, method_static, method_seed, devices)
    return Task(program, devices, seed, {"score": arrays, "method": method_arrays}, rows)


def _parted(entry, options):
    """An entry's options as a hashable tuple of pairs, those that are arrays, and the seed."""
    defaults = entries.keywords(entry)
    arrays = {k: v for k, v in options.items() if is_array(v) and not _shapes(k, defaults.get(k))}
    plain = {k: v for k, v in options.items() if k not in arrays and k != "key"}
    # Sorted, as part of a cache key: the order in which options were given must not matter.
    return tuple((k, _frozen(v)) for k, v in sorted(plain.items())), arrays, options.get("key", 0)


def is_array(value: Any) -> bool:
    """Whether an option is an array, or a tree of them."""
    return any(isinstance(part, (np.ndarray, jax.Array)) for part in jax.tree.leaves(value))


def _shapes(name, default):
    """Whether an option is numbers that shape the program, such as fractions: an array of them is taken for what is in it."""
    return (
        isinstance(default, (int, float, tuple)) and name not in entries.DRAWN + entries.FILLED_IN
    )


def _frozen(value):
    value = value.tolist() if isinstance(value, (np.ndarray, jax.Array)) else value
    return tuple(map(_frozen, value)) if isinstance(value, (tuple, list)) else value


def _chunked(entry, static, at_once):
    """An entry's options with the chunk that fits, and how many rows go with it."""
    default = entries.keywords(entry).get("chunk", 0)
    if not default:
        return static, at_once
    chunk = min(default, at_once)
    return (*static, ("chunk", chunk)), max(1, at_once // chunk)


def _bound(method, static, arrays, seed, index):
    """explain(net, image, label): the method with all its options."""
    given = dict(static) | arrays
    if "key" in entries.keywords(method):
        # By the image's number, so that draws depend on neither batch nor device.
        given["key"] = jax.random.fold_in(jax.random.key(seed), index)

    def explain(net: Net, image: Any, label: Any):
        found = method(net, image, label, **given)
        if jnp.shape(found) not in (image.shape, (*image.shape[:2], 1)):
            raise ValueError(
                f"{entries.name_of(method)} gives an array {list(jnp.shape(found))} for an image {list(image.shape)}; a method "
                "must give [h,w,C] or [h,w,1]"
            )
        return found

    return explain


def _seeded(score, static, arrays, seed):
    """A score's options; it draws the same for all images, as its own documentation advises."""
    return dict(static) | arrays | ({"key": seed} if "key" in entries.keywords(score) else {})


def _called(score, net, row, given):
    """What a score measures of one row, its arguments taken by their names."""
    values = {"net": net, **row}
    measure = score.measure or score.f
    measured = measure(*(values[name] for name in entries.arguments(score)), **given)
    shape = jnp.shape(measured) if score.value is None else ()
    if len(shape) > 1 or shape[:1] in ((0,), (1,)):
        raise ValueError(
            f"{score.__name__} gives an array {list(shape)}; a score must give one number, or a curve [T+1] of two or more"
        )
    return measured


def _mapped(one, devices):
    """one(net, seed, arrays, row) over the rows of all devices."""

    def every(net: Net, seed: Seed, arrays: Any, rows: Any):
        return jax.vmap(one, (None, None, None, 0))(net, seed, arrays, rows)

    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    return devices_lib.pmap_inference(every, (whole, whole, whole, split), split, devices=devices)


@functools.lru_cache(_KEPT)
def _method_program(method, static, devices):
    def one(net: Net, seed: Seed, arrays: Any, row: Any):
        explain = _bound(method, static, arrays, seed, row["index"])
        return explain(net, row["image"], row["label"])

    return _mapped(one, devices)


@functools.lru_cache(_KEPT)
def _map_program(scores, devices):
    def one(net: Net, seed: Seed, arrays: Any, row: Any):
        return {
            name: _called(score, net, row, _seeded(score, static, arrays[name], seed))
            for name, score, static in scores
        }

    return _mapped(one, devices)


@functools.lru_cache(_KEPT)
def _net_program(score, static, devices):
    def one(net: Net, seed: Seed, arrays: Any, row: Any):
        return _called(score, net, row, _seeded(score, static, arrays, seed))

    return _mapped(one, devices)


@functools.lru_cache(_KEPT)
def _explain_program(score, static, method, method_static, method_seed, devices):
    def one(net: Net, seed: Seed, arrays: Any, row: Any):
        given = _seeded(score, static, arrays["score"], seed)
        explain = _bound(method, method_static, arrays["method"], method_seed, row["index"])
        return _called(score, net, {**row, "explain": explain}, given)

    return _mapped(one, devices)
