"""The documentation: every page is in its menu, every entry in its reference, and its code is what runs."""

import pathlib
import re
import shlex
import types

import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import attribution, command, data, mixing, pipeline, scores
from mixaug_jax.config import opening
from mixaug_jax.core import entries
from mixaug_jax.study import __main__ as study_main

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
MENU = (ROOT / "mkdocs.yml").read_text()
# Of the how-to pages, which tests/test_how_to.py and test_tasks.py run.
OWN_FILES = ("stripes.py", "local_contrast.py", "halfmix.py", "two_convs.py", "center_of_mass.py")
OWN_FILES += ("confidence.py", "own.py")


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_every_page_is_in_the_menu_once():
    named = re.findall(r"[\w/-]+\.md", MENU.split("\nnav:")[1])
    assert sorted(named) == PAGES


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("mixing", mixing.MIXERS),
        ("attribution", attribution.METHODS),
        ("scores", scores.SCORES),
    ],
)
def test_the_reference_has_every_entry(page, table):
    text = (DOCS / "reference" / f"{page}.md").read_text()
    functions = map(entries.function_of, table.values())
    wanted = {f"{function.__module__}.{function.__qualname__}" for function in functions}
    assert set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)) == wanted


def test_the_reference_has_every_public_name():
    named = set()
    for page in (DOCS / "reference").glob("*.md"):
        named |= set(re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE))
    for name in set(mixaug_jax.__all__) - {"__version__"}:
        entry = getattr(mixaug_jax, name)
        assert f"{entry.__module__}.{entry.__qualname__}" in named


def test_the_gallery_shows_every_entry():
    """Drawn or scored, or said to be left out."""
    text = (DOCS / "gallery.md").read_text()
    for name in scores.SCORES:
        assert f"`{name}`" in text
    for picture in re.findall(r"\((gallery/\w+\.png)\)", text):
        assert (DOCS / picture).stat().st_size < 600_000


def test_links_between_pages_are_right():
    for page in PAGES:
        text = re.sub(r"^ {4}.*$", "", (DOCS / page).read_text(), flags=re.MULTILINE)  # code
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
            assert (DOCS / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    monkeypatch.setattr(
        mixaug_jax, "get_config", lambda **given: toy.config(steps=1), raising=False
    )
    (code,) = blocks("start.md")
    names = {}
    exec(compile(code, "start.md", "exec"), names)  # what a reader would paste
    assert names["result"]["step"] > 0


class Told:
    """In the place of a service's package: notes each call."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return self

        return call


def test_writers(tmp_path, monkeypatch, capsys):
    """The page's writer hears a training, and those of services tell them what their packages expect."""
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    own, *services = blocks("how-to/writers.md")
    names = {"mixaug_jax": mixaug_jax, "config": toy.config(steps=2), "workdir": tmp_path / "run"}
    exec(compile(own, "writers.md", "exec"), names)
    assert "{'train/first_step': (4, 16, 16, 3)}" in capsys.readouterr().out
    images = {"train/first_step": np.zeros((4, 16, 16, 3), np.uint8)}
    logged = {"wandb": ["init", "log", "Image", "log"], "mlflow": ["log_params", "log_metrics", "log_image"]}  # fmt: skip
    logged["trackio"] = ["init", "log", "Image", "log"]
    for (package, expected), code in zip(logged.items(), services, strict=True):
        service = Told()
        names = {package: service}
        exec(compile(code, "writers.md", "exec"), names)
        (kind,) = (one for one in names.values() if isinstance(one, type))
        assert len([line for line in code.splitlines() if line.strip()]) <= 8
        writer = kind()
        writer.write_hparams({"train.lr": 0.1})
        writer.write_scalars(3, types.MappingProxyType({"train_loss": 1.0}))
        writer.write_images(1, images)
        said = [name for name, _, _ in service.calls]
        assert [n for k, n in enumerate(said) if n not in said[:k] or n == "log"] == expected
        given = [args[0] for _, args, _ in service.calls if args and isinstance(args[0], dict)]
        assert {"train_loss": 1.0} in [one for one in given if "train_loss" in one]


def commands(module, short):
    """[(page, words)] of the command lines that pages show."""
    found = []
    for page in (*PAGES, "../README.md"):
        text = (DOCS / page).read_text().replace("\\\n", " ")
        called = rf"(?:{short}|python -m {module}) (-[^`\n]*)"
        lines = re.findall(rf"^ *{called}$|`{called}`", text, re.MULTILINE)
        found += [(page, shlex.split("".join(line), comments=True)) for line in lines]
    return found


@pytest.mark.parametrize(("page", "words"), commands(r"mixaug_jax\.main", "mixaug"))
def test_a_command_has_what_it_names(page, words):
    """Flags, config, settings with their values, and stage; the reader's own files have tests of their own."""
    asked = command.read(words)
    if asked.help or asked.config.partition(":")[0] in OWN_FILES:
        return
    opening.open_config(asked.config, asked.overrides)
    assert asked.stage in ("all", *pipeline.STAGES), page


@pytest.mark.parametrize(("page", "words"), commands(r"mixaug_jax\.study", "none"))
def test_a_study_can_be_planned(page, words, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (folder,) = [word for word in words if word.startswith("--workdir=")]
    words[words.index(folder)] = f"--workdir={tmp_path}"
    assert study_main.main([*words, "--list"]) == 0, page


def test_a_choice_of_explanations_names_what_there_is():
    rows = re.findall(r"^\|(.*)\|$", (DOCS / "which-explanation.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named <= {*attribution.METHODS, *scores.SCORES}
    assert {"gradcam", "gradient_x_attention", "deletion"} <= named
