"""What Python calls keep in a working directory is what the page shows; and results as data frames."""

import numpy as np
import pytest
import toy

import mixaug_jax
from mixaug_jax import data, dissection, explain
from mixaug_jax.core import files
from mixaug_jax.training import predictions

pandas = pytest.importorskip("pandas", reason="the extra `test` brings it")


def with_concepts(size=24):
    """The noise, its bright pixels an object, and names of files."""
    source = toy.source(size)

    def read(index):
        example = source[index]
        return example | {"concepts": (example["image"][..., :1] > 90).astype(np.uint8)}

    names = (("none", "none"), ("bright", "object"))
    given = {"concept_names": names, "file_name": lambda index: f"{index}.jpg"}
    return data.Source(read, size, source.class_names, **given)


@pytest.fixture(scope="module")
def kept(trained, tmp_path_factory):
    """A run that only Python has dissected and explained: its folder, the dissections and the evaluations."""
    workdir = toy.copy_run(trained, tmp_path_factory.mktemp("kept") / "run")
    net, dataset = mixaug_jax.load(workdir), with_concepts()
    options = dissection.Options(shuffles=1, random_baseline=False)
    units = mixaug_jax.dissect(net, dataset, net.layers[:1], options, workdir=workdir)
    asked = {"methods": ("gradient",), "scores": ("pointing_game", "deletion")}
    options = explain.Options(max_images=6)
    found = mixaug_jax.evaluate(net, dataset, **asked, options=options, workdir=workdir)
    return workdir, units, found


def test_the_page_shows_what_was_kept(kept):
    workdir, units, _ = kept
    page = mixaug_jax.write_report(workdir).read_text()
    assert "dissect: not run" not in page
    assert "explain: not run" not in page
    (layer,) = units
    assert (workdir / "dissection" / f"unique_{layer}.png").is_file()
    assert (workdir / "attribution" / "overlays.png").is_file()
    again = dissection.load(workdir / "dissection" / f"{layer}.npz")
    np.testing.assert_array_equal(again.counts, units[layer].counts)


def test_scores_of_images_with_their_files(kept):
    workdir, _, found = kept
    rows = files.read_csv(workdir / "attribution" / "images.csv")
    assert len(rows) == 6 * len(found)
    table = found["gradient"].to_frame(with_concepts())
    assert list(table.file) == [f"{index}.jpg" for index in found["gradient"].indices]
    first = [row for row in rows if row["method"] == "gradient"]
    np.testing.assert_allclose([row["deletion"] for row in first], table.deletion)
    np.testing.assert_array_equal([row["file"] for row in first], table.file)
    np.testing.assert_array_equal(table.label, found["gradient"].labels)


def test_a_folder_that_is_no_run_is_refused_before_any_work(tmp_path):
    for call in (
        lambda: mixaug_jax.dissect(None, (), ("layer4",), workdir=tmp_path),
        lambda: mixaug_jax.evaluate(None, (), methods=(), scores=(), workdir=tmp_path),
    ):
        with pytest.raises(ValueError, match="is no working directory of a run"):
            call()


def test_predictions_units_and_removals_as_frames(trained):
    found = predictions.load(trained)
    table = found.to_frame(toy.splits()["test"])
    assert table.right.mean() == found.accuracy
    assert set(table.label) <= {f"level {k}" for k in range(4)}
    assert list(found.to_frame().label) == list(found.label)
    net, source = mixaug_jax.load(trained), with_concepts(8)
    sets = np.eye(net.features(np.zeros((1, 16, 16, 3), np.float32), net.layers[0]).shape[-1]) > 0
    removed = dissection.remove(net, source, range(8), net.layers[0], sets[:2])
    table = removed.to_frame()
    np.testing.assert_allclose(table.accuracy, (removed.labels == removed.predicted.T).mean(1))
    matched = dissection.match((net, net), source, range(8), (net.layers[0],) * 2)
    np.testing.assert_array_equal(matched.to_frame().value, matched.value)
