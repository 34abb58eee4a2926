"""Recordings as a data set: each becomes the picture of its log-mel spectrogram.

data.dir is a folder of wav, flac or ogg files, or one .npz file of arrays:

    DIR/train/<class>/**   DIR/val/<class>/** (or valid/, validation/)   DIR/test/<class>/**

    audio   int16 [samples], or floating point in -1..1: all recordings, one after the other
    length  int [N], samples of each recording
    label   int [N], number of its class (`digit` is another name for it)
    rate    int, samples a second
    class_names  str [classes]; where it is left out, classes are called by their numbers
    split   str [N], "train", "validation" or "test"; or, in its place,
    index   int [N], number of the recording among those of its class and speaker: below 5 is the
            test split, 5 to 9 the validation split, the rest the training split. The first is the
            official rule of the Free Spoken Digit Dataset, which has no validation split.

Files may have any rate and number of channels: channels are averaged, another rate than data.audio.rate is resampled, and a
line says how many were. Silence is a black picture. What holds no sound at all is refused by name: a file without samples, one
cut short, one with samples that are not finite.

The picture is uint8 [data.size,frames,1]: a row for each mel band, the highest first, a column
for each frame; 255 is the recording's loudest cell, 0 what lies data.audio.span decibels below it
(`spectrogram`). So how loud a recording is does not count. A recording of less than data.size
frames stands in the middle, with black on both sides; `valid` tells it from its padding. Longer
ones keep all their frames, and the network sees data.size of them.

Bytes, and not the waveform, are what crosses to the device: so sound takes the road of photographs,
and mixing, checkpoints, attribution and the report need not know of it. Spectrograms are computed
once, in JAX, when a split is opened. What it costs: a step of a byte is 0.31 dB at 80 dB; against
float32 inputs the logits of a network for spoken digits moved by 0.006 on average and 0.06 at most,
where they spread by 5.
"""

import functools
import math
import pathlib

import jax
import numpy as np

from mixaug_jax.core import checks, say
from mixaug_jax.core.types import Bool, Config, Float, UInt8
from mixaug_jax.data.layout import class_files
from mixaug_jax.data.source import Source
from mixaug_jax.data.speech import spectrogram
from mixaug_jax.data.speech.sound_files import SUFFIXES, read_sound

_TEST, _VALIDATION = range(5), range(5, 10)  # numbers of recordings
_SPLITS = ("train", "validation", "test")


def open_speech(split: str, config: Config, *, annotations: bool = True) -> Source:
    """A split of the recordings in config.data.dir.

    An example has, besides image and label, `valid`: bool [frames], True where a frame (a column of
    the image) belongs to the recording.

    Args:
      split: "train", "validation" or "test".
      config: the resolved config; reads data.{dir, size, corrupt} and data.audio.
      annotations: without effect: recordings have none.

    Raises:
      ValueError: no such folder or file, one that is not laid out as above, a split or a class
        without recordings, or, with data.corrupt="error", a recording that cannot be read.
    """
    del annotations
    if config.data.dir.endswith(".npz"):
        recordings, class_names = _read_arrays(pathlib.Path(config.data.dir).expanduser(), split)
    else:
        files, class_names = class_files(config, split, SUFFIXES, "recording")
        recordings = [(functools.partial(read_sound, path), label) for path, label in files]
    examples = _examples(recordings, split, config)
    return Source(examples.__getitem__, len(examples), class_names)


def _examples(recordings, split, config):
    """The examples of [(read, label)]; `read()` gives samples [n,channels] and their rate."""
    # Whole spectrograms are kept: as bytes a recording takes less memory so than as samples.
    rate, examples, changes = config.data.audio.rate, [], []
    for read, label in recordings:
        try:
            samples, own_rate = read()
        except ValueError as error:
            if config.data.corrupt != "skip":
                raise ValueError(
                    f'{error}; mend or remove it, or set data.corrupt="skip"'
                ) from error
            say.warning(f"{error}; it is left out")
            continue
        if samples.shape[1] > 1:
            changes.append("averaged over their channels")
        if own_rate != rate:
            changes.append(f"resampled from {own_rate} to {rate} Hz")
        samples = resample(samples.mean(axis=1), own_rate, rate)
        image, valid = picture(samples, config.data.size, config.data.audio)
        examples.append({"image": image, "label": label, "valid": valid})
    if not examples:
        raise ValueError(f"none of the {len(recordings)} recordings for {split} can be read")
    for change in sorted(set(changes)):
        say.line(f"{split}: {changes.count(change)} of {len(recordings)} recordings are {change}")
    return examples


def picture(
    samples: Float[np.ndarray, " n"], size: int, audio: Config
) -> tuple[UInt8[np.ndarray, "{size} frames 1"], Bool[np.ndarray, " frames"]]:
    """A recording as the network sees it.

    Args:
      samples: float32 [n], n at least 1, one channel at the rate of `audio`.
      size: bands, and the least number of columns.
      audio: the settings config.data.audio; reads rate, window, hop, low, high and span.

    Returns:
      image uint8 [size,max(size,frames),1] and valid bool [max(size,frames)].

    Raises:
      ValueError: bands that the window cannot tell apart, or beyond half the rate; no samples, or ones
        that are not finite.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise ValueError(
            f"samples must be one or more finite numbers [n]; got {list(samples.shape)}"
        )
    window, hop = round(audio.window * audio.rate), round(audio.hop * audio.rate)
    frames = spectrogram.frame_count(len(samples), window, hop)
    # Whole powers of two, so that recordings of all lengths share a few compiled programs.
    room = max(size, 1 << (frames - 1).bit_length())
    padded = np.zeros(window + (room - 1) * hop, np.float32)
    padded[: len(samples)] = samples
    mel = spectrogram.Mel(audio.rate, window, hop, size, audio.low, audio.high)
    image = np.asarray(_picture(padded, mel, audio.span))
    # In the middle, so that a crop of the network's size shows a short recording whole.
    width = max(size, frames)
    left = (width - frames) // 2
    placed = np.zeros((size, width, 1), np.uint8)
    placed[:, left : left + frames] = image[:, :frames]
    valid = np.zeros(width, bool)
    valid[left : left + frames] = True
    return placed, valid


@functools.partial(jax.jit, static_argnums=(1, 2))
def _picture(samples, mel, span):
    power = spectrogram.mel_power(samples, mel)
    return spectrogram.to_bytes(spectrogram.decibels(power, span=span), span=span)


def resample(
    samples: Float[np.ndarray, " n"], old: int, new: int
) -> Float[np.ndarray, " resampled"]:
    """float32 [n] at `old` samples a second as float32 [ceil(n new / old)] at `new`.

    SciPy's polyphase filter, whose low pass keeps what the new rate cannot hold from folding back.
    """
    if old == new:
        return samples
    from scipy.signal import resample_poly  # takes long to import, and most sets do not need it

    common = math.gcd(old, new)
    return resample_poly(samples, new // common, old // common).astype(np.float32)


def _read_arrays(path, split):
    """([(read, label)] of a split, class_names) from an .npz file."""
    # Names may be left out; classes then have their numbers as names.
    arrays = _load(path)
    audio, length, label = arrays["audio"], arrays["length"], arrays["label"]
    names = tuple(map(str, arrays.get("class_names", range(label.max() + 1))))
    if label.max() >= len(names):
        raise ValueError(f"{path} has label {label.max()}, but {len(names)} class_names")
    # A class that training never sees could not be told from one that is hard.
    parts = _parts(path, arrays)
    empty = set(range(len(names))) - set(label[parts == "train"].tolist())
    if empty:
        raise ValueError(f"{path}: class {names[min(empty)]!r} has no recordings to train on")
    # Recordings lie one after the other; each is cut out when it is read.
    chosen = np.flatnonzero(parts == split)
    if not len(chosen):
        raise ValueError(
            f"{path} has no recordings for the split {split!r}; it has {', '.join(np.unique(parts))}"
        )
    ends = np.cumsum(length)

    def read(i: int) -> tuple[np.ndarray, int]:
        samples = audio[ends[i] - length[i] : ends[i]]
        if not len(samples):
            raise ValueError(f"recording {i} of {path} has no samples")
        if not np.isfinite(samples).all():
            raise ValueError(f"recording {i} of {path} has samples that are not finite")
        scale = 2**15 if samples.dtype == np.int16 else 1
        return samples.astype(np.float32)[:, None] / scale, int(arrays["rate"])

    return [(functools.partial(read, i), int(label[i])) for i in chosen.tolist()], names


def _parts(path, arrays):
    """The split of each recording, str [N]."""
    if "split" in arrays:
        checks.choices(f"{path}: split", np.unique(arrays["split"]).tolist(), _SPLITS)
        return arrays["split"]
    if "index" not in arrays:
        raise ValueError(f"{path} has neither split nor index, which say what is test data")
    index = arrays["index"]
    held_out = np.where(np.isin(index, _VALIDATION), "validation", "train")
    return np.where(np.isin(index, _TEST), "test", held_out)


def _load(path):
    """The arrays of an .npz file by name, once their form is right."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise ValueError(f"data.dir={path} is no file") from None
    except Exception as error:  # a damaged archive makes NumPy raise almost anything
        raise ValueError(f"data.dir={path} cannot be read as .npz: {error}") from error
    # The Free Spoken Digit Dataset calls its labels so.
    if "digit" in arrays:
        arrays.setdefault("label", arrays["digit"])
    # What is missing, then what has another form than the docstring says.
    missing = [name for name in ("audio", "length", "label", "rate") if name not in arrays]
    if missing:
        raise ValueError(f"{path} has no array {missing[0]}; it has {', '.join(sorted(arrays))}")
    audio, length, label = arrays["audio"], arrays["length"], arrays["label"]
    if audio.dtype != np.int16 and audio.dtype.kind != "f":
        raise ValueError(f"{path}: audio must be int16 or floating point; got {audio.dtype}")
    # One value for each recording, and as many samples as their lengths add up to.
    per_recording = [arrays[k] for k in ("length", "label", "split", "index") if k in arrays]
    if not label.size or any(a.shape != label.shape[:1] for a in per_recording):
        raise ValueError(f"{path}: length, label, split and index need one value a recording")
    if length.dtype.kind not in "iu" or label.dtype.kind not in "iu" or label.min() < 0:
        raise ValueError(f"{path}: length and label must be integers, labels from 0 up")
    if length.min() < 0 or audio.shape != (length.sum(),):
        raise ValueError(f"{path}: audio has {audio.shape} samples, and length adds up to others")
    # A rate that is not whole would resample every recording by another factor.
    rate = arrays["rate"]
    number = rate.shape == () and rate.dtype.kind in "iuf" and np.isfinite(rate)
    if not number or rate < 1 or rate != int(rate):
        raise ValueError(
            f"{path}: rate must be one number of samples a second, whole and above 0; got {rate}"
        )
    return arrays
