"""The command line: one clear sentence and an exit code for what cannot work."""

import pathlib
import shlex
import subprocess
import sys

import pytest

from mixaug_jax import command as command_line
from mixaug_jax.config import opening

ROOT = pathlib.Path(__file__).parents[1]


def command(*flags):
    """Runs the command from the project's root."""
    return subprocess.run(
        [sys.executable, "-m", "mixaug_jax.main", *flags], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "--config=NAME[:DATA] is needed"),
        (
            ["--config=configs/nothing.py"],
            "there is no config configs/nothing.py; those that come with the package are alignmix, ",
        ),
        (
            ["--config=configs/cutmix.py", "--config.train.lrr=1"],
            "unknown key train.lrr (did you mean train.lr?)",
        ),
        (["--config=configs/cutmix.py:folder", "--config.data.dir=/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_work_is_one_sentence(flags, sentence, tmp_path):
    run = command(*flags, f"--workdir={tmp_path / 'run'}")
    assert run.returncode == 2
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith("error: ")
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_every_config_file_takes_every_data_set():
    from mixaug_jax.config import get_config
    from mixaug_jax.mixing import MIXERS

    names = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert names >= {"baseline", *MIXERS}
    for name in ("baseline", *MIXERS):
        scope = {}
        exec((ROOT / "configs" / f"{name}.py").read_text(), scope)
        assert f"configs/{name}.py" in scope["__doc__"]
        assert scope["get_config"]() == get_config(name, "scenes")
        for data in ("cifar10", "cifar100", "imagenet2012", "folder"):
            assert scope["get_config"](data) == get_config(name, data)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--config=cutmix"], "mixaug --config=baseline"),
        (
            [
                "--config=configs/cutmix.py",
                "--workdir=a b",
                "--config.mix.alpha=0.5",
                "--config.seed=3",
            ],
            "mixaug --config=configs/baseline.py '--workdir=a b-baseline' --config.seed=3",
        ),
        (["--config=baseline:scenes"], "mixaug --config=cutmix:scenes"),
    ],
)
def test_the_next_line_is_a_command_that_opens(words, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    asked = command_line.read(words)
    found = command_line._next(asked, opening.open_config(asked.config))
    assert found == line
    again = command_line.read(shlex.split(found)[1:])
    assert opening.open_config(again.config).mix.name != opening.open_config(asked.config).mix.name


def test_the_next_line_keeps_a_config_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import mixaug_jax\n\n\ndef get_config():\n    return mixaug_jax.get_config('mixup', 'scenes')\n"
    )
    asked = command_line.read([f"--config={path}"])
    found = command_line._next(asked, opening.open_config(asked.config))
    assert found == f"mixaug --config={path} --config.mix.name=none"


def test_a_reader_that_has_enough_is_no_error():
    """As `mixaug -h | head -1`."""
    words = [sys.executable, "-m", "mixaug_jax", "-h"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_a_config_without_data_sets_takes_none(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import mixaug_jax\n\n\ndef get_config():\n    return mixaug_jax.get_config()\n"
    )
    assert opening.open_config(str(path)).data.name == "scenes"
    with pytest.raises(ValueError, match=r"mine\.py takes no data set: write --config=.*mine\.py$"):
        opening.open_config(f"{path}:folder")
