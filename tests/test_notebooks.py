"""The notebooks, cell by cell in a real kernel, at a small size, on one device and on eight virtual ones."""

import ast
import importlib
import importlib.util
import json
import os
import pathlib
import re

import pytest

import mixaug_jax

nbclient = pytest.importorskip("nbclient", reason="the extra `test` brings it")
nbformat = pytest.importorskip("nbformat", reason="comes with nbclient")
transformer = pytest.importorskip(
    "IPython.core.inputtransformer2", reason="comes with the extra's ipykernel"
)

ROOT = pathlib.Path(__file__).parents[1]
# In the order in which a reader takes them: the others find the network of the first.
NAMES = ("train_on_tpu", "dissect_and_attribute", "compare_augmentations", "one_unit")
SECONDS = 900  # for one cell, on a machine with other work


def read(name):
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_cells(name):
    """{id: source} of the cells of code."""
    return {
        cell["id"]: "".join(cell["source"])
        for cell in read(name)["cells"]
        if cell["cell_type"] == "code"
    }


def python(source):
    """What a kernel makes of a cell: plain Python."""
    return transformer.TransformerManager().transform_cell(source)


def test_all_are_here():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_file(name):
    book = read(name)
    nbformat.validate(book)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"].pop("accelerator", "") == ("TPU" if name == NAMES[0] else "")
    assert book["metadata"].keys() == {"kernelspec", "language_info"}
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z]+(-text)?", id_) for id_ in ids), "ids that say what a cell is"
    for cell in book["cells"]:
        assert cell["metadata"] == {}
        assert len(cell["source"]) <= 20, cell["id"]
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert "not run" in "".join(book["cells"][0]["source"]), "nobody has run them on a TPU"


@pytest.mark.parametrize("name", NAMES)
def test_the_address_is_that_of_the_package(name):
    """Which stands in setup.py alone: a badge that opens this very notebook, and where pip takes the package from."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    spec = importlib.util.spec_from_file_location("set_address", ROOT / "notebooks/set_address.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = path.read_text(encoding="utf-8")
    assert script.changed(text) == text
    url = re.search(r'^URL = "(.*)"', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]
    assert f'REPOSITORY = "{url}"' in code_cells(name)["install"]
    badge = "".join(read(name)["cells"][0]["source"]).splitlines()[2]
    assert badge.endswith(f"/github/{url.partition('.com/')[2]}/blob/main/notebooks/{name}.ipynb)")
    other = script.changed(text.replace("OWNER/", "someone-else/"))
    assert other == text


def test_settings_are_one_cell_that_all_share():
    cells = [code_cells(name) for name in NAMES]
    assert len({found["settings"] for found in cells}) == 1
    for found in cells:
        assert [id_ for id_, source in found.items() if "environ" in source] == ["settings"]


def names_of(source):
    """What a cell uses of the package: {"mixaug_jax": names}, {"mixaug_jax.report": names}, ..."""
    used = {}
    for node in ast.walk(ast.parse(python(source))):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "mixaug_jax":
            used.setdefault("mixaug_jax", set()).add(node.attr)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mixaug_jax"):
            used.setdefault(node.module, set()).update(alias.name for alias in node.names)
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            assert not re.match("_[^_]", name), f"{name} is private"
    return used


def test_names_are_public():
    flat = set()
    for name in NAMES:
        for id_, source in code_cells(name).items():
            for module, used in names_of(source).items():
                assert not any(part.startswith("_") for part in [*module.split("."), *used])
                if id_ == "imports":
                    for one in used:
                        assert is_there(module, one), f"{module} has no {one}"
                else:
                    assert module == "mixaug_jax", "imports are in their own cell"
                    flat |= used
    assert flat <= set(mixaug_jax.__all__)


def is_there(module, name):
    return hasattr(importlib.import_module(module), name) or bool(
        importlib.util.find_spec(f"{module}.{name}")
    )


class Shell:
    """In place of IPython: keeps the magics that a cell asks for."""

    def __init__(self):
        self.magics = []

    def run_line_magic(self, magic, line):
        self.magics.append((magic, line))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("here", [True, False])
def test_install(name, here, tmp_path, monkeypatch):
    """Only what is missing, from the clone that holds the notebook, or from its address."""
    source = python(code_cells(name)["install"])
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    if here:
        (tmp_path / "setup.py").touch()
    shell = Shell()
    variables = {"get_ipython": lambda: shell}
    exec(source, variables)
    assert shell.magics == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(source, variables)
    assert shell.magics == [("pip", 'install -q "{JAX}" "{source}"')]  # IPython fills these in
    assert variables["source"] == (".." if here else f"git+{variables['REPOSITORY']}")
    assert variables["JAX"] == ("jax[tpu]" if name == NAMES[0] else "jax")


def environment(devices):
    """A kernel's, and that of the processes it starts: few optimizations, a compile cache."""
    return os.environ | {
        "MIXAUG_JAX_SMALL": "1",
        "MIXAUG_JAX_CACHE": "scenes",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(ROOT),
    }


def run(name, folder, devices):
    """Executes a notebook in a folder; returns {cell's id: its outputs}."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment(devices))
    return {cell.id: cell.outputs for cell in book.cells if cell.cell_type == "code"}


def text(outputs):
    """All that a cell printed or shows as text."""
    return "".join(
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in outputs
    )


def figures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("devices", [1, 8])
def test_run(devices, tmp_path):
    first, second, third, fourth = (run(name, tmp_path, devices) for name in NAMES)
    assert text(first["devices"]).startswith(f"{devices} x cpu")
    assert re.search(r"test accuracy 0\.\d+ \(32 images\)", text(first["train"]))
    assert "there is nothing to train" in text(second["load"])
    studied = (tmp_path / "runs" / "notebooks" / "cutmix" / "0" / "log.txt").read_text()
    assert "there is nothing to train" in studied
    for outputs, shown in (
        (first, ("augmentations", "curves")),
        (second, ("gallery", "curves", "concepts", "units")),
        (third, ("differences", "concepts")),
        (fourth, ("sheet", "needed")),
    ):
        assert {id_: figures(outputs[id_]) for id_ in shown} == dict.fromkeys(shown, 1)
    assert "pointing_game" in text(second["scores"])
    assert re.search(r"^\w+ +\(\w+\)  IoU 0\.\d+, precision", text(fourth["detects"]))
    assert re.search(r"best label IoU 0\.\d+; .+: IoU 0\.\d+", text(fourth["form"]))
    assert text(fourth["force"]).count("by other units") == 3
    # Networks of so few steps are at chance, which the sentences say before they compare anything.
    sentences = third["sentences"][0].data["text/markdown"]
    assert (
        "Accuracy: No augmentation can be compared to baseline: networks are at chance" in sentences
    )
    assert "|cutmix|test_accuracy|" in third["table"][0].data["text/markdown"]
    for page in (first["report"][-1], third["page"][-1]):
        assert "<iframe srcdoc=" in page.data["text/html"]
