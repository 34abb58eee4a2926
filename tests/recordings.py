"""What the tests of sound share: wav files of two classes, and settings for them."""

import struct
import wave

import numpy as np

from mixaug_jax.config import get_config

FULL = {1: 127, 2: 2**15 - 1, 3: 2**23 - 1, 4: 2**31 - 1}


def pcm(samples, width):
    """float in -1..1 [n, channels] as the bytes of a wav's data, by Python's own integers."""
    whole = [round(x * FULL[width]) for x in np.asarray(samples, np.float64).ravel()]
    if width == 1:
        return bytes(x + 128 for x in whole)
    return b"".join(x.to_bytes(width, "little", signed=True) for x in whole)


def write_wav(path, samples, *, rate=8000, width=2):
    samples = np.asarray(samples, np.float64)
    samples = samples[:, None] if samples.ndim == 1 else samples
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(pcm(samples, width))


def tone(frequency, samples=1000, rate=8000):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(samples) / rate)


def write_recordings(folder):
    """Two classes told apart by pitch, lengths around one view of 16 frames."""
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        for name, frequency in (("high", 2500), ("low", 400)):
            for i in range(count):
                wave_ = tone(frequency + 40 * i, 300 + 400 * i)
                write_wav(folder / split / name / f"{i}.wav", wave_)


def config(place, method="baseline"):
    config = get_config(method, "speech")
    config.data.test_split = "test"
    config.data.update(dir=str(place), size=16, batch_size=8, threads=2, pad=2)
    config.data.audio.update(window=0.016, hop=0.01)
    config.model.name, config.model.width = "tiny", 1.0
    config.train.update(epochs=2, log_every=1, warmup=0.0, lr=0.05)
    config.eval.batch_size = 4
    return config


def riff(format_, data, said=None):
    """A wav file by hand: format chunk, data chunk that says it has `said` bytes."""
    said = len(data) if said is None else said
    chunks = b"fmt " + struct.pack("<I", len(format_)) + format_
    chunks += b"data" + struct.pack("<I", said) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def header(kind=1, channels=1, rate=8000, bits=16):
    size = channels * bits // 8
    return struct.pack("<HHIIHH", kind, channels, rate, rate * size, size, bits)
