"""What ends a job of two processes in the middle of each stage: exit codes, seconds, and whether the same command goes on.

    python -m benchmarks.faults                           # every stage, seven pairs of processes each
    python -m benchmarks.faults --only=dissect,explain    # these

A pair of processes of one device each fills a working directory stage by stage. Then, for each stage, a pair begins again from
what was there before it, and in process 1 comes, halfway through by the clock: a ValueError, a SIGKILL, a SIGTERM. The same
command then has to end with the arrays and tables of the pair that nothing happened to.
"""

import argparse
import ctypes
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

FAULTS = ("ValueError", "SIGKILL", "SIGTERM")
_HEARTBEAT = 10  # seconds without a sign after which a process is dead
_SCENES = {
    "data.size": 32,
    "data.batch_size": 8,
    "data.scenes.train": 64,
    "data.scenes.validation": 16,
    "data.scenes.test": 8,
    "model.name": "tiny",
    "model.width": 0.5,
    "model.last_stride": 2,
    "train.epochs": 4,
    "train.warmup": 0,
    "explain.methods": "gradient,gradcam",
    "explain.scores": "pointing_game,deletion",
    "explain.options.deletion.window": 8,
    "explain.replicates": 20,
    "explain.max_images": 16,
}
_STAGES = {
    "intervene.layers": "relu1",
    "intervene.max_images": 8,
    "occlude.light": 9,
    "occlude.rankings": "gradient",
    "occlude.selections": "top",
    "occlude.values": "zero",
    "occlude.replicates": 5,
    "dissect.layers": "relu1",
    "dissect.max_images": 16,
}
_TABLE = {
    "table.rows": "random,gradient,iba,iba_readout",
    "table.tiles": 8,
    "table.snapshots": 4,
    "table.sens_images": 2,
    "table.sens_sizes": 2,
    "table.sens_masks": 3,
    "readout.steps": 20,
    "readout.batch_size": 4,
    "readout.stat_images": 8,
}
_TAYLOR = {
    "taylor.images": 3,
    "taylor.units": 2,
    "taylor.points": 20,
    "taylor.parts": "testbed,region,class",
    "taylor.rules": "z_plus",
    "taylor.depth": 2,
    "taylor.width": 4,
}
_ANIMALS = {
    "data.animals.train": 48,
    "data.animals.validation": 16,
    "data.animals.test": 16,
    "explain.reference": 4,
    "relevance.scenes": 23,
    "relevance.replicates": 200,
    "relevance.trees": False,
    "relevance.evaluator_scenes": 64,
    "relevance.evaluator_epochs": 4,
    "relevance.evaluator_width": 0.0625,
    "panels.images": 15,
    "panels.pool": 4,
    "panels.rows": 2,
    "panels.concepts": 3,
}
_MARKERS = {
    "data.size": 16,
    "data.batch_size": 16,
    "data.markers.unlabeled": 16,
    "data.markers.labeled": 64,
    "data.markers.validation": 8,
    "data.markers.test": 21,
    "markers.steps": 300,
    "markers.batch_size": 8,
    "markers.filters": 2,
    "model.width": 0.25,
    "train.steps": 200,
    "train.log_every": 20,
    "eval.batch_size": 8,
}


@dataclasses.dataclass(frozen=True)
class Chain:
    """Stages that fill one working directory.

    Attributes:
      stages: {stage: config, as `--config` takes it}, in their order.
      keys: {config: {key: value}}, which make it small.
    """

    stages: dict[str, str]
    keys: dict[str, dict]


def _chain(config, stages, keys) -> Chain:
    return Chain(dict.fromkeys(stages, config), {config: keys})


def _without(keys, *beginnings):
    return {key: value for key, value in keys.items() if not key.startswith(beginnings)}


_RUN = ("train", "dissect", "intervene", "explain", "occlude", "report")
CHAINS = (
    _chain("baseline:scenes", _RUN, _SCENES | _STAGES),
    _chain("attribution_table", ("train", "bottleneck_table"), _SCENES | _TABLE),
    # It trains nothing itself.
    Chain(
        {"train": "baseline:scenes", "taylor": "taylor_study"},
        {"baseline:scenes": _SCENES, "taylor_study": _SCENES | _TAYLOR},
    ),
    _chain(
        "relevance",
        ("train", "explain", "relevance", "panels"),
        _without(_SCENES, "data.scenes") | _ANIMALS,
    ),
    _chain("rendergan", ("gan", "decode"), _MARKERS),
)


# What runs in each process: the command, with a timer that begins with the stage.
def child(fault: str, after: float, argv: list[str]) -> None:
    """Runs the command, and in process 1 lets a fault happen so many seconds after its stage has begun; "": none."""
    from mixaug_jax import main, pipeline

    stage = next(word for word in argv if word.startswith("--stage=")).removeprefix("--stage=")
    entry = pipeline.STAGES[stage]

    def run(*args, **kwargs):
        if fault and os.environ["JAX_PROCESS_ID"] == "1":
            timer = threading.Timer(after, _happen, (fault, threading.get_ident()))
            timer.daemon = True
            timer.start()
        began = time.monotonic()
        entry.run(*args, **kwargs)
        print(f"stage took {time.monotonic() - began:.3f}", file=sys.stderr, flush=True)

    pipeline.STAGES[stage] = dataclasses.replace(entry, run=run)
    sys.exit(main.main(argv))


class PlantedError(ValueError):
    """What a stage might raise."""

    def __init__(self):
        super().__init__("planted")


def _happen(fault, thread):
    print(f"fault at {time.time():.3f}", file=sys.stderr, flush=True)
    if fault == "ValueError":
        raised = ctypes.py_object(PlantedError)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
    else:
        os.kill(os.getpid(), getattr(signal, fault))


@dataclasses.dataclass(frozen=True)
class Ended:
    """A pair that has ended: its exit codes, what each has said, and when."""

    codes: tuple[int, int]
    said: tuple[str, str]
    at: float


def pair(place: pathlib.Path, chain: Chain, stage: str, fault: str = "", after=0.0) -> Ended:
    """Runs one stage by two processes in `place/run`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}"}
    job |= {"JAX_NUM_PROCESSES": "2", "JAX_COMPILATION_CACHE_DIR": str(place / "compiled")}
    job |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    code = f"from benchmarks import faults; faults.child({fault!r}, {after}, sys.argv[1:])"
    config = chain.stages[stage]
    words = [f"--config={config}", f"--stage={stage}", f"--workdir={place / 'run'}"]
    words += ["--multihost", f"--heartbeat_s={_HEARTBEAT}"]
    words += [f"--config.{key}={value}" for key, value in chain.keys[config].items()]
    words += [f"--config.data.dir={place / 'data'}"]
    files = [(place / f"said{k}").open("w+") for k in range(2)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys; {code}", *words],
            env=os.environ | job | {"JAX_PROCESS_ID": str(k)},
            stdout=file,
            stderr=file,
        )
        for k, file in enumerate(files)
    ]
    codes = tuple(process.wait() for process in started)
    at, said = time.time(), []
    for file in files:
        file.seek(0)
        said.append(file.read())
        file.close()
    return Ended(codes, tuple(said), at)


def results(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """{file:array: values} of all arrays and tables but seconds, and what is cached."""
    found = {}
    for path in sorted(folder.rglob("*.npz")):
        if "cache" in path.parts or "parts" in path.parts:
            continue
        with np.load(path) as stored:
            for key in stored:
                if "seconds" not in key and key != "settings":
                    found[f"{path.relative_to(folder)}:{key}"] = stored[key]
    for path in sorted(folder.rglob("*.csv")):
        if "seconds" not in (text := path.read_text()):
            found[str(path.relative_to(folder))] = np.array(text)
    return found


def differences(expected: dict, found: dict) -> list[str]:
    """Names that are missing, too many, or of other values."""
    names = [name for name in {**expected, **found} if (name in expected) != (name in found)]
    for name in expected.keys() & found.keys():
        a, b = expected[name], found[name]
        nan = a.dtype.kind == "f"
        if a.shape != b.shape or not np.array_equal(a, b, equal_nan=nan):
            names.append(name)
    return sorted(names)


def _sentence(said):
    lines = [line for line in said.splitlines() if "error:" in line or "ended with" in line]
    return lines[0].strip() if lines else (said.strip().splitlines() or ["nothing"])[-1]


def over_chain(chain: Chain, stages: list[str], place: pathlib.Path) -> list[tuple]:
    """Of these stages, rows (stage, fault, codes, seconds to the end of both, words of process 0 and 1, how it went on)."""
    rows, before = [], {}
    for stage in chain.stages:
        before[stage] = place / f"before_{stage}"
        (place / "run").mkdir(parents=True, exist_ok=True)
        shutil.copytree(place / "run", before[stage])
        ended = pair(place, chain, stage)
        if ended.codes != (0, 0):
            raise RuntimeError(f"{stage} without a fault ended with {ended.codes}:\n{ended.said}")
        shutil.copytree(place / "run", place / f"after_{stage}")
    for stage in chain.stages:
        if stage not in stages:
            continue
        expected = results(place / f"after_{stage}")
        _restore(place, before[stage])
        # Once more, since the first pair compiled, which the others find done.
        ended = pair(place, chain, stage)
        took = float(ended.said[1].rpartition("stage took ")[2].split()[0])
        for fault in FAULTS:
            _restore(place, before[stage])
            ended = pair(place, chain, stage, fault, took / 2)
            struck = ended.said[1].rpartition("fault at ")[2].split()
            seconds = ended.at - float(struck[0]) if struck else float("nan")
            again = pair(place, chain, stage)
            wrong = differences(expected, results(place / "run"))
            went_on = "the same" if again.codes == (0, 0) and not wrong else "NOT the same"
            # A stage may be over before its half; what nothing has happened to shows nothing.
            went_on = went_on if struck else "no fault came"
            rows.append((stage, fault, ended.codes, seconds, *map(_sentence, ended.said), went_on))
            print(
                f"| {stage} | {fault} | {ended.codes[0]}, {ended.codes[1]} | {seconds:.1f} | {rows[-1][4]} | {rows[-1][5]} | "
                f"{went_on} {wrong[:3] or ''} |",
                flush=True,
            )
            if went_on != "the same":
                print(ended.said, again.codes, again.said, flush=True)
    return rows


def _restore(place, folder):
    shutil.rmtree(place / "run")
    shutil.copytree(folder, place / "run")


def main() -> bool:
    """Prints the table; whether every command went on to the same results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="stages, with commas between")
    only = [name for name in parser.parse_args().only.split(",") if name]
    known = {stage for chain in CHAINS for stage in chain.stages}
    if unknown := set(only) - known:
        parser.error(
            f"no stage is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )
    print("| stage | fault in process 1 | exit codes | seconds | process 0 | process 1 | again |")
    print("|---|---|---|---|---|---|---|")
    rows, seen = [], set()
    for chain in CHAINS:
        # Several chains begin with a training: the first one's is enough.
        stages = [one for one in chain.stages if one not in seen and one in (only or chain.stages)]
        seen.update(chain.stages)
        if stages:
            with tempfile.TemporaryDirectory() as place:
                rows += over_chain(chain, stages, pathlib.Path(place))
    return all(row[-1] == "the same" for row in rows)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
