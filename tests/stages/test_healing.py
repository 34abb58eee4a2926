"""Results that are damaged: their stage makes them again, as they were; a page is not made of them."""

import planted
import pytest
import test_dissect
import test_explain
import test_occlude
import toy

from mixaug_jax.core import files
from mixaug_jax.report import writing
from mixaug_jax.stages import dissect, explain, occlude


def flipped(content):
    """One bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "flipped": flipped,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "list": lambda content: b"[]",
    "ff": lambda content: b"\xff",
}
STAGES = {
    "dissection": (dissect, test_dissect.settings, lambda split: planted.source(20)),
    "attribution": (explain, test_explain.settings, lambda split: test_explain.boxed()),
    "occlusion": (occlude, test_occlude.settings, lambda split: toy.splits()[split]),
}


@pytest.mark.parametrize("name", STAGES)
def test_the_stage_makes_again_what_is_damaged(name, trained, tmp_path, monkeypatch, capsys):
    stage, settings, source = STAGES[name]
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    toy.use(monkeypatch, source)
    workdir = toy.copy_run(trained, tmp_path / "run")
    config = settings()
    stage.run(config, workdir)
    folder = workdir / name
    good = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    # Each file by another kind of damage, all at once; one result stays, so that some of the work is done.
    spared = next(file for file in good if file.endswith(".npz"))
    if len([file for file in good if file.endswith(".npz")]) == 1:
        spared = ""
    for number, file in enumerate(sorted(good.keys() - {spared})):
        kind = [*DAMAGE][number % len(DAMAGE)]
        (folder / file).write_bytes(DAMAGE[kind](good[file]))
    capsys.readouterr()
    stage.run(config, workdir)
    said = capsys.readouterr().out
    for file in (file for file in good if file.endswith(".npz") and file != spared):
        assert f"{file} is no result of" in said
    for file, content in good.items():
        if not file.endswith((".npz", ".png", ".svg", ".pdf", files.SEALS)):
            assert (folder / file).read_bytes() == content, file
        assert files.is_intact(folder / file), file
    monkeypatch.setattr(files, "save_npz", None)  # nothing is made a third time
    stage.run(config, workdir)


def test_a_damaged_figure_is_drawn_again(trained, tmp_path, monkeypatch):
    toy.use(monkeypatch, lambda split: test_explain.boxed())
    workdir = toy.copy_run(trained, tmp_path / "run")
    explain.run(test_explain.settings(), workdir)
    path = workdir / "attribution" / "overlays.png"
    path.write_bytes(flipped(path.read_bytes()))
    assert not files.is_intact(path)
    explain.run(test_explain.settings(), workdir)
    assert files.is_intact(path)


TABLES = ("config.json", "versions.json", "attribution/scores.csv", "attribution/entries.json")


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("table", TABLES)
def test_a_page_of_damaged_tables_is_one_sentence(table, kind, page_run):
    path = page_run / table
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[kind](whole))
    with pytest.raises(files.DamagedError, match=f"{path} is damaged: ") as caught:
        writing.write_report(page_run)
    assert "\n" not in str(caught.value)
    path.write_bytes(whole)


@pytest.fixture(scope="module")
def page_run(trained, tmp_path_factory):
    """A working directory with explanations, and a page that has been made."""
    workdir = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        toy.use(patch, lambda split: test_explain.boxed())
        for name in ("config.json", "versions.json", "checksums.json"):
            (workdir / name).write_bytes((trained / name).read_bytes())
        (workdir / "checkpoints").symlink_to(trained / "checkpoints")
        explain.run(test_explain.settings(), workdir)
        writing.write_report(workdir)
        yield workdir
