"""Recordings: wav files and arrays, good and bad, to bytes."""

import io
import os

import numpy as np
import pytest
import soundfile
from recordings import FULL, config, header, riff, tone, write_recordings, write_wav

from mixaug_jax import data
from mixaug_jax.data.layout import class_files
from mixaug_jax.data.speech import recordings, sound_files


@pytest.fixture
def root(tmp_path):
    write_recordings(tmp_path)
    return tmp_path


def sentence(path):
    """Why a file cannot be read; "" where it can."""
    try:
        found, rate = sound_files.read_sound(path)
    except ValueError as error:
        return str(error)
    assert len(found)
    assert np.isfinite(found).all()
    assert 100 <= rate <= 10**6
    return ""


BAD_FILES = {
    "empty": (b"", "cannot be read as sound"),
    "text": (b"this is no recording, but some words", "cannot be read as sound"),
    "header only": (riff(header(), b"")[:30], "cut short: its sound is missing"),
    "cut": (riff(header(), bytes(500), said=1000), "holds 500 of its 1000 bytes"),
    "cut within a frame": (riff(header(channels=2), bytes(7), said=8), "holds 7 of its 8 bytes"),
    "a chunk past the end": (
        riff(header(), b"")[:36] + b"LIST\xf0\xff\xff\x00" + bytes(50),
        "cut short: its sound is missing",
    ),
    "no samples": (riff(header(), b""), "has no samples"),
    "not a number": (
        riff(header(kind=3, bits=32), np.full(9, np.nan, "<f4").tobytes()),
        "has samples that are not finite",
    ),
    "no rate": (riff(header(rate=0), bytes(400)), "cannot be read as sound"),
    "a rate that no sound has": (
        riff(header(rate=2**31 - 1), bytes(400)),
        "its rate is 2147483647 Hz",
    ),
    "64 bits": (riff(header(bits=64), bytes(400)), "cannot be read as sound"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_wav_is_refused_by_name_or_left_out(root, name):
    content, sentence = BAD_FILES[name]
    (root / "train" / "low" / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"low/bad\.wav.*({sentence}).*or set data\.corrupt"):
        data.open_splits(config(root))
    skipping = config(root)
    skipping.data.corrupt = "skip"
    assert len(data.open_splits(skipping)["train"]) == 16


def test_sound_in_folders_within_a_class_and_of_every_kind(root):
    for name in ("deep/a.flac", "deep/b.OGG"):
        path = root / "train" / "low" / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, tone(400), 8000, format=path.suffix[1:].upper())
    assert len(data.open_splits(config(root))["train"]) == 18


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(root):
    (root / "train" / "low" / "0.wav").chmod(0)
    with pytest.raises(ValueError, match=r"0\.wav cannot be read: Permission denied"):
        data.open_splits(config(root))


def test_examples_of_a_folder(root):
    source = data.open_splits(config(root))["train"]
    assert (len(source), source.class_names) == (16, ("high", "low"))
    assert [source[i]["label"] for i in range(16)] == [0] * 8 + [1] * 8
    for i in range(16):
        example, samples = source[i], 300 + 400 * (i % 8)
        frames = 1 + -(-(samples - 128) // 80)
        columns = max(16, frames)
        assert example["image"].shape == (16, columns, 1)
        assert example["image"].dtype == np.uint8
        assert example["valid"].shape == (columns,)
        assert example["valid"].sum() == frames
        assert example["image"].max() == 255
        assert (example["image"][:, ~example["valid"]] == 0).all()
        before, after = np.flatnonzero(example["valid"])[[0, -1]] - [0, columns - 1]
        assert 0 <= -after - before <= 1  # in the middle
    # The highest band is the first row: 2500 Hz stands above 400 Hz.
    loudest = [source[i]["image"].max(axis=1).argmax() for i in (0, 8)]
    assert loudest[0] < loudest[1]


def test_stereo_is_averaged_and_other_rates_are_resampled_and_both_are_said(tmp_path, capsys):
    rate = 44100
    for name in ("a", "b"):
        write_wav(tmp_path / "train" / name / "8k.wav", tone(700))
    wide = tone(700, 5513, rate)
    write_wav(
        tmp_path / "train" / "b" / "44k.wav", np.stack([1.5 * wide, 0.5 * wide], 1), rate=rate
    )
    settings = config(tmp_path)
    settings.data.validation_split = ""
    source = data.open_source("train", settings)
    said = capsys.readouterr().out
    assert "train: 1 of 3 recordings are averaged over their channels\n" in said
    assert "train: 1 of 3 recordings are resampled from 44100 to 8000 Hz\n" in said
    images = [source[i]["image"].astype(float)[:, 2:-4] for i in range(3)]
    # The same sound: only what is 50 dB below it tells the two apart.
    audible = images[0] > 255 * 50 / 80
    np.testing.assert_allclose(images[1][audible], images[0][audible], atol=3)


@pytest.mark.parametrize("old", [4000, 8000, 11025, 22050, 48000, 7999])
def test_resampled_tone(old):
    samples = recordings.resample(tone(500, 2 * old // 5, old).astype(np.float32), old, 8000)
    assert samples.dtype == np.float32
    assert len(samples) == -(-(2 * old // 5) * 8000 // old)
    np.testing.assert_allclose(
        samples[200:-200], tone(500, 3400)[200 : len(samples) - 200], atol=5e-3
    )


def test_what_the_new_rate_cannot_hold_does_not_fold_back():
    samples = recordings.resample(tone(6000, 8820, 44100).astype(np.float32), 44100, 8000)
    assert np.abs(samples[50:-50]).max() < 0.005  # of 0.5; the tone's sudden start is no tone


@pytest.mark.parametrize("samples", [1, 2, 50, 127, 128, 129, 1200, 1328, 1329, 20000])
@pytest.mark.parametrize("kind", ["silence", "sound", "click", "faint"])
def test_a_picture_of_any_length(samples, kind):
    sound = {
        "silence": np.zeros(samples),
        "sound": tone(900, samples) + 0.1,
        "click": np.eye(1, samples)[0],
        "faint": 1e-7 * tone(900, samples) + 1e-8,
    }[kind].astype(np.float32)
    image, valid = recordings.picture(sound, 16, config("").data.audio)
    frames = 1 + -(-max(0, samples - 128) // 80)
    assert image.shape == (16, max(16, frames), 1)
    assert valid.sum() == frames
    # A click on the window's very edge, where the window is 0, is no sound either.
    assert image.max() == (0 if kind in ("silence", "click") or samples == 1 else 255)


@pytest.mark.parametrize("samples", [np.zeros(0), np.array([0.1, np.nan]), np.zeros((3, 1))])
@pytest.mark.usefixtures("unchecked")
def test_samples_that_make_no_picture(samples):
    with pytest.raises(ValueError, match="samples must be one or more finite numbers"):
        recordings.picture(samples, 16, config("").data.audio)


def arrays(**change):
    """Four recordings of each of three classes, of which one is test and one validation data."""
    rng = np.random.default_rng(0)
    length = rng.integers(200, 2000, 12)
    made = {
        "audio": rng.integers(-9000, 9000, length.sum()).astype(np.int16),
        "length": length,
        "label": np.arange(12) % 3,
        "rate": 8000,
        "index": np.repeat([0, 5, 10, 49], 3),
    } | change
    return {name: value for name, value in made.items() if value is not None}


def npz(tmp_path, **change):
    np.savez(tmp_path / "set.npz", **arrays(**change))
    settings = config(tmp_path / "set.npz")
    settings.data.batch_size = 4
    return settings


def test_arrays_are_the_recordings_of_a_folder(tmp_path):
    opened = data.open_splits(npz(tmp_path, class_names=np.array(["one", "two", "six"])))
    assert {name: len(source) for name, source in opened.items()} == {
        "train": 6,
        "validation": 3,
        "test": 3,
    }
    assert opened["test"].class_names == ("one", "two", "six")
    made, root = arrays(), tmp_path / "folder"
    ends = np.cumsum(made["length"])
    for i, (end, length) in enumerate(zip(ends, made["length"], strict=True)):
        part = {0: "test", 5: "val"}.get(made["index"][i], "train")
        name = ("c-one", "d-two", "e-six")[made["label"][i]]
        samples = made["audio"][end - length : end] / FULL[2]  # what write_wav multiplies by
        write_wav(root / part / name / f"{i:02}.wav", samples)
    for split in ("train", "validation", "test"):
        source = data.open_source(split, config(root))
        found = sorted(
            (e["label"], e["image"].tobytes()) for e in map(opened[split].read, range(3))
        )
        same = sorted(
            (e["label"], e["image"].tobytes()) for e in map(source.read, range(len(source)))
        )
        assert set(found) <= set(same)
        assert len(source) == len(opened[split])


def test_arrays_with_splits_floats_and_digits(tmp_path):
    split = np.array(["train", "train", "test"] * 4)
    label = np.arange(12) // 2 % 2
    floats = (arrays()["audio"] / 2**15).astype(np.float64)
    opened = npz(tmp_path, audio=floats, index=None, split=split, label=None, digit=label)
    opened.data.validation_split = ""
    sources = data.open_splits(opened)
    assert (len(sources["train"]), len(sources["test"])) == (8, 4)
    assert sources["validation"] is None
    assert [sources["test"][i]["label"] for i in range(4)] == label[2::3].tolist()
    whole = npz(tmp_path, index=None, split=split, label=label)
    whole.data.validation_split = ""
    for i in range(8):
        image = data.open_source("train", whole)[i]["image"]
        np.testing.assert_array_equal(sources["train"][i]["image"], image)


LENGTH = arrays()["length"]


BAD_ARRAYS = [
    ({"audio": None}, r"has no array audio; it has index, label, length, rate"),
    ({"label": None}, "has no array label"),
    ({"index": None}, "neither split nor index"),
    (
        {"audio": arrays()["audio"].astype(np.int32)},
        "audio must be int16 or floating point; got int32",
    ),
    ({"audio": arrays()["audio"][:-1]}, "length adds up to others"),
    ({"length": LENGTH - 1}, "length adds up to others"),
    ({"label": np.arange(11)}, "one value a recording"),
    ({"index": np.arange(11)}, "one value a recording"),
    ({"label": np.arange(12) % 3 - 1}, "labels from 0 up"),
    ({"label": np.arange(12) / 3}, "must be integers"),
    ({"class_names": np.array(["a", "b"])}, "has label 2, but 2 class_names"),
    ({"class_names": np.array(list("abcd"))}, "class 'd' has no recordings to train on"),
    ({"label": np.where(np.arange(12) < 3, 2, 0)}, "class '1' has no recordings to train on"),
    ({"index": np.full(12, 30)}, "no recordings for the split 'validation'; it has train"),
    ({"rate": 0}, "rate must be one number"),
    ({"rate": np.full(12, 8000)}, "rate must be one number"),
    ({"rate": "8k"}, "rate must be one number of samples a second, whole and above 0; got 8k"),
    ({"rate": 8000.7}, r"rate must be one number .* got 8000\.7"),
    ({"rate": np.inf}, r"rate must be one number .* got inf"),
    (
        {"split": np.array(["train", "val", "test"] * 4)},
        "set.npz: split must be one of train, validation, test; got 'val'",
    ),
    ({"audio": np.full(LENGTH.sum(), np.nan)}, "recording 6 of .*set.npz has samples that are not"),
]


@pytest.mark.parametrize("change", range(len(BAD_ARRAYS)))
def test_arrays_that_are_wrong(tmp_path, change):
    change, sentence = BAD_ARRAYS[change]
    with pytest.raises(ValueError, match=sentence):
        data.open_splits(npz(tmp_path, **change))


def test_a_recording_without_samples_is_refused_or_left_out(tmp_path):
    length = LENGTH.copy()
    length[6], length[9] = 0, length[9] + length[6]
    bad = npz(tmp_path, length=length)
    with pytest.raises(ValueError, match=r"recording 6 of .*set\.npz has no samples"):
        data.open_splits(bad)
    bad.data.corrupt = "skip"
    assert len(data.open_splits(bad)["train"]) == 5
    bad = npz(tmp_path, audio=np.full(LENGTH.sum(), np.inf))
    bad.data.corrupt = "skip"
    with pytest.raises(ValueError, match="none of the 3 recordings for test can be read"):
        data.open_source("test", bad)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("", "data.dir is empty: .*<recording>.wav"),
        ("nowhere", "nowhere is no folder"),
        ("nowhere.npz", r"nowhere\.npz is no file"),
        ("damaged.npz", r"damaged\.npz cannot be read as \.npz"),
    ],
)
def test_no_data(tmp_path, place, sentence):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays())
    (tmp_path / "damaged.npz").write_bytes(buffer.getvalue()[:-400])
    with pytest.raises(ValueError, match=sentence):
        data.open_splits(config(tmp_path / place if place else ""))


def test_a_split_without_recordings(root):
    for name in ("low", "high"):
        for path in (root / "test" / name).glob("*.wav"):
            path.rename(path.with_suffix(".mp3"))
        if name == "low":
            assert len(data.open_splits(config(root))["test"]) == 4
    with pytest.raises(ValueError, match=r"test has no recordings \(\.wav, \.flac, \.ogg\)"):
        data.open_splits(config(root))


def test_layout_of_class_folders(root):
    files, names = class_files(config(root), "validation", (".wav",), "recording")
    assert names == ("high", "low")
    assert [(path.name, label) for path, label in files] == [
        (f"{i}.wav", label) for label in (0, 1) for i in range(3)
    ]
