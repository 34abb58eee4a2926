"""A folder whose pictures show several classes: its table, its splits, what cannot be, and a run on it."""

import numpy as np
import pytest
from own_folder import config, picture

import mixaug_jax
from mixaug_jax import data
from mixaug_jax.config import get_config
from mixaug_jax.core import say


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(say._console, "said", set())
    root = tmp_path / "photos"
    rows = ["file,cat,dog,sky"]
    for split, count in (("train", 12), ("val", 8)):
        for k in range(count):
            picture(root / split / "deep" / f"{k}.png", size=(20, 24), seed=k)
            rows.append(f"{split}/deep/{k}.png,{k % 2},{int(k % 3 == 0)},{'?' if k == 1 else 0.5}")
    (root / "labels.csv").write_text("\ufeff" + "\r\n".join(rows) + "\r\n", encoding="utf-8")
    return root


def test_targets_weights_and_the_class_to_explain(root):
    source = data.open_source("train", config(root))
    assert source.class_names == ("cat", "dog", "sky")
    assert source.multi_label
    names = [source.file_name(k) for k in range(len(source))]
    assert names == sorted(f"{k}.png" for k in range(12))
    example = source[names.index("3.png")]
    np.testing.assert_array_equal(example["targets"], [1, 1, 0.5])
    np.testing.assert_array_equal(example["weights"], [1, 1, 1])
    assert example["label"] == 0
    unknown = source[names.index("1.png")]
    np.testing.assert_array_equal(unknown["weights"], [1, 1, 0])
    np.testing.assert_array_equal(unknown["targets"], [1, 0, 0])


def test_splits_and_pictures_without_a_row(root, capsys):
    picture(root / "train" / "stray.png")
    assert [len(data.open_source(s, config(root))) for s in ("train", "validation")] == [12, 8]
    assert "train: 1 images without a row in labels.csv are left out" in capsys.readouterr().out
    (root / "val").rename(root / "elsewhere")
    table = root / "labels.csv"
    table.write_text("\n".join(r for r in table.read_text("utf-8").splitlines() if "val/" not in r))
    aside = config(root, validation_share=0.25)
    parts = [data.open_source(s, aside) for s in ("train", "validation")]
    assert [len(part) for part in parts] == [9, 3]
    held = [{part.file_name(k) for k in range(len(part))} for part in parts]
    assert not held[0] & held[1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,cat\ntrain/deep/0.png,1\n", "two classes or more"),
        ("file,cat,cat\ntrain/deep/0.png,1,0\n", "each once"),
        ("file,cat,dog\n", "and rows"),
        ("file,cat,dog\ntrain/deep/0.png,1\n", "1 rows have other than 3 cells"),
        ("file,cat,dog\ntrain/deep/0.png,1,yes\n", "a cell that is none of 0..1"),
        ("file,cat,dog\ntrain/deep/0.png,1,1.5\n", "a cell that is none of 0..1"),
        ("file,cat,dog\ntrain/none.png,1,0\n", "1 files are not there, such as"),
        ("file,cat,dog\ntrain/deep/0.png,1,0\ntrain/deep/0.png,1,0\n", "two rows for"),
    ],
)
def test_what_is_wrong_is_said(root, text, sentence):
    (root / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        data.open_source("train", config(root))


def test_a_run_on_it(root, tmp_path):
    """Asks for the loss that such labels need; then trains, and the result judges each class."""
    settings = get_config("cutmix", "folder")
    settings.data.update(dir=str(root), size=16, batch_size=8)
    settings.model.update(name="tiny", width=1.0)
    settings.train.update(epochs=1, warmup=0.0)
    settings.eval.batch_size = 8
    with pytest.raises(ValueError, match=r"train\.loss must be 'sigmoid' for folder"):
        mixaug_jax.train(settings, tmp_path / "run")
    settings.train.loss = "sigmoid"
    result = mixaug_jax.train(settings, tmp_path / "run")
    assert 0 <= result["validation_accuracy"] <= 1
    assert mixaug_jax.load(tmp_path / "run").loss == "sigmoid"
