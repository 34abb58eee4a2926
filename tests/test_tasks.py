"""What researchers ask most often, as the page says it, each in at most the lines that it should take."""

import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from PIL import Image

import mixaug_jax
from mixaug_jax import command, data, mixing, models
from mixaug_jax.models import Preprocess, weights

pandas = pytest.importorskip("pandas", reason="the extra `test` brings it")

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "how-to" / "tasks.md"
# Of each section the most lines; blank ones do not count.
LINES = {
    "Ten photographs": 6,
    "The concepts of two networks": 4,
    "An augmentation of your own": 8,
    "Results as a data frame": 2,
    "A plain Flax network": 5,
    "Activations from anywhere": 3,
}


def blocks():
    """{the section's first words: its code}."""
    sections = PAGE.read_text().split("\n## ")[1:]
    found = {
        s.splitlines()[0]: re.search(r"```python\n(.*?)```", s, re.DOTALL)[1] for s in sections
    }
    return {k: next(code for title, code in found.items() if title.startswith(k)) for k in LINES}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """Paths of photographs of several sizes."""
    rng, paths = np.random.default_rng(0), []
    for k in range(10):
        paths.append(tmp_path / f"{k}.png")
        Image.fromarray(rng.integers(0, 256, (40 + k, 50, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def ran(name, **given):
    """The names that a section's code leaves."""
    names = {"np": np, "mixaug_jax": mixaug_jax, "Image": Image, "data": data, "pandas": pandas}
    names |= {"Preprocess": Preprocess} | given
    exec(compile(blocks()[name], "tasks.md", "exec"), names)  # what a reader would paste
    return names


@pytest.mark.parametrize("name", LINES)
def test_no_task_takes_more_lines_than_it_should(name):
    lines = [line for line in blocks()[name].splitlines() if line.strip()]
    assert len(lines) <= LINES[name]
    assert max(map(len, lines)) <= 100


def pictures(path):
    with Image.open(path) as picture:
        return picture.size


def test_overlays_of_photographs(photos, tmp_path):
    module = models.MODELS["resnet18"](3, width=0.0625, stem="cifar")
    variables = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    net = models.Net(module, variables, Preprocess(size=32, resize=36))
    weights.export_weights(net, tmp_path / "net.safetensors")
    found = ran("Ten photographs", PHOTOS=photos, WEIGHTS=tmp_path / "net.safetensors")
    assert {name: maps.shape[:3] for name, maps in found["maps"].items()} == {
        "gradcam": (10, 32, 32),
        "integrated_gradients": (10, 32, 32),
    }
    width, height = pictures("overlays.png")
    assert height > 2 * width  # ten rows of three


def with_concepts(size=24):
    source = toy.source(size)

    def read(index):
        example = source[index]
        return example | {"concepts": (example["image"][..., :1] > 90).astype(np.uint8)}

    names = (("none", "none"), ("bright", "object"))
    return data.Source(read, size, source.class_names, names, file_name=lambda k: f"{k}.jpg")


def test_concepts_of_two_networks_and_a_data_frame(trained, tmp_path, monkeypatch, capsys):
    toy.use(monkeypatch, with_concepts())
    second = toy.copy_run(trained, tmp_path / "again")
    layer = mixaug_jax.load(trained).layers[0]
    given = {"config": toy.config(), "LAYER": layer, "RUNS": (str(trained), str(second))}
    found = ran("The concepts of two networks", **given)
    assert not found["compared"].difference.any()  # of a network and itself
    assert pictures("concepts.png")[0] > 300
    assert "unique concepts" in capsys.readouterr().out
    net = mixaug_jax.load(trained)
    table = ran("Results as a data frame", net=net, dataset=found["dataset"])["table"]
    assert list(table.method.unique()) == ["gradcam", "random", "center", "sobel"]
    assert {"file", "label", "pointing_game", "deletion"} <= set(table)
    assert list(table.file[:2]) == ["0.jpg", "1.jpg"]


def test_an_own_augmentation_from_the_command_line(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(blocks()["An augmentation of your own"])
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    small = {"data.size": 16, "data.batch_size": 16, "eval.batch_size": 16, "model.name": "tiny"}
    small |= {"model.width": 1.0, "train.steps": 2, "train.warmup": 0.0, "mix.share": 0.3}
    overrides = [f"--config.{key}={value}" for key, value in small.items()]
    try:
        asked = ["--config=own.py", "--workdir=run", "--stage=train", *overrides]
        assert command.run(command.read(asked)) == 0
        config = mixaug_jax.load("run"), mixing.MIXERS["halves"]
    finally:
        mixing.MIXERS.pop("halves", None)
    images = np.arange(32, dtype=np.float32).reshape(2, 1, 16, 1)
    mixed, targets = config[1](None, images, np.eye(2, dtype=np.float32), share=0.25)
    np.testing.assert_array_equal(mixed[0, 0, :, 0], [*range(4), *range(20, 32)])
    np.testing.assert_allclose(targets, [[0.25, 0.75], [0.75, 0.25]])


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(nn.avg_pool(x, (8, 8), (8, 8)).reshape(x.shape[0], -1))


def test_a_plain_flax_network(photos):
    variables = CNN().init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    given = [np.asarray(Image.open(path)) for path in photos[:2]]
    found = ran("A plain Flax network", CNN=CNN, variables=variables, photos=given)
    assert found["maps"].shape == (2, 32, 32, 3)
    total = found["maps"].sum((1, 2, 3))
    net, x = found["net"], found["x"]
    change = net.logits(x) - net.logits(0 * x)
    expected = [change[k, label] for k, label in enumerate(found["labels"])]
    np.testing.assert_allclose(total, expected, rtol=0.05, atol=0.02)
    assert pictures("flax.png")[0] > 100


def test_activations_from_anywhere(capsys):
    rng = np.random.default_rng(0)
    segmentation = rng.choice(3, (12, 8, 8, 1), p=(0.96, 0.02, 0.02))
    planted = np.stack([segmentation[..., 0] == c for c in (1, 2)], -1).astype(np.float32)
    np.save("activations.npy", planted + rng.random(planted.shape, np.float32) / 9)
    np.save("segmentation.npy", segmentation)
    result = ran("Activations from anywhere")["result"]
    assert result.unique()[0].tolist() == [1, 1]
    assert capsys.readouterr().out.startswith("[[1 1]")
