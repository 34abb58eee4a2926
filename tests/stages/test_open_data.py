"""Data that people have, each through all stages: a saved set, a folder of ImageNet's classes, several labels, no masks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from own_folder import picture

import mixaug_jax
from mixaug_jax import models, pipeline
from mixaug_jax.config import get_config
from mixaug_jax.core import files
from mixaug_jax.models import Preprocess, imagenet

SPLITS = {"train": 12, "val": 8}


def saved_set(root):
    datasets = pytest.importorskip("datasets", reason="the extra `test` brings it")
    datasets.disable_progress_bars()
    box = {"bbox": datasets.List(datasets.Value("float32"), length=4)}
    box["category"] = datasets.ClassLabel(names=["cat", "dog"])
    columns = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    features = datasets.Features(columns | {"objects": datasets.List(box)})
    made = {}
    for split, count in SPLITS.items():
        pixels = np.random.default_rng(count).integers(0, 256, (count, 20, 24, 3), np.uint8)
        labels = [k % 2 for k in range(count)]
        rows = {"image": [PIL.Image.fromarray(one) for one in pixels], "label": labels}
        rows["objects"] = [[{"bbox": [2, 3, 9, 8], "category": label}] for label in labels]
        made[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(made).save_to_disk(root)
    return "hf"


def folder(root, classes):
    for split, count in SPLITS.items():
        for k in range(count):
            picture(root / split / classes[k % 2] / f"{k}.png", size=(20, 24), seed=k)
    return "folder"


def several(root):
    rows = ["file,cat,dog"]
    for split, count in SPLITS.items():
        for k in range(count):
            picture(root / split / f"{k}.png", size=(20, 24), seed=k)
            rows.append(f"{split}/{k}.png,{k % 2},{int(k % 3 > 0)}")
    (root / "labels.csv").write_text("\n".join(rows))
    return "folder"


def small(data, root):
    config = get_config("cutmix", data)
    config.data.update(dir=str(root), size=16, batch_size=8)
    config.model.update(name="tiny", width=1.0)
    config.train.update(epochs=1, warmup=0.0)
    config.eval.batch_size = 8
    config.dissect.update(shuffles=1, random_baseline=False, max_images=6)
    config.explain.update(methods=("gradient",), scores=("pointing_game", "deletion"), max_images=4)
    config.stages = ("train", "dissect", "explain", "report")
    return config


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["saved", "several", "plain"])
def test_through_all_stages(root, kind, tmp_path, capsys):
    """Where no masks are, colors are the concepts; boxes are pointed at where there are some."""
    make = {"saved": saved_set, "several": several, "plain": lambda r: folder(r, ("cat", "dog"))}
    config = small(make[kind](root), root)
    if kind == "several":
        config.train.loss = "sigmoid"
    run = tmp_path / "run"
    pipeline.run(config, run)
    said = capsys.readouterr().out
    assert "only computed colors are looked for" in said
    rows = files.read_csv(run / "dissection" / "counts.csv")
    assert {row["category"] for row in rows} == {"color", "total"}
    scores = {row["score"] for row in files.read_csv(run / "attribution" / "scores.csv")}
    assert ("pointing_game" in scores) == (kind == "saved")
    assert "deletion" in scores
    images = files.read_csv(run / "attribution" / "images.csv")
    assert bool(images[0]["file"]) == (kind != "saved")  # whose pictures have no names
    assert "<html" in (run / "report" / "report.html").read_text()
    assert json.loads((run / "config.json").read_text())["resolved"]["class_names"] == [
        "cat",
        "dog",
    ]


def test_a_folder_of_imagenets_classes_with_a_network_of_all(root, tmp_path, capsys):
    """Goldfish and tench: the network's classes 1 and 0, and not the folder's 0 and 1."""
    folder(root, ("goldfish", "n01440764"))
    module = models.MODELS["tiny"](imagenet.CLASSES)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    net = models.Net.wrap(module, variables, Preprocess(size=16, resize=16))
    config = small("folder", root)
    mixaug_jax.save(net, tmp_path / "run", config=config)
    pipeline.run(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert (
        "2 classes are classes of ImageNet by their names: goldfish is n01443537, number 1" in said
    )
    rows = files.read_csv(tmp_path / "run" / "attribution" / "images.csv")
    assert {row["label"] for row in rows} == {0, 1}
    even = [int(row["file"].partition(".")[0]) % 2 == 0 for row in rows]  # the goldfish
    assert [row["label"] for row in rows] == even
    assert "true class" in said
    assert mixaug_jax.training.predictions.load(tmp_path / "run").label.max() == 1
