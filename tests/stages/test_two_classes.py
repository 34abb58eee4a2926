"""A folder of two classes and a network with one logit, from the pictures to the page; and weights that came so."""

import jax
import numpy as np
import PIL.Image
import pytest
import toy

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import models, pipeline
from mixaug_jax.data import open_source
from mixaug_jax.explain import evaluation
from mixaug_jax.models import weights
from mixaug_jax.models.probability import probabilities
from mixaug_jax.occlusion import outcomes
from mixaug_jax.scores import SCORES
from mixaug_jax.stages import weights as stage


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Noise with a dark or a light middle."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for step, name in ((-70, "dark"), (70, "light")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(128, 20, (16, 16, 3))
                pixels[4:12, 4:12] += step
                picture = PIL.Image.fromarray(np.uint8(pixels.clip(0, 255)))
                picture.save(folder / f"{number}.png")
    return root


def settings(root, **train):
    config = mixaug_jax.get_config("cutmix", "folder")
    config.data.update(dir=str(root), size=16, batch_size=16, crop="none", jitter=0.0, resize=1.0)
    config.model.name = "tiny"
    config.train.update({"loss": "sigmoid", "epochs": 12, "lr": 0.1, "log_every": 100} | train)
    config.explain.update(
        methods=("gradcam", "integrated_gradients"), scores=("deletion",), replicates=5
    )
    config.occlude.update(
        rankings=("gradient",), selections=("top",), shares=(10.0, 50.0), values=("zero",)
    )
    config.stages = ("train", "explain", "occlude", "report")
    return config


def test_from_the_pictures_to_the_page(pictures, tmp_path, capsys):
    config = settings(pictures)
    pipeline.run(config, tmp_path / "run", "all")
    net = mixaug_jax.load(tmp_path / "run")
    assert net.loss == "sigmoid"
    source = open_source("validation", config)
    images = np.stack([net.preprocess(source[i]["image"]) for i in range(len(source))])
    labels = np.array([source[i]["label"] for i in range(len(source))])
    p = np.asarray(jax.jit(lambda net, x: probabilities(net, net.logits(x)))(net, images))
    assert net.logits(images[:1]).shape == (1, 1)
    assert p.shape == (16, 2)
    accuracy = (p.argmax(1) == labels).mean()
    assert accuracy > 0.9
    said = capsys.readouterr().out
    assert f"validation accuracy {accuracy:.4f}" in said
    assert "maps miss, median over images: integrated gradients " in said
    for name in ("gradcam", "random"):
        found = evaluation.load(tmp_path / "run" / "attribution" / f"{name}.npz")
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.predicted, p.argmax(1))
        curves = found.curves["deletion"]
        # A curve starts at the label's probability, and says something on its way.
        np.testing.assert_allclose(curves[:, 0], p[np.arange(16), labels], atol=1e-5)
        assert np.ptp(curves, axis=1).min() > 0.02
    sweep = outcomes.load(tmp_path / "run" / "occlusion" / "sweep.npz")
    loss = -np.log(p[np.arange(16), labels])
    true = sweep.job[list(sweep.settings["labels"]).index("true")]
    np.testing.assert_allclose(sweep.loss[true, 0], loss, atol=1e-4)
    np.testing.assert_array_equal(sweep.correct[true, 0], p.argmax(1) == labels)
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "the opposite one moves the area by: Grad-CAM 0." in page


def test_weights_with_one_logit(pictures, tmp_path):
    model = models.MODELS["tiny"](1)
    image = np.random.default_rng(0).normal(size=(16, 16, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), image[None])
    weights.export_weights(
        models.Net(model, variables, models.Preprocess(16)), tmp_path / "one.safetensors"
    )
    config = settings(pictures, loss="softmax")  # which nothing can be that has one logit
    config.weights = str(tmp_path / "one.safetensors")
    stage.import_run(config, tmp_path / "run")
    assert config_lib.read(tmp_path / "run").resolved.class_names == ("0", "1")
    net = mixaug_jax.load(tmp_path / "run")
    z = float(net.logits(image[None])[0, 0])
    heat = np.random.default_rng(1).normal(size=(16, 16)).astype(np.float32)
    deletion = jax.jit(lambda net, label: SCORES["deletion"](heat, net, image, label, window=4))
    curves = np.stack([deletion(net, label) for label in (0, 1)])
    np.testing.assert_allclose(curves.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(curves[1, 0], 1 / (1 + np.exp(-z)), atol=1e-6)
    assert np.ptp(curves, axis=1).min() > 1e-3


def test_a_saved_network_keeps_its_loss(tmp_path):
    model = models.MODELS["tiny"](3)
    variables = model.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    net = models.Net(model, variables, models.Preprocess(16), "sigmoid")
    mixaug_jax.save(net, tmp_path / "three", config=toy.config())
    assert mixaug_jax.load(tmp_path / "three").loss == "sigmoid"
