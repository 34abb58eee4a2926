"""Files of sound to samples, by libsndfile; and what it lets pass: files that are cut short, and headers that nobody wrote."""

import io
import pathlib

import numpy as np
import soundfile

from mixaug_jax.core.types import Float, Path

SUFFIXES = (".wav", ".flac", ".ogg")
_BLOCK = 2**16  # frames that are read at once: a header may promise more than memory holds
_RATES = (100, 1_000_000)  # Hz; beyond, it is damage, and resampling would take all memory
_CHANNELS = 1024
# What writers put down that do not know the length: nothing, or (with a header's length added or not) the most that fits.
_STREAMED = 0x7FFF0000
_LAST_PAGE = 4  # a flag of Ogg


def read_sound(path: Path) -> tuple[Float[np.ndarray, "n channels"], int]:
    """The samples of a file of sound, float32 [n,channels], integers as -1..1, and the rate.

    Wav (PCM of 8 to 32 bits, floating point of 32 and 64, streamed ones too), FLAC, Ogg, and what else libsndfile knows by its
    content.

    Raises:
      ValueError: the file cannot be read, is no sound, is cut short, has no samples, or some that are not finite.
    """
    path = pathlib.Path(path)
    try:
        with soundfile.SoundFile(_whole(path)) as file:
            rate, said = file.samplerate, file.frames
            _check_header(rate, file.channels)
            blocks = [file.read(_BLOCK, "float32", always_2d=True)]
            while len(blocks[-1]):
                blocks.append(file.read(_BLOCK, "float32", always_2d=True))
            streamed = file.format in ("WAV", "WAVEX", "RF64")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as sound: {error.error_string}") from error
    except Exception as error:  # a damaged file makes it raise almost anything
        raise ValueError(f"{path} cannot be read as sound: {error}") from error
    samples = np.concatenate(blocks)
    if not len(samples):
        raise ValueError(f"{path} has no samples")
    # Of a wav, the bytes are counted above: libsndfile takes what is there for what was said.
    if len(samples) < said and not streamed:
        raise ValueError(f"{path} is cut short: it holds {len(samples)} of its {said} samples")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} has samples that are not finite")
    return samples, rate


def _check_header(rate, channels):
    if not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"its rate is {rate} Hz, not {_RATES[0]} to {_RATES[1]}")
    if not 0 < channels <= _CHANNELS:
        raise ValueError(f"it has {channels} channels, not 1 to {_CHANNELS}")


def _whole(path):
    """What libsndfile is to open: the path, or the bytes of a wav whose length of 0 it would believe.

    Raises ValueError for a wav or Ogg file whose end is missing, which it takes for its end.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            place, held = _sound_of(file, path.stat().st_size, int.from_bytes(head[4:8], "little"))
            if place:
                file.seek(0)
                content = file.read()
                length = held.to_bytes(4, "little")
                return io.BytesIO(content[:place] + length + content[place + 4 :])
        elif head[:4] == b"OggS":
            file.seek(max(0, path.stat().st_size - 2**17))  # two of the longest pages
            tail = file.read()
            place = tail.rfind(b"OggS")
            if place < 0 or len(tail) < place + 27 or not tail[place + 5] & _LAST_PAGE:
                raise ValueError("it is cut short: its last page is missing")
    return str(path)


def _sound_of(file, size, said):
    """(where a wav's length of 0 stands that means "unknown", else 0; the bytes that follow it)."""
    place = 12
    while place + 8 <= size:
        file.seek(place)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        held = size - place - 8
        if name == b"data":
            if held < length < _STREAMED:
                raise ValueError(f"it is cut short: it holds {held} of its {length} bytes of sound")
            unknown = length == 0 < held < 2**32 and (said == 0 or said >= _STREAMED)
            return (place + 4 if unknown else 0), held
        place += 8 + length + length % 2
    raise ValueError("it is cut short: its sound is missing")
