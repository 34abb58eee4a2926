"""The page's picture of augmentations: images as training sees them, with their labels."""

import re

import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import data
from mixaug_jax.report import augmentations


@pytest.fixture(scope="module", autouse=True)
def _noise():
    """Every split is 48 pictures of noise of six classes."""
    source = toy.source(48, classes=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", lambda split, config, annotations=True: source)
        yield


def test_pictures_are_what_training_sees(tmp_path):
    configs = {name: toy.config(name) for name in ("mixup", "cutout", "manifold_mixup")}
    shown = augmentations.pictures({"baseline": toy.config(), **configs}, tmp_path / "p.npz")
    assert shown.names == ("images", "mixup", "cutout", "manifold_mixup")
    assert shown.held_out == 48
    originals, source = shown.images[0], toy.source(48, classes=6)
    assert sorted(shown.labels[0]) == [f"level {k}" for k in range(6)]
    by_label = dict(zip(shown.labels[0], originals.astype(np.float64), strict=True))
    for label, image in by_label.items():
        examples = [source[i] for i in range(48) if f"level {source[i]['label']}" == label]
        assert any(np.array_equal(image, example["image"]) for example in examples)
    mixed = 0
    for row in (1, 3):
        for image, label in zip(shown.images[row], shown.labels[row], strict=True):
            shares = re.findall(r"(level \d) ([\d.]+)", label) or [(label, 1)]
            mixed += len(shares) - 1
            expected = sum(float(share) * by_label[name] for name, share in shares)
            np.testing.assert_allclose(image, expected, atol=2)
    assert mixed > 6
    cut = (shown.images[2] != originals).any(-1)
    assert shown.labels[2] == shown.labels[0]
    assert (cut.sum((1, 2)) <= 64).all()  # 8 x 8 of 16 x 16
    again = augmentations.pictures({"baseline": toy.config(), **configs}, tmp_path / "p.npz")
    np.testing.assert_array_equal(again.images, shown.images)
    assert (again.names, again.labels, again.held_out) == (shown.names, shown.labels, 48)


def test_labels_by_attention_are_the_trained_networks(tmp_path, monkeypatch):
    """As the step makes them, of the checkpoint's attention; no row where there is no checkpoint."""
    config = toy.config("cutmix", epochs=1)
    config.model.name, config.model.width, config.mix.label = "vit_micro", 0.1, "attention"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_splits", lambda config: toy.splits())
        mixaug_jax.train(config, tmp_path / "run")
    monkeypatch.setattr(augmentations, "DRAWS", 1)
    configs = {"cutmix": config}
    assert augmentations.pictures(configs, tmp_path / "p.npz").names == ("images",)
    shown = augmentations.pictures(configs, tmp_path / "q.npz", {"cutmix": tmp_path / "run"})
    assert shown.names == ("images", "cutmix")
    assert "mix.label=attention has it from the trained network" in augmentations.label_words(
        configs
    )
    config.mix.label = "mixed"
    plain = augmentations.pictures(configs, tmp_path / "r.npz")
    np.testing.assert_array_equal(plain.images, shown.images)
    assert plain.labels[1] != shown.labels[1]


def test_pictures_of_what_looks_at_a_network(trained, tmp_path):
    """It sees the network of the run; where there is none, and none in the file of a teacher, it has no row."""
    configs = {name: toy.config(name) for name in ("baseline", "attentivemix", "batchmixup")}
    places = {"attentivemix": trained}
    shown = augmentations.pictures(configs, tmp_path / "p.npz", places)
    assert shown.names == ("images", "attentivemix", "batchmixup")
    changed = (shown.images[1] != shown.images[0]).any(-1)
    cells = changed.reshape(6, 4, 4, 4, 4).any((2, 4))  # of the network's 4 x 4 nodes 6 stay
    assert (cells.sum((1, 2)) <= 10).all()
    assert cells.any()
    alone = augmentations.pictures(configs, tmp_path / "q.npz")
    assert alone.names == ("images", "batchmixup")
    with configs["attentivemix"].unlocked():
        configs["attentivemix"].mix.net = str(tmp_path / "gone.pth")
    assert augmentations.pictures(configs, tmp_path / "r.npz", places).names == alone.names
