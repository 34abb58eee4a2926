"""Entries that a user brings: through all stages, a study, and fresh processes."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import mixaug_jax
from mixaug_jax import attribution, mixing, models, scores
from mixaug_jax.config import brought

FILE = pathlib.Path(__file__).parent / "brought" / "everything.py"
ROOT = pathlib.Path(__file__).parents[1]


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The file, where a user keeps it, and the working directory of a run of it, made by the command line."""
    place = tmp_path_factory.mktemp("brought")
    file = shutil.copy(FILE, place / "mine.py")
    code, out, err = python(
        "-m", "mixaug_jax.main", f"--config={file}", f"--workdir={place / 'run'}"
    )
    assert code == 0, err
    return pathlib.Path(file), place / "run", out


def test_a_run_uses_what_its_file_brings(run):
    file, workdir, _ = run
    rows = (workdir / "attribution" / "scores.csv").read_text()
    assert "brightness,method,left_share" in rows
    assert (workdir / "dissection" / "conv2.npz").exists()
    config = json.loads((workdir / "config.json").read_text())
    noted = json.loads(config["resolved"]["code"])
    assert list(noted) == [str(file)]
    assert noted[str(file)]["entries"]["MIXERS"] == {"averaged": "averaged"}
    (copy,) = (workdir / "code").iterdir()
    assert copy.read_bytes() == file.read_bytes()


def test_a_fresh_process_reports_and_loads(run):
    _, workdir, _ = run
    shutil.rmtree(workdir / "report")
    script = f"import mixaug_jax; print(mixaug_jax.write_report({str(workdir)!r}))"
    code, out, err = python("-c", script)
    assert code == 0, err
    text = (workdir / "report" / "report.html").read_text()
    assert "share on the left" in text or "left share" in text
    script = f"import mixaug_jax; print(mixaug_jax.load({str(workdir)!r}).layers)"
    code, out, err = python("-c", script)
    assert code == 0, err
    assert "conv2" in out


def test_code_of_another_place_is_not_run_unasked(run, tmp_path):
    file, workdir, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    script = f"""
import mixaug_jax
try:
    mixaug_jax.load({str(tmp_path / "run")!r})
except ValueError as error:
    print(error)
else:
    raise SystemExit("it was loaded")
mixaug_jax.load({str(tmp_path / "run")!r}, code="stored")
"""
    file.rename(gone := tmp_path / "gone.py")
    try:
        code, out, err = python("-c", script)
        assert code == 0, err
        assert f"{file.name}, which is not there" in out
        assert 'code="stored" (--code=stored)' in out
    finally:
        gone.rename(file)


def test_changed_code_is_said(run, tmp_path):
    file, workdir, _ = run
    before = file.read_text()
    try:
        file.write_text(before + "\n# changed\n")
        script = f"import mixaug_jax; mixaug_jax.load({str(workdir)!r})"
        code, _, err = python("-c", script)
        assert code
        assert "which has changed since" in err
        command = ("-m", "mixaug_jax.main", f"--config={file}", f"--workdir={workdir}")
        code, _, err = python(*command, "--config.train.epochs=3")
        assert code == 2
        assert "has changed" in err
    finally:
        file.write_text(before)


def test_a_study_of_two(run, tmp_path):
    file, _, _ = run
    other = tmp_path / "plain.py"
    text = file.read_text().replace('get_config("averaged"', 'get_config("baseline"')
    other.write_text(text)
    folder = f"--workdir={tmp_path / 'study'}"
    configs = f"--configs={other},{file}"
    code, _, err = python("-m", "mixaug_jax.study", configs, "--seeds=0", folder)
    assert code == 0, err
    rows = (tmp_path / "study" / "tables" / "means.csv").read_text()
    assert "complexity,left_share,brightness" in rows
    script = f"import mixaug_jax; mixaug_jax.write_report({str(tmp_path / 'study')!r})"
    code, _, err = python("-c", script)
    assert code == 0, err


def test_in_one_process_after_other_calls(tmp_path, monkeypatch):
    """Entries may be added at any time, also after the first use of the dicts."""
    tables = (
        mixing.MIXERS,
        models.MODELS,
        mixaug_jax.data.SOURCES,
        attribution.METHODS,
        scores.SCORES,
    )
    kept = [dict(table) for table in tables]
    try:
        config = mixaug_jax.get_config("cutmix", "scenes")  # the dicts have been looked at
        brought.run_file(FILE)
        config = brought.run_file(FILE).get_config()
        mixaug_jax.run(config, tmp_path / "run")
        net = mixaug_jax.load(tmp_path / "run")
        source = mixaug_jax.data.open_source("validation", config)
        found = mixaug_jax.evaluate(net, source, methods=("brightness",), scores=("left_share",))
        values = found["brightness"].scores["left_share"]
        labels = np.array([source[i]["label"] for i in range(len(source))])
        assert values[labels == 0].mean() > 0.6 > 0.4 > values[labels == 1].mean()
    finally:
        for table, before in zip(tables, kept, strict=True):
            table.clear()
            table.update(before)
