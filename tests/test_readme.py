"""The README's Python is what runs."""

import ast
import pathlib
import re

import jax.numpy as jnp
import numpy as np

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
    again = net.between(net.features(x[None], "conv"), "conv")
    np.testing.assert_allclose(again, logits, rtol=1e-6)
    assert METHODS["gradcam"](net, x, 3, layer="conv").shape == (32, 32, 1)


def test_public_names():
    nodes = [node for block in BLOCKS for node in ast.walk(ast.parse(block))]
    used = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "mixaug_jax"
    }
    assert used >= {*mixaug_jax.__all__} - {"attribute"}  # which its text names
    for name in used:
        assert hasattr(mixaug_jax, name), name


def test_files_that_it_names_exist():
    root = pathlib.Path(__file__).parents[1]
    for name in re.findall(r"configs/[a-z_]+\.py|notebooks/[a-z_]+\.ipynb", README):
        assert (root / name).exists(), name
