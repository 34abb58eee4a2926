"""A study whose files are damaged: named, written again, and runs that have to heal are not taken for finished."""

import json

import numpy as np
import pytest

from mixaug_jax import config as config_lib
from mixaug_jax.core import files
from mixaug_jax.study import gather, plan, runs

DAMAGE = {
    "flipped": lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:],
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "random": lambda content: np.random.default_rng(0).bytes(200),
    "list": lambda content: b"[]",
    "null": lambda content: b"null",
}


@pytest.fixture
def made(tmp_path):
    configs = {name: config_lib.get_config(name) for name in ("baseline", "cutmix")}
    planned = plan.make_plan(configs, (0,), tmp_path / "study")
    plan.write_asked(planned, tmp_path / "study", ())
    return planned


@pytest.mark.parametrize("kind", DAMAGE)
def test_its_list_of_runs_is_named_and_written_again(kind, made, tmp_path, capsys):
    path = tmp_path / "study" / "study.json"
    path.write_bytes(DAMAGE[kind](whole := path.read_bytes()))
    with pytest.raises(files.DamagedError, match=r"study\.json is damaged: "):
        gather(tmp_path / "study")
    plan.write_asked(made, tmp_path / "study", ())
    assert "it is written anew, for the runs of this command alone" in capsys.readouterr().err
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", ["{", "[]", "null", "3", ""])
def test_a_list_of_another_kind_is_named_without_a_checksum(content, made, tmp_path):
    (tmp_path / "study" / files.SEALS).unlink()
    (tmp_path / "study" / "study.json").write_text(content)
    with pytest.raises(files.DamagedError, match=r"study\.json is damaged: "):
        plan.read_asked(tmp_path / "study")


def test_a_run_with_a_damaged_result_is_not_finished(made):
    run = made[0]
    files.save_npz(run.workdir / "dissection" / "relu4.npz", {"a": np.arange(100)}, {})
    files.write_csv(run.workdir / "dissection" / "units.csv", ("a",), [[1]])
    files.seal(run.workdir / "dissection")
    names = ["dissection/relu4.npz", "dissection/units.csv"]
    found = {"settings": plan.settings(run.config), "files": names}
    files.write_json(run.workdir / "finished.json", found)
    assert runs.finished(run)
    for name in names:
        path = run.workdir / name
        content = path.read_bytes()
        path.write_bytes(content[:-30] + bytes(30) if name.endswith("z") else b"a\n2\n")
        assert not runs.finished(run)
        path.write_bytes(content)
        assert runs.finished(run)
    for other in (b"[]", b"null", b"\xff", json.dumps(found | {"files": ["gone"]}).encode()):
        (run.workdir / "finished.json").write_bytes(other)
        assert not runs.finished(run)
