"""The how-to pages' code is what runs: each page's file through its own stage, as written."""

import json
import pathlib
import re
import shlex
import sys
import types

import jax
import numpy as np
import pytest
import toy
from own_folder import config, picture, save_mask

import mixaug_jax
from mixaug_jax import attribution, data, mixing, models, pipeline, scores
from mixaug_jax.config import brought
from mixaug_jax.data.convert import __main__ as convert

PAGES = pathlib.Path(__file__).parents[1] / "docs" / "how-to"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


@pytest.fixture
def file_of(tmp_path):
    """The settings that a page's file gives; what it brings is taken back afterwards."""
    tables = (mixing.MIXERS, models.MODELS, data.SOURCES, attribution.METHODS, scores.SCORES, pipeline.STAGES)  # fmt: skip
    kept = [dict(table) for table in tables]

    def make(page):
        path = tmp_path / re.match(r'"""(\w+)\.py:', blocks(page)[0])[1]
        path = path.with_suffix(".py")
        path.write_text(blocks(page)[0])
        return brought.run_file(path)

    yield make
    for table, before in zip(tables, kept, strict=True):
        table.clear()
        table.update(before)


def small(settings):
    """As small as it gets, on pictures that need no file."""
    tiny = toy.config()
    settings.data.update(size=16, batch_size=16)
    settings.model.width = 1.0
    settings.eval.batch_size = 16
    settings.train.update(epochs=1, warmup=0.0, log_every=2)
    settings.explain.max_images = 6
    if settings.model.name == "resnet18":
        settings.model.name = tiny.model.name
    return settings


def train(settings, workdir, monkeypatch):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    pipeline.run(small(settings), workdir, "train")


def test_mixer(file_of, tmp_path, monkeypatch):
    module = file_of("mixer.md")
    train(module.get_config(), tmp_path / "run", monkeypatch)
    assert mixaug_jax.load(tmp_path / "run").layers
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    mixed, labels = module.halfmix(jax.random.key(0), images, targets, prob=1.0)
    np.testing.assert_array_equal(mixed[:, :3], images[:, :3])
    np.testing.assert_allclose(labels.sum(1), 1)


@pytest.mark.parametrize(
    ("page", "words"),
    [("method.md", "local_contrast,method,"), ("score.md", ",method,center_of_mass,")],
)
def test_method_and_score(file_of, trained, tmp_path, monkeypatch, page, words):
    settings = file_of(page).get_config()
    workdir = toy.copy_run(trained, tmp_path / "run")
    source = toy.source(8)

    def with_concepts(split):
        def read(index):
            example = source[index]
            return example | {"concepts": (example["image"][..., :1] > 90).astype(np.uint8)}

        names = (("none", "none"), ("bright", "object"))
        return data.Source(read, len(source), source.class_names, concept_names=names)

    toy.use(monkeypatch, with_concepts)
    config = toy.config()
    config.explain.methods = settings.explain.methods[-1:]
    config.explain.scores = settings.explain.scores
    config.explain.max_images = 6
    pipeline.run(config, workdir, "explain")
    assert words in (workdir / "attribution" / "scores.csv").read_text()


class Batches:
    """In the place of a tf.data.Dataset of (image, label), as the page calls it."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def batch(self, size, drop_remainder):
        assert drop_remainder
        count = len(self.arrays[0]) // size
        return Batches(*(a[: count * size].reshape(count, size, *a.shape[1:]) for a in self.arrays))

    def enumerate(self):
        self.counted = enumerate(zip(*self.arrays, strict=True))
        return self

    def as_numpy_iterator(self):
        return self.counted


class Tensor:
    """In the place of a torch.Tensor, where PyTorch is not installed."""

    def __init__(self, array):
        self.array = array

    def permute(self, *axes):
        return Tensor(self.array.transpose(axes))

    def numpy(self):
        return self.array

    def __int__(self):
        return int(self.array)


def stand_in_for_torch():
    stacked = lambda examples: [Tensor(np.stack(part)) for part in zip(*examples, strict=True)]  # noqa: E731
    loading = types.SimpleNamespace(default_collate=stacked)
    torch = types.SimpleNamespace(from_numpy=Tensor, utils=types.SimpleNamespace(data=loading))
    torch.randint = lambda high, shape: Tensor(np.random.default_rng(0).integers(high))
    return {"torch": torch, "torch.utils": torch.utils, "torch.utils.data": loading}


@pytest.fixture
def loops():
    """The page's blocks, the first one run, with 70 images and labels of ten classes."""
    rng = np.random.default_rng(0)
    names = {"images": rng.normal(size=(70, 8, 8, 3)).astype(np.float32)}
    names["labels"] = rng.integers(0, 10, 70)
    first, *others = blocks("loops.md")
    exec(compile(first, "loops.md", "exec"), names)  # what a reader would paste
    return names, dict(zip(("grain", "tensorflow", "torch"), others, strict=True))


def check_mixed(images, targets, step, names, chosen=slice(0, 32)):
    """As the mixer itself with the key of that step."""
    key = jax.random.fold_in(jax.random.key(0), int(step))
    own = np.eye(10, dtype=np.float32)[names["labels"][chosen]]
    expected = mixing.MIXERS["cutmix"](key, names["images"][chosen], own, alpha=1.0)
    np.testing.assert_allclose(images, expected[0], atol=1e-6)
    np.testing.assert_allclose(targets, expected[1], atol=1e-6)
    assert 0.5 < np.max(targets, 1).mean() <= 1


def test_grain_loop(loops):
    names, code = loops
    pairs = zip(names["images"], names["labels"], strict=True)
    names["source"] = [{"image": image, "label": label} for image, label in pairs]
    exec(compile(code["grain"], "loops.md", "exec"), names)
    first, second = names["loader"]
    again = next(iter(names["loader"]))
    assert first["image"].shape == second["image"].shape == (32, 8, 8, 3)
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_allclose(first["target"].sum(1), 1, atol=1e-6)
    assert set(np.count_nonzero(first["target"], 1)) <= {1, 2}
    assert not np.array_equal(first["target"], second["target"])


def test_tensorflow_loop(loops):
    names, code = loops
    exec(compile(code["tensorflow"], "loops.md", "exec"), names)
    found = list(names["mixed_batches"](Batches(names["images"], names["labels"])))
    assert len(found) == 2
    for step, (images, targets) in enumerate(found):
        check_mixed(images, targets, step, names, slice(32 * step, 32 * step + 32))


def test_pytorch_loop(loops, monkeypatch):
    """With a stand-in for PyTorch, which is no part of the extra `test`."""
    names, code = loops
    for name, module in stand_in_for_torch().items():
        monkeypatch.setitem(sys.modules, name, module)
    exec(compile(code["torch"], "loops.md", "exec"), names)
    channels_first = names["images"].transpose(0, 3, 1, 2)
    images, targets = names["collate"](list(zip(channels_first, names["labels"], strict=True))[:32])
    step = np.random.default_rng(0).integers(2**31)
    check_mixed(images.permute(0, 2, 3, 1).numpy(), targets.numpy(), step, names)


def test_data_set(file_of, tmp_path):
    settings = file_of("data-set.md").get_config()
    settings.train.update(epochs=2, lr=0.05)
    settings.model.name = "tiny"
    settings.data.batch_size = 16
    settings.eval.batch_size = 32
    pipeline.run(settings, tmp_path / "run", "train")
    source = data.open_source("validation", settings)
    assert source[1]["label"] == 1
    assert source[1]["concepts"].shape == (32, 32, 1)


def test_own_data(tmp_path, monkeypatch):
    """The page's commands, on files of the names that it gives, and the folders that they make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    for name in ("val2017/1", "VOC2012/JPEGImages/2", "images/Sphynx_3"):
        picture(tmp_path / f"{name}.png")
    box = {
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 1, 4, 5],
        "segmentation": [[1, 1, 5, 1, 5, 6]],
    }
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 9, "width": 7}],
        "annotations": [box],
    }
    content["categories"] = [{"id": 1, "name": "cat"}]
    (tmp_path / "instances_val2017.json").write_text(json.dumps(content))
    sides = zip(("xmin", "ymin", "xmax", "ymax"), (1, 2, 3, 4), strict=True)
    corners = "".join(f"<{side}>{at}</{side}>" for side, at in sides)
    (tmp_path / "VOC2012/Annotations").mkdir()
    (tmp_path / "VOC2012/Annotations/2.xml").write_text(
        f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    for name in ("VOC2012/SegmentationClass/2.png", "annotations/trimaps/Sphynx_3.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        save_mask(tmp_path, name, np.ones((9, 7)))
    text = (PAGES / "own-data.md").read_text()
    commands = re.findall(r"^python -m mixaug_jax\.data\.convert (.*)$", text, re.MULTILINE)
    assert [convert.main(shlex.split(line)) for line in commands] == [0, 0, 0]
    source = data.open_source("train", config("PHOTOS"))
    assert source[0]["boxes"].tolist() == [[1, 0, 4, 3]]
    assert source.concept_names[source[0]["concepts"].max()] == ("aeroplane", "object")
    assert data.open_source("validation", config("PHOTOS"))[0]["boxes"].tolist() == [[1, 1, 6, 5]]
    assert data.open_source("train", config("PETS", validation_split=""))[0]["concepts"].all()
    # What the page shows of the two files is what is read.
    for name, shown in re.findall(r"^(\w+)\.json +(\{.*\})$", text, re.MULTILINE):
        shown = re.sub(
            r"\b(row|col)[01]\b", lambda word: {"row0": "0", "col0": "0"}.get(word[0], "1"), shown
        )
        (tmp_path / "PHOTOS" / f"{name}.json").write_text(shown)
    picture(tmp_path / "PHOTOS/train/cat/1.jpg")
    save_mask(tmp_path / "PHOTOS", "masks/1.png", np.full((9, 7), 9))
    example = data.open_source("train", config("PHOTOS"))[0]
    assert (example["boxes"].tolist(), example["concepts"].max()) == ([[0, 0, 1, 1]], 0)


def test_network(file_of, tmp_path, monkeypatch):
    module = file_of("network.md")
    settings = module.get_config()
    train(settings, tmp_path / "run", monkeypatch)
    net = mixaug_jax.load(tmp_path / "run")
    assert net.layers == ("first", "norm", "second", "logits")
    names = vars(module)
    exec(compile(blocks("network.md")[1], "network.md", "exec"), names)  # what a reader would paste
    assert names["maps"].shape == (1, 8, 8, 16)


def test_stage(file_of, trained, tmp_path, monkeypatch, capsys):
    file_of("stage.md")
    workdir = toy.copy_run(trained, tmp_path / "run")
    toy.use(monkeypatch, toy.source(40))
    pipeline.run(toy.config(), str(workdir), "confidence")
    assert "The largest probability is 0." in capsys.readouterr().out
    assert len((workdir / "confidence" / "probabilities.csv").read_text().splitlines()) == 33
    text = mixaug_jax.write_report(workdir).read_text()
    assert "The largest probability is 0." in text
    assert 'href="#confidence"' in text


def test_activations(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    segmentation = rng.choice(3, (12, 8, 8, 1), p=(0.96, 0.02, 0.02))
    planted = np.stack([segmentation[..., 0] == c for c in (1, 2)], -1).astype(np.float32)
    np.save(tmp_path / "activations.npy", planted + rng.random(planted.shape, np.float32) / 9)
    np.save(tmp_path / "segmentation.npy", segmentation)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(blocks("activations.md")[0], "activations.md", "exec"), names)
    assert names["labels"].ravel().tolist() == [1, 2]
    # At the lowest threshold one concept of each category, and fewer by chance.
    assert names["unique"][0].tolist() == [1, 1]
    assert names["chance"][0].sum() < 2


def test_interventions(tmp_path, monkeypatch):
    """On a trained toy in the place of the scenes."""
    trained = tmp_path / "runs" / "cutmix-scenes"
    toy.train_run(trained)
    toy.copy_run(trained, tmp_path / "runs" / "baseline-scenes")
    monkeypatch.chdir(tmp_path)
    toy.use(monkeypatch, lambda split: toy.splits()[split])
    names = {}
    for block in blocks("interventions.md"):
        exec(compile(block, "interventions.md", "exec"), names)
    found, predicted = names["found"], names["found"].clean_predicted
    np.testing.assert_array_equal(found.predicted[:, 1], predicted)
    assert names["accuracy"][1] == (predicted == found.labels).mean()
    assert names["loss"].shape == (2,)
    assert names["change"].shape == (3, 4)
    assert np.abs(names["change"]).max() > 0
    # Of a network and itself.
    moved = names["matched"].correlation.any(1)
    assert moved.sum() > 1
    np.testing.assert_allclose(names["matched"].value[moved], 1, atol=1e-6)
