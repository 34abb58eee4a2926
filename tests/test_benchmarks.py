"""The benchmarks that check and measure what a machine does run to their end at the tiniest size."""

import numpy as np

from benchmarks import accelerator, growth, mixing


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
    assert growth.hours(machine, 3600 * 1000, 3600 * 30) == 1.5
    assert growth.hours(machine, 3600 * 4000, 3600 * 30) == 2.0
    assert growth.hours(machine, 3600 * 400, 0) == 2.0
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
