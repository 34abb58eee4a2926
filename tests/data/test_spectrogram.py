"""Spectrograms against librosa's (arrays of mel_golden.py, and itself where installed), and masks."""

import pathlib

import jax
import jax.numpy as jnp
import mel_golden
import numpy as np
import pytest

from mixaug_jax.data.speech import spectrogram

BANDS = {"rate": 8000, "window": 64, "hop": 24, "bands": 8}
STORED = np.load(pathlib.Path(__file__).parents[1] / "data" / "mel.npz")


def settings(i):
    rate, window, hop, bands, low, high = (int(x) for x in STORED["settings"][i])
    return {"rate": rate, "window": window, "hop": hop, "bands": bands, "low": low, "high": high}


@pytest.mark.parametrize("i", range(len(STORED["settings"])))
def test_librosas_arrays(i):
    options = settings(i)
    band_options = {name: value for name, value in options.items() if name != "hop"}
    filters = spectrogram.mel_filters(**band_options)
    np.testing.assert_allclose(filters, STORED[f"filters_{i}"], rtol=1e-5, atol=1e-9)
    power = spectrogram.mel_power(STORED[f"wave_{i}"], spectrogram.Mel(**options))
    wanted = STORED[f"power_{i}"]
    np.testing.assert_allclose(power, wanted, rtol=1e-4, atol=1e-6 * wanted.max())
    levels = spectrogram.decibels(power, span=30.0)
    np.testing.assert_allclose(levels, STORED[f"decibels_{i}"], atol=1e-3)


def test_librosa_itself():
    librosa = pytest.importorskip("librosa", reason="only oracles need librosa")
    wave = mel_golden.waves(22050, 512, 200)
    mine = spectrogram.mel_power(wave, spectrogram.Mel(22050, 512, 200, bands=32, low=100))
    options = {"n_fft": 512, "hop_length": 200, "n_mels": 32, "fmin": 100}
    wanted = librosa.feature.melspectrogram(y=wave, sr=22050, center=False, **options)
    np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-6 * wanted.max())


def by_hand(wave, rate, window, hop, bands):
    """float64, frame by frame, with a Fourier transform written as a sum."""
    frames = 1
    while window + (frames - 1) * hop < len(wave):
        frames += 1
    wave = np.concatenate([wave, np.zeros(window + frames * hop)]).astype(np.float64)
    time = np.arange(window)
    hann = np.sin(np.pi * time / window) ** 2
    waves = np.exp(-2j * np.pi * np.outer(np.arange(window // 2 + 1), time) / window)
    columns = [
        np.abs(waves @ (hann * wave[f * hop : f * hop + window])) ** 2 for f in range(frames)
    ]
    return spectrogram.mel_filters(rate, window, bands) @ np.stack(columns, 1)


@pytest.mark.parametrize("samples", [1, 5, 63, 64, 65, 87, 88, 89, 200])
def test_every_sample_is_in_a_frame(samples):
    wave = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
    power = spectrogram.mel_power(wave, spectrogram.Mel(**BANDS))
    wanted = by_hand(wave, 8000, 64, 24, 8)
    assert power.shape == wanted.shape == (8, spectrogram.frame_count(samples, 64, 24))
    np.testing.assert_allclose(power, wanted, rtol=1e-4, atol=1e-6 * wanted.max())


def test_a_hop_longer_than_the_window():
    assert spectrogram.frame_count(100, 10, 60) == 3
    power = spectrogram.mel_power(np.ones(70, np.float32), spectrogram.Mel(8000, 64, 100, 4))
    assert power.shape == (4, 2)
    assert np.asarray(power)[:, 1].max() == 0


def test_filters_have_area_one_and_rise_in_order():
    filters = spectrogram.mel_filters(16000, 4096, 30)
    np.testing.assert_allclose(filters.sum(axis=1) * 16000 / 4096, 1, rtol=0.02)
    assert (np.diff(filters.argmax(axis=1)) > 0).all()
    assert (filters >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((8000, 64, 64), "64 bands from 0.0 to 4000.0 Hz are too narrow for windows of 64 samples"),
        ((8000, 256, 8, 0.0, 5000.0), "0..4000.0, half the rate"),
        ((8000, 256, 8, 3000.0, 2000.0), "from 3000.0 to 2000.0 Hz"),
        ((8000, 256, 8, -1.0), "must rise within"),
    ],
)
def test_bands_that_cannot_be(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        spectrogram.mel_filters(*arguments)


def test_loudness_does_not_count_and_silence_is_the_floor():
    power = np.abs(np.random.default_rng(0).normal(size=(5, 7))).astype(np.float32) ** 8
    levels = np.asarray(spectrogram.decibels(power, span=60.0))
    assert levels.max() == 0
    assert levels.min() >= -60
    np.testing.assert_allclose(spectrogram.decibels(power * 1e-9, span=60.0), levels, atol=1e-4)
    np.testing.assert_array_equal(spectrogram.decibels(np.zeros((5, 7)), span=60.0), -60.0)


def test_bytes_reach_from_the_floor_to_the_loudest_cell():
    levels = jnp.array([[-80.0, -40.0], [-79.9, 0.0], [-0.2, -0.1]])
    image = spectrogram.to_bytes(levels)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], [[254, 255], [0, 255], [0, 128]])


def masked(valid, seeds=8, **options):
    """Where ones [seeds, 12, len(valid)] have become 0."""
    ones = jnp.ones((seeds, 12, len(valid), 1))
    valid = jnp.broadcast_to(jnp.asarray(valid), (seeds, len(valid)))
    mask = jax.jit(lambda s: spectrogram.mask_bands_and_frames(ones, s, valid, **options))
    return np.asarray(mask(jnp.arange(seeds, dtype=jnp.uint32)))[..., 0] == 0


def test_masks_are_whole_runs_of_bands_and_of_valid_frames():
    valid = np.zeros(20, bool)
    valid[5:15] = True
    holes = masked(valid, 200, masks=1, bands=0.25, frames=0.41)
    rows, cols = holes.all(axis=2), holes.all(axis=1)
    np.testing.assert_array_equal(holes, rows[:, :, None] | cols[:, None])
    assert not cols[:, ~valid].any()
    for runs, most, places in ((rows, 3, np.ones(12, bool)), (cols, 4, valid)):
        lengths = runs.sum(axis=1)
        assert set(lengths) == set(range(most + 1))
        starts = (np.diff(runs, axis=1, prepend=False) & runs).sum(axis=1)
        np.testing.assert_array_equal(starts, lengths > 0)  # one run, not several pieces
        assert runs.any(axis=0)[places].all()  # everything valid is hidden sometimes


def test_a_mask_depends_on_its_own_seed_alone():
    valid = np.ones(9, bool)
    many = masked(valid, 6, masks=2, bands=0.3, frames=0.5)
    np.testing.assert_array_equal(masked(valid, 3, masks=2, bands=0.3, frames=0.5), many[:3])
    assert len({hole.tobytes() for hole in many}) == 6


def test_masks_at_their_limits():
    valid = np.ones(9, bool)
    assert not masked(valid, masks=0, bands=1.0, frames=1.0).any()
    assert not masked(valid, masks=3, bands=0.0, frames=0.0).any()
    assert masked(valid, 64, masks=1, bands=1.0, frames=0.0).all(axis=(1, 2)).any()
    one = np.arange(9) == 4
    holes = masked(one, 64, masks=1, bands=0.0, frames=1.0)
    assert holes[:, :, 4].all(axis=1).any()
    assert not holes[:, :, ~one].any()
    assert not masked(np.zeros(9, bool), masks=2, bands=0.0, frames=1.0).any()
