"""What damage and company do to files: told by checksums, formulas that stay text, folders that one process has at a time."""

import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

from mixaug_jax.core import files

CLAIMER = """
import sys, time
from mixaug_jax.core import files
with files.claim(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def claimer(tmp_path):
    """A second process that claims `work/run.lock`."""
    command = [sys.executable, "-c", CLAIMER, str(tmp_path / "work" / "run.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_comes_second_is_told_who_holds_a_folder(tmp_path, claimer):
    path = tmp_path / "work" / "run.lock"
    (path.parent / "result").write_text("of the first")
    said = rf"work is in use by process {claimer.pid} on \S+ since [\d: -]+; wait until that ends"
    with pytest.raises(files.BusyError, match=said), files.claim(path):
        pass
    # A dead holder holds nothing, whatever it left in the file.
    claimer.send_signal(signal.SIGKILL)
    claimer.wait()
    assert path.read_text()
    with files.claim(path):
        assert f"process {os.getpid()} on" in path.read_text()
    assert path.read_text() == ""


def test_a_process_may_claim_again_what_it_holds(tmp_path):
    path = tmp_path / "run.lock"
    with files.claim(path):
        with files.claim(path):
            pass
        command = [sys.executable, "-c", CLAIMER, str(path)]
        tried = subprocess.run(command, capture_output=True, text=True)
        assert f"in use by process {os.getpid()}" in tried.stderr


def test_a_claim_under_which_nothing_was_done_leaves_no_folder(tmp_path):
    with files.claim(tmp_path / "mistyped" / "run.lock"):
        pass
    assert not (tmp_path / "mistyped").exists()
    with files.claim(tmp_path / "used" / "run.lock"):
        files.write_text(tmp_path / "used" / "result", "")
    assert (tmp_path / "used" / "result").exists()


FORMULAS = [
    "=1+1",
    "+cmd",
    "-cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "'=1",
    "''@x",
    "--",
    "-5%",
]
PLAIN = ["cat", "'quoted'", "a=b", "", "'", "''"]


def test_no_text_of_a_table_is_a_formula(tmp_path):
    path = tmp_path / "t.csv"
    files.write_csv(path, ("=name", "n"), [[text, -1.5] for text in FORMULAS + PLAIN])
    cells = [line.partition(b",")[0].lstrip(b'"') for line in path.read_bytes().split(b"\n")[1:]]
    assert not [
        cell for cell in cells if cell[:1] in (b"=", b"+", b"-", b"@", b"\t", b"\r") and cell
    ]
    found = files.read_csv(path)
    assert [row["=name"] for row in found] == FORMULAS + PLAIN
    assert {row["n"] for row in found} == {-1.5}
    assert path.read_text().splitlines()[1] == "'=1+1,-1.5"  # numbers stay numbers


def test_numbers_as_text_stay_as_they_are(tmp_path):
    numbers = ["-3", "+2", "-1e-05", "-inf", "nan", "0.25"]
    files.write_csv(tmp_path / "t.csv", ("n",), [[text] for text in numbers])
    assert (tmp_path / "t.csv").read_text().split() == ["n", *numbers]


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "flipped": lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:],
    "list": lambda content: b"[]",
    "null": lambda content: b"null",
    "ff": lambda content: b"\xff",
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["t.csv", "v.json"])
def test_damage_of_tables_and_settings_is_named(name, kind, tmp_path):
    files.write_csv(tmp_path / "t.csv", ("a", "b"), [[1, 2.5], [3, 4.5], [5, 6.5]])
    files.write_json(tmp_path / "v.json", {"a": 1, "b": [1, 2, 3]})
    files.seal(tmp_path)
    path, read = tmp_path / name, files.read_csv if name == "t.csv" else files.read_json
    whole = read(path)
    path.write_bytes(DAMAGE[kind](content := path.read_bytes()))
    assert not files.is_intact(path)
    with pytest.raises(
        files.DamagedError, match=rf"{name} is damaged: it is not as it was written"
    ):
        read(path)
    path.write_bytes(content)
    assert files.is_intact(path)
    assert read(path) == whole


@pytest.mark.parametrize("kind", ["empty", "random", "list", "null", "ff"])
def test_damage_is_named_without_a_seal_too(kind, tmp_path):
    for name, read in (("t.csv", files.read_csv), ("v.json", files.read_json)):
        (tmp_path / name).write_bytes(DAMAGE[kind](b"a,b\n" * 99))
        if name == "v.json" or kind in ("empty", "random", "ff"):
            with pytest.raises(files.DamagedError, match=f"{name} is damaged: "):
                read(tmp_path / name)
        else:  # a table of one column without rows
            assert read(tmp_path / name) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 10**5])
def test_a_damaged_list_of_checksums_says_nothing_and_is_made_again(content, tmp_path):
    files.write_text(tmp_path / "t.txt", "text")
    (tmp_path / files.SEALS).write_bytes(content)
    assert files.read_text(tmp_path / "t.txt") == "text"
    files.seal(tmp_path, ["t.txt"])
    files.write_text(tmp_path / "t.txt", "tex!")
    assert not files.is_intact(tmp_path / "t.txt")


def test_a_seal_of_single_files_keeps_the_others(tmp_path):
    for name in "ab":
        files.write_text(tmp_path / name, name)
        files.seal(tmp_path, [name])
    files.write_text(tmp_path / "a", "x")
    files.write_text(tmp_path / "b", "x")
    assert not files.is_intact(tmp_path / "a")
    assert not files.is_intact(tmp_path / "b")
    assert not files.is_intact(tmp_path / "c")


def result(arrays, settings):
    return types.SimpleNamespace(arrays=arrays, settings=settings)


def load(path):
    return files.load_npz(path, result, "a test")


def test_a_flipped_bit_of_a_result_changes_nothing_or_is_named(tmp_path, capsys):
    """Large arrays too: of these np.load may not read the end, where the checksum is compared."""
    path, settings = tmp_path / "r.npz", {"seed": 3}
    arrays = {"big": np.random.default_rng(0).normal(size=5000), "small": np.arange(6)}
    files.save_npz(path, arrays, settings)
    content, named = path.read_bytes(), 0
    places = np.random.default_rng(1).integers(len(content) * 8, size=60)
    for place in [*map(int, places), *range(len(content) * 8 - 176, len(content) * 8)]:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = load(path)
        except files.DamagedError as error:
            assert "r.npz is no result of a test: " in str(error)  # noqa: PT017
            assert files.load_if(load, path, settings) is None
            assert "; it is made again" in capsys.readouterr().out
            named += 1
            continue
        assert found.settings == settings
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array)
    assert named > 40


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_result_is_named(kind, tmp_path):
    path = tmp_path / "r.npz"
    files.save_npz(path, {"a": np.arange(5)}, {})
    whole = path.read_bytes()
    damaged = whole[:-30] + b"\0" + whole[-29:] if kind == "flipped" else DAMAGE[kind](whole)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"r\.npz is no result of a test: "):
        load(path)
