"""The benchmarks that check and measure what a machine does run to their end at the tiniest size."""

import numpy as np

from benchmarks import accelerator, faults, growth, mixing
from mixaug_jax import pipeline
from mixaug_jax.config import opening


def test_accelerator_at_the_tiniest_size(capsys):
    assert accelerator.main(accelerator.TINIEST)
    said = capsys.readouterr().out
    assert "| saliency map, highest | 0.0e+00 | ok |" in said
    assert "bit for bit" in said
    assert "0 wrong" in said


def test_a_wrong_value_is_said():
    a, b = {"x": np.ones(3)}, {"x": np.array([1.0, 1.0, 1.5])}
    assert accelerator.worst(b, a) == 0.5
    assert accelerator.verdict(accelerator.worst(b, a) <= accelerator.LIMIT) == "WRONG"


def test_exponents_are_slopes():
    sizes = [10, 20, 40]
    np.testing.assert_allclose(growth.exponent(sizes, [3 * n**1.5 for n in sizes]), 1.5)
    np.testing.assert_allclose(growth.exponent(sizes, [7.0] * 3), 0, atol=1e-12)


def test_growth_knows_each_of_its_jobs():
    jobs = growth.jobs(growth.LITTLE)
    assert jobs.keys() == growth.GROWS.keys()
    assert {axis for axes in growth.GROWS.values() for axis in axes} == set(growth.AXES)


def test_a_stage_takes_the_longer_of_operations_and_bytes():
    machine = growth.Machine(2, 1000.0, 100.0, 10.0)
    assert growth.hours(machine, 3600 * 1000, 3600 * 30, "bfloat16") == 1.5
    assert growth.hours(machine, 3600 * 4000, 3600 * 30, "bfloat16") == 2.0
    assert growth.hours(machine, 3600 * 4000, 3600 * 30, "float32") == 20.0
    assert growth.hours(machine, 3600 * 400, 0, "float32") == 2.0
    stages = [name for name, *_ in growth.study()]
    assert len(set(stages)) == len(stages)


def test_labels_of_puzzlemix_are_timed(capsys):
    mixing.labels(4, 4, 1)
    said = capsys.readouterr().out
    assert "4 images, 4 x 4: " in said
    assert "gco-wrapper" in said


def test_energies_are_sums_over_cells_and_neighbors():
    unary = np.arange(12.0).reshape(1, 2, 2, 3)
    found = mixing.total_energy(
        np.array([[[0, 1], [2, 2]]]), unary, np.full((1, 1, 2), 4.0), np.ones((1, 2, 1))
    )
    np.testing.assert_allclose(found, 0 + 4 + 8 + 11 + 4 * (1 + 0.25) + 0.25)


def test_what_a_fault_has_changed_is_found(tmp_path):
    """Arrays and tables, NaN being equal to NaN; not seconds, and nothing that is cached."""
    pairs = []
    for name, last in (("a", 3.0), ("b", 4.0)):
        folder = tmp_path / name
        (folder / "cache").mkdir(parents=True)
        np.savez(folder / "it.npz", same=[1.0, np.nan], other=[1.0, last], seconds=[last])
        np.savez(folder / "cache" / "it.npz", other=[last])
        (folder / "it.csv").write_text(f"x,y\n1,{last}\n")
        (folder / "times.csv").write_text(f"seconds\n{last}\n")
        pairs.append(faults.results(folder))
    assert faults.differences(*pairs) == ["it.csv", "it.npz:other"]
    assert faults.differences(pairs[0], pairs[0]) == []
    assert faults.differences(pairs[0], {}) == sorted(pairs[0])


def test_every_stage_that_computes_meets_its_faults():
    """Weights in and out are files, and the published comparison is the other stages once more."""
    met = {stage for chain in faults.CHAINS for stage in chain.stages}
    assert met == set(pipeline.STAGES) - {"import", "export", "released"}
    # Mistyped keys would end a chain after the stages before them.
    for chain in faults.CHAINS:
        assert chain.keys.keys() == set(chain.stages.values())
        for config, keys in chain.keys.items():
            opening.open_config(config, [f"{key}={value}" for key, value in keys.items()])
