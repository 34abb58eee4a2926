"""Makes data/mel.npz with librosa, for test_spectrogram.py: python tests/mel_golden.py"""

import pathlib

import numpy as np

# rate, window, hop, bands, low, high; 0: half the rate. Even, odd and tiny windows.
SETTINGS = ((8000, 256, 100, 64, 0, 0), (16000, 400, 160, 40, 50, 7000), (8000, 255, 80, 30, 0, 0))


def waves(rate, window, hop):
    """A chirp in noise, float32, of 12 whole frames."""
    seconds = np.arange(window + 11 * hop) / rate
    chirp = np.sin(2 * np.pi * (200 * seconds + 8000 * seconds**2))
    noise = np.random.RandomState(0).randn(len(seconds))
    return (0.3 * chirp + 0.02 * noise).astype(np.float32)


def main():
    import librosa  # the tests import this file where there is none

    arrays = {"settings": SETTINGS, "librosa": librosa.__version__}
    for i, (rate, window, hop, bands, low, high) in enumerate(SETTINGS):
        mel = {"sr": rate, "n_fft": window, "n_mels": bands, "fmin": low, "fmax": high or None}
        wave = waves(rate, window, hop)
        power = librosa.feature.melspectrogram(y=wave, hop_length=hop, center=False, **mel)
        arrays[f"wave_{i}"] = wave
        arrays[f"filters_{i}"] = librosa.filters.mel(**mel)
        arrays[f"power_{i}"] = power
        arrays[f"decibels_{i}"] = librosa.power_to_db(power, ref=np.max, amin=1e-30, top_db=30)
    np.savez_compressed(pathlib.Path(__file__).parent / "data" / "mel.npz", **arrays)


if __name__ == "__main__":
    main()
