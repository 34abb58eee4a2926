"""The papers' stages as a job of two processes: the same tables as by one."""

import pathlib

import jobs
import numpy as np

# What the processes run: four studies of tiny networks in the folder that they are started in.
STUDIES = """
import mixaug_jax
from mixaug_jax.config import opening

def settings(name, **network):
    config = opening.open_config(name)
    config.data.update(size=32, batch_size=8, dir=str(cache), threads=1)
    config.model.update(name="tiny", width=0.5, last_stride=2)
    config.train.update(epochs=1, warmup=0.0)
    config.explain.update(methods=("gradient",), scores=("pointing_game",), max_images=5, replicates=20, reference=4)
    return config

table = settings("attribution_table")
table.data.scenes.update(train=16, validation=6, test=5)
table.table.update(rows=("random", "gradient", "iba", "iba_readout"), tiles=(8,), snapshots=4)
table.table.update(sens_images=2, sens_sizes=2, sens_masks=3)
table.readout.update(steps=2, batch_size=4, stat_images=8)
mixaug_jax.run(table, "table")

taylor = settings("taylor_study")
taylor.data.scenes.update(train=16, validation=6, test=5)
taylor.taylor.update(run="table", images=3, units=2, points=20, parts=("testbed", "region", "class"))
taylor.taylor.update(rules=("z_plus",), depth=2, width=4)
mixaug_jax.run(taylor, "taylor")

animals = settings("relevance")
animals.data.animals.update(train=48, validation=16, test=16)
animals.relevance.update(scenes=23, replicates=200, trees=False)
animals.relevance.update(evaluator_scenes=32, evaluator_epochs=1, evaluator_width=0.0625)
animals.panels.update(images=15, pool=4, rows=2, concepts=3)
mixaug_jax.run(animals, "animals")

import rendergan_case
mixaug_jax.run(rendergan_case.config(cache, "detail"), "markers")
"""
ARRAYS = (
    "table/bottleneck_table",
    "taylor/taylor",
    "animals/relevance",
    "animals/panels",
    "markers/decoding",
)


def arrays(folder):
    """{file:array: numbers} of all results in npz, but for seconds and what is text."""
    found = {}
    for path in sorted(path for name in ARRAYS for path in (folder / name).rglob("*.npz")):
        with np.load(path) as stored:
            for key in stored:
                if stored[key].dtype.kind in "fiub" and "seconds" not in key:
                    found[f"{path.relative_to(folder)}:{key}"] = stored[key]
    return found


def test_two_processes_find_what_one_finds(tmp_path):
    body = f"import pathlib; cache = pathlib.Path({str(tmp_path)!r}) / 'cache'\n{STUDIES}"
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        ended = jobs.run(folder, body, processes, devices=2 // processes)
        assert [process.code for process in ended] == [0] * processes, ended[0].errors[-3000:]
        found.append(arrays(folder))
    alone, together = found
    assert alone.keys() == together.keys()
    assert {pathlib.Path(name).parts[0] for name in alone} == {
        "table",
        "taylor",
        "animals",
        "markers",
    }
    for name, values in alone.items():
        np.testing.assert_allclose(together[name], values, rtol=0, atol=1e-5, err_msg=name)
