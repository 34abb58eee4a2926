"""Timing helpers of the benchmarks.

On a shared machine only ratios of things measured in turns say anything, and of each only the best
turn: whatever else runs can only slow it down.
"""

import time

import jax


def timeit(fn, repeats=5):
    """Best of `repeats` wall-clock times of fn() in seconds, after one call that compiles."""
    return interleaved({"fn": fn}, repeats)["fn"]


def interleaved(fns, repeats=5):
    """Best wall-clock seconds of each of several functions, called in turns.

    Args:
      fns: {name: fn}, functions without arguments; JAX arrays in what they return are waited for.
      repeats: number of turns; one more, first, compiles.

    Returns:
      {name: seconds}.
    """
    return {name: wall for name, (wall, _) in measured(fns, repeats).items()}


def measured(fns, repeats=5):
    """As `interleaved`, but {name: (wall-clock seconds, processor seconds of all threads)}, the best of each."""
    return {
        name: tuple(map(min, zip(*spent, strict=True)))
        for name, spent in turns(fns, repeats).items()
    }


def turns(fns, repeats=5):
    """As `measured`, but {name: [(wall-clock seconds, processor seconds of all threads) of each turn]}."""
    spent = {name: [] for name in fns}
    for turn in range(repeats + 1):
        for name, fn in fns.items():
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(fn())
            if turn:
                spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return spent
