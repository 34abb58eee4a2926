"""Activation thresholds: T of each unit with P(a > T) = q, exact in float32, in fixed memory.

Network Dissection (Bau et al., CVPR 2017, section 2.2) takes T_k with P(a_k > T_k) = 0.005 over all locations of all images;
"Dissecting mixed-sample augmentation models" (Won et al. 2023) and github.com/davidbau/dissect take 0.01 over the *upsampled* maps.
The programs in use estimate it with a sketch (rank errors of 2e-4 to 5e-4, which is up to 5 % of a unit's area at q = 0.01). Here it
is an order statistic, found as follows.

A float32 is looked up by its bits, put in an order that integers share with floats. A small pilot sample gives each unit an interval
of values that should hold the wanted rank. A pass over the images counts the values of the interval in up to 4096 bins, and those
above it; the bin that holds the rank is the next interval; one bin is one float32 after two passes as a rule. Where the pilot missed,
the interval on the proper side of it follows. Only cells (four neighbouring nodes) with a corner at or above the interval are
computed: bilinear values lie between their corners. Counts are integers, so devices and batches add up to the same answer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import parallel
from mixaug_jax.dissection import resample, streaming

OVER = ("upsampled", "raw")
RULES = ("linear", "hazen", "inverted_cdf")

_BIN_BYTES = 2**25  # of counts on a device
_VALUES = 2**18  # pixels computed at a time
_PILOT = 2048  # sampled values of a unit


def quantile(
    activations,
    q: float,
    *,
    over: str = "upsampled",
    size: tuple[int, int] | None = None,
    padding: str = "edge",
    rule: str = "linear",
    batch_size: int = 16,
    devices=None,
) -> np.ndarray:
    """The threshold T of each unit, P(a > T) = q, over all positions of all images.

    Args:
      activations: [N, h, w, U] finite floats, read a few images at a time (an array, a memory map, or anything with `shape` whose
        slices along N are arrays), about twice in all.
      q: the tail share, in (0, 1).
      over: "upsampled", the N*H*W values at label-map size (davidbau/dissect); "raw", the N*h*w values themselves (the original
        NetDissect, NetDissect-Lite, gandissect).
      size: (H, W) of the label maps; only needed by "upsampled".
      padding: what lies beyond the outer nodes: "edge" their own value, "zero" nothing (see `resample`); no matter for "raw".
      rule: how the quantile lies between order statistics: "linear" (numpy's default), "hazen" (davidbau/dissect's readout), or
        "inverted_cdf" (the smallest value with F >= 1-q, so that P(a > T) <= q). Rank and fraction are float64.
      batch_size: images of a device at a time; the result does not depend on it.
      devices: default all.

    Returns:
      [U] float32. A unit whose quantile lies on a plateau gets the plateau's value, with which a > T is false there.

    Raises:
      ValueError: an argument outside the above, no image, NaN or infinity.
    """
    size = _check(activations, q, over, size, padding, rule)
    padding = "edge" if over == "raw" else padding  # no pixel lies outside: one program for both
    images, _, _, units = activations.shape
    samples = images * size[0] * size[1]
    rank, fraction = _rank(samples, q, rule)
    bins = 2 ** int(np.clip(np.log2(_BIN_BYTES / (4 * units)), 4, 12))
    low, last = _pilot(activations, q, size, padding)
    lower, upper = np.zeros(units, np.int64), np.zeros(units, np.int64)
    wanted = np.ones(units, bool)
    while wanted.any():
        # No cell reaches the interval of a unit that is known, so it costs nothing more.
        low, last = np.where(wanted, low, _HIGHEST), np.where(wanted, last, _HIGHEST)
        shift = np.maximum(np.ceil(np.log2((last - low + 1) / bins)), 0).astype(np.int64)
        seen = _pass(activations, low, last, shift, bins, size, padding, batch_size, devices)
        low, last, found, here, next_up = _narrow(low, last, shift, seen, samples - 1 - rank)
        found &= wanted
        lower, upper = np.where(found, here, lower), np.where(found, next_up, upper)
        wanted &= ~found
    exact = _value(lower)
    if fraction:
        exact += fraction * (_value(upper) - exact)
    return exact.astype(np.float32)


def _check(activations, q, over, size, padding, rule) -> tuple[int, int]:
    """Raises for arguments that have no meaning; returns the size of the maps that are looked at."""
    if over not in OVER:
        raise ValueError(f"over={over!r} is not known; use one of {', '.join(OVER)}")
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is not known; use one of {', '.join(RULES)}")
    resample.check_padding(padding)
    if not 0 < q < 1:
        raise ValueError(f"q={q} is not a tail share; it must lie between 0 and 1, both excluded")
    streaming.check_activations(activations)
    if over == "raw":
        return tuple(activations.shape[1:3])
    if size is None or len(size) != 2 or min(size) < 1:
        raise ValueError(f"size={size} must be (H, W) of the label maps for over='upsampled'")
    return int(size[0]), int(size[1])


def _rank(samples: int, q: float, rule: str) -> tuple[int, float]:
    """The lower order statistic (0 = least) and the share of the way to the next, of the quantile at level 1-q."""
    level = 1.0 - q
    if rule == "inverted_cdf":
        return max(0, int(np.ceil(samples * level - 1))), 0.0
    position = level * (samples - 1) if rule == "linear" else level * samples - 0.5
    position = min(max(position, 0.0), samples - 1.0)
    return int(position), position % 1.0


# A key is the bits of a float32 as an int32 that sorts like the float: in negative numbers all bits but the sign are turned.
_HIGHEST = 2**31 - 1


def _key(values: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)  # -0 is 0
    return jnp.where(bits < 0, bits ^ _HIGHEST, bits)


def _host_key(values: np.ndarray) -> np.ndarray:
    bits = np.where(values == 0, 0, values).astype(np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, bits ^ _HIGHEST, bits)


def _value(keys: np.ndarray) -> np.ndarray:
    bits = np.where(keys < 0, keys ^ _HIGHEST, keys).astype(np.int32)
    return bits.view(np.float32).astype(np.float64)


def _pilot(activations, q, size, padding) -> tuple[np.ndarray, np.ndarray]:
    """An interval of keys [U] (first, last) that likely holds the wanted rank, from a few pixels of a few images."""
    images, height, width, _ = activations.shape
    chosen = np.unique(np.linspace(0, images - 1, 128).astype(int))
    count = min(size[0] * size[1], -(-_PILOT // len(chosen)))
    row, row_fraction = resample.pixels(height, size[0])
    column, column_fraction = resample.pixels(width, size[1])
    draw = np.random.default_rng(0)
    sample = []
    for i in chosen:
        nodes = streaming.read(activations, i, i + 1)[0]
        nodes = np.pad(nodes, ((1, 1), (1, 1), (0, 0)), "edge" if padding == "edge" else "constant")
        r, c = np.divmod(draw.choice(size[0] * size[1], count, replace=False), size[1])
        x, y = column_fraction[c, None], row_fraction[r, None]
        r, c = row[r], column[c]
        left = nodes[r, c] + y * (nodes[r + 1, c] - nodes[r, c])
        right = nodes[r, c + 1] + y * (nodes[r + 1, c + 1] - nodes[r, c + 1])
        sample.append(left + x * (right - left))
    sample = np.concatenate(sample)
    # Three standard errors, doubled because the pixels of one image go together.
    m = len(sample)
    margin = 6 * np.sqrt(q * (1 - q) * m) + 2
    ends = [m - 1 - np.ceil(q * m + margin), m - 1 - np.floor(q * m - margin)]
    ends = np.clip(ends, 0, m - 1).astype(int)
    low, last = _host_key(np.partition(sample, ends, 0)[ends])
    # A unit's least value is as a rule a plateau (what a ReLU cut off): look above it, for its cells are many.
    low = np.maximum(low, _host_key(sample.min(0)) + 1)
    return low, np.maximum(low, last)


def _pass(activations, low, last, shift, bins, size, padding, batch_size, devices) -> dict:
    """Looks at one interval of keys of each unit, low..last [U], over all images.

    Returns int64 arrays: `counts` [U, bins + 1], the last being what lies above the interval; `following` [U], the least key above it;
    `least` and `most` [U], bounds of all keys.
    """
    images, height, width, units = activations.shape
    step, reduce = _programs(
        (height, width, units), size, padding, bins, None if devices is None else tuple(devices)
    )
    interval = {"low": low, "last": last, "shift": shift}
    interval = parallel.replicate({k: v.astype(np.int32) for k, v in interval.items()}, devices)
    state = {
        "counts": np.zeros(units * (bins + 1), np.int32),
        "following": np.full(units, _HIGHEST, np.int32),
        "least": np.full(units, _HIGHEST, np.int32),
        "most": np.full(units, -_HIGHEST, np.int32),
    }

    def batches():
        for start, stop, rows in streaming.spans(images, batch_size, devices):
            batch = streaming.read(activations, start, stop)
            real = np.arange(rows) < stop - start
            yield stop - start, (streaming.pad_rows(batch, rows), real)

    results = list(
        streaming.totals(
            lambda state, batch: step(state, batch, interval),
            reduce,
            state,
            batches(),
            streaming.LIMIT // (size[0] * size[1]),
            devices,
        )
    )
    return {
        "counts": sum(r["counts"] for r in results).reshape(units, bins + 1),
        "following": np.min([r["following"] for r in results], 0),
        "least": np.min([r["least"] for r in results], 0),
        "most": np.max([r["most"] for r in results], 0),
    }


@functools.cache
def _programs(shape, size, padding, bins, devices):
    """The compiled step and reduction for activations of one shape [h, w, U]."""
    sharded, replicated = parallel.SHARDED, parallel.REPLICATED

    def step(state, batch, interval):
        def image(state, x):
            return _count_image(state, *x, interval, size, padding, bins), None

        state, _ = jax.lax.scan(image, jax.tree.map(lambda x: x[0], state), batch)
        return jax.tree.map(lambda x: x[None], state)

    def reduce(state):
        return {
            "counts": jax.lax.psum(state["counts"][0], parallel.AXIS),
            "following": jax.lax.pmin(state["following"][0], parallel.AXIS),
            "least": jax.lax.pmin(state["least"][0], parallel.AXIS),
            "most": jax.lax.pmax(state["most"][0], parallel.AXIS),
        }

    return (
        parallel.pmap(
            step, (sharded, sharded, replicated), sharded, donate_argnums=0, devices=devices
        ),
        parallel.pmap(reduce, (sharded,), replicated, devices=devices),
    )


def _count_image(state, activations, real, interval, size, padding, bins):
    """Adds one image [h, w, U] to the counts; `real` is False for the rows that pad the last batch."""
    height, width, units = activations.shape
    row, row_fraction, row_real = resample.cells(height, size[0])
    column, column_fraction, column_real = resample.cells(width, size[1])
    nodes = resample.pad(activations, padding)
    top = jnp.maximum(nodes[row], nodes[row + 1])
    top = jnp.maximum(top[:, column], top[:, column + 1])  # [rows, columns, U] of cells
    words, before = _index((_key(top) >= interval["low"]) & real)
    window = int(np.clip(_VALUES // (row_real.shape[1] * column_real.shape[1]), 64, 8192))
    window = min(window, 32 * len(words))
    row, column = jnp.asarray(row), jnp.asarray(column)
    row_fraction, column_fraction = jnp.asarray(row_fraction), jnp.asarray(column_fraction)
    row_real, column_real = jnp.asarray(row_real), jnp.asarray(column_real)

    def more(carry):
        return carry[0] < before[-1]

    def count(carry):
        start, counts, following = carry
        rank = start + jnp.arange(window)
        used = rank < before[-1]
        cell = jnp.where(used, _select(words, before, rank), 0)
        r, c, u = jnp.unravel_index(cell, top.shape)
        corner = (row[r] * (width + 2) + column[c]) * units + u
        down, right = (width + 2) * units, units
        flat = nodes.reshape(-1)
        a, b, c_, d = (flat[corner + k][:, None] for k in (0, down, right, right + down))
        left, right = (resample.lerp(x, y, row_fraction[r]) for x, y in ((a, b), (c_, d)))
        value = resample.lerp(left[:, :, None], right[:, :, None], column_fraction[c][:, None])
        key = _key(value)
        low, last, shift = (interval[k][u][:, None, None] for k in ("low", "last", "shift"))
        here = row_real[r][:, :, None] & column_real[c][:, None] & used[:, None, None]
        above = here & (key > last)
        # Unsigned, because an interval may be wider than the largest int32.
        offset = key.astype(jnp.uint32) - low.astype(jnp.uint32)
        place = jnp.where(above, bins, (offset >> shift.astype(jnp.uint32)).astype(jnp.int32))
        place = jnp.where(here & (key >= low), u[:, None, None] * (bins + 1) + place, counts.size)
        counts = counts.at[place.reshape(-1)].add(1, mode="drop")
        next_up = jnp.where(above, key, _HIGHEST).min((1, 2))
        following = following.at[u].min(next_up)
        return start + window, counts, following

    _, counts, following = jax.lax.while_loop(
        more, count, (jnp.int32(0), state["counts"], state["following"])
    )
    keys = _key(nodes).reshape(-1, units)
    least = jnp.where(real, jnp.minimum(state["least"], keys.min(0)), state["least"])
    most = jnp.where(real, jnp.maximum(state["most"], keys.max(0)), state["most"])
    return {"counts": counts, "following": following, "least": least, "most": most}


def _index(selected: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Packs flags into words of 32 bits [n] and counts the flags up to the end of each word [n] (select's index)."""
    flat = selected.reshape(-1)
    bits = jnp.pad(flat, (0, -flat.size % 32)).reshape(-1, 32).astype(jnp.uint32)
    words = jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32), 1, dtype=jnp.uint32)
    return words, jnp.cumsum(jax.lax.population_count(words).astype(jnp.int32))


def _select(words: jax.Array, before: jax.Array, rank: jax.Array) -> jax.Array:
    """The positions of the set flags number `rank` (0 = first): a search over words, then five halvings inside one.

    XLA's own compaction (`jnp.nonzero`) is several times slower on CPU and serial on accelerators.
    """
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
    """The next interval of each unit, from what a pass has seen; `rank` counts from the largest value (0).

    Returns low, last, found [U] bool, and, where found, the keys of the order statistic and of the next one up.
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
    # Below the interval lies one value alone: a plateau, such as the zeros of a ReLU, that need not be counted.
    plateau = too_high & (first == end) & (above[:, -1] < rank)
    found = plateau | (~too_high & ~too_low & (shift == 0))
    filled = (counts[:, :-1] > 0) & (np.arange(bins) > place[:, None])
    next_up = np.where(filled.any(1), low + filled.argmax(1), seen["following"])
    alone = ~plateau & (above[units, steps - 1] == rank)  # the largest of its kind
    return first, end, found, first, np.where(alone, next_up, first)
