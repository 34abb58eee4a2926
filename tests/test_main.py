"""The command line: one clear sentence and an exit code for what cannot work."""

import pathlib
import subprocess
import sys

import pytest

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
            "there is no config configs/nothing.py; those that come with the package are baseline, ",
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
