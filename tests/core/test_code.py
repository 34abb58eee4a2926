"""Users' files, imported again."""

import sys

import pytest

from mixaug_jax.core import code
from mixaug_jax.core.entries import sha256

TEXT = """
from __future__ import annotations
import dataclasses

@dataclasses.dataclass
class Thing:
    size: int = 3
"""


@pytest.fixture
def file(tmp_path, request):
    """A file that no other test has imported."""
    path = tmp_path / "mine.py"
    path.write_text(f"# {request.node.name}{TEXT}")
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_same_file_is_one_module(file):
    found = code.import_recorded(file, sha256(file))
    assert found.Thing().size == 3
    assert code.import_recorded(file, sha256(file)) is found


def test_a_changed_file_is_not_run(file):
    before = sha256(file)
    file.write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"mine.py has changed since; .* \(--code=stored\)"):
        code.import_recorded(file, before)


def test_a_copy_is_run_where_it_is_asked_for(file, tmp_path):
    copy = tmp_path / "copy.py"
    copy.write_text(file.read_text())
    before = sha256(file)
    file.unlink()
    with pytest.raises(ValueError, match=r"mine\.py is not there; restore it, or run the stored"):
        code.import_recorded(file, before)
    found = code.import_recorded(file, before, stored=copy)
    assert found.__file__ == str(copy)
    assert code.import_recorded(file, before) is found
    copy.write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"copy\.py has changed since$"):
        code.import_recorded(file, "0" * 64, stored=copy)


def test_what_this_process_has_imported_is_that(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    import mine

    assert code.import_recorded(file, sha256(file)) is mine


def test_a_prompt_cannot_be_run_again():
    with pytest.raises(ValueError, match="at a prompt or in a notebook"):
        code.import_recorded("", "")


def test_a_file_that_fails_leaves_nothing(file):
    file.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            code.import_recorded(file, sha256(file))


def test_installed_packages_are_told_from_files():
    assert code.installed("numpy.linalg").__name__ == "numpy.linalg"
    assert code.installed("mixaug_jax.models.tiny_net").Tiny
    assert code.installed("wrapped_nets") is None
    assert code.installed("no_such_package.at_all") is None
    assert code.installed("__main__") is None
