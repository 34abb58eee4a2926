"""The README's Python is what runs."""

import ast
import importlib
import inspect
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import mixaug_jax
from mixaug_jax.attribution import METHODS

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_linen_model_of_ones_own():
    (block,) = (block for block in BLOCKS if "nn.Module" in block)
    names = {}
    exec(compile(block, "README.md", "exec"), names)  # what a reader would paste
    net = names["net"]
    x = jnp.asarray(net.preprocess(np.full((40, 36, 3), 90, np.uint8)[:32, :32]))
    logits = net.logits(x[None])
    assert logits.shape == (1, 10)
    assert net.layers == ("conv", "fc")
    again = net.logits(x[None], layer="conv", value=net.features(x[None], "conv"))
    np.testing.assert_allclose(again, logits, rtol=1e-6)
    assert METHODS["gradcam"](net, x, 3, layer="conv").shape == (32, 32, 1)


def test_public_names():
    """All are in its code or its text, and nothing is that does not exist."""
    used = set(re.findall(r"\bmixaug_jax\.([A-Za-z_]+)", README)) - {"main"}  # python -m
    assert used >= {*mixaug_jax.__all__} - {"__version__"}
    for name in used:
        assert hasattr(mixaug_jax, name) or importlib.import_module(f"mixaug_jax.{name}"), name


def of_package(node, names):
    """The object of the package that a dotted name in code stands for, or None."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = of_package(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


@pytest.mark.parametrize("block", BLOCKS)
def test_calls_fit_the_functions(block):
    """Every name of the package exists, and takes the arguments that it is given."""
    tree, names = ast.parse(block), {}
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "README.md", "exec"), names)
    names = {k: v for k, v in names.items() if "mixaug_jax" in getattr(v, "__name__", "")
             or "mixaug_jax" in getattr(v, "__module__", "")}  # fmt: skip
    for node in ast.walk(tree):
        function = of_package(node.func, names) if isinstance(node, ast.Call) else None
        if function is not None:
            keywords = {keyword.arg: 0 for keyword in node.keywords}
            inspect.signature(function).bind(*node.args, **keywords)


def test_files_that_it_names_exist():
    root = pathlib.Path(__file__).parents[1]
    for name in re.findall(r"configs/[a-z_]+\.py|notebooks/[a-z_]+\.ipynb", README):
        assert (root / name).exists(), name
