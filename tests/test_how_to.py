"""The how-to pages' code is what runs: each page's file through its own stage, as written."""

import json
import pathlib
import re
import shlex

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
