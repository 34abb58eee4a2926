"""Damaged checkpoints and settings: told by their checksums, set aside or written again, and never used."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import files
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint, damage, metric_log, resuming


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("run")
    toy.train_run(workdir)
    return workdir


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it that may be damaged."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(autouse=True)
def noise(monkeypatch):
    """Runs that go on read the colored noise."""
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())


def bits(net):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(net.variables)]


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def flips(folder, count, seed=0):
    """(file, bit) of `count` places, each bit of all files as likely as any other."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = np.array([path.stat().st_size for path in found])
    rng = np.random.default_rng(seed)
    for place in rng.integers(sizes.sum() * 8, size=count):
        index = int(np.searchsorted(np.cumsum(sizes * 8), place, side="right"))
        yield found[index], int(place - (np.cumsum(sizes * 8)[index] - sizes[index] * 8))


def test_a_flipped_bit_is_never_used_without_a_word(trained, run, capsys):
    """Each leaves the network as it was, to the bit, or gives the one before it and a line that says so."""
    good = {step: bits(mixaug_jax.load(trained, step)) for step in (2, 4)}
    set_aside = 0
    for path, bit in flips(trained / "checkpoints" / "4", 24):
        copy = run / path.relative_to(trained)
        flip(copy, bit)
        found, said = bits(mixaug_jax.load(run)), capsys.readouterr().err
        if found == good[4]:  # of the state that only a resumed run reads, or of what nobody reads
            assert "damaged" not in said
        else:
            assert found == good[2]
            assert "checkpoint 4 is damaged" in said
            assert "the one before it is used" in said
            assert (run / "damaged" / "4").is_dir()
            set_aside += 1
        shutil.rmtree(run / "checkpoints" / "4", ignore_errors=True)
        shutil.copytree(trained / "checkpoints" / "4", run / "checkpoints" / "4")
    assert set_aside > 5


def another(tree):
    """The same but for one bit of one array."""
    leaves, structure = jax.tree.flatten(tree)
    values = np.array(leaves[-1])
    values.view(np.uint8).reshape(-1)[0] ^= 1
    return jax.tree.unflatten(structure, [*leaves[:-1], jax.numpy.asarray(values)])


def test_one_bit_of_one_array_is_told():
    tree = {"a": np.arange(3.0), "b": {"c": np.ones((2, 2), np.float32)}}
    known = damage.checksums(tree, {}, {"seed": 1}, {})
    assert known.keys() == {"variables/a", "variables/b/c", "config", "metrics"}
    damage.check_arrays(known, "variables", tree)
    with pytest.raises(files.DamagedError, match="the array variables/b/c differs"):
        damage.check_arrays(known, "variables", another(tree))


def rewrite(run, step, change):
    """Stores a checkpoint anew with other arrays under the old checksums."""
    path = run / "checkpoints" / str(step)
    known = (path / "checksums" / "metadata").read_text()
    config = config_lib.read(run)
    net = mixaug_jax.load(run, step)
    metrics = damage.read_json(path, "metrics")
    shutil.rmtree(path)
    with checkpoint.manager(run) as manager:
        items = {"variables": change(net.variables), "train": {"step": jax.numpy.int32(step)}}
        checkpoint.write_checkpoint(manager, step, **items, config=config, metrics=metrics)
    (path / "checksums" / "metadata").write_text(known)


def test_other_weights_under_the_same_checksums_are_not_loaded(run, capsys):
    rewrite(run, 4, another)
    with pytest.raises(ValueError, match="checkpoint=4 is not in"):
        mixaug_jax.load(run, 4)
    assert "the array variables/params" in capsys.readouterr().err
    assert checkpoint.steps(run, "all") == [2]


def test_stages_use_the_checkpoint_before_a_damaged_one(run, capsys):
    flip(run / "checkpoints" / "4" / "config" / "metadata", 1000)
    looked_at = []
    each_checkpoint(run, "latest", "x", "", lambda net, folder, step: looked_at.append(step))
    assert looked_at == [2]
    assert "checkpoint 4 is damaged (its config" in capsys.readouterr().err


def test_processes_agree_before_a_checkpoint_is_moved(run, monkeypatch):
    """One that looks later would find nothing, and would not come by where the others wait."""
    path, there = run / "checkpoints" / "4", []
    monkeypatch.setattr(damage.devices_lib, "barrier", lambda name: there.append(path.exists()))
    damage.set_aside(path, files.DamagedError("planted"))
    assert there == [True, False]


def test_a_process_that_is_gone_damages_nothing():
    def broken():
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")

    with pytest.raises(ValueError, match="Gloo") as raised:
        damage.read_arrays(broken)
    assert not isinstance(raised.value, files.DamagedError)


def test_one_process_reads_alone(trained, run):
    """It moves nothing, for the others would have to know."""
    assert bits(checkpoint.load_alone(run)) == bits(mixaug_jax.load(trained, 4))
    flip(run / "checkpoints" / "4" / "config" / "metadata", 1000)
    assert bits(checkpoint.load_alone(run)) == bits(mixaug_jax.load(trained, 2))
    assert (run / "checkpoints" / "4").is_dir()
    flip(run / "checkpoints" / "2" / "config" / "metadata", 1000)
    with pytest.raises(ValueError, match="has no whole checkpoint"):
        checkpoint.load_alone(run)


@pytest.mark.parametrize("which", ["best", "all"])
def test_the_best_and_all_leave_damaged_ones_out(which, run):
    rewrite(run, 4, another)
    assert [step for step, _ in checkpoint.loaded(run, which)] == [2]


def test_where_none_is_left_that_is_one_sentence(run):
    for step in (2, 4):
        flip(run / "checkpoints" / str(step) / "checksums" / "metadata", 200)
    with pytest.raises(ValueError, match=r"no whole checkpoint left .* run --stage=train first"):
        mixaug_jax.load(run)


def test_a_run_goes_on_before_a_damaged_state(trained, run, capsys):
    """Whatever of the last checkpoint is damaged, the run ends with the same bits."""
    config = toy.config(epochs=1, keep_every=0.5, checkpoint_every=0.5)
    rewrite(run, 4, lambda tree: tree)  # without the optimizer's state
    mixaug_jax.train(config, run)
    assert "going on from the checkpoint of step 2" in capsys.readouterr().out
    assert bits(mixaug_jax.load(run)) == bits(mixaug_jax.load(trained))


def test_checkpoints_of_before_the_checksums_are_read(trained, run):
    for step in (2, 4):
        shutil.rmtree(run / "checkpoints" / str(step) / "checksums")
    assert bits(mixaug_jax.load(run)) == bits(mixaug_jax.load(trained))


def test_what_another_process_trains_is_left_where_it_is(run, capsys, monkeypatch):
    def busy(path):
        raise files.BusyError("the folder is in use by process 1 on here")

    flip(run / "checkpoints" / "4" / "config" / "metadata", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(files, "claim", busy)
        mixaug_jax.load(run)
    assert "left where it is, because the folder is in use by process 1" in capsys.readouterr().err
    assert (run / "checkpoints" / "4").is_dir()


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "random": lambda content: np.random.default_rng(0).bytes(200),
    "flipped": lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    "list": lambda content: b"[]",
    "null": lambda content: b"null",
    "nested": lambda content: b"[" * 10**5,
    "other": lambda content: b'{"data": 3}',
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "versions.json"])
def test_settings_are_written_again_from_a_checkpoint(name, kind, run, capsys):
    before = (run / name).read_text()
    (run / name).write_bytes(DAMAGE[kind](before.encode()))
    resuming.heal_settings(run)
    assert f"{name} was damaged, and is written again from checkpoint 4" in capsys.readouterr().out
    assert json.loads((run / name).read_text()) == json.loads(before)


@pytest.mark.parametrize("kind", DAMAGE)
def test_settings_that_cannot_be_healed_end_in_one_sentence(kind, run):
    path = run / "config.json"
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    shutil.rmtree(run / "checkpoints")
    for read in (config_lib.read, resuming.heal_settings):
        with pytest.raises(files.DamagedError, match=r"config\.json is damaged: "):
            read(run)


def test_damaged_lines_of_the_log_are_left_out(run, capsys):
    path = run / "metrics.jsonl"
    good = metric_log.read(run)
    assert good[-1].keys() >= {"step", "test_accuracy"}
    text = path.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.integers(len(text) * 8, size=200):
        flip(path, int(bit))
        found = metric_log.read(run)
        # A digit beyond the precision changes nothing; an end of a line takes two with it.
        assert len(good) - 2 <= len(found)
        assert all(line in good for line in found)
        path.write_bytes(text)
    for line in (b"null\n", b"3\n", b"\xff\n", b"{}\n", b'{"step": "a"}\n', b"[" * 10**5 + b"\n"):
        path.write_bytes(line + text + line)
        assert metric_log.read(run) == good
    # The score that a damaged line held is measured again.
    path.write_bytes(text.replace(b'"test_accuracy": ', b'"test_accuracy": 1'))
    config = toy.config(epochs=1, keep_every=0.5, checkpoint_every=0.5)
    assert mixaug_jax.train(config, run)["test_accuracy"] == good[-1]["test_accuracy"]
    assert "1 of 7 lines are damaged" in capsys.readouterr().out
