"""Files that are whole or not there, locks that their holder's end frees, and results that come back as they were."""

import json
import os
import signal
import subprocess
import sys
import threading
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.core import __version__, files

HOLDER = """
import fcntl, pathlib, sys, time
with pathlib.Path(sys.argv[1]).open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "made" / "on the way" / "file"
    with files.whole(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"
    with files.whole(path) as file:  # until then the old one stands
        file.write(b"new")
        assert path.read_bytes() == b"half"
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    def fail(path):
        with files.whole(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "file")
    assert os.listdir(tmp_path) == []
    files.write_text(tmp_path / "file", "before")
    with pytest.raises(RuntimeError):
        fail(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_two_writers_of_one_file_leave_one_whole(tmp_path):
    path = tmp_path / "file"
    with files.whole(path) as first:
        first.write(b"first")
        # Another process has another number.
        program = (
            "import sys; from mixaug_jax.core import files; files.write_text(sys.argv[1], 'second')"
        )
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["file"]


@pytest.fixture
def holder(tmp_path):
    """A second process that holds the lock file `lock`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_waits_for_its_holder_and_is_freed_by_its_end(tmp_path, holder, monkeypatch):
    happened = []

    def kill():
        happened.append("killed")
        holder.send_signal(signal.SIGKILL)

    def speak(text):
        happened.append(text)
        threading.Timer(0.2, kill).start()

    monkeypatch.setattr(files.say, "line", speak)
    with files.lock(tmp_path / "lock", "waiting"):
        assert happened == ["waiting", "killed"]
    assert holder.wait() == -signal.SIGKILL


def test_a_free_lock_says_nothing_and_can_be_taken_again(tmp_path, capsys):
    for _ in range(2):
        with files.lock(tmp_path / "new folder" / "lock", "waiting"):
            pass
    assert capsys.readouterr().out == ""


def test_a_held_lock_excludes_a_second_process(tmp_path):
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with files.lock(tmp_path / "lock"):
        tried = subprocess.run(command, capture_output=True, text=True)
        assert "BlockingIOError" in tried.stderr
    assert subprocess.run(command).returncode == 0


def test_a_lock_is_freed_by_an_error(tmp_path):
    with pytest.raises(RuntimeError), files.lock(tmp_path / "lock"):
        raise RuntimeError
    with files.lock(tmp_path / "lock"):
        pass


def test_csv_comes_back(tmp_path):
    rows = [["a, b", 1, 0.25, ""], ['say "c"', -3, 1e-30, "nan"]]
    files.write_csv(tmp_path / "t.csv", ("name", "count", "share", "note"), rows)
    first, second = files.read_csv(tmp_path / "t.csv")
    assert first == {"name": "a, b", "count": 1, "share": 0.25, "note": ""}
    assert [second[k] for k in ("name", "count", "share")] == ['say "c"', -3, 1e-30]
    assert np.isnan(second["note"])
    assert [type(value) for value in first.values()] == [str, int, float, str]
    assert b"\r" not in (tmp_path / "t.csv").read_bytes()
    assert files.read_csv(tmp_path / "none.csv") == []


def test_columns_of_text_stay_as_they_are_written(tmp_path):
    rows = [[name, "007"] for name in ("007", "1e3", "-1", "=1", "'=1", "")]
    files.write_csv(tmp_path / "t.csv", ("name", "count"), rows)
    found = files.read_csv(tmp_path / "t.csv", text=("name",))
    assert [row["name"] for row in found] == [name for name, _ in rows]
    assert {row["count"] for row in found} == {7}


def test_json_and_text_are_utf8(tmp_path):
    value = {"title": "Grad-CAM für alle", "sizes": [1, 2.5, None, True]}
    files.write_json(tmp_path / "v.json", value)
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8")) == value
    files.write_text(tmp_path / "t.txt", "für\n")
    assert (tmp_path / "t.txt").read_bytes() == "für\n".encode()


def test_a_log_grows(tmp_path):
    for line in ("one\n", "two\n"):
        with files.append(tmp_path / "log") as file:
            file.write(line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


ARRAYS = {"maps": np.arange(6, dtype=np.float32).reshape(2, 3), "names": np.array(["a", "bc"])}
SETTINGS = {"seed": 3, "layers": ["relu1"], "q": 0.01}


def result(arrays, settings):
    return types.SimpleNamespace(arrays=arrays, settings=settings)


def load(path):
    return files.load_npz(path, result, "a test")


def test_results_come_back_with_their_settings(tmp_path):
    path = tmp_path / "folder" / "result.npz"
    files.save_npz(path, ARRAYS, SETTINGS)
    found = load(path)
    assert found.settings == SETTINGS
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    with np.load(path) as stored:  # what other readers find
        assert int(stored["format"]) == files.FORMAT
        versions = json.loads(str(stored["versions"]))
    assert versions["mixaug_jax"] == __version__
    assert versions["numpy"] == np.__version__


@pytest.mark.parametrize(("stored", "said"), [({"format": np.array(7)}, 7), ({}, 1)])
def test_another_format_is_refused_in_a_sentence(tmp_path, stored, said):
    path = tmp_path / "old.npz"
    notes = {"settings": np.array("{}"), "versions": np.array("{}")}
    np.savez(path, **ARRAYS, **notes, **stored)
    with pytest.raises(ValueError, match="is no result of a test: ") as caught:
        load(path)
    assert str(caught.value) == (
        f"{path} is no result of a test: it has the format {said}, this version reads {files.FORMAT}"
    )


def test_what_is_no_result_is_refused_by_name(tmp_path):
    path = tmp_path / "result.npz"
    files.save_npz(path, ARRAYS, SETTINGS)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"result\.npz is no result of a test: "):
            load(path)
    with pytest.raises(ValueError, match=r"none\.npz is no result of a test: .*No such file"):
        load(tmp_path / "none.npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(ValueError, match="is no result of a test"):
        load(path)
    files.save_npz(path, ARRAYS, SETTINGS)
    with pytest.raises(ValueError, match="is no result of another kind: 'counts'"):
        files.load_npz(path, lambda arrays, settings: arrays["counts"], "another kind")


def test_a_result_of_other_settings_is_as_good_as_none(tmp_path):
    path = tmp_path / "result.npz"
    assert files.load_if(load, path, SETTINGS) is None
    files.save_npz(path, ARRAYS, SETTINGS)
    assert files.load_if(load, path, SETTINGS).settings == SETTINGS
    assert files.load_if(load, path, SETTINGS | {"seed": 4}) is None
    path.write_bytes(b"damaged")
    assert files.load_if(load, path, SETTINGS) is None


def test_a_checksum_is_of_bytes_in_order():
    tree = {"b": np.arange(6.0).reshape(2, 3), "a": [jnp.ones(2), np.int32(3)]}
    known = files.checksum(tree)
    assert 0 <= known < 2**32
    assert (
        files.checksum({"a": [np.ones(2, np.float32), jnp.int32(3)], "b": np.arange(6.0)}) == known
    )
    assert files.checksum({**tree, "b": tree["b"].T}) != known
    assert files.checksum({**tree, "a": [jnp.ones(2), np.int32(4)]}) != known


def test_a_checksum_of_parts_is_that_of_all():
    parts = [np.arange(7.0), [np.zeros((2, 3), np.uint8), np.ones(1, np.int16)], (), np.arange(3)]
    known = [(files.checksum(part), files.byte_count(part)) for part in parts]
    assert [count for _, count in known] == [56, 8, 0, 24]
    assert files.joined_checksum(known) == files.checksum(parts) != files.joined_checksum(known[:3])


def test_a_file_is_extended_by_others_which_go(tmp_path):
    whole, *others = (tmp_path / name for name in "abc")
    for path in (whole, *others):
        path.write_bytes(path.name.encode() * 3)
    files.extend(whole, others)
    assert whole.read_bytes() == b"aaabbbccc"
    assert list(tmp_path.iterdir()) == [whole]
