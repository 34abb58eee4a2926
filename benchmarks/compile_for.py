"""Compiles the programs for a TPU on a machine that has none, and says what they would take.

    python -m benchmarks.compile_for --topology=v5e:2x2 [--programs=PATTERN;...] [--list]

Needs the extra [tpu], and nothing of a TPU: libtpu's compiler takes a described topology. Each program
compiles in a process of its own, so that one which crashes the compiler is a row as the others are.

A row: seconds to compile on this machine; of one device and one call the floating point operations and
the bytes read and written, as the compiler estimates them, its memory (arguments, results and what is
between), and the collectives; and the roofline time: the longer of operations over the peak of bfloat16
products and bytes over the peak of the memory. That is a bound, which no run reaches: it knows neither
latency nor collectives, and float32 ("highest" precision) takes six times as many products. The
compiler counts one pass of a loop, so a program with loops has no roofline here.
"""

import argparse
import collections
import dataclasses
import datetime
import fnmatch
import importlib.metadata
import json
import math
import os
import re
import signal
import subprocess
import sys
import time


@dataclasses.dataclass(frozen=True)
class Peak:
    """What one chip does at most: bfloat16 operations and bytes of memory a second, and bytes that it holds."""

    flops: float
    bandwidth: float
    memory: float


# As the manufacturers print them.
PEAKS = {
    "v4": Peak(275e12, 1228e9, 32e9),
    "v5e": Peak(197e12, 819e9, 16e9),
    "v5p": Peak(459e12, 2765e9, 95e9),
    "v6e": Peak(918e12, 1640e9, 32e9),
}
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# No questions about the machine's own TPU, and no lock on it, so that others may compile as well.
_WITHOUT_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
}
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8}


def roofline(flops: float, moved: float, peak: Peak) -> tuple[float, str]:
    """The least seconds that so many operations and bytes take, and which of them it is: "compute" or "memory"."""
    compute, memory = flops / peak.flops, moved / peak.bandwidth
    return (compute, "compute") if compute >= memory else (memory, "memory")


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """{operation: (how many, bytes of their results)} of a compiled program's text, started and done counted once."""
    found: dict = collections.defaultdict(lambda: (0, 0))
    for result, name, start in re.findall(rf" = (.+?) ({'|'.join(COLLECTIVES)})(-start)?\(", text):
        sizes = [_size(*shape) for shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", result)]
        # What starts an operation gives its input beside its result; an all-reduce the result alone.
        if start and name != "all-reduce":
            sizes = sizes[1:2]
        count, total = found[name]
        found[name] = count + 1, total + sum(sizes)
    return dict(found)


def _size(dtype, dimensions):
    return _BYTES.get(dtype, 4) * math.prod(map(int, filter(None, dimensions.split(","))))


def compiled(topology: str, name: str) -> dict:
    """What is known of one program, compiled for a topology. Runs in a process of its own."""
    # These wait for libtpu, which the others need not have.
    from jax.experimental import topologies

    from benchmarks.compiled_programs import PROGRAMS

    devices = tuple(topologies.get_topology_desc(topology, platform="tpu").devices)
    began = time.perf_counter()
    program = PROGRAMS[name](devices)
    lowered = program.lower()
    traced = time.perf_counter()
    done = lowered.compile()
    cost, memory, text = done.cost_analysis(), done.memory_analysis(), done.as_text()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return {
        "tracing": traced - began,
        "seconds": time.perf_counter() - traced,
        "flops": cost["flops"],
        "bytes": cost["bytes accessed"],
        "memory": held,
        "collectives": collectives(text),
        "loops": text.count(" while("),
        "images": program.images,
        "devices": len(devices),
    }


def in_a_process(topology: str, name: str, timeout: float) -> dict:
    """`compiled`, or {"error": what became of it}."""
    command = [sys.executable, "-m", "benchmarks.compile_for", f"--topology={topology}"]
    environment = os.environ | _WITHOUT_A_TPU
    try:
        done = subprocess.run(
            [*command, f"--one={name}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    return outcome(done)


def outcome(done: subprocess.CompletedProcess) -> dict:
    """What a process printed, or {"error": what became of it}."""
    if done.returncode < 0:
        return {"error": f"crashes the compiler ({signal.Signals(-done.returncode).name})"}
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing was said"]
        wrong = [line for line in said if re.match(r"\S*(Error|Exception)\b", line)]
        return {"error": (wrong or said)[-1][:150]}
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, found: dict, peak: Peak) -> tuple[str, ...]:
    """The cells of a program's row."""
    if "error" in found:
        return (name, found["error"], *[""] * (len(HEADER) - 2))
    seconds, bound = roofline(found["flops"], found["bytes"], peak)
    loops = found["loops"]
    crossing = ", ".join(
        f"{count} {kind} ({size / 1e6:.1f} MB)"
        for kind, (count, size) in sorted(found["collectives"].items())
    )
    return (
        name,
        f"{found['seconds']:.0f}",
        f"{found['flops'] / 1e9:.4g}",
        f"{found['bytes'] / 1e9:.4g}",
        f"{found['memory'] / 1e9:.3g}" + (" (too much)" if found["memory"] > peak.memory else ""),
        crossing or "none",
        f"{loops} loops" if loops else f"{1000 * seconds:.3g} ({bound})",
        "" if loops else f"{found['images'] / seconds:,.0f}",
    )


HEADER = (
    "program",
    "compile s",
    "GFLOP",
    "GB",
    "GB held",
    "collectives",
    "roofline ms",
    "images/s",
)


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2", help="kind and grid of chips")
    parser.add_argument("--programs", default="*", help="patterns of names, with ; between them")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one program")
    parser.add_argument("--list", action="store_true", help="prints the names and ends")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(compiled(options.topology, options.one)))
        return
    from benchmarks.compiled_programs import PROGRAMS

    patterns = options.programs.split(";")
    names = [n for n in PROGRAMS if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    if options.list or not names:
        print("\n".join(PROGRAMS if options.list else [f"no program is called {options.programs}"]))
        return
    peak = PEAKS[options.topology.split(":")[0]]
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("jax", "libtpu"))
    print(f"{options.topology}, {versions}, {datetime.date.today()}; one device and one call:")
    print(f"{peak.flops / 1e12:.0f} TFLOP/s, {peak.bandwidth / 1e9:.0f} GB/s, {peak.memory / 1e9:.0f} GB\n")  # fmt: skip
    print(_line(HEADER) + "\n" + _line(["---"] * len(HEADER)), flush=True)
    for name in names:
        print(
            _line(row(name, in_a_process(options.topology, name, options.timeout), peak)),
            flush=True,
        )


if __name__ == "__main__":
    main()
