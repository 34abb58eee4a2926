"""The notebooks, cell by cell in a real kernel, at a small size, on one device and some on eight virtual ones."""

import ast
import base64
import importlib
import importlib.util
import io
import json
import os
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

import mixaug_jax

nbclient = pytest.importorskip("nbclient", reason="the extra `test` brings it")
nbformat = pytest.importorskip("nbformat", reason="comes with nbclient")
transformer = pytest.importorskip(
    "IPython.core.inputtransformer2", reason="comes with the extra's ipykernel"
)

ROOT = pathlib.Path(__file__).parents[1]
# In the order in which a reader takes them: the others find the network of the first.
NAMES = (
    "train_on_tpu",
    "dissect_and_attribute",
    "one_unit",
    "compare_augmentations",
    "explain_a_vit",
)
# What the tests add to the cell of settings, which the notebooks share. Of a study's runs only what is asserted here is made.
SMALL = """
whole, SEEDS = settings, (0,)
if "METHODS" in globals():
    few = ("attention_rollout", "gradient", "gradcam", "iba", "iba_readout", "expected_gradients")
    METHODS = {m: METHODS[m] for m in (*few, "random", "center", "sobel")}


def settings(method):
    config = whole(method)
    config.stages = ("train", "dissect", "explain")
    config.model.name = "tiny"
    config.data.update(size=32, batch_size=16)
    config.data.scenes.update(train=64, validation=32, test=32)
    config.train.update(epochs=2, log_every=1)
    config.eval.batch_size = 32
    config.dissect.update(max_images=16, shuffles=1, random_baseline=False)
    config.explain.update(max_images=8, methods=("gradient", "gradcam"))
    config.explain.scores = ("pointing_game", "deletion")
    config.intervene.update(max_images=16, sets=("units", "ranks"))
    return config
"""
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
            ran = cell["execution_count"] is not None
            assert all(stored(output) for output in cell["outputs"])
            assert ran or not cell["outputs"]
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 300_000
    assert "not run" in "".join(book["cells"][0]["source"]), "nobody has run them on a TPU"


def stored(output):
    """Whether an output is one that may stand in the file: no error, no warning, no path of a machine."""
    text = json.dumps(output)
    plain = (
        output["output_type"] in ("display_data", "execute_result") or output["name"] == "stdout"
    )
    return plain and not re.search(r"/(home|root|tmp|work|Users)/|Warning", text)


def script_of(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "notebooks" / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("name", NAMES)
def test_the_address_is_that_of_the_package(name):
    """Which stands in setup.py alone: a badge that opens this very notebook, and where pip takes the package from."""
    script = script_of("set_address")
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert script.changed(text, name, script.address()) == text
    other = script.changed(text, name, "https://github.com/someone/mixaug_jax")
    title, install = (
        "".join(cell["source"])
        for cell in json.loads(other)["cells"]
        if cell["id"] in ("title", "install")
    )
    badge = title.splitlines()[2]
    assert badge.endswith(f"/github/someone/mixaug_jax/blob/main/notebooks/{name}.ipynb)")
    assert 'SOURCE = "git+https://github.com/someone/mixaug_jax"' in install
    again = script.changed(other, name, "https://github.com/another/one")
    assert "someone" not in again
    assert again.count("colab.research") == 2
    assert "github.com" not in script.changed(again, name, ""), "no link that leads nowhere"


def test_stored_outputs_are_small():
    """Of what a kernel sends: a wide picture, a page, a warning, a line."""
    script = script_of("store_outputs")
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    picture = {
        "output_type": "display_data",
        "data": {"image/png": encoded, "text/plain": "<Figure>"},
    }
    kept = script.small(picture, 3)
    with Image.open(io.BytesIO(base64.b64decode(kept["data"]["image/png"]))) as found:
        assert (found.size, found.mode) == ((760, 15), "P")
    assert kept.keys() == {"output_type", "data", "metadata"}
    assert stored(kept)
    page = {"output_type": "execute_result", "data": {"text/html": "x" * 30_000}}
    warned = {"output_type": "stream", "name": "stderr", "text": "slow"}
    assert script.small(page, 1) == script.small(warned, 1) == {}
    said = {"output_type": "stream", "name": "stdout", "text": "8 x cpu"}
    assert script.small(said, 1) == said
    here = said | {"text": f"page {pathlib.Path.cwd()}/runs/a\n"}
    there = script.small(here, 1)
    assert there["text"] == "page runs/a\n"
    assert script.joined([said, there]) == [said | {"text": said["text"] + there["text"]}]
    shown = script.small({"output_type": "execute_result", "data": {"text/plain": "1"}}, 7)
    assert shown["execution_count"] == 7


def test_settings_are_one_cell_that_all_share():
    cells = [code_cells(name) for name in NAMES]
    assert len({found["settings"] for found in cells}) == 1
    assert not any("environ" in source for found in cells for source in found.values())


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
    """Only what is missing, from the clone that holds the notebook, or from where the reader says it is."""
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
    if not here and not variables["SOURCE"]:
        with pytest.raises(ValueError, match="say in SOURCE where the package is"):
            exec(source, variables)
        assert shell.magics == []
        source = re.sub('SOURCE = ""', 'SOURCE = "git+place"', source)
    exec(source, variables)
    assert shell.magics == [("pip", 'install -q "{JAX}" "{source}"')]  # IPython fills these in
    assert variables["source"] == (".." if here else variables["SOURCE"])
    assert variables["JAX"] == ("jax[tpu]" if name == NAMES[0] else "jax")


def environment(devices):
    """A kernel's, and that of the processes it starts: few optimizations, a compile cache."""
    return os.environ | {
        "MIXAUG_JAX_CACHE": "scenes",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(ROOT),
    }


def run(names, folder, devices):
    """Executes notebooks one after the other in a folder and one kernel; returns {cell's id: its outputs} of each.

    A kernel of its own for each would import and compile all again; in between, whatever a notebook named is forgotten.
    """
    whole = nbformat.v4.new_notebook()
    for name in names:
        book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        cells = [cell for cell in book.cells if cell.cell_type == "code"]
        for cell in cells:
            cell.source += SMALL if cell.id == "settings" else ""
            cell.id = f"{name}-{cell.id}"
        whole.cells += [*cells, nbformat.v4.new_code_cell("%reset -f")]
    client = nbclient.NotebookClient(
        whole, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment(devices))
    ran = {cell.id: cell.outputs for cell in whole.cells}
    return [{id_: ran[f"{name}-{id_}"] for id_ in code_cells(name)} for name in names]


def text(outputs):
    """All that a cell printed or shows as text."""
    return "".join(
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in outputs
    )


def figures_of(outputs, *ids):
    """How many pictures each of the cells shows."""
    return [sum("image/png" in o.get("data", {}) for o in outputs[id_]) for id_ in ids]


def check_first(outputs, devices):
    assert text(outputs["devices"]).startswith(f"{devices} x cpu")
    assert re.search(r"test accuracy 0\.\d+ \(32 images\)", text(outputs["train"]))
    assert figures_of(outputs, "augmentations", "curves") == [1, 1]
    assert "<iframe srcdoc=" in outputs["report"][-1].data["text/html"]


def check_second(outputs):
    assert "there is nothing to train" in text(outputs["load"])
    assert figures_of(outputs, "gallery", "curves", "concepts", "units") == [1, 1, 1, 1]
    assert "pointing_game" in text(outputs["scores"])


def check_unit(outputs):
    assert figures_of(outputs, "sheet", "needed") == [1, 1]
    assert re.search(r"^\w+ +\(\w+\)  IoU 0\.\d+, precision", text(outputs["detects"]))
    assert re.search(r"best label IoU 0\.\d+; .+: IoU 0\.\d+", text(outputs["form"]))
    assert text(outputs["force"]).count("by other units") == 3


def check_study(outputs, folder):
    assert "there is nothing to train" in (folder / "cutmix" / "0" / "log.txt").read_text()
    assert figures_of(outputs, "differences", "concepts") == [1, 1]
    # Networks of so few steps are at chance, which the sentences say before they compare anything.
    sentences = outputs["sentences"][0].data["text/markdown"]
    assert (
        "Accuracy: No augmentation can be compared to baseline: networks are at chance" in sentences
    )
    assert "|cutmix|test_accuracy|" in outputs["table"][0].data["text/markdown"]
    assert "<iframe srcdoc=" in outputs["page"][-1].data["text/html"]


def check_transformer(outputs):
    assert figures_of(outputs, "maps", "units") == [1, 1]
    rows = {line.split()[0]: line.split()[1:] for line in text(outputs["scores"]).splitlines()[1:]}
    assert rows["class_sensitivity"] == ["pointing_game"]
    # What does not look at the class draws both classes alike; what does, does not.
    assert float(rows["attention_rollout"][0]) == 1
    assert float(rows["gradient_x_attention"][0]) < 1
    assert "block4" in text(outputs["dissect"])


def test_on_one_device(tmp_path):
    first, second, unit, study, transformer = run(NAMES, tmp_path, 1)
    check_first(first, 1)
    check_second(second)
    check_unit(unit)
    check_study(study, tmp_path / "runs" / "notebooks")
    check_transformer(transformer)


def test_on_eight_devices(tmp_path):
    """A study's runs are processes, and explanations of one image use one device: those are left out."""
    first, second, unit = run(NAMES[:3], tmp_path, 8)
    check_first(first, 8)
    check_second(second)
    check_unit(unit)
