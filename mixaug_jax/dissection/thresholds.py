"""Activation thresholds: T of each unit with P(a > T) = q, exact in float32, in fixed memory.

Network Dissection (Bau et al., CVPR 2017, section 2.2) takes T_k with P(a_k > T_k) = 0.005 over all
locations of all images; "Dissecting mixed-sample augmentation models" (Won et al. 2023) and
github.com/davidbau/dissect take 0.01 over the *upsampled* maps. The programs in use estimate it
with a sketch (rank errors of 2e-4 to 5e-4, which is up to 5 % of a unit's area at q = 0.01). Here
it is an order statistic, found as follows.

A float32 is looked up by its bits, put in an order that integers share with floats. A small pilot
sample gives each unit an interval of values that should hold the wanted rank. A pass over the
images counts the values of the interval in up to 4096 bins, and those above it; the bin that holds
the rank is the next interval; one bin is one float32 after two passes as a rule. Where the pilot
missed, the interval on the proper side of it follows. Only cells (four neighboring nodes) with a
corner at or above the interval are computed: bilinear values lie between their corners. Counts are
integers, so devices and batches add up to the same answer.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Activations, Devices, Float, Sliced
from mixaug_jax.dissection import activations as activations_lib
from mixaug_jax.dissection import resample

OVER = ("upsampled", "raw")
RULES = ("linear", "hazen", "inverted_cdf")

_BIN_BYTES = 2**25  # of counts on a device
_VALUES = 2**18  # pixels computed at a time
_PILOT = 2048  # sampled values of a unit


def quantile(
    activations: Activations | Sliced,
    q: float,
    *,
    over: str = "upsampled",
    size: Sequence[int] | None = None,
    padding: str = "edge",
    rule: str = "linear",
    batch_size: int = 16,
    devices: Devices = None,
) -> Float[np.ndarray, " U"]:
    """The threshold T of each unit, P(a > T) = q, over all positions of all images.

    In a job of several processes all call it with the same arguments, and get the same.

    Args:
      activations: [N,h,w,U] finite floats, read a few images at a time (an array, a memory map,
        or anything with `shape` whose slices along N are arrays), about twice in all; of several
        processes each reads its `walk.share` of the N images alone. Subnormal numbers, below
        1.2e-38, count as 0.
      q: the tail share, in (0, 1).
      over: "upsampled", the N*H*W values at label-map size (davidbau/dissect); "raw", the N*h*w
        values themselves (the original NetDissect, NetDissect-Lite, gandissect).
      size: (H, W) of the label maps; only needed by "upsampled".
      padding: what lies beyond the outer nodes: "edge" their own value, "zero" nothing (see
        `resample`); no matter for "raw".
      rule: how the quantile lies between order statistics: "linear" (numpy's default), "hazen"
        (davidbau/dissect's readout), or "inverted_cdf" (the smallest value with F >= 1-q, so that
        P(a > T) <= q). Rank and fraction are float64.
      batch_size: images of a device at a time; the result does not depend on it.
      devices: default all of all processes; the result does not depend on them.

    Returns:
      [U] float32. A unit whose quantile lies on a plateau gets the plateau's value, with which a >
      T is false there.

    Raises:
      ValueError: an argument outside the above, no image, NaN or infinity.
    """
    grid = _check(activations, q, over, size, padding, rule)
    checks.count("batch_size", batch_size)
    samples = activations.shape[0] * grid.pixels
    rank, fraction = _rank(samples, q, rule)
    devices = walk.chosen(devices)
    interval = _pilot(activations, q, grid, devices)
    exact, next_up = _search(activations, samples - 1 - rank, interval, grid, batch_size, devices)
    # Where no two order statistics are mixed the next one need not be finite.
    if fraction:
        exact += fraction * (next_up - exact)
    return exact.astype(np.float32)


def _check(activations, q, over, size, padding, rule) -> resample.Grid:
    """The maps that are looked at; raises for arguments that have no meaning."""
    checks.choice("over", over, OVER)
    checks.choice("rule", rule, RULES)
    checks.number("q", q, 0, 1, above=True, below=True)
    activations_lib.check_activations(activations)
    nodes = tuple(activations.shape[1:3])
    sides = np.asarray(size)
    whole = sides.shape == (2,) and sides.dtype.kind in "iu" and sides.min() > 0
    if over == "upsampled" and not whole:
        raise ValueError(
            f"size must be (H, W) of the label maps, integers, for over='upsampled'; got {checks.shown(size)}"
        )
    grid = resample.Grid(nodes, nodes if over == "raw" else (int(size[0]), int(size[1])), padding)
    # At its own size a map has no pixel beyond its nodes: one program for both paddings.
    return dataclasses.replace(grid, padding="edge") if over == "raw" else grid


def _rank(samples: int, q: float, rule: str) -> tuple[int, float]:
    """The quantile at level 1-q: its lower order statistic (0 = least), share of the way up."""
    level = 1.0 - q
    if rule == "inverted_cdf":
        return max(0, int(np.ceil(samples * level - 1))), 0.0
    position = level * (samples - 1) if rule == "linear" else level * samples - 0.5
    position = min(max(position, 0.0), samples - 1.0)
    return int(position), position % 1.0


# A key is the bits of a float32 as an int32 that sorts like the float: in negative numbers all bits
# but the sign are turned. Both zeros and what is too small for a normal float32 are 0, because
# devices disagree on such numbers.
_HIGHEST = 2**31 - 1
_TINY = np.finfo(np.float32).tiny


def _key(values: jax.Array) -> jax.Array:
    values = jnp.where(jnp.abs(values) < _TINY, 0.0, values)
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, bits ^ _HIGHEST, bits)


def _host_key(values: np.ndarray) -> np.ndarray:
    bits = np.where(np.abs(values) < _TINY, np.float32(0), values).view(np.int32).astype(np.int64)
    return np.where(bits < 0, bits ^ _HIGHEST, bits)


def _value(keys: np.ndarray) -> np.ndarray:
    bits = np.where(keys < 0, keys ^ _HIGHEST, keys).astype(np.int32)
    return bits.view(np.float32).astype(np.float64)


def _pilot(activations, q: float, grid: resample.Grid, devices) -> tuple[np.ndarray, np.ndarray]:
    """Keys [U], first and last, of an interval that likely holds the rank: a sample's quantiles."""
    images, _, _, units = activations.shape
    chosen, own = (
        np.unique(np.linspace(0, images - 1, 128).astype(int)),
        walk.share(images, devices),
    )
    count = min(grid.pixels, -(-_PILOT // len(chosen)))
    row, row_fraction = resample.pixels(grid.nodes[0], grid.size[0])
    column, column_fraction = resample.pixels(grid.nodes[1], grid.size[1])
    mode = "edge" if grid.padding == "edge" else "constant"
    draw = np.random.default_rng(0)
    sample = [np.zeros((0, units), np.float32)]
    for i in chosen.tolist():
        # Drawn for all images, so that a process looks where one alone would look.
        drawn = draw.choice(grid.pixels, count, replace=False)
        if i not in own:
            continue
        nodes = np.pad(
            activations_lib.read(activations, i, i + 1)[0], ((1, 1), (1, 1), (0, 0)), mode
        )
        r, c = np.divmod(drawn, grid.size[1])
        x, y = column_fraction[c, None], row_fraction[r, None]
        r, c = row[r], column[c]
        left = nodes[r, c] + y * (nodes[r + 1, c] - nodes[r, c])
        right = nodes[r, c + 1] + y * (nodes[r + 1, c + 1] - nodes[r, c + 1])
        sample.append(left + x * (right - left))
    sample = walk.join(np.concatenate(sample), devices)
    # Three standard errors, doubled because the pixels of one image go together.
    m = len(sample)
    margin = 6 * np.sqrt(q * (1 - q) * m) + 2
    ends = [m - 1 - np.ceil(q * m + margin), m - 1 - np.floor(q * m - margin)]
    ends = np.clip(ends, 0, m - 1).astype(int)
    low, last = _host_key(np.partition(sample, ends, 0)[ends])
    # A unit's least value is as a rule a plateau (what a ReLU cut off): look above it, for its
    # cells are many.
    low = np.maximum(low, _host_key(sample.min(0)) + 1)
    return low, np.maximum(low, last)


def _search(activations, rank, interval, grid, batch_size, devices):
    """The value number `rank` from the top (0 = largest) of each unit and the next larger one, [U]
    float64; `interval` is where to look first."""
    units = activations.shape[3]
    bins = 2 ** int(np.clip(np.log2(_BIN_BYTES / (4 * units)), 4, 12))
    low, last = interval
    lower, upper = np.zeros(units, np.int64), np.zeros(units, np.int64)
    wanted = np.ones(units, bool)
    while wanted.any():
        # No cell reaches the interval of a unit that is known, so it costs nothing more.
        low, last = np.where(wanted, low, _HIGHEST), np.where(wanted, last, _HIGHEST)
        shift = np.maximum(np.ceil(np.log2((last - low + 1) / bins)), 0).astype(np.int64)
        interval = {"low": low, "last": last, "shift": shift}
        seen = _pass(activations, interval, bins, grid, batch_size, devices)
        low, last, found, here, next_up = _narrow(low, last, shift, seen, rank)
        found &= wanted
        lower, upper = np.where(found, here, lower), np.where(found, next_up, upper)
        wanted &= ~found
    return _value(lower), _value(upper)


def _pass(activations, interval, bins, grid, batch_size, devices) -> dict:
    """Looks at one interval of keys of each unit over all images.

    interval: int [U] arrays `low` and `last`, its ends, and `shift`: 2**shift keys share a bin.

    Returns int64 arrays: `counts` [U,bins+1], the last being what lies above the interval;
    `following` [U], the least key above it; `least` and `most` [U], bounds of all keys.
    """
    images, _, _, units = activations.shape
    # Keys fit int32 on the device; the host keeps int64, so that ends may be moved past them.
    step, reduce = _programs(grid, units, bins, devices)
    interval = {k: v.astype(np.int32) for k, v in interval.items()}
    interval, own = devices_lib.replicate(interval, walk.own(devices)), walk.share(images, devices)
    state = {
        "counts": np.zeros(units * (bins + 1), np.int32),
        "following": np.full(units, _HIGHEST, np.int32),
        "least": np.full(units, _HIGHEST, np.int32),
        "most": np.full(units, -_HIGHEST, np.int32),
    }

    # Rows that fill up the last batch are marked, as no value is neutral for least and most.
    def batches() -> Iterator[tuple]:
        for start, stop, rows in walk.spans(images, batch_size, devices):
            batch = activations_lib.read(activations, own.start + start, own.start + stop)
            real = np.arange(rows) < stop - start
            yield walk.pad_rows(batch, rows), real

    # What was flushed to the host before the int32 counts could overflow.
    def combine(a: dict, b: dict) -> dict:
        return {
            "counts": a["counts"] + b["counts"],
            "following": np.minimum(a["following"], b["following"]),
            "least": np.minimum(a["least"], b["least"]),
            "most": np.maximum(a["most"], b["most"]),
        }

    programs = walk.Programs(lambda state, batch: step(state, batch, interval), reduce, combine)
    seen = walk.total(programs, state, batches(), walk.LIMIT // grid.pixels, devices)
    return seen | {"counts": seen["counts"].reshape(units, bins + 1)}


@functools.cache
def _programs(grid: resample.Grid, units: int, bins: int, devices):
    """The mapped step and reduction. Programs are kept, so that each pass does not compile anew."""
    sharded, replicated = devices_lib.SHARDED, devices_lib.REPLICATED

    def step(state: dict, batch: tuple, interval: dict) -> dict:
        def image(state: dict, x: tuple) -> tuple[dict, None]:
            return _count_image(state, *x, interval, grid, bins), None

        # One image after the other, so that memory does not grow with the batch.
        state, _ = jax.lax.scan(image, jax.tree.map(lambda x: x[0], state), batch)
        return jax.tree.map(lambda x: x[None], state)

    def reduce(state: dict) -> dict:
        return {
            "counts": jax.lax.psum(state["counts"][0], devices_lib.AXIS),
            "following": jax.lax.pmin(state["following"][0], devices_lib.AXIS),
            "least": jax.lax.pmin(state["least"][0], devices_lib.AXIS),
            "most": jax.lax.pmax(state["most"][0], devices_lib.AXIS),
        }

    # Each process counts its own images by itself; only the sums of a pass meet.
    return (
        devices_lib.pmap(
            step,
            (sharded, sharded, replicated),
            sharded,
            donate_argnums=0,
            devices=walk.own(devices),
        ),
        devices_lib.pmap(reduce, (sharded,), replicated, devices=devices),
    )


def _count_image(state, activations, real, interval, grid, bins):
    """Adds one image [h,w,U] to the counts; `real` is False for rows that pad the last batch."""
    units = activations.shape[2]
    # Only cells that reach the interval are looked at: of a ReLU's maps a small part.
    nodes = resample.pad(activations, grid)
    top = _key(resample.largest_corner(nodes, grid))
    words, before = _index((top >= interval["low"]) & real)
    window = int(np.clip(_VALUES // resample.cell_pixels(grid), 64, 8192))
    window = min(window, 32 * len(words))

    def more(carry: tuple) -> jax.Array:
        return carry[0] < before[-1]

    # A window of cells at a time, so that memory does not depend on how many were selected.
    def count(carry: tuple) -> tuple:
        start, counts, following = carry
        rank = start + jnp.arange(window)
        used = rank < before[-1]
        r, c, u = jnp.unravel_index(jnp.where(used, _select(words, before, rank), 0), top.shape)
        values, inside = resample.cell_values(nodes, grid, r, c, u)
        inside &= used[:, None, None]
        key = _key(values)
        low, last, shift = (interval[k][u][:, None, None] for k in ("low", "last", "shift"))
        above = inside & (key > last)
        # Unsigned, because an interval may be wider than the largest int32.
        offset = key.astype(jnp.uint32) - low.astype(jnp.uint32)
        place = jnp.where(above, bins, (offset >> shift.astype(jnp.uint32)).astype(jnp.int32))
        place = u[:, None, None] * (bins + 1) + place
        place = jnp.where(inside & (key >= low), place, counts.size)  # out of bounds: dropped
        counts = counts.at[place.reshape(-1)].add(1, mode="drop")
        following = following.at[u].min(jnp.where(above, key, _HIGHEST).min((1, 2)))
        return start + window, counts, following

    carry = (jnp.int32(0), state["counts"], state["following"])
    _, counts, following = jax.lax.while_loop(more, count, carry)
    # Bounds of all keys, for units whose pilot missed.
    keys = _key(nodes).reshape(-1, units)
    return {
        "counts": counts,
        "following": following,
        "least": jnp.where(real, jnp.minimum(state["least"], keys.min(0)), state["least"]),
        "most": jnp.where(real, jnp.maximum(state["most"], keys.max(0)), state["most"]),
    }


def _index(selected: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Flags as words of 32 bits [n], and the number of flags up to the end of each word [n]."""
    flat = selected.reshape(-1)
    bits = jnp.pad(flat, (0, -flat.size % 32)).reshape(-1, 32).astype(jnp.uint32)
    words = jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32), 1, dtype=jnp.uint32)
    return words, jnp.cumsum(jax.lax.population_count(words).astype(jnp.int32))


def _select(words: jax.Array, before: jax.Array, rank: jax.Array) -> jax.Array:
    """The position of the set flag number `rank` (0 = first): a search over words, then five
    halvings inside one. (`jnp.nonzero` scatters every flag; this gathers only the wanted ones.)"""
    word = jnp.minimum(jnp.searchsorted(before, rank, side="right"), len(words) - 1)
    rest = words[word]
    rank = rank - before[word] + jax.lax.population_count(rest).astype(jnp.int32)
    position = 32 * word
    for half in (16, 8, 4, 2, 1):
        low = rest & jnp.uint32(2**half - 1)
        count = jax.lax.population_count(low).astype(jnp.int32)
        up = rank >= count
        rank = jnp.where(up, rank - count, rank)
        rest = jnp.where(up, rest >> half, low)
        position = position + jnp.where(up, half, 0)
    return position


def _narrow(low, last, shift, seen, rank):
    """The next interval of each unit; `rank` counts from the largest value, which is 0.

    Returns low, last, found [U] bool, and, where found, the keys of the order statistic and of the
    next one up.
    """
    counts = seen["counts"]
    bins = counts.shape[1] - 1
    units = np.arange(len(counts))
    above = np.cumsum(counts[:, ::-1], 1)  # [:, j]: in the j upper bins and above them
    too_low, too_high = above[:, 0] > rank, above[:, -1] <= rank
    steps = (above > rank).argmax(1)
    place = bins - steps
    first = np.where(too_high, seen["least"], np.where(too_low, last + 1, low + (place << shift)))
    end = np.minimum(last, first + (1 << shift) - 1)
    end = np.where(too_high, low - 1, np.where(too_low, seen["most"], end))
    # Below the interval lies one value alone: a plateau, such as the zeros of a ReLU, that need not
    # be counted.
    plateau = too_high & (first == end) & (above[:, -1] < rank)
    found = plateau | (~too_high & ~too_low & (shift == 0))
    filled = (counts[:, :-1] > 0) & (np.arange(bins) > place[:, None])
    next_up = np.where(filled.any(1), low + filled.argmax(1), seen["following"])
    alone = ~plateau & (above[units, steps - 1] == rank)  # the largest of its kind
    return first, end, found, first, np.where(alone, next_up, first)
