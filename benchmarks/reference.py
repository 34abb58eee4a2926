"""A small run of everything, to see what a change of the code changes: python -m benchmarks.reference make FOLDER

`make` trains, dissects, explains and occludes two networks at 32 px on two virtual devices, and makes a study of two, in a
quarter of an hour on 2 cores. `compare OLD NEW` lists each array and each number of two such folders that is not the same:
the same code on the same machine gives the same bits.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

DEVICES = "--xla_force_host_platform_device_count=2"
SMALL = {
    "data.size": 32,
    "data.batch_size": 32,
    "data.scenes.train": 256,
    "data.scenes.validation": 48,
    "data.scenes.test": 64,
    "model.stem": "cifar",
    "model.width": 0.0625,
    "train.epochs": 2,
    "train.log_every": 4,
    "eval.batch_size": 64,
    "dissect.layers": ("layer3", "layer4"),
    "dissect.shuffles": 2,
    "explain.max_images": 12,
    "explain.replicates": 20,
    "explain.methods": ("gradient", "integrated_gradients", "guided_backprop", "gradcam", "lrp",
                          "occlusion", "expected_gradients", "iba"),
    "explain.scores": ("pointing_game", "energy_pointing_game", "box_ratio", "deletion", "morf", "lerf",
                         "road", "sensitivity_n", "completeness", "max_sensitivity", "sparseness"),
    "explain.options.iba.steps": 3,
    "explain.options.occlusion.window": 8,
    "explain.options.occlusion.stride": 8,
    "occlude.max_images": 16,
    "occlude.light": 16,
    "intervene.max_images": 16,
    "occlude.replicates": 20,
    "occlude.samples": 4,
    "occlude.steps": 4,
}  # fmt: skip
MIXERS = ("cutmix", "saliencymix")


def make(folder: pathlib.Path) -> None:
    """Runs the two networks and the study."""
    changes = [f"--config.{key}={value}" for key, value in SMALL.items()]
    for name in MIXERS:
        _run("main", f"--config=configs/{name}.py", f"--workdir={folder / name}", *changes)
    configs = "--configs=configs/baseline.py,configs/cutmix.py"
    _run("study", configs, "--seeds=0", f"--workdir={folder / 'study'}", *changes)


def _run(module, *arguments):
    flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}".strip()
    command = [sys.executable, "-m", f"mixaug_jax.{module}", *arguments]
    subprocess.run(command, check=True, env=os.environ | {"XLA_FLAGS": flags})


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array and every number of a folder, by its file and name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz" and "report" not in path.parts:
            with np.load(path) as file:
                arrays = {k: v for k, v in file.items() if k not in ("settings", "versions")}
            found |= {f"{name}:{k}": v for k, v in arrays.items()}
        elif path.suffix == ".csv" and "report" not in path.parts:
            found |= {f"{name}:{k}": v for k, v in _rows(path).items()}
        elif path.name == "metrics.jsonl":
            for line in map(json.loads, path.read_text().splitlines()):
                step = line.pop("step")
                found |= {f"{name}:{step}:{k}": np.array(v) for k, v in line.items()}
        elif path.name == "variables" and path.is_dir():
            found |= {f"{name}:{k}": v for k, v in _checkpoint(path).items()}
    return {k: v for k, v in found.items() if not k.endswith(("images_per_second", "data_wait"))}


def _rows(path):
    """The numbers of a table, by the words of their row and by their column, whatever the order of rows is."""
    header, *rows = csv.reader(path.read_text().splitlines())
    found = {}
    for row in rows:
        numbers = {}
        words = []
        for column, cell in zip(header, row, strict=True):
            try:
                numbers[column] = np.array(float(cell))
            except ValueError:
                words.append(cell)
        place = "/".join(words)
        number = next(k for k in range(len(rows)) if (place, k) not in found)
        found |= {(place, number): numbers}
    return {
        f"{place}:{k}:{column}": v for (place, k), row in found.items() for column, v in row.items()
    }


def _checkpoint(path):
    # A checkpoint is read on as many devices as wrote it, which is settled before JAX is imported.
    os.environ.setdefault("XLA_FLAGS", DEVICES)
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore(path.absolute())
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree.leaves_with_path(tree)}


def compare(old: pathlib.Path, new: pathlib.Path) -> int:
    """Prints what differs; returns how many entries do."""
    before, after = read(old), read(new)
    missing = sorted(before.keys() - after.keys())
    added = sorted(after.keys() - before.keys())
    changed = [k for k in before if k in after and not _same(before[k], after[k])]
    for title, names in (("only in the first", missing), ("only in the second", added)):
        for name in names:
            print(f"{title}: {name}")
    for name in changed:
        print(f"differs: {name}  {_difference(before[name], after[name])}")
    print(f"{len(before.keys() & after.keys()) - len(changed)} entries are the same to the bit, "
          f"{len(changed)} differ, {len(missing)} are gone, {len(added)} are new")  # fmt: skip
    return len(changed) + len(missing) + len(added)


def _same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _difference(a, b):
    if a.shape == b.shape and a.dtype.kind in "fiu" and b.dtype.kind in "fiu" and a.size:
        return f"by at most {np.nanmax(np.abs(a.astype(float) - b.astype(float))):.3g}"
    return f"{a.ravel()[:8]} -> {b.ravel()[:8]}"


if __name__ == "__main__":
    task, *folders = sys.argv[1:]
    if task == "make":
        make(*map(pathlib.Path, folders))
    else:
        sys.exit(1 if compare(*map(pathlib.Path, folders)) else 0)
