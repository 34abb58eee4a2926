"""UPerNet against the outputs of its authors' code, and its label maps."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe

from mixaug_jax.models import upernet, weight_files
from mixaug_jax.models.pickles import Tensor

LABELS = upernet.labels()


def test_labels_are_the_authors(golden_text):
    lists = json.loads(golden_text("dissection/upp_labels.json"))
    for key in ("object", "part", "material", "scene"):
        assert list(getattr(LABELS, f"{key}s")) == lists[key]
    for name, parts in lists["object_part"].items():
        own = LABELS.part[LABELS.owner == LABELS.objects.index(name)]
        assert [LABELS.parts[number] for number in own] == parts
    assert len(LABELS.part) == 427
    assert (np.diff(LABELS.owner) >= 0).all()


@pytest.fixture(scope="module")
def variables(golden_text):
    """From the recipe of the reference: every one of its keys is used, and no other is needed."""
    keys = json.loads(golden_text("dissection/upp_state_dict.json"))
    assert len(keys) == 363
    states = {"encoder": {}, "decoder": {}}
    for key, shape in keys.items():
        part, _, name = key.partition(":")
        read = functools.partial(recipe.weight, key, shape)
        states[part][name] = Tensor(tuple(shape), np.dtype(np.float32), read)
    with pytest.MonkeyPatch.context() as patch:
        # In place of two files of 300 MB.
        patch.setattr(weight_files, "read_state", lambda part: weight_files.State(states[part], {}))
        return upernet.import_upernet("encoder", "decoder")


@jax.jit
def encoded(variables, x):
    """The outputs of layer1 to layer4."""
    features = []

    def keep(layer, h):
        if layer in upernet.Encoder.hidden_layers:
            features.append(h)
        return h

    encoder = upernet.Encoder(0, (3, 4, 6, 3), True, 64, "imagenet")
    encoder.apply({c: variables[c]["encoder"] for c in variables}, x, stop="layer4", hidden=keep)
    return features


def test_features_of_the_authors_encoder(variables, golden):
    arrays = golden("dissection/upp_check.npz")
    features = encoded(variables, arrays["image"].transpose(0, 2, 3, 1))
    for i, feature in enumerate(features, 2):
        assert np.shape(feature) == tuple(arrays[f"feat{i}_shape"][[0, 2, 3, 1]])
        close(feature.mean((0, 1, 2)), arrays[f"feat{i}_mean"])
    close(features[-1][0, :, :, :8].transpose(2, 0, 1), arrays["feat5_first8"])


def test_probabilities_of_the_authors_decoder(variables, golden):
    arrays = golden("dissection/upp_check.npz")
    # The reference is given the network's input: blue, green and red, less their means.
    image = (arrays["image"][0].transpose(1, 2, 0) + np.float32(upernet.MEAN))[..., ::-1]
    found = upernet.probabilities(variables, image, (96, 128), (24, 32))
    close(found["scene"], arrays["scene"])
    for task in ("object", "material"):
        close(found[task][::2, ::2].transpose(2, 0, 1), arrays[task])
        np.testing.assert_array_equal(found[task].argmax(-1), arrays[f"{task}_argmax"])
    building = found["part"][:, :, LABELS.owner == LABELS.objects.index("building")]
    close(building[::2, ::2].transpose(2, 0, 1), arrays["part_building"])
    for number, count, expected in zip(
        arrays["part_objects"], arrays["part_counts"], arrays["part_argmax"], strict=True
    ):
        own = found["part"][:, :, LABELS.owner == number]
        assert own.shape[-1] == count
        np.testing.assert_array_equal(own.argmax(-1), expected)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bins", upernet.BINS)
def test_pooling_of_the_authors_code(bins, golden):
    arrays = golden("dissection/upp_check.npz")
    pooled = upernet.precise_pool(jnp.asarray(arrays["pool_input"].transpose(0, 2, 3, 1)), bins)
    np.testing.assert_allclose(
        pooled.transpose(0, 3, 1, 2), arrays[f"pool_out_{bins}"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("length", "bins"), [(1, 1), (1, 6), (3, 2), (7, 3), (16, 6)])
def test_pool_weights_are_integrals(length, bins):
    step = 1 / 2000
    places = np.arange(step / 2, length, step)  # midpoints
    hats = np.clip(1 - np.abs(places - np.arange(length)[:, None]), 0, None)
    bin_of = np.floor(places * bins / length).astype(int)
    expected = np.stack([hats[:, bin_of == b].mean(1) for b in range(bins)])
    np.testing.assert_allclose(upernet.pool_weights(length, bins), expected, atol=1e-3)


def test_part_probabilities():
    logits = np.random.default_rng(0).normal(size=(2, 3, 427)).astype(np.float32)
    logits[0, 0, LABELS.owner == 6] -= 200  # far below the others, and still probabilities
    found = np.asarray(upernet.part_probabilities(jnp.asarray(logits)))
    for number in np.unique(LABELS.owner):
        own = LABELS.owner == number
        np.testing.assert_allclose(found[..., own], nn.softmax(logits[..., own]), atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (480, 640, 300, (304, 400)),
        (640, 480, 600, (800, 600)),
        (100, 1000, 300, (104, 1000)),
        (256, 256, 256, (256, 256)),
        (375, 500, 500, (504, 672)),
    ],
)
def test_input_size(height, width, size, expected):
    assert upernet.input_size(height, width, size) == expected


def test_label_maps_from_probabilities():
    rng = np.random.default_rng(1)
    total = {
        "object": rng.random((3, 4, 336), np.float32),
        "material": rng.random((3, 4, 26), np.float32),
        "part": rng.random((3, 4, 427), np.float32),
    }
    total["object"][0, 0, LABELS.objects.index("building")] = 2
    total["object"][0, 1, LABELS.objects.index("wall")] = 2  # has no parts
    maps = upernet._most_probable(total)
    assert {m.dtype for m in maps.values()} == {np.dtype(np.uint16)}
    assert maps["part"][0, 1] == 0
    for row, col in np.ndindex(3, 4):
        number = total["object"][row, col].argmax()
        own = LABELS.owner == number
        expected = LABELS.part[own][total["part"][row, col, own].argmax()] if own.any() else 0
        assert (maps["object"][row, col], maps["part"][row, col]) == (number, expected)


def test_segment_averages_sizes(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    calls = []

    def fake(variables, image, inner, outer):
        calls.append((inner, outer))
        rng = np.random.default_rng(len(calls))
        sizes = {"object": 336, "material": 26, "part": 427}
        maps = {task: rng.random((*outer, n), np.float32) for task, n in sizes.items()}
        return maps | {"scene": rng.random(365, np.float32)}

    monkeypatch.setattr(upernet, "probabilities", fake)
    maps = upernet.segment({}, image, (40, 80))
    assert calls == [((40, 56), (40, 56)), ((80, 112), (40, 56))]
    both = [np.random.default_rng(i).random((40, 56, 336), np.float32) for i in (1, 2)]
    np.testing.assert_array_equal(maps["object"], sum(both).argmax(-1))
    assert 0 <= maps["scene"] < 365


@pytest.mark.parametrize(
    ("image", "sizes", "message"),
    [
        (
            np.zeros((64, 64), np.uint8),
            (64,),
            r"must be uint8 \[H,W,3\]; got uint8 \[64, 64\]",
        ),
        (np.zeros((64, 64, 3), np.float32), (64,), "got float32"),
        (np.zeros((64, 64, 3), np.uint8), (), r"sizes must be one or more.* got \(\)"),
        (np.zeros((64, 64, 3), np.uint8), (16,), "none below 32 pixels"),
    ],
)
def test_segment_refuses(image, sizes, message):
    with pytest.raises(ValueError, match=message):
        upernet.segment({}, image, sizes)


def test_import_says_which_part_does_not_fit(tmp_path):
    for part in ("encoder", "decoder"):
        np.savez(tmp_path / f"{part}.npz", **{"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    with pytest.raises(
        ValueError, match=r"encoder\.npz does not fit the encoder of UPerNet: missing: bn1\.bias"
    ):
        upernet.import_upernet(tmp_path / "encoder.npz", tmp_path / "decoder.npz")
