"""Explanations, removals and predictions are the same however many processes have the devices, and each does its share."""

import pickle

import explain_cases
import jobs
import numpy as np
import pytest
import shared_work

BODY = """
import pickle, shared_work
pickle.dump(shared_work.everything("."), open(f"{me}.pickle", "wb"))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with four devices: this one."""
    return shared_work.everything(tmp_path_factory.mktemp("alone"))[0]


def assert_same(one, other, where="all"):
    """Scores to 1e-6; whatever is no float equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif np.asarray(one).dtype.kind == "f":
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=where)
    else:
        np.testing.assert_array_equal(one, other, err_msg=where)


@pytest.mark.parametrize(("processes", "devices"), [(2, 2), (4, 1)])
def test_the_same_in_every_process_of_every_job(alone, tmp_path, processes, devices):
    ended = jobs.run(tmp_path, BODY, processes, devices)
    assert [process.code for process in ended] == [0] * processes, ended[0].errors
    found = [pickle.loads((tmp_path / f"{k}.pickle").read_bytes()) for k in range(processes)]
    for everything, _ in found:
        assert_same(alone, everything)
    held = [mine for _, mine in found]
    seconds = [mine["seconds"] for mine in held]
    print(f"CPU seconds of {processes} processes: {np.round(seconds, 1)}")
    assert max(seconds) < 1.5 * min(seconds)
    # Each process holds those that it explains, also where others were left out.
    shown = np.concatenate([mine["images"][:, 0, 0, 0] for mine in held])
    assert len(shown) == shared_work.IMAGES - shared_work.LEFT_OUT
    assert (np.diff(shown) > 0).all()
    assert max(len(mine["images"]) for mine in held) <= -(-len(shown) // processes)
    # And reads hardly any others: a first one for its shape.
    share = -(-shared_work.IMAGES // processes)
    assert all(len(mine["reads"]) <= share + 1 for mine in held)


BROKEN = """
import dataclasses, explain_cases
plain, last = explain_cases.source(), explain_cases.IMAGES - 1
def read(index):
    if index == last and me == 1:
        raise ValueError(f"image {index} cannot be read")
    return plain.read(index)
explain_cases.evaluate(
    explain_cases.small_net(), dataclasses.replace(plain, read=read), methods=(), devices=None
)
"""


def test_an_image_that_one_process_cannot_read_ends_all(tmp_path):
    """The other one waits for its rows meanwhile."""
    first, second = jobs.run(tmp_path, BROKEN)
    assert (first.code, second.code) == (2, 2)
    sentence = f"image {explain_cases.IMAGES - 1} cannot be read"
    assert f"error: process 1 of the job ended with: {sentence}" in first.errors
    assert f"error: {sentence}" in second.errors
